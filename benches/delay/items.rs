//! Records that wait, and plain ones beside them. A record's value says what it is, its number, and
//! when it is due (a plain one: when it was sent), in microseconds since 1970.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use recharged::clock::SystemClock;

use crate::common::lateness::whole;
use crate::common::round::count;
use crate::common::scratch::Scratch;

/// How often a writer looks at its clock.
const TICK: Duration = Duration::from_millis(1);
/// What else a command says; with the rest about 300 bytes.
const REST: &str = "{\"kind\":\"submit\",\"order_id\":\"2026010112000000\",\"attempt\":1,\"asked_version\":3,\
    \"phone_hash\":\"AAAAAAAAAAAAAAAAAAAAAA\",\"amount_minor\":5000,\"currency\":\"CNY\",\"provider\":\"bench\",\
    \"deadline_at\":\"2026-01-01T12:03:00.000000Z\",\"client_ref\":\"2026010112000000-1\"}";

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It went through a tier.
    Delayed,
    /// It went to the target directly.
    Plain,
}

/// Writes records, as promptly as the forwarder writes its own.
pub(crate) struct Writer {
    producer: ThreadedProducer<DefaultProducerContext>,
    target: String,
    prefix: String,
}

impl Writer {
    pub(crate) fn open(scratch: &Scratch) -> Result<Self> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", &scratch.brokers)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.type", "lz4")
            .set("linger.ms", "0")
            .set("queue.buffering.max.messages", "200000")
            .create()
            .context("a producer")?;
        Ok(Self { producer, target: scratch.topics.timers.to_string(), prefix: scratch.prefix.clone() })
    }

    /// Puts record `number` into a tier, due at `due_ms`.
    pub(crate) fn delay(&self, tier: &str, number: usize, due_ms: i64) -> Result<()> {
        let topic = format!("{}delay.{tier}", self.prefix);
        let (due, key) = (due_ms.to_string(), key(number));
        let value = value(Kind::Delayed, number, due_ms * 1000);
        let headers = OwnedHeaders::new()
            .insert(Header { key: "due-at", value: Some(&due) })
            .insert(Header { key: "target-topic", value: Some(&self.target) })
            .insert(Header { key: "hops", value: Some("0") });
        self.send(BaseRecord::to(&topic).key(&key).payload(&value).headers(headers))
    }

    /// Writes a plain record to the target.
    pub(crate) fn plain(&self, number: usize) -> Result<()> {
        let (key, value) = (key(number), value(Kind::Plain, number, SystemClock::local().timestamp_micros()));
        self.send(BaseRecord::to(&self.target).key(&key).payload(&value))
    }

    fn send(&self, mut record: BaseRecord<'_, String, String>) -> Result<()> {
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                    record = again;
                    std::thread::sleep(TICK * 5);
                }
                Err((error, _)) => return Err(error).context("a record could not be written"),
            }
        }
    }

    /// Waits until the broker has everything.
    pub(crate) fn flush(&self) -> Result<()> {
        self.producer.flush(Duration::from_mins(2)).context("the broker did not take the records in time")
    }
}

/// Calls `write` with each number at its time, or as soon after it as can be.
pub(crate) fn pace(rate: f64, items: usize, mut write: impl FnMut(usize, Duration) -> Result<()>) -> Result<()> {
    let (began, mut number) = (Instant::now(), 0);
    while number < items {
        let due = whole(began.elapsed().as_secs_f64() * rate).min(items);
        while number < due {
            write(number, Duration::from_secs_f64(count(number) / rate))?;
            number += 1;
        }
        std::thread::sleep(TICK);
    }
    Ok(())
}

/// Whole milliseconds, rounded up, as a due time is written.
pub(crate) fn now_ms_up() -> i64 {
    SystemClock::local().timestamp_millis() + 1
}

fn key(number: usize) -> String {
    format!("2026010112{number:08}")
}

fn value(kind: Kind, number: usize, micros: i64) -> String {
    let mark = match kind {
        Kind::Delayed => 'd',
        Kind::Plain => 'p',
    };
    format!("{mark} {number} {micros} {REST}")
}

/// Reads a value: what it is, its number, its time in microseconds.
pub(crate) fn read(value: &[u8]) -> Option<(Kind, usize, i64)> {
    let mut fields = std::str::from_utf8(value).ok()?.splitn(4, ' ');
    let kind = match fields.next()? {
        "d" => Kind::Delayed,
        "p" => Kind::Plain,
        _ => return None,
    };
    Some((kind, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}
