//! A broker in memory: topics of partitions, committed offsets per consumer, acknowledgements that
//! are lost. A crash drops the consumer; the next one starts at what was committed.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recharged::domain::Command;
use recharged::ports::{
    Ack, ActedOn, Assignment, Clock, InRecord, OutRecord, PublishError, Publisher, Stopped, Subscription,
};
use tokio::sync::Notify;

#[derive(Debug)]
pub(crate) struct MemBroker {
    clock: Arc<dyn Clock>,
    topics: Mutex<HashMap<Arc<str>, Topic>>,
    arrived: Notify,
    rng: Mutex<StdRng>,
    fails: f64,
    /// Of 1: how often a command is lost after it was acknowledged. No order loses two.
    loses: f64,
    lost: Mutex<HashSet<String>>,
}

#[derive(Debug, Default)]
struct Topic {
    records: Vec<(OutRecord, recharged::domain::Timestamp)>,
    committed: usize,
}

impl MemBroker {
    pub(crate) fn new(clock: Arc<dyn Clock>, seed: u64, fails: f64, loses: f64) -> Arc<Self> {
        Arc::new(Self {
            clock,
            topics: Mutex::default(),
            arrived: Notify::new(),
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
            fails,
            loses,
            lost: Mutex::default(),
        })
    }

    fn loses(&self, record: &OutRecord) -> bool {
        if self.loses == 0.0 || !self.rng.lock().unwrap().random_bool(self.loses) {
            return false;
        }
        let Ok(command) = serde_json::from_slice::<Command>(record.value.as_deref().unwrap_or_default()) else {
            return false;
        };
        self.lost.lock().unwrap().insert(command.order_id.to_string())
    }

    /// How many orders lost a command.
    pub(crate) fn lost(&self) -> usize {
        self.lost.lock().unwrap().len()
    }

    pub(crate) fn append(&self, record: OutRecord) {
        let now = self.clock.now();
        let mut topics = self.topics.lock().unwrap();
        topics.entry(Arc::clone(&record.topic)).or_default().records.push((record, now));
        self.arrived.notify_waiters();
    }

    pub(crate) fn records(&self, topic: &str) -> Vec<OutRecord> {
        let topics = self.topics.lock().unwrap();
        topics.get(topic).map(|t| t.records.iter().map(|(r, _)| r.clone()).collect()).unwrap_or_default()
    }

    /// Records that no consumer has committed yet.
    pub(crate) fn uncommitted(&self, topic: &str) -> usize {
        let topics = self.topics.lock().unwrap();
        topics.get(topic).map_or(0, |t| t.records.len() - t.committed)
    }

    /// A consumer that starts at what was committed.
    pub(crate) fn subscribe(self: &Arc<Self>, topic: &str) -> MemSubscription {
        let name: Arc<str> = topic.into();
        let from = self.topics.lock().unwrap().entry(Arc::clone(&name)).or_default().committed;
        let assignment = Arc::new(MemAssignment {
            broker: Arc::clone(self),
            topic: Arc::clone(&name),
            live: AtomicBool::new(true),
            ledger: Mutex::new((from, BTreeSet::new())),
        });
        MemSubscription { broker: Arc::clone(self), topic: name, position: from, assignment }
    }
}

#[async_trait]
impl Publisher for MemBroker {
    async fn publish(&self, batch: &[OutRecord]) -> Vec<Result<(), PublishError>> {
        let mut results = Vec::new();
        let mut failed = false;
        for record in batch {
            let (fails, kept) = {
                let mut rng = self.rng.lock().unwrap();
                (rng.random_bool(self.fails), rng.random_bool(0.5))
            };
            // An idempotent producer never writes past a record that it could not write.
            let (fails, kept) = (fails || failed, kept && !failed);
            failed = fails;
            if (!fails || kept) && !self.loses(record) {
                self.append(record.clone());
            }
            results.push(if fails { Err(PublishError::Unacknowledged("simulated".into())) } else { Ok(()) });
        }
        let wait = self.rng.lock().unwrap().random_range(200..5_000);
        tokio::time::sleep(Duration::from_micros(wait)).await;
        results
    }
}

#[derive(Debug)]
struct MemAssignment {
    broker: Arc<MemBroker>,
    topic: Arc<str>,
    live: AtomicBool,
    /// The first offset that is not done, and those done beyond it.
    ledger: Mutex<(usize, BTreeSet<usize>)>,
}

impl Assignment for MemAssignment {
    fn is_live(&self) -> bool {
        self.live.load(Ordering::SeqCst)
    }

    fn done(&self, offset: i64) {
        if !self.is_live() {
            return;
        }
        let mut ledger = self.ledger.lock().unwrap();
        let (base, done) = &mut *ledger;
        done.insert(usize::try_from(offset).unwrap());
        while done.remove(base) {
            *base += 1;
        }
        self.broker.topics.lock().unwrap().get_mut(&self.topic).unwrap().committed = *base;
    }
}

#[derive(Debug)]
pub(crate) struct MemSubscription {
    broker: Arc<MemBroker>,
    topic: Arc<str>,
    position: usize,
    assignment: Arc<MemAssignment>,
}

impl Drop for MemSubscription {
    fn drop(&mut self) {
        self.assignment.live.store(false, Ordering::SeqCst);
    }
}

#[async_trait]
impl Subscription for MemSubscription {
    async fn next(&mut self, max: usize) -> Result<Vec<InRecord>, Stopped> {
        loop {
            let broker = Arc::clone(&self.broker);
            let arrived = broker.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            let found: Vec<InRecord> = {
                let topics = self.broker.topics.lock().unwrap();
                let records = topics.get(&self.topic).map(|topic| topic.records.as_slice()).unwrap_or_default();
                records
                    .iter()
                    .enumerate()
                    .skip(self.position)
                    .take(max)
                    .map(|(n, (r, at))| self.read(n, r, *at))
                    .collect()
            };
            if !found.is_empty() {
                self.position += found.len();
                return Ok(found);
            }
            arrived.await;
        }
    }

    fn assignments(&self) -> u64 {
        1
    }

    fn acted_on(&self) -> Vec<ActedOn> {
        let topics = self.broker.topics.lock().unwrap();
        let now = self.broker.clock.now();
        let oldest = topics.get(&self.topic).and_then(|topic| topic.records.get(topic.committed));
        let age = oldest.map_or(Duration::ZERO, |(_, at)| (now - *at).to_std().unwrap_or_default());
        vec![ActedOn { partition: 0, age }]
    }
}

impl MemSubscription {
    fn read(&self, offset: usize, record: &OutRecord, at: recharged::domain::Timestamp) -> InRecord {
        let offset = i64::try_from(offset).unwrap();
        InRecord {
            topic: Arc::clone(&self.topic),
            partition: 0,
            offset,
            timestamp: Some(at),
            key: record.key.clone(),
            value: record.value.clone(),
            headers: record.headers.clone(),
            ack: Ack::new(Arc::<MemAssignment>::clone(&self.assignment), offset),
        }
    }
}
