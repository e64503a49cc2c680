//! Intake over a store, topics and tiers in memory, under paused time: events that come before their order.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Intake, IntakeRules, Source};
use crate::domain::msisdn::PhoneKey;
use crate::domain::*;
use crate::metrics::{IntakeMetrics, OutcomeMetrics};
use crate::ports::*;
use crate::roles::commands::CommandWriter;
use crate::roles::dead_letter::DeadLetter;
use crate::roles::delayed::{DelayTiers, Waiting, original_headers};
use crate::roles::{RowsAtHand, StopSignals};

/// The store, the broker and the tiers.
#[derive(Debug)]
struct World {
    began: Instant,
    rows: Mutex<HashMap<OrderId, Order>>,
    log: Mutex<Vec<LoggedEvent>>,
    /// Where each source is fed.
    feeds: Mutex<HashMap<&'static str, mpsc::Sender<InRecord>>>,
    published: Mutex<Vec<OutRecord>>,
    /// Offsets that are done, by topic.
    done: Mutex<Vec<(Arc<str>, i64)>>,
    next_offset: Mutex<i64>,
    /// The broker takes nothing.
    refuses: Mutex<bool>,
}

fn start() -> Timestamp {
    Timestamp::from_timestamp(1_790_000_000, 0).unwrap()
}

fn id(text: &str) -> OrderId {
    OrderId::parse(text).unwrap()
}

impl Clock for World {
    fn now(&self) -> Timestamp {
        plus(start(), self.began.elapsed())
    }
    fn since_boot(&self) -> Duration {
        self.began.elapsed()
    }
}

#[async_trait]
impl OrderStore for World {
    async fn insert(&self, batch: &[Transition]) -> Result<Vec<Inserted>, StoreError> {
        let mut rows = self.rows.lock().unwrap();
        let insert = |transition: &Transition| {
            if let Some(row) = rows.get(&transition.after.order_id) {
                return Inserted::Exists(Box::new(row.clone()));
            }
            rows.insert(transition.after.order_id.clone(), transition.after.clone());
            self.log.lock().unwrap().push(transition.event.clone());
            Inserted::Stored
        };
        Ok(batch.iter().map(insert).collect())
    }

    async fn load(&self, ids: &[OrderId]) -> Result<Vec<Loaded>, StoreError> {
        let rows = self.rows.lock().unwrap();
        Ok(ids.iter().map(|id| rows.get(id).cloned().map_or(Loaded::Absent, Loaded::Order)).collect())
    }

    async fn apply(&self, batch: &[Transition]) -> Result<Vec<Written>, StoreError> {
        let mut rows = self.rows.lock().unwrap();
        let write = |transition: &Transition| {
            if rows[&transition.after.order_id].version != transition.from_version {
                return Written::Overtaken;
            }
            rows.insert(transition.after.order_id.clone(), transition.after.clone());
            self.log.lock().unwrap().push(transition.event.clone());
            Written::Stored
        };
        Ok(batch.iter().map(write).collect())
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        Ok(Clock::now(self))
    }

    async fn check(&self) -> Result<(), SchemaError> {
        Ok(())
    }
}

#[derive(Debug)]
struct Broker(Arc<World>);

#[async_trait]
impl Publisher for Broker {
    async fn publish(&self, batch: &[OutRecord]) -> Vec<Result<(), PublishError>> {
        if *self.0.refuses.lock().unwrap() {
            return batch.iter().map(|_| Err(PublishError::Refused("simulated".to_owned()))).collect();
        }
        for record in batch {
            self.0.published.lock().unwrap().push(record.clone());
            if record.topic.starts_with("delay.") {
                let waits = self.0.record(&record.topic, record.clone());
                let waiting = Waiting::read(&waits, Clock::now(&*self.0)).unwrap();
                assert_eq!(&*waiting.target, "timers");
                let (world, headers) = (Arc::clone(&self.0), original_headers(&record.headers));
                let back = OutRecord { topic: waiting.target, headers, ..record.clone() };
                let wait = (waiting.due_at - Clock::now(&*self.0)).to_std().unwrap_or_default();
                tokio::spawn(async move {
                    tokio::time::sleep(wait).await;
                    world.feed("timers", back).await;
                });
            }
        }
        batch.iter().map(|_| Ok(())).collect()
    }
}

#[derive(Debug)]
struct Partition(Arc<World>, Arc<str>);

impl Assignment for Partition {
    fn is_live(&self) -> bool {
        true
    }
    fn done(&self, offset: i64) {
        self.0.done.lock().unwrap().push((Arc::clone(&self.1), offset));
    }
}

#[derive(Debug)]
struct Feed(mpsc::Receiver<InRecord>);

#[async_trait]
impl Subscription for Feed {
    async fn next(&mut self, max: usize) -> Result<Vec<InRecord>, Stopped> {
        let mut records = Vec::new();
        match self.0.recv_many(&mut records, max).await {
            0 => Err(Stopped::Closed),
            _ => Ok(records),
        }
    }
    fn want(&self, _partition: i32, _wanted: bool) {}
    fn assignments(&self) -> u64 {
        1
    }
    fn acted_on(&self) -> Vec<ActedOn> {
        Vec::new()
    }
}

fn policy() -> Policy {
    Policy {
        sla: Duration::from_mins(3),
        unpaid_timeout: Duration::from_mins(30),
        notify_after: Duration::from_mins(1),
        notify_at_end: false,
        refund_confirm_within: Some(Duration::from_hours(24)),
        on_unknown: OnUnknown::Hold,
        reconcile_within: Duration::from_hours(24),
        max_attempts: 3,
        backoff_first: Duration::from_secs(1),
        backoff_max: Duration::from_secs(30),
        providers: HashMap::new(),
        routes: Arc::default(),
        shut: Vec::new(),
    }
}

impl World {
    /// Intake of all three topics, at work.
    fn begin() -> Arc<Self> {
        let world = Arc::new(Self {
            began: Instant::now(),
            rows: Mutex::default(),
            log: Mutex::default(),
            feeds: Mutex::default(),
            published: Mutex::default(),
            done: Mutex::default(),
            next_offset: Mutex::new(0),
            refuses: Mutex::new(false),
        });
        let tier = |seconds| (Duration::from_secs(seconds), Arc::from(format!("delay.{seconds}s")));
        let phone_key = PhoneKey::new(b"a key for tests only").unwrap();
        let lane = ProviderId::new("lane");
        let topics = LaneTopics { requests: "requests".into(), due: "due".into() };
        let rules = Arc::new(IntakeRules {
            policy: policy(),
            route: Box::new(|_| Ok(ProviderId::new("lane"))),
            commands: CommandWriter { phone_key, tiers: DelayTiers::new([1, 5, 15, 60, 300].map(tier)) },
            lanes: HashMap::from([(lane, topics)]),
            dead_letters: "dead".into(),
            timers: "timers".into(),
            retention: Duration::from_hours(24 * 90),
            batch_max: 50,
            writers: 3,
        });
        for source in [Source::Orders, Source::Lifecycle, Source::Timers] {
            let (feed, records) = mpsc::channel(1_000);
            world.feeds.lock().unwrap().insert(source.as_str(), feed);
            let intake = Intake {
                store: Arc::<Self>::clone(&world),
                at_hand: Arc::new(RowsAtHand::new(10)),
                publisher: Arc::new(Broker(Arc::clone(&world))),
                clock: Arc::<Self>::clone(&world),
                rules: Arc::clone(&rules),
                source,
                metrics: Arc::new(IntakeMetrics::new(source.as_str())),
                outcomes: Arc::new(OutcomeMetrics::new()),
            };
            tokio::spawn(intake.run(Box::new(Feed(records)), StopSignals::default()));
        }
        world
    }

    fn record(self: &Arc<Self>, topic: &Arc<str>, record: OutRecord) -> InRecord {
        let mut next = self.next_offset.lock().unwrap();
        *next += 1;
        let assignment = Arc::new(Partition(Arc::clone(self), Arc::clone(topic)));
        InRecord {
            topic: Arc::clone(topic),
            partition: 2,
            offset: *next,
            timestamp: Some(Clock::now(&**self)),
            key: record.key,
            value: record.value,
            headers: record.headers,
            ack: Ack::new(assignment, *next),
        }
    }

    async fn feed(self: &Arc<Self>, source: &'static str, record: OutRecord) -> i64 {
        let record = self.record(&record.topic.clone(), record);
        let offset = record.offset;
        let feed = self.feeds.lock().unwrap()[source].clone();
        feed.send(record).await.unwrap();
        offset
    }

    /// The shop says something of an order; returns its offset.
    async fn say(self: &Arc<Self>, source: &'static str, kind: &str, data: Value) -> i64 {
        let header =
            |name: &'static str, value: String| (Bytes::from_static(name.as_bytes()), Some(Bytes::from(value)));
        let kind = header("ce_type", format!("recharge.{kind}.v1"));
        let headers = vec![header("ce_specversion", "1.0".to_owned()), kind, header("due-at", "mine".to_owned())];
        let (key, value) = (Some(Bytes::from_static(b"\xffany")), Some(Bytes::from(data.to_string())));
        self.feed(source, OutRecord { topic: source.into(), key, value, headers }).await
    }

    async fn create(self: &Arc<Self>, source: &'static str, order: &str) {
        let created_at = Clock::now(&**self).to_rfc3339();
        let data = json!({ "order_id": order, "phone": "+8613800000017", "amount_minor": 5000, "currency": "CNY",
            "created_at": created_at });
        self.say(source, "order.created", data).await;
    }

    async fn pay(self: &Arc<Self>, source: &'static str, order: &str) -> i64 {
        let data = json!({ "order_id": order, "paid_at": Clock::now(&**self).to_rfc3339(), "payment_id": "p" });
        self.say(source, "order.paid", data).await
    }

    async fn cancel(self: &Arc<Self>, source: &'static str, order: &str) -> i64 {
        self.say(source, "order.cancelled", json!({ "order_id": order })).await
    }

    fn row(&self, order: &str) -> Option<Order> {
        self.rows.lock().unwrap().get(&id(order)).cloned()
    }

    fn kinds(&self, order: &str) -> Vec<EventType> {
        let log = self.log.lock().unwrap();
        log.iter().filter(|event| event.order_id.as_str() == order).map(|event| event.kind).collect()
    }

    fn letters(self: &Arc<Self>) -> Vec<(OutRecord, DeadLetter)> {
        let published = self.published.lock().unwrap().clone();
        let letters = published.into_iter().filter(|record| &*record.topic == "dead");
        letters
            .map(|letter| {
                let read = DeadLetter::read(&self.record(&letter.topic, letter.clone())).unwrap();
                (letter, read)
            })
            .collect()
    }

    fn is_done(&self, topic: &str, offset: i64) -> bool {
        self.done.lock().unwrap().iter().any(|(of, at)| &**of == topic && *at == offset)
    }
}

async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_payment_waits_for_its_order_and_is_found_by_twice_the_time_that_it_took_to_come() {
    for (source, comes) in [("lifecycle", 0), ("orders", 3), ("lifecycle", 40), ("orders", 80)] {
        let world = World::begin();
        let paid_at = Clock::now(&*world);
        let offset = world.pay(source, "o-1").await;
        seconds(comes).await;
        assert!(comes == 0 || world.is_done(source, offset), "it holds nothing up");
        world.create("orders", "o-1").await;
        seconds(comes.max(1) + 1).await;
        let row = world.row("o-1").unwrap();
        assert_eq!((row.state, row.paid_at), (State::Queued, Some(paid_at)), "{source}, {comes} s");
        assert_eq!(row.deadline_at, plus(paid_at, policy().sla), "the promise runs from the payment");
        assert_eq!(world.kinds("o-1"), [EventType::Accepted, EventType::Queued]);
        let commands = world.published.lock().unwrap().iter().filter(|record| &*record.topic == "requests").count();
        assert_eq!(commands, 1);
        seconds(1_000).await;
        assert!(world.letters().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn an_order_that_comes_too_late_for_its_payments_promise_is_refunded_and_not_recharged() {
    let world = World::begin();
    world.pay("lifecycle", "o-1").await;
    seconds(170).await;
    world.create("orders", "o-1").await;
    seconds(170).await;
    let row = world.row("o-1").unwrap();
    assert_eq!((row.state, row.reason, row.refund_requested), (State::Failed, Some(Reason::DeadlinePassed), true));
}

#[tokio::test(start_paused = true)]
async fn by_a_clock_that_is_ahead_a_payment_counts_from_when_it_was_told_not_from_when_it_came_back() {
    let world = World::begin();
    let told_at = Clock::now(&*world);
    let ahead = plus(told_at, Duration::from_hours(1)).to_rfc3339();
    world.say("lifecycle", "order.paid", json!({ "order_id": "o-1", "paid_at": ahead })).await;
    world.say("lifecycle", "refund.confirmed", json!({ "order_id": "o-2", "refund_id": "r", "at": ahead })).await;
    seconds(20).await;
    for order in ["o-1", "o-2"] {
        world.create("orders", order).await;
    }
    seconds(20).await;
    let row = world.row("o-1").unwrap();
    assert_eq!((row.state, row.paid_at, row.deadline_at), (State::Queued, Some(told_at), plus(told_at, policy().sla)));
    // Money that went back before its order was known, and that nobody had asked for.
    let row = world.row("o-2").unwrap();
    assert_eq!((row.state, row.cases), (State::AwaitingPayment, CaseKind::UnrequestedRefund.bit()));
    let log = world.log.lock().unwrap().clone();
    let made = log.iter().find_map(|event| event.data.refund_made.as_deref()).unwrap();
    assert_eq!((&*made.refund_id, made.at), ("r", told_at));
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_waits_too_and_whatever_is_said_twice_changes_nothing() {
    let world = World::begin();
    for source in ["lifecycle", "orders", "lifecycle"] {
        world.cancel(source, "o-1").await;
    }
    seconds(5).await;
    world.create("orders", "o-1").await;
    seconds(10).await;
    assert_eq!(world.kinds("o-1"), [EventType::Accepted, EventType::Cancelled]);
    // What comes after the end: its money goes back, once.
    for source in ["orders", "lifecycle"] {
        world.pay(source, "o-1").await;
    }
    seconds(10).await;
    let row = world.row("o-1").unwrap();
    assert_eq!((row.state, row.refund_requested), (State::Cancelled, true));
    assert_eq!(world.kinds("o-1"), [EventType::Accepted, EventType::Cancelled, EventType::Cancelled]);
    assert!(world.letters().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_never_gets_its_order_is_a_dead_letter_that_tells_from_where_it_came() {
    let world = World::begin();
    let met_at = Clock::now(&*world);
    let offset = world.pay("lifecycle", "nobody").await;
    let first = world.published.lock().unwrap().len();
    seconds(899).await;
    assert!(world.letters().is_empty());
    seconds(3).await;
    let [(record, letter)] = &world.letters()[..] else { panic!("{:?}", world.letters()) };
    assert_eq!((letter.reason.as_str(), &*letter.topic), ("orphan", "lifecycle"));
    assert_eq!((letter.partition, letter.offset, letter.timestamp), (2, offset, Some(met_at)));
    let seen_after = (letter.first_seen - met_at).num_milliseconds();
    assert!((0..100).contains(&seen_after), "it was first seen {seen_after} ms after it came");
    assert_eq!(record.key.as_deref(), Some(b"\xffany".as_slice()));
    let names: Vec<&[u8]> = letter.headers.iter().map(|(name, _)| name.as_ref()).collect();
    assert_eq!(names, [b"ce_specversion".as_slice(), b"ce_type", b"due-at"], "as it came");
    let written = world.published.lock().unwrap().len() - first;
    assert!(written <= 12, "{written} records for one payment of nobody");
    seconds(2_000).await;
    assert_eq!(world.letters().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_record_is_done_only_when_what_waits_of_it_is_acknowledged() {
    let world = World::begin();
    *world.refuses.lock().unwrap() = true;
    let offset = world.pay("lifecycle", "o-1").await;
    seconds(30).await;
    assert!(!world.is_done("lifecycle", offset));
    *world.refuses.lock().unwrap() = false;
    seconds(5).await;
    assert!(world.is_done("lifecycle", offset));
    world.create("orders", "o-1").await;
    // It was half a minute old when it came back for the first time.
    seconds(40).await;
    assert_eq!(world.row("o-1").unwrap().state, State::Queued);
}

#[tokio::test(start_paused = true)]
async fn an_order_and_its_payment_in_one_batch_need_no_wait_whichever_stands_first() {
    let world = World::begin();
    world.pay("orders", "o-1").await;
    world.create("orders", "o-1").await;
    world.create("orders", "o-2").await;
    world.pay("orders", "o-2").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    for order in ["o-1", "o-2"] {
        assert_eq!(world.row(order).unwrap().state, State::Queued, "{order}");
    }
    assert!(world.published.lock().unwrap().iter().all(|record| &*record.topic == "requests"));
}
