//! Writing to a real broker.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use recharged::kafka::{Producer, ProducerOptions};
use recharged::ports::{OutRecord, PublishError, Publisher};

use super::support::{kafka, next, number, out, producer, read_numbers, start_one, topic, unique, write_numbers};

const CLOSE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn every_compression_is_read() {
    let topic = topic("codec", 1).await;
    for (index, codec) in (0_u64..).zip(["none", "gzip", "snappy", "lz4", "zstd"]) {
        let mut options = kafka();
        options.properties.insert("compression.type".to_owned(), codec.to_owned());
        let producer = Producer::new(&options, ProducerOptions::default()).unwrap();
        write_numbers(&producer, &topic, index * 500..(index + 1) * 500).await;
        assert_eq!(producer.close(CLOSE).await, 0);
    }
    let (handle, mut reader) = start_one(&unique("g"), &topic, 10_000);
    assert!(read_numbers(&mut reader, 2500).await.into_iter().eq(0..2500));
    handle.close(CLOSE).await.unwrap();
}

#[tokio::test]
async fn answers_stand_in_the_order_of_the_batch() {
    let topic = topic("mixed", 1).await;
    let missing: Arc<str> = Arc::from(unique("missing"));
    let large = OutRecord { value: Some(Bytes::from(vec![7; 3_000_000])), ..out(&topic, None, "") };
    let timeout = Some(Duration::from_mins(1));
    // Random bytes would not shrink; these do, so nothing is compressed.
    let mut options = kafka();
    options.properties.insert("compression.type".to_owned(), "none".to_owned());
    options.properties.insert("topic.metadata.propagation.max.ms".to_owned(), "1000".to_owned());
    let producer = Producer::new(&options, ProducerOptions { message_timeout: timeout, ..Default::default() }).unwrap();
    let batch = vec![out(&topic, None, "1"), large, out(&missing, None, "2"), out(&topic, None, "3")];
    let answers = producer.publish(&batch).await;
    assert_eq!(answers[0], Ok(()));
    assert!(matches!(&answers[1], Err(PublishError::Refused(_))), "{:?}", answers[1]);
    assert!(matches!(&answers[2], Err(PublishError::NoSuchTopic(_))), "{:?}", answers[2]);
    assert_eq!(answers[3], Ok(()));
    assert_eq!(producer.publish(&[]).await, vec![]);
    producer.close(CLOSE).await;
}

#[tokio::test]
async fn many_writers_share_few_places_and_nothing_is_lost() {
    let topic = topic("writers", 3).await;
    let options = ProducerOptions { max_in_flight_records: 50, ..ProducerOptions::default() };
    let producer = Arc::new(Producer::new(&kafka(), options).unwrap());
    let writers = (0..8_u64).map(|writer| {
        let (producer, topic) = (Arc::clone(&producer), Arc::clone(&topic));
        tokio::spawn(async move {
            for round in 0..5 {
                let start = writer * 1000 + round * 200;
                let batch: Vec<_> =
                    (start..start + 200).map(|number| out(&topic, Some("k"), &number.to_string())).collect();
                producer.publish(&batch).await.into_iter().for_each(|answer| answer.unwrap());
                assert!(producer.status().in_flight <= 50);
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let (handle, mut reader) = start_one(&unique("g"), &topic, 10_000);
    assert_eq!(read_numbers(&mut reader, 8000).await.len(), 8000);
    handle.close(CLOSE).await.unwrap();
}

#[tokio::test]
async fn a_queue_that_is_full_by_bytes_makes_the_writer_wait() {
    let topic = topic("full", 1).await;
    let mut options = kafka();
    options.properties.insert("queue.buffering.max.kbytes".to_owned(), "64".to_owned());
    let producer = Producer::new(&options, ProducerOptions::default()).unwrap();
    let batch: Vec<_> = (0..2000_u64).map(|number| out(&topic, None, &format!("{number:0>1000}"))).collect();
    producer.publish(&batch).await.into_iter().for_each(|answer| answer.unwrap());
    let (handle, mut reader) = start_one(&unique("g"), &topic, 10_000);
    assert_eq!(read_numbers(&mut reader, 2000).await.len(), 2000);
    handle.close(CLOSE).await.unwrap();
}

#[tokio::test]
async fn a_key_goes_to_the_partition_that_java_s_producers_choose() {
    let topic = topic("murmur", 8).await;
    // murmur2 of the key as in Java: (hash & 0x7fffffff) % 8.
    let keys = ["21", "foobar", "a-little-bit-long-string", "1", "order-42"];
    let expected: Vec<i32> = keys.iter().map(|key| java_partition(key.as_bytes(), 8)).collect();
    let batch: Vec<_> =
        keys.iter().enumerate().map(|(index, key)| out(&topic, Some(key), &index.to_string())).collect();
    producer().publish(&batch).await.into_iter().for_each(|answer| answer.unwrap());
    let (handle, mut reader) = start_one(&unique("g"), &topic, 100);
    let mut seen = BTreeSet::new();
    while seen.len() < keys.len() {
        for record in next(&mut reader, 10).await.unwrap() {
            let index = usize::try_from(number(&record)).unwrap();
            assert_eq!(record.partition, expected[index], "{}", keys[index]);
            seen.insert(index);
        }
    }
    handle.close(CLOSE).await.unwrap();
}

/// `Utils.toPositive(Utils.murmur2(key)) % partitions`, as Kafka's Java client has it.
fn java_partition(key: &[u8], partitions: u32) -> i32 {
    const M: u32 = 0x5bd1_e995;
    let length = u32::try_from(key.len()).unwrap();
    let mut hash = 0x9747_b28c_u32 ^ length;
    let mut chunks = key.chunks_exact(4);
    for chunk in &mut chunks {
        let mut word = u32::from_le_bytes(chunk.try_into().unwrap()).wrapping_mul(M);
        word ^= word >> 24;
        hash = hash.wrapping_mul(M) ^ word.wrapping_mul(M);
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^= hash >> 15;
    i32::try_from((hash & 0x7fff_ffff) % partitions).unwrap()
}
