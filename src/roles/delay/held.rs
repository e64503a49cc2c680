//! What a forwarder has in hand of its tier: records by the moment at which they leave it.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};

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

/// How far a partition was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach {
    /// Records of it in hand, at least one.
    pub(super) count: usize,
    /// When the last that was read leaves.
    pub(super) leaves_at: Timestamp,
}

/// Records in hand, the earliest to leave first. The bound is its owner's, who reads no more.
#[derive(Debug, Default)]
pub(super) struct InHand {
    entries: BinaryHeap<Reverse<Entry>>,
    counter: u64,
    farthest: Option<Timestamp>,
    reaches: BTreeMap<i32, Reach>,
}

impl InHand {
    /// Takes what was just read.
    pub(super) fn push(&mut self, held: Held, leaves_at: Timestamp) {
        self.farthest = self.farthest.max(Some(held.waiting.due_at));
        let partition = held.record.partition;
        self.put(held, leaves_at);
        self.count(partition, leaves_at).leaves_at = leaves_at;
    }

    /// Takes back what was read before, for the rest of its time.
    pub(super) fn put_back(&mut self, held: Held, leaves_at: Timestamp) {
        let partition = held.record.partition;
        self.put(held, leaves_at);
        self.count(partition, leaves_at);
    }

    fn put(&mut self, held: Held, leaves_at: Timestamp) {
        self.counter += 1;
        self.entries.push(Reverse(Entry { leaves_at, order: self.counter, held }));
    }

    fn count(&mut self, partition: i32, leaves_at: Timestamp) -> &mut Reach {
        let reach = self.reaches.entry(partition).or_insert(Reach { count: 0, leaves_at });
        reach.count += 1;
        reach
    }

    /// The next that leaves by `now`.
    pub(super) fn pop_by(&mut self, now: Timestamp) -> Option<Held> {
        if self.next_at()? > now {
            return None;
        }
        let Reverse(Entry { held, .. }) = self.entries.pop()?;
        if self.entries.is_empty() {
            self.farthest = None;
        }
        self.uncount(held.record.partition);
        Some(held)
    }

    fn uncount(&mut self, partition: i32) {
        if let Some(reach) = self.reaches.get_mut(&partition) {
            reach.count -= 1;
            if reach.count == 0 {
                self.reaches.remove(&partition);
            }
        }
    }

    /// When the next one leaves.
    pub(super) fn next_at(&self) -> Option<Timestamp> {
        self.entries.peek().map(|Reverse(entry)| entry.leaves_at)
    }

    /// The latest due time seen since nothing was in hand.
    pub(super) fn farthest(&self) -> Option<Timestamp> {
        self.farthest
    }

    /// How far each partition was read of which something is in hand.
    pub(super) fn reaches(&self) -> &BTreeMap<i32, Reach> {
        &self.reaches
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Lets go of what belongs to partitions that were given back.
    pub(super) fn drop_revoked(&mut self) {
        let mut gone = Vec::new();
        self.entries.retain(|Reverse(entry)| {
            let is_live = entry.held.record.ack.is_live();
            if !is_live {
                gone.push(entry.held.record.partition);
            }
            is_live
        });
        for partition in gone {
            self.uncount(partition);
        }
    }
}

#[cfg(test)]
pub(super) mod fixture {
    use std::sync::Arc;

    use super::*;
    use crate::ports::{Ack, Assignment};

    /// An assignment that lasts.
    #[derive(Debug)]
    struct Lasting;

    impl Assignment for Lasting {
        fn is_live(&self) -> bool {
            true
        }

        fn done(&self, _offset: i64) {}
    }

    /// A record of a partition that waits until then.
    pub(in crate::roles::delay) fn held(partition: i32, due_at: Timestamp) -> Held {
        let (topic, ack) = (Arc::from("recharge.delay.30m"), Ack::new(Arc::new(Lasting), 0));
        let (key, value, headers) = (None, None, Vec::new());
        let record = InRecord { topic, partition, offset: 0, timestamp: None, key, value, headers, ack };
        let target = Arc::from("recharge.due.main");
        Held { record, waiting: Waiting { due_at, target, hops: 0 } }
    }
}
