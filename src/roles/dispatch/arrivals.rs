//! How fast fresh orders come.

use crate::domain::Timestamp;

/// An average over about half a second.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    per_second: f64,
    count: u32,
    since: Option<Timestamp>,
}

impl Arrivals {
    pub(super) fn note(&mut self, now: Timestamp) {
        self.since.get_or_insert(now);
        self.count = self.count.saturating_add(1);
    }

    /// Orders expected in the next `seconds`.
    pub(super) fn expected(&mut self, now: Timestamp, seconds: f64) -> usize {
        if let Some(since) = self.since {
            let passed = (now - since).as_seconds_f64();
            if passed >= 0.25 {
                self.per_second = 0.5 * self.per_second + 0.5 * f64::from(self.count) / passed;
                self.count = 0;
                self.since = Some(now);
            }
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count, never negative")]
        let expected = (self.per_second * seconds) as usize;
        expected
    }
}
