//! Events that come before their order: a payment on one topic, the order still on its way on another.
//! Each waits, looks again, and is given up in the end: an order that was never created has nobody to
//! wait for.

use std::time::Duration;

use super::Timestamp;

/// How long an event waits for its order.
pub const WAITS_FOR: Duration = Duration::from_mins(15);
/// The first look comes after this.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// When an event that was first seen then looks for its order again; `None` once it has waited long
/// enough. Each wait is as long as all before it together, so that an order is found after twice the time
/// that it took to come, and a thousand payments of nobody cost eleven looks each and no more. `least` is the
/// shortest wait that there is.
pub fn looks_again_at(first_seen: Timestamp, now: Timestamp, least: Duration) -> Option<Timestamp> {
    let age = (now - first_seen).to_std().unwrap_or_default();
    if age >= WAITS_FOR {
        return None;
    }
    let soonest = super::plus(now, least.max(FIRST_LOOK));
    let doubled = super::plus(now, age);
    Some(doubled.min(super::plus(first_seen, WAITS_FOR)).max(soonest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_timestamp_millis(1_790_000_000_000 + millis).unwrap()
    }

    /// When an event looks for its order, each time so late.
    fn looks(least: Duration, mut late: impl Iterator<Item = i64>) -> Vec<i64> {
        let (mut now, mut looks) = (at(0), vec![0]);
        while let Some(next) = looks_again_at(at(0), now, least) {
            now = next + chrono::TimeDelta::milliseconds(late.next().unwrap());
            looks.push((now - at(0)).num_milliseconds());
        }
        looks
    }

    #[test]
    fn an_event_looks_ever_more_rarely_and_for_the_last_time_after_a_quarter_of_an_hour() {
        let seconds: Vec<i64> = looks(Duration::ZERO, std::iter::repeat(0)).iter().map(|look| look / 1000).collect();
        assert_eq!(seconds, [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900]);
        assert_eq!(looks(Duration::from_mins(30), std::iter::repeat(0)), [0, 1_800_000], "there is no shorter wait");
        assert_eq!(looks_again_at(at(5_000), at(0), Duration::ZERO), Some(at(1_000)), "first seen by a clock ahead");
    }

    proptest! {
        /// However late each look is: an order that comes meanwhile is found after twice its time, and the end comes.
        #[test]
        fn an_order_is_found_by_twice_the_time_that_it_took_to_come(
            late in proptest::collection::vec(0_i64..3_000, 1..40), comes in 0_i64..880_000,
        ) {
            let most = late.iter().copied().max().unwrap();
            let looks = looks(Duration::ZERO, late.into_iter().cycle());
            prop_assert!(looks.len() <= 13, "{} looks", looks.len());
            let end = *looks.last().unwrap();
            prop_assert!((900_000..=901_000 + most).contains(&end), "the last look is at {end}");
            let found = looks.iter().copied().find(|look| *look >= comes).unwrap();
            prop_assert!(found <= (2 * comes).max(1_000) + 2 * most + 1_000, "came at {comes}, found at {found}");
        }
    }
}
