//! What the Kafka tests share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use recharged::kafka::topics::{self, Outcome, TopicPlan};
use recharged::kafka::{
    Consumer, ConsumerHandle, ConsumerOptions, KafkaOptions, Producer, ProducerOptions, TopicInbox, TopicSubscription,
};
use recharged::ports::{InRecord, OutRecord, Publisher, Stopped, Subscription};

/// Longer than anything takes that works.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run through scripts/test, or eval \"$(scripts/services up)\""))
}

pub(super) fn kafka() -> KafkaOptions {
    KafkaOptions::plain(variable("KAFKA_BROKERS"), "kafka-tests")
}

/// A name that no other test and no other run has.
pub(super) fn unique(what: &str) -> String {
    format!("kt-{what}-{}", uuid::Uuid::new_v4().simple())
}

pub(super) fn plan(name: &str, partitions: u32) -> TopicPlan {
    TopicPlan { name: name.to_owned(), partitions, replication: Some(1), config: BTreeMap::new() }
}

/// A new topic of its own.
pub(super) async fn topic(what: &str, partitions: u32) -> Arc<str> {
    let name = unique(what);
    let outcomes = topics::create(&kafka(), &[plan(&name, partitions)]).await.unwrap();
    assert_eq!(outcomes, vec![Outcome::Created { topic: name.clone() }]);
    Arc::from(name)
}

pub(super) fn group(name: &str, topics: &[(&Arc<str>, usize)]) -> ConsumerOptions {
    let topics = topics.iter().map(|(topic, high_mark)| TopicInbox { topic: Arc::clone(topic), high_mark: *high_mark });
    ConsumerOptions::new(name, topics.collect())
}

/// A group whose members are given up only after longer than [`PATIENCE`]: what happens earlier did
/// not wait for that, however slow the machine.
pub(super) fn long_session(name: &str, topics: &[(&Arc<str>, usize)]) -> ConsumerOptions {
    let mut options = group(name, topics);
    let session = (PATIENCE + Duration::from_secs(30)).as_millis().to_string();
    options.properties = vec![("session.timeout.ms".to_owned(), session)];
    options
}

pub(super) fn start(options: ConsumerOptions) -> (ConsumerHandle, Vec<TopicSubscription>) {
    Consumer::start(&kafka(), options).unwrap()
}

pub(super) fn start_one(name: &str, topic: &Arc<str>, high_mark: usize) -> (ConsumerHandle, TopicSubscription) {
    let (handle, mut subscriptions) = start(group(name, &[(topic, high_mark)]));
    (handle, subscriptions.pop().unwrap())
}

pub(super) fn out(topic: &Arc<str>, key: Option<&str>, value: &str) -> OutRecord {
    OutRecord {
        topic: Arc::clone(topic),
        key: key.map(|key| Bytes::from(key.to_owned())),
        value: Some(Bytes::from(value.to_owned())),
        headers: Vec::new(),
    }
}

pub(super) fn producer() -> Producer {
    Producer::new(&kafka(), ProducerOptions::default()).unwrap()
}

/// Writes `0`, `1`, ... as values and keys.
pub(super) async fn write_numbers(producer: &Producer, topic: &Arc<str>, numbers: std::ops::Range<u64>) {
    let numbers: Vec<u64> = numbers.collect();
    for chunk in numbers.chunks(5000) {
        let batch: Vec<_> =
            chunk.iter().map(|number| out(topic, Some(&number.to_string()), &number.to_string())).collect();
        for answer in producer.publish(&batch).await {
            answer.unwrap();
        }
    }
}

pub(super) fn number(record: &InRecord) -> u64 {
    std::str::from_utf8(record.value.as_deref().unwrap()).unwrap().parse().unwrap()
}

pub(super) async fn next(subscription: &mut TopicSubscription, max: usize) -> Result<Vec<InRecord>, Stopped> {
    tokio::time::timeout(PATIENCE, subscription.next(max)).await.expect("no records and no end in time")
}

/// Reads until `wanted` distinct numbers came; acknowledges each record.
pub(super) async fn read_numbers(subscription: &mut TopicSubscription, wanted: usize) -> BTreeSet<u64> {
    let mut seen = BTreeSet::new();
    while seen.len() < wanted {
        for record in next(subscription, 1000).await.unwrap() {
            seen.insert(number(&record));
            record.ack.done();
        }
    }
    seen
}

/// Waits until `holds`, and fails with `what` otherwise.
pub(super) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The committed offset of a partition, asked by a client that is no member.
pub(super) async fn committed(group: &str, topic: &str, partition: i32) -> Option<i64> {
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    use rdkafka::{ClientConfig, Offset, TopicPartitionList};
    let (group, topic) = (group.to_owned(), topic.to_owned());
    let brokers = variable("KAFKA_BROKERS");
    let asking = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", brokers).set("group.id", group).create().unwrap();
        let mut asked = TopicPartitionList::new();
        asked.add_partition(&topic, partition);
        let found = consumer.committed_offsets(asked, Duration::from_secs(10)).unwrap();
        let offset = found.find_partition(&topic, partition).unwrap().offset();
        if let Offset::Offset(offset) = offset { Some(offset) } else { None }
    });
    asking.await.unwrap()
}
