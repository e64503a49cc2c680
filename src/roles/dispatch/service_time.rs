//! How long a call takes: the 95th percentile of the last minute or two, never below a floor.
//! It decides which orders can still make their deadline.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;

/// After this many calls the older half is forgotten.
const WINDOW: u64 = 4096;
/// Below this many calls nothing is known yet; and the percentile, which takes longer to find than
/// a call to note, is looked up once in this many.
const ENOUGH: u64 = 50;

#[derive(Debug)]
pub(super) struct ServiceTime {
    floor: Duration,
    seen: Mutex<Seen>,
    /// What was last looked up.
    known_millis: AtomicU64,
}

#[derive(Debug)]
struct Seen {
    older: Histogram<u32>,
    newer: Histogram<u32>,
}

impl ServiceTime {
    pub(super) fn new(floor: Duration) -> Self {
        // Two digits over 1 ms to 10 min; a value beyond is taken as the bound.
        #[expect(clippy::expect_used, reason = "valid bounds, checked by every test of this module")]
        let histogram = || Histogram::new_with_bounds(1, 600_000, 2).expect("a histogram of ten minutes");
        Self {
            floor,
            seen: Mutex::new(Seen { older: histogram(), newer: histogram() }),
            known_millis: AtomicU64::new(0),
        }
    }

    /// Notes the time of one answered call.
    pub(super) fn note(&self, took: Duration) {
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
        let Ok(mut seen) = self.seen.lock() else { return };
        seen.newer.saturating_record(millis);
        if seen.newer.len() % ENOUGH == 0 {
            self.known_millis.store(seen.newer.value_at_quantile(0.95), Ordering::Relaxed);
        }
        if seen.newer.len() >= WINDOW {
            let Seen { older, newer } = &mut *seen;
            std::mem::swap(older, newer);
            newer.reset();
        }
    }

    /// What a call is expected to take.
    pub(super) fn expected(&self) -> Duration {
        Duration::from_millis(self.known_millis.load(Ordering::Relaxed)).max(self.floor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_holds_until_enough_is_known_and_below_it() {
        let time = ServiceTime::new(Duration::from_secs(1));
        assert_eq!(time.expected(), Duration::from_secs(1));
        for _ in 0..ENOUGH {
            time.note(Duration::from_millis(10));
        }
        assert_eq!(time.expected(), Duration::from_secs(1));
        for _ in 0..WINDOW {
            time.note(Duration::from_secs(4));
        }
        assert!(time.expected() >= Duration::from_secs(4));
    }
}
