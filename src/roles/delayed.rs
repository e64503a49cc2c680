//! Records that wait: how a delay is written into headers, and read back from them
//! (`interface.md` section 3). Three headers of ours stand last; what a record had before stays
//! in front of them and goes on to the target.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::domain::inbound::{DeadLetterReason, Unfit};
use crate::domain::{Timestamp, delay};
use crate::ports::{InRecord, OutRecord};

/// The headers, in order. The due time is in Unix milliseconds, rounded up: never early.
const DUE_AT: &str = "due-at";
const TARGET: &str = "target-topic";
const HOPS: &str = "hops";

/// The tiers and their topics, by rising delay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DelayTiers {
    tiers: Vec<Duration>,
    topics: Vec<Arc<str>>,
}

impl DelayTiers {
    /// Takes them in any order.
    pub fn new(tiers: impl IntoIterator<Item = (Duration, Arc<str>)>) -> Self {
        let mut named: Vec<_> = tiers.into_iter().collect();
        named.sort_by_key(|(tier, _)| *tier);
        let (tiers, topics) = named.into_iter().unzip();
        Self { tiers, topics }
    }

    /// The topic in which a record waits that is due after `remaining`; `None` where that is less
    /// than the smallest tier.
    pub fn topic_for(&self, remaining: Duration) -> Option<&Arc<str>> {
        self.topics.get(delay::tier_for(&self.tiers, remaining)?)
    }

    /// Puts off a record for its own topic until `due_at`, or for as long as a record may wait: it
    /// then comes early, and whoever takes it puts it off again. One that is due sooner than the smallest
    /// tier goes there at once: its receiver must be one that waits.
    #[must_use]
    pub fn put_off(&self, record: OutRecord, due_at: Timestamp, now: Timestamp) -> OutRecord {
        let remaining = (due_at - now).to_std().unwrap_or_default().min(delay::LONGEST);
        let due_at = crate::domain::plus(now, remaining).min(due_at.max(now));
        match self.topic_for(remaining) {
            Some(tier) => Waiting { due_at, target: Arc::clone(&record.topic), hops: 0 }.write(tier, record),
            None => record,
        }
    }
}

/// What the headers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Not before.
    pub due_at: Timestamp,
    /// Where it goes then.
    pub target: Arc<str>,
    /// The tiers that it has left so far.
    pub hops: u32,
}

impl Waiting {
    /// The record as it stands in a tier's topic.
    pub fn write(&self, tier: &Arc<str>, mut record: OutRecord) -> OutRecord {
        let header =
            |name: &'static str, value: String| (Bytes::from_static(name.as_bytes()), Some(Bytes::from(value)));
        record.topic = Arc::clone(tier);
        record.headers.extend([
            header(DUE_AT, millis_up(self.due_at).to_string()),
            header(TARGET, self.target.to_string()),
            header(HOPS, self.hops.to_string()),
        ]);
        record
    }

    /// Reads the headers of a record that was found in a tier's topic. The last of a name counts.
    pub fn read(record: &InRecord) -> Result<Self, Unfit> {
        let text = |name: &'static str| {
            let value = record.headers.iter().rev().find(|(found, _)| found.as_ref() == name.as_bytes());
            let Some((_, Some(value))) = value else { return Ok(None) };
            std::str::from_utf8(value)
                .map(Some)
                .map_err(|_| Unfit::new(DeadLetterReason::BadHeaders, format!("the header {name} is not UTF-8")))
        };
        let bad_time = |detail: &str| Unfit::new(DeadLetterReason::BadDueTime, format!("the header {DUE_AT} {detail}"));
        let due_at = text(DUE_AT)?.ok_or_else(|| bad_time("is missing"))?;
        let due_at: i64 = due_at.parse().map_err(|_| bad_time("is no time in Unix milliseconds"))?;
        let due_at = Timestamp::from_timestamp_millis(due_at).ok_or_else(|| bad_time("is out of range"))?;
        let entered_at = record.timestamp.unwrap_or(due_at);
        if due_at > crate::domain::plus(entered_at, delay::LONGEST) + chrono::TimeDelta::minutes(1) {
            return Err(bad_time("lies more than 7 days ahead"));
        }
        let target = text(TARGET)?.filter(|target| !target.is_empty());
        let target = target.ok_or_else(|| Unfit::new(DeadLetterReason::UnknownTarget, "no target-topic"))?;
        let hops = text(HOPS)?.and_then(|hops| hops.parse().ok()).unwrap_or(0);
        Ok(Self { due_at, target: Arc::from(target), hops })
    }
}

/// The headers that a record had before it was put off.
pub fn original_headers(headers: Vec<(Bytes, Option<Bytes>)>) -> Vec<(Bytes, Option<Bytes>)> {
    let ours = |name: &Bytes| [DUE_AT, TARGET, HOPS].iter().any(|own| name.as_ref() == own.as_bytes());
    headers.into_iter().filter(|(name, _)| !ours(name)).collect()
}

fn millis_up(at: Timestamp) -> i64 {
    let millis = at.timestamp_millis();
    if at.timestamp_subsec_nanos().is_multiple_of(1_000_000) { millis } else { millis + 1 }
}
