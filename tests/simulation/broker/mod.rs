//! A broker in memory: topics of three partitions, a group of consumers for each topic, offsets that
//! are committed late, acknowledgements that are lost, records that stand twice.

mod group;
mod watch;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recharged::domain::{Command, Timestamp};
use recharged::ports::{Clock, OutRecord, PublishError, Publisher};
use tokio::sync::Notify;

use crate::laws::{Findings, Law};
use crate::life::{Life, TrueTime};
use crate::payments::Payments;
use crate::store::MemStore;
use crate::weather::{Fault, Rates, Strikes};
use group::Group;
use watch::Watch;

pub(crate) const PARTITIONS: usize = 3;

#[derive(Debug)]
pub(crate) struct MemBroker {
    time: Arc<TrueTime>,
    topics: Mutex<BTreeMap<Arc<str>, Topic>>,
    rng: Mutex<StdRng>,
    rates: Rates,
    strikes: Arc<Strikes>,
    away_until: Mutex<Option<tokio::time::Instant>>,
    /// Orders of which a command was lost.
    lost: Mutex<HashSet<String>>,
    /// Reads what is asked of it, and answers.
    payments: Payments,
    watch: Watch,
}

#[derive(Debug, Default)]
struct Topic {
    partitions: [Partition; PARTITIONS],
    group: Group,
    arrived: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Partition {
    records: Vec<(OutRecord, Timestamp)>,
    committed: usize,
    /// Nobody hears of what is written until then.
    silent_until: Option<Timestamp>,
}

impl MemBroker {
    pub(crate) fn new(
        time: Arc<TrueTime>,
        payments: Payments,
        seed: u64,
        rates: Rates,
        strikes: Arc<Strikes>,
        store: Arc<MemStore>,
        findings: Arc<Findings>,
    ) -> Arc<Self> {
        let watch = Watch::new(Arc::clone(&time), store, findings);
        Arc::new(Self {
            time,
            topics: Mutex::default(),
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
            rates,
            strikes,
            away_until: Mutex::default(),
            lost: Mutex::default(),
            payments,
            watch,
        })
    }

    fn roll(&self, of_one: f64) -> bool {
        of_one > 0.0 && !self.strikes.is_healed() && self.rng.lock().unwrap().random_bool(of_one)
    }

    fn loses(&self, record: &OutRecord) -> bool {
        if !self.roll(self.rates.lost) {
            return false;
        }
        let Ok(command) = serde_json::from_slice::<Command>(record.value.as_deref().unwrap_or_default()) else {
            return false;
        };
        let is_lost = self.lost.lock().unwrap().insert(command.order_id.to_string());
        if is_lost {
            self.strikes.hit(Fault::CommandLost);
        }
        is_lost
    }

    /// Whether an order lost a command.
    pub(crate) fn has_lost(&self, order_id: &str) -> bool {
        self.lost.lock().unwrap().contains(order_id)
    }

    /// How many orders lost a command.
    pub(crate) fn lost(&self) -> usize {
        self.lost.lock().unwrap().len()
    }

    pub(crate) fn append(&self, record: OutRecord) {
        let now = self.time.now();
        self.watch.written(&record, now);
        let mut topics = self.topics.lock().unwrap();
        let place = partition_of(record.key.as_deref().or(record.value.as_deref()).unwrap_or_default());
        let topic = topics.entry(Arc::clone(&record.topic)).or_default();
        // A hundred orders need a few thousand records.
        let is_little = topic.partitions[place].records.len() < 10_000;
        self.watch.findings.hold(Law::EveryOrderEnds, is_little, || format!("records multiply in {}", record.topic));
        if !is_little {
            return;
        }
        topic.partitions[place].records.push((record, now));
        topic.arrived.notify_waiters();
    }

    pub(crate) fn records(&self, topic: &str) -> Vec<OutRecord> {
        self.written(topic).into_iter().map(|(record, _)| record).collect()
    }

    /// The records of a topic, and when each was written.
    pub(crate) fn written(&self, topic: &str) -> Vec<(OutRecord, Timestamp)> {
        let topics = self.topics.lock().unwrap();
        let partitions = topics.get(topic).map(|topic| topic.partitions.as_slice()).unwrap_or_default();
        partitions.iter().flat_map(|partition| partition.records.iter().cloned()).collect()
    }

    /// Whether every record of every topic that somebody reads was acknowledged.
    pub(crate) fn is_drained(&self) -> bool {
        let topics = self.topics.lock().unwrap();
        topics.values().filter(|topic| topic.group.is_read()).all(|topic| {
            let ends = topic.partitions.iter().map(|partition| partition.records.len());
            ends.enumerate().all(|(place, end)| topic.group.done_to(place, &topic.partitions[place]) >= end)
        })
    }

    /// What was not acknowledged, for people.
    pub(crate) fn undrained(&self) -> String {
        let topics = self.topics.lock().unwrap();
        let mut left = Vec::new();
        for (name, topic) in topics.iter().filter(|(_, topic)| topic.group.is_read()) {
            for (place, partition) in topic.partitions.iter().enumerate() {
                let (done, end) = (topic.group.done_to(place, partition), partition.records.len());
                if done < end {
                    left.push(format!("{name}/{place} at {done} of {end}, {}", topic.group.tell(place)));
                }
            }
        }
        left.join(", ")
    }

    /// Lets go of everything: assignments hold their broker, and it holds them.
    pub(crate) fn forget(&self) {
        self.topics.lock().unwrap().clear();
    }

    /// Nothing is written, read or committed until then.
    pub(crate) fn stay_away(self: &Arc<Self>, length: Duration) {
        *self.away_until.lock().unwrap() = Some(tokio::time::Instant::now() + length);
        self.strikes.hit(Fault::BrokerAway);
        self.later(length, |broker| {
            broker.topics.lock().unwrap().values().for_each(|topic| topic.arrived.notify_waiters());
        });
    }

    fn away_until(&self) -> Option<tokio::time::Instant> {
        self.away_until.lock().unwrap().filter(|until| *until > tokio::time::Instant::now())
    }

    /// What is written to a partition of any topic is heard of later.
    pub(crate) fn silence(self: &Arc<Self>, place: usize, length: Duration) {
        self.strikes.hit(Fault::SlowPartition);
        let until = recharged::domain::plus(self.time.now(), length);
        for topic in self.topics.lock().unwrap().values_mut() {
            topic.partitions[place].silent_until = Some(until);
        }
        self.later(length, |broker| {
            broker.topics.lock().unwrap().values().for_each(|topic| topic.arrived.notify_waiters());
        });
    }

    fn later(self: &Arc<Self>, wait: Duration, then: impl FnOnce(&Arc<Self>) + Send + 'static) {
        let broker = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            then(&broker);
        });
    }

    fn wait_between(&self, least: u64, most: u64) -> Duration {
        Duration::from_micros(self.rng.lock().unwrap().random_range(least..most))
    }

    async fn publish(self: &Arc<Self>, batch: &[OutRecord]) -> Vec<Result<(), PublishError>> {
        if let Some(until) = self.away_until() {
            // Shorter than any message time-out: it is written in the end.
            tokio::time::sleep_until(until).await;
        }
        let mut results = Vec::with_capacity(batch.len());
        let mut failed = false;
        for record in batch {
            let (fails, kept) = (self.roll(self.rates.broker), self.rng.lock().unwrap().random_bool(0.5));
            // An idempotent producer never writes past a record that it could not write.
            let (kept, is_first) = (kept && !failed, !failed);
            failed |= fails;
            if fails && is_first {
                self.strikes.hit(if kept { Fault::PublishedUnacknowledged } else { Fault::PublishFailed });
            }
            if !failed || kept {
                self.write(record);
            }
            results.push(if failed { Err(PublishError::Unacknowledged("simulated".into())) } else { Ok(()) });
        }
        tokio::time::sleep(self.wait_between(200, 5_000)).await;
        results
    }

    fn write(self: &Arc<Self>, record: &OutRecord) {
        if self.loses(record) {
            self.watch.written(record, self.time.now());
            return;
        }
        self.append(record.clone());
        if record.topic.as_ref() == "refunds" {
            for (wait, said) in self.payments.hear(record, self.time.now()) {
                self.later(wait, move |broker| broker.append(said));
            }
        }
        let is_told_in_order = matches!(record.topic.as_ref(), "events" | "refunds");
        if !is_told_in_order && self.roll(self.rates.twice) {
            self.strikes.hit(Fault::RecordTwice);
            let (wait, again) = (self.wait_between(1, 60_000_000), record.clone());
            self.later(wait, move |broker| broker.append(again));
        }
    }
}

/// The same on every machine: FNV-1a.
fn partition_of(key: &[u8]) -> usize {
    let hash = key
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    usize::try_from(hash % PARTITIONS as u64).unwrap()
}

/// What writes for one part of one process.
#[derive(Debug)]
pub(crate) struct MemPublisher {
    pub(crate) broker: Arc<MemBroker>,
    pub(crate) life: Arc<Life>,
    /// What it writes was delayed.
    pub(crate) forwards: bool,
}

#[async_trait]
impl Publisher for MemPublisher {
    async fn publish(&self, batch: &[OutRecord]) -> Vec<Result<(), PublishError>> {
        self.life.pass().await;
        if self.forwards {
            self.broker.watch.forwarded(batch, self.broker.time.now());
        }
        let results = self.broker.publish(batch).await;
        self.life.pass().await;
        results
    }
}
