//! A lane with everything around it in memory, under paused time.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use crate::domain::msisdn::PhoneKey;
use crate::domain::*;
use crate::metrics::{LaneMetrics, OutcomeMetrics};
use crate::ports::*;
use crate::roles::commands::CommandWriter;
use crate::roles::delayed::DelayTiers;
use crate::roles::{RoleError, RowsAtHand, StopSignals};

use super::super::{BreakerRules, Lane, LaneParts, LaneRules};

/// What the world does, and what was seen of the lane.
#[derive(Debug)]
pub(super) struct World {
    began: Instant,
    pub(super) rows: Mutex<HashMap<OrderId, Order>>,
    pub(super) submit: fn(&str) -> (Duration, SubmitOutcome),
    pub(super) query: fn(&str) -> (Duration, QueryOutcome),
    /// Topics that refuse what is written.
    pub(super) refuses: Mutex<HashSet<String>>,
    pub(super) sent: Mutex<Vec<String>>,
    pub(super) asked: Mutex<Vec<(String, Duration)>>,
    pub(super) paused: Mutex<Vec<Timestamp>>,
    pub(super) published: Mutex<Vec<OutRecord>>,
    /// Offsets of commands that are done.
    pub(super) done: Mutex<HashSet<i64>>,
    /// Orders whose numbers cool down for others, and until when.
    pub(super) cools: Mutex<HashMap<OrderId, Timestamp>>,
    pub(super) policy: Policy,
}

/// When a command comes, on which topic, and the row that asks for it.
pub(super) struct Coming {
    pub(super) at: Duration,
    pub(super) kind: CommandKind,
    pub(super) order: Order,
}

fn capabilities() -> Capabilities {
    Capabilities {
        duplicates: DuplicateSemantics::RejectsAlways,
        query_not_before: Duration::from_secs(1),
        query_min_interval: Duration::from_secs(5),
        query_retention: Duration::from_hours(20),
        not_found_grace: Duration::from_mins(1),
        same_number_cooldown: None,
        client_ref: RefFormat { max_len: 64, alphanumeric_only: false },
        call_timeout: Duration::from_secs(10),
        callback_settles: false,
    }
}

fn topics() -> LaneTopics {
    LaneTopics { requests: "requests".into(), due: "due".into() }
}

/// The lane that the route leads on to, where there is one.
pub(super) fn second() -> ProviderId {
    ProviderId::new("second")
}

/// The command about an order; of one that asks about a callback's word, the last that there is.
fn command_of(kind: CommandKind, order: &Order) -> Command {
    if kind != CommandKind::Confirm {
        return Command::of(kind, order);
    }
    let mut last = Command::confirm(order, 1, None);
    while let Some(next) = last.again(start()) {
        last = Command { wake_at: None, ..next };
    }
    last
}

impl World {
    pub(super) fn new(
        submit: fn(&str) -> (Duration, SubmitOutcome),
        query: fn(&str) -> (Duration, QueryOutcome),
    ) -> Self {
        let provider = ProviderPolicy {
            capabilities: capabilities(),
            expected_service: Duration::from_secs(1),
            send_window: Duration::from_secs(1),
        };
        let policy = Policy {
            sla: Duration::from_mins(3),
            unpaid_timeout: Duration::from_mins(30),
            notify_after: Duration::from_mins(1),
            notify_at_end: false,
            refund_confirm_within: Some(Duration::from_hours(24)),
            on_unknown: OnUnknown::Hold,
            reconcile_within: Duration::from_hours(24),
            max_attempts: 5,
            backoff_first: Duration::from_secs(2),
            backoff_max: Duration::from_secs(4),
            providers: HashMap::from([(ProviderId::new("lane"), provider)]),
            routes: std::sync::Arc::default(),
            shut: Vec::new(),
        };
        Self {
            began: Instant::now(),
            rows: Mutex::default(),
            submit,
            query,
            refuses: Mutex::default(),
            sent: Mutex::default(),
            asked: Mutex::default(),
            paused: Mutex::default(),
            published: Mutex::default(),
            done: Mutex::default(),
            cools: Mutex::default(),
            policy,
        }
    }

    /// An order whose row asks for a first attempt, a further one, or a question, `deadline` after the beginning.
    pub(super) fn order(&self, id: &str, state: State, deadline: i64) -> Order {
        let (order_id, began) = (OrderId::parse(id).unwrap(), start());
        let attempt_state = match state {
            State::RetryWait => Some(AttemptState::Failed),
            State::InFlight | State::InDoubt => Some(AttemptState::Unknown),
            State::AwaitingPayment | State::Queued | State::Succeeded | State::Failed | State::Cancelled => None,
        };
        let attempt = attempt_state.map(|state| Attempt {
            number: 1,
            state,
            client_ref: ClientRef::in_clear(&order_id, 1),
            claim_id: ClaimId::random(),
            claimed_at: began - chrono::TimeDelta::seconds(20),
            provider_ref: None,
            inquiry: Inquiry::default(),
        });
        let order = Order {
            order_id: order_id.clone(),
            version: 3,
            state,
            asked_version: 3,
            recipient: Recipient::read("+8613800000017", None),
            amount: Money { minor: 5_000, currency: Currency::parse("CNY").unwrap() },
            carrier: None,
            created_at: began,
            paid_at: Some(began),
            payment_id: None,
            notify: false,
            metadata: None,
            deadline_at: began + chrono::TimeDelta::seconds(deadline),
            provider: Some(ProviderId::new("lane")),
            attempt,
            declined: 0,
            wake_at: None,
            reason: None,
            sla: None,
            closed_at: None,
            refund_requested: false,
            refund_id: None,
            cases: 0,
        };
        self.rows.lock().unwrap().insert(order_id, order.clone());
        order
    }

    /// A second lane behind the first, whose provider lets numbers cool down.
    pub(super) fn with_a_second_lane(mut self) -> Self {
        let mut own = self.policy.providers[&ProviderId::new("lane")].clone();
        self.policy.providers.insert(second(), own.clone());
        own.capabilities.same_number_cooldown = Some(Duration::from_mins(2));
        self.policy.providers.insert(ProviderId::new("lane"), own);
        let lanes = [ProviderId::new("lane"), second()];
        let lanes = lanes.map(|id| route::Lane { id, products: Vec::new(), sells_anything: true });
        let routes = vec![route::Route::everything(lanes.into())];
        self.policy.routes = Arc::new(route::RouteTable::new(routes));
        self
    }

    /// So long after the beginning.
    pub(super) fn moment(since: Duration) -> Timestamp {
        plus(start(), since)
    }

    /// Runs a lane on what comes, with so many places for calls, for so long.
    pub(super) async fn run(self: &Arc<Self>, coming: Vec<Coming>, in_flight_max: usize, length: Duration) {
        let (heap_max, stop) = (40, StopSignals::default());
        let provider = ProviderId::new("lane");
        let tiers = DelayTiers::new([
            (Duration::from_secs(1), Arc::from("delay.1s")),
            (Duration::from_mins(1), Arc::from("delay.60s")),
        ]);
        let lane = Lane::new(LaneParts {
            store: Arc::<Self>::clone(self),
            at_hand: Arc::new(RowsAtHand::new(0)),
            quota: Arc::<Self>::clone(self),
            questions: Arc::<Self>::clone(self),
            deadlines: Arc::<Self>::clone(self),
            read_marks: Arc::<Self>::clone(self),
            cooldowns: Arc::<Self>::clone(self),
            publisher: Arc::<Self>::clone(self),
            provider: Arc::new(Provider(
                Arc::clone(self),
                provider.clone(),
                self.policy.providers[&provider].capabilities.clone(),
            )),
            clock: Arc::<Self>::clone(self),
            metrics: LaneMetrics::new(&provider),
            outcomes: Arc::new(OutcomeMetrics::new()),
            board: Arc::default(),
            rules: LaneRules {
                policy: self.policy.clone(),
                topics: topics(),
                lanes: HashMap::from([
                    (provider.clone(), topics()),
                    (second(), LaneTopics { requests: "second".into(), due: "second.due".into() }),
                ]),
                breaker: BreakerRules::default(),
                commands: CommandWriter { phone_key: PhoneKey::new(b"a key for tests only").unwrap(), tiers },
                dead_letters: "dead".into(),
                terms: QuotaTerms { interval: Duration::from_millis(1), burst: 10, query_share: 0.2, retry_share: 0.2 },
                in_flight_max,
                heap_max,
                batch_max: 20,
                writers: 4,
                send_window: Duration::from_secs(1),
                callbacks: None,
            },
        });
        let mut topics = [Script::new("requests", self), Script::new("due", self)];
        for (offset, one) in coming.into_iter().enumerate() {
            let is_fresh = one.kind == CommandKind::Submit && one.order.attempt.is_none();
            topics[usize::from(!is_fresh)].push(i64::try_from(offset).unwrap(), &one);
        }
        let [fresh, due] = topics;
        let lane = tokio::spawn(lane.run(Box::new(fresh), Box::new(due), stop.clone()));
        tokio::time::sleep(length).await;
        stop.drain.cancel();
        stop.abort.cancel();
        // Told to drop everything, it says what it left.
        assert!(matches!(lane.await.unwrap(), Ok(()) | Err(RoleError::Left(_))));
    }

    pub(super) fn count(&self, state: State) -> usize {
        self.rows.lock().unwrap().values().filter(|row| row.state == state).count()
    }
}

fn start() -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000, 0).unwrap()
}

#[derive(Debug)]
struct Provider(Arc<World>, ProviderId, Capabilities);

#[async_trait]
impl RechargeProvider for Provider {
    fn id(&self) -> &ProviderId {
        &self.1
    }
    fn capabilities(&self) -> &Capabilities {
        &self.2
    }
    async fn connect(&self, wanted: usize) -> usize {
        wanted
    }
    async fn submit(&self, request: &SubmitRequest) -> SubmitOutcome {
        let reference = request.client_ref.as_str();
        self.0.sent.lock().unwrap().push(reference.to_owned());
        let (takes, outcome) = (self.0.submit)(reference);
        tokio::time::sleep(takes).await;
        outcome
    }
    async fn query(&self, key: &QueryKey) -> QueryOutcome {
        let reference = key.client_ref.as_str();
        self.0.asked.lock().unwrap().push((reference.to_owned(), self.0.began.elapsed()));
        let (takes, outcome) = (self.0.query)(reference);
        tokio::time::sleep(takes).await;
        outcome
    }

    fn read_callback(&self, _callback: &RawCallback, _now: Timestamp) -> Result<CallbackNews, CallbackRefusal> {
        Err(CallbackRefusal::Forged)
    }
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
    async fn insert(&self, _batch: &[Transition]) -> Result<Vec<Inserted>, StoreError> {
        unreachable!("a lane inserts nothing")
    }
    async fn load(&self, ids: &[OrderId]) -> Result<Vec<Loaded>, StoreError> {
        let rows = self.rows.lock().unwrap();
        Ok(ids.iter().map(|id| rows.get(id).cloned().map_or(Loaded::Absent, Loaded::Order)).collect())
    }
    async fn apply(&self, batch: &[Transition]) -> Result<Vec<Written>, StoreError> {
        tokio::time::sleep(Duration::from_millis(3)).await;
        let mut rows = self.rows.lock().unwrap();
        let write = |transition: &Transition| {
            let row = rows.get_mut(&transition.after.order_id).filter(|row| row.version == transition.from_version);
            let Some(row) = row else { return Written::Overtaken };
            *row = transition.after.clone();
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

/// There is always a permit: places are what is lacking.
#[async_trait]
impl Quota for World {
    async fn reserve(&self, reservation: &Reservation) -> Result<Grant, StoreError> {
        tokio::time::sleep(Duration::from_millis(2)).await;
        Ok(Grant { send_at: vec![Clock::now(self); reservation.wanted as usize], ask_again_at: None })
    }
    async fn pause(&self, _provider: &ProviderId, until: Timestamp) -> Result<(), StoreError> {
        self.paused.lock().unwrap().push(until);
        Ok(())
    }
}

#[async_trait]
impl Questions for World {
    async fn hold(&self, batch: &[Hold], _now: Timestamp) -> Result<Vec<Held>, StoreError> {
        Ok(batch.iter().map(|_| Held::Granted).collect())
    }
    async fn hasten(&self, batch: &[Haste]) -> Result<Vec<Hurried>, StoreError> {
        Ok(batch.iter().map(|_| Hurried::Overtaken).collect())
    }
}

#[async_trait]
impl Cooldowns for World {
    async fn cool(&self, batch: &[Cooling], _now: Timestamp) -> Result<Vec<Option<Timestamp>>, StoreError> {
        let cools = self.cools.lock().unwrap();
        Ok(batch.iter().map(|one| cools.get(&one.order_id).copied()).collect())
    }
    async fn give_back(&self, _batch: &[Cooling]) -> Result<(), StoreError> {
        Ok(())
    }
    async fn forget_cooled(&self, _before: Timestamp, _limit: usize) -> Result<usize, StoreError> {
        Ok(0)
    }
}

#[async_trait]
impl DeadlineBook for World {
    async fn low_water(&self) -> Result<Timestamp, StoreError> {
        Ok(start())
    }
    async fn move_low_water(&self, _from: Timestamp, _to: Timestamp) -> Result<bool, StoreError> {
        Ok(false)
    }
    async fn set_aside(&self, _from: Timestamp, _to: Timestamp) -> Result<bool, StoreError> {
        Ok(false)
    }
    async fn aside(&self, _after: &DeadlinePosition, _limit: usize) -> Result<DeadlinePage, StoreError> {
        Ok(DeadlinePage::default())
    }
    async fn horizon(&self) -> Result<Horizon, StoreError> {
        Ok(Horizon { oldest: 0, next: 0 })
    }
    async fn undecided(
        &self,
        _after: &DeadlinePosition,
        _until: Timestamp,
        _limit: usize,
    ) -> Result<DeadlinePage, StoreError> {
        Ok(DeadlinePage::default())
    }
    async fn census(&self, _low_water: Timestamp, _now: Timestamp) -> Result<Census, StoreError> {
        Ok(Census::default())
    }
    async fn unanswered(
        &self,
        _provider: &ProviderId,
        _claimed_before: Timestamp,
        _after: &DeadlinePosition,
        _until: Timestamp,
        _limit: usize,
    ) -> Result<DeadlinePage, StoreError> {
        Ok(DeadlinePage::default())
    }
}

#[async_trait]
impl ReadMarks for World {
    async fn note_read(&self, _topic: &str, _marks: &[ReadMark]) -> Result<(), StoreError> {
        Ok(())
    }
    async fn read_up_to(&self, _topic: &str, _partitions: usize) -> Result<Option<Timestamp>, StoreError> {
        Ok(None)
    }
}

#[async_trait]
impl Publisher for World {
    async fn publish(&self, batch: &[OutRecord]) -> Vec<Result<(), PublishError>> {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let (refuses, mut published) = (self.refuses.lock().unwrap(), self.published.lock().unwrap());
        let write = |record: &OutRecord| {
            if refuses.contains(record.topic.as_ref()) {
                return Err(PublishError::Refused("no such topic".to_owned()));
            }
            published.push(record.clone());
            Ok(())
        };
        batch.iter().map(write).collect()
    }
}

impl Assignment for World {
    fn is_live(&self) -> bool {
        true
    }
    fn done(&self, offset: i64) {
        self.done.lock().unwrap().insert(offset);
    }
}

/// A topic on which records come at their times.
#[derive(Debug)]
struct Script {
    topic: Arc<str>,
    world: Arc<World>,
    records: VecDeque<(Instant, InRecord)>,
}

impl Script {
    fn new(topic: &str, world: &Arc<World>) -> Self {
        Self { topic: topic.into(), world: Arc::clone(world), records: VecDeque::new() }
    }

    fn push(&mut self, offset: i64, one: &Coming) {
        let command = command_of(one.kind, &one.order);
        let record = InRecord {
            topic: Arc::clone(&self.topic),
            partition: 0,
            offset,
            timestamp: None,
            key: Some(Bytes::from_static(b"key")),
            value: Some(serde_json::to_vec(&command).unwrap().into()),
            headers: Vec::new(),
            ack: Ack::new(Arc::<World>::clone(&self.world), offset),
        };
        self.records.push_back((self.world.began + one.at, record));
    }
}

#[async_trait]
impl Subscription for Script {
    async fn next(&mut self, max: usize) -> Result<Vec<InRecord>, Stopped> {
        let Some((at, _)) = self.records.front() else { return std::future::pending().await };
        tokio::time::sleep_until(*at).await;
        let now = Instant::now();
        let due = self.records.iter().take(max).take_while(|(at, _)| *at <= now).count();
        Ok(self.records.drain(..due).map(|(_, record)| record).collect())
    }
    fn want(&self, _partition: i32, _wanted: bool) {}
    fn assignments(&self) -> u64 {
        1
    }
    fn acted_on(&self) -> Vec<ActedOn> {
        Vec::new()
    }
}
