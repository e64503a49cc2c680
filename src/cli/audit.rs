//! `recharged audit`: the store against what simulators really delivered.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::Args;

use super::config::{ConfigArgs, environment};
use super::lanes;
use super::output::{CliError, Exit, Output};
use crate::app::{broker_trouble, chain, kafka_options, open_checked_store};
use crate::audit::{self, EventTrail, Ledger, Ledgers, Percentiles, Report};
use crate::config::{Config, Needs, Secrets};
use crate::domain::Money;
use crate::kafka::snapshot::read_values;
use crate::providers::simulator::LedgerReader;

pub(super) const EXAMPLES: &str = "\
Example:
  recharged audit --config recharged.toml --ledger ledger.jsonl --json

With two providers, each by its name in the configuration:
  recharged audit --ledger primary=p.jsonl --ledger second=s.jsonl";

/// `recharged audit`.
#[derive(Debug, Clone, Args)]
pub struct AuditArgs {
    #[command(flatten)]
    pub(crate) from: ConfigArgs,
    /// The simulator's ledger; with several providers, that of each by its name in the configuration, as in --ledger
    /// primary=p.jsonl --ledger second=s.jsonl: one that is not named has delivered nothing
    #[arg(long = "ledger", value_name = "[NAME=]FILE", required = true)]
    pub ledgers: Vec<PathBuf>,
    /// Read the published order events too, from their topic's beginning, and compare them with the store
    #[arg(long)]
    pub events: bool,
}

pub(crate) async fn run(args: AuditArgs, output: Output) -> Result<(), CliError> {
    let needs = if args.events { Needs { kafka: true, ..Needs::STORE } } else { Needs::STORE };
    let loaded = args.from.load(needs)?;
    let secrets = loaded.secrets(environment())?;
    let ledgers = read_ledgers(&args.ledgers, &loaded.config)?;
    let store = open_checked_store(&loaded.config, &secrets).await?;
    let progress = |orders: u64| {
        if orders.is_multiple_of(100_000) {
            output.progress(format_args!("{orders} orders read"));
        }
    };
    // Before the store, so that nothing is told of which the store was read too early.
    let trail = if args.events { Some(read_events(&loaded.config, &secrets, output).await?) } else { None };
    let mut report = audit::reckon(store.as_ref(), &ledgers, None, progress)
        .await
        .map_err(|error| CliError::failed(format!("store.url: {}", chain(&error))))?;
    if let Some(trail) = trail {
        let told = trail.against(store.as_ref()).await;
        report.events = Some(told.map_err(|error| CliError::failed(format!("store.url: {}", chain(&error))))?);
    }
    output.result(&report)?;
    if report.is_clean() { Ok(()) } else { Err(CliError::silent(Exit::Failed)) }
}

/// The trail of the published order events, as long as it is now.
async fn read_events(config: &Config, secrets: &Secrets, output: Output) -> Result<EventTrail, CliError> {
    let (kafka, topic) = (kafka_options(config, secrets), config.topics().order_events);
    let reading = tokio::task::spawn_blocking(move || {
        let mut trail = EventTrail::default();
        let read = read_values(&kafka, &topic, |value| {
            // The trail counts what each record is, an unreadable one too; that is all that is needed.
            trail.take(value);
            let read = trail.seen().read;
            if read.is_multiple_of(500_000) {
                output.progress(format_args!("{read} events read"));
            }
            true
        });
        read.map(|_| trail)
    });
    let read = reading.await.map_err(|error| CliError::failed(error.to_string()))?;
    read.map_err(|error| broker_trouble(config, &error).into())
}

/// One ledger alone is whoever's it is; of several, each says whose.
fn read_ledgers(given: &[PathBuf], config: &Config) -> Result<Ledgers, CliError> {
    if let [only] = given
        && named(only).is_none()
    {
        return Ok(Ledgers::Anyones(read_ledger(only)?));
    }
    let mut ledgers = HashMap::new();
    for given in given {
        let Some((name, path)) = named(given) else {
            let given = given.display();
            return Err(CliError::usage(format!("--ledger {given}: of several, each says whose it is: NAME={given}")));
        };
        // Under a name that is misspelt nothing would have been delivered.
        let provider = lanes::known(name, config).map_err(|error| {
            CliError::usage(format!("--ledger {name}=…: {error}; a file whose own name has a = is ./{name}=…"))
        })?;
        if ledgers.insert(provider, read_ledger(path)?).is_some() {
            return Err(CliError::usage(format!("--ledger {name}={}: {name} has one already", path.display())));
        }
    }
    Ok(Ledgers::Named(ledgers))
}

/// A name and a file. What stands before the first `=` is no name where it is a path.
fn named(given: &Path) -> Option<(&str, &Path)> {
    let (name, path) = given.to_str()?.split_once('=')?;
    (!name.contains('/')).then(|| (name, Path::new(path)))
}

/// What was delivered under each reference.
pub(crate) fn read_ledger(path: &Path) -> Result<Ledger, CliError> {
    let told = |error: &dyn std::error::Error| format!("--ledger: {}", chain(error));
    let mut ledger = Ledger::default();
    for delivery in LedgerReader::open(path).map_err(|error| CliError::config(told(&error)))? {
        let delivery = delivery.map_err(|error| CliError::failed(told(&error)))?;
        let amount = Money { minor: delivery.amount_minor, currency: delivery.currency };
        match delivery.reverses {
            None => ledger.delivered(delivery.client_ref.to_string(), delivery.phone, amount),
            Some(_) => ledger.took_back(delivery.client_ref.as_str()),
        }
    }
    Ok(ledger)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "orders        {:>10}", self.orders)?;
        writeln!(f, "  succeeded   {:>10}", self.succeeded)?;
        writeln!(f, "  failed      {:>10}   refunds requested {}", self.failed, self.refunds)?;
        if self.cancelled > 0 {
            writeln!(f, "  cancelled   {:>10}", self.cancelled)?;
        }
        writeln!(f, "  in doubt    {:>10}   orders with a case {}", self.in_doubt, self.cases)?;
        writeln!(f, "  open        {:>10}   outcome not known yet", self.open)?;
        writeln!(f, "deadline      {:>10}   met, {} missed", self.sla.met, self.sla.missed)?;
        if let Some(rate) = self.orders_per_second {
            writeln!(f, "throughput    {rate:>10.0}   orders/s")?;
        }
        writeln!(f, "to the end    {}", Shown(self.resolution_ms))?;
        let audit = &self.audit;
        write!(
            f,
            "audit         {:>10}   lost {}, delivered twice {}, wrongly failed {}, taken back {}, unaccounted {}, misdelivered {}, \
             not refunded {}, wrongly refunded {}, in doubt without a case {}, not decided at the deadline {}",
            if audit.clean { "clean" } else { "NOT CLEAN" },
            audit.lost,
            audit.double,
            audit.wrongly_failed,
            audit.taken_back,
            audit.unaccounted,
            audit.misdelivered,
            audit.unrefunded,
            audit.wrongly_refunded,
            audit.untold,
            audit.overdue
        )?;
        let Some(events) = &self.events else { return Ok(()) };
        write!(
            f,
            "\nevents        {:>10}   {} repeated, {} out of order, {} unreadable, {} missing, {} phantom",
            events.read, events.repeated, events.out_of_order, events.unreadable, events.missing, events.phantom
        )
    }
}

/// Percentiles for people.
pub(crate) struct Shown(pub(crate) Percentiles);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: Option<f64>| match value {
            None => "-".to_owned(),
            Some(ms) if ms < 1_000.0 => format!("{ms:.0} ms"),
            Some(ms) => format!("{:.1} s", ms / 1e3),
        };
        let Percentiles { p50, p99, p999, max } = self.0;
        write!(f, "p50 {}, p99 {}, p99.9 {}, max {}", shown(p50), shown(p99), shown(p999), shown(max))
    }
}
