//! A batch of callbacks, with everything around the role in memory.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{CallbackRules, Callbacks, Caller, Told};
use crate::domain::msisdn::PhoneKey;
use crate::domain::*;
use crate::metrics::{CallbackMetrics, OutcomeMetrics};
use crate::ports::*;
use crate::roles::LaneBoard;
use crate::roles::commands::CommandWriter;
use crate::roles::delayed::DelayTiers;

/// Whose word counts, and whose is hearsay.
const PROVEN: &str = "proven";
const HEARSAY: &str = "hearsay";

/// A store and a broker.
#[derive(Debug, Default)]
struct World {
    rows: Mutex<HashMap<OrderId, Order>>,
    /// Orders whose rows somebody holds.
    held: Mutex<HashSet<OrderId>>,
    noted: Mutex<Vec<NotedCallback>>,
    broker_is_away: AtomicBool,
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
}

fn capabilities(callback_settles: bool) -> Capabilities {
    Capabilities {
        duplicates: DuplicateSemantics::RejectsAlways,
        query_not_before: Duration::from_secs(1),
        query_min_interval: Duration::from_secs(5),
        query_retention: Duration::from_hours(20),
        not_found_grace: Duration::from_mins(1),
        same_number_cooldown: None,
        client_ref: RefFormat { max_len: 64, alphanumeric_only: false },
        call_timeout: Duration::from_secs(10),
        callback_settles,
    }
}

impl World {
    /// An order that its provider has taken.
    fn sell(&self, id: &str, provider: &str) {
        let order_id = OrderId::parse(id).unwrap();
        let attempt = Attempt {
            number: 1,
            state: AttemptState::Accepted,
            client_ref: ClientRef::in_clear(&order_id, 1),
            claim_id: ClaimId::random(),
            claimed_at: at(-10),
            provider_ref: None,
            inquiry: Inquiry::default(),
        };
        let order = Order {
            order_id: order_id.clone(),
            version: 3,
            state: State::InFlight,
            asked_version: 3,
            recipient: Recipient::read("+8613800000017", None),
            amount: Money { minor: 5_000, currency: Currency::parse("CNY").unwrap() },
            carrier: None,
            created_at: at(-11),
            paid_at: Some(at(-11)),
            payment_id: None,
            notify: false,
            metadata: None,
            deadline_at: at(169),
            provider: Some(ProviderId::new(provider)),
            attempt: Some(attempt),
            declined: 0,
            wake_at: Some(at(60)),
            reason: None,
            sla: None,
            closed_at: None,
            refund_requested: false,
            refund_id: None,
            cases: 0,
        };
        self.rows.lock().unwrap().insert(order_id, order);
    }

    fn hold(&self, ids: &[&str]) {
        *self.held.lock().unwrap() = ids.iter().map(|id| OrderId::parse(id).unwrap()).collect();
    }

    fn is_held(&self, id: &OrderId) -> bool {
        self.held.lock().unwrap().contains(id)
    }

    /// What was noted, and what became of it.
    fn book(&self) -> Vec<(String, Became)> {
        let noted = self.noted.lock().unwrap();
        let mut all: Vec<_> = noted.iter().map(|one| (one.order_id.to_string(), one.became)).collect();
        all.sort_by(|one, other| one.0.cmp(&other.0));
        all
    }

    fn role(self: &Arc<Self>) -> Callbacks {
        let lanes = [PROVEN, HEARSAY].map(ProviderId::new);
        let policy_of = |settles| ProviderPolicy {
            capabilities: capabilities(settles),
            expected_service: Duration::from_secs(1),
            send_window: Duration::from_secs(1),
        };
        let providers = lanes.iter().map(|lane| (lane.clone(), policy_of(lane.as_str() == PROVEN)));
        let policy = Policy {
            sla: Duration::from_mins(3),
            unpaid_timeout: Duration::from_mins(30),
            notify_after: Duration::from_mins(1),
            notify_at_end: false,
            refund_confirm_within: None,
            on_unknown: OnUnknown::Hold,
            reconcile_within: Duration::from_hours(24),
            max_attempts: 5,
            backoff_first: Duration::from_secs(2),
            backoff_max: Duration::from_secs(4),
            providers: providers.collect(),
            routes: Arc::default(),
            shut: Vec::new(),
        };
        let caller = |lane: &ProviderId| {
            let provider = Arc::new(Provider(lane.clone(), capabilities(lane.as_str() == PROVEN)));
            (lane.clone(), Caller { provider, links: None, from: Vec::new() })
        };
        let topics = LaneTopics { requests: "requests".into(), due: "due".into() };
        let tiers = DelayTiers::new([(Duration::from_secs(1), Arc::from("delay.1s"))]);
        Callbacks {
            store: Arc::<Self>::clone(self),
            questions: Arc::<Self>::clone(self),
            book: Arc::<Self>::clone(self),
            publisher: Arc::<Self>::clone(self),
            clock: Arc::<Self>::clone(self),
            rules: CallbackRules {
                policy,
                commands: CommandWriter { phone_key: PhoneKey::new(b"a key for tests only").unwrap(), tiers },
                lanes: lanes.iter().map(|lane| (lane.clone(), topics.clone())).collect(),
                callers: lanes.iter().map(caller).collect(),
                batch_max: 50,
                writers: 1,
            },
            metrics: CallbackMetrics::new(&lanes),
            outcomes: Arc::new(OutcomeMetrics::new()),
            board: Arc::new(LaneBoard::default()),
        }
    }
}

fn delivered() -> QueryOutcome {
    QueryOutcome::Succeeded(Receipt::default())
}

fn declined() -> QueryOutcome {
    let advice = RetryAdvice::NewAttempt { after: Duration::from_secs(5) };
    QueryOutcome::Failed(Failure { class: FailureClass::OperatorUnavailable, code: "down".to_owned(), advice })
}

/// Deals with what providers say of orders, in one batch; says of each whether it was acknowledged.
async fn told(role: &Callbacks, words: Vec<(&str, &str, QueryOutcome)>) -> Vec<bool> {
    let (mut batch, mut answers) = (Vec::new(), Vec::new());
    for (order, provider, said) in words {
        let (done, answer) = oneshot::channel();
        let news = CallbackNews { client_ref: None, provider_ref: None, said, is_proven: provider == PROVEN };
        let (order_id, provider) = (OrderId::parse(order).unwrap(), ProviderId::new(provider));
        batch.push(Told { provider, order_id, attempt: 1, news, done, twins: Vec::new() });
        answers.push(answer);
    }
    role.deal_with(batch, &CancellationToken::new()).await;
    answers.into_iter().map(|mut answer| answer.try_recv().is_ok()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_row_that_somebody_holds_costs_its_own_callback_alone() {
    let world = Arc::new(World::default());
    for (order, provider) in [("a", PROVEN), ("held", PROVEN), ("b", HEARSAY), ("held-too", HEARSAY), ("z", PROVEN)] {
        world.sell(order, provider);
    }
    world.hold(&["held", "held-too"]);
    let role = world.role();
    let words = || {
        [("a", PROVEN), ("held", PROVEN), ("b", HEARSAY), ("held-too", HEARSAY), ("z", PROVEN)]
            .map(|(order, provider)| (order, provider, delivered()))
            .into()
    };
    assert_eq!(told(&role, words()).await, [true, false, true, false, true]);
    let (settled, asked) = (Became::Settled, Became::Asked);
    let of = |id: &str, became| (id.to_owned(), became);
    assert_eq!(world.book(), [of("a", settled), of("b", asked), of("z", settled)]);
    world.hold(&[]);
    assert_eq!(told(&role, words()).await, [true; 5]);
    assert_eq!(
        world.book(),
        [of("a", settled), of("b", asked), of("held", settled), of("held-too", asked), of("z", settled)]
    );
}

#[tokio::test(start_paused = true)]
async fn what_says_the_same_in_one_batch_is_acknowledged_when_it_was_dealt_with_and_not_before() {
    for provider in [PROVEN, HEARSAY] {
        let world = Arc::new(World::default());
        world.sell("held", provider);
        world.hold(&["held"]);
        let role = world.role();
        let twice = || vec![("held", provider, delivered()), ("held", provider, delivered())];
        assert_eq!(told(&role, twice()).await, [false, false], "{provider}");
        assert_eq!(world.book(), [], "{provider}: nothing was done, so nothing is known of it");
        world.hold(&[]);
        assert_eq!(told(&role, twice()).await, [true, true], "{provider}");
        assert_eq!(world.book().len(), 1, "{provider}");
        assert_eq!(told(&role, twice()).await, [true, true], "{provider}: it is known now");
    }
}

#[tokio::test(start_paused = true)]
async fn other_words_about_an_order_whose_question_could_not_be_brought_forward_come_again_too() {
    let world = Arc::new(World::default());
    world.sell("held", HEARSAY);
    world.hold(&["held"]);
    let role = world.role();
    let words = || vec![("held", HEARSAY, QueryOutcome::InProgress), ("held", HEARSAY, delivered())];
    assert_eq!(told(&role, words()).await, [false, false]);
    assert_eq!(world.book(), []);
    world.hold(&[]);
    assert_eq!(told(&role, words()).await, [true, true]);
    let became: Vec<Became> = world.book().into_iter().map(|(_, became)| became).collect();
    assert_eq!(became, [Became::Asked, Became::Known], "one question answers both");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_away_costs_the_callbacks_that_need_one_and_no_others() {
    let world = Arc::new(World::default());
    for (order, provider) in [("delivered", PROVEN), ("declined", PROVEN), ("asked", HEARSAY)] {
        world.sell(order, provider);
    }
    world.broker_is_away.store(true, Ordering::Relaxed);
    let role = world.role();
    let words =
        || vec![("declined", PROVEN, declined()), ("delivered", PROVEN, delivered()), ("asked", HEARSAY, delivered())];
    assert_eq!(told(&role, words()).await, [false, true, false]);
    assert_eq!(world.book(), [("delivered".to_owned(), Became::Settled)]);
    world.broker_is_away.store(false, Ordering::Relaxed);
    assert_eq!(told(&role, words()).await, [true, true, true]);
}

#[derive(Debug)]
struct Provider(ProviderId, Capabilities);

#[async_trait]
impl RechargeProvider for Provider {
    fn id(&self) -> &ProviderId {
        &self.0
    }
    fn capabilities(&self) -> &Capabilities {
        &self.1
    }
    async fn connect(&self, wanted: usize) -> usize {
        wanted
    }
    async fn submit(&self, _request: &SubmitRequest) -> SubmitOutcome {
        unreachable!("the role sends nothing")
    }
    async fn query(&self, _key: &QueryKey) -> QueryOutcome {
        unreachable!("the role asks nothing itself")
    }
    fn read_callback(&self, _callback: &RawCallback, _now: Timestamp) -> Result<CallbackNews, CallbackRefusal> {
        Err(CallbackRefusal::Forged)
    }
}

impl Clock for World {
    fn now(&self) -> Timestamp {
        at(0)
    }
    fn since_boot(&self) -> Duration {
        Duration::ZERO
    }
}

#[async_trait]
impl OrderStore for World {
    async fn insert(&self, _batch: &[Transition]) -> Result<Vec<Inserted>, StoreError> {
        unreachable!("the role inserts nothing")
    }
    async fn load(&self, ids: &[OrderId]) -> Result<Vec<Loaded>, StoreError> {
        let rows = self.rows.lock().unwrap();
        Ok(ids.iter().map(|id| rows.get(id).cloned().map_or(Loaded::Absent, Loaded::Order)).collect())
    }
    async fn apply(&self, _batch: &[Transition]) -> Result<Vec<Written>, StoreError> {
        unreachable!("a lock would be waited for longer than a callback waits")
    }
    async fn apply_promptly(&self, batch: &[Transition]) -> Result<Vec<Written>, StoreError> {
        let mut rows = self.rows.lock().unwrap();
        let write = |transition: &Transition| {
            if self.is_held(&transition.after.order_id) {
                return Written::Locked;
            }
            let row = rows.get_mut(&transition.after.order_id).filter(|row| row.version == transition.from_version);
            let Some(row) = row else { return Written::Overtaken };
            *row = transition.after.clone();
            Written::Stored
        };
        Ok(batch.iter().map(write).collect())
    }
    async fn now(&self) -> Result<Timestamp, StoreError> {
        Ok(at(0))
    }
    async fn check(&self) -> Result<(), SchemaError> {
        Ok(())
    }
}

#[async_trait]
impl Questions for World {
    async fn hold(&self, _batch: &[Hold], _now: Timestamp) -> Result<Vec<Held>, StoreError> {
        unreachable!("the role holds nothing")
    }
    async fn hasten(&self, batch: &[Haste]) -> Result<Vec<Hurried>, StoreError> {
        let answer = |haste: &Haste| {
            if self.is_held(&haste.order_id) { Hurried::Locked } else { Hurried::From(haste.to.first) }
        };
        Ok(batch.iter().map(answer).collect())
    }
}

#[async_trait]
impl CallbackBook for World {
    async fn were_noted(&self, batch: &[NotedCallback]) -> Result<Vec<bool>, StoreError> {
        let noted = self.noted.lock().unwrap();
        let is_same = |one: &NotedCallback, other: &NotedCallback| {
            (&one.order_id, one.attempt, &one.provider, &one.said)
                == (&other.order_id, other.attempt, &other.provider, &other.said)
        };
        Ok(batch.iter().map(|one| noted.iter().any(|other| is_same(one, other))).collect())
    }
    async fn note_callbacks(&self, batch: &[NotedCallback]) -> Result<(), StoreError> {
        self.noted.lock().unwrap().extend_from_slice(batch);
        Ok(())
    }
    async fn callbacks_of(&self, _order_id: &OrderId) -> Result<Vec<NotedCallback>, StoreError> {
        unreachable!("people ask for that")
    }
}

#[async_trait]
impl Publisher for World {
    async fn publish(&self, batch: &[OutRecord]) -> Vec<Result<(), PublishError>> {
        if self.broker_is_away.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        batch.iter().map(|_| Ok(())).collect()
    }
}
