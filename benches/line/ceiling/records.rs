//! Records in and out, without offsets to answer for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::producer::{DeliveryResult, ProducerContext};
use rdkafka::{ClientConfig, ClientContext};
use tokio::sync::mpsc;

use super::BATCH;

/// A batch that is not full waits this long for more.
const LINGER: Duration = Duration::from_millis(5);
/// Batches in hand.
const AHEAD: usize = 4;

/// The values of some records, end to end.
#[derive(Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Batch {
    fn push(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        self.ends.push(self.bytes.len());
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).filter_map(|(start, end)| self.bytes.get(start..*end))
    }
}

/// Reads a topic on a thread of its own.
pub(super) fn read(brokers: &str, group: &str, topic: &str) -> Result<mpsc::Receiver<Batch>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", group)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "true")
        .set("session.timeout.ms", "6000")
        .set("queued.max.messages.kbytes", "8192")
        .create()
        .context("a consumer")?;
    consumer.subscribe(&[topic])?;
    let (sender, batches) = mpsc::channel(AHEAD);
    std::thread::Builder::new().name("consumer".to_owned()).spawn(move || {
        while let Ok(batch) = next(&consumer) {
            if batch.len() > 0 && sender.blocking_send(batch).is_err() {
                return;
            }
        }
    })?;
    Ok(batches)
}

fn next(consumer: &BaseConsumer) -> Result<Batch> {
    let mut batch = Batch::default();
    let Some(first) = consumer.poll(Duration::from_millis(100)) else { return Ok(batch) };
    batch.push(first?.payload().unwrap_or_default());
    let until = Instant::now() + LINGER;
    while batch.len() < BATCH {
        let left = until.saturating_duration_since(Instant::now()).as_millis().max(1);
        let wait = Duration::from_millis(u64::try_from(left).unwrap_or(1));
        match consumer.poll(wait) {
            Some(record) => batch.push(record?.payload().unwrap_or_default()),
            None => break,
        }
    }
    Ok(batch)
}

/// Counts what the broker has acknowledged.
#[derive(Default)]
pub(super) struct Acknowledged {
    count: AtomicU64,
    failed: AtomicU64,
}

impl Acknowledged {
    /// How many records so far; an error once one has failed.
    pub(super) fn count(&self) -> Result<u64> {
        anyhow::ensure!(self.failed.load(Ordering::Relaxed) == 0, "a record was not acknowledged");
        Ok(self.count.load(Ordering::Acquire))
    }
}

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _opaque: ()) {
        let counter = if result.is_ok() { &self.count } else { &self.failed };
        counter.fetch_add(1, Ordering::Release);
    }
}
