//! The low-water mark: when it may rise, and how far.
//!
//! At a moment T it is noted which transactions run. Once they have all ended, what is not visible
//! with a deadline before T − 5 s does not exist: a later transaction takes less than 5 s (the
//! statement time-out is shorter), and whoever sets a deadline that has passed already decides it
//! in the same breath.

use std::time::Duration;

use crate::domain::{Timestamp, minus};
use crate::faults::{Bug, is_planted};
use crate::ports::Horizon;

/// Longer than any statement.
const MARGIN: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Mark {
    low: Timestamp,
    /// A moment, and the first transaction that began after it.
    noted: Option<(Timestamp, i64)>,
}

impl Mark {
    pub(super) fn new(low: Timestamp) -> Self {
        Self { low, noted: None }
    }

    pub(super) fn low(&self) -> Timestamp {
        self.low
    }

    /// Notes the moment, or says how far the mark may rise since the one that was noted.
    pub(super) fn look(&mut self, now: Timestamp, horizon: Horizon) -> Option<Timestamp> {
        if is_planted(Bug::MarkTooEarly) {
            return Some(now);
        }
        match self.noted.filter(|(at, _)| *at <= now) {
            Some((at, next)) if horizon.oldest >= next => {
                self.noted = Some((now, horizon.next));
                let to = minus(at, MARGIN);
                (to > self.low).then_some(to)
            }
            Some(_) => None,
            None => {
                self.noted = Some((now, horizon.next));
                None
            }
        }
    }

    /// It stands there, whoever moved it: another watchdog, or a database that went back.
    pub(super) fn stands_at(&mut self, low: Timestamp) {
        self.low = low;
    }

    /// Where it must stand when it is `now`, if that is further back: the database's time went back, and
    /// what comes due from now on lies below the mark.
    pub(super) fn too_high(&self, now: Timestamp) -> Option<Timestamp> {
        (now < self.low).then(|| minus(now, MARGIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    #[test]
    fn the_mark_rises_when_all_that_ran_at_the_noted_moment_has_ended() {
        let mut mark = Mark::new(at(0));
        assert_eq!(mark.look(at(100), Horizon { oldest: 7, next: 10 }), None);
        // One of those that ran is still running.
        assert_eq!(mark.look(at(101), Horizon { oldest: 9, next: 20 }), None);
        assert_eq!(mark.look(at(102), Horizon { oldest: 10, next: 30 }), Some(at(95)));
        mark.stands_at(at(95));
        assert_eq!(mark.low(), at(95));
        // The next step counts from the moment of the last.
        assert_eq!(mark.look(at(103), Horizon { oldest: 29, next: 31 }), None);
        assert_eq!(mark.look(at(104), Horizon { oldest: 31, next: 31 }), Some(at(97)));
    }

    #[test]
    fn the_mark_falls_only_where_the_time_went_back() {
        let mut mark = Mark::new(at(1_000));
        assert_eq!(mark.too_high(at(1_001)), None);
        mark.look(at(1_001), Horizon { oldest: 1, next: 1 });
        assert_eq!(mark.too_high(at(400)), Some(at(395)));
        mark.stands_at(at(395));
        // What was noted in a time that has not come yet says nothing.
        assert_eq!(mark.look(at(401), Horizon { oldest: 1, next: 1 }), None);
        assert_eq!(mark.look(at(402), Horizon { oldest: 1, next: 1 }), Some(at(396)));
    }
}
