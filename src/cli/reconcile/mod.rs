//! `recharged reconcile`: a provider's day by our books against the provider's own list.

mod print;

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::{FixedOffset, NaiveDate};
use clap::{Args, ValueEnum};

use super::config::{ConfigArgs, environment};
use super::orders::trouble;
use super::output::{CliError, Exit, Output};
use super::values;
use crate::app::{open_checked_store, open_list};
use crate::config::{Config, Needs, QuotaConfig, Secrets};
use crate::domain::{Currency, ProviderId, Timestamp};
use crate::ports::{ListedState, Statement, StatementError, StatementTrouble, Store};
use crate::providers::day_file::{Column, Columns, DayFile, Format, States, Terms};
use crate::providers::{ListSpan, ProviderKind};
use crate::reconcile::{BadList, CASES_MAX, Day, Progress, QuotaPermits, ReconcileError, Task, reconcile};

pub(super) const EXAMPLES: &str = "\
Example:
  recharged reconcile --provider dtone --day 2026-01-31

With the provider's day file, of a provider that counts its days in China; then from elsewhere, without any effect; and
every difference for a spreadsheet:
  recharged reconcile --provider mf178 --day 2026-01-31 --timezone +08:00 --file day.csv \\
    --column client_ref=third_id --state 9=delivered --currency CNY
  gunzip -c day.jsonl.gz | recharged reconcile --provider dtone --day 2026-01-31 --file - --format jsonl --dry-run
  recharged reconcile --provider dtone --day 2026-01-31 --csv > differences.csv

A file has a line for each recharge with client_ref and state (delivered, failed, reversed, in_progress, unknown), and
amount_minor or amount with currency, at, and provider_ref where it tells them: docs/RECONCILE.md.

Exit codes: 0 all matched, 1 differences were found (or it failed while running: then there is no report), 2 wrong usage,
69 the store or the provider could not be reached, 78 bad configuration, or a list that cannot be used.";

/// The tolerance must leave something of the day.
const SLACK_MAX: Duration = Duration::from_hours(6);
/// Between two calls of a list at least, and at most whatever the quota.
const PACE_LEAST: Duration = Duration::from_millis(500);
const PACE_MOST: Duration = Duration::from_secs(10);
/// A list takes this part of what the contract grants per second.
const PART_OF_QUOTA: f64 = 0.1;

/// `recharged reconcile`.
#[derive(Debug, Clone, Args)]
pub struct ReconcileArgs {
    #[command(flatten)]
    pub(crate) from: ConfigArgs,
    /// Whose day, by its name in the configuration
    #[arg(long, value_name = "NAME")]
    pub provider: String,
    /// Which day
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = day)]
    pub day: NaiveDate,
    /// The provider's day file in place of its API's list; - for stdin
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// How the file is written; left out, by the end of its name
    #[arg(long, value_name = "FORMAT", requires = "file")]
    pub format: Option<FileFormat>,
    /// What a column is called in the file, where not by its own name; may be repeated
    #[arg(long = "column", value_name = "COLUMN=NAME", requires = "file", value_parser = column)]
    pub columns: Vec<(Column, String)>,
    /// What a word means that the file has for a state; may be repeated
    #[arg(long = "state", value_name = "WORD=STATE", requires = "file", value_parser = state)]
    pub states: Vec<(String, ListedState)>,
    /// The currency of the file's amounts where it names none
    #[arg(long, value_name = "CODE", requires = "file", value_parser = Currency::parse)]
    pub currency: Option<Currency>,
    /// The zone in which the provider counts its days, such as +08:00
    #[arg(long, value_name = "OFFSET", default_value = "+00:00", value_parser = offset, allow_hyphen_values = true)]
    pub timezone: FixedOffset,
    /// So near to midnight the provider may file a recharge on either day
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = values::duration)]
    pub slack: Duration,
    /// Open no case
    #[arg(long)]
    pub dry_run: bool,
    /// If more cases than this had to be opened, open none: the list may be the wrong one. Left out: 1000, and none where the
    /// list lacks most of what was delivered
    #[arg(long, value_name = "N")]
    pub max_cases: Option<u32>,
    /// Write the differences as CSV, and the counts to stderr
    #[arg(long)]
    pub csv: bool,
    /// Write what matched, too
    #[arg(long)]
    pub all: bool,
}

/// How a day file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FileFormat {
    /// A header, and a line of fields for each recharge.
    Csv,
    /// An object of JSON in each line.
    Jsonl,
}

fn day(text: &str) -> Result<NaiveDate, String> {
    let is_in_form = text.len() == "YYYY-MM-DD".len();
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().filter(|_| is_in_form);
    day.ok_or_else(|| "give a day of the calendar as YYYY-MM-DD".to_owned())
}

fn offset(text: &str) -> Result<FixedOffset, String> {
    text.parse().map_err(|_| "give the zone's distance to UTC, such as +08:00".to_owned())
}

fn column(text: &str) -> Result<(Column, String), String> {
    let known = || Column::ALL.map(Column::as_str).join(", ");
    let (column, name) = text.split_once('=').ok_or_else(|| "give COLUMN=NAME".to_owned())?;
    let column = Column::parse(column).ok_or_else(|| format!("give one of {} before the =", known()))?;
    if name.is_empty() { Err("give the column's name behind the =".to_owned()) } else { Ok((column, name.to_owned())) }
}

fn state(text: &str) -> Result<(String, ListedState), String> {
    let known = || ListedState::ALL.map(ListedState::as_str).join(", ");
    let (word, state) = text.rsplit_once('=').ok_or_else(|| "give WORD=STATE".to_owned())?;
    let state = ListedState::parse(state).ok_or_else(|| format!("give one of {} behind the =", known()))?;
    Ok((word.to_owned(), state))
}

pub(crate) async fn run(args: ReconcileArgs, output: Output) -> Result<(), CliError> {
    if output.json && args.csv {
        return Err(CliError::usage("--csv and --json: give one of them"));
    }
    let loaded = args.from.load(Needs::STORE)?;
    let config = &loaded.config;
    let day = args.checked_day(config)?;
    // A file that cannot be used is found before anything else is opened.
    let file = args.file_list(config)?;
    let secrets = loaded.secrets(environment())?;
    let store = open_checked_store(config, &secrets).await?;
    let now = store.now().await.map_err(|error| trouble(&error))?;
    args.check_day(&day, now, config)?;
    let (mut list, source) = match file {
        Some(file) => file,
        None => args.provider_list(config, &secrets, &store, &day)?,
    };
    let policy = config.policy();
    let task = Task {
        provider: ProviderId::new(&args.provider),
        day,
        now,
        policy: &policy,
        dry_run: args.dry_run,
        cases_max: args.max_cases.map(|most| usize::try_from(most).unwrap_or(usize::MAX)),
    };
    let progress = |progress: Progress| match progress {
        Progress::Ours(attempts) => output.progress(format_args!("{attempts} attempts of ours read")),
        Progress::Theirs(lines) => output.progress(format_args!("{lines} lines of the list read")),
        Progress::Compared(attempts) => output.progress(format_args!("{attempts} attempts compared")),
        Progress::Opened(cases) => output.progress(format_args!("{cases} cases opened")),
    };
    if day.until > now {
        output.progress("the day is not over: what was claimed within the last --slack is not judged");
    }
    let done = reconcile(store.as_ref(), list.as_mut(), &task, progress).await.map_err(|error| told(error, &source))?;
    print::print(&done, &source, &args, output)?;
    let cases = done.report.cases;
    if cases.withheld > 0 {
        let why = match args.max_cases {
            Some(most) => format!("more than --max-cases {most}"),
            None if cases.withheld > CASES_MAX => format!("more than {CASES_MAX}"),
            None => "since the list lacks most of what was delivered".to_owned(),
        };
        let said = format!(
            "{} cases would have to be opened, {why}: none was; look whether the list is the right one and whole, then run \
             it again with --max-cases {}",
            cases.withheld, cases.withheld
        );
        return Err(CliError::failed(said));
    }
    if cases.not_written > 0 {
        return Err(CliError::failed(format!("{} cases could not be written: run it again", cases.not_written)));
    }
    if done.report.clean { Ok(()) } else { Err(CliError::silent(Exit::Failed)) }
}

/// Why there is no report.
fn told(error: ReconcileError, source: &str) -> CliError {
    match error {
        ReconcileError::Store(error) => {
            let mut said = trouble(&error);
            said.message
                .push_str(" (there is no report; cases that were opened by then stay open, and none is opened twice)");
            said
        }
        ReconcileError::Statement(StatementError { trouble, message }) => match trouble {
            StatementTrouble::Away => CliError::unreachable(message),
            StatementTrouble::Unusable => CliError::config(message),
        },
        ReconcileError::List(BadList { line: Some(line), what }) => {
            CliError::config(format!("{source}, line {line}: {what}"))
        }
        ReconcileError::List(BadList { line: None, what }) => CliError::config(format!("{source}: {what}")),
        ReconcileError::Log(error) => {
            CliError::failed(format!("store.url: {error}: use the version that wrote it, or a newer one"))
        }
        ReconcileError::Full(error) => {
            CliError::failed(format!("{error}: reconcile it where there is more, or by parts of it"))
        }
    }
}

/// What is compared with, and what it is called.
type List = (Box<dyn Statement>, String);

impl ReconcileArgs {
    fn checked_day(&self, config: &Config) -> Result<Day, CliError> {
        if !config.providers.contains_key(&self.provider) {
            let known: Vec<&str> = config.providers.keys().map(String::as_str).collect();
            let known =
                if known.is_empty() { "there is none".to_owned() } else { format!("there is {}", known.join(", ")) };
            return Err(CliError::usage(format!(
                "--provider {}: the configuration has no section [providers.{}]; {known}",
                self.provider, self.provider
            )));
        }
        if self.slack > SLACK_MAX {
            return Err(CliError::usage("--slack: more than 6h leaves too little of the day"));
        }
        Day::new(self.day, self.timezone, self.slack)
            .ok_or_else(|| CliError::usage(format!("--day {}: no calendar has it", self.day)))
    }

    fn check_day(&self, day: &Day, now: Timestamp, config: &Config) -> Result<(), CliError> {
        if day.from > now {
            return Err(CliError::usage(format!(
                "--day {}: it has not begun at {}: give a day that is past",
                self.day, day.offset
            )));
        }
        let kept = config.retention.closed_orders.get();
        if crate::domain::plus(day.from, kept) < now {
            return Err(CliError::usage(format!(
                "--day {}: it lies behind retention.closed_orders ({}), so its orders may be gone",
                self.day, config.retention.closed_orders
            )));
        }
        Ok(())
    }

    fn kind(&self, config: &Config) -> Option<ProviderKind> {
        let provider = config.providers.get(&self.provider)?;
        ProviderKind::parse(provider.kind?.as_str())
    }

    fn file_list(&self, config: &Config) -> Result<Option<List>, CliError> {
        let Some(path) = &self.file else { return Ok(None) };
        let is_stdin = path.as_os_str() == "-";
        let name = format!("--file {}", path.display());
        let format = match self.format {
            Some(FileFormat::Csv) => Format::Csv,
            Some(FileFormat::Jsonl) => Format::JsonLines,
            None => path.to_str().and_then(Format::of).ok_or_else(|| {
                CliError::usage(format!("{name}: its name tells no format: give --format csv or --format jsonl"))
            })?,
        };
        let mut states = self.kind(config).map(States::of).unwrap_or_default();
        states.0.extend(self.states.iter().cloned());
        let columns = Columns(self.columns.iter().cloned().collect());
        let terms = Terms { format, columns, states, currency: self.currency, offset: self.timezone };
        let unreadable = |error: std::io::Error| {
            CliError::config(format!("{name}: it cannot be read ({error}): give a file that can"))
        };
        let input: Box<dyn std::io::BufRead + Send> = if is_stdin {
            Box::new(BufReader::new(std::io::stdin()))
        } else {
            let file = File::open(path).map_err(unreadable)?;
            if file.metadata().map_err(unreadable)?.is_dir() {
                return Err(CliError::config(format!("{name}: it is a folder: give a file")));
            }
            Box::new(BufReader::with_capacity(256 * 1024, file))
        };
        Ok(Some((Box::new(DayFile::new(name.clone(), input, terms)), name)))
    }

    fn provider_list(
        &self,
        config: &Config,
        secrets: &Secrets,
        store: &Arc<dyn Store>,
        day: &Day,
    ) -> Result<List, CliError> {
        let (from, until) = day.widened();
        let permits = config.providers.get(&self.provider).map_or(1.0, |provider| provider.quota.permits_per_second);
        let pace = Duration::try_from_secs_f64(1.0 / (permits * PART_OF_QUOTA)).unwrap_or(PACE_MOST);
        let span = ListSpan { from, until, pace: pace.clamp(PACE_LEAST, PACE_MOST) };
        let kind = self.kind(config).map_or("it", ProviderKind::as_str);
        let provider = ProviderId::new(&self.provider);
        let terms = config.quota_terms(&provider).unwrap_or_else(|| QuotaConfig::default().terms());
        let permits = Arc::new(QuotaPermits::new(store, provider, terms));
        let list = open_list(config, secrets, &self.provider, permits, span)?;
        let list = list.ok_or_else(|| {
            CliError::usage(format!("--provider {}: {kind} has no list: give its day file with --file", self.provider))
        })?;
        Ok((list, format!("the list of {kind}")))
    }
}
