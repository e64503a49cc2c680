//! How long a call takes: the 95th percentile of the last minute or two, never below a floor.
//! It decides which orders can still make their deadline. What was learned is forgotten in time: else a
//! provider that was slow once would get no order any more, and so could never show that it is quick again.

use std::sync::Mutex;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

/// After this many calls, or so long, the older half is forgotten.
const WINDOW: u64 = 4096;
const WINDOW_TIME: Duration = Duration::from_mins(1);
/// Below this many calls nothing is known yet; and the percentile, which takes longer to find than
/// a call to note, is looked up once in this many.
const ENOUGH: u64 = 50;
/// What was last looked up counts so long where nothing new is learned.
const COUNTS_FOR: Duration = Duration::from_mins(5);

#[derive(Debug)]
pub(super) struct ServiceTime {
    floor: Duration,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    older: Histogram<u32>,
    newer: Histogram<u32>,
    newer_since: Instant,
    /// The percentile that was last looked up, and when.
    known: Option<(Duration, Instant)>,
}

impl ServiceTime {
    pub(super) fn new(floor: Duration) -> Self {
        // Two digits over 1 ms to 10 min; a value beyond is taken as the bound.
        #[expect(clippy::expect_used, reason = "valid bounds, checked by every test of this module")]
        let histogram = || Histogram::new_with_bounds(1, 600_000, 2).expect("a histogram of ten minutes");
        let seen = Seen { older: histogram(), newer: histogram(), newer_since: Instant::now(), known: None };
        Self { floor, seen: Mutex::new(seen) }
    }

    /// Notes the time of one answered call.
    pub(super) fn note(&self, took: Duration) {
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
        let Ok(mut seen) = self.seen.lock() else { return };
        seen.newer.saturating_record(millis);
        let noted = seen.newer.len();
        if noted % ENOUGH != 0 {
            return;
        }
        let now = Instant::now();
        seen.known = Some((seen.percentile(), now));
        if noted >= WINDOW || now >= seen.newer_since + WINDOW_TIME {
            seen.begin_anew(now);
        }
    }

    /// What a call is expected to take.
    pub(super) fn expected(&self) -> Duration {
        let known = self.seen.lock().ok().and_then(|seen| seen.known);
        let counts = known.filter(|(_, at)| at.elapsed() < COUNTS_FOR);
        counts.map_or(self.floor, |(millis, _)| millis.max(self.floor))
    }
}

impl Seen {
    fn percentile(&self) -> Duration {
        let newer = self.newer.value_at_quantile(0.95);
        // Of a window that has hardly begun the one before it knows more.
        let older = if self.newer.len() < ENOUGH * 4 { self.older.value_at_quantile(0.95) } else { 0 };
        Duration::from_millis(newer.max(older))
    }

    fn begin_anew(&mut self, now: Instant) {
        std::mem::swap(&mut self.older, &mut self.newer);
        self.newer.reset();
        self.newer_since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(time: &ServiceTime, calls: u64, took: Duration) {
        (0..calls).for_each(|_| time.note(took));
    }

    const SLOW: Duration = Duration::from_secs(4);
    const QUICK: Duration = Duration::from_millis(10);
    const FLOOR: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn the_floor_holds_until_enough_is_known_and_below_it() {
        let time = ServiceTime::new(FLOOR);
        note(&time, ENOUGH - 1, SLOW);
        assert_eq!(time.expected(), FLOOR);
        let time = ServiceTime::new(FLOOR);
        note(&time, ENOUGH, QUICK);
        assert_eq!(time.expected(), FLOOR);
        note(&time, WINDOW, SLOW);
        assert!(time.expected() >= SLOW);
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_is_quick_again_is_known_to_be_so_within_minutes_also_where_little_is_called() {
        let time = ServiceTime::new(FLOOR);
        note(&time, 4 * ENOUGH, SLOW);
        assert!(time.expected() >= SLOW);
        // Fifty calls a minute.
        for _ in 0..5 {
            tokio::time::advance(WINDOW_TIME).await;
            note(&time, ENOUGH, QUICK);
        }
        assert_eq!(time.expected(), FLOOR);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_learned_of_a_provider_that_is_called_no_more_is_forgotten() {
        let time = ServiceTime::new(FLOOR);
        note(&time, ENOUGH, Duration::from_mins(3));
        tokio::time::advance(COUNTS_FOR.saturating_sub(Duration::from_secs(1))).await;
        assert!(time.expected() >= Duration::from_mins(3), "nothing could be sent within the deadline");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(time.expected(), FLOOR, "so one is sent again, and shows what it takes");
    }
}
