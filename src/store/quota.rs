//! The rules of the quota: the generic cell rate algorithm, once for a provider's total and once
//! for each class (`docs/adr/0104`).
//!
//! A cell holds `tat`, the moment at which the permits given so far are paid off; a permit costs
//! one interval. With `tolerance = (burst − 1) · interval`, the next permit may leave at
//! `max(now, tat − tolerance)`; so of any window `w` at most `w / interval + burst` leave. Permits
//! are given ahead of their time, up to the horizon.
//!
//! A class has its share of the rate while others are active; the shares of those that are not are
//! divided among those that are. A class may take its share as far ahead as the horizon, and what
//! nobody has taken a quarter of that ahead goes to whoever asks, so that nothing is lost.

use std::time::Duration;

use crate::domain::Timestamp;
use crate::ports::{Grant, PermitClass, Reservation};

/// A class is active for this long after it asked, or after it was told to ask again.
pub(super) const ACTIVE_NS: i64 = 1_000_000_000;

/// Permits are given at least this far ahead, and a class may be this far ahead of its share.
pub(super) const LEAST_AHEAD_NS: i64 = 100_000_000;

/// No class is ever without a share.
const LEAST_SHARE: f64 = 0.01;

/// A reservation in numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Terms {
    /// From 1, in the order of [`PermitClass::ALL`].
    pub(super) class: i32,
    pub(super) wanted: i64,
    pub(super) interval_ns: i64,
    pub(super) tolerance_ns: i64,
    pub(super) horizon_ns: i64,
    /// Nearer than this, permits are anyone's; and nobody need ask more often.
    pub(super) spare_ns: i64,
    pub(super) shares: [f64; 3],
}

impl Terms {
    /// Of a reservation.
    pub fn of(reservation: &Reservation) -> Self {
        let terms = &reservation.terms;
        let interval_ns = nanos_of(terms.interval).max(1);
        let tolerance_ns = interval_ns.saturating_mul(i64::from(terms.burst.max(1)) - 1);
        let horizon_ns = interval_ns.max(LEAST_AHEAD_NS);
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
            horizon_ns,
            spare_ns: horizon_ns / 4,
            shares: [(1.0 - query - retry).max(LEAST_SHARE), retry, query],
        }
    }
}

/// A provider's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cell {
    pub(super) tat_ns: i64,
    pub(super) class_tat_ns: [i64; 3],
    pub(super) active_until_ns: [i64; 3],
    /// Nothing leaves before.
    pub paused_until_ns: i64,
}

/// What was taken from a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reserved {
    pub(super) now_ns: i64,
    /// The total's, before the permits; not in the past.
    pub(super) tat_ns: i64,
    pub(super) permits: i64,
    /// When asking again makes sense.
    pub(super) again_ns: i64,
}

impl Cell {
    /// Takes what the rules allow at `now_ns`.
    pub fn reserve(&mut self, terms: Terms, now_ns: i64) -> Reserved {
        let own = usize::try_from(terms.class - 1).unwrap_or(0).min(2);
        let ahead_ns = now_ns + terms.horizon_ns;
        let tat_ns = self.tat_ns.max(now_ns);
        let class_tat_ns = self.class_tat_ns.get(own).copied().unwrap_or(0).max(now_ns);
        let class_interval_ns = self.class_interval(terms, own, now_ns);

        let by_total = count(ahead_ns + terms.tolerance_ns - tat_ns, terms.interval_ns);
        let by_class = count(ahead_ns + LEAST_AHEAD_NS - class_tat_ns, class_interval_ns);
        let spare = count(now_ns + terms.spare_ns + terms.tolerance_ns - tat_ns, terms.interval_ns);
        let paused = self.paused_until_ns > now_ns;
        let permits = if paused { 0 } else { terms.wanted.min(by_total).min(by_class.max(spare)) };

        // Spare permits cost the class nothing of its share.
        let class_tat_after_ns = class_tat_ns + permits.min(by_class) * class_interval_ns;
        let tat_after_ns = tat_ns + permits * terms.interval_ns;
        let again_ns = if paused {
            self.paused_until_ns
        } else {
            let by_total = tat_after_ns - terms.tolerance_ns - terms.horizon_ns;
            let by_class = class_tat_after_ns - LEAST_AHEAD_NS - terms.horizon_ns;
            by_total
                .max(by_class.min(tat_after_ns - terms.tolerance_ns - terms.spare_ns))
                .max(now_ns + LEAST_AHEAD_NS / 4)
        };
        self.tat_ns = tat_after_ns;
        if let (Some(tat), Some(until)) = (self.class_tat_ns.get_mut(own), self.active_until_ns.get_mut(own)) {
            *tat = class_tat_after_ns;
            *until = ACTIVE_NS + if permits < terms.wanted { again_ns } else { now_ns };
        }
        Reserved { now_ns, tat_ns, permits, again_ns }
    }

    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "as the database computes it")]
    fn class_interval(&self, terms: Terms, own: usize, now_ns: i64) -> i64 {
        let shares = terms.shares.iter().zip(self.active_until_ns).enumerate();
        let sum: f64 = shares
            .filter(|(class, (_, until_ns))| *class == own || *until_ns > now_ns)
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
    pub fn grant(self, terms: Terms) -> Grant {
        let first_ns = self.tat_ns - terms.tolerance_ns;
        let send_at = (0..self.permits).map(|n| moment((first_ns + n * terms.interval_ns).max(self.now_ns))).collect();
        // Not sooner than the store said, so that a saturated quota is not asked permit by permit.
        let ask_again_at = (self.permits < terms.wanted).then(|| moment(self.again_ns));
        Grant { send_at, ask_again_at }
    }
}

fn nanos_of(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX / 4)
}

/// A moment in ns since 1970.
pub fn nanos(at: Timestamp) -> i64 {
    at.timestamp_micros().saturating_mul(1000)
}

/// The moment of `ns`, rounded up to whole µs: never early.
fn moment(ns: i64) -> Timestamp {
    Timestamp::from_timestamp_micros(ns.div_euclid(1000) + i64::from(ns.rem_euclid(1000) > 0)).unwrap_or_default()
}

#[cfg(test)]
#[expect(clippy::cast_precision_loss, reason = "shares are compared roughly")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::ProviderId;
    use crate::ports::QuotaTerms;

    const SECOND: i64 = 1_000_000_000;

    fn terms(interval_ns: u64, burst: u32, class: PermitClass, wanted: u32) -> Terms {
        let interval = Duration::from_nanos(interval_ns);
        let terms = QuotaTerms { interval, burst, query_share: 0.2, retry_share: 0.2 };
        Terms::of(&Reservation { provider: ProviderId::new("p"), class, wanted, terms })
    }

    fn any_ask() -> impl Strategy<Value = (i64, usize, u32)> {
        let pause_ns = prop_oneof![3 => 0..2_000_000_i64, 2 => 0..200_000_000_i64, 1 => 0..5 * SECOND];
        (pause_ns, 0..3_usize, 0..400_u32)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

        /// The law of the whole: `n` permits take at least `n − burst` intervals (and 1 µs is lost
        /// to rounding), whoever asks for what and when, and the moments rise over all grants.
        #[test]
        fn no_window_holds_more_than_its_rate_and_the_burst(
            interval_ns in prop_oneof![Just(200_000_u64), 50_000..3_000_000_u64, Just(1_000_000_000)],
            burst in 1..60_u32,
            asks in prop::collection::vec(any_ask(), 1..120),
        ) {
            let mut cell = Cell::default();
            let mut now_ns = 1_700_000_000 * SECOND;
            let mut sends: Vec<i64> = Vec::new();
            for (pause_ns, class, wanted) in asks {
                now_ns += pause_ns;
                let terms = terms(interval_ns, burst, PermitClass::ALL[class], wanted);
                let grant = cell.reserve(terms, now_ns).grant(terms);
                prop_assert_eq!(grant.ask_again_at.is_some(), grant.send_at.len() < wanted as usize);
                for at in grant.send_at {
                    prop_assert!(nanos(at) >= now_ns && nanos(at) <= now_ns + terms.horizon_ns + 1_000);
                    prop_assert!(sends.last().is_none_or(|last| *last <= nanos(at)));
                    sends.push(nanos(at));
                }
            }
            // Permit `n` may leave at `n · interval` after the first at the earliest, less the burst.
            // The least of (moment − n · interval) after any permit tells of every window from it.
            let interval_ns = i64::try_from(interval_ns).unwrap();
            let mut least_lead_ns = i64::MAX;
            for (n, at) in sends.iter().enumerate().rev() {
                let lead_ns = at - i64::try_from(n).unwrap() * interval_ns;
                least_lead_ns = least_lead_ns.min(lead_ns);
                let allowed_ns = (i64::from(burst) - 1) * interval_ns + 1_000;
                prop_assert!(lead_ns - least_lead_ns <= allowed_ns, "from permit {n} on, one leaves too early");
            }
        }

        /// Whatever the others do, a class that goes on asking gets its share.
        #[test]
        fn no_class_starves(
            interval_ns in prop_oneof![Just(200_000_u64), 50_000..3_000_000_u64, Just(1_000_000_000)],
            burst in 1..60_u32,
            starving in 0..3_usize,
        ) {
            let mut cell = Cell::default();
            let mut next_ns = [1_700_000_000 * SECOND; 3];
            let end_ns = next_ns[0] + 20 * SECOND.max(i64::try_from(interval_ns).unwrap());
            let mut got = [0; 3];
            loop {
                // The one under test comes last wherever several come at once.
                let order = [(starving + 1) % 3, (starving + 2) % 3, starving];
                let class = *order.iter().min_by_key(|class| next_ns[**class]).unwrap();
                let now_ns = next_ns[class];
                if now_ns >= end_ns {
                    break;
                }
                let wanted = if class == starving { 50 } else { 100_000 };
                let terms = terms(interval_ns, burst, PermitClass::ALL[class], wanted);
                let grant = cell.reserve(terms, now_ns).grant(terms);
                got[class] += grant.send_at.len();
                next_ns[class] = grant.ask_again_at.map_or(now_ns + 1_000_000, nanos).max(now_ns + 1_000);
            }
            let share = [0.6, 0.2, 0.2][starving];
            let fair = 20.0 * (SECOND as f64 / interval_ns as f64).max(1.0) * share;
            prop_assert!(got[starving] as f64 >= fair * 0.85 - 2.0, "{:?} of {fair}", got);
        }
    }

    #[test]
    fn a_moment_is_never_rounded_down() {
        assert_eq!(nanos(moment(1_000)), 1_000);
        assert_eq!(nanos(moment(1_001)), 2_000);
    }
}
