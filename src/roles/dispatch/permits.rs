//! Permits in hand: reserved from the store a moment ahead, each with the moment at which its
//! request may leave. One that is too late is not used, so that a process that was stopped
//! cannot add its old permits to what others send.

use std::collections::VecDeque;
use std::time::Duration;

use chrono::TimeDelta;

use crate::domain::Timestamp;
use crate::faults::{Bug, is_planted};
use crate::ports::Grant;

/// A permit later than this is dropped. The quota's promise allows for 250 ms by the provider's
/// clock; the rest is for the way there.
pub(super) const STALE_AFTER: Duration = Duration::from_millis(200);

/// The stock of one class.
#[derive(Debug, Default)]
pub(super) struct Stock {
    permits: VecDeque<Timestamp>,
    /// Permits that a reservation under way asks for.
    pub(super) asking: usize,
    /// Before this moment the store has none.
    ask_again_at: Option<Timestamp>,
}

impl Stock {
    /// Takes what the store granted.
    pub(super) fn add(&mut self, grant: Grant) {
        self.permits.extend(grant.send_at);
        self.permits.make_contiguous().sort_unstable();
        self.ask_again_at = grant.ask_again_at;
    }

    /// Takes back permits whose claims came to nothing.
    pub(super) fn give_back(&mut self, permits: impl IntoIterator<Item = Timestamp>) {
        self.permits.extend(permits);
        self.permits.make_contiguous().sort_unstable();
    }

    /// Drops what is too late; returns how many were.
    pub(super) fn drop_stale(&mut self, now: Timestamp) -> u64 {
        let mut dropped = 0;
        let grow_old = !is_planted(Bug::StalePermits);
        while self.permits.front().is_some_and(|send_at| grow_old && *send_at + STALE_AFTER < now) {
            self.permits.pop_front();
            dropped += 1;
        }
        dropped
    }

    /// Permits whose moment comes by then.
    pub(super) fn due(&self, by: Timestamp) -> usize {
        self.permits.partition_point(|send_at| *send_at <= by)
    }

    /// Permits in hand.
    pub(super) fn len(&self) -> usize {
        self.permits.len()
    }

    /// Takes one whose moment comes by then.
    pub(super) fn take(&mut self, by: Timestamp) -> Option<Timestamp> {
        if self.permits.front().is_some_and(|send_at| *send_at <= by) { self.permits.pop_front() } else { None }
    }

    /// Whether asking the store makes sense.
    pub(super) fn may_ask(&self, now: Timestamp) -> bool {
        self.asking == 0 && self.ask_again_at.is_none_or(|at| at <= now)
    }

    /// When something changes by itself: the moment of a permit lies no more than `ahead` in the
    /// future, or the store may have more.
    pub(super) fn next_change(&self, now: Timestamp, ahead: TimeDelta) -> Option<Timestamp> {
        let due = self.permits.get(self.due(now + ahead)).map(|send_at| *send_at - ahead);
        let ask = self.ask_again_at.filter(|at| *at > now);
        match (due, ask) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// The store could not be asked.
    pub(super) fn ask_later(&mut self, at: Timestamp) {
        self.ask_again_at = Some(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_timestamp_millis(1_800_000_000_000 + millis).unwrap()
    }

    #[test]
    fn a_permit_is_used_from_its_moment_until_200_ms_after() {
        let mut stock = Stock::default();
        stock.add(Grant { send_at: vec![at(0), at(100)], ask_again_at: Some(at(150)) });
        assert_eq!(stock.due(at(50)), 1);
        assert_eq!(stock.next_change(at(50), TimeDelta::zero()), Some(at(100)));
        assert_eq!(stock.next_change(at(50), TimeDelta::milliseconds(30)), Some(at(70)));
        assert_eq!(stock.next_change(at(50), TimeDelta::milliseconds(60)), Some(at(150)));
        assert!(!stock.may_ask(at(50)));
        assert_eq!(stock.drop_stale(at(201)), 1);
        assert_eq!(stock.take(at(201)), Some(at(100)));
        assert_eq!(stock.take(at(201)), None);
        assert!(stock.may_ask(at(201)));
    }
}
