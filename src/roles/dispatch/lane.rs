//! The loop that owns a lane's state: heaps, permits, and what is under way. Everything slow
//! runs in tasks; the loop only decides what starts next.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tracing::{debug, error, warn};

use crate::domain::inbound::Unfit;
use crate::domain::{CommandKind, Timestamp};
use crate::ports::{ActedOn, Grant, InRecord, PermitClass, ReadMark, StoreError, Subscription};
use crate::roles::{RoleError, StopSignals, dead_letter, patience};

use super::Lane;
use super::adopt::Adoption;
use super::call::{Calls, Outcome, finish};
use super::claim::{Leftover, Picked};
use super::heap::Queued;
use super::queue::Queues;
use super::reading::{held_until, read_command};

/// Permits wait this long for company before they are claimed, alone or beside other claims.
const LINGER_QUIET: Duration = Duration::from_millis(2);
const LINGER_BUSY: Duration = Duration::from_millis(8);
/// Permits are reserved for what is in hand and what is expected in this time.
const RESERVE_AHEAD: f64 = 0.05;
/// The next try after the store could not be asked for permits.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// Claims begin before their permits' moments by as long as a claim takes, and by this at most:
/// what is claimed early holds its place among the calls in flight.
const CLAIM_AHEAD_MAX: Duration = Duration::from_millis(100);
/// A full heap is searched for commands of revoked partitions this often: under a backlog it is
/// full all the time.
const PURGE_EVERY: Duration = Duration::from_secs(1);
/// Without anything to wait for, the loop still looks around this often.
const IDLE: Duration = Duration::from_secs(1);
/// How far the fresh orders were read is noted this often.
const NOTE_EVERY: Duration = Duration::from_secs(5);
/// Places for calls that submits leave free, of twenty, up to this many.
const KEPT_SLOTS_MAX: usize = 8;
enum Event {
    Granted(PermitClass, Result<Grant, StoreError>),
    Claimed(Result<(Leftover, Calls), StoreError>, Duration),
    Asked(Result<(Leftover, Calls), StoreError>),
    Adopted(Result<usize, StoreError>),
    Noted(Result<(), StoreError>),
    Buried,
}

struct Scheduler {
    lane: Arc<Lane>,
    stop: StopSignals,
    queues: Queues,
    slots: Arc<Semaphore>,
    /// Of these, so many are for questions: calls that hang must not keep them from being asked.
    kept_slots: usize,
    under_way: JoinSet<Event>,
    claims: usize,
    /// A batch of questions is being held.
    asking: bool,
    adoption: Adoption,
    /// When to note next how far the fresh orders were read.
    note_at: Timestamp,
    /// How long a claim takes, over the last few.
    claim_time: Duration,
    /// Since when claims could have been made.
    claimable_since: Option<Timestamp>,
    arrivals: Arrivals,
    /// The next look for commands of revoked partitions.
    purge_at: Timestamp,
    calls: JoinSet<()>,
    settle: mpsc::Sender<Outcome>,
}

impl Lane {
    /// Works until told to stop or until a subscription ends. `fresh` and `due` are the lane's
    /// two topics.
    pub async fn run(
        self,
        mut fresh: Box<dyn Subscription>,
        mut due: Box<dyn Subscription>,
        stop: StopSignals,
    ) -> Result<(), RoleError> {
        let (settle, outcomes) = mpsc::channel(self.rules.batch_max.max(1) * 2);
        // In a set, so that it ends with this future, whatever ends it.
        let mut settlement = JoinSet::new();
        settlement.spawn(self.clone().settle_all(outcomes, stop.abort.clone()));
        let (abort, unsettled) = (stop.abort.clone(), Arc::clone(&self.unsettled));
        let mut scheduler = Scheduler::new(self, stop, settle);
        let worked = scheduler.work(fresh.as_mut(), due.as_mut()).await;
        scheduler.finish().await;
        let ended = match settlement.join_next().await {
            Some(Ok(settled)) => worked.and(settled),
            Some(Err(error)) => Err(RoleError::Task(error.to_string())),
            None => worked,
        };
        match unsettled.load(Ordering::Relaxed) {
            left @ 1.. if ended.is_ok() && abort.is_cancelled() => Err(RoleError::Left(format!(
                "the outcomes of up to {left} calls were not written: their orders rest as in_flight, to be asked about"
            ))),
            _ => ended,
        }
    }
}

impl Scheduler {
    fn new(lane: Lane, stop: StopSignals, settle: mpsc::Sender<Outcome>) -> Self {
        let (heap_max, in_flight_max) = (lane.rules.heap_max, lane.rules.in_flight_max);
        lane.metrics.quota(1.0 / lane.rules.terms.interval.as_secs_f64());
        Self {
            lane: Arc::new(lane),
            stop,
            queues: Queues::new(heap_max),
            slots: Arc::new(Semaphore::new(in_flight_max)),
            kept_slots: (in_flight_max / 20).min(KEPT_SLOTS_MAX),
            under_way: JoinSet::new(),
            claims: 0,
            asking: false,
            adoption: Adoption::default(),
            note_at: Timestamp::default(),
            claim_time: Duration::ZERO,
            claimable_since: None,
            arrivals: Arrivals::default(),
            purge_at: Timestamp::default(),
            calls: JoinSet::new(),
            settle,
        }
    }

    async fn work(&mut self, fresh: &mut dyn Subscription, due: &mut dyn Subscription) -> Result<(), RoleError> {
        loop {
            let assignments = fresh.assignments() + due.assignments();
            self.adoption.note(assignments, self.lane.clock.now(), self.lane.adopt_after());
            self.note_read(fresh);
            let wake = self.start_what_can();
            let now = self.lane.clock.now();
            let sleep = (wake - now).to_std().unwrap_or_default().max(Duration::from_millis(1)).min(IDLE);
            let fresh_room = self.queues.fresh.heap.room();
            let due_room = self.queues.retry.heap.room().min(self.queues.query.heap.room());
            let (slots, settle) = (Arc::clone(&self.slots), self.settle.clone());
            let no_slot = slots.available_permits() == 0;
            tokio::select! {
                // Stopping comes first; then what frees permits and slots; then retries, which
                // have less time left than fresh orders; the clock last.
                biased;
                () = self.stop.drain.cancelled() => return Ok(()),
                // The settlement has failed; its own error says why.
                () = settle.closed() => return Ok(()),
                Some(event) = self.under_way.join_next() => self.take_event(event)?,
                Some(ended) = self.calls.join_next() => {
                    call_ended(ended)?;
                    while let Some(ended) = self.calls.try_join_next() {
                        call_ended(ended)?;
                    }
                }
                records = due.next(due_room), if due_room > 0 => self.take_records(records?),
                records = fresh.next(fresh_room), if fresh_room > 0 => self.take_records(records?),
                slot = slots.acquire(), if no_slot => drop(slot),
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    /// Tells the watchdog how far the fresh orders were read, so that it can tell a command that was
    /// lost from one that waits.
    fn note_read(&mut self, fresh: &dyn Subscription) {
        let now = self.lane.clock.now();
        if now < self.note_at {
            return;
        }
        self.note_at = now + NOTE_EVERY;
        let mark = |read: ActedOn| {
            let age = chrono::TimeDelta::from_std(read.age).ok()?;
            Some(ReadMark { partition: read.partition, up_to: now.checked_sub_signed(age)? })
        };
        let marks: Vec<ReadMark> = fresh.acted_on().into_iter().filter_map(mark).collect();
        if !marks.is_empty() {
            let (read_marks, topic) = (Arc::clone(&self.lane.read_marks), self.lane.rules.topics.requests.clone());
            self.under_way.spawn(async move { Event::Noted(read_marks.note_read(&topic, &marks).await) });
        }
    }

    /// Starts every task that can start now; returns when to look again at the latest.
    fn start_what_can(&mut self) -> Timestamp {
        let now = self.lane.clock.now();
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
        self.lane.metrics.in_flight(self.lane.rules.in_flight_max - self.slots.available_permits());
        let changes = self.queues.all().map(|queue| queue.next_change(now, ahead));
        [matured, shed_at, claim_at, self.adoption.due_at()]
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
            self.spawn_claim(batch);
        }
        let submits = [&self.queues.retry, &self.queues.fresh];
        let earliest = submits.into_iter().filter_map(|queue| queue.heap.earliest()).min()?;
        // A deadline from outside may lie so far back that nothing lies before it.
        let expected = chrono::Duration::from_std(expected).unwrap_or_default();
        Some(earliest.checked_sub_signed(expected).unwrap_or(earliest))
    }

    fn reserve(&mut self, class: PermitClass, now: Timestamp) {
        let expected = if class == PermitClass::Fresh { self.arrivals.expected(now, RESERVE_AHEAD) } else { 0 };
        // No more than can be claimed at once: permits grow old quickly, and the store has more.
        let rules = &self.lane.rules;
        let most = self.slots.available_permits().min(rules.batch_max * rules.writers.max(1));
        let provider = self.lane.provider.id();
        let reservation = self.queues.of(class).reservation(provider, rules.terms, expected, most, now);
        if let Some(reservation) = reservation {
            let quota = Arc::clone(&self.lane.quota);
            self.under_way.spawn(async move { Event::Granted(class, quota.reserve(&reservation).await) });
        }
    }

    /// Starts a batch of questions; those that come due meanwhile share the next one.
    fn start_questions(&mut self, now: Timestamp, ahead: chrono::TimeDelta) {
        let usable = now + ahead;
        let most = self.queues.query.possible(usable).min(self.lane.rules.batch_max);
        if most == 0 || self.asking {
            return;
        }
        let mut batch = Vec::new();
        self.pick(PermitClass::Query, most, (now, usable), &mut batch);
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
        let commands = self.queues.retry.possible(usable) + self.queues.fresh.possible(usable);
        let batch_max = self.lane.rules.batch_max;
        let slots = self.slots.available_permits().saturating_sub(self.kept_slots);
        let possible = commands.min(slots).min(batch_max);
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
        let mut batch = Vec::with_capacity(possible);
        self.pick(PermitClass::Retry, possible, (now, usable), &mut batch);
        self.pick(PermitClass::Fresh, possible, (now, usable), &mut batch);
        if !batch.is_empty() {
            self.spawn_claim(batch);
        }
        Some(now)
    }

    fn pick(
        &mut self,
        class: PermitClass,
        most: usize,
        (now, usable): (Timestamp, Timestamp),
        batch: &mut Vec<Picked>,
    ) {
        let queue = self.queues.of(class);
        while batch.len() < most && queue.permits.due(usable) > 0 {
            let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else { return };
            let Some(queued) = queue.heap.pop() else { return };
            let permit = queue.permits.take(usable);
            if let Some(send_at) = permit {
                self.lane.metrics.permit_wait((now - send_at).to_std().unwrap_or_default());
            }
            batch.push(Picked { queued, class, permit, slot: Some(slot) });
        }
    }

    fn spawn_claim(&mut self, batch: Vec<Picked>) {
        self.claims += 1;
        let (lane, abort, settle) = (Arc::clone(&self.lane), self.stop.abort.clone(), self.settle.clone());
        let began = self.lane.clock.since_boot();
        self.under_way.spawn(async move {
            let claimed = lane.claim(batch, &abort).await;
            let took = lane.clock.since_boot().saturating_sub(began);
            let under_way = claimed.map(|mut leftover| {
                let calls = lane.begin(std::mem::take(&mut leftover.claimed), &settle);
                (leftover, calls)
            });
            Event::Claimed(under_way, took)
        });
    }

    fn take_event(&mut self, event: Result<Event, tokio::task::JoinError>) -> Result<(), RoleError> {
        match event.map_err(|error| RoleError::Task(error.to_string()))? {
            Event::Granted(class, granted) => self.take_grant(class, granted)?,
            Event::Claimed(claimed, took) => {
                self.claims -= 1;
                self.claim_time = (self.claim_time * 3 + took) / 4;
                self.take_begun(claimed)?;
            }
            Event::Asked(held) => {
                self.asking = false;
                self.take_begun(held)?;
            }
            Event::Adopted(Err(error)) if !self.stop.abort.is_cancelled() => return Err(error.into()),
            Event::Noted(Err(error)) => debug!(error = ?error, "how far was read is noted the next time"),
            Event::Adopted(_) | Event::Noted(Ok(())) | Event::Buried => {}
        }
        Ok(())
    }

    fn take_begun(&mut self, begun: Result<(Leftover, Calls), StoreError>) -> Result<(), RoleError> {
        match begun {
            Ok((leftover, calls)) => {
                self.take_leftover(leftover);
                if !calls.is_empty() {
                    self.calls.spawn(finish(calls));
                }
                Ok(())
            }
            Err(_) if self.stop.abort.is_cancelled() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn take_grant(&mut self, class: PermitClass, granted: Result<Grant, StoreError>) -> Result<(), RoleError> {
        let now = self.lane.clock.now();
        let stock = &mut self.queues.of(class).permits;
        stock.asking = false;
        match granted {
            Ok(grant) => {
                self.lane.metrics.permits("granted", grant.send_at.len() as u64);
                stock.add(grant);
            }
            Err(error) if error.is_transient() => {
                debug!(error = ?error, "no permits while the store is away");
                stock.ask_later(now + ASK_AGAIN);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn take_leftover(&mut self, leftover: Leftover) {
        let now = self.lane.clock.now();
        for (class, permit) in leftover.permits {
            self.queues.of(class).permits.give_back([permit]);
        }
        for (queued, class, until) in leftover.again {
            self.queues.of(class).heap.push(queued, Some(until), now);
        }
    }

    fn take_records(&mut self, records: Vec<InRecord>) {
        let now = self.lane.clock.now();
        let mut poison = Vec::new();
        for record in records {
            match read_command(&record, now) {
                Ok(command) => {
                    let class = match command.kind {
                        CommandKind::Query => PermitClass::Query,
                        CommandKind::Submit if record.topic == self.lane.rules.topics.due => PermitClass::Retry,
                        CommandKind::Submit => PermitClass::Fresh,
                    };
                    if class == PermitClass::Fresh {
                        self.arrivals.note(now);
                    }
                    let until = held_until(&command, now);
                    self.queues.of(class).heap.push(Queued { command, ack: record.ack, put_back: 0 }, until, now);
                }
                Err(unfit) => poison.push((record, unfit)),
            }
        }
        if !poison.is_empty() {
            self.bury(poison);
        }
    }

    /// Writes unusable commands to the dead letters; their offsets move once that is acknowledged.
    fn bury(&mut self, poison: Vec<(InRecord, Unfit)>) {
        let (lane, abort) = (Arc::clone(&self.lane), self.stop.abort.clone());
        self.under_way.spawn(async move {
            let now = lane.clock.now();
            let mut letters = Vec::with_capacity(poison.len());
            for (record, unfit) in &poison {
                warn!(topic = %record.topic, partition = record.partition, offset = record.offset,
                    reason = %unfit.reason, "a record goes to the dead letters: {}", unfit.detail);
                letters.push(dead_letter::record(&lane.rules.dead_letters, record, unfit, now));
            }
            if patience::published("dead letters", lane.publisher.as_ref(), letters, &abort).await {
                for (record, unfit) in poison {
                    crate::metrics::dead_letter(&record.topic, unfit.reason.as_str(), 1);
                    record.ack.done();
                }
            }
            Event::Buried
        });
    }

    /// Lets claims and calls under way come to their end; takes nothing new. Told to drop
    /// everything, it leaves them: the rows say what may have been sent.
    async fn finish(mut self) {
        let abort = self.stop.abort.clone();
        let ending = async {
            while let Some(event) = self.under_way.join_next().await {
                if let Err(error) = self.take_event(event) {
                    error!(error = ?error, "a claim could not be ended");
                }
            }
            while self.calls.join_next().await.is_some() {}
        };
        tokio::select! {
            biased; // Being told to drop everything comes first.
            () = abort.cancelled() => {}
            () = ending => {}
        }
        self.calls.abort_all();
        self.under_way.abort_all();
    }
}

fn call_ended(ended: Result<(), tokio::task::JoinError>) -> Result<(), RoleError> {
    ended.map_err(|error| RoleError::Task(error.to_string()))
}

/// How fast fresh orders come: an average over about half a second.
#[derive(Default)]
struct Arrivals {
    per_second: f64,
    count: u32,
    since: Option<Timestamp>,
}

impl Arrivals {
    fn note(&mut self, now: Timestamp) {
        self.since.get_or_insert(now);
        self.count = self.count.saturating_add(1);
    }

    /// Orders expected in the next `seconds`.
    fn expected(&mut self, now: Timestamp, seconds: f64) -> usize {
        if let Some(since) = self.since {
            let passed = (now - since).as_seconds_f64();
            if passed >= 0.25 {
                self.per_second = 0.5 * self.per_second + 0.5 * f64::from(self.count) / passed;
                self.count = 0;
                self.since = Some(now);
            }
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count, never negative")]
        let expected = (self.per_second * seconds) as usize;
        expected
    }
}
