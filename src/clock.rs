//! The one place that reads a clock.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::domain::{Timestamp, to_micros};
use crate::ports::Clock;

/// This machine's clock, corrected by the measured distance to the database's.
#[derive(Debug, Default)]
pub struct SystemClock {
    /// How far the database is ahead of this machine, in microseconds.
    skew_micros: AtomicI64,
}

impl SystemClock {
    /// A clock that is not yet corrected.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what was measured: positive where the database is ahead.
    pub fn set_skew(&self, skew: chrono::TimeDelta) {
        self.skew_micros.store(skew.num_microseconds().unwrap_or(0), Ordering::Relaxed);
    }

    /// How far the database is ahead of this machine.
    pub fn skew(&self) -> chrono::TimeDelta {
        chrono::TimeDelta::microseconds(self.skew_micros.load(Ordering::Relaxed))
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
        to_micros(Self::local() + self.skew())
    }

    fn since_boot(&self) -> Duration {
        // Runs on while the machine is suspended, which a monotonic clock does not: a request
        // that was prepared before a suspension must not leave after it.
        #[cfg(target_os = "linux")]
        const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
        #[cfg(not(target_os = "linux"))]
        const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
        let at = rustix::time::clock_gettime(CLOCK);
        Duration::new(u64::try_from(at.tv_sec).unwrap_or(0), u32::try_from(at.tv_nsec).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_shows_the_databases_time_in_whole_microseconds() {
        let clock = SystemClock::new();
        let before = SystemClock::local();
        clock.set_skew(chrono::TimeDelta::hours(1));
        let ahead = clock.now() - before;
        assert!(ahead >= chrono::TimeDelta::hours(1) && ahead < chrono::TimeDelta::minutes(61), "{ahead}");
        assert_eq!(clock.now().timestamp_subsec_nanos() % 1000, 0);
    }

    #[test]
    fn time_since_boot_never_goes_back() {
        let clock = SystemClock::new();
        let readings: Vec<Duration> = (0..1000).map(|_| clock.since_boot()).collect();
        assert!(readings.is_sorted());
        assert!(readings[0] > Duration::ZERO);
    }
}
