//! Commands in hand, earliest deadline first, with those whose time has not come kept aside.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::domain::{Command, CommandKind, Timestamp};
use crate::ports::Ack;

/// A command and the duty to say when the database owns it.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) command: Command,
    pub(super) ack: Ack,
    /// How often it was put back because its row had not caught up with it.
    pub(super) put_back: u8,
}

impl Queued {
    /// What comes first: the deadline; and after all that have one ahead, questions about orders
    /// whose deadline has passed, the longest due first.
    fn urgency(&self, now: Timestamp) -> Timestamp {
        let Command { kind, deadline_at, wake_at, .. } = self.command;
        match (kind, wake_at) {
            (CommandKind::Query, Some(wake_at)) if deadline_at <= now => {
                crate::domain::plus(wake_at, AFTER_EVERY_DEADLINE)
            }
            // No deadline hangs on it.
            (CommandKind::Confirm, _) => crate::domain::plus(wake_at.unwrap_or(deadline_at), AFTER_EVERY_DEADLINE),
            (CommandKind::Submit | CommandKind::Query, _) => deadline_at,
        }
    }
}

/// Farther than any deadline lies ahead.
const AFTER_EVERY_DEADLINE: Duration = Duration::from_hours(24 * 365 * 100);

#[derive(Debug)]
struct Entry {
    key: Timestamp,
    order: u64,
    queued: Queued,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.key, self.order) == (other.key, other.order)
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
        (self.key, self.order).cmp(&(other.key, other.order))
    }
}

/// A bounded heap. The bound is kept by its owner, which takes no more records while it is full;
/// commands that are put back always fit, since they were counted before.
#[derive(Debug)]
pub(super) struct DeadlineHeap {
    ready: BinaryHeap<Reverse<Entry>>,
    waiting: BinaryHeap<Reverse<Entry>>,
    capacity: usize,
    counter: u64,
}

impl DeadlineHeap {
    pub(super) fn new(capacity: usize) -> Self {
        Self { ready: BinaryHeap::new(), waiting: BinaryHeap::new(), capacity, counter: 0 }
    }

    /// How many more commands may be taken.
    pub(super) fn room(&self) -> usize {
        self.capacity.saturating_sub(self.ready.len() + self.waiting.len())
    }

    /// Commands that could be claimed now.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// All commands in hand.
    pub(super) fn len(&self) -> usize {
        self.ready.len() + self.waiting.len()
    }

    /// Takes a command; it waits until `until` where that lies ahead.
    pub(super) fn push(&mut self, queued: Queued, until: Option<Timestamp>, now: Timestamp) {
        self.counter += 1;
        let order = self.counter;
        if let Some(key) = until.filter(|until| *until > now) {
            self.waiting.push(Reverse(Entry { key, order, queued }));
        } else {
            let key = queued.urgency(now);
            self.ready.push(Reverse(Entry { key, order, queued }));
        }
    }

    /// Makes ready what has waited long enough; returns when the next will have.
    pub(super) fn mature(&mut self, now: Timestamp) -> Option<Timestamp> {
        while let Some(Reverse(head)) = self.waiting.peek() {
            if head.key > now {
                return Some(head.key);
            }
            if let Some(Reverse(entry)) = self.waiting.pop() {
                self.push(entry.queued, None, now);
            }
        }
        None
    }

    /// The command with the earliest deadline whose partition is still ours. Those of revoked
    /// partitions are dropped: another process has them by now.
    pub(super) fn pop(&mut self) -> Option<Queued> {
        while let Some(Reverse(entry)) = self.ready.pop() {
            if entry.queued.ack.is_live() {
                return Some(entry.queued);
            }
        }
        None
    }

    /// The earliest command, if its deadline lies before `bound`.
    pub(super) fn pop_before(&mut self, bound: Timestamp) -> Option<Queued> {
        let due = self.ready.peek().is_some_and(|Reverse(head)| head.key < bound);
        if due { self.pop() } else { None }
    }

    /// The earliest deadline of those that are ready.
    pub(super) fn earliest(&self) -> Option<Timestamp> {
        self.ready.peek().map(|Reverse(head)| head.key)
    }

    /// Drops the commands of revoked partitions, to make room.
    pub(super) fn purge(&mut self) {
        self.ready.retain(|Reverse(entry)| entry.queued.ack.is_live());
        self.waiting.retain(|Reverse(entry)| entry.queued.ack.is_live());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering as Atomic};

    use proptest::prelude::*;

    use super::*;
    use crate::domain::OrderId;
    use crate::ports::Assignment;

    #[derive(Debug)]
    struct Flag(AtomicBool);
    impl Assignment for Flag {
        fn is_live(&self) -> bool {
            self.0.load(Atomic::SeqCst)
        }
        fn done(&self, _offset: i64) {}
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    fn queued(deadline: i64, flag: &Arc<Flag>) -> Queued {
        let command = Command {
            kind: CommandKind::Submit,
            order_id: OrderId::parse("o").unwrap(),
            attempt: 0,
            version: 1,
            deadline_at: at(deadline),
            wake_at: None,
            hastened: false,
            provider_ref: None,
            tries: 0,
        };
        Queued { command, ack: Ack::new(Arc::<Flag>::clone(flag), 0), put_back: 0 }
    }

    #[test]
    fn commands_of_a_revoked_partition_are_dropped() {
        let (mine, theirs) = (Arc::new(Flag(true.into())), Arc::new(Flag(true.into())));
        let mut heap = DeadlineHeap::new(10);
        heap.push(queued(1, &theirs), None, at(0));
        heap.push(queued(2, &mine), None, at(0));
        theirs.0.store(false, Atomic::SeqCst);
        assert_eq!(heap.pop().map(|q| q.command.deadline_at), Some(at(2)));
        assert!(heap.pop().is_none());
    }

    #[test]
    fn what_waits_becomes_ready_at_its_time_and_not_before() {
        let flag = Arc::new(Flag(true.into()));
        let mut heap = DeadlineHeap::new(10);
        heap.push(queued(9, &flag), Some(at(5)), at(0));
        assert_eq!(heap.mature(at(4)), Some(at(5)));
        assert!(heap.pop().is_none());
        assert_eq!(heap.mature(at(5)), None);
        assert!(heap.pop().is_some());
    }

    proptest! {
        #[test]
        fn the_earliest_deadline_leaves_first(deadlines in proptest::collection::vec(0_i64..1000, 0..200)) {
            let flag = Arc::new(Flag(true.into()));
            let mut heap = DeadlineHeap::new(1000);
            for deadline in &deadlines {
                heap.push(queued(*deadline, &flag), None, at(0));
            }
            let mut sorted = deadlines.clone();
            sorted.sort_unstable();
            let left: Vec<Timestamp> = std::iter::from_fn(|| heap.pop()).map(|q| q.command.deadline_at).collect();
            prop_assert_eq!(left, sorted.into_iter().map(at).collect::<Vec<_>>());
        }
    }
}
