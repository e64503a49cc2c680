//! What a lane starts next: permits are asked for, and questions and claims begun, as the commands, permits and places in hand allow.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tracing::debug;

use crate::domain::Timestamp;
use crate::ports::PermitClass;

use super::claim::Picked;
use super::lane::{Event, IDLE, Scheduler};
use super::slots::ByClass;

/// Permits wait this long for company before they are claimed, alone or beside other claims.
const LINGER_QUIET: Duration = Duration::from_millis(2);
const LINGER_BUSY: Duration = Duration::from_millis(8);
/// Permits are reserved for what is in hand and what is expected in this time.
const RESERVE_AHEAD: f64 = 0.05;
/// Claims begin before their permits' moments by as long as a claim takes, and by this at most:
/// what is claimed early holds its place among the calls in flight.
const CLAIM_AHEAD_MAX: Duration = Duration::from_millis(100);
/// A full heap is searched for commands of revoked partitions this often: under a backlog it is
/// full all the time.
const PURGE_EVERY: Duration = Duration::from_secs(1);

/// No permits are spoken for.
const NONE: ByClass<usize> = ByClass { fresh: 0, retry: 0, query: 0 };

impl Scheduler {
    /// Starts every task that can start now; returns when to look again at the latest.
    pub(super) fn start_what_can(&mut self) -> Timestamp {
        let now = self.lane.clock.now();
        self.slots.limit(self.lane.tide.limit());
        let matured = self.queues.mature(now);
        let stale = self.queues.drop_stale(now);
        if stale > 0 {
            self.lane.metrics.permits("denied", stale);
        }
        if self.queues.is_full() && now >= self.purge_at {
            self.queues.purge();
            self.purge_at = now + PURGE_EVERY;
        }
        if self.adoption.take_due(now) {
            let (lane, abort) = (Arc::clone(&self.lane), self.stop.abort.clone());
            self.under_way.spawn(async move { Event::Adopted(lane.adopt(&abort).await) });
        }
        self.start_putting_off();
        self.tell_board();
        self.start_rerouting();
        let shed_at = self.shed(now);
        self.reserve(PermitClass::Query, now);
        self.reserve(PermitClass::Retry, now);
        self.reserve(PermitClass::Fresh, now);
        let ahead = chrono::TimeDelta::from_std(self.claim_time.min(CLAIM_AHEAD_MAX)).unwrap_or_default();
        self.start_questions(now, ahead);
        let claim_at = self.start_claims(now, ahead);
        for queue in self.queues.all() {
            self.lane.metrics.backlog(queue.class, queue.heap.len());
        }
        self.lane.metrics.in_flight(self.slots.in_use());
        let opens_at = self.opens_in().map(|wait| crate::domain::plus(now, wait));
        let changes = self.queues.all().map(|queue| queue.next_change(now, ahead));
        [matured, shed_at, claim_at, opens_at, self.adoption.due_at(), self.lane.no_questions.ends_at(now)]
            .into_iter()
            .chain(changes)
            .flatten()
            .min()
            .unwrap_or(now + IDLE)
    }

    /// Ends orders that no call could bring home any more, without spending a permit on them.
    fn shed(&mut self, now: Timestamp) -> Option<Timestamp> {
        let expected = self.lane.service_time.expected();
        let bound = now + expected;
        let mut batch = Vec::new();
        for class in [PermitClass::Retry, PermitClass::Fresh] {
            while batch.len() < self.lane.rules.batch_max {
                let Some(queued) = self.queues.of(class).heap.pop_before(bound) else { break };
                batch.push(Picked { queued, class, permit: None, slot: None });
            }
        }
        if !batch.is_empty() {
            debug!(lane = %self.lane.provider.id(), orders = batch.len(), "orders can no longer make their deadline");
            self.spawn_claim(batch, false);
        }
        let submits = [&self.queues.retry, &self.queues.fresh];
        let earliest = submits.into_iter().filter_map(|queue| queue.heap.earliest()).min()?;
        // A deadline from outside may lie so far back that nothing lies before it.
        let expected = chrono::Duration::from_std(expected).unwrap_or_default();
        Some(earliest.checked_sub_signed(expected).unwrap_or(earliest))
    }

    /// The commands of each class that could be acted on, had they permits and places.
    fn in_hand(&self, now: Timestamp) -> ByClass<usize> {
        let rests = self.lane.no_questions.ends_at(now).is_some();
        let room = self.lane.room();
        ByClass {
            fresh: self.queues.fresh.heap.ready().min(room),
            retry: self.queues.retry.heap.ready().min(room),
            query: if rests { 0 } else { self.queues.query.heap.ready() },
        }
    }

    fn reserve(&mut self, class: PermitClass, now: Timestamp) {
        let work = self.in_hand(now);
        if *work.of(class) == 0 {
            return;
        }
        let expected = if class == PermitClass::Fresh { self.arrivals.expected(now, RESERVE_AHEAD) } else { 0 };
        let promised = ByClass {
            fresh: self.queues.fresh.promised(),
            retry: self.queues.retry.promised(),
            query: self.queues.query.promised(),
        };
        // No more than can be claimed at once: permits grow old quickly, and the store has more.
        let rules = &self.lane.rules;
        let most = self.slots.room(class, &work, &promised).min(rules.batch_max * rules.writers.max(1));
        let provider = self.lane.provider.id();
        let reservation = self.queues.of(class).reservation(provider, rules.terms, expected, most, now);
        if let Some(reservation) = reservation {
            let quota = Arc::clone(&self.lane.quota);
            self.under_way.spawn(async move { Event::Granted(class, quota.reserve(&reservation).await) });
        }
    }

    /// Puts off what waits for that, a batch at a time.
    fn start_putting_off(&mut self) {
        let Some(batch) = self.put_off.batch() else { return };
        let (lane, abort) = (Arc::clone(&self.lane), self.stop.abort.clone());
        self.under_way.spawn(async move { Event::PutOff(lane.put_off(batch, &abort).await) });
    }

    /// Starts a batch of questions; those that come due meanwhile share the next one.
    fn start_questions(&mut self, now: Timestamp, ahead: chrono::TimeDelta) {
        let usable = now + ahead;
        if self.asking || self.lane.no_questions.ends_at(now).is_some() {
            return;
        }
        let batch = self.pick(&[PermitClass::Query], self.lane.rules.batch_max, (now, usable));
        if batch.is_empty() {
            return;
        }
        self.asking = true;
        let (lane, abort, settle) = (Arc::clone(&self.lane), self.stop.abort.clone(), self.settle.clone());
        self.under_way.spawn(async move {
            let held = lane.hold(batch, &abort).await;
            Event::Asked(held.map(|mut leftover| {
                let questions = std::mem::take(&mut leftover.questions);
                let asks = questions.into_iter().map(|one| Arc::clone(&lane).ask(one, settle.clone()).boxed());
                (leftover, asks.collect())
            }))
        });
    }

    /// Starts a batch of claims, if there are commands, permits and places for calls; returns
    /// when it will, if it waits for company.
    fn start_claims(&mut self, now: Timestamp, ahead: chrono::TimeDelta) -> Option<Timestamp> {
        let usable = now + ahead;
        let work = self.in_hand(now);
        let commands = |class| self.queues.see(class).possible(usable).min(self.slots.room(class, &work, &NONE));
        let batch_max = self.lane.rules.batch_max;
        let (free, room) = (self.slots.free(), self.lane.room());
        let possible = (commands(PermitClass::Retry) + commands(PermitClass::Fresh)).min(free).min(batch_max).min(room);
        if possible == 0 || self.claims >= self.lane.rules.writers.max(1) {
            if possible == 0 {
                self.claimable_since = None;
            }
            return None;
        }
        let since = *self.claimable_since.get_or_insert(now);
        let linger = if self.claims == 0 { LINGER_QUIET } else { LINGER_BUSY };
        if possible < batch_max && now < since + linger {
            return Some(since + linger);
        }
        self.claimable_since = None;
        let batch = self.pick(&[PermitClass::Retry, PermitClass::Fresh], possible, (now, usable));
        if !batch.is_empty() {
            let is_trial = self.lane.breaker.tries(self.lane.clock.since_boot());
            if is_trial {
                self.lane.metrics.breaker("half_open");
            }
            self.spawn_claim(batch, is_trial);
        }
        Some(now)
    }

    /// Picks commands of these classes that have permits and places, the earliest deadline first.
    fn pick(&mut self, classes: &[PermitClass], most: usize, (now, usable): (Timestamp, Timestamp)) -> Vec<Picked> {
        let mut batch = Vec::new();
        while batch.len() < most {
            let work = self.in_hand(now);
            let may = |class: &PermitClass| {
                self.queues.see(*class).possible(usable) > 0 && self.slots.room(*class, &work, &NONE) > 0
            };
            let earliest = |class: &PermitClass| self.queues.see(*class).heap.earliest();
            let Some(class) = classes.iter().copied().filter(may).min_by_key(earliest) else { break };
            let Some(slot) = self.slots.take(class) else { break };
            let queue = self.queues.of(class);
            // None is left where all were of revoked partitions.
            let Some(queued) = queue.heap.pop() else { continue };
            let permit = queue.permits.take(usable);
            if let Some(send_at) = permit {
                self.lane.metrics.permit_wait((now - send_at).to_std().unwrap_or_default());
            }
            batch.push(Picked { queued, class, permit, slot: Some(slot) });
        }
        batch
    }

    /// `is_trial`: its call shows whether the provider is well again.
    fn spawn_claim(&mut self, batch: Vec<Picked>, is_trial: bool) {
        self.claims += 1;
        let (lane, abort, settle) = (Arc::clone(&self.lane), self.stop.abort.clone(), self.settle.clone());
        let began = self.lane.clock.since_boot();
        self.under_way.spawn(async move {
            let claimed = lane.claim(batch, &abort).await;
            if is_trial && !claimed.as_ref().is_ok_and(|leftover| !leftover.claimed.is_empty()) {
                lane.breaker.was_not_tried(lane.clock.since_boot());
            }
            let took = lane.clock.since_boot().saturating_sub(began);
            let under_way = claimed.map(|mut leftover| {
                let calls = lane.begin(std::mem::take(&mut leftover.claimed), &settle);
                (leftover, calls)
            });
            Event::Claimed(under_way, took)
        });
    }
}
