//! The relay, and the dead letters.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge};

use super::catalogue as names;
use super::exact;
use crate::domain::inbound::DeadLetterReason;

#[derive(Clone)]
struct Topic {
    name: Arc<str>,
    ok: Counter,
    error: Counter,
}

/// The relay.
#[derive(Clone)]
pub struct RelayMetrics {
    topics: Vec<Topic>,
    pending: Gauge,
    oldest: Gauge,
}

impl std::fmt::Debug for RelayMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RelayMetrics")
    }
}

impl RelayMetrics {
    /// For the topics that the relay writes.
    pub fn new(topics: &[Arc<str>]) -> Self {
        let topic = |name: &Arc<str>| Topic {
            name: Arc::clone(name),
            ok: names::RELAY_PUBLISHED.counter(&[name, "ok"]),
            error: names::RELAY_PUBLISHED.counter(&[name, "error"]),
        };
        Self {
            topics: topics.iter().map(topic).collect(),
            pending: names::RELAY_PENDING.gauge(&[]),
            oldest: names::RELAY_OLDEST.gauge(&[]),
        }
    }

    /// Events that Kafka acknowledged, or did not.
    pub fn published(&self, topic: &str, ok: bool, count: u64) {
        if let Some(topic) = self.topics.iter().find(|known| &*known.name == topic) {
            if ok { topic.ok.increment(count) } else { topic.error.increment(count) }
        }
    }

    /// Entries that are not yet published, and the age of the oldest (zero without any).
    pub fn pending(&self, rows: u64, oldest: Duration) {
        self.pending.set(exact(rows));
        self.oldest.set(oldest.as_secs_f64());
    }
}

/// Writes the counters of dead letters as 0 for the topics whose records can become one.
pub fn preset_dead_letters(topics: &[Arc<str>]) {
    for topic in topics {
        for reason in DeadLetterReason::ALL {
            dead_letter(topic, reason.as_str(), 0);
        }
    }
}

/// Records of a topic that went to the dead letters. Rare, so the handle is looked up.
pub fn dead_letter(topic: &str, reason: &'static str, count: u64) {
    debug_assert!(DeadLetterReason::parse(reason).is_some(), "{reason:?} is no reason of a dead letter");
    names::DEAD_LETTERS.counter(&[topic, reason]).increment(count);
}
