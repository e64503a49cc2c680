//! How old the records are that a partition's reader has not acted on yet, at most.
//!
//! Whenever the client has fetched all there is, the end of the log at that moment is noted. Once the
//! position has come so far, everything that was written before that moment was acted on. It needs no
//! clock but this process's own, and stays on the safe side behind a backlog: nothing is noted then.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::kafka::statistics::PartitionFacts;

/// What the client says of the end of the log is as old as its last fetch at most.
const AS_OLD_AS: Duration = Duration::from_secs(3);
/// More notes are thinned out.
const NOTES_MAX: usize = 64;

/// Of one partition, during one assignment.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The end of the log, and when it was there, at the least.
    notes: VecDeque<(i64, Instant)>,
    acted_on_before: Option<Instant>,
}

impl Progress {
    /// Notes what is known at `now`; `position` is the first record that was not acted on, where
    /// one was delivered.
    pub(super) fn note(&mut self, facts: PartitionFacts, position: Option<i64>, now: Instant) {
        if let (Some(high), Some(fetched)) = (facts.high, facts.fetched)
            && fetched >= high
            && let Some(then) = now.checked_sub(AS_OLD_AS)
        {
            if self.notes.len() >= NOTES_MAX {
                let mut keep = false;
                self.notes.retain(|_| {
                    keep = !keep;
                    keep
                });
            }
            self.notes.push_back((high, then));
        }
        // Before the first delivery, what is committed is behind us, and an empty log is no work.
        let is_empty = facts.high.is_some() && facts.high == facts.low;
        let position = position.or(facts.committed).or(facts.high.filter(|_| is_empty));
        let Some(position) = position else { return };
        while let Some((_, then)) = self.notes.front().filter(|(high, _)| *high <= position) {
            self.acted_on_before = Some(*then);
            self.notes.pop_front();
        }
    }

    /// Records that are older were acted on; unknown before the first proof.
    pub(super) fn age(&self, now: Instant) -> Option<Duration> {
        self.acted_on_before.map(|then| now.saturating_duration_since(then))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(committed: Option<i64>, fetched: i64, high: i64) -> PartitionFacts {
        PartitionFacts { high: Some(high), low: Some(0), committed, fetched: Some(fetched) }
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn what_was_fetched_counts_once_it_was_acted_on() {
        let (start, mut progress) = (Instant::now() + seconds(100), Progress::default());
        progress.note(facts(Some(5), 20, 20), Some(10), start);
        assert_eq!(progress.age(start), None, "records 10 to 19 are in hand");
        progress.note(facts(Some(5), 30, 30), Some(20), start + seconds(1));
        assert_eq!(progress.age(start + seconds(1)), Some(seconds(4)), "as it was at the first note");
        progress.note(facts(Some(5), 30, 30), Some(30), start + seconds(2));
        assert_eq!(progress.age(start + seconds(2)), Some(AS_OLD_AS));
    }

    #[test]
    fn behind_a_backlog_the_age_grows() {
        let (start, mut progress) = (Instant::now() + seconds(100), Progress::default());
        progress.note(facts(None, 10, 10), Some(10), start);
        for second in 1..60 {
            progress.note(facts(None, 20, 1_000), Some(12), start + seconds(second));
        }
        assert_eq!(progress.age(start + seconds(60)), Some(seconds(60) + AS_OLD_AS));
    }

    #[test]
    fn a_partition_that_brings_nothing_has_nothing_old() {
        let start = Instant::now() + seconds(100);
        for empty in [facts(None, 0, 0), facts(Some(7), 7, 7)] {
            let mut progress = Progress::default();
            progress.note(empty, None, start);
            assert_eq!(progress.age(start), Some(AS_OLD_AS));
        }
        // Fetched and not delivered yet.
        let mut progress = Progress::default();
        progress.note(facts(Some(3), 9, 9), None, start);
        assert_eq!(progress.age(start), None);
    }

    #[test]
    fn the_notes_of_a_long_wait_stay_few_and_true() {
        let (start, mut progress) = (Instant::now() + seconds(100), Progress::default());
        for second in 0..1_000_u64 {
            let high = i64::try_from(second).unwrap() + 1;
            progress.note(facts(None, high, high), Some(0), start + seconds(second));
        }
        assert!(progress.notes.len() <= NOTES_MAX);
        progress.note(facts(None, 1_000, 1_000), Some(500), start + seconds(1_000));
        let age = progress.age(start + seconds(1_000)).unwrap();
        assert!(age >= seconds(500), "{age:?}");
    }
}
