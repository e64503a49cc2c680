//! Topics: made as planned, checked against the plan, never shrunk or deleted.

mod admin;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::{KafkaError, KafkaOptions};

use admin::{Admin, Found};

/// How long the first request waits for a broker that may not be there at all.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(8);
/// A broker may answer that a topic is made some time before it knows the topic itself.
const UNTIL_SEEN: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A topic as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPlan {
    /// Its name.
    pub name: String,
    /// Its number of partitions, exactly: keys choose partitions by it.
    pub partitions: u32,
    /// Copies of each partition, at least; `None` takes the cluster's default and checks nothing.
    pub replication: Option<u16>,
    /// Its settings: `retention.ms`, `cleanup.policy`, `min.insync.replicas`, `max.message.bytes`
    /// and the like.
    pub config: BTreeMap<String, Want>,
}

/// What a setting should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    /// This and nothing else; a difference is told, never changed.
    Exactly(String),
    /// At least this; raised where it is less. `retention.ms` of -1 is without end.
    AtLeast(i64),
    /// At most this; a difference is told, never changed: to lower a retention deletes records.
    AtMost(i64),
}

/// What [`create`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The topic is new.
    Created {
        /// The topic.
        topic: String,
    },
    /// It got more partitions.
    PartitionsRaised {
        /// The topic.
        topic: String,
        /// Before.
        from: u32,
        /// After.
        to: u32,
    },
    /// A setting was raised.
    SettingRaised {
        /// The topic.
        topic: String,
        /// The setting.
        key: String,
        /// Before.
        from: String,
        /// After.
        to: String,
    },
    /// It was there, and nothing had to be raised.
    Unchanged {
        /// The topic.
        topic: String,
    },
    /// The broker refused.
    Refused {
        /// The topic.
        topic: String,
        /// The broker's words.
        reason: String,
    },
}

/// Where a topic differs from its plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// It does not exist.
    Missing {
        /// The topic.
        topic: String,
    },
    /// It has another number of partitions.
    Partitions {
        /// The topic.
        topic: String,
        /// What it has.
        found: u32,
        /// What it should have.
        wanted: u32,
    },
    /// It has too few copies.
    Replication {
        /// The topic.
        topic: String,
        /// What it has, at the partition with the fewest.
        found: u16,
        /// What it should have.
        wanted: u16,
    },
    /// A setting differs.
    Setting {
        /// The topic.
        topic: String,
        /// The setting.
        key: String,
        /// What it is.
        found: String,
        /// What it should be.
        wanted: Want,
    },
    /// It cannot be looked at.
    Unreadable {
        /// The topic.
        topic: String,
        /// The broker's words.
        reason: String,
    },
}

/// Makes what is missing and raises what is too little. What cannot be reached by that remains
/// for [`verify`] to tell.
pub async fn create(kafka: &KafkaOptions, plans: &[TopicPlan]) -> Result<Vec<Outcome>, KafkaError> {
    let admin = Admin::connect(kafka, ANSWER_LIMIT)?;
    let mut outcomes = Vec::new();
    for plan in plans {
        match admin.find(&plan.name).await? {
            Found::Missing => outcomes.push(admin.create(plan).await?),
            Found::Unreadable(reason) => outcomes.push(Outcome::Refused { topic: plan.name.clone(), reason }),
            Found::There { partitions, .. } => outcomes.extend(raise(&admin, plan, partitions).await?),
        }
    }
    await_made(&admin, &outcomes).await?;
    admin.close().await;
    Ok(outcomes)
}

/// Waits until the brokers know what was made or raised, so that whoever looks next finds it. What they do
/// not know in time is for [`verify`] to tell.
async fn await_made(admin: &Admin, outcomes: &[Outcome]) -> Result<(), KafkaError> {
    let until = tokio::time::Instant::now() + UNTIL_SEEN;
    for outcome in outcomes {
        let (topic, least) = match outcome {
            Outcome::Created { topic } => (topic, 1),
            Outcome::PartitionsRaised { topic, to, .. } => (topic, *to),
            Outcome::SettingRaised { .. } | Outcome::Refused { .. } | Outcome::Unchanged { .. } => continue,
        };
        while !matches!(admin.find(topic).await?, Found::There { partitions, .. } if partitions >= least) {
            if tokio::time::Instant::now() >= until {
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
    Ok(())
}

/// Compares the topics with their plans; nothing is changed.
///
/// `limit` is how long a broker that may not be there at all is waited for.
pub async fn verify(kafka: &KafkaOptions, plans: &[TopicPlan], limit: Duration) -> Result<Vec<Problem>, KafkaError> {
    let admin = Admin::connect(kafka, limit)?;
    let mut problems = Vec::new();
    for plan in plans {
        problems.extend(differences(&admin, plan).await?);
    }
    admin.close().await;
    Ok(problems)
}

/// The names of all topics that this login may see.
pub async fn names(kafka: &KafkaOptions) -> Result<Vec<String>, KafkaError> {
    let admin = Admin::connect(kafka, ANSWER_LIMIT)?;
    let names = admin.names().await?;
    admin.close().await;
    Ok(names)
}

async fn raise(admin: &Admin, plan: &TopicPlan, partitions: u32) -> Result<Vec<Outcome>, KafkaError> {
    let topic = || plan.name.clone();
    let mut outcomes = Vec::new();
    if partitions < plan.partitions {
        outcomes.push(match admin.raise_partitions(&plan.name, plan.partitions).await? {
            Ok(()) => Outcome::PartitionsRaised { topic: topic(), from: partitions, to: plan.partitions },
            Err(reason) => Outcome::Refused { topic: topic(), reason },
        });
    }
    let settings = match admin.settings(&plan.name).await? {
        Ok(settings) => settings,
        Err(reason) => {
            outcomes.push(Outcome::Refused { topic: topic(), reason });
            return Ok(outcomes);
        }
    };
    let raised: BTreeMap<String, String> = plan
        .config
        .iter()
        .filter_map(|(key, want)| {
            let found = settings.get(key)?;
            let Want::AtLeast(least) = want else { return None };
            (!want.is_met(key, &found.value)).then(|| (key.clone(), least.to_string()))
        })
        .collect();
    if !raised.is_empty() {
        match admin.alter(&plan.name, &settings, &raised).await? {
            Ok(()) => outcomes.extend(raised.into_iter().map(|(key, to)| {
                let from = settings.get(&key).map(|found| found.value.clone()).unwrap_or_default();
                Outcome::SettingRaised { topic: topic(), key, from, to }
            })),
            Err(reason) => outcomes.push(Outcome::Refused { topic: topic(), reason }),
        }
    }
    if outcomes.is_empty() {
        outcomes.push(Outcome::Unchanged { topic: topic() });
    }
    Ok(outcomes)
}

async fn differences(admin: &Admin, plan: &TopicPlan) -> Result<Vec<Problem>, KafkaError> {
    let topic = || plan.name.clone();
    let (partitions, replication) = match admin.find(&plan.name).await? {
        Found::Missing => return Ok(vec![Problem::Missing { topic: topic() }]),
        Found::Unreadable(reason) => return Ok(vec![Problem::Unreadable { topic: topic(), reason }]),
        Found::There { partitions, replication } => (partitions, replication),
    };
    let mut problems = Vec::new();
    if partitions != plan.partitions {
        problems.push(Problem::Partitions { topic: topic(), found: partitions, wanted: plan.partitions });
    }
    if let Some(wanted) = plan.replication.filter(|wanted| replication < *wanted) {
        problems.push(Problem::Replication { topic: topic(), found: replication, wanted });
    }
    match admin.settings(&plan.name).await? {
        Err(reason) => problems.push(Problem::Unreadable { topic: topic(), reason }),
        Ok(settings) => problems.extend(plan.config.iter().filter_map(|(key, want)| {
            let found = settings.get(key).map(|found| found.value.clone()).unwrap_or_default();
            let met = want.is_met(key, &found);
            (!met).then(|| Problem::Setting { topic: topic(), key: key.clone(), found, wanted: want.clone() })
        })),
    }
    Ok(problems)
}

impl Want {
    /// The value that a new topic gets.
    fn initial(&self) -> String {
        match self {
            Self::Exactly(value) => value.clone(),
            Self::AtLeast(value) | Self::AtMost(value) => value.to_string(),
        }
    }

    fn is_met(&self, key: &str, found: &str) -> bool {
        match self {
            Self::Exactly(value) => same_words(value, found),
            Self::AtLeast(least) => number(key, found).is_some_and(|found| found >= endless(key, *least)),
            Self::AtMost(most) => number(key, found).is_some_and(|found| found <= endless(key, *most)),
        }
    }
}

/// `cleanup.policy` is a list; its order means nothing.
fn same_words(left: &str, right: &str) -> bool {
    let words = |text: &str| {
        let mut words: Vec<String> = text.split(',').map(|word| word.trim().to_owned()).collect();
        words.sort();
        words
    };
    words(left) == words(right)
}

fn number(key: &str, text: &str) -> Option<i64> {
    text.trim().parse().ok().map(|value| endless(key, value))
}

/// -1 means without end where a retention is concerned.
fn endless(key: &str, value: i64) -> i64 {
    if key.starts_with("retention.") && value == -1 { i64::MAX } else { value }
}

impl fmt::Display for Want {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(value) => f.write_str(value),
            Self::AtLeast(value) => write!(f, "at least {value}"),
            Self::AtMost(value) => write!(f, "at most {value}"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created { topic } => write!(f, "{topic}: created"),
            Self::PartitionsRaised { topic, from, to } => write!(f, "{topic}: partitions raised from {from} to {to}"),
            Self::SettingRaised { topic, key, from, to } => write!(f, "{topic}: {key} raised from {from} to {to}"),
            Self::Unchanged { topic } => write!(f, "{topic}: as it should be"),
            Self::Refused { topic, reason } => write!(f, "{topic}: refused: {reason}"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { topic } => write!(f, "{topic}: does not exist, run `recharged topics create`"),
            Self::Partitions { topic, found, wanted } => write!(f, "{topic}: has {found} partitions, not {wanted}"),
            Self::Replication { topic, found, wanted } => {
                write!(f, "{topic}: has {found} copies of a partition, not {wanted}")
            }
            Self::Setting { topic, key, found, wanted } => write!(f, "{topic}: {key} is {found}, not {wanted}"),
            Self::Unreadable { topic, reason } => write!(f, "{topic}: cannot be looked at: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endless_retention_is_more_than_any_other() {
        assert!(Want::AtLeast(1000).is_met("retention.ms", "-1"));
        assert!(!Want::AtMost(1000).is_met("retention.ms", "-1"));
        assert!(!Want::AtLeast(-1).is_met("retention.ms", "1000"));
        assert!(Want::AtLeast(-1).is_met("retention.ms", "-1"));
        assert!(!Want::AtLeast(1).is_met("max.message.bytes", "-1"));
        assert!(!Want::AtLeast(1).is_met("max.message.bytes", ""));
    }

    #[test]
    fn the_order_of_cleanup_policies_means_nothing() {
        assert!(Want::Exactly("compact,delete".to_owned()).is_met("cleanup.policy", "delete, compact"));
        assert!(!Want::Exactly("delete".to_owned()).is_met("cleanup.policy", "compact"));
    }
}
