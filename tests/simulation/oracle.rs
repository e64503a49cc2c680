//! The reckoning, when all is quiet: what the provider truly did, what the store says, and what was
//! published, side by side.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use recharged::domain::event::replay;
use recharged::domain::{CaseKind, EventType, LoggedEvent, OnUnknown, Order, Reason, Sla, State, Timestamp};
use recharged::ports::OutRecord;
use serde_json::Value;

use crate::laws::{Law, Violation};
use crate::life::PRECISION;
use crate::weather::{Strikes, Weather};
use crate::world::World;

/// The watchdog looks so often for deadlines that it did not know of; and a little.
const LOOK_EVERY: Duration = Duration::from_millis(1_100);

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
    log: Vec<LoggedEvent>,
}

impl Report {
    pub(crate) fn of(&self, state: State) -> usize {
        self.states.get(state.as_str()).copied().unwrap_or_default()
    }

    /// What the figures say: every order is judged by its deadline once. Whoever died in between may have
    /// judged one and not counted it.
    pub(crate) fn counted(&mut self, counted: u64) {
        let judged = u64::try_from(self.states.values().sum::<usize>()).unwrap();
        if counted > judged {
            let what = format!("{judged} orders, and {counted} were counted");
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
        let dead = self.world.outside.broker.records("dead");
        // A broker that refuses again and again loses hints, which the watchdog asks for again.
        let refuses = self.world.weather.rates.broker > 0.0;
        let wrong = dead.iter().find(|letter| !refuses || !told(letter).starts_with("undeliverable"));
        self.hold(Law::EveryOrderEnds, wrong.is_none(), || format!("a dead letter: {}", told(wrong.unwrap())));
        for id in self.world.sold() {
            match rows.get(id.as_str()) {
                Some(row) => self.look_at(row),
                None => self.hold(Law::EveryOrderEnds, false, || format!("{id} was lost")),
            }
        }
        self.look_at_published(&rows);
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
            weather: self.world.weather.clone(),
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
                self.hold(Law::RefundedOnce, refunds == 1, || format!("{id} failed, and was refunded {refunds} times"));
            }
            State::InDoubt => {
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
                self.hold(Law::RefundedOnce, refunds == wanted, || {
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

    fn look_at_deadline(&self, row: &Order) {
        let id = row.order_id.as_str();
        let mine: Vec<&LoggedEvent> = self.log.iter().filter(|event| event.order_id == row.order_id).collect();
        let mut known = None;
        let mut news = |event: &&&LoggedEvent| {
            let is_news = event.data.sla.is_some() && event.data.sla != known;
            known = event.data.sla.or(known);
            is_news
        };
        let judged: Vec<(Timestamp, Option<Sla>)> =
            mine.iter().filter(&mut news).map(|event| (event.at, event.data.sla)).collect();
        self.hold(Law::Counted, judged.len() <= 1, || format!("{id}: its deadline was judged {} times", judged.len()));
        let is_met = judged.first().is_some_and(|(_, sla)| *sla == Some(Sla::Met));
        // What the shop cancels itself has no deadline any more.
        if is_met || row.reason == Some(Reason::CancelledUpstream) {
            return;
        }
        let unpaid = || mine.iter().find(|event| event.data.state == State::Cancelled).map(|event| event.at);
        let decided_at = judged.first().map(|(at, _)| *at).or_else(unpaid);
        let Some(at) = decided_at else {
            self.hold(Law::Deadline, false, || format!("{id} was never judged by its deadline"));
            return;
        };
        // When this deadline was set: with the order, or with its payment.
        let set_at = mine.iter().find(|event| event.data.deadline_at == row.deadline_at).map(|event| event.at);
        let set_at = set_at.unwrap_or(row.deadline_at);
        let late = at - set_at.max(row.deadline_at);
        let is_missed = at - row.deadline_at >= -chrono::TimeDelta::from_std(PRECISION).unwrap();
        self.hold(Law::Deadline, is_missed, || format!("{id} missed its deadline {late} before it"));
        let at_the_last_moment = set_at + LOOK_EVERY > row.deadline_at;
        let bound = self.patience(row) + if at_the_last_moment { LOOK_EVERY } else { Duration::ZERO };
        self.hold(Law::Deadline, late.to_std().unwrap_or_default() <= bound, || {
            format!("{id} was decided {late} after its deadline, {bound:?} allowed")
        });
    }

    /// A quarter of a second; 8 s where somebody has died; and as long as nobody was there.
    fn patience(&self, row: &Order) -> Duration {
        let epoch = Timestamp::from_timestamp(1_800_000_000, 0).unwrap();
        let deadline = (row.deadline_at - epoch).to_std().unwrap_or_default();
        // Those that reach the deadline, or into the time in which its consequences are drawn.
        let (mut until, mut disturbed) = (deadline, false);
        let mut left = self.world.disturbances.clone();
        left.sort();
        for (from, to) in left {
            if from <= until + Duration::from_secs(8) && to + Duration::from_secs(8) >= deadline {
                disturbed = true;
                until = until.max(to);
            }
        }
        let rates = &self.world.weather.rates;
        let is_slow = rates.store_slow > 0.0 || rates.commit_slow > 0.0 || rates.commit_behind > 0.0;
        let calm = match (is_slow, rates.store > 0.0) {
            (true, _) => Duration::from_secs(12),
            // It fails at once, several times on end.
            (false, true) => Duration::from_secs(3),
            (false, false) => Duration::from_millis(250),
        };
        until.saturating_sub(deadline) + if disturbed { Duration::from_secs(12) } else { calm }
    }

    /// Each log entry reaches the world at least once, per order in order after deduplication; one refund
    /// is asked for where the store says so.
    fn look_at_published(&self, rows: &BTreeMap<String, Order>) {
        let mut seen: HashMap<String, u64> = HashMap::new();
        let mut bodies: HashMap<(String, u64), Value> = HashMap::new();
        for record in self.world.outside.broker.records("events") {
            let body = body(&record);
            let (id, version) = (body["order_id"].as_str().unwrap().to_owned(), body["version"].as_u64().unwrap());
            let last = seen.entry(id.clone()).or_default();
            self.hold(Law::Published, version <= *last + 1, || format!("{id}: version {version} came after {last}"));
            *last = (*last).max(version);
            let same = bodies.entry((id.clone(), version)).or_insert_with(|| body.clone()) == &body;
            self.hold(Law::Published, same, || format!("{id}: version {version} was told in two ways"));
        }
        for (id, row) in rows {
            let last = seen.get(id).copied().unwrap_or_default();
            let all = last == u64::from(row.version);
            self.hold(Law::Published, all, || format!("{id}: published up to {last} of {}", row.version));
        }
        let mut asked: HashMap<String, String> = HashMap::new();
        for record in self.world.outside.broker.records("refunds") {
            let body = body(&record);
            let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
            let id = record.headers.iter().find(|(name, _)| name.as_ref() == b"ce_id");
            let id = id.and_then(|(_, value)| value.as_ref()).map(|v| String::from_utf8_lossy(v).into_owned());
            let id = id.unwrap_or_default();
            let first = asked.entry(text("order_id")).or_insert_with(|| id.clone()).clone();
            self.hold(Law::RefundedOnce, first == id, || format!("{} is to be refunded twice", text("order_id")));
        }
        for (id, row) in rows {
            let agrees = asked.contains_key(id) == row.refund_requested;
            self.hold(Law::RefundedOnce, agrees, || format!("{id}: its refund was not asked for as the row says"));
        }
    }

    /// In no window did more arrive than rate × (window + 0.25 s) + burst: a bucket of burst and 0.25 s that
    /// empties at the rate never overflows.
    fn look_at_quota(&self) {
        let rate = self.world.weather.permits_per_second;
        let room = f64::from(self.world.outside.terms.burst) + 0.25 * rate;
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

fn body(record: &OutRecord) -> Value {
    serde_json::from_slice(record.value.as_ref().unwrap()).unwrap()
}

/// What is said of a dead letter.
fn told(record: &OutRecord) -> String {
    let headers = record.headers.iter().rev().take(7).rev();
    headers
        .filter_map(|(_, value)| Some(String::from_utf8_lossy(value.as_ref()?).into_owned()))
        .collect::<Vec<_>>()
        .join(", ")
}
