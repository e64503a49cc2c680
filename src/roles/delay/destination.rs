//! One topic to which a forwarder writes.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::ports::PublishError;

use super::parcel::Parcel;

/// Tries that may fail before the one after which a record goes to the dead letters.
pub(super) const TRIES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Records in one batch at most.
pub(super) const BATCH_MAX: usize = 5_000;
/// A batch that takes longer may have met a partition that is ill; the next does not wait for it.
const ANSWERS_WITHIN: Duration = Duration::from_millis(50);
/// From when on something of a topic has been under way without a pause, one of its partitions may be ill.
const MAYBE_ILL_AFTER: Duration = Duration::from_millis(250);
/// A topic counts as ill for so long after it last did not take something: longer than a try takes
/// to fail.
const ILL_FOR: Duration = Duration::from_secs(5);

/// The pause after so many failures in a row.
pub(super) fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST_PAUSE)
}

/// What is on its way to a topic.
#[derive(Debug, Default)]
pub(super) struct Destination {
    /// Not tried yet.
    fresh: VecDeque<Parcel>,
    /// Tried, and failed.
    failed: VecDeque<Parcel>,
    /// Fresh ones under way, and when the last of them began.
    under_way: usize,
    began_at: Option<Instant>,
    /// Since when some have been under way without a pause.
    busy_since: Option<Instant>,
    /// Failed ones under way.
    retrying: usize,
    /// Failures in a row, of these.
    failures: u32,
    /// Failed ones are not tried again before this moment.
    not_before: Option<Instant>,
    /// When it last did not take something, and why.
    last_failure: Option<(Instant, PublishError)>,
    /// When it last did so although the broker answered others all the while.
    last_proven: Option<Instant>,
}

impl Destination {
    pub(super) fn add(&mut self, parcel: Parcel) {
        self.fresh.push_back(parcel);
    }

    /// Adds what is to be tried again.
    pub(super) fn add_failed(&mut self, parcel: Parcel) {
        self.failed.push_back(parcel);
    }

    /// Records on their way to it, those that wait included.
    pub(super) fn len(&self) -> usize {
        self.fresh.len() + self.failed.len() + self.under_way + self.retrying
    }

    /// Whether something of it failed, and none of that is acknowledged yet.
    pub(super) fn has_failed(&self) -> bool {
        !self.failed.is_empty() || self.retrying > 0
    }

    /// Why it is ill, if it is.
    pub(super) fn illness(&self, now: Instant) -> Option<&PublishError> {
        let (at, error) = self.last_failure.as_ref()?;
        (self.has_failed() || now < *at + ILL_FOR).then_some(error)
    }

    /// Why it is ill, if that is not the broker's fault.
    pub(super) fn proven_illness(&self, now: Instant) -> Option<&PublishError> {
        self.illness(now).filter(|_| self.last_proven.is_some_and(|at| now < at + ILL_FOR))
    }

    /// Fresh ones that are to be sent now, with so many under way at most; or when to look again.
    /// Where it is ill, or may be, those of one partition go apart from those of another: it may be one
    /// alone that takes nothing, and an answer is that of a whole batch.
    pub(super) fn take_fresh(&mut self, now: Instant, most: usize) -> Result<Vec<Vec<Parcel>>, Option<Instant>> {
        let room = most.saturating_sub(self.under_way);
        if self.fresh.is_empty() || room == 0 {
            return Err(None);
        }
        if let Some(by) = self.began_at.filter(|_| self.under_way > 0).map(|began| began + ANSWERS_WITHIN)
            && by > now
        {
            return Err(Some(by));
        }
        let count = self.fresh.len().min(BATCH_MAX).min(room);
        self.under_way += count;
        self.began_at = Some(now);
        let maybe_ill = self.illness(now).is_some() || self.is_slow(now);
        self.busy_since.get_or_insert(now);
        let taken = self.fresh.drain(..count);
        if !maybe_ill {
            return Ok(vec![taken.collect()]);
        }
        // A tier's records are keyed as their target's are.
        let mut apart: BTreeMap<i32, Vec<Parcel>> = BTreeMap::new();
        for parcel in taken {
            apart.entry(parcel.held.record.partition).or_default().push(parcel);
        }
        Ok(apart.into_values().collect())
    }

    fn is_slow(&self, now: Instant) -> bool {
        self.busy_since.is_some_and(|since| now >= since + MAYBE_ILL_AFTER)
    }

    /// When to look at the fresh ones again that were left behind.
    pub(super) fn rest_by(&self, now: Instant) -> Option<Instant> {
        (!self.fresh.is_empty()).then_some(now + ANSWERS_WITHIN)
    }

    /// Failed ones that are to be tried again now, or when to look again.
    pub(super) fn take_failed(&mut self, now: Instant) -> Result<Vec<Parcel>, Option<Instant>> {
        match self.not_before {
            _ if self.failed.is_empty() || self.retrying > 0 => Err(None),
            Some(until) if until > now => Err(Some(until)),
            Some(_) | None => {
                let count = self.failed.len().min(BATCH_MAX);
                self.retrying = count;
                Ok(self.failed.drain(..count).collect())
            }
        }
    }

    /// A batch has come back, in which something failed or nothing did; `proven` says that the broker answered others
    /// all the while. Returns whether this is news.
    pub(super) fn came_back(
        &mut self,
        count: usize,
        again: bool,
        error: Option<&PublishError>,
        proven: bool,
        now: Instant,
    ) -> bool {
        if again {
            self.retrying = 0;
        } else {
            self.under_way -= count;
            self.busy_since.take_if(|_| self.under_way == 0);
        }
        let Some(error) = error else {
            if again {
                (self.failures, self.not_before) = (0, None);
            }
            return false;
        };
        let is_news = !again && self.illness(now).is_none();
        if again || self.failed.is_empty() {
            self.failures = self.failures.saturating_add(1);
            self.not_before = Some(now + pause(self.failures));
        }
        self.last_failure = Some((now, error.clone()));
        if proven {
            self.last_proven = Some(now);
        }
        is_news
    }

    /// The last of those that were not tried yet, so that no more than `most` are on their way.
    pub(super) fn take_beyond(&mut self, most: usize) -> Vec<Parcel> {
        let excess = self.len().saturating_sub(most).min(self.fresh.len());
        self.fresh.split_off(self.fresh.len() - excess).into()
    }

    /// What failed has all its tries before it again.
    pub(super) fn give_back_tries(&mut self) {
        self.failed.iter_mut().for_each(|parcel| parcel.tries = 0);
    }

    /// Lets go of what waits and was revoked; returns how many records and bytes these were.
    pub(super) fn drop_revoked(&mut self) -> (usize, usize) {
        let (mut count, mut bytes) = (0, 0);
        for waiting in [&mut self.fresh, &mut self.failed] {
            waiting.retain(|parcel| {
                let is_live = parcel.is_live();
                if !is_live {
                    count += 1;
                    bytes += parcel.held.size;
                }
                is_live
            });
        }
        (count, bytes)
    }
}
