//! The one place that reads clocks.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::domain::{Timestamp, to_micros};
use crate::ports::Clock;

/// The machine's clocks, the wall clock corrected to the database's: deadlines compare one time
/// in the whole fleet.
#[derive(Debug, Default)]
pub struct SystemClock {
    /// What to add to the wall clock, µs.
    skew_micros: AtomicI64,
}

impl SystemClock {
    /// Corrected by nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes the database's time, asked for at `asked` and answered at `answered` (both by
    /// [`Clock::since_boot`]); it is taken to be of the middle. Returns by how much this
    /// machine's clock is behind, in seconds.
    pub fn learn(&self, database: Timestamp, asked: Duration, answered: Duration) -> f64 {
        let half = answered.saturating_sub(asked) / 2;
        let here = Self::wall() - half;
        let skew = (database - here).num_microseconds().unwrap_or(0);
        self.skew_micros.store(skew, Ordering::Relaxed);
        Duration::from_micros(skew.unsigned_abs()).as_secs_f64() * if skew < 0 { -1.0 } else { 1.0 }
    }

    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    fn wall() -> Timestamp {
        chrono::Utc::now()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        to_micros(Self::wall() + chrono::Duration::microseconds(self.skew_micros.load(Ordering::Relaxed)))
    }

    fn since_boot(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
        Duration::new(seconds, nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_follows_the_database() {
        let clock = SystemClock::new();
        let at = clock.since_boot();
        let ahead = clock.now() + chrono::Duration::seconds(40);
        let skew = clock.learn(ahead, at, clock.since_boot());
        assert!((39.0..41.0).contains(&skew), "{skew}");
        assert!((clock.now() - ahead).num_seconds().abs() < 2);
        assert!(clock.since_boot() >= at);
    }
}
