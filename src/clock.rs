//! The one place that reads a clock.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::domain::Timestamp;
use crate::ports::Clock;

/// The database's time, as well as it is known here: measured now and then, and carried on by the
/// time since this machine began. A step of this machine's own clock changes nothing.
#[derive(Debug)]
pub struct SystemClock {
    /// The database's time when this machine began, in microseconds since 1970.
    origin_micros: AtomicI64,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl SystemClock {
    /// A clock that begins with this machine's own time.
    pub fn new() -> Self {
        Self { origin_micros: AtomicI64::new(micros(Self::local()) - duration_micros(since_boot())) }
    }

    /// Takes what was measured: the database said `database`, at some moment between `asked` and
    /// `answered` (since boot). What fits the measurement already is left alone, so that a slow answer
    /// moves nothing to and fro. Returns how far the database is ahead of this machine's own clock.
    pub fn learn(&self, database: Timestamp, asked: Duration, answered: Duration) -> chrono::TimeDelta {
        let (earliest, latest) =
            (micros(database) - duration_micros(answered), micros(database) - duration_micros(asked));
        let known = self.origin_micros.load(Ordering::Relaxed);
        self.origin_micros.store(known.clamp(earliest, latest.max(earliest)), Ordering::Relaxed);
        self.now() - Self::local()
    }

    /// This machine's own time, against which a skew is measured.
    pub fn local() -> Timestamp {
        #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else asks")]
        let now = chrono::Utc::now();
        now
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let micros = self.origin_micros.load(Ordering::Relaxed) + duration_micros(since_boot());
        Timestamp::from_timestamp_micros(micros).unwrap_or_default()
    }

    fn since_boot(&self) -> Duration {
        since_boot()
    }
}

fn since_boot() -> Duration {
    // Runs on while the machine is suspended, which a monotonic clock does not: a request that was
    // prepared before a suspension must not leave after it.
    #[cfg(target_os = "linux")]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
    let at = rustix::time::clock_gettime(CLOCK);
    Duration::new(u64::try_from(at.tv_sec).unwrap_or(0), u32::try_from(at.tv_nsec).unwrap_or(0))
}

fn micros(at: Timestamp) -> i64 {
    at.timestamp_micros()
}

fn duration_micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn the_clock_shows_the_databases_time_in_whole_microseconds() {
        let clock = SystemClock::new();
        let (asked, before) = (clock.since_boot(), SystemClock::local());
        let skew = clock.learn(before + HOUR, asked, asked + Duration::from_millis(10));
        assert!((skew.as_seconds_f64() - 3_600.0).abs() < 1.0, "{skew}");
        let ahead = clock.now() - before;
        assert!(ahead >= chrono::TimeDelta::minutes(59) && ahead < chrono::TimeDelta::minutes(61), "{ahead}");
        assert_eq!(clock.now().timestamp_subsec_nanos() % 1000, 0);
    }

    #[test]
    fn a_slow_answer_that_fits_moves_nothing_and_one_that_does_not_moves_no_further_than_it_must() {
        let clock = SystemClock::new();
        let origin = || clock.origin_micros.load(Ordering::Relaxed);
        let (known, asked, now) = (origin(), clock.since_boot(), clock.now());
        // Said anywhere within two seconds.
        clock.learn(now + Duration::from_secs(1), asked, asked + Duration::from_secs(2));
        assert_eq!(origin(), known);
        // At least one second ahead, and at most three.
        clock.learn(now + Duration::from_secs(3), asked, asked + Duration::from_secs(2));
        let moved = Duration::from_micros(origin().abs_diff(known));
        assert!(moved.abs_diff(Duration::from_secs(1)) < Duration::from_millis(100), "{moved:?}");
    }

    #[test]
    fn a_database_whose_clock_is_set_forth_and_back_is_followed_with_the_next_measurement_and_not_before() {
        let clock = SystemClock::new();
        let origin = || clock.origin_micros.load(Ordering::Relaxed);
        let (first, trip) = (origin(), Duration::from_millis(4));
        let measure = |step_micros: i64| {
            let asked = clock.since_boot();
            let at = Timestamp::from_timestamp_micros(first + step_micros + duration_micros(asked)).unwrap_or_default();
            clock.learn(at, asked, asked + trip);
        };
        for step in [1_000_000, 0, -1_000_000, 0] {
            let before = origin();
            measure(step);
            // As far as the database went, but for the trip, which nobody can tell apart from it.
            assert!((first + step).abs_diff(origin()) <= 4_000, "set by {step} µs: off by {}", origin() - first - step);
            assert!(before.abs_diff(origin()) >= 996_000, "it was measured, and nothing moved");
        }
    }

    #[test]
    fn time_since_boot_never_goes_back() {
        let clock = SystemClock::new();
        let readings: Vec<Duration> = (0..1000).map(|_| clock.since_boot()).collect();
        assert!(readings.is_sorted());
        assert!(readings[0] > Duration::ZERO);
    }
}
