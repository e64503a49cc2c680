//! Events of orders that are not there yet. Such a record goes into the delay tiers as it came, key, value
//! and headers, with five headers of ours behind its own: since when it waits, and where it stood. The
//! tiers bring it to a topic of its own, from which intake takes it as if it had come just now from
//! where it first stood.

use std::sync::Arc;

use bytes::Bytes;

use crate::domain::inbound::{DeadLetterReason, Unfit};
use crate::domain::{Timestamp, early};
use crate::ports::{InRecord, OutRecord};
use crate::roles::delayed::DelayTiers;

/// Ours, in order; they are found by their place at the end, whatever else bears their names.
const HEADERS: [&str; 5] =
    ["first-seen", "original-topic", "original-partition", "original-offset", "original-timestamp"];

/// A record that intake has taken.
#[derive(Debug)]
pub(super) struct Taken {
    /// As it first came, wherever it was read now.
    pub(super) record: InRecord,
    /// The topic that it was read from now.
    pub(super) read_from: Arc<str>,
    /// When intake first met it, and not its order; nothing for one that it meets now.
    pub(super) first_seen: Option<Timestamp>,
}

impl Taken {
    /// Of a topic of the shop.
    pub(super) fn fresh(record: InRecord) -> Self {
        Self { read_from: Arc::clone(&record.topic), record, first_seen: None }
    }

    /// Of the topic to which the tiers bring back what waited. A record that nobody put off is one that comes now.
    pub(super) fn returned(record: InRecord, now: Timestamp) -> Self {
        let read_from = Arc::clone(&record.topic);
        match origin(&record) {
            Some(Origin { first_seen, topic, partition, offset, timestamp }) => {
                let mut record = InRecord { topic, partition, offset, timestamp, ..record };
                record.headers.truncate(record.headers.len().saturating_sub(HEADERS.len()));
                Self { record, read_from, first_seen: Some(first_seen.min(now)) }
            }
            None => Self { record, read_from, first_seen: None },
        }
    }

    /// Whether it comes back.
    pub(super) fn has_waited(&self) -> bool {
        self.first_seen.is_some()
    }

    /// The record to publish where its order is not there, which then comes to `target`; or why it waits no longer.
    pub(super) fn put_off(&self, target: &Arc<str>, tiers: &DelayTiers, now: Timestamp) -> Result<OutRecord, Unfit> {
        let first_seen = self.first_seen.unwrap_or(now);
        let Some(due_at) = early::looks_again_at(first_seen, now, tiers.shortest()) else {
            let minutes = early::WAITS_FOR.as_secs() / 60;
            let detail = format!("no order of this id was created within {minutes} min");
            return Err(Unfit::new(DeadLetterReason::Orphan, detail));
        };
        let record = &self.record;
        let millis = |at: Timestamp| at.timestamp_millis().to_string();
        let values = [
            Some(millis(first_seen)),
            Some(record.topic.to_string()),
            Some(record.partition.to_string()),
            Some(record.offset.to_string()),
            record.timestamp.map(millis),
        ];
        let ours = HEADERS.into_iter().zip(values);
        let mut headers = record.headers.clone();
        headers.extend(ours.map(|(name, value)| (Bytes::from_static(name.as_bytes()), value.map(Bytes::from))));
        let (topic, key, value) = (Arc::clone(target), record.key.clone(), record.value.clone());
        Ok(tiers.put_off(OutRecord { topic, key, value, headers }, due_at, now))
    }
}

/// A record of the topic to which the tiers bring back what waited, as it first came.
pub(crate) fn as_it_came(record: InRecord, now: Timestamp) -> InRecord {
    Taken::returned(record, now).record
}

/// Where a record stood when intake first met it.
struct Origin {
    first_seen: Timestamp,
    topic: Arc<str>,
    partition: i32,
    offset: i64,
    timestamp: Option<Timestamp>,
}

/// What our headers say; `None` where they are not there.
fn origin(record: &InRecord) -> Option<Origin> {
    let start = record.headers.len().checked_sub(HEADERS.len())?;
    let ours = record.headers.get(start..)?;
    if ours.iter().zip(HEADERS).any(|((name, _), expected)| name.as_ref() != expected.as_bytes()) {
        return None;
    }
    let mut values = ours.iter().map(|(_, value)| value.as_deref().and_then(|value| std::str::from_utf8(value).ok()));
    let mut next = || values.next().flatten();
    let time = |text: &str| text.parse().ok().and_then(Timestamp::from_timestamp_millis);
    Some(Origin {
        first_seen: time(next()?)?,
        topic: Arc::from(next()?),
        partition: next()?.parse().ok()?,
        offset: next()?.parse().ok()?,
        timestamp: next().and_then(time),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ports::{Ack, Assignment};

    #[derive(Debug)]
    struct Nowhere;

    impl Assignment for Nowhere {
        fn is_live(&self) -> bool {
            true
        }
        fn done(&self, _offset: i64) {}
    }

    type Headers = Vec<(Bytes, Option<Bytes>)>;

    fn record(topic: &str, offset: i64, timestamp: Option<i64>, headers: Headers) -> InRecord {
        InRecord {
            topic: Arc::from(topic),
            partition: 3,
            offset,
            timestamp: timestamp.map(at),
            key: Some(Bytes::from_static(b"\xff\x00k")),
            value: Some(Bytes::from_static(b"{}")),
            headers,
            ack: Ack::new(Arc::new(Nowhere), offset),
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(1_790_000_000 + seconds, 0).unwrap()
    }

    fn tiers() -> DelayTiers {
        DelayTiers::new([1, 5].map(|seconds| (Duration::from_secs(seconds), Arc::from(format!("delay.{seconds}s")))))
    }

    fn header(name: &'static str, value: &'static str) -> (Bytes, Option<Bytes>) {
        (Bytes::from_static(name.as_bytes()), Some(Bytes::from_static(value.as_bytes())))
    }

    /// What the tiers make of a record, at the end of its way.
    fn forwarded(waiting: &OutRecord, offset: i64, seconds: i64) -> InRecord {
        let headers = crate::roles::delayed::original_headers(&waiting.headers);
        InRecord {
            key: waiting.key.clone(),
            value: waiting.value.clone(),
            ..record("timers", offset, Some(seconds), headers)
        }
    }

    #[test]
    fn a_record_waits_and_comes_back_as_it_first_came_however_often() {
        let timers: Arc<str> = Arc::from("timers");
        // Names that are ours as well, and one that means nothing.
        let own = vec![header("first-seen", "mine"), header("hops", "7"), (Bytes::new(), None), header("due-at", "x")];
        for timestamp in [Some(-7), None] {
            let mut taken = Taken::fresh(record("lifecycle", 42, timestamp, own.clone()));
            for (now, due) in [(0, 1), (1, 2), (2, 4), (4, 8)] {
                let waiting = taken.put_off(&timers, &tiers(), at(now)).unwrap();
                assert_eq!(
                    (waiting.key.as_deref(), waiting.value.as_deref()),
                    (Some(&b"\xff\x00k"[..]), Some(&b"{}"[..]))
                );
                let due_at = at(due).timestamp_millis().to_string();
                assert!(waiting.headers.contains(&(Bytes::from_static(b"due-at"), Some(Bytes::from(due_at)))));
                assert_eq!(&*waiting.topic, if due - now < 5 { "delay.1s" } else { "delay.5s" });
                taken = Taken::returned(forwarded(&waiting, 1_000 + now, due), at(due));
                assert_eq!((taken.first_seen, &*taken.read_from), (Some(at(0)), "timers"));
                let came = &taken.record;
                assert_eq!((&*came.topic, came.partition, came.offset), ("lifecycle", 3, 42));
                assert_eq!((came.timestamp, &came.headers), (timestamp.map(at), &own));
            }
        }
    }

    #[test]
    fn after_a_quarter_of_an_hour_it_is_an_orphan() {
        let timers: Arc<str> = Arc::from("timers");
        let mut taken = Taken::fresh(record("lifecycle", 42, None, Vec::new()));
        taken.first_seen = Some(at(0));
        assert!(taken.put_off(&timers, &tiers(), at(899)).is_ok());
        assert_eq!(taken.put_off(&timers, &tiers(), at(900)).unwrap_err().reason, DeadLetterReason::Orphan);
    }

    #[test]
    fn what_nobody_put_off_is_taken_as_it_comes() {
        let four =
            ["first-seen", "original-topic", "original-partition", "original-offset"].map(|name| header(name, "1"));
        for headers in [Vec::new(), four.to_vec(), HEADERS.map(|name| header(name, "x")).to_vec()] {
            let taken = Taken::returned(record("timers", 5, None, headers.clone()), at(0));
            assert_eq!((&*taken.record.topic, taken.record.offset, taken.first_seen), ("timers", 5, None));
            assert_eq!(taken.record.headers, headers);
        }
        // Who put it off may have been ahead of us.
        let mut taken = Taken::fresh(record("orders", 1, None, Vec::new()));
        taken.first_seen = Some(at(9));
        let waiting = taken.put_off(&Arc::from("timers"), &tiers(), at(9)).unwrap();
        assert_eq!(Taken::returned(forwarded(&waiting, 1, 10), at(5)).first_seen, Some(at(5)));
    }
}
