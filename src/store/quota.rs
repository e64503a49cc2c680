//! The rules of the quota: the generic cell rate algorithm, once for a provider's total and once
//! for each class (`docs/adr/0104`).
//!
//! A cell holds `tat`, the moment at which the permits given so far are paid off; a permit costs
//! one interval. With `tolerance = (burst − 1) · interval`, the next permit may leave at
//! `max(now, tat − tolerance)`; so of any window `w` at most `w / interval + burst` leave. Permits
//! are given ahead of their time, up to the horizon.
//!
//! A class has its share of the rate when others have asked within the last second; the shares of
//! those that have not are divided among those that have. What is left over by its time, though
//! all had their chance to take it ahead, goes to whoever asks.

use std::time::Duration;

use crate::domain::Timestamp;
use crate::ports::{Grant, PermitClass, Reservation};

/// A class is active for this long after it asked.
pub(super) const ACTIVE_NS: i64 = 1_000_000_000;

/// Permits are given at least this far ahead, and a class may be this far ahead of its share.
const LEAST_AHEAD_NS: i64 = 100_000_000;

/// No class is ever without a share.
const LEAST_SHARE: f64 = 0.01;

/// A reservation in numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Terms {
    /// From 1, in the order of [`PermitClass::ALL`].
    pub(super) class: i32,
    pub(super) wanted: i64,
    pub(super) interval_ns: i64,
    pub(super) tolerance_ns: i64,
    pub(super) horizon_ns: i64,
    pub(super) class_tolerance_ns: i64,
    pub(super) shares: [f64; 3],
}

impl Terms {
    pub(super) fn of(reservation: &Reservation) -> Self {
        let terms = &reservation.terms;
        let interval_ns = nanos_of(terms.interval).max(1);
        let tolerance_ns = interval_ns.saturating_mul(i64::from(terms.burst.max(1)) - 1);
        let query = terms.query_share.clamp(LEAST_SHARE, 1.0);
        let retry = terms.retry_share.clamp(LEAST_SHARE, 1.0);
        Self {
            class: match reservation.class {
                PermitClass::Fresh => 1,
                PermitClass::Retry => 2,
                PermitClass::Query => 3,
            },
            wanted: i64::from(reservation.wanted),
            interval_ns,
            tolerance_ns,
            horizon_ns: interval_ns.max(LEAST_AHEAD_NS),
            class_tolerance_ns: tolerance_ns.max(LEAST_AHEAD_NS),
            shares: [(1.0 - query - retry).max(LEAST_SHARE), retry, query],
        }
    }
}

/// A provider's row.
#[expect(clippy::struct_field_names, reason = "the unit stands last in every name")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Cell {
    pub(super) tat_ns: i64,
    pub(super) class_tat_ns: [i64; 3],
    pub(super) asked_ns: [i64; 3],
    pub(super) paused_until_ns: i64,
}

/// What was taken from a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reserved {
    pub(super) now_ns: i64,
    pub(super) paused_until_ns: i64,
    /// The total's, before the permits; not in the past.
    pub(super) tat_ns: i64,
    /// The class's, after them.
    pub(super) class_tat_ns: i64,
    pub(super) permits: i64,
}

impl Cell {
    /// Takes what the rules allow at `now_ns`.
    pub(super) fn reserve(&mut self, terms: Terms, now_ns: i64) -> Reserved {
        let own = usize::try_from(terms.class - 1).unwrap_or(0).min(2);
        let ahead_ns = now_ns + terms.horizon_ns;
        let tat_ns = self.tat_ns.max(now_ns);
        let mut class_tat_ns = self.class_tat_ns.get(own).copied().unwrap_or(0).max(now_ns);
        let class_interval_ns = self.class_interval(terms, own, now_ns);

        let by_total = count(ahead_ns + terms.tolerance_ns - tat_ns, terms.interval_ns);
        let by_class = count(ahead_ns + terms.class_tolerance_ns - class_tat_ns, class_interval_ns);
        let left_over = count(now_ns - self.tat_ns, terms.interval_ns);
        let paused = self.paused_until_ns > now_ns;
        let permits = if paused { 0 } else { terms.wanted.min(by_total).min(by_class.max(left_over)) };

        class_tat_ns += permits.min(by_class) * class_interval_ns;
        if permits > 0 {
            self.tat_ns = tat_ns + permits * terms.interval_ns;
        }
        if let (Some(tat), Some(asked)) = (self.class_tat_ns.get_mut(own), self.asked_ns.get_mut(own)) {
            *tat = class_tat_ns;
            *asked = now_ns;
        }
        Reserved { now_ns, paused_until_ns: self.paused_until_ns, tat_ns, class_tat_ns, permits }
    }

    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "as the database computes it")]
    fn class_interval(&self, terms: Terms, own: usize, now_ns: i64) -> i64 {
        let shares = terms.shares.iter().zip(self.asked_ns).enumerate();
        let sum: f64 = shares
            .filter(|(class, (_, asked_ns))| *class == own || *asked_ns > now_ns - ACTIVE_NS)
            .map(|(_, (share, _))| share)
            .sum();
        let share = terms.shares.get(own).copied().unwrap_or(1.0);
        (terms.interval_ns as f64 * sum / share).ceil() as i64
    }
}

/// How many intervals begin within `room_ns`, the first at 0.
fn count(room_ns: i64, interval_ns: i64) -> i64 {
    if room_ns < 0 { 0 } else { room_ns / interval_ns + 1 }
}

impl Reserved {
    /// The permits as moments, and when asking again makes sense.
    pub(super) fn grant(self, terms: Terms) -> Grant {
        let first_ns = self.tat_ns - terms.tolerance_ns;
        let send_at = (0..self.permits).map(|n| moment((first_ns + n * terms.interval_ns).max(self.now_ns))).collect();
        let ask_again_at = (self.permits < terms.wanted).then(|| moment(self.ask_again_ns(terms)));
        Grant { send_at, ask_again_at }
    }

    /// When the next permit comes within the horizon, for this class or as a left-over; not sooner
    /// than a quarter of the horizon, so that a saturated quota is not asked permit by permit.
    fn ask_again_ns(self, terms: Terms) -> i64 {
        if self.paused_until_ns > self.now_ns {
            return self.paused_until_ns;
        }
        let tat_ns = self.tat_ns + self.permits * terms.interval_ns;
        let by_total = tat_ns - terms.tolerance_ns - terms.horizon_ns;
        let by_class = self.class_tat_ns - terms.class_tolerance_ns - terms.horizon_ns;
        by_total.max(by_class.min(tat_ns)).max(self.now_ns + LEAST_AHEAD_NS / 4)
    }
}

fn nanos_of(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX / 4)
}

/// A moment in ns since 1970.
pub(super) fn nanos(at: Timestamp) -> i64 {
    at.timestamp_micros().saturating_mul(1000)
}

/// The moment of `ns`, rounded up to whole µs: never early.
fn moment(ns: i64) -> Timestamp {
    Timestamp::from_timestamp_micros(ns.div_euclid(1000) + i64::from(ns.rem_euclid(1000) > 0)).unwrap_or_default()
}
