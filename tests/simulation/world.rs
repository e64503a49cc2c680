//! One simulated life: a process of roles, its crashes, and the reckoning at the end.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recharged::domain::event::replay;
use recharged::domain::msisdn::PhoneKey;
use recharged::domain::{
    DuplicateSemantics, EventType, LoggedEvent, OnUnknown, Order, Policy, ProviderId, ProviderPolicy, Sla, State,
    Timestamp,
};
use recharged::metrics::{DelayMetrics, IntakeMetrics, LaneMetrics, RelayMetrics, WatchdogMetrics};
use recharged::ports::{Clock, LaneTopics, OutRecord, QuotaTerms, RechargeProvider};
use recharged::roles::commands::CommandWriter;
use recharged::roles::delay::{Delay, DelayRules};
use recharged::roles::delayed::DelayTiers;
use recharged::roles::dispatch::{Lane, LaneParts, LaneRules};
use recharged::roles::intake::{Intake, IntakeRules};
use recharged::roles::relay::{Relay, RelayTopics};
use recharged::roles::watchdog::{Watchdog, WatchdogRules};
use recharged::roles::{RoleError, RowsAtHand, StopSignals};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::broker::MemBroker;
use crate::provider::SimProvider;
use crate::store::MemStore;

/// What goes wrong, and how much work there is.
#[derive(Debug, Clone)]
pub(crate) struct Faults {
    pub(crate) orders: u32,
    pub(crate) permits_per_second: f64,
    pub(crate) provider: f64,
    pub(crate) store: f64,
    pub(crate) broker: f64,
    pub(crate) crashes: u32,
    /// Of 1: orders sent twice.
    pub(crate) repeats: f64,
    /// Of 1: the second ones that name another amount. A case is opened, and the row moves while
    /// its first version is at hand for its claim.
    pub(crate) contradictions: f64,
    /// Of 1: commands that the broker acknowledges and loses.
    pub(crate) lost: f64,
    /// Whoever inserts is cut off from the store for so long at the beginning, and nobody dispatches.
    pub(crate) cut_off: Option<Duration>,
}

impl Faults {
    pub(crate) fn none() -> Self {
        Self {
            orders: 200,
            permits_per_second: 100.0,
            provider: 0.0,
            store: 0.0,
            broker: 0.0,
            crashes: 0,
            repeats: 0.1,
            contradictions: 0.5,
            lost: 0.0,
            cut_off: None,
        }
    }
    pub(crate) fn provider() -> Self {
        Self { provider: 0.08, ..Self::none() }
    }
    pub(crate) fn infrastructure() -> Self {
        Self { store: 0.05, broker: 0.05, ..Self::none() }
    }
    pub(crate) fn everything() -> Self {
        Self { provider: 0.05, store: 0.03, broker: 0.03, crashes: 3, ..Self::none() }
    }
}

/// Tokio's paused time as the store's clock; `since_boot` can jump ahead, as after a stop.
#[derive(Debug)]
pub(crate) struct SimClock {
    start: tokio::time::Instant,
    jumped_ms: AtomicU64,
}

const EPOCH: i64 = 1_800_000_000;

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let passed = i64::try_from(self.since_boot().as_micros()).unwrap();
        Timestamp::from_timestamp_micros(EPOCH * 1_000_000 + passed).unwrap()
    }
    fn since_boot(&self) -> Duration {
        self.start.elapsed() + Duration::from_millis(self.jumped_ms.load(Ordering::SeqCst))
    }
}

pub(crate) struct World {
    faults: Faults,
    rng: StdRng,
    clock: Arc<SimClock>,
    store: Arc<MemStore>,
    broker: Arc<MemBroker>,
    provider: Arc<SimProvider>,
    policy: Policy,
    terms: QuotaTerms,
    /// Orders whose process died while they were in flight.
    orphaned: Mutex<u32>,
}

impl World {
    pub(crate) fn new(seed: u64, faults: Faults) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let clock = Arc::new(SimClock { start: tokio::time::Instant::now(), jumped_ms: AtomicU64::new(0) });
        let semantics = [
            DuplicateSemantics::RejectsAlways,
            DuplicateSemantics::RejectsUnlessFailed,
            DuplicateSemantics::ReplaysResult,
            DuplicateSemantics::NotDeduplicated,
        ];
        let semantics = semantics[rng.random_range(0..4)];
        let provider = Arc::new(SimProvider::new(clock.clone(), rng.random(), faults.provider, semantics));
        let terms = QuotaTerms {
            interval: Duration::from_secs_f64(1.0 / faults.permits_per_second),
            burst: 10,
            query_share: 0.2,
            retry_share: 0.2,
        };
        let policy = Policy {
            sla: Duration::from_secs(180),
            unpaid_timeout: Duration::from_secs(1800),
            on_unknown: OnUnknown::Hold,
            reconcile_within: Duration::from_secs(72 * 3600),
            max_attempts: 4,
            backoff_first: Duration::from_secs(2),
            backoff_max: Duration::from_secs(60),
            providers: HashMap::from([(
                provider.id().clone(),
                ProviderPolicy {
                    capabilities: provider.capabilities().clone(),
                    expected_service: Duration::from_secs(2),
                    send_window: Duration::from_secs(1),
                },
            )]),
        };
        Self {
            store: Arc::new(MemStore::new(clock.clone(), rng.random(), faults.store)),
            broker: MemBroker::new(clock.clone(), rng.random(), faults.broker, faults.lost),
            provider,
            faults,
            rng,
            clock,
            policy,
            terms,
            orphaned: Mutex::new(0),
        }
    }

    pub(crate) async fn run(mut self) -> Report {
        self.store.state.lock().unwrap().no_inserts_until =
            self.faults.cut_off.map(|length| recharged::domain::plus(self.clock.now(), length));
        let mut process = self.start();
        let crash_every = self.faults.orders / (self.faults.crashes + 1);
        for number in 0..self.faults.orders {
            self.produce(number);
            let gap = self.rng.random_range(1..30);
            tokio::time::sleep(Duration::from_millis(gap)).await;
            let crashes = self.faults.crashes > 0 && number > 0 && number % crash_every == 0;
            if crashes {
                process.crash().await;
                *self.orphaned.lock().unwrap() += 1;
                // A stop of the machine: its clocks go on, and what was claimed is too old to send.
                let stop = self.rng.random_range(0..5_000);
                self.clock.jumped_ms.fetch_add(stop, Ordering::SeqCst);
                process = self.start();
            }
        }
        self.settle().await;
        process.drain().await;
        self.report()
    }

    fn produce(&mut self, number: u32) {
        let now = self.clock.now().to_rfc3339();
        let mut amounts = vec![5_000];
        if self.rng.random_bool(self.faults.repeats) {
            amounts.push(if self.rng.random_bool(self.faults.contradictions) { 6_000 } else { 5_000 });
        }
        for amount in amounts {
            let value = json!({
                "order_id": format!("o-{number}"), "phone": format!("+86138000{number:05}"), "amount_minor": amount,
                "currency": "CNY", "created_at": now, "paid_at": now, "payment_id": format!("p-{number}"),
            });
            self.broker.append(OutRecord {
                topic: "orders".into(),
                key: None,
                value: Some(Bytes::from(value.to_string())),
                headers: Vec::new(),
            });
        }
    }

    /// Waits until nothing moves by itself any more: for as long as calls and the relay may still
    /// be at it, since a call that ends late may ask for another.
    async fn settle(&self) {
        const AT_REST: u32 = 40;
        let mut at_rest = 0;
        for _ in 0..7_200 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let waiting = ["orders", "requests", "due"].iter().any(|topic| self.broker.uncommitted(topic) > 0)
                || TIERS.iter().any(|tier| self.broker.uncommitted(&tier_topic(*tier)) > 0);
            let open = {
                let state = self.store.state.lock().unwrap();
                state.rows.values().any(|row| matches!(row.state, State::Queued | State::RetryWait | State::InFlight))
            };
            at_rest = if waiting || open { 0 } else { at_rest + 1 };
            if at_rest == AT_REST {
                return;
            }
        }
        panic!("the line did not come to rest");
    }

    fn start(&self) -> Process {
        let stop = StopSignals::default();
        let mut tasks = JoinSet::new();
        let lane = ProviderId::new("sim");
        let topics = LaneTopics { requests: "requests".into(), due: "due".into() };
        let phone_key = PhoneKey::new(b"a key for tests only").unwrap();
        let commands = CommandWriter { phone_key, tiers: tiers() };
        let at_hand = Arc::new(RowsAtHand::new(100));
        let intake = Intake {
            store: self.store.clone(),
            at_hand: at_hand.clone(),
            publisher: self.broker.clone(),
            clock: self.clock.clone(),
            rules: Arc::new(IntakeRules {
                policy: self.policy.clone(),
                route: Box::new({
                    let lane = lane.clone();
                    move |_| Ok(lane.clone())
                }),
                commands: commands.clone(),
                lanes: HashMap::from([(lane.clone(), topics.clone())]),
                dead_letters: "dead".into(),
                retention: Duration::from_secs(90 * 86_400),
                batch_max: 50,
                writers: 4,
            }),
            plain_is_order: true,
            metrics: Arc::new(IntakeMetrics::new("orders")),
            outcomes: Arc::default(),
        };
        let dispatch = Lane::new(LaneParts {
            store: self.store.clone(),
            at_hand,
            quota: self.store.clone(),
            questions: self.store.clone(),
            deadlines: self.store.clone(),
            read_marks: self.store.clone(),
            publisher: self.broker.clone(),
            provider: self.provider.clone(),
            clock: self.clock.clone(),
            metrics: LaneMetrics::new(self.provider.id()),
            outcomes: Arc::default(),
            rules: LaneRules {
                policy: self.policy.clone(),
                topics: topics.clone(),
                dead_letters: "dead".into(),
                commands: commands.clone(),
                terms: self.terms,
                in_flight_max: 100,
                heap_max: 100,
                batch_max: 50,
                writers: 4,
                send_window: Duration::from_secs(1),
            },
        });
        let relay_topics = RelayTopics { order_events: "events".into(), refunds: "refunds".into() };
        let relay = Relay {
            log: self.store.clone(),
            publisher: self.broker.clone(),
            clock: self.clock.clone(),
            metrics: RelayMetrics::new(&[relay_topics.order_events.clone(), relay_topics.refunds.clone()]),
            topics: relay_topics,
            written: Arc::default(),
            page_max: 100,
        };
        tasks.spawn(intake.run(Box::new(self.broker.subscribe("orders")), stop.clone()));
        let (fresh, due) = (self.broker.subscribe("requests"), self.broker.subscribe("due"));
        if self.faults.cut_off.is_none() {
            tasks.spawn(dispatch.run(Box::new(fresh), Box::new(due), stop.clone()));
        }
        tasks.spawn(relay.run(stop.clone()));
        let watchdog = self.watchdog(commands, lane, topics.clone());
        tasks.spawn(watchdog.run(stop.clone()));
        for tier in TIERS {
            let delay = Delay {
                publisher: self.broker.clone(),
                clock: self.clock.clone(),
                rules: DelayRules {
                    tier,
                    tiers: tiers(),
                    targets: HashSet::from([topics.due.clone()]),
                    dead_letters: "dead".into(),
                    read_ahead: 60,
                },
                metrics: DelayMetrics::new("a tier"),
            };
            tasks.spawn(delay.run(Box::new(self.broker.subscribe(&tier_topic(tier))), stop.clone()));
        }
        Process { tasks, stop }
    }

    fn watchdog(&self, commands: CommandWriter, lane: ProviderId, topics: LaneTopics) -> Watchdog {
        Watchdog {
            store: self.store.clone(),
            deadlines: self.store.clone(),
            cases: self.store.clone(),
            read_marks: self.store.clone(),
            publisher: self.broker.clone(),
            clock: self.clock.clone(),
            rules: WatchdogRules {
                policy: self.policy.clone(),
                commands,
                lanes: HashMap::from([(lane, topics)]),
                partitions: 1,
                batch_max: 50,
            },
            outcomes: Arc::default(),
            metrics: WatchdogMetrics::new(),
        }
    }

    fn report(self) -> Report {
        let state = self.store.state.lock().unwrap();
        let ledger = self.provider.ledger.lock().unwrap();
        Report {
            orders: self.faults.orders as usize,
            succeeded: state.rows.values().filter(|row| row.state == State::Succeeded).count(),
            crashed: *self.orphaned.lock().unwrap() > 0,
            rows: state.rows.values().cloned().collect(),
            log: state.log.clone(),
            claims_overtaken: state.claims_overtaken,
            refunds: state.refunds.iter().map(|(id, n)| (id.to_string(), *n)).collect(),
            delivered: ledger.delivered.clone(),
            arrivals: ledger.arrivals.clone(),
            asked_too_often: ledger.asked_too_often,
            lost: self.broker.lost(),
            published: self.broker.records("events"),
            dead: self.broker.records("dead").iter().map(told).collect(),
            rate: self.faults.permits_per_second,
            burst: f64::from(self.terms.burst),
        }
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

/// Short ones, so that retries pass through several.
const TIERS: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(8)];

fn tier_topic(tier: Duration) -> String {
    format!("delay.{}s", tier.as_secs())
}

fn tiers() -> DelayTiers {
    DelayTiers::new(TIERS.map(|tier| (tier, tier_topic(tier).into())))
}

struct Process {
    tasks: JoinSet<Result<(), RoleError>>,
    stop: StopSignals,
}

impl Process {
    /// Ends as `kill -9` does: whatever was awaited is never resumed.
    async fn crash(mut self) {
        self.tasks.abort_all();
        self.stop.abort.cancel();
        while self.tasks.join_next().await.is_some() {}
    }

    async fn drain(mut self) {
        self.stop.drain.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap().unwrap();
        }
    }
}

/// What is left when all is quiet.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) orders: usize,
    pub(crate) succeeded: usize,
    /// Claims that met a row which had moved since it was left at hand, or read.
    pub(crate) claims_overtaken: u32,
    crashed: bool,
    rows: Vec<Order>,
    log: Vec<LoggedEvent>,
    refunds: HashMap<String, u32>,
    delivered: HashMap<String, u32>,
    arrivals: Vec<Timestamp>,
    asked_too_often: u32,
    /// Orders that lost a command.
    pub(crate) lost: usize,
    published: Vec<OutRecord>,
    dead: Vec<String>,
    rate: f64,
    burst: f64,
}

impl Report {
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

    /// Orders that rest open; in doubt is decided.
    pub(crate) fn undecided(&self) -> usize {
        assert_eq!(self.rows.len(), self.orders, "every order is stored once");
        self.rows.iter().filter(|row| !row.state.is_closed() && row.state != State::InDoubt).count()
    }

    /// The invariants that hold in every run, whatever went wrong.
    pub(crate) fn check(&self) {
        assert_eq!(self.rows.len(), self.orders, "every order is stored once");
        assert!(self.dead.is_empty(), "nothing was unusable: {:?}", self.dead);
        for row in &self.rows {
            self.check_order(row);
        }
        self.check_published();
        self.check_quota();
        assert_eq!(self.asked_too_often, 0, "the provider was asked about one attempt too often");
    }

    fn check_order(&self, row: &Order) {
        let id = row.order_id.as_str();
        let prefix = format!("{id}-");
        let delivered: u32 = self.delivered.iter().filter(|(r, _)| r.starts_with(&prefix)).map(|(_, n)| *n).sum();
        assert!(delivered <= 1, "{id} was delivered {delivered} times");
        match row.state {
            State::Succeeded => assert_eq!(delivered, 1, "{id} succeeded without a delivery"),
            State::Failed => {
                assert_eq!(delivered, 0, "{id} failed, and was delivered");
                assert_eq!(self.refunds.get(id), Some(&1), "{id} failed without its one refund");
            }
            State::InDoubt => {
                assert!(
                    row.has_open_attempt() && row.has_cases(),
                    "{id} is in doubt without an open attempt and a case"
                );
                assert_eq!(self.refunds.get(id), None, "{id} is in doubt, and refunded");
            }
            State::Queued | State::RetryWait | State::AwaitingPayment | State::InFlight | State::Cancelled => {
                panic!("{id} rests as {} (crashed: {})", row.state, self.crashed)
            }
        }
        let decided_at =
            self.log.iter().filter(|e| e.order_id == row.order_id && e.data.sla.is_some()).map(|e| e.at).min();
        let late = decided_at.map(|at| at - row.deadline_at);
        assert!(
            late.is_some_and(|late| late <= chrono::TimeDelta::seconds(15)),
            "{id} was decided {late:?} after its deadline"
        );
        if row.sla == Some(Sla::Missed) {
            assert!(late.is_some_and(|late| late >= chrono::TimeDelta::zero()), "{id} missed before its deadline");
        }
        let mine: Vec<LoggedEvent> = self.log.iter().filter(|e| e.order_id == row.order_id).cloned().collect();
        assert_eq!(replay(&mine, &row.recipient).unwrap().as_ref(), Some(row), "the log of {id} does not rebuild it");
    }

    /// Each log entry reaches the world at least once, per order in order after deduplication.
    fn check_published(&self) {
        let mut seen: HashMap<String, u64> = HashMap::new();
        for record in &self.published {
            let body: Value = serde_json::from_slice(record.value.as_ref().unwrap()).unwrap();
            let (id, version) = (body["order_id"].as_str().unwrap(), body["version"].as_u64().unwrap());
            let last = seen.entry(id.to_owned()).or_default();
            assert!(version <= *last + 1, "{id}: version {version} was published after {last}");
            *last = (*last).max(version);
        }
        for row in &self.rows {
            let last = seen.get(row.order_id.as_str()).copied().unwrap_or_default();
            assert_eq!(last, u64::from(row.version), "{}: not all of its events were published", row.order_id);
        }
    }

    /// In no window did more arrive than rate × (window + 0.25 s) + burst.
    fn check_quota(&self) {
        for (first, from) in self.arrivals.iter().enumerate() {
            for (last, to) in self.arrivals.iter().enumerate().skip(first) {
                let window = (*to - *from).as_seconds_f64();
                let allowed = self.rate * (window + 0.25) + self.burst;
                let count = last - first + 1;
                assert!(count as f64 <= allowed + 1e-6, "{count} requests in {window} s, {allowed} allowed");
            }
        }
    }
}
