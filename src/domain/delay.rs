//! Delay tiers: topics of one constant delay each, by which any delay is made.
//!
//! A record enters the largest tier that fits and leaves it after the tier's time, or at its due
//! time, whichever comes first. What remains then takes it into a smaller tier, and what remains
//! below the smallest is waited out by whoever holds it. So in a tier the order of arrival is,
//! but for a moment, the order of leaving.

use std::time::Duration;

use super::Timestamp;

/// A tier still fits if it is longer than what remains by no more than this: the record leaves at
/// its due time all the same, and one hop more would cost more than the moment that it waits
/// ahead of its neighbours.
pub const FITS_WITHIN: Duration = Duration::from_millis(50);

/// The longest delay.
pub const LONGEST: Duration = Duration::from_hours(7 * 24);
/// So much more than the longest delay may lie ahead, where clocks differ.
const CLOCKS_DIFFER: Duration = Duration::from_hours(1);
/// No outage after which a record should still fire lasts longer. What says that it was due before that
/// is wrong: 0, or a time in seconds.
const LONGEST_OUTAGE: Duration = Duration::from_hours(30 * 24);

/// What is to be thought of a due time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sense {
    /// It may be meant.
    Sensible,
    /// Nothing waits that long.
    TooFarAhead,
    /// Nothing is that late.
    TooLongAgo,
}

/// Whether a due time can be meant.
pub fn sense_of(due_at: Timestamp, now: Timestamp) -> Sense {
    if due_at > super::plus(now, LONGEST + CLOCKS_DIFFER) {
        return Sense::TooFarAhead;
    }
    if super::plus(due_at, LONGEST_OUTAGE) < now { Sense::TooLongAgo } else { Sense::Sensible }
}

/// The largest of `tiers` (rising) that fits what remains; `None` below the smallest.
pub fn tier_for(tiers: &[Duration], remaining: Duration) -> Option<usize> {
    let fitting = tiers.partition_point(|tier| *tier <= remaining.saturating_add(FITS_WITHIN));
    fitting.checked_sub(1)
}

/// When a record leaves a tier.
pub fn leaves_at(entered_at: Timestamp, tier: Duration, due_at: Timestamp) -> Timestamp {
    super::plus(entered_at, tier).min(due_at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_timestamp_micros(1_790_000_000_000_000 + micros).unwrap()
    }

    fn tiers() -> Vec<Duration> {
        [1, 5, 15, 30, 60, 300, 1800].map(Duration::from_secs).to_vec()
    }

    #[test]
    fn a_delay_enters_the_largest_tier_that_fits_to_50_ms() {
        let index = |millis| tier_for(&tiers(), Duration::from_millis(millis));
        assert_eq!(index(949), None);
        assert_eq!(index(950), Some(0));
        assert_eq!(index(4_949), Some(0));
        assert_eq!(index(4_950), Some(1));
        assert_eq!(index(u64::MAX), Some(6));
    }

    #[test]
    fn a_due_time_in_seconds_or_years_away_is_not_meant() {
        let (now, day) = (at(0), 24 * 3600 * 1_000_000);
        let sense = |due_at| sense_of(due_at, now);
        assert_eq!(sense(at(7 * day)), Sense::Sensible);
        assert_eq!(sense(at(8 * day)), Sense::TooFarAhead);
        assert_eq!(sense(Timestamp::MAX_UTC), Sense::TooFarAhead);
        assert_eq!(sense(at(-30 * day)), Sense::Sensible);
        assert_eq!(sense(at(-31 * day)), Sense::TooLongAgo);
        for millis in [0, -1, now.timestamp(), i64::MIN / 1_000_000] {
            assert_eq!(sense(Timestamp::from_timestamp_millis(millis).unwrap()), Sense::TooLongAgo);
        }
    }

    proptest! {
        /// Whatever the tiers, the delay, and how late each hop is.
        #[test]
        fn hops_end_at_the_due_time_never_before_and_are_few(
            tiers in proptest::collection::btree_set(1_u64..2_000_000, 1..8),
            delay in 1_u64..604_800_000, late in proptest::collection::vec(0_i64..20_000, 1..20),
        ) {
            let tiers: Vec<Duration> = tiers.into_iter().map(Duration::from_millis).collect();
            let due_at = at(i64::try_from(delay).unwrap() * 1000);
            let (mut now, mut hops, mut late) = (at(0), 0_u64, late.into_iter().cycle());
            let longest = u64::try_from(tiers.last().unwrap().as_millis()).unwrap();
            while let Some(tier) = tier_for(&tiers, (due_at - now).to_std().unwrap_or_default()) {
                let leaves = leaves_at(now, tiers[tier], due_at);
                prop_assert!(leaves <= due_at);
                prop_assert!(leaves > now, "a hop that gains nothing");
                now = leaves + chrono::TimeDelta::microseconds(late.next().unwrap());
                hops += 1;
                if now >= due_at {
                    break;
                }
            }
            // In each tier as often as it fits into the next larger one, at most.
            let ratio = |pair: &[Duration]| u64::try_from(pair[1].as_millis().div_ceil(pair[0].as_millis())).unwrap();
            let most = delay / longest + tiers.windows(2).map(ratio).sum::<u64>() + 2;
            prop_assert!(hops <= most, "{} hops, at most {}", hops, most);
            let remains = (due_at - now).to_std().unwrap_or_default();
            prop_assert!(remains < tiers[0]);
        }
    }
}
