//! The reckoning, when all is quiet: what the provider truly did, what the store says, and what was
//! published, side by side.

mod deadline;
mod published;
mod refunds;

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use recharged::domain::event::replay;
use recharged::domain::{
    AttemptState, CaseKind, EventType, LoggedEvent, OnUnknown, Order, Reason, State, Timestamp, plus,
};
use recharged::ports::OutRecord;

use crate::laws::{Law, Violation};
use crate::life::{EPOCH, PRECISION};
use crate::weather::{Fault, Strikes, Weather};
use crate::world::World;

/// A provider that is well is asked so soon after the time of a question, and its answer is settled.
const SETTLES: Duration = Duration::from_secs(15);

/// What is left of a run.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) weather: Weather,
    pub(crate) violations: Vec<Violation>,
    pub(crate) strikes: Arc<Strikes>,
    /// The same for the same run.
    pub(crate) fingerprint: u64,
    pub(crate) states: BTreeMap<&'static str, usize>,
    /// Claims that met a row which had moved since it was left at hand, or read.
    pub(crate) claims_overtaken: u32,
    /// Orders that lost a command.
    pub(crate) lost: usize,
    /// Orders that missed their deadline; and those of them that were held to the shortest bound.
    pub(crate) missed: [usize; 2],
    /// Orders that met their deadline or missed it, by their rows.
    judged: u64,
    /// When requests came to the provider.
    pub(crate) arrivals: Vec<Timestamp>,
    log: Vec<LoggedEvent>,
}

impl Report {
    pub(crate) fn of(&self, state: State) -> usize {
        self.states.get(state.as_str()).copied().unwrap_or_default()
    }

    /// What the figures say: every order that was paid is judged by its deadline once. Whoever died in between, or
    /// did not hear that it was written, may have judged one and not counted it.
    pub(crate) fn counted(&mut self, counted: u64) {
        const UNHEARD: [Fault; 6] = [
            Fault::Crash,
            Fault::CrashAtAnOperation,
            Fault::CommitAfterDeath,
            Fault::StoreFailedAfter,
            Fault::StoreAway,
            Fault::CutOffFromTheStore,
        ];
        let (judged, all_heard) = (self.judged, UNHEARD.iter().all(|fault| self.strikes.of(*fault) == 0));
        if counted > judged || (counted < judged && all_heard) {
            let what = format!("{judged} orders were judged by their deadlines, and {counted} were counted");
            self.violations.push(Violation { law: Law::Counted, what });
        }
    }

    /// How long after its claim each send that lost its caller was taken over.
    pub(crate) fn adoptions(&self) -> Vec<chrono::TimeDelta> {
        let mut claimed: HashMap<&str, Timestamp> = HashMap::new();
        let mut found = Vec::new();
        for event in &self.log {
            if event.kind == EventType::Submitted {
                claimed.insert(event.order_id.as_str(), event.at);
            } else if event.data.cause.as_deref() == Some("caller_lost") {
                found.push(event.at - claimed[event.order_id.as_str()]);
            }
        }
        found
    }
}

pub(crate) fn judge(world: &World) -> Report {
    let oracle = Oracle {
        world,
        hold_ups: (0..world.weather.processes).map(|slot| world.strikes.hold_ups(slot)).collect(),
        missed: Cell::default(),
        log: world.outside.store.log(),
        delivered: delivered_by_order(world),
        refunds: world
            .outside
            .store
            .state
            .lock()
            .unwrap()
            .refunds
            .iter()
            .map(|(id, made)| (id.to_string(), made.len()))
            .collect(),
    };
    oracle.judge()
}

struct Oracle<'a> {
    world: &'a World,
    /// When the watchdog of each process was held up.
    hold_ups: Vec<Vec<(Duration, Duration)>>,
    missed: Cell<[usize; 2]>,
    log: Vec<LoggedEvent>,
    delivered: HashMap<String, u32>,
    refunds: HashMap<String, usize>,
}

fn delivered_by_order(world: &World) -> HashMap<String, u32> {
    let mut delivered: HashMap<String, u32> = HashMap::new();
    for (reference, count) in world.outside.provider.delivered() {
        let order = reference.rsplit_once('-').map_or(reference.as_str(), |(order, _)| order);
        *delivered.entry(order.to_owned()).or_default() += count;
    }
    delivered
}

impl Oracle<'_> {
    fn hold(&self, law: Law, holds: bool, what: impl FnOnce() -> String) {
        self.world.findings.hold(law, holds, what);
    }

    fn judge(self) -> Report {
        let rows: BTreeMap<String, Order> = {
            let state = self.world.outside.store.state.lock().unwrap();
            state.rows.iter().map(|(id, row)| (id.to_string(), row.clone())).collect()
        };
        let dead = self.world.outside.broker.written("dead");
        // A broker that refuses again and again loses hints, which the watchdog asks for again.
        let refuses = self.world.weather.rates.broker > 0.0;
        let is_expected = |text: &str| refuses && text.starts_with("undeliverable") || text.starts_with("orphan");
        let wrong = dead.iter().map(|(letter, _)| told(letter)).find(|text| !is_expected(text));
        self.hold(Law::EveryOrderEnds, wrong.is_none(), || format!("a dead letter: {}", wrong.unwrap()));
        self.look_at_orphans(&dead);
        for id in self.world.sold() {
            match rows.get(id.as_str()) {
                Some(row) => self.look_at(row),
                None => self.hold(Law::EveryOrderEnds, false, || format!("{id} was lost")),
            }
        }
        self.look_at_published(&rows);
        self.look_at_refunds(&rows);
        self.look_at_quota();
        let mut states = BTreeMap::new();
        for row in rows.values() {
            *states.entry(row.state.as_str()).or_default() += 1;
        }
        Report {
            violations: self.world.findings.take(),
            fingerprint: self.fingerprint(),
            strikes: Arc::clone(&self.world.strikes),
            claims_overtaken: self.world.outside.store.state.lock().unwrap().claims_overtaken,
            lost: self.world.outside.broker.lost(),
            missed: self.missed.get(),
            weather: self.world.weather.clone(),
            judged: rows.values().filter(|row| row.sla.is_some()).count() as u64,
            arrivals: self.world.outside.provider.arrivals(),
            states,
            log: self.log,
        }
    }

    fn look_at(&self, row: &Order) {
        let id = row.order_id.as_str();
        let delivered = self.delivered.get(id).copied().unwrap_or_default();
        let refunds = self.refunds.get(id).copied().unwrap_or_default();
        let open = |kinds: &[CaseKind]| {
            let state = self.world.outside.store.state.lock().unwrap();
            let case = |kind: &CaseKind| state.cases.get(&(row.order_id.clone(), kind.as_str()));
            kinds.iter().any(|kind| case(kind).is_some_and(|case| case.resolution.is_none()))
        };
        self.hold(Law::ExecutedOnce, delivered <= 1, || format!("{id} was delivered {delivered} times"));
        match row.state {
            State::Succeeded => {
                self.hold(Law::ExecutedOnce, delivered >= 1, || format!("{id} succeeded without a delivery"));
                let flagged = open(&[CaseKind::LateSuccess]);
                self.hold(Law::RefundedOnce, refunds == 0 || flagged, || format!("{id} succeeded, and was refunded"));
            }
            State::Failed => {
                let explained = open(&[CaseKind::FailedUnproven, CaseKind::LateSuccess]);
                self.hold(Law::ExecutedOnce, delivered == 0 || explained, || format!("{id} failed, and was delivered"));
                // Whatever was asked at the end of what the provider remembers was answered.
                let is_told = open(&[CaseKind::LateSuccess]) || !self.was_answerable(row);
                self.hold(Law::EveryOrderEnds, delivered == 0 || is_told, || {
                    format!("{id}: nobody heard of its delivery")
                });
                self.hold(Law::RefundedOnce, refunds == 1, || format!("{id} failed, and was refunded {refunds} times"));
            }
            State::InDoubt => {
                self.look_at_doubt(row);
                let explained = row.has_open_attempt() && open(&[CaseKind::InDoubt]);
                self.hold(Law::ExecutedOnce, explained, || format!("{id} is in doubt without an attempt and a case"));
                let wanted = usize::from(self.world.outside.policy.on_unknown == OnUnknown::RefundFlagged);
                self.hold(Law::RefundedOnce, refunds == wanted, || {
                    format!("{id} is in doubt, refunded {refunds} times")
                });
            }
            State::Cancelled => {
                self.hold(Law::ExecutedOnce, delivered == 0, || format!("{id} was cancelled, and delivered"));
                let wanted = usize::from(self.world.shop.paid.contains(&row.order_id));
                let is_refunded = refunds == wanted || refunds == 0 && self.is_given_up(id);
                self.hold(Law::RefundedOnce, is_refunded, || {
                    format!("{id} was cancelled, {wanted} payments came, and it was refunded {refunds} times")
                });
                let is_legal = match row.reason {
                    Some(Reason::Unpaid) => true,
                    Some(Reason::CancelledUpstream) => self.world.shop.cancelled.contains(&row.order_id),
                    _ => false,
                };
                self.hold(Law::RowsAreLegal, is_legal, || format!("{id} was cancelled for {:?}", row.reason));
            }
            State::Queued | State::RetryWait | State::AwaitingPayment | State::InFlight => {
                self.hold(Law::EveryOrderEnds, false, || format!("{id} rests as {}", row.state));
            }
        }
        self.look_at_deadline(row);
        let mine: Vec<LoggedEvent> = self.log.iter().filter(|e| e.order_id == row.order_id).cloned().collect();
        let rebuilt = replay(&mine, &row.recipient);
        self.hold(Law::RowsAreLegal, rebuilt.is_ok_and(|rebuilt| rebuilt.as_ref() == Some(row)), || {
            format!("the log of {id} does not rebuild it")
        });
    }

    /// What the provider knew in time is settled, whatever went wrong before.
    fn look_at_doubt(&self, row: &Order) {
        let is_overdue = self.was_answerable(row);
        self.hold(Law::EveryOrderEnds, !is_overdue, || {
            format!("{} stays in doubt, and the provider knew: {:?}", row.order_id, row.attempt)
        });
    }

    /// Whether the provider knew what became of the current attempt, and was well, before it was asked for the
    /// last time.
    fn was_answerable(&self, row: &Order) -> bool {
        let Some(attempt) = &row.attempt else { return false };
        let known_at = self.world.outside.provider.ended_at(attempt.client_ref.as_str());
        // The loss of the last question is noticed a minute after its time, when this provider, which remembers five
        // minutes and not weeks, has forgotten the attempt.
        let has_lost = self.world.outside.broker.has_lost(row.order_id.as_str());
        let may_be_asked = !has_lost && (attempt.state.is_open() || attempt.state == AttemptState::NotExecuted);
        let last = self.world.last_query(attempt.claimed_at);
        let well_at = plus(EPOCH, self.world.healed_at);
        known_at.is_some_and(|known_at| may_be_asked && plus(known_at.max(well_at), SETTLES) <= last)
    }

    /// In no window did more arrive than rate × (window + 0.25 s) + burst: a bucket of burst and 0.25 s that
    /// empties at the rate never overflows.
    fn look_at_quota(&self) {
        let rate = self.world.weather.permits_per_second;
        // A process whose clock is wrong takes a permit for due that is not, by as much.
        let wrong = self.world.time.precision().saturating_sub(PRECISION).as_secs_f64();
        let room = f64::from(self.world.outside.terms.burst) + (0.25 + wrong) * rate;
        let (mut level, mut last) = (0.0_f64, None);
        for at in self.world.outside.provider.arrivals() {
            let passed = last.map_or(0.0, |last: Timestamp| (at - last).as_seconds_f64());
            level = (level - passed * rate).max(0.0) + 1.0;
            last = Some(at);
            self.hold(Law::Quota, level <= room + 1e-6, || {
                format!("{level} requests at {at}, where {room} are allowed")
            });
        }
    }

    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for event in &self.log {
            (event.order_id.as_str(), event.version, event.kind.as_str(), event.at).hash(&mut hasher);
        }
        self.world.outside.provider.arrivals().hash(&mut hasher);
        hasher.finish()
    }
}

/// What is said of a dead letter.
fn told(record: &OutRecord) -> String {
    let headers = record.headers.iter().rev().take(7).rev();
    headers
        .filter_map(|(_, value)| Some(String::from_utf8_lossy(value.as_ref()?).into_owned()))
        .collect::<Vec<_>>()
        .join(", ")
}
