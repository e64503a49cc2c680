//! Brokers that are away, go away, or answer with errors.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use recharged::kafka::{Consumer, ConsumerHandle, EmbeddedBroker, KafkaError, KafkaOptions, Producer, ProducerOptions};
use recharged::ports::{PublishError, Publisher};

use super::support::{PATIENCE, group, next, number, out, read_numbers, unique, until, write_numbers};

use crate::pace::{at_most, is_quiet};

type Cluster = MockCluster<'static, DefaultProducerContext>;
type Order = Box<dyn FnOnce(&Cluster) + Send>;

/// A cluster that obeys orders to fail; it lives on a thread of its own.
struct Faulty {
    options: KafkaOptions,
    orders: SyncSender<Order>,
}

impl Faulty {
    fn start(topic: &str) -> Self {
        Self::with_brokers(1, topic)
    }

    fn with_brokers(brokers: i32, topic: &str) -> Self {
        let (orders, taken) = sync_channel::<Order>(1);
        let (tell, told) = sync_channel(1);
        let topic = topic.to_owned();
        std::thread::spawn(move || {
            let cluster = MockCluster::new(brokers).unwrap();
            cluster.create_topic(&topic, brokers, brokers).unwrap();
            tell.send(cluster.bootstrap_servers()).unwrap();
            while let Ok(order) = taken.recv() {
                order(&cluster);
            }
        });
        Self { options: KafkaOptions::plain(told.recv().unwrap(), "kafka-tests"), orders }
    }

    fn order(&self, order: impl FnOnce(&Cluster) + Send + 'static) {
        self.orders.send(Box::new(order)).unwrap();
    }
}

fn nowhere() -> KafkaOptions {
    KafkaOptions::plain("127.0.0.1:1", "kafka-tests")
}

fn impatient(timeout: Duration) -> ProducerOptions {
    ProducerOptions { message_timeout: Some(timeout), max_in_flight_records: 100, ..ProducerOptions::default() }
}

#[tokio::test]
async fn a_consumer_that_never_reached_a_broker_closes_at_once() {
    let topic: Arc<str> = Arc::from("t");
    let (handle, _readers) = Consumer::start(&nowhere(), group("g", &[(&topic, 10)])).unwrap();
    until("it tried", || handle.status().poll_age < Duration::from_secs(1)).await;
    let started = Instant::now();
    handle.close(PATIENCE).await.unwrap();
    at_most("the end", started.elapsed(), Duration::from_secs(1), Duration::from_secs(10));
}

#[tokio::test]
async fn a_consumer_whose_broker_died_closes_within_three_seconds() {
    let broker = EmbeddedBroker::start(&[("orders", 2)]).unwrap();
    let topic: Arc<str> = Arc::from("orders");
    let options = broker.options("kafka-tests");
    let producer = Producer::new(&options, ProducerOptions::default()).unwrap();
    write_numbers(&producer, &topic, 0..100).await;
    let (handle, mut readers) = Consumer::start(&options, group("g", &[(&topic, 1000)])).unwrap();
    let mut records = Vec::new();
    while records.len() < 100 {
        records.extend(next(&mut readers[0], 1000).await.unwrap());
    }
    drop(broker);
    // Done only now, so that there is something to commit and nobody to take it.
    for record in records {
        record.ack.done();
    }
    let started = Instant::now();
    let closed = handle.close(Duration::from_millis(2800)).await;
    at_most("the end without a broker", started.elapsed(), Duration::from_secs(3), Duration::from_secs(9));
    assert!(matches!(closed, Err(KafkaError::NotCommitted { .. })), "what is not committed is told: {closed:?}");
    let started = Instant::now();
    producer.close(Duration::from_secs(1)).await;
    at_most("the producer's end", started.elapsed(), Duration::from_secs(2), Duration::from_secs(6));
}

#[tokio::test]
async fn an_outage_longer_than_the_session_passes_without_loss() {
    let topic: Arc<str> = Arc::from("orders");
    let cluster = Faulty::start(&topic);
    let producer = Producer::new(&cluster.options, ProducerOptions::default()).unwrap();
    write_numbers(&producer, &topic, 0..100).await;
    let (handle, mut readers) = Consumer::start(&cluster.options, group("g", &[(&topic, 1000)])).unwrap();
    read_numbers(&mut readers[0], 100).await;
    cluster.order(|cluster| cluster.broker_down(-1).unwrap());
    let away = tokio::spawn({
        let topic = Arc::clone(&topic);
        async move {
            write_numbers(&producer, &topic, 100..200).await;
            producer
        }
    });
    let (end, mut longest) = (Instant::now() + Duration::from_secs(8), Duration::ZERO);
    while Instant::now() < end {
        longest = longest.max(handle.status().poll_age);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    at_most("a poll during the outage", longest, Duration::from_secs(1), Duration::from_secs(4));
    assert_eq!(handle.status().failed, None);
    cluster.order(|cluster| cluster.broker_up(-1).unwrap());
    let producer = away.await.unwrap();
    let mut seen = std::collections::BTreeSet::new();
    while !(100..200).all(|number| seen.contains(&number)) {
        for record in next(&mut readers[0], 1000).await.unwrap() {
            seen.insert(number(&record));
            record.ack.done();
        }
    }
    handle.close(Duration::from_secs(5)).await.unwrap();
    assert_eq!(producer.close(Duration::from_secs(5)).await, 0);
}

/// How large a part of this time a consumer says that no broker answers.
async fn unreachable_share(handle: &ConsumerHandle, time: Duration) -> f64 {
    let (mut looks, mut unreachable) = (0, 0);
    let end = Instant::now() + time;
    while Instant::now() < end {
        looks += 1;
        unreachable += i32::from(handle.status().unreachable);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    f64::from(unreachable) / f64::from(looks)
}

#[tokio::test]
async fn a_consumer_knows_within_seconds_that_no_broker_answers_and_that_one_does_again() {
    let topic: Arc<str> = Arc::from("orders");
    let cluster = Faulty::with_brokers(3, &topic);
    let producer = Producer::new(&cluster.options, ProducerOptions::default()).unwrap();
    write_numbers(&producer, &topic, 0..100).await;
    let (handle, mut readers) = Consumer::start(&cluster.options, group("g", &[(&topic, 1000)])).unwrap();
    read_numbers(&mut readers[0], 100).await;
    assert!(!handle.status().unreachable);

    // Where the machine holds this process up, statistics come late and a moment's doubt is right.
    let bearable = if is_quiet() { 0.0 } else { 0.3 };
    cluster.order(|cluster| cluster.broker_down(2).unwrap());
    let share = unreachable_share(&handle, Duration::from_secs(5)).await;
    assert!(share <= bearable, "two of three brokers are up, and it says none for {share}");
    cluster.order(|cluster| cluster.broker_up(2).unwrap());
    until("it knows them all", || !handle.status().unreachable).await;
    // As when a broker closes connections that were idle.
    let mut unnoticed = 0;
    for _ in 0..3 {
        cluster.order(|cluster| cluster.broker_down(-1).unwrap());
        cluster.order(|cluster| cluster.broker_up(-1).unwrap());
        unnoticed += i32::from(unreachable_share(&handle, Duration::from_millis(1_700)).await == 0.0);
        until("it knows that they are up", || !handle.status().unreachable).await;
    }
    assert!(
        unnoticed >= if is_quiet() { 3 } else { 1 },
        "they are up again at once; {unnoticed} of 3 passed unnoticed"
    );

    let began = Instant::now();
    cluster.order(|cluster| cluster.broker_down(-1).unwrap());
    until("it knows of the outage", || handle.status().unreachable).await;
    at_most("noticing an outage", began.elapsed(), Duration::from_secs(2), Duration::from_secs(6));
    assert_eq!(unreachable_share(&handle, Duration::from_secs(3)).await, 1.0, "it does not forget");
    let began = Instant::now();
    cluster.order(|cluster| cluster.broker_up(-1).unwrap());
    until("it knows of the end", || !handle.status().unreachable).await;
    at_most("noticing its end", began.elapsed(), Duration::from_millis(2_500), Duration::from_millis(7_500));
    handle.close(Duration::from_secs(5)).await.unwrap();
    producer.close(Duration::from_secs(5)).await;
}

#[tokio::test]
#[ignore = "takes the half minute after which a silent partition counts as stuck"]
async fn a_partition_that_stands_still_gets_a_new_client() {
    let topic: Arc<str> = Arc::from("orders");
    let cluster = Faulty::start(&topic);
    let producer = Producer::new(&cluster.options, ProducerOptions::default()).unwrap();
    write_numbers(&producer, &topic, 0..10).await;
    let (handle, mut readers) = Consumer::start(&cluster.options, group("g", &[(&topic, 1000)])).unwrap();
    read_numbers(&mut readers[0], 10).await;
    // The broker answers everything but fetches.
    cluster.order(|cluster| {
        cluster.request_errors(RDKafkaApiKey::Fetch, &vec![RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN; 10_000]);
    });
    write_numbers(&producer, &topic, 10..20).await;
    let end = Instant::now() + Duration::from_mins(1);
    while handle.status().rebuilds == 0 {
        assert!(Instant::now() < end, "it was not noticed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    cluster.order(|cluster| cluster.clear_request_errors(RDKafkaApiKey::Fetch));
    assert!(read_numbers(&mut readers[0], 10).await.into_iter().eq(10..20));
    handle.close(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn a_refused_commit_is_sent_again() {
    let topic: Arc<str> = Arc::from("orders");
    let cluster = Faulty::start(&topic);
    let producer = Producer::new(&cluster.options, ProducerOptions::default()).unwrap();
    write_numbers(&producer, &topic, 0..10).await;
    let name = unique("g");
    let (handle, mut readers) = Consumer::start(&cluster.options, group(&name, &[(&topic, 1000)])).unwrap();
    cluster.order(|cluster| {
        cluster.request_errors(
            RDKafkaApiKey::OffsetCommit,
            &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED],
        );
    });
    read_numbers(&mut readers[0], 10).await;
    until("it noticed", || handle.status().commits_failed > 0).await;
    handle.close(Duration::from_secs(5)).await.unwrap();
    let (handle, mut readers) = Consumer::start(&cluster.options, group(&name, &[(&topic, 1000)])).unwrap();
    write_numbers(&producer, &topic, 10..11).await;
    assert_eq!(number(&next(&mut readers[0], 100).await.unwrap()[0]), 10);
    handle.close(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn a_dead_broker_answers_each_record_after_the_time_out_and_no_later() {
    let topic: Arc<str> = Arc::from("t");
    let producer = Producer::new(&nowhere(), impatient(Duration::from_secs(1))).unwrap();
    let started = Instant::now();
    // Five times what may be in flight.
    let batch: Vec<_> = (0..500).map(|number: u64| out(&topic, None, &number.to_string())).collect();
    let answers = producer.publish(&batch).await;
    assert_eq!(answers.len(), 500);
    assert!(answers.iter().all(|answer| matches!(answer, Err(PublishError::Unacknowledged(_)))));
    at_most("each answer", started.elapsed(), Duration::from_secs(4), Duration::from_secs(12));
    assert_eq!(producer.status().in_flight, 0);
    assert_eq!(producer.close(Duration::from_secs(1)).await, 0);
}

#[tokio::test]
async fn a_producer_without_time_out_waits_and_its_close_counts_what_is_left() {
    let topic: Arc<str> = Arc::from("t");
    let options = ProducerOptions { message_timeout: None, ..ProducerOptions::default() };
    let producer = Arc::new(Producer::new(&nowhere(), options).unwrap());
    let writing = tokio::spawn({
        let (producer, topic) = (Arc::clone(&producer), Arc::clone(&topic));
        async move { producer.publish(&[out(&topic, None, "1"), out(&topic, None, "2")]).await }
    });
    until("both are in flight", || producer.status().in_flight == 2).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!writing.is_finished());
    let started = Instant::now();
    assert_eq!(producer.close(Duration::from_millis(500)).await, 2);
    let answers = tokio::time::timeout(PATIENCE, writing).await.unwrap().unwrap();
    at_most("the end", started.elapsed(), Duration::from_secs(3), Duration::from_secs(9));
    assert!(answers.iter().all(|answer| matches!(answer, Err(PublishError::Unacknowledged(_)))), "{answers:?}");
    let late = producer.publish(&[out(&topic, None, "3")]).await.remove(0);
    assert_eq!(late, Err(PublishError::Unacknowledged("the producer is closed".to_owned())));
}

#[tokio::test]
async fn a_publish_that_is_dropped_gives_its_places_back() {
    let topic: Arc<str> = Arc::from("t");
    let producer = Producer::new(&nowhere(), impatient(Duration::from_secs(2))).unwrap();
    let batch: Vec<_> = (0..250).map(|number: u64| out(&topic, None, &number.to_string())).collect();
    let cut = tokio::time::timeout(Duration::from_millis(200), producer.publish(&batch)).await;
    assert!(cut.is_err());
    until("all places are free", || producer.status().in_flight == 0).await;
    producer.close(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_producer_that_broke_for_good_is_made_anew() {
    let topic: Arc<str> = Arc::from("orders");
    let cluster = Faulty::start(&topic);
    cluster.order(|cluster| {
        cluster.request_errors(
            RDKafkaApiKey::InitProducerId,
            &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED],
        );
    });
    let producer = Producer::new(&cluster.options, impatient(Duration::from_secs(3))).unwrap();
    let first = producer.publish(&[out(&topic, None, "1")]).await.remove(0);
    println!("the first: {first:?}");
    assert!(first.is_err());
    let end = Instant::now() + Duration::from_secs(20);
    while producer.publish(&[out(&topic, None, "2")]).await.remove(0).is_err() {
        assert!(Instant::now() < end, "it stays broken");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(producer.status().rebuilds, 1);
    assert_eq!(producer.close(Duration::from_secs(5)).await, 0);
}

/// A batch of several waves, the first of which fails for good: the client is made anew in the
/// middle, and must not write the rest of the batch past what failed.
#[tokio::test]
async fn a_producer_in_order_writes_nothing_past_what_failed() {
    let topic: Arc<str> = Arc::from("orders");
    let cluster = Faulty::start(&topic);
    let options = ProducerOptions { message_timeout: None, in_order: true, ..ProducerOptions::default() };
    let producer = Producer::new(&cluster.options, options).unwrap();
    let filler = "x".repeat(8 << 10);
    let record = |number: u64| out(&topic, Some("one-order"), &format!("{number} {filler}"));
    producer.publish(&[record(0)]).await.remove(0).unwrap();
    // A client that is younger than a second would not be replaced.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    cluster.order(|cluster| {
        cluster.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED]);
    });
    let mut left: Vec<_> = (1..400).map(record).collect();
    let end = Instant::now() + PATIENCE;
    while !left.is_empty() {
        assert!(Instant::now() < end, "{} records are left", left.len());
        let mut answers = producer.publish(&left).await.into_iter();
        left.retain(|_| answers.next().unwrap().is_err());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(producer.status().rebuilds, 1, "the failure did not break the client: nothing was tried");

    let (handle, mut readers) = Consumer::start(&cluster.options, group("g", &[(&topic, 1000)])).unwrap();
    let mut seen = Vec::new();
    while seen.len() < 400 {
        for record in next(&mut readers[0], 1000).await.unwrap() {
            let text = std::str::from_utf8(record.value.as_deref().unwrap()).unwrap();
            let number: u64 = text.split(' ').next().unwrap().parse().unwrap();
            // What was written without an answer comes twice; what counts is the first time.
            if !seen.contains(&number) {
                seen.push(number);
            }
            record.ack.done();
        }
    }
    assert!(seen.is_sorted(), "{seen:?}");
    handle.close(Duration::from_secs(5)).await.unwrap();
    producer.close(Duration::from_secs(5)).await;
}
