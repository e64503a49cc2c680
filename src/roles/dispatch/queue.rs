//! The commands of one class, and the permits for them.

use chrono::TimeDelta;

use crate::domain::{ProviderId, Timestamp};
use crate::ports::{PermitClass, QuotaTerms, Reservation};

use super::heap::DeadlineHeap;
use super::permits::Stock;

/// What waits of one class.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) class: PermitClass,
    pub(super) heap: DeadlineHeap,
    pub(super) permits: Stock,
}

impl Queue {
    pub(super) fn new(class: PermitClass, heap_max: usize) -> Self {
        Self { class, heap: DeadlineHeap::new(heap_max), permits: Stock::default() }
    }

    /// Commands that could be acted on, with permits that may be used by then.
    pub(super) fn possible(&self, usable: Timestamp) -> usize {
        self.heap.ready().min(self.permits.due(usable))
    }

    /// What to ask the store for, if asking makes sense: permits for what is in hand and what is
    /// `expected`, `most` in all.
    pub(super) fn reservation(
        &mut self,
        provider: &ProviderId,
        terms: QuotaTerms,
        expected: usize,
        most: usize,
        now: Timestamp,
    ) -> Option<Reservation> {
        if self.heap.ready() <= self.permits.len() || !self.permits.may_ask(now) {
            return None;
        }
        let missing = (self.heap.ready() + expected).min(most).saturating_sub(self.permits.len());
        let wanted = u32::try_from(missing).ok().filter(|wanted| *wanted > 0)?;
        self.permits.asking = missing;
        Some(Reservation { provider: provider.clone(), class: self.class, wanted, terms })
    }

    /// Commands that have permits, or will have where they are granted what was asked for.
    pub(super) fn promised(&self) -> usize {
        (self.permits.len() + self.permits.asking).min(self.heap.ready())
    }

    /// When something changes by itself.
    pub(super) fn next_change(&self, now: Timestamp, ahead: TimeDelta) -> Option<Timestamp> {
        self.permits.next_change(now, ahead).filter(|_| self.heap.ready() > 0)
    }
}

/// The classes of a lane.
#[derive(Debug)]
pub(super) struct Queues {
    /// Inquiries.
    pub(super) query: Queue,
    /// Further attempts.
    pub(super) retry: Queue,
    /// First attempts.
    pub(super) fresh: Queue,
}

impl Queues {
    pub(super) fn new(heap_max: usize) -> Self {
        let queue = |class| Queue::new(class, heap_max);
        Self { query: queue(PermitClass::Query), retry: queue(PermitClass::Retry), fresh: queue(PermitClass::Fresh) }
    }

    pub(super) fn of(&mut self, class: PermitClass) -> &mut Queue {
        match class {
            PermitClass::Query => &mut self.query,
            PermitClass::Retry => &mut self.retry,
            PermitClass::Fresh => &mut self.fresh,
        }
    }

    pub(super) fn see(&self, class: PermitClass) -> &Queue {
        match class {
            PermitClass::Query => &self.query,
            PermitClass::Retry => &self.retry,
            PermitClass::Fresh => &self.fresh,
        }
    }

    pub(super) fn all(&self) -> [&Queue; 3] {
        [&self.query, &self.retry, &self.fresh]
    }

    /// Makes ready what has waited long enough; returns when the next will have.
    pub(super) fn mature(&mut self, now: Timestamp) -> Option<Timestamp> {
        [&mut self.query, &mut self.retry, &mut self.fresh].into_iter().filter_map(|queue| queue.heap.mature(now)).min()
    }

    /// Drops permits that are too late; returns how many were.
    pub(super) fn drop_stale(&mut self, now: Timestamp) -> u64 {
        [&mut self.query, &mut self.retry, &mut self.fresh].into_iter().map(|queue| queue.permits.drop_stale(now)).sum()
    }

    /// Whether one of them takes no more.
    pub(super) fn is_full(&self) -> bool {
        self.all().into_iter().any(|queue| queue.heap.room() == 0)
    }

    /// Drops the commands of revoked partitions.
    pub(super) fn purge(&mut self) {
        for queue in [&mut self.query, &mut self.retry, &mut self.fresh] {
            queue.heap.purge();
        }
    }
}
