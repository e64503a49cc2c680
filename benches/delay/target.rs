//! Who reads the target topic: with a consumer's settings of the service, and noting when each record
//! came into its hands.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use recharged::clock::SystemClock;

use crate::common::scratch::{PARTITIONS, Scratch};
use crate::items::{self, Kind};

const POLL: Duration = Duration::from_millis(100);

/// A record that came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) kind: Kind,
    pub(crate) number: usize,
    /// When it was due; of a plain one, when it was sent.
    pub(crate) meant_us: i64,
    /// When the broker took it, in its own words.
    pub(crate) appended_ms: i64,
    /// When the reader had it.
    pub(crate) arrived_us: i64,
}

/// A reader in a thread of its own.
pub(crate) struct Target {
    seen: Arc<Mutex<Vec<Arrival>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Target {
    /// Reads whatever is written from now on.
    pub(crate) fn watch(scratch: &Scratch) -> Result<Self> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &scratch.brokers)
            .set("group.id", format!("{}target", scratch.prefix))
            .set("enable.auto.commit", "false")
            .set("fetch.min.bytes", "1")
            .set("fetch.queue.backoff.ms", "10")
            .set("queued.min.messages", "5000")
            .create()
            .context("the reader of the target")?;
        let mut assignment = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            assignment.add_partition_offset(&scratch.topics.timers, partition, Offset::Beginning)?;
        }
        consumer.assign(&assignment)?;
        let (seen, stop) = (Arc::<Mutex<Vec<Arrival>>>::default(), Arc::<AtomicBool>::default());
        let (noted, asked) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = std::thread::spawn(move || read(&consumer, &noted, &asked));
        Ok(Self { seen, stop, thread: Some(thread) })
    }

    /// How many have come.
    pub(crate) fn count(&self) -> usize {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Everything that came.
    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn is_well(&self) -> Result<()> {
        match &self.thread {
            Some(thread) if !thread.is_finished() => Ok(()),
            Some(_) | None => Err(anyhow!("the reader of the target ended")),
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(Ok(Err(error))) = self.thread.take().map(JoinHandle::join) {
            eprintln!("delay: the reader of the target: {error:#}");
        }
    }
}

fn read(consumer: &BaseConsumer, seen: &Mutex<Vec<Arrival>>, stop: &AtomicBool) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        let Some(record) = consumer.poll(POLL) else { continue };
        let record = record?;
        let arrived_us = SystemClock::local().timestamp_micros();
        let appended_ms = record.timestamp().to_millis().unwrap_or(0);
        let Some((kind, number, meant_us)) = record.payload().and_then(items::read) else { continue };
        let arrival = Arrival { kind, number, meant_us, appended_ms, arrived_us };
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(arrival);
    }
    Ok(())
}
