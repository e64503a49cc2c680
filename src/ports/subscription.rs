//! Records that come in, and the duty to say when each is durable.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use crate::domain::Timestamp;

/// One assignment of one partition to this process; it ends at a rebalance.
pub trait Assignment: Send + Sync + std::fmt::Debug {
    /// Whether this process still holds the partition.
    fn is_live(&self) -> bool;

    /// The record at `offset` is durable elsewhere; offsets are committed up to the first that is not.
    fn done(&self, offset: i64);
}

/// The duty to say when a record is durable. Dropped without a word, the record stays
/// uncommitted and comes again.
#[derive(Debug, Clone)]
pub struct Ack {
    assignment: Arc<dyn Assignment>,
    offset: i64,
}

impl Ack {
    /// For the record at `offset` of an assignment.
    pub fn new(assignment: Arc<dyn Assignment>, offset: i64) -> Self {
        Self { assignment, offset }
    }

    /// The record is durable elsewhere.
    pub fn done(self) {
        self.assignment.done(self.offset);
    }

    /// Whether this process still holds the record's partition.
    pub fn is_live(&self) -> bool {
        self.assignment.is_live()
    }
}

/// A record as it came.
#[derive(Debug, Clone)]
pub struct InRecord {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The record's timestamp, where it has one.
    pub timestamp: Option<Timestamp>,
    /// The key.
    pub key: Option<Bytes>,
    /// The value.
    pub value: Option<Bytes>,
    /// The headers: name and value as raw bytes, both possibly anything.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
    /// The duty to say when it is durable.
    pub ack: Ack,
}

/// How far the reader of a partition has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActedOn {
    /// The partition.
    pub partition: i32,
    /// Every record that was written longer ago than this was acted on.
    pub age: Duration,
}

/// No more records will come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// The subscription was closed, as asked.
    #[error("the subscription was closed")]
    Closed,
    /// Its topic is no longer there, as may happen to this one.
    #[error("the topic is no longer there")]
    Gone,
    /// It cannot go on: fenced by another process of the same name, not authorised, broken.
    #[error("the subscription failed: {0}")]
    Failed(String),
}

/// Records of one topic. Not calling `next` is the back-pressure: the partitions pause.
#[async_trait]
pub trait Subscription: Send + std::fmt::Debug {
    /// Waits for records, and returns at most `max` of them, at least one.
    async fn next(&mut self, max: usize) -> Result<Vec<InRecord>, Stopped>;

    /// Whether records of a partition are wanted for now. What was fetched by then still comes; a
    /// partition that comes anew is wanted.
    fn want(&self, partition: i32, wanted: bool);

    /// Changes when partitions are taken away from this process: whoever holds records of them lets go of
    /// those with which nothing was begun. One that is closed never tells.
    fn revocations(&self) -> watch::Receiver<u64> {
        watch::channel(0).1
    }

    /// How often partitions of it have come to this process so far.
    fn assignments(&self) -> u64;

    /// How old the records may be that were not acted on yet, for each partition of which that is
    /// known.
    fn acted_on(&self) -> Vec<ActedOn>;
}
