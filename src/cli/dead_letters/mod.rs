//! `recharged dead-letters`: records that could not be used, and what becomes of them (`docs/DEAD_LETTERS.md`).

mod decide;
mod list;
mod read;
mod show;
mod value;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::config::{ConfigArgs, environment};
use super::output::{CliError, Output};
use super::values;
use crate::app::{broker_trouble, kafka_options, open_checked_store};
use crate::config::{Config, Needs, Secrets};
use crate::domain::inbound::DeadLetterReason;
use crate::kafka::{KafkaOptions, topics};
use crate::ports::Store;
use crate::roles::replay::{Found, Readers};

/// `recharged dead-letters`.
#[derive(Debug, Clone, Args)]
pub struct DeadLettersArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: DeadLettersAction,
}

/// What to do with the dead letters.
#[derive(Debug, Clone, Subcommand)]
pub enum DeadLettersAction {
    /// Lists what nobody has dealt with: how many for each reason, or each one
    #[command(after_help = "Examples:\n  recharged dead-letters list\n  \
                            recharged dead-letters list --reason schema,orphan --since 24h --each --json")]
    List {
        #[command(flatten)]
        #[doc(hidden)]
        from: ConfigArgs,
        /// Only of these reasons; may be repeated, or separated by commas
        #[arg(long, value_name = "REASON", value_delimiter = ',', value_parser = values::dead_letter_reason)]
        reason: Vec<DeadLetterReason>,
        /// Only those that were first seen no longer ago than this
        #[arg(long, value_name = "TIME", value_parser = values::duration)]
        since: Option<Duration>,
        /// Each one, in the order of each partition
        #[arg(long)]
        each: bool,
        /// Also those that were replayed or discarded
        #[arg(long)]
        done: bool,
        /// With --each, at most this many
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// Shows one: what was wrong with it, where it came from, and whether it could be used now
    #[command(after_help = "Example:\n  recharged dead-letters show 3:42")]
    Show {
        #[command(flatten)]
        #[doc(hidden)]
        from: ConfigArgs,
        /// Where it stands in the dead letters, as `list --each` tells
        #[arg(value_name = "PARTITION:OFFSET")]
        place: Place,
        /// Show phone numbers in full
        #[arg(long)]
        reveal: bool,
    },
    /// Sends dead letters back to the topics that they came from; exit 1 where not all could be
    ///
    /// Each is judged first as its reader will judge it: one that is still wrong stays where it is, and is told with what is
    /// wrong. One that was replayed or discarded is never sent again.
    #[command(after_help = "Examples:\n  recharged dead-letters replay 3:42\n  \
                            recharged dead-letters replay --reason unknown_version --dry-run\n  \
                            recharged dead-letters replay --all --by \"A. Duty\"")]
    Replay {
        #[command(flatten)]
        #[doc(hidden)]
        from: ConfigArgs,
        #[command(flatten)]
        #[doc(hidden)]
        which: Which,
        /// Who replays
        #[arg(long, value_name = "NAME", env = "USER", hide_env_values = true, default_value = "unnamed", value_parser = values::name)]
        by: String,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Records that nothing is to be done with dead letters, and why
    #[command(after_help = "Example:\n  recharged dead-letters discard --reason malformed --by \"A. Duty\" \\\n    \
                            --why \"test records of the shop, agreed in incident 4711\"")]
    Discard {
        #[command(flatten)]
        #[doc(hidden)]
        from: ConfigArgs,
        #[command(flatten)]
        #[doc(hidden)]
        which: Which,
        /// Why nothing is to be done
        #[arg(long, value_name = "TEXT", value_parser = values::why)]
        why: String,
        /// Who decides
        #[arg(long, value_name = "NAME", value_parser = values::name)]
        by: String,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
}

/// Which letters are meant.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// Where they stand in the dead letters, as `list --each` tells
    #[arg(value_name = "PARTITION:OFFSET")]
    pub place: Vec<Place>,
    /// All of this reason that nobody has dealt with; may be repeated, or separated by commas
    #[arg(long, value_name = "REASON", value_delimiter = ',', value_parser = values::dead_letter_reason)]
    pub reason: Vec<DeadLetterReason>,
    /// All that nobody has dealt with
    #[arg(long)]
    pub all: bool,
}

impl Which {
    /// Whether one that was found by looking through all of them is meant.
    fn means(&self, found: &Found) -> bool {
        self.all || is_of(found, &self.reason)
    }
}

/// Whether a letter is of one of these reasons.
fn is_of(found: &Found, reasons: &[DeadLetterReason]) -> bool {
    found.letter.as_ref().is_some_and(|letter| reasons.iter().any(|reason| reason.as_str() == letter.reason))
}

/// Where a letter stands in the topic of the dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

impl Place {
    fn of(found: &Found) -> Self {
        Self { partition: found.record.partition, offset: found.record.offset }
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once(':').and_then(|(partition, offset)| {
            let place = Self { partition: partition.parse().ok()?, offset: offset.parse().ok()? };
            (place.partition >= 0 && place.offset >= 0).then_some(place)
        });
        parsed.ok_or_else(|| "give a partition and an offset, such as 3:42".to_owned())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition, self.offset)
    }
}

pub(crate) async fn run(args: DeadLettersArgs, output: Output) -> Result<(), CliError> {
    match args.action {
        DeadLettersAction::List { from, reason, since, each, done, limit } => {
            let desk = Desk::open(&from, Needs::KAFKA_AND_STORE).await?;
            let wanted = list::Wanted { reasons: reason, since, each, done, limit: u64::from(limit) };
            list::run(&desk, &wanted, output).await
        }
        DeadLettersAction::Show { from, place, reveal } => {
            let desk = Desk::open(&from, Needs::RUN).await?;
            show::run(&desk, place, reveal, output).await
        }
        DeadLettersAction::Replay { from, which, by, dry_run } => {
            let desk = Desk::open(&from, Needs::RUN).await?;
            decide::replay(&desk, &which, by, dry_run, output).await
        }
        DeadLettersAction::Discard { from, which, why, by, dry_run } => {
            let desk = Desk::open(&from, Needs::KAFKA_AND_STORE).await?;
            decide::discard(&desk, &which, decide::Ruling { why, by, dry_run }, output).await
        }
    }
}

/// What every one of these commands works on.
struct Desk {
    config: Config,
    secrets: Secrets,
    kafka: KafkaOptions,
    /// The topic of the dead letters.
    topic: Arc<str>,
    /// The topics that are there.
    topics: Vec<String>,
    store: Arc<dyn Store>,
}

impl Desk {
    async fn open(from: &ConfigArgs, needs: Needs) -> Result<Self, CliError> {
        let loaded = from.load(needs)?;
        let secrets = loaded.secrets(environment())?;
        let config = loaded.config;
        let store = open_checked_store(&config, &secrets).await?;
        let kafka = kafka_options(&config, &secrets);
        let topics = topics::names(&kafka).await.map_err(|error| broker_trouble(&config, &error))?;
        let topic = config.topics().dead_letters;
        if !topics.iter().any(|name| **name == *topic) {
            return Err(CliError::config(format!(
                "kafka.topic_prefix: there is no topic {topic}: run `recharged topics create`"
            )));
        }
        Ok(Self { config, secrets, kafka, topic, topics, store })
    }

    /// Who reads what came back; only topics that are there.
    fn readers(&self) -> Result<Readers, CliError> {
        let missing = || CliError::config("security.phone_key_file: is missing");
        let phone_key = self.secrets.phone_key.clone().ok_or_else(missing)?;
        let (config, names) = (&self.config, self.config.topics());
        let is_there = |topic: &Arc<str>| self.topics.iter().any(|name| **name == **topic);
        let lanes = config.lanes();
        let lanes = lanes.iter().flat_map(|lane| [names.requests(lane), names.due(lane)]).filter(is_there).collect();
        let tiers = config.tiers().into_iter().map(|tier| names.delay(tier)).filter(is_there).collect();
        Ok(Readers {
            lanes_begin: names.lanes(),
            orders: names.orders,
            lifecycle: names.lifecycle,
            timers: names.timers,
            lanes,
            tiers,
            phone_key,
            retention: config.retention.closed_orders.get(),
            sla: config.sla.deadline.get(),
            unpaid_timeout: config.sla.unpaid_timeout.get(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_partition_and_an_offset() {
        let place: Place = "3:42".parse().unwrap();
        assert_eq!((place, place.to_string()), (Place { partition: 3, offset: 42 }, "3:42".to_owned()));
        for bad in ["", "3", ":", "3:", "-1:4", "3:-4", "3:4:5", "3 : 4", "99999999999:1"] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }
}
