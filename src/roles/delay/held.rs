//! What a forwarder has in hand of its tier: records by the moment at which they leave it.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};

use bytes::Bytes;

use crate::domain::Timestamp;
use crate::ports::InRecord;
use crate::roles::delayed::Waiting;

/// A record that waits.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) record: InRecord,
    pub(super) waiting: Waiting,
    /// What it takes in memory.
    pub(super) size: usize,
}

impl Held {
    pub(super) fn new(record: InRecord, waiting: Waiting) -> Box<Self> {
        Box::new(Self { size: size(&record), record, waiting })
    }
}

/// What a record takes in memory, about.
pub(super) fn size(record: &InRecord) -> usize {
    /// What stands around the bytes of a record, and around those of a header.
    const AROUND: (usize, usize) = (256, 64);
    let len = |bytes: Option<&Bytes>| bytes.map_or(0, Bytes::len);
    let headers = record.headers.iter().map(|(name, value)| AROUND.1 + name.len() + len(value.as_ref()));
    AROUND.0 + len(record.key.as_ref()) + len(record.value.as_ref()) + headers.sum::<usize>()
}

#[derive(Debug)]
struct Entry {
    leaves_at: Timestamp,
    /// Of two that leave together the one that came first does so first.
    order: u64,
    /// Far from here, so that what is sorted is small.
    held: Box<Held>,
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
    bytes: usize,
    reaches: BTreeMap<i32, Reach>,
}

impl InHand {
    /// Takes what was just read.
    pub(super) fn push(&mut self, held: Box<Held>, leaves_at: Timestamp) {
        let partition = held.record.partition;
        self.put(held, leaves_at);
        self.count(partition, leaves_at).leaves_at = leaves_at;
    }

    /// Takes back what was read before, for the rest of its time.
    pub(super) fn put_back(&mut self, held: Box<Held>, leaves_at: Timestamp) {
        let partition = held.record.partition;
        self.put(held, leaves_at);
        self.count(partition, leaves_at);
    }

    fn put(&mut self, held: Box<Held>, leaves_at: Timestamp) {
        self.counter += 1;
        self.bytes += held.size;
        self.entries.push(Reverse(Entry { leaves_at, order: self.counter, held }));
    }

    fn count(&mut self, partition: i32, leaves_at: Timestamp) -> &mut Reach {
        let reach = self.reaches.entry(partition).or_insert(Reach { count: 0, leaves_at });
        reach.count += 1;
        reach
    }

    /// The next that leaves by `now`.
    pub(super) fn pop_by(&mut self, now: Timestamp) -> Option<Box<Held>> {
        if self.next_at()? > now {
            return None;
        }
        let Reverse(Entry { held, .. }) = self.entries.pop()?;
        self.bytes -= held.size;
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

    /// The latest due time of what is in hand; it takes a look at everything.
    pub(super) fn farthest(&self) -> Option<Timestamp> {
        self.entries.iter().map(|Reverse(entry)| entry.held.waiting.due_at).max()
    }

    /// How far each partition was read of which something is in hand.
    pub(super) fn reaches(&self) -> &BTreeMap<i32, Reach> {
        &self.reaches
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Lets go of what belongs to partitions that were given back.
    pub(super) fn drop_revoked(&mut self) {
        let mut gone = Vec::new();
        let bytes = &mut self.bytes;
        self.entries.retain(|Reverse(entry)| {
            let is_live = entry.held.record.ack.is_live();
            if !is_live {
                gone.push(entry.held.record.partition);
                *bytes -= entry.held.size;
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
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;
    use crate::ports::{Ack, Assignment};

    /// An assignment that lasts until it is ended.
    #[derive(Debug, Default)]
    pub(in crate::roles::delay) struct Lasting {
        pub(in crate::roles::delay) is_over: AtomicBool,
        pub(in crate::roles::delay) done: AtomicUsize,
    }

    impl Assignment for Lasting {
        fn is_live(&self) -> bool {
            !self.is_over.load(Ordering::Relaxed)
        }

        fn done(&self, _offset: i64) {
            self.done.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A record of a partition that waits until then.
    pub(in crate::roles::delay) fn held(partition: i32, due_at: Timestamp) -> Box<Held> {
        held_of(&Arc::new(Lasting::default()), partition, due_at)
    }

    /// The same, of an assignment.
    pub(in crate::roles::delay) fn held_of(assignment: &Arc<Lasting>, partition: i32, due_at: Timestamp) -> Box<Held> {
        let (topic, ack) = (Arc::from("recharge.delay.30m"), Ack::new(Arc::<Lasting>::clone(assignment), 0));
        let (key, value, headers) = (None, None, Vec::new());
        let record = InRecord { topic, partition, offset: 0, timestamp: None, key, value, headers, ack };
        let target = Arc::from("recharge.due.main");
        Held::new(record, Waiting { due_at, target, hops: 0, entered_at: due_at })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use super::fixture::{Lasting, held, held_of};
    use super::*;

    #[test]
    fn what_was_revoked_is_counted_nowhere_any_more() {
        let at = |second: i64| Timestamp::from_timestamp(1_790_000_000 + second, 0).unwrap();
        let (mut in_hand, gone) = (InHand::default(), Arc::new(Lasting::default()));
        in_hand.push(held(0, at(5)), at(5));
        let one = in_hand.bytes();
        in_hand.push(held_of(&gone, 1, at(9)), at(9));
        in_hand.push(held_of(&gone, 1, at(8)), at(1));
        assert_eq!((in_hand.len(), in_hand.bytes(), in_hand.farthest()), (3, 3 * one, Some(at(9))));
        gone.is_over.store(true, Ordering::Relaxed);
        in_hand.drop_revoked();
        assert_eq!((in_hand.len(), in_hand.bytes(), in_hand.farthest()), (1, one, Some(at(5))));
        assert_eq!(in_hand.reaches().keys().collect::<Vec<_>>(), [&0]);
        assert!(in_hand.pop_by(at(5)).is_some());
        assert_eq!((in_hand.len(), in_hand.bytes(), in_hand.farthest()), (0, 0, None));
    }
}
