//! A rest from questions. A provider that throttles them says nothing of recharges, so the quota's cell, in which everything
//! of ours rests together, is left alone: each process that is told rests for itself.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::domain::Timestamp;

/// Until when no question is asked.
#[derive(Debug, Default)]
pub(super) struct Rest(AtomicI64);

impl Rest {
    /// Lasts until then; never shortens one.
    pub(super) fn until(&self, at: Timestamp) {
        self.0.fetch_max(at.timestamp_micros(), Ordering::Relaxed);
    }

    /// When it ends, if it lasts at `now`.
    pub(super) fn ends_at(&self, now: Timestamp) -> Option<Timestamp> {
        Timestamp::from_timestamp_micros(self.0.load(Ordering::Relaxed)).filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_ends_at_its_longest_moment() {
        let (rest, at) = (Rest::default(), |second: i64| Timestamp::from_timestamp(1_800_000_000 + second, 0).unwrap());
        assert_eq!(rest.ends_at(at(0)), None);
        rest.until(at(30));
        rest.until(at(10));
        assert_eq!((rest.ends_at(at(29)), rest.ends_at(at(30))), (Some(at(30)), None));
    }
}
