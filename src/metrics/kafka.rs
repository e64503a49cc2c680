//! Kafka's client.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge};

use super::catalogue as names;
use super::{Family, exact, exact_size};

const EVENTS: [&str; 3] = ["assigned", "revoked", "lost"];

#[derive(Clone)]
struct Consumed {
    topic: Arc<str>,
    records: Counter,
    lag_seconds: Gauge,
    assigned: Gauge,
    rebalances: Family<Counter>,
    commit_failures: Counter,
    poll_age: Gauge,
}

#[derive(Clone)]
struct Produced {
    topic: Arc<str>,
    ok: Counter,
    error: Counter,
}

/// The topics that a process reads and writes. Topics that were not named at the start are not
/// recorded.
#[derive(Clone)]
pub struct KafkaMetrics {
    read: Vec<Consumed>,
    written: Vec<Produced>,
}

impl std::fmt::Debug for KafkaMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KafkaMetrics")
    }
}

impl KafkaMetrics {
    /// For the topics that are read and those that are written.
    pub fn new(read: &[Arc<str>], written: &[Arc<str>]) -> Self {
        let consumed = |topic: &Arc<str>| Consumed {
            topic: Arc::clone(topic),
            records: names::KAFKA_CONSUMED.counter(&[topic]),
            lag_seconds: names::KAFKA_LAG_SECONDS.gauge(&[topic]),
            assigned: names::KAFKA_ASSIGNED.gauge(&[topic]),
            rebalances: Family::new(&EVENTS, |event| names::KAFKA_REBALANCES.counter(&[topic, event])),
            commit_failures: names::KAFKA_COMMIT_FAILURES.counter(&[topic]),
            poll_age: names::KAFKA_POLL_AGE.gauge(&[topic]),
        };
        let produced = |topic: &Arc<str>| Produced {
            topic: Arc::clone(topic),
            ok: names::KAFKA_PRODUCED.counter(&[topic, "ok"]),
            error: names::KAFKA_PRODUCED.counter(&[topic, "error"]),
        };
        Self { read: read.iter().map(consumed).collect(), written: written.iter().map(produced).collect() }
    }

    fn of(&self, topic: &str) -> Option<&Consumed> {
        self.read.iter().find(|known| &*known.topic == topic)
    }

    /// Records read.
    pub fn consumed(&self, topic: &str, count: u64) {
        if let Some(of) = self.of(topic) {
            of.records.increment(count);
        }
    }

    /// Records that were acknowledged, or were not.
    pub fn produced(&self, topic: &str, ok: bool, count: u64) {
        if let Some(of) = self.written.iter().find(|known| &*known.topic == topic) {
            if ok { of.ok.increment(count) } else { of.error.increment(count) }
        }
    }

    /// Records of a partition that are not read yet; 0 once it is revoked, so that two processes
    /// never both report it.
    pub fn lag_records(&self, topic: &str, partition: i32, records: u64) {
        names::KAFKA_LAG_RECORDS.gauge(&[topic, &partition.to_string()]).set(exact(records));
    }

    /// Age of the oldest record that is not yet read.
    pub fn lag_seconds(&self, topic: &str, age: Duration) {
        if let Some(of) = self.of(topic) {
            of.lag_seconds.set(age.as_secs_f64());
        }
    }

    /// Partitions held now.
    pub fn assigned(&self, topic: &str, partitions: usize) {
        if let Some(of) = self.of(topic) {
            of.assigned.set(exact_size(partitions));
        }
    }

    /// A change of the assignment: `assigned`, `revoked` or `lost`.
    pub fn rebalance(&self, topic: &str, event: &'static str) {
        if let Some(counter) = self.of(topic).and_then(|of| of.rebalances.get(event)) {
            counter.increment(1);
        }
    }

    /// A commit failed.
    pub fn commit_failure(&self, topic: &str) {
        if let Some(of) = self.of(topic) {
            of.commit_failures.increment(1);
        }
    }

    /// Time since the poll loop last turned.
    pub fn poll_age(&self, topic: &str, age: Duration) {
        if let Some(of) = self.of(topic) {
            of.poll_age.set(age.as_secs_f64());
        }
    }
}
