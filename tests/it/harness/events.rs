//! What the line tells the world.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use recharged::kafka::{Consumer, ConsumerOptions, KafkaOptions, TopicInbox, TopicSubscription};
use recharged::ports::{InRecord, Subscription as _};
use serde_json::Value;

use super::{Line, PATIENCE};

impl Line {
    /// Reads a topic from its beginning until `enough` says so; fails when nothing comes any more.
    pub(crate) async fn read(&self, topic: &str, enough: impl Fn(&[InRecord]) -> bool) -> Vec<InRecord> {
        let group = format!("test-{}", uuid::Uuid::new_v4().simple());
        let inbox = TopicInbox { topic: self.topic(topic), high_mark: 10_000 };
        let kafka = KafkaOptions::plain(&self.brokers, "line-tests");
        let (handle, mut subscriptions) = Consumer::start(&kafka, ConsumerOptions::new(group, vec![inbox])).unwrap();
        let mut subscription: TopicSubscription = subscriptions.remove(0);
        let mut records = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while !enough(&records) {
            let left = deadline.saturating_duration_since(Instant::now());
            let next = tokio::time::timeout(left, subscription.next(5_000)).await;
            let Ok(next) = next else { panic!("{topic}: only {} records came", records.len()) };
            records.extend(next.unwrap());
        }
        handle.close(Duration::from_secs(5)).await.unwrap();
        records
    }

    /// Waits until the relay has told the whole log, refunds too: it moves its cursor behind them.
    pub(crate) async fn until_told(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let cursor = self.store.cursor().await.unwrap();
            if !self.store.has_more(cursor).await.unwrap() {
                return;
            }
            assert!(Instant::now() < deadline, "the relay does not come to the end of the log");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Reads a topic from its beginning to where it ends now.
    pub(crate) async fn read_all(&self, topic: &str) -> Vec<InRecord> {
        let end = self.end_of(topic);
        self.read(topic, |records| records.len() >= end).await
    }

    /// How many records stand in a topic.
    fn end_of(&self, topic: &str) -> usize {
        use rdkafka::consumer::{BaseConsumer, Consumer as _};
        let (topic, wait) = (self.topic(topic), Duration::from_secs(10));
        let consumer: BaseConsumer =
            rdkafka::ClientConfig::new().set("bootstrap.servers", &self.brokers).create().unwrap();
        let metadata = consumer.fetch_metadata(Some(&topic), wait).unwrap();
        let partitions = metadata.topics()[0].partitions().iter().map(|partition| partition.id());
        let ends = partitions.map(|partition| consumer.fetch_watermarks(&topic, partition, wait).unwrap());
        usize::try_from(ends.map(|(first, end)| end - first).sum::<i64>()).unwrap()
    }

    /// Every order event, checked to be in order per order; by order id, the last version.
    pub(crate) async fn events_in_order(&self) -> HashMap<String, u64> {
        let wanted: HashMap<String, u64> =
            self.rows().await.iter().map(|row| (row.order_id.to_string(), u64::from(row.version))).collect();
        let records = self.read("order-events", |records| last_versions(records) == wanted).await;
        last_versions(&records)
    }
}

/// The last version of each order; fails where one was left out or came out of order.
pub(crate) fn last_versions(records: &[InRecord]) -> HashMap<String, u64> {
    let mut last: HashMap<String, u64> = HashMap::new();
    for record in records {
        let event: Value = serde_json::from_slice(record.value.as_ref().unwrap()).unwrap();
        let (id, version) = (event["order_id"].as_str().unwrap(), event["version"].as_u64().unwrap());
        let known = last.entry(id.to_owned()).or_default();
        assert!(version <= *known + 1, "{id}: version {version} came after {known}");
        *known = (*known).max(version);
    }
    last
}
