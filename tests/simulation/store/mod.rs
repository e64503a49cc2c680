//! A store in memory. Its transactions take time, are seen in the order in which they end and not in that
//! in which they began, may fail before anything was done and after all of it, and go on when their
//! caller has died.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recharged::domain::{
    EventType, LoggedEvent, Order, OrderId, ProviderPolicy, Refund, State as OrderState, Timestamp, Transition,
};
use recharged::faults::{Bug, is_planted};
use recharged::ports::{
    Case, Clock, Inserted, Loaded, LogPosition, OrderStore, SchemaError, StoreError, StoreErrorKind, Written,
};

use crate::laws::{Findings, Law};
use crate::life::{TRIED_AGAIN, TrueTime};
use crate::weather::{Fault, PROCESSES_MAX, Rates, Strikes};

mod gated;
mod letters;
mod nets;
mod reading;

pub(crate) use gated::ProcessStore;

/// The longest commit: shorter than the statement time-out.
const COMMIT_MAX: Duration = Duration::from_millis(4_500);

#[derive(Debug)]
pub(crate) struct MemStore {
    time: Arc<TrueTime>,
    pub(crate) state: Mutex<State>,
    rng: Mutex<StdRng>,
    rates: Rates,
    strikes: Arc<Strikes>,
    findings: Arc<Findings>,
    provider: ProviderPolicy,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) rows: BTreeMap<OrderId, Order>,
    /// By transaction and sequence.
    log: BTreeMap<(i64, i64), Vec<LoggedEvent>>,
    next: i64,
    running: BTreeSet<i64>,
    pub(crate) refunds: BTreeMap<OrderId, Vec<Refund>>,
    /// Those that are followed, by when they are to be confirmed.
    pub(crate) followed: BTreeSet<(Timestamp, OrderId)>,
    /// Claims that met a row which had moved.
    pub(crate) claims_overtaken: u32,
    cursor: LogPosition,
    low_water: Timestamp,
    /// Undecided behind the low-water mark.
    set_aside: BTreeSet<OrderId>,
    /// Whoever inserts is cut off until then; everybody else is not.
    pub(crate) no_inserts_until: Option<Timestamp>,
    away_until: Option<Timestamp>,
    held: HashMap<OrderId, (Timestamp, u32)>,
    pub(crate) cases: BTreeMap<(OrderId, &'static str), Case>,
    /// What is to be told of orders, by when.
    pub(crate) timers: BTreeSet<(Timestamp, OrderId)>,
    read_marks: HashMap<(String, i32), Timestamp>,
    /// By provider and number: whose, and until when.
    cooling: HashMap<(recharged::domain::ProviderId, String), (OrderId, Timestamp)>,
    callbacks: Vec<recharged::ports::NotedCallback>,
    lanes: Vec<recharged::ports::LaneChange>,
    letters: BTreeMap<recharged::ports::LetterKey, recharged::ports::LetterMark>,
    quota: HashMap<recharged::domain::ProviderId, recharged::store::quota::Cell>,
    /// When each version of each order was there for all to see.
    committed: HashMap<(OrderId, u32), Timestamp>,
    /// Commands that were announced: order and version.
    hints: HashSet<(OrderId, u32)>,
    /// Commands that a lane let go of before their rows were there.
    dropped: HashSet<(OrderId, u32)>,
}

impl MemStore {
    pub(crate) fn new(
        time: Arc<TrueTime>,
        seed: u64,
        rates: Rates,
        strikes: Arc<Strikes>,
        findings: Arc<Findings>,
        provider: ProviderPolicy,
    ) -> Self {
        let (state, rng) = (Mutex::default(), Mutex::new(StdRng::seed_from_u64(seed)));
        Self { time, state, rng, rates, strikes, findings, provider }
    }

    fn roll(&self, of_one: f64) -> bool {
        of_one > 0.0 && !self.strikes.is_healed() && self.rng.lock().unwrap().random_bool(of_one)
    }

    fn wait(&self, least: u64, most: u64) -> Duration {
        Duration::from_micros(self.rng.lock().unwrap().random_range(least..most))
    }

    /// The way to the store, and back.
    async fn pass(&self, operation: &'static str, fault: Fault) -> Result<(), StoreError> {
        let mut wait = self.wait(100, 3_000);
        if self.roll(self.rates.store_slow) {
            self.strikes.hit(Fault::StoreSlow);
            wait = self.wait(500_000, 4_000_000);
        }
        tokio::time::sleep(wait).await;
        let (now, fails) = (self.time.now(), self.roll(self.rates.store));
        let state = self.state.lock().unwrap();
        let is_cut_off = operation == "insert" && state.no_inserts_until > Some(now);
        let is_away = state.away_until > Some(now);
        drop(state);
        if fails {
            self.strikes.hit(fault);
        }
        if fails || is_cut_off || is_away { Err(away(operation)) } else { Ok(()) }
    }

    /// Shorter than the statement time-out.
    fn commit_time(&self, batch: &[Transition]) -> Duration {
        if let Some(left) = self.left_to_a_new_deadline(batch).filter(|left| *left < COMMIT_MAX)
            && self.roll(self.rates.commit_behind)
        {
            self.strikes.hit(Fault::CommitBehindDeadline);
            return left + self.wait(1, 1_000_000).min(COMMIT_MAX.saturating_sub(left));
        }
        if self.roll(self.rates.commit_slow) {
            self.strikes.hit(Fault::CommitSlow);
            return self.wait(300_000, 4_500_000);
        }
        self.wait(50, 3_000)
    }

    /// Until the first deadline that this batch brings.
    fn left_to_a_new_deadline(&self, batch: &[Transition]) -> Option<Duration> {
        let now = self.time.now();
        let open = batch.iter().map(|transition| &transition.after).filter(|order| !order.state.is_closed());
        let is_new = |order: &&Order| order.attempt.is_none();
        open.filter(is_new).filter_map(|order| (order.deadline_at - now).to_std().ok()).min()
    }

    async fn there(&self, operation: &'static str) -> Result<(), StoreError> {
        self.pass(operation, Fault::StoreFailedBefore).await
    }

    async fn back(&self, operation: &'static str) -> Result<(), StoreError> {
        self.pass(operation, Fault::StoreFailedAfter).await
    }

    pub(crate) fn stay_away(&self, length: Duration) {
        self.strikes.hit(Fault::StoreAway);
        // No watchdog decides anything without its store, whatever it was at.
        let now = self.time.since_boot();
        (0..PROCESSES_MAX).for_each(|slot| self.strikes.held_up(slot, now, now + length + TRIED_AGAIN));
        self.state.lock().unwrap().away_until = Some(recharged::domain::plus(self.time.now(), length));
    }

    pub(crate) fn row(&self, id: &OrderId) -> Option<Order> {
        self.state.lock().unwrap().rows.get(id).cloned()
    }

    /// A command was announced.
    /// Whether an open case brings back the question about an order.
    pub(crate) fn is_asked_by_a_case(&self, id: &OrderId) -> bool {
        let state = self.state.lock().unwrap();
        let asks = |case: &Case| case.resolution.is_none() && case.next_query_at.is_some();
        state.cases.values().any(|case| case.key.order_id == *id && asks(case))
    }

    pub(crate) fn note_hint(&self, id: OrderId, version: u32) {
        self.state.lock().unwrap().hints.insert((id, version));
    }

    /// A lane let go of a command whose row may still be on its way.
    pub(crate) fn note_dropped(&self, id: OrderId, version: u32) {
        self.state.lock().unwrap().dropped.insert((id, version));
    }

    pub(crate) fn provider_terms(&self) -> &ProviderPolicy {
        &self.provider
    }

    /// When a version of an order was there for all to see.
    pub(crate) fn committed_at(&self, id: &OrderId, version: u32) -> Option<Timestamp> {
        self.state.lock().unwrap().committed.get(&(id.clone(), version)).copied()
    }

    /// The entries of the log, transaction by transaction.
    pub(crate) fn log(&self) -> Vec<LoggedEvent> {
        self.state.lock().unwrap().log.values().flatten().cloned().collect()
    }

    /// Looks at a transition that is about to be written.
    fn look_at(&self, state: &State, transition: &Transition) {
        let (after, event) = (&transition.after, &transition.event);
        let id = &after.order_id;
        let before = state.rows.get(id);
        let version = before.map_or(0, |row| row.version);
        self.findings.hold(Law::RowsAreLegal, after.version == version + 1, || {
            format!("{id}: version {} was written over {version}", after.version)
        });
        let from = before.map(|row| row.state);
        self.findings.hold(Law::RowsAreLegal, is_legal(from, event.kind, after.state), || {
            format!("{id}: {} led from {from:?} to {}", event.kind, after.state)
        });
        if let Some(before) = before.filter(|before| before.state.is_closed()) {
            let stays = (before.state, before.reason, before.closed_at, before.sla)
                == (after.state, after.reason, after.closed_at, after.sla);
            self.findings.hold(Law::RowsAreLegal, stays, || format!("{id}: left {} for {}", before.state, after.state));
        }
        let waits = matches!(event.kind, EventType::RetryScheduled | EventType::AttemptUpdated);
        if waits && after.asked_version == after.version {
            let is_announced = state.hints.contains(&(id.clone(), after.version));
            self.findings.hold(Law::HintFirst, is_announced, || format!("{id}: version {version} waits unannounced"));
        }
        let in_vain = state.dropped.contains(&(id.clone(), after.version));
        self.findings
            .hold(Law::Offsets, !in_vain, || format!("{id}: version {version} waits, and its command is gone"));
        let decides = transition.sla == Some(recharged::domain::Sla::Missed) && before.is_some();
        if decides {
            let is_time = self.time.now() + self.time.precision() >= after.deadline_at;
            self.findings.hold(Law::Deadline, is_time, || format!("{id}: missed before its deadline"));
        }
    }

    fn write(&self, state: &mut State, place: (i64, i64), transition: &Transition) {
        self.look_at(state, transition);
        let event = &transition.event;
        self.findings.trace(self.time.now(), event.order_id.as_str(), || format!("stored {}", event.to_line()));
        let order = &transition.after;
        state.committed.insert((order.order_id.clone(), order.version), self.time.now());
        state.rows.insert(order.order_id.clone(), order.clone());
        state.log.entry(place).or_default().push(transition.event.clone());
        if let Some(refund) = &transition.refund {
            state.refunds.entry(order.order_id.clone()).or_default().push(refund.clone());
            state.followed.extend(refund.confirm_by.map(|by| (by, order.order_id.clone())));
        }
        if transition.refund_news.is_some() {
            state.followed.retain(|(_, id)| *id != order.order_id);
        }
        if let Some(due_at) = transition.notify_at {
            state.timers.insert((due_at, order.order_id.clone()));
        }
        if let Some(told) = &transition.told {
            self.findings.trace(self.time.now(), order.order_id.as_str(), || format!("stored {}", told.to_line()));
            state.log.entry(place).or_default().push((**told).clone());
            if !is_planted(Bug::TellAfterTheEnd) {
                state.timers.retain(|(_, id)| *id != order.order_id);
            }
        }
        for change in &transition.cases {
            state.change_case(&order.order_id, transition.event.at, change);
        }
    }

    fn commit_inserts(&self, place: (i64, i64), batch: &[Transition]) -> Vec<Inserted> {
        let mut state = self.state.lock().unwrap();
        let mut answers = Vec::with_capacity(batch.len());
        for transition in batch {
            assert_eq!(transition.from_version, 0);
            let there = state.rows.get(&transition.after.order_id).cloned();
            if there.is_none() {
                self.write(&mut state, place, transition);
            }
            answers.push(there.map_or(Inserted::Stored, |row| Inserted::Exists(Box::new(row))));
        }
        answers
    }

    fn commit_moves(&self, place: (i64, i64), batch: &[Transition]) -> Vec<Written> {
        let (now, mut state) = (self.time.now(), self.state.lock().unwrap());
        let mut answers = Vec::with_capacity(batch.len());
        for transition in batch {
            let row = state.rows.get(&transition.after.order_id);
            let fits = row.is_some_and(|row| {
                let stays = !row.state.is_closed() || row.state == transition.after.state;
                (row.version == transition.from_version && stays && !state.is_late(transition, now))
                    || is_planted(Bug::SkipTheFence)
            });
            state.claims_overtaken += u32::from(!fits && transition.event.kind == EventType::Submitted);
            answers.push(if fits { Written::Stored } else { Written::Overtaken });
            if fits {
                self.write(&mut state, place, transition);
            }
        }
        answers
    }

    /// An open order with a new deadline that has passed is not stored.
    fn refuse_late(&self, batch: &[Transition]) -> Result<(), StoreError> {
        let (now, state) = (self.time.now(), self.state.lock().unwrap());
        if !batch.iter().any(|transition| state.is_late(transition, now)) {
            return Ok(());
        }
        let kind = StoreErrorKind::Contention;
        Err(StoreError { operation: "insert", kind, source: "a deadline passed".into() })
    }

    fn commit_timers(&self, place: (i64, i64), batch: &[LoggedEvent]) -> Vec<Written> {
        let mut state = self.state.lock().unwrap();
        let mut answers = Vec::with_capacity(batch.len());
        for event in batch {
            let id = &event.order_id;
            let fits = state.rows.get(id).is_some_and(|row| row.version == event.version);
            let set = state.timers.iter().find(|(_, of)| of == id).cloned();
            let fires = fits && (set.is_some() || is_planted(Bug::NotifyAgain));
            answers.push(if fires { Written::Stored } else { Written::Overtaken });
            if fires {
                self.findings.trace(self.time.now(), id.as_str(), || format!("stored {}", event.to_line()));
                state.timers.retain(|timer| Some(timer) != set.as_ref());
                state.log.entry(place).or_default().push(event.clone());
            }
        }
        answers
    }

    fn begin<'a>(&'a self, commit: Commit<'a>) -> Running<'a> {
        let mut state = self.state.lock().unwrap();
        state.next += 1;
        let xid = state.next;
        state.running.insert(xid);
        Running { store: self, xid, commit, is_over: false }
    }
}

#[derive(Debug, Clone, Copy)]
enum Commit<'a> {
    Inserts(&'a [Transition]),
    Moves(&'a [Transition]),
    Timers(&'a [LoggedEvent]),
}

/// A transaction: it has its place in the log from its beginning, and is seen from its end on.
struct Running<'a> {
    store: &'a MemStore,
    xid: i64,
    commit: Commit<'a>,
    is_over: bool,
}

impl Running<'_> {
    fn end(&mut self, commits: bool) -> (Vec<Inserted>, Vec<Written>) {
        self.is_over = true;
        // The sequence follows the transactions here; it would not have to.
        let place = (self.xid, self.xid);
        let answers = match self.commit {
            Commit::Inserts(batch) if commits => (self.store.commit_inserts(place, batch), Vec::new()),
            Commit::Moves(batch) if commits => (Vec::new(), self.store.commit_moves(place, batch)),
            Commit::Timers(batch) if commits => (Vec::new(), self.store.commit_timers(place, batch)),
            Commit::Inserts(_) | Commit::Moves(_) | Commit::Timers(_) => (Vec::new(), Vec::new()),
        };
        self.store.state.lock().unwrap().running.remove(&self.xid);
        answers
    }
}

impl Drop for Running<'_> {
    /// Its caller is gone; what was under way is done, or not.
    fn drop(&mut self) {
        if !self.is_over {
            let commits = self.store.roll(0.5);
            if commits {
                self.store.strikes.hit(Fault::CommitAfterDeath);
            }
            self.end(commits);
        }
    }
}

/// The table of `docs/STATE_MACHINE.md`: what may be written over a row in a state.
fn is_legal(from: Option<OrderState>, kind: EventType, to: OrderState) -> bool {
    use {EventType as E, OrderState as S};
    // What is told of an order that stays as it is: a contradiction by the shop, a cancellation too late, a refund.
    let is_aside = matches!(kind, E::CaseOpened | E::CancelRefused | E::RefundConfirmed);
    match from {
        None => matches!(
            (kind, to),
            (E::Accepted, S::AwaitingPayment)
                | (E::Queued, S::Queued)
                | (E::Cancelled, S::Cancelled)
                | (E::Failed, S::Failed)
        ),
        Some(from) if is_aside => from == to && !(from == S::AwaitingPayment && kind == E::CancelRefused),
        Some(S::AwaitingPayment) => {
            matches!((kind, to), (E::Queued, S::Queued) | (E::Failed, S::Failed) | (E::Cancelled, S::Cancelled))
        }
        Some(S::Queued) => matches!((kind, to), (E::Submitted, S::InFlight) | (E::Failed, S::Failed)),
        Some(S::InFlight) => matches!(
            (kind, to),
            (E::AttemptUpdated, S::InFlight)
                | (E::RetryScheduled, S::RetryWait)
                | (E::Succeeded, S::Succeeded)
                | (E::Failed, S::Failed)
                | (E::InDoubt, S::InDoubt)
        ),
        Some(S::RetryWait) => matches!(
            (kind, to),
            (E::Submitted | E::AttemptUpdated, S::InFlight)
                | (E::RetryScheduled, S::RetryWait)
                | (E::Succeeded, S::Succeeded)
                | (E::Failed, S::Failed)
        ),
        Some(S::InDoubt) => matches!(
            (kind, to),
            (E::AttemptUpdated | E::InDoubt, S::InDoubt) | (E::Succeeded, S::Succeeded) | (E::Failed, S::Failed)
        ),
        Some(S::Succeeded) => matches!((kind, to), (E::AttemptUpdated, S::Succeeded)),
        Some(S::Failed) => matches!((kind, to), (E::AttemptUpdated | E::CaseResolved, S::Failed)),
        // The refund of a payment that came after the end.
        Some(S::Cancelled) => matches!((kind, to), (E::Cancelled, S::Cancelled)),
    }
}

fn away(operation: &'static str) -> StoreError {
    StoreError { operation, kind: StoreErrorKind::Unreachable, source: "simulated".into() }
}

#[async_trait]
impl OrderStore for MemStore {
    async fn insert(&self, batch: &[Transition]) -> Result<Vec<Inserted>, StoreError> {
        self.there("insert").await?;
        self.refuse_late(batch)?;
        let mut running = self.begin(Commit::Inserts(batch));
        tokio::time::sleep(self.commit_time(batch)).await;
        let (answers, _) = running.end(true);
        self.back("insert").await?;
        Ok(answers)
    }

    async fn load(&self, ids: &[OrderId]) -> Result<Vec<Loaded>, StoreError> {
        self.there("load").await?;
        let state = self.state.lock().unwrap();
        Ok(ids.iter().map(|id| state.rows.get(id).cloned().map_or(Loaded::Absent, Loaded::Order)).collect())
    }

    async fn apply(&self, batch: &[Transition]) -> Result<Vec<Written>, StoreError> {
        self.there("apply").await?;
        let mut running = self.begin(Commit::Moves(batch));
        tokio::time::sleep(self.commit_time(batch)).await;
        let (_, answers) = running.end(true);
        self.back("apply").await?;
        Ok(answers)
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        Ok(self.time.now())
    }

    async fn check(&self) -> Result<(), SchemaError> {
        Ok(())
    }
}

/// Nothing is left to decide at its deadline.
pub(crate) fn is_undecided(order: &Order) -> bool {
    match order.state {
        OrderState::Succeeded | OrderState::Failed | OrderState::Cancelled => false,
        OrderState::InDoubt => order.sla.is_none(),
        OrderState::AwaitingPayment | OrderState::Queued | OrderState::InFlight | OrderState::RetryWait => true,
    }
}
