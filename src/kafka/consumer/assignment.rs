//! One partition while this process holds it.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

use crate::kafka::sync::lock;
use crate::ports::Assignment;

use super::ledger::{Contradiction, Delivery, Ledger};

const LIVE: u8 = 0;
/// Being given back: nothing new may begin, what is finished in time still counts.
const DRAINING: u8 = 1;
/// Given back: what is finished now comes again elsewhere, and its `done` says nothing.
const ENDED: u8 = 2;

/// One partition from its assignment to its revocation: a generation. A partition that comes
/// back is another `Held`, so a late `done` cannot reach it.
pub(super) struct Held {
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    phase: AtomicU8,
    ledger: Mutex<Ledger>,
}

impl Held {
    pub(super) fn new(topic: Arc<str>, partition: i32, expected: Option<i64>) -> Self {
        Self { topic, partition, phase: AtomicU8::new(LIVE), ledger: Mutex::new(Ledger::new(expected)) }
    }

    pub(super) fn deliver(&self, offset: i64) -> Delivery {
        lock(&self.ledger).deliver(offset)
    }

    pub(super) fn begin_draining(&self) {
        self.phase.fetch_max(DRAINING, Ordering::AcqRel);
    }

    pub(super) fn end(&self) {
        self.phase.store(ENDED, Ordering::Release);
    }

    pub(super) fn open(&self) -> usize {
        lock(&self.ledger).open()
    }

    pub(super) fn span(&self) -> usize {
        lock(&self.ledger).span()
    }

    pub(super) fn next(&self) -> Option<i64> {
        lock(&self.ledger).next()
    }

    /// Where a commit would stand, unchecked: to see whether anything moved.
    pub(super) fn position(&self) -> Option<i64> {
        lock(&self.ledger).commit_position()
    }

    /// What may be committed.
    pub(super) fn commit_position(&self) -> Result<Option<i64>, Contradiction> {
        lock(&self.ledger).checked_position()
    }
}

impl Assignment for Held {
    fn is_live(&self) -> bool {
        self.phase.load(Ordering::Acquire) == LIVE
    }

    fn done(&self, offset: i64) {
        if self.phase.load(Ordering::Acquire) != ENDED {
            lock(&self.ledger).done(offset);
        }
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ledger = lock(&self.ledger);
        f.debug_struct("Held")
            .field("topic", &self.topic)
            .field("partition", &self.partition)
            .field("live", &self.is_live())
            .field("open", &ledger.open())
            .field("position", &ledger.commit_position())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn done_counts_while_draining_and_not_after_the_end() {
        let held = Held::new(Arc::from("t"), 0, None);
        for offset in 0..3 {
            held.deliver(offset);
        }
        held.done(0);
        assert!(held.is_live());
        held.begin_draining();
        assert!(!held.is_live());
        held.done(1);
        held.end();
        held.begin_draining();
        held.done(2);
        assert_eq!(held.commit_position(), Ok(Some(2)));
        assert_eq!(held.open(), 1);
    }
}
