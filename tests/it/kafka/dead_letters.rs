//! Dead letters keep what they were made of, through a real broker.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use recharged::domain::Timestamp;
use recharged::domain::inbound::{DeadLetterReason, Unfit};
use recharged::ports::{OutRecord, Publisher};
use recharged::roles::dead_letter::{self, DeadLetter};

use super::support::{next, producer, start_one, topic, unique};
use super::wire;

const CLOSE: Duration = Duration::from_secs(5);

#[expect(clippy::unnecessary_wraps, reason = "values and keys are optional")]
fn bytes(content: &'static [u8]) -> Option<Bytes> {
    Some(Bytes::from_static(content))
}

fn awkward(topic: &Arc<str>) -> Vec<OutRecord> {
    let header = |name: &'static [u8], value| (Bytes::from_static(name), value);
    let record = |key, value, headers| OutRecord { topic: Arc::clone(topic), key, value, headers };
    vec![
        record(None, None, vec![]),
        record(bytes(b""), bytes(b""), vec![header(b"", bytes(b""))]),
        record(
            bytes(b"\xff\x00\xfe"),
            bytes(b"\x00{\xff"),
            vec![header(b"raw", bytes(b"\xff\xfe")), header(b"null", None)],
        ),
        record(
            None,
            bytes(b"{}"),
            vec![header(b"reason", bytes(b"theirs")), header(b"twice", bytes(b"1")), header(b"twice", bytes(b"2"))],
        ),
    ]
}

#[tokio::test]
async fn bytes_and_headers_come_through_unchanged() {
    let (orders, letters) = (topic("bad", 1).await, topic("dead", 1).await);
    let producer = producer();
    let written = awkward(&orders);
    for record in &written {
        producer.publish(std::slice::from_ref(record)).await.remove(0).unwrap();
    }
    let (handle, mut reader) = start_one(&unique("g"), &orders, 100);
    let mut read = Vec::new();
    while read.len() < written.len() {
        read.extend(next(&mut reader, 100).await.unwrap());
    }
    let seen = Timestamp::from_timestamp_millis(1_700_000_000_000).unwrap();
    for (record, original) in read.iter().zip(&written) {
        assert_eq!((&record.key, &record.value, &record.headers), (&original.key, &original.value, &original.headers));
        let letter =
            dead_letter::record(&letters, record, &Unfit::new(DeadLetterReason::Schema, "no such field"), seen);
        producer.publish(&[letter]).await.remove(0).unwrap();
    }
    let (dead_handle, mut dead_reader) = start_one(&unique("g"), &letters, 100);
    let mut dead = Vec::new();
    while dead.len() < written.len() {
        dead.extend(next(&mut dead_reader, 100).await.unwrap());
    }
    for ((letter, record), original) in dead.iter().zip(&read).zip(&written) {
        assert_eq!((&letter.key, &letter.value), (&original.key, &original.value));
        let told = DeadLetter::read(letter).unwrap();
        assert_eq!(told.headers, original.headers);
        assert_eq!((told.topic.as_str(), told.partition, told.offset), (&*orders, 0, record.offset));
        assert_eq!((told.timestamp, told.first_seen), (record.timestamp, seen));
    }
    handle.close(CLOSE).await.unwrap();
    dead_handle.close(CLOSE).await.unwrap();
}

#[tokio::test]
async fn a_header_name_that_is_not_utf8_ends_up_as_a_dead_letter_and_nothing_stops() {
    let (orders, letters) = (topic("name", 1).await, topic("dead", 1).await);
    wire::produce(&orders, b"value", &[(b"good", b"1"), (b"\xff\xfe", b"2"), (b"also", b"3")]).await;
    let producer = producer();
    producer.publish(&[super::support::out(&orders, None, "8")]).await.remove(0).unwrap();
    let (handle, mut reader) = start_one(&unique("g"), &orders, 100);
    let mut read = Vec::new();
    while read.len() < 2 {
        read.extend(next(&mut reader, 100).await.unwrap());
    }
    let names: Vec<bool> = read[0].headers.iter().map(|(name, _)| std::str::from_utf8(name).is_ok()).collect();
    assert_eq!(names, [true, false, true]);
    assert_eq!(read[0].value, bytes(b"value"));
    assert_eq!(read[0].headers[2], (Bytes::from_static(b"also"), bytes(b"3")));
    assert_eq!(super::support::number(&read[1]), 8);
    let seen = Timestamp::from_timestamp_millis(5).unwrap();
    let letter = dead_letter::record(
        &letters,
        &read[0],
        &Unfit::new(DeadLetterReason::BadHeaders, "a header name is not UTF-8"),
        seen,
    );
    producer.publish(&[letter]).await.remove(0).unwrap();
    let (dead_handle, mut dead_reader) = start_one(&unique("g"), &letters, 100);
    let letter = next(&mut dead_reader, 1).await.unwrap().remove(0);
    let told = DeadLetter::read(&letter).unwrap();
    assert_eq!((letter.value, told.headers.len()), (bytes(b"value"), 3));
    handle.close(CLOSE).await.unwrap();
    dead_handle.close(CLOSE).await.unwrap();
}
