//! Synthetic orders: paid, about 300 bytes of plain JSON.

use std::time::Duration;

use anyhow::{Context as _, Result};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use recharged::domain::Timestamp;

use crate::common::scratch::Scratch;

/// Writes orders to the topic that the system under test reads.
pub(crate) struct Shop {
    producer: ThreadedProducer<DefaultProducerContext>,
    topic: String,
}

impl Shop {
    pub(crate) fn open(scratch: &Scratch) -> Result<Self> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", &scratch.brokers)
            .set("enable.idempotence", "true")
            .set("linger.ms", "1")
            .set("queue.buffering.max.messages", "500000")
            .set("partitioner", "murmur2_random")
            .create()
            .context("the producer of orders")?;
        Ok(Self { producer, topic: scratch.topics.orders.to_string() })
    }

    /// Sends order `number`, created and paid at `at`, which is its Kafka timestamp too.
    pub(crate) fn send(&self, number: usize, at: Timestamp) -> Result<()> {
        let (key, body) = order(number, at);
        let mut record = BaseRecord::to(&self.topic).key(&key).payload(&body).timestamp(at.timestamp_millis());
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                    record = again;
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err((error, _)) => return Err(error).context("an order could not be written"),
            }
        }
    }

    /// Waits until the broker has everything.
    pub(crate) fn flush(&self) -> Result<()> {
        self.producer.flush(Duration::from_mins(1)).context("the broker did not take the orders in time")
    }
}

/// The id of order `number`; all are of one length.
pub(crate) fn order_id(number: usize) -> String {
    format!("2026010112{number:08}")
}

/// The number of the order with this id.
pub(crate) fn number_of(order_id: &[u8]) -> Option<usize> {
    let digits = order_id.strip_prefix(b"2026010112")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn order(number: usize, at: Timestamp) -> (String, String) {
    let id = order_id(number);
    let at = at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    // What the service does not know of (`channel`, `app`) belongs to real orders too.
    let body = format!(
        "{{\"order_id\":\"{id}\",\"phone\":\"+86138000{:05}\",\"amount_minor\":5000,\"currency\":\"CNY\",\
         \"carrier\":\"china-mobile\",\"created_at\":\"{at}\",\"paid_at\":\"{at}\",\"payment_id\":\"pay-{id}\",\
         \"channel\":\"app-store\",\"app\":\"shop/8.14.2\",\"campaign\":\"new-year\"}}",
        number % 100_000
    );
    (id, body)
}
