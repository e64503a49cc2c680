//! Records that wait: how a delay is written into headers, and read back from them
//! (`interface.md` section 3). Four headers of ours stand last; what a record had before stays
//! in front of them and goes on to the target.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::domain::inbound::{DeadLetterReason, Unfit};
use crate::domain::{Timestamp, delay, delay::Sense};
use crate::ports::{InRecord, OutRecord};

/// The headers, in order. Times are in Unix milliseconds, rounded up: never early.
const DUE_AT: &str = "due-at";
const TARGET: &str = "target-topic";
const HOPS: &str = "hops";
/// On the clock that due times are on. The record's own timestamp is a machine's or a broker's: by one that is
/// behind, a record would have left its tier as soon as it entered it, and so again, as fast as
/// it can be written.
const ENTERED_AT: &str = "entered-at";

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

    /// The shortest delay that there is.
    pub fn shortest(&self) -> Duration {
        self.tiers.first().copied().unwrap_or_default()
    }

    /// Puts off a record for its own topic until `due_at`, or for as long as a record may wait: it
    /// then comes early, and whoever takes it puts it off again. One that is due sooner than the smallest
    /// tier goes there at once: its receiver must be one that waits.
    #[must_use]
    pub fn put_off(&self, record: OutRecord, due_at: Timestamp, now: Timestamp) -> OutRecord {
        let remaining = (due_at - now).to_std().unwrap_or_default().min(delay::LONGEST);
        let due_at = crate::domain::plus(now, remaining).min(due_at.max(now));
        match self.topic_for(remaining) {
            Some(tier) => {
                Waiting { due_at, target: Arc::clone(&record.topic), hops: 0, entered_at: now }.write(tier, record)
            }
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
    /// When it entered its tier.
    pub entered_at: Timestamp,
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
            header(ENTERED_AT, millis_up(self.entered_at).to_string()),
        ]);
        record
    }

    /// Reads the headers of a record that was found in a tier's topic. The last of a name counts.
    pub fn read(record: &InRecord, now: Timestamp) -> Result<Self, Unfit> {
        // It could not be forwarded as it is: what was written instead would be another name.
        if record.headers.iter().any(|(name, _)| std::str::from_utf8(name).is_err()) {
            return Err(Unfit::new(DeadLetterReason::BadHeaders, "the name of a header is not UTF-8"));
        }
        let value = |name: &'static str| {
            record.headers.iter().rev().find(|(found, _)| found.as_ref() == name.as_bytes())?.1.as_deref()
        };
        let text = |name: &'static str| {
            value(name)
                .map(std::str::from_utf8)
                .transpose()
                .map_err(|_| Unfit::new(DeadLetterReason::BadHeaders, format!("the header {name} is not UTF-8")))
        };
        let bad_time = |detail: &str| Unfit::new(DeadLetterReason::BadDueTime, format!("the header {DUE_AT} {detail}"));
        let due_at = text(DUE_AT)?.ok_or_else(|| bad_time("is missing"))?;
        let due_at: i64 = due_at.parse().map_err(|_| bad_time("is no time in Unix milliseconds"))?;
        let due_at = Timestamp::from_timestamp_millis(due_at).ok_or_else(|| bad_time("is out of range"))?;
        match delay::sense_of(due_at, now) {
            Sense::Sensible => {}
            Sense::TooFarAhead => return Err(bad_time("lies more than 7 days ahead")),
            Sense::TooLongAgo => return Err(bad_time("lies more than 30 days back: is it in Unix milliseconds?")),
        }
        let target = text(TARGET)?.filter(|target| !target.is_empty());
        let target = target.ok_or_else(|| Unfit::new(DeadLetterReason::UnknownTarget, "no target-topic"))?;
        let hops = text(HOPS)?.and_then(|hops| hops.parse().ok()).unwrap_or(0);
        let entered_at = value(ENTERED_AT).and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
        let entered_at = entered_at.and_then(Timestamp::from_timestamp_millis).or(record.timestamp);
        // Whoever wrote it may be ahead; it was there by now all the same.
        let entered_at = entered_at.map_or(now, |at| at.min(now));
        Ok(Self { due_at, target: Arc::from(target), hops, entered_at })
    }
}

/// The headers that a record had before it was put off. Ours are the last: whatever bears their names before
/// them is the record's own.
pub fn original_headers(headers: &[(Bytes, Option<Bytes>)]) -> Vec<(Bytes, Option<Bytes>)> {
    const OURS: [&str; 4] = [DUE_AT, TARGET, HOPS, ENTERED_AT];
    let is_ours = |(name, _): &(Bytes, Option<Bytes>)| OURS.iter().any(|own| name.as_ref() == own.as_bytes());
    let ours = headers.iter().rev().take(OURS.len()).take_while(|header| is_ours(header)).count();
    headers.iter().take(headers.len() - ours).cloned().collect()
}

fn millis_up(at: Timestamp) -> i64 {
    let millis = at.timestamp_millis();
    if at.timestamp_subsec_nanos().is_multiple_of(1_000_000) { millis } else { millis + 1 }
}
