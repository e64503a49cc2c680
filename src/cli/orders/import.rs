//! `recharged orders import`: open orders out of a shop's own table.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Seek as _};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::trouble;
use crate::app::{broker_trouble, kafka_options, open_checked_store};
use crate::cli::config::{ConfigArgs, environment};
use crate::cli::load::orders_topic;
use crate::cli::output::{CliError, Exit, Output};
use crate::cli::reconcile::FileFormat;
use crate::config::{Config, Needs, Secrets};
use crate::domain::{Order, OrderId, Timestamp};
use crate::import::{Candidate, Format, Problem, Rows, Stands, Terms, Twins};
use crate::kafka::{Producer, ProducerOptions};
use crate::ports::{Loaded, OutRecord, PublishError, Publisher, Store};

pub(super) const EXAMPLES: &str = "\
Examples:
  recharged orders import orders.csv --dry-run
  psql \"$SHOP\" -c \"copy (select …) to stdout with csv header\" | recharged orders import - --format csv

A line of CSV, or a line of JSON, has the data of recharge.order.created.v1: order_id, phone, amount_minor, currency and
created_at; and where it has them region, carrier, paid_at, payment_id, notify and metadata (docs/PRODUCING.md).

Exit codes: 0 all are there or were sent, 1 lines are wrong (then nothing was sent) or not all were acknowledged, 2 wrong
usage, 69 the store or the broker could not be reached, 78 bad configuration or a file that cannot be read.";

/// Orders looked at, and sent, at once.
const BATCH: usize = 1_000;
/// Whoever waits hears of so many more.
const TOLD_EVERY: u64 = 50_000;

/// What to import.
#[derive(Debug, Clone, Args)]
pub struct ImportArgs {
    /// The file; - for standard input, which is kept in a temporary file meanwhile
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// How it is written; else by its name (.csv, .tsv, .jsonl, .ndjson)
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<FileFormat>,
    /// Only look at it
    #[arg(long)]
    pub dry_run: bool,
    /// Also take orders that would be failed and refunded, or cancelled, as soon as they are read
    #[arg(long)]
    pub accept_refunds: bool,
}

impl ImportArgs {
    fn name(&self) -> String {
        self.file.display().to_string()
    }

    fn format(&self) -> Result<Format, CliError> {
        match self.format {
            Some(FileFormat::Csv) => Ok(Format::Csv),
            Some(FileFormat::Jsonl) => Ok(Format::Jsonl),
            None => self.file.to_str().and_then(Format::of).ok_or_else(|| {
                CliError::usage(format!(
                    "{}: its name tells no format: give --format csv or --format jsonl",
                    self.name()
                ))
            }),
        }
    }

    /// The file, so that it can be read twice.
    async fn open(&self) -> Result<File, CliError> {
        let unreadable = |error: io::Error| {
            CliError::config(format!("{}: it cannot be read ({error}): give a file that can", self.name()))
        };
        if self.file.as_os_str() == "-" {
            let spooling = tokio::task::spawn_blocking(spool);
            return spooling.await.map_err(|error| CliError::failed(error.to_string()))?.map_err(|error| {
                CliError::failed(format!("-: standard input cannot be kept in a temporary file ({error}): give a file"))
            });
        }
        let file = File::open(&self.file).map_err(unreadable)?;
        if !file.metadata().map_err(unreadable)?.is_file() {
            return Err(CliError::config(format!(
                "{}: it is read twice, so it must be a file; for a pipe give -",
                self.name()
            )));
        }
        Ok(file)
    }
}

/// What comes on standard input, in a file without a name.
fn spool() -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    io::copy(&mut io::stdin().lock(), &mut file)?;
    Ok(file)
}

/// What became of a file.
#[derive(Debug, Default, Serialize)]
struct Summary {
    dry_run: bool,
    /// Orders that are new to the store, or were not paid there yet.
    new: u64,
    /// Of these, orders that were sent.
    sent: u64,
    /// Of the new ones, orders that end at once.
    end_at_once: u64,
    /// Orders that are there already.
    there: u64,
    /// Lines that say what an earlier one says.
    repeated: u64,
    /// Lines that are wrong.
    wrong: u64,
    /// Fields that nobody reads.
    unread: Vec<String>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.wrong > 0 {
            return write!(f, "{} lines are wrong: nothing was sent", self.wrong);
        }
        let verb = if self.dry_run { "orders can be sent" } else { "orders were sent" };
        write!(f, "{} {verb}", self.new)?;
        if self.end_at_once > 0 {
            write!(f, " ({} of them end at once, refunded or cancelled)", self.end_at_once)?;
        }
        write!(f, ", {} are there already, {} stand there twice", self.there, self.repeated)
    }
}

pub(super) async fn run(from: &ConfigArgs, args: &ImportArgs, output: Output) -> Result<(), CliError> {
    let format = args.format()?;
    let loaded = from.load(Needs::RUN)?;
    let secrets = loaded.secrets(environment())?;
    let store = open_checked_store(&loaded.config, &secrets).await?;
    let terms = terms(&loaded.config, &secrets, args.accept_refunds)?;
    let now = store.now().await.map_err(|error| trouble(&error))?;
    let file = args.open().await?;
    let desk = Desk { name: args.name(), file, format, terms, store, now, output };
    let (mut summary, mut pass) = (Summary { dry_run: args.dry_run, ..Summary::default() }, desk.pass()?);
    while let Some(batch) = pass.next().await? {
        for problem in &batch.wrong {
            if output.json { output.object(problem)? } else { output.line(problem)? }
        }
        summary.count(&batch);
    }
    summary.unread = pass.rows.unread.names().into_iter().map(str::to_owned).collect();
    // What it remembers of each order is not needed beside the next one's.
    drop(pass);
    if !summary.unread.is_empty() {
        output.progress(format_args!("fields that nobody reads: {}", summary.unread.join(", ")));
    }
    if summary.wrong > 0 {
        output.result(&summary)?;
        return Err(CliError::silent(Exit::Failed));
    }
    if !args.dry_run && summary.new > 0 {
        summary = Summary { unread: summary.unread, ..desk.send(&loaded.config, &secrets).await? };
    }
    output.result(&summary)
}

fn terms(config: &Config, secrets: &Secrets, accept_refunds: bool) -> Result<Terms, CliError> {
    let missing = || CliError::config("security.phone_key_file: is missing");
    Ok(Terms {
        phone_key: secrets.phone_key.clone().ok_or_else(missing)?,
        routes: config.route_table(),
        retention: config.retention.closed_orders.get(),
        sla: config.sla.deadline.get(),
        unpaid_timeout: config.sla.unpaid_timeout.get(),
        accept_refunds,
    })
}

impl Summary {
    fn count(&mut self, batch: &Batch) {
        self.new += batch.new.len() as u64;
        self.end_at_once += batch.new.iter().filter(|candidate| candidate.ends_at_once).count() as u64;
        self.there += batch.there;
        self.repeated += batch.repeated;
        self.wrong += batch.wrong.len() as u64;
    }
}

/// A file, and what it is held against.
struct Desk {
    name: String,
    file: File,
    format: Format,
    terms: Terms,
    store: Arc<dyn Store>,
    now: Timestamp,
    output: Output,
}

/// Orders that were looked at together.
#[derive(Default)]
struct Batch {
    wrong: Vec<Problem>,
    /// To be sent.
    new: Vec<Candidate>,
    there: u64,
    repeated: u64,
}

/// One way through the file.
struct Pass<'a> {
    desk: &'a Desk,
    rows: Rows<BufReader<File>>,
    twins: Twins,
    read: u64,
}

impl Desk {
    fn unreadable(&self, error: &io::Error) -> CliError {
        CliError::config(format!("{}: it cannot be read on ({error}): give a file that can", self.name))
    }

    fn pass(&self) -> Result<Pass<'_>, CliError> {
        let mut file = self.file.try_clone().map_err(|error| self.unreadable(&error))?;
        file.rewind().map_err(|error| self.unreadable(&error))?;
        let rows = Rows::new(BufReader::with_capacity(256 * 1024, file), self.format);
        Ok(Pass { desk: self, rows, twins: Twins::default(), read: 0 })
    }

    /// Sends what is not there yet.
    async fn send(&self, config: &Config, secrets: &Secrets) -> Result<Summary, CliError> {
        let kafka = kafka_options(config, secrets);
        let topic = orders_topic(config, &kafka).await?;
        let producer =
            Producer::new(&kafka, ProducerOptions::default()).map_err(|error| broker_trouble(config, &error))?;
        let (mut summary, mut pass) = (Summary::default(), self.pass()?);
        while let Some(batch) = pass.next().await? {
            if let Some(problem) = batch.wrong.first() {
                return Err(CliError::failed(format!(
                    "{}: {problem}; it was right a moment ago, so the file or the store has changed: {} orders were sent, \
                     run this again",
                    self.name, summary.sent
                )));
            }
            let mut counted = Summary::default();
            counted.count(&batch);
            let records: Vec<OutRecord> = batch.new.into_iter().map(|candidate| candidate.event(&topic)).collect();
            let failed: Vec<PublishError> =
                producer.publish(&records).await.into_iter().filter_map(Result::err).collect();
            if let Some(error) = failed.first() {
                let sent = summary.sent + counted.new - failed.len() as u64;
                return Err(not_sent(sent, error));
            }
            summary.new += counted.new;
            summary.sent += counted.new;
            summary.end_at_once += counted.end_at_once;
            summary.there += counted.there;
            summary.repeated += counted.repeated;
        }
        Ok(summary)
    }
}

fn not_sent(sent: u64, error: &PublishError) -> CliError {
    let said = format!("kafka.brokers: {sent} orders were sent, and then not all were taken ({error}): run this again");
    match error {
        PublishError::Unacknowledged(_) => CliError::unreachable(said),
        PublishError::NoSuchTopic(_) | PublishError::Refused(_) => CliError::failed(said),
    }
}

impl Pass<'_> {
    /// The next orders, held against each other and the store; nothing at the end.
    async fn next(&mut self) -> Result<Option<Batch>, CliError> {
        let (mut batch, mut right, mut read) = (Batch::default(), Vec::new(), 0);
        while read < BATCH as u64 {
            let Some(row) = self.rows.next_row().map_err(|error| self.desk.unreadable(&error))? else { break };
            read += 1;
            let checked = self.desk.terms.check(row, self.desk.now);
            match checked.and_then(|candidate| Ok((self.twins.is_new(&candidate)?, candidate))) {
                Ok((true, candidate)) => right.push(candidate),
                Ok((false, _)) => batch.repeated += 1,
                Err(problem) => batch.wrong.push(problem),
            }
        }
        if read == 0 {
            return Ok(None);
        }
        let before = self.read;
        self.read += read;
        if before / TOLD_EVERY != self.read / TOLD_EVERY {
            self.desk.output.progress(format_args!("{} orders read", self.read));
        }
        let mut stored = self.stored(&right).await?;
        for candidate in right {
            match stored.remove(&candidate.new.order_id).map(|order| candidate.stands_to(&order)) {
                None | Some(Stands::Pays) => batch.new.push(candidate),
                Some(Stands::There) => batch.there += 1,
                Some(Stands::Differs(problem)) => batch.wrong.push(problem),
            }
        }
        batch.wrong.sort_by_key(|problem| problem.line);
        Ok(Some(batch))
    }

    /// The orders of the same ids.
    async fn stored(&self, candidates: &[Candidate]) -> Result<HashMap<OrderId, Order>, CliError> {
        let ids: Vec<OrderId> = candidates.iter().map(|candidate| candidate.new.order_id.clone()).collect();
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let rows = self.desk.store.load(&ids).await.map_err(|error| trouble(&error))?;
        let mut stored = HashMap::new();
        for (id, row) in ids.into_iter().zip(rows) {
            match row {
                Loaded::Order(order) => drop(stored.insert(id, order)),
                Loaded::Absent => {}
                Loaded::Unreadable(why) => {
                    return Err(CliError::failed(format!(
                        "order {id} is there already and cannot be read: {why}; mend its row in the database"
                    )));
                }
            }
        }
        Ok(stored)
    }
}
