//! A store in memory that is slow, fails before a write, and fails after it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recharged::domain::{
    AttemptState, EventType, LoggedEvent, Order, OrderId, ProviderId, State as OrderState, Timestamp, Transition,
};
use recharged::ports::{
    Case, Clock, DeadlineBook, DeadlinePosition, EventLog, Grant, Held, Hold, Horizon, Inserted, LogBatch, LogPosition,
    OrderStore, Questions, Quota, Reservation, SchemaError, StoreError, StoreErrorKind, Written,
};

mod nets;

#[derive(Debug)]
pub(crate) struct MemStore {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) state: Mutex<State>,
    rng: Mutex<StdRng>,
    /// Of 1: how often an operation fails before it is done, and how often after.
    fails: f64,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) rows: BTreeMap<OrderId, Order>,
    pub(crate) log: Vec<LoggedEvent>,
    pub(crate) refunds: HashMap<OrderId, u32>,
    /// Claims that met a row which had moved.
    pub(crate) claims_overtaken: u32,
    cursor: LogPosition,
    low_water: Timestamp,
    /// Whoever inserts is cut off until then; everybody else is not.
    pub(crate) no_inserts_until: Option<Timestamp>,
    held: HashMap<OrderId, (Timestamp, u32)>,
    pub(crate) cases: BTreeMap<(OrderId, &'static str), Case>,
    read_marks: HashMap<(String, i32), Timestamp>,
    tat: HashMap<ProviderId, i128>,
    paused_until: HashMap<ProviderId, Timestamp>,
}

impl MemStore {
    pub(crate) fn new(clock: Arc<dyn Clock>, seed: u64, fails: f64) -> Self {
        Self { clock, state: Mutex::default(), rng: Mutex::new(StdRng::seed_from_u64(seed)), fails }
    }

    async fn pass(&self, operation: &'static str) -> Result<(), StoreError> {
        let (wait, fails) = {
            let mut rng = self.rng.lock().unwrap();
            (rng.random_range(200..8_000), rng.random_bool(self.fails))
        };
        tokio::time::sleep(Duration::from_micros(wait)).await;
        let cut_off = operation == "insert" && self.state.lock().unwrap().no_inserts_until > Some(self.clock.now());
        if fails || cut_off { Err(away(operation)) } else { Ok(()) }
    }
}

fn away(operation: &'static str) -> StoreError {
    StoreError { operation, kind: StoreErrorKind::Unreachable, source: "simulated".into() }
}

impl State {
    fn write(&mut self, transition: &Transition) {
        self.rows.insert(transition.after.order_id.clone(), transition.after.clone());
        self.log.push(transition.event.clone());
        if transition.refund.is_some() {
            *self.refunds.entry(transition.after.order_id.clone()).or_default() += 1;
        }
        for change in &transition.cases {
            self.change_case(&transition.after.order_id, transition.event.at, change);
        }
    }
}

#[async_trait]
impl OrderStore for MemStore {
    async fn insert(&self, batch: &[Transition]) -> Result<Vec<Inserted>, StoreError> {
        self.pass("insert").await?;
        let mut answers = Vec::new();
        {
            let mut state = self.state.lock().unwrap();
            for transition in batch {
                assert_eq!(transition.from_version, 0);
                let there = state.rows.get(&transition.after.order_id).cloned();
                if there.is_none() {
                    state.write(transition);
                }
                answers.push(there.map_or(Inserted::Stored, |row| Inserted::Exists(Box::new(row))));
            }
        }
        self.pass("insert").await?;
        Ok(answers)
    }

    async fn load(&self, ids: &[OrderId]) -> Result<Vec<Option<Order>>, StoreError> {
        self.pass("load").await?;
        let state = self.state.lock().unwrap();
        Ok(ids.iter().map(|id| state.rows.get(id).cloned()).collect())
    }

    async fn apply(&self, batch: &[Transition]) -> Result<Vec<Written>, StoreError> {
        self.pass("apply").await?;
        let mut answers = Vec::new();
        {
            let mut state = self.state.lock().unwrap();
            for transition in batch {
                let fits = state
                    .rows
                    .get(&transition.after.order_id)
                    .is_some_and(|row| row.version == transition.from_version);
                state.claims_overtaken += u32::from(!fits && transition.event.kind == EventType::Submitted);
                answers.push(if fits { Written::Stored } else { Written::Overtaken });
                if fits {
                    state.write(transition);
                }
            }
        }
        self.pass("apply").await?;
        Ok(answers)
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        Ok(self.clock.now())
    }

    async fn check(&self) -> Result<(), SchemaError> {
        Ok(())
    }
}

/// Writes are done at once, so nothing is ever under way unseen.
#[async_trait]
impl DeadlineBook for MemStore {
    async fn low_water(&self) -> Result<Timestamp, StoreError> {
        self.pass("low_water").await?;
        Ok(self.state.lock().unwrap().low_water)
    }

    async fn raise_low_water(&self, to: Timestamp) -> Result<(), StoreError> {
        self.pass("raise_low_water").await?;
        let mut state = self.state.lock().unwrap();
        state.low_water = state.low_water.max(to);
        Ok(())
    }

    async fn horizon(&self) -> Result<Horizon, StoreError> {
        self.pass("horizon").await?;
        Ok(Horizon { oldest: 0, next: 0 })
    }

    async fn undecided(
        &self,
        after: &DeadlinePosition,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Order>, StoreError> {
        self.pass("undecided").await?;
        let state = self.state.lock().unwrap();
        let key = |order: &Order| (order.deadline_at, Some(order.order_id.clone()));
        let is_undecided = |order: &&Order| match order.state {
            OrderState::Succeeded | OrderState::Failed | OrderState::Cancelled => false,
            OrderState::InDoubt => order.sla.is_none(),
            OrderState::AwaitingPayment | OrderState::Queued | OrderState::InFlight | OrderState::RetryWait => true,
        };
        let behind = (after.at, after.order_id.clone());
        let mut due: Vec<Order> = state
            .rows
            .values()
            .filter(is_undecided)
            .filter(|order| order.deadline_at <= until && key(order) > behind)
            .cloned()
            .collect();
        due.sort_by_key(key);
        due.truncate(limit);
        Ok(due)
    }

    async fn unanswered(
        &self,
        provider: &ProviderId,
        claimed_before: Timestamp,
        after: &DeadlinePosition,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Order>, StoreError> {
        self.pass("unanswered").await?;
        let state = self.state.lock().unwrap();
        let key = |order: &Order| (order.deadline_at, Some(order.order_id.clone()));
        let is_unanswered = |order: &&Order| {
            let sent = order.attempt.as_ref().filter(|attempt| attempt.state == AttemptState::Sent);
            order.state == OrderState::InFlight
                && order.provider.as_ref() == Some(provider)
                && sent.is_some_and(|attempt| attempt.claimed_at < claimed_before)
        };
        let behind = (after.at, after.order_id.clone());
        let all = state.rows.values().filter(is_unanswered);
        let mut found: Vec<Order> = all.filter(|o| o.deadline_at <= until && key(o) > behind).cloned().collect();
        found.sort_by_key(key);
        found.truncate(limit);
        Ok(found)
    }
}

#[async_trait]
impl Questions for MemStore {
    async fn hold(&self, batch: &[Hold], now: Timestamp) -> Result<Vec<Held>, StoreError> {
        self.pass("hold").await?;
        let mut answers = Vec::new();
        {
            let mut state = self.state.lock().unwrap();
            for hold in batch {
                let fits = state.rows.get(&hold.order_id).is_some_and(|row| row.asked_version == hold.asked_version);
                let taken = state.held.get(&hold.order_id).copied();
                let is_free = taken.is_none_or(|(until, _)| until <= now || Some(until) == hold.replaces);
                answers.push(if fits && is_free {
                    state.held.insert(hold.order_id.clone(), (hold.until, hold.asked_version));
                    Held::Granted
                } else {
                    let taken = taken.filter(|(until, _)| *until > now);
                    Held::Taken { until: taken.map(|it| it.0), asked_version: taken.map(|it| it.1) }
                });
            }
        }
        self.pass("hold").await?;
        Ok(answers)
    }
}

#[async_trait]
impl EventLog for MemStore {
    async fn read_log(&self, after: LogPosition, limit: usize) -> Result<Vec<LogBatch>, StoreError> {
        self.pass("read log").await?;
        let state = self.state.lock().unwrap();
        let from = usize::try_from(after.seq).unwrap();
        Ok((from + 1..)
            .zip(state.log.iter().skip(from).take(limit))
            .map(|(seq, event)| LogBatch {
                position: LogPosition { xid: 1, seq: i64::try_from(seq).unwrap() },
                entries: event.to_line(),
            })
            .collect())
    }

    async fn cursor(&self) -> Result<LogPosition, StoreError> {
        self.pass("cursor").await?;
        Ok(self.state.lock().unwrap().cursor)
    }

    async fn advance_cursor(&self, from: LogPosition, to: LogPosition) -> Result<bool, StoreError> {
        self.pass("advance").await?;
        let moved = {
            let mut state = self.state.lock().unwrap();
            let fits = state.cursor == from;
            if fits {
                state.cursor = to;
            }
            fits
        };
        self.pass("advance").await?;
        Ok(moved)
    }

    async fn timeline(&self, order_id: &OrderId) -> Result<Vec<LoggedEvent>, StoreError> {
        let state = self.state.lock().unwrap();
        Ok(state.log.iter().filter(|event| event.order_id == *order_id).cloned().collect())
    }
}

#[async_trait]
impl Quota for MemStore {
    async fn reserve(&self, reservation: &Reservation) -> Result<Grant, StoreError> {
        self.pass("reserve").await?;
        let now = self.clock.now();
        let mut state = self.state.lock().unwrap();
        if let Some(until) = state.paused_until.get(&reservation.provider).filter(|until| **until > now) {
            return Ok(Grant { send_at: Vec::new(), ask_again_at: Some(*until) });
        }
        let nanos = |at: Timestamp| i128::from(at.timestamp_micros()) * 1_000;
        let interval = i128::try_from(reservation.terms.interval.as_nanos()).unwrap();
        let tolerance = interval * i128::from(reservation.terms.burst - 1);
        let horizon = nanos(now) + interval.max(100_000_000);
        let tat = state.tat.entry(reservation.provider.clone()).or_default();
        *tat = (*tat).max(nanos(now));
        let mut send_at = Vec::new();
        for _ in 0..reservation.wanted {
            let at = (*tat - tolerance).max(nanos(now));
            if at > horizon {
                break;
            }
            // Rounded up: a permit never leaves before its moment.
            send_at.push(Timestamp::from_timestamp_micros(i64::try_from((at + 999) / 1_000).unwrap()).unwrap());
            *tat += interval;
        }
        let short = send_at.len() < reservation.wanted as usize;
        let again = now + Duration::from_millis(50);
        Ok(Grant { send_at, ask_again_at: short.then_some(again) })
    }

    async fn pause(&self, provider: &ProviderId, until: Timestamp) -> Result<(), StoreError> {
        let mut state = self.state.lock().unwrap();
        let paused = state.paused_until.entry(provider.clone()).or_insert(until);
        *paused = (*paused).max(until);
        Ok(())
    }
}
