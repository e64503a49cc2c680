//! Dead letters: records that cannot be used, kept as they came.
//!
//! Key, value and headers stay untouched and in their order; seven headers of ours follow them.
//! An original header of the same name is neither lost nor confused with ours: ours are always
//! the last seven, in the order of [`HEADERS`], and [`DeadLetter::read`] goes by place. Whoever
//! goes by name takes the last header of that name, as Kafka's `lastHeader` does.

use std::sync::Arc;

use bytes::Bytes;

use crate::domain::Timestamp;
use crate::domain::inbound::Unfit;
use crate::ports::{InRecord, OutRecord};

/// The headers of a dead letter, in order. Timestamps are Unix milliseconds, as Kafka has them.
pub const HEADERS: [&str; 7] =
    ["reason", "error", "original-topic", "original-partition", "original-offset", "original-timestamp", "first-seen"];

/// The longest error text that is kept; it tells a person what is wrong, the record itself is there.
const ERROR_BYTES_MAX: usize = 1024;

/// One header, as raw bytes.
pub type Header = (Bytes, Option<Bytes>);

/// Builds the dead letter of a record; what is said of it holds no personal data. The record's offset
/// may move only when the letter is acknowledged.
pub fn record(topic: &Arc<str>, record: &InRecord, why: &Unfit, first_seen: Timestamp) -> OutRecord {
    let mut headers = record.headers.clone();
    let millis = |at: Timestamp| at.timestamp_millis().to_string();
    let values = [
        Some(why.reason.to_string()),
        Some(shortened(&why.detail).to_owned()),
        Some(record.topic.to_string()),
        Some(record.partition.to_string()),
        Some(record.offset.to_string()),
        record.timestamp.map(millis),
        Some(millis(first_seen)),
    ];
    let ours = HEADERS.into_iter().zip(values);
    headers.extend(ours.map(|(name, value)| (Bytes::from_static(name.as_bytes()), value.map(Bytes::from))));
    OutRecord { topic: Arc::clone(topic), key: record.key.clone(), value: record.value.clone(), headers }
}

fn shortened(text: &str) -> &str {
    text.get(..text.floor_char_boundary(ERROR_BYTES_MAX)).unwrap_or(text)
}

/// What the headers of a dead letter say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Why it is one: a word of a closed list.
    pub reason: String,
    /// What was wrong with it, for people.
    pub error: String,
    /// Where it came from.
    pub topic: String,
    /// Its partition there.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// Its timestamp there.
    pub timestamp: Option<Timestamp>,
    /// When it was first found unusable.
    pub first_seen: Timestamp,
    /// The headers that it came with.
    pub headers: Vec<Header>,
}

impl DeadLetter {
    /// Reads what [`record`] wrote; `None` for a record that is no dead letter of ours.
    pub fn read(record: &InRecord) -> Option<Self> {
        let start = record.headers.len().checked_sub(HEADERS.len())?;
        let (original, ours) = record.headers.split_at_checked(start)?;
        if ours.iter().zip(HEADERS).any(|((name, _), expected)| name.as_ref() != expected.as_bytes()) {
            return None;
        }
        let values: Vec<Option<&str>> =
            ours.iter().map(|(_, value)| value.as_deref().and_then(|value| std::str::from_utf8(value).ok())).collect();
        let [reason, error, topic, partition, offset, timestamp, first_seen] = values.try_into().ok()?;
        let time = |text: &str| text.parse().ok().and_then(Timestamp::from_timestamp_millis);
        Some(Self {
            reason: reason?.to_owned(),
            error: error?.to_owned(),
            topic: topic?.to_owned(),
            partition: partition?.parse().ok()?,
            offset: offset?.parse().ok()?,
            timestamp: timestamp.and_then(time),
            first_seen: time(first_seen?)?,
            headers: original.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::inbound::DeadLetterReason;
    use crate::ports::{Ack, Assignment};

    use super::*;

    #[derive(Debug)]
    struct Nowhere;

    impl Assignment for Nowhere {
        fn is_live(&self) -> bool {
            true
        }
        fn done(&self, _offset: i64) {}
    }

    fn input(headers: Vec<Header>) -> InRecord {
        InRecord {
            topic: Arc::from("recharge.orders"),
            partition: 3,
            offset: 42,
            timestamp: Timestamp::from_timestamp_millis(1_700_000_000_123),
            key: Some(Bytes::from_static(b"\xff\x00k")),
            value: None,
            headers,
            ack: Ack::new(Arc::new(Nowhere), 42),
        }
    }

    fn letter(topic: &Arc<str>, input: &InRecord, reason: &str, detail: &str, seen: Timestamp) -> OutRecord {
        let reason = DeadLetterReason::parse(reason).unwrap();
        record(topic, input, &Unfit::new(reason, detail), seen)
    }

    fn read_back(letter: &OutRecord) -> Option<DeadLetter> {
        DeadLetter::read(&InRecord { headers: letter.headers.clone(), ..input(Vec::new()) })
    }

    #[test]
    fn bytes_and_headers_stay_and_ours_follow() {
        let original = vec![
            (Bytes::from_static(b"reason"), Some(Bytes::from_static(b"mine"))),
            (Bytes::from_static(b"a"), None),
            (Bytes::from_static(b"a"), Some(Bytes::from_static(b"\xfe"))),
            (Bytes::new(), Some(Bytes::new())),
        ];
        let seen = Timestamp::from_timestamp_millis(1_700_000_001_000).unwrap();
        let input = input(original.clone());
        let letter = letter(&Arc::from("recharge.dead-letters"), &input, "schema", "no order_id", seen);
        assert_eq!((&letter.key, &letter.value), (&input.key, &input.value));
        assert_eq!(letter.headers.get(..4), Some(original.as_slice()));
        let read = read_back(&letter).unwrap();
        assert_eq!((read.reason.as_str(), read.error.as_str()), ("schema", "no order_id"));
        assert_eq!((read.topic.as_str(), read.partition, read.offset), ("recharge.orders", 3, 42));
        assert_eq!((read.timestamp, read.first_seen, read.headers), (input.timestamp, seen, original));
    }

    #[test]
    fn a_dead_letter_of_a_dead_letter_gives_back_the_first() {
        let topic = Arc::from("recharge.dead-letters");
        let seen = Timestamp::from_timestamp_millis(5).unwrap();
        let first = letter(&topic, &input(Vec::new()), "malformed", "e", seen);
        let second = letter(&topic, &input(first.headers.clone()), "unknown_target", "f", seen);
        assert_eq!(read_back(&second).unwrap().headers, first.headers);
    }

    #[test]
    fn a_record_without_timestamp_and_a_long_error_are_fine() {
        let mut input = input(Vec::new());
        input.timestamp = None;
        let seen = Timestamp::from_timestamp_millis(5).unwrap();
        let letter = letter(&Arc::from("d"), &input, "schema", &"充".repeat(2000), seen);
        let read = read_back(&letter).unwrap();
        assert_eq!(read.timestamp, None);
        assert_eq!(read.error, "充".repeat(341));
    }

    #[test]
    fn other_records_are_no_dead_letters() {
        assert_eq!(DeadLetter::read(&input(Vec::new())), None);
        let named = HEADERS.iter().map(|name| (Bytes::from_static(name.as_bytes()), None)).collect();
        assert_eq!(DeadLetter::read(&input(named)), None);
    }
}
