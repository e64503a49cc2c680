//! The embedded broker, and how its losses are seen.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use recharged::kafka::embedded::lost_records;
use recharged::kafka::{Consumer, EmbeddedBroker, KafkaOptions, Producer, ProducerOptions};
use recharged::ports::Publisher;

use super::support::{group, next, number, out, read_numbers, unique, until, write_numbers};

const CLOSE: Duration = Duration::from_secs(5);

/// Numbers as text of a hundred digits, sent as they are: 5 MiB are some 40,000 of them.
async fn write_long(options: &KafkaOptions, topic: &Arc<str>, numbers: Range<u64>) {
    let mut options = options.clone();
    options.properties.insert("compression.type".to_owned(), "none".to_owned());
    let producer = Producer::new(&options, ProducerOptions::default()).unwrap();
    let numbers: Vec<u64> = numbers.collect();
    for chunk in numbers.chunks(5000) {
        let batch: Vec<_> = chunk.iter().map(|number| out(topic, None, &format!("{number:0>100}"))).collect();
        producer.publish(&batch).await.into_iter().for_each(|answer| answer.unwrap());
    }
    assert_eq!(producer.close(CLOSE).await, 0);
}

#[tokio::test]
async fn records_go_through_the_embedded_broker_and_offsets_are_kept() {
    let broker = EmbeddedBroker::start(&[("orders", 3), ("events", 1)]).unwrap();
    let topic: Arc<str> = Arc::from("orders");
    let options = broker.options("kafka-tests");
    let producer = Producer::new(&options, ProducerOptions::default()).unwrap();
    write_numbers(&producer, &topic, 0..3000).await;
    let mut member = group("g", &[(&topic, 10_000)]);
    member.begins_at_zero = true;
    let (handle, mut readers) = Consumer::start(&options, member.clone()).unwrap();
    assert_eq!(read_numbers(&mut readers[0], 3000).await.len(), 3000);
    assert_eq!(lost_records(&handle.status()), 0);
    handle.close(CLOSE).await.unwrap();
    write_numbers(&producer, &topic, 3000..3010).await;
    let (handle, mut readers) = Consumer::start(&options, member).unwrap();
    assert!(read_numbers(&mut readers[0], 10).await.into_iter().eq(3000..3010));
    assert_eq!(lost_records(&handle.status()), 0);
    handle.close(CLOSE).await.unwrap();
    assert_eq!(producer.close(CLOSE).await, 0);
}

#[tokio::test]
async fn what_it_drops_unread_is_counted_to_the_record() {
    const WRITTEN: u64 = 130_000;
    let broker = EmbeddedBroker::start(&[("orders", 1)]).unwrap();
    let topic: Arc<str> = Arc::from("orders");
    let options = broker.options("kafka-tests");
    write_long(&options, &topic, 0..1000).await;
    let (handle, mut readers) = Consumer::start(&options, group(&unique("g"), &[(&topic, 500)])).unwrap();
    until("the topic is paused", || handle.status().topics[0].paused == 1).await;
    write_long(&options, &topic, 1000..WRITTEN).await;
    let (mut read, mut last) = (0, 0);
    while last < WRITTEN - 1 {
        for record in next(&mut readers[0], 5000).await.unwrap() {
            (read, last) = (read + 1, number(&record));
            record.ack.done();
        }
    }
    let status = handle.status();
    println!("{read} read, {} lost in {} gaps", lost_records(&status), status.offset_gaps);
    assert!(lost_records(&status) > 0);
    assert_eq!(read + lost_records(&status), WRITTEN);
    handle.close(CLOSE).await.unwrap();
}

#[tokio::test]
async fn what_it_dropped_before_the_first_read_is_counted_too() {
    const WRITTEN: u64 = 120_000;
    let broker = EmbeddedBroker::start(&[("orders", 1)]).unwrap();
    let topic: Arc<str> = Arc::from("orders");
    let options = broker.options("kafka-tests");
    write_long(&options, &topic, 0..WRITTEN).await;
    let mut member = group("g", &[(&topic, 10_000)]);
    member.begins_at_zero = true;
    let (handle, mut readers) = Consumer::start(&options, member).unwrap();
    let first = number(&next(&mut readers[0], 1).await.unwrap()[0]);
    assert!(first > 0, "nothing was dropped");
    assert_eq!(lost_records(&handle.status()), first);
    handle.close(CLOSE).await.unwrap();
}
