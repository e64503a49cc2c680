//! What a forwarder has in hand of its tier: records by the moment at which they leave it.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use crate::domain::Timestamp;
use crate::ports::InRecord;
use crate::roles::delayed::Waiting;

/// A record that waits.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) record: InRecord,
    pub(super) waiting: Waiting,
}

#[derive(Debug)]
struct Entry {
    leaves_at: Timestamp,
    /// Of two that leave together the one that came first does so first.
    order: u64,
    held: Held,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.leaves_at, self.order).cmp(&(other.leaves_at, other.order))
    }
}

/// Records in hand, the earliest to leave first. The bound is its owner's, who reads no more.
#[derive(Debug, Default)]
pub(super) struct InHand {
    entries: BinaryHeap<Reverse<Entry>>,
    counter: u64,
    farthest: Option<Timestamp>,
}

impl InHand {
    pub(super) fn push(&mut self, held: Held, leaves_at: Timestamp) {
        self.counter += 1;
        self.farthest = self.farthest.max(Some(held.waiting.due_at));
        self.entries.push(Reverse(Entry { leaves_at, order: self.counter, held }));
    }

    /// The next that leaves by `now`.
    pub(super) fn pop_by(&mut self, now: Timestamp) -> Option<Held> {
        if self.next_at()? > now {
            return None;
        }
        let popped = self.entries.pop().map(|Reverse(entry)| entry.held);
        if self.entries.is_empty() {
            self.farthest = None;
        }
        popped
    }

    /// When the next one leaves.
    pub(super) fn next_at(&self) -> Option<Timestamp> {
        self.entries.peek().map(|Reverse(entry)| entry.leaves_at)
    }

    /// The latest due time seen since nothing was in hand.
    pub(super) fn farthest(&self) -> Option<Timestamp> {
        self.farthest
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Lets go of what belongs to partitions that were given back.
    pub(super) fn drop_revoked(&mut self) {
        self.entries.retain(|Reverse(entry)| entry.held.record.ack.is_live());
    }
}
