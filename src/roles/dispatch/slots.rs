//! Places for calls in flight. Where calls hang, or are slow, the places are what a lane lacks, not the quota: so each class
//! has its share of them, as it has of the quota. A class takes more than its share only of what nobody else
//! with work may still claim, and leaves a few places free even then, so that calls that hang keep no class from beginning.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::ports::{PermitClass, QuotaTerms};

/// Places that a class leaves free beyond its share, of twenty, up to this many.
const KEPT_MAX: usize = 8;

/// One for each class.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ByClass<T> {
    pub(super) fresh: T,
    pub(super) retry: T,
    pub(super) query: T,
}

impl<T> ByClass<T> {
    pub(super) fn of(&self, class: PermitClass) -> &T {
        match class {
            PermitClass::Fresh => &self.fresh,
            PermitClass::Retry => &self.retry,
            PermitClass::Query => &self.query,
        }
    }
}

/// A lane's places.
#[derive(Debug)]
pub(super) struct Slots {
    all: Arc<Semaphore>,
    total: usize,
    /// How many of them may be taken for now.
    limit: usize,
    /// Told when one becomes free.
    freed: Arc<Notify>,
    kept: usize,
    shares: ByClass<usize>,
    taken: Arc<ByClass<AtomicUsize>>,
}

/// A place that is taken; dropped, it is free.
#[derive(Debug)]
pub(super) struct Slot {
    class: PermitClass,
    taken: Arc<ByClass<AtomicUsize>>,
    freed: Arc<Notify>,
    place: Option<OwnedSemaphorePermit>,
}

impl Slot {
    /// How many are taken, with this one.
    pub(super) fn in_use(&self) -> usize {
        PermitClass::ALL.into_iter().map(|class| self.taken.of(class).load(Ordering::Relaxed)).sum()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.taken.of(self.class).fetch_sub(1, Ordering::Relaxed);
        drop(self.place.take());
        self.freed.notify_one();
    }
}

impl Slots {
    pub(super) fn new(total: usize, terms: &QuotaTerms) -> Self {
        let share = |of_one: f64| part(total, of_one).clamp(1, total.max(1));
        let (query, retry) = (share(terms.query_share), share(terms.retry_share));
        let fresh = total.saturating_sub(query + retry).max(1);
        Self {
            all: Arc::new(Semaphore::new(total)),
            total,
            limit: total,
            freed: Arc::default(),
            kept: (total / 20).min(KEPT_MAX),
            shares: ByClass { fresh, retry, query },
            taken: Arc::default(),
        }
    }

    /// For whoever waits until a place is free.
    pub(super) fn freed(&self) -> Arc<Notify> {
        Arc::clone(&self.freed)
    }

    /// Lets only so many be taken for now; those that are taken beyond it end as they like.
    pub(super) fn limit(&mut self, limit: usize) {
        self.limit = limit.min(self.total);
    }

    pub(super) fn free(&self) -> usize {
        self.limit.saturating_sub(self.in_use())
    }

    pub(super) fn in_use(&self) -> usize {
        self.total.saturating_sub(self.all.available_permits())
    }

    /// How many places a class may take now, beside the `work` that each class has in hand. What is `promised` to another
    /// class counts as taken by it.
    pub(super) fn room(&self, class: PermitClass, work: &ByClass<usize>, promised: &ByClass<usize>) -> usize {
        let (mut free, mut owed, mut short) = (self.free(), 0, 0);
        for other in PermitClass::ALL.into_iter().filter(|other| *other != class) {
            let promised = *promised.of(other);
            free = free.saturating_sub(promised);
            let own = self.own(other).saturating_sub(promised);
            owed += own.min(work.of(other).saturating_sub(promised));
            short += own;
        }
        let own = self.own(class);
        let kept = self.kept * self.limit / self.total.max(1);
        let lent = free.saturating_sub(own).saturating_sub(owed.max(kept.min(short)));
        free.min(own) + lent
    }

    /// Takes a place; whether the class may is asked before.
    pub(super) fn take(&self, class: PermitClass) -> Option<Slot> {
        let place = Arc::clone(&self.all).try_acquire_owned().ok()?;
        self.taken.of(class).fetch_add(1, Ordering::Relaxed);
        Some(Slot { class, taken: Arc::clone(&self.taken), freed: Arc::clone(&self.freed), place: Some(place) })
    }

    /// What a class has left of its share.
    fn own(&self, class: PermitClass) -> usize {
        // Of fewer places each class has as large a part.
        let share = (self.shares.of(class) * self.limit / self.total.max(1)).max(1);
        share.saturating_sub(self.taken.of(class).load(Ordering::Relaxed))
    }
}

fn part(total: usize, of_one: f64) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a count of calls, clamped by its user"
    )]
    let part = (total as f64 * of_one.clamp(0.0, 1.0)).ceil() as usize;
    part
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const NONE: ByClass<usize> = ByClass { fresh: 0, retry: 0, query: 0 };

    fn slots(total: usize) -> Slots {
        let interval = Duration::from_millis(20);
        Slots::new(total, &QuotaTerms { interval, burst: 1, query_share: 0.2, retry_share: 0.2 })
    }

    fn take(slots: &Slots, class: PermitClass, count: usize) -> Vec<Slot> {
        std::iter::from_fn(|| slots.take(class)).take(count).collect()
    }

    #[test]
    fn an_idle_share_is_lent_but_for_a_few_places() {
        let slots = slots(200);
        let work = ByClass { retry: 1_000, ..NONE };
        assert_eq!(slots.room(PermitClass::Retry, &work, &NONE), 192);
        let mut lent = take(&slots, PermitClass::Retry, 192);
        assert_eq!(slots.room(PermitClass::Retry, &work, &NONE), 0);
        // Who has work now gets what is free, and then what becomes free.
        let work = ByClass { fresh: 50, ..work };
        assert_eq!(slots.room(PermitClass::Fresh, &work, &NONE), 8);
        let fresh = take(&slots, PermitClass::Fresh, 8);
        lent.truncate(152);
        assert_eq!((slots.in_use(), fresh.len()), (160, 8));
        let rooms = [PermitClass::Fresh, PermitClass::Retry].map(|class| slots.room(class, &work, &NONE));
        assert_eq!(rooms, [40, 0]);
    }

    #[test]
    fn a_class_takes_no_more_than_its_share_of_what_others_with_work_may_claim() {
        let slots = slots(200);
        let work = ByClass { fresh: 1_000, retry: 1_000, query: 1_000 };
        let rooms = PermitClass::ALL.map(|class| slots.room(class, &work, &NONE));
        assert_eq!(rooms, [120, 40, 40]);
        // Others want only a part of theirs.
        let work = ByClass { fresh: 30, retry: 1_000, query: 0 };
        assert_eq!(slots.room(PermitClass::Retry, &work, &NONE), 40 + 130);
        // What is promised is as good as taken.
        let promised = ByClass { fresh: 30, ..NONE };
        assert_eq!(
            slots.room(PermitClass::Retry, &work, &promised),
            40 + 122,
            "8 are kept free for who has no work now"
        );
    }

    #[test]
    fn a_limit_leaves_places_empty_and_takes_none_away() {
        let mut slots = slots(10);
        let mut held = take(&slots, PermitClass::Fresh, 6);
        slots.limit(4);
        assert_eq!((slots.free(), slots.in_use(), held[0].in_use()), (0, 6, 6));
        held.truncate(3);
        assert_eq!((slots.free(), slots.in_use()), (1, 3));
        slots.limit(99);
        assert_eq!(slots.free(), 7);
    }

    #[test]
    fn a_single_place_is_anyones() {
        let slots = slots(1);
        let work = ByClass { fresh: 5, retry: 5, query: 5 };
        assert_eq!(PermitClass::ALL.map(|class| slots.room(class, &work, &NONE)), [1, 1, 1]);
        let place = slots.take(PermitClass::Query).unwrap();
        assert_eq!(PermitClass::ALL.map(|class| slots.room(class, &work, &NONE)), [0, 0, 0]);
        drop(place);
        assert_eq!(slots.room(PermitClass::Fresh, &work, &NONE), 1);
    }

    proptest! {
        /// Calls begin and end in any order, and whoever has room takes it: a class with work that goes on asking gets its
        /// share as soon as so many calls have ended, whatever the others do.
        #[test]
        fn no_class_with_work_is_kept_below_its_share(
            total in 1_usize..60, limit in 1_usize..60, greedy in 0_usize..3, starving in 0_usize..3, ends in prop::collection::vec(0_usize..60, 60..61),
        ) {
            prop_assume!(greedy != starving);
            let (greedy, starving) = (PermitClass::ALL[greedy], PermitClass::ALL[starving]);
            let mut slots = slots(total);
            slots.limit(limit);
            let limit = limit.min(total);
            let alone = ByClass { fresh: 0, retry: 0, query: 0 };
            let mut busy = take(&slots, greedy, slots.room(greedy, &alone, &NONE));
            let mut got = Vec::new();
            let work = ByClass { fresh: 100, retry: 100, query: 100 };
            for end in ends {
                if !busy.is_empty() {
                    busy.swap_remove(end % busy.len());
                }
                // The greedy one is always first.
                while slots.room(greedy, &work, &NONE) > 0 {
                    busy.push(slots.take(greedy).unwrap());
                }
                while slots.room(starving, &work, &NONE) > 0 {
                    got.push(slots.take(starving).unwrap());
                }
            }
            let share_of = |class| (slots.shares.of(class) * limit / total).max(1);
            let share = share_of(starving).min(limit.saturating_sub(share_of(greedy)));
            prop_assert!(got.len() >= share, "{} of {share}", got.len());
        }
    }
}
