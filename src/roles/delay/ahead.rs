//! How far ahead each partition of a tier is read.
//!
//! In a tier the order of arrival is that of leaving. So where the last record that was read of a
//! partition leaves only later, all that follow do so too: a few in hand are enough then, and the
//! rest lies better at the broker than in memory, where it would cost its room and be in the way
//! of what another partition has overdue.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::domain::{Timestamp, plus};

use super::held::InHand;

/// What leaves within this time is always read.
const NEAR: Duration = Duration::from_secs(10);
/// What leaves later is enough in hand, over all partitions, from this part of the hands on.
const FAR_PART: usize = 8;
/// A partition that is not read is read again when the last in hand leaves within this time: a
/// fetch takes half of it at most, to a quiet consumer's client that has just paused;
const NEAR_AGAIN: Duration = Duration::from_secs(5);
/// or when fewer than this part of enough are left in hand.
const FEW_PART: usize = 4;

/// Which partitions are not read for now.
#[derive(Debug)]
pub(super) struct ReadAhead {
    enough: usize,
    held_back: BTreeSet<i32>,
    assignments: u64,
}

impl ReadAhead {
    /// For hands that hold `most` records.
    pub(super) fn new(most: usize) -> Self {
        Self { enough: most / FAR_PART, held_back: BTreeSet::new(), assignments: 0 }
    }

    /// Whether partitions have come since the last time. What was told of one before it came is
    /// forgotten.
    pub(super) fn has_news(&self, assignments: u64) -> bool {
        self.assignments != assignments
    }

    /// Of which partitions more is wanted, or no longer: those of which it is to be told now.
    pub(super) fn review(&mut self, in_hand: &InHand, assignments: u64, now: Timestamp) -> Vec<(i32, bool)> {
        let has_news = self.has_news(assignments);
        self.assignments = assignments;
        let before = std::mem::take(&mut self.held_back);
        let mut told: Vec<(i32, bool)> = before
            .iter()
            .filter(|partition| !in_hand.reaches().contains_key(partition))
            .map(|gone| (*gone, true))
            .collect();
        let enough = (self.enough / in_hand.reaches().len().max(1)).max(1);
        for (partition, reach) in in_hand.reaches() {
            let was_held_back = before.contains(partition);
            let (near, count) = if was_held_back { (NEAR_AGAIN, enough.div_ceil(FEW_PART)) } else { (NEAR, enough) };
            let is_held_back = reach.leaves_at > plus(now, near) && reach.count >= count;
            if is_held_back {
                self.held_back.insert(*partition);
            }
            if is_held_back != was_held_back || has_news {
                told.push((*partition, !is_held_back));
            }
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roles::delay::held::fixture::held;

    const MOST: usize = 160;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(1_790_000_000 + seconds, 0).unwrap()
    }

    /// Reads `count` records of a partition, each of which leaves at that second.
    fn read(in_hand: &mut InHand, partition: i32, count: usize, second: i64) {
        for _ in 0..count {
            in_hand.push(held(partition, at(second)), at(second));
        }
    }

    #[test]
    fn of_what_leaves_later_a_few_are_enough_and_of_what_is_near_nothing_is() {
        let (mut ahead, mut in_hand) = (ReadAhead::new(MOST), InHand::default());
        read(&mut in_hand, 0, 10, 10);
        read(&mut in_hand, 1, 9, 60);
        assert_eq!(ahead.review(&in_hand, 0, at(0)), [], "near, or too few: there are two, of ten each");
        read(&mut in_hand, 0, 100, 10);
        read(&mut in_hand, 1, 1, 60);
        assert_eq!(ahead.review(&in_hand, 0, at(0)), [(1, false)]);
        assert_eq!(ahead.review(&in_hand, 0, at(0)), [], "it was told");
    }

    #[test]
    fn reading_goes_on_before_the_last_in_hand_leaves() {
        let (mut ahead, mut in_hand) = (ReadAhead::new(MOST), InHand::default());
        read(&mut in_hand, 0, 20, 60);
        assert_eq!(ahead.review(&in_hand, 0, at(0)), [(0, false)]);
        assert_eq!(ahead.review(&in_hand, 0, at(54)), []);
        assert_eq!(ahead.review(&in_hand, 0, at(55)), [(0, true)]);
        assert_eq!(ahead.review(&in_hand, 0, at(55)), [], "near now: it is read until what comes is far");
        read(&mut in_hand, 0, 20, 115);
        assert_eq!(ahead.review(&in_hand, 0, at(55)), [(0, false)]);
    }

    #[test]
    fn reading_goes_on_when_few_are_left_or_none() {
        let (mut ahead, mut in_hand) = (ReadAhead::new(MOST), InHand::default());
        read(&mut in_hand, 0, 36, 5);
        read(&mut in_hand, 0, 4, 60);
        assert_eq!(ahead.review(&in_hand, 0, at(0)), [(0, false)]);
        while in_hand.pop_by(at(5)).is_some() {}
        assert_eq!(ahead.review(&in_hand, 0, at(5)), [(0, true)], "fewer than a quarter");
        read(&mut in_hand, 0, 20, 60);
        assert_eq!(ahead.review(&in_hand, 0, at(5)), [(0, false)]);
        while in_hand.pop_by(at(60)).is_some() {}
        assert_eq!(ahead.review(&in_hand, 0, at(60)), [(0, true)]);
        assert_eq!(ahead.review(&in_hand, 0, at(60)), []);
    }

    #[test]
    fn when_partitions_come_each_is_told_of_anew() {
        let (mut ahead, mut in_hand) = (ReadAhead::new(MOST), InHand::default());
        read(&mut in_hand, 0, 20, 60);
        read(&mut in_hand, 1, 1, 60);
        assert_eq!(ahead.review(&in_hand, 0, at(0)), [(0, false)]);
        assert!(ahead.has_news(1));
        assert_eq!(ahead.review(&in_hand, 1, at(0)), [(0, false), (1, true)]);
        assert!(!ahead.has_news(1));
    }
}
