//! Which records of one partition are durable, and how far its offset may therefore be committed.
//!
//! Records complete in any order. The ledger keeps those delivered from the first that is not
//! durable on, so `commit_position` never passes an unfinished record (invariant I8). An offset
//! that was never delivered (compaction, transaction markers) does not stand in the way.

use std::collections::VecDeque;

use crate::faults::{Bug, is_planted};

#[derive(Debug, Clone, Copy)]
struct Entry {
    offset: i64,
    done: bool,
}

/// How a delivered offset relates to those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The next one, or the first.
    InOrder,
    /// This many offsets were skipped before it.
    AfterGap(i64),
    /// Delivered before, not yet committable: the client replays. It is open again.
    Again,
    /// Below everything that is still open: the log was reset, or the client replays from far
    /// back. This ledger cannot follow; a new one must begin here.
    Rewound,
}

/// A ledger that contradicts itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{open} records are open by count and {found} by the list, position {position}")]
pub struct Contradiction {
    open: usize,
    found: usize,
    position: i64,
}

/// The ledger of one partition during one assignment.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Rising offsets; the first is never done.
    entries: VecDeque<Entry>,
    /// One past the last delivered offset.
    next: Option<i64>,
    /// Where delivery is expected to begin, where that is known.
    expected: Option<i64>,
    /// Counted apart from the list, so that each can convict the other.
    open: usize,
}

impl Ledger {
    /// Begins at an offset, where that is known.
    pub fn new(expected: Option<i64>) -> Self {
        Self { expected, ..Self::default() }
    }

    /// Notes that the record at `offset` was handed on.
    pub fn deliver(&mut self, offset: i64) -> Delivery {
        let Some(expected) = self.next.or(self.expected) else {
            self.append(offset);
            return Delivery::InOrder;
        };
        if offset >= expected {
            self.append(offset);
            return if offset == expected { Delivery::InOrder } else { Delivery::AfterGap(offset - expected) };
        }
        match self.commit_position() {
            Some(position) if offset >= position => {
                self.reopen(offset);
                Delivery::Again
            }
            Some(_) => Delivery::Rewound,
            // Nothing was delivered yet: below a committed offset the log can only have been reset.
            None => {
                self.append(offset);
                Delivery::InOrder
            }
        }
    }

    /// Notes that the record at `offset` is durable; an offset that is not open is ignored.
    pub fn done(&mut self, offset: i64) {
        let Some(entry) = self.find(offset).and_then(|index| self.entries.get_mut(index)) else { return };
        if entry.done {
            return;
        }
        entry.done = true;
        self.open -= 1;
        while self.entries.front().is_some_and(|entry| entry.done) {
            self.entries.pop_front();
        }
    }

    /// The offset to commit: the first record that is not durable. `None` before any delivery.
    pub fn commit_position(&self) -> Option<i64> {
        if is_planted(Bug::CommitTheHighest) {
            return self.next;
        }
        self.entries.front().map(|entry| entry.offset).or(self.next)
    }

    /// One past the last delivered offset.
    pub fn next(&self) -> Option<i64> {
        self.next
    }

    /// How many delivered records are not durable.
    pub fn open(&self) -> usize {
        self.open
    }

    /// How many records the list holds, done ones behind an open one included.
    pub fn span(&self) -> usize {
        self.entries.len()
    }

    /// The commit position, after the count and the list were held against each other.
    pub fn checked_position(&self) -> Result<Option<i64>, Contradiction> {
        let Some(position) = self.commit_position() else { return Ok(None) };
        let found = self.entries.iter().filter(|entry| !entry.done && entry.offset >= position).count();
        if found == self.open { Ok(Some(position)) } else { Err(Contradiction { open: self.open, found, position }) }
    }

    fn append(&mut self, offset: i64) {
        self.entries.push_back(Entry { offset, done: false });
        self.open += 1;
        self.next = Some(offset + 1);
    }

    /// A record that came again counts as open until this coming of it is durable too: after a
    /// reset of the log it may be another record.
    fn reopen(&mut self, offset: i64) {
        if let Some(index) = self.find(offset) {
            if let Some(entry) = self.entries.get_mut(index).filter(|entry| entry.done) {
                entry.done = false;
                self.open += 1;
            }
            return;
        }
        let index = self.entries.partition_point(|entry| entry.offset < offset);
        self.entries.insert(index, Entry { offset, done: false });
        self.open += 1;
    }

    /// Without gaps the place follows from the offset; with gaps it lies before that.
    fn find(&self, offset: i64) -> Option<usize> {
        let first = self.entries.front()?.offset;
        let guess = usize::try_from(offset.checked_sub(first)?).ok()?;
        if self.entries.get(guess).is_some_and(|entry| entry.offset == offset) {
            return Some(guess);
        }
        self.entries.binary_search_by_key(&offset, |entry| entry.offset).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn delivered(offsets: &[i64]) -> Ledger {
        let mut ledger = Ledger::default();
        for offset in offsets {
            ledger.deliver(*offset);
        }
        ledger
    }

    #[test]
    fn nothing_is_committed_before_anything_was_delivered() {
        assert_eq!(Ledger::new(Some(5)).checked_position(), Ok(None));
    }

    #[test]
    fn the_position_is_the_first_record_that_is_not_done() {
        let mut ledger = delivered(&[10, 11, 12, 13]);
        ledger.done(11);
        ledger.done(13);
        assert_eq!(ledger.commit_position(), Some(10));
        ledger.done(10);
        assert_eq!(ledger.commit_position(), Some(12));
        ledger.done(12);
        assert_eq!(ledger.commit_position(), Some(14));
        assert_eq!(ledger.open(), 0);
        assert_eq!(ledger.span(), 0);
    }

    #[test]
    fn a_gap_counts_as_done_and_is_told() {
        let mut ledger = delivered(&[5]);
        assert_eq!(ledger.deliver(1_000_000_000_000), Delivery::AfterGap(999_999_999_994));
        ledger.done(5);
        assert_eq!(ledger.commit_position(), Some(1_000_000_000_000));
        assert_eq!(ledger.span(), 1);
    }

    #[test]
    fn a_first_record_beyond_the_committed_offset_is_a_gap() {
        assert_eq!(Ledger::new(Some(7)).deliver(9), Delivery::AfterGap(2));
        assert_eq!(Ledger::new(Some(7)).deliver(7), Delivery::InOrder);
        assert_eq!(Ledger::new(None).deliver(9), Delivery::InOrder);
        assert_eq!(Ledger::new(Some(7)).deliver(3), Delivery::InOrder);
    }

    #[test]
    fn done_twice_or_for_an_unknown_offset_changes_nothing() {
        let mut ledger = delivered(&[1, 2]);
        ledger.done(2);
        ledger.done(2);
        ledger.done(99);
        ledger.done(-1);
        ledger.done(i64::MIN);
        assert_eq!((ledger.commit_position(), ledger.open()), (Some(1), 1));
    }

    #[test]
    fn a_record_that_comes_again_is_open_again() {
        let mut ledger = delivered(&[1, 2, 3]);
        ledger.done(2);
        assert_eq!(ledger.deliver(2), Delivery::Again);
        ledger.done(1);
        assert_eq!(ledger.commit_position(), Some(2));
        assert_eq!(ledger.deliver(1), Delivery::Rewound);
    }

    #[test]
    fn a_ledger_that_contradicts_itself_gives_no_position() {
        let mut ledger = delivered(&[1, 2]);
        ledger.open = 1;
        assert!(ledger.checked_position().is_err());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Deliver(i64),
        Done(usize),
        Again(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => prop_oneof![9 => Just(1_i64), 1 => 2_i64..50].prop_map(Step::Deliver),
            5 => any::<usize>().prop_map(Step::Done),
            1 => any::<usize>().prop_map(Step::Again),
        ]
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_map_of_every_record(start in 0_i64..1000, steps in prop::collection::vec(step(), 1..400)) {
            let mut ledger = Ledger::default();
            let mut model: BTreeMap<i64, bool> = BTreeMap::new();
            let mut next = start;
            for step in steps {
                let position = model.iter().find(|(_, done)| !**done).map(|(offset, _)| *offset);
                match step {
                    Step::Deliver(distance) => {
                        let offset = if model.is_empty() { next } else { next + distance - 1 };
                        ledger.deliver(offset);
                        model.insert(offset, false);
                        next = offset + 1;
                    }
                    Step::Done(pick) if !model.is_empty() => {
                        let offset = *model.keys().nth(pick % model.len()).unwrap();
                        ledger.done(offset);
                        model.insert(offset, true);
                    }
                    Step::Again(pick) if !model.is_empty() => {
                        let offset = *model.keys().nth(pick % model.len()).unwrap();
                        let told = ledger.deliver(offset);
                        if offset >= position.unwrap_or(next) {
                            prop_assert_eq!(told, Delivery::Again);
                            model.insert(offset, false);
                        } else {
                            prop_assert_eq!(told, Delivery::Rewound);
                        }
                    }
                    Step::Done(_) | Step::Again(_) => {}
                }
                let open = model.values().filter(|done| !**done).count();
                let position = model.iter().find(|(_, done)| !**done).map(|(offset, _)| *offset);
                prop_assert_eq!(ledger.open(), open);
                if !model.is_empty() {
                    prop_assert_eq!(ledger.checked_position(), Ok(Some(position.unwrap_or(next))));
                    prop_assert_eq!(ledger.next(), Some(next));
                }
            }
        }
    }
}
