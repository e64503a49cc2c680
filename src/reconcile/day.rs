//! One day of a provider, and how far its edges blur.

use std::time::Duration;

use chrono::{FixedOffset, NaiveDate, NaiveTime, TimeZone as _};

use crate::domain::{Timestamp, minus, plus};

/// A day, in the zone in which the provider files its recharges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Day {
    /// Its date there.
    pub date: NaiveDate,
    /// The zone's distance to UTC.
    pub offset: FixedOffset,
    /// Its first moment.
    pub from: Timestamp,
    /// The first moment after it.
    pub until: Timestamp,
    /// So near to an edge a recharge may be filed on either day.
    pub slack: Duration,
}

impl Day {
    /// `None` for a date that no calendar has in UTC.
    pub fn new(date: NaiveDate, offset: FixedOffset, slack: Duration) -> Option<Self> {
        let begins = |date: NaiveDate| offset.from_local_datetime(&date.and_time(NaiveTime::MIN)).single();
        let (from, until) = (begins(date)?.to_utc(), begins(date.succ_opt()?)?.to_utc());
        Some(Self { date, offset, from, until, slack })
    }

    /// Whether a moment is of the day.
    pub fn holds(&self, at: Timestamp) -> bool {
        self.from <= at && at < self.until
    }

    /// Whether what is of this moment may be filed on the day.
    pub fn may_hold(&self, at: Timestamp) -> bool {
        let (from, until) = self.widened();
        from <= at && at < until
    }

    /// The day with its blurred edges.
    pub fn widened(&self) -> (Timestamp, Timestamp) {
        (minus(self.from, self.slack), plus(self.until, self.slack))
    }

    /// Whether what is of this moment must be filed on the day by now.
    pub fn must_hold(&self, at: Timestamp, now: Timestamp) -> bool {
        plus(self.from, self.slack) <= at && at < minus(self.until.min(now), self.slack)
    }
}
