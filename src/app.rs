//! The composition root: the only place that names concrete adapters. It opens what a process
//! needs, in an order in which a mistake is found before any order is touched, and hands the
//! roles their ports.

mod measured;
mod open;
mod watch;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::clock::SystemClock;
use crate::config::{Config, Secrets};
use crate::domain::msisdn::PhoneKey;
use crate::domain::{ProviderId, Reason};
use crate::kafka::{
    Consumer, ConsumerHandle, ConsumerOptions, ConsumerStatus, KafkaOptions, Producer, ProducerOptions, TopicInbox,
    TopicSubscription,
};
use crate::lifecycle::{Left, Lifecycle};
use crate::metrics;
use crate::metrics::{Exporter, IntakeMetrics, KafkaMetrics, LaneMetrics, OutcomeMetrics, RelayMetrics, StoreMetrics};
use crate::ports::{LaneTopics, Publisher, RechargeProvider, Store, Subscription};
use crate::probes::{self, Health};
use crate::roles::dispatch::{Lane, LaneParts, LaneRules};
use crate::roles::intake::{Intake, IntakeRules};
use crate::roles::relay::{Relay, RelayTopics};
use crate::roles::{RoleError, StopSignals};

use measured::{MeasuredPublisher, MeasuredStore, MeasuredSubscription};

pub use open::{
    StartError, broker_trouble, chain, kafka_options, open_checked_store, open_store, store_options, store_trouble,
    topic_plans,
};

/// Rows in one statement at most, and statements of a kind under way at once. Larger batches and
/// more writers were measured to cost more than they bring (`docs/PERFORMANCE.md`).
const BATCH_MAX: usize = 500;
const WRITERS: usize = 3;
/// Records of a topic that wait in memory at most.
const INBOX_HIGH_MARK: usize = 4_000;
/// Commands of a topic that wait in a lane's heap at most.
const HEAP_MAX: usize = 5_000;
/// Entries of the event log in one page.
const RELAY_PAGE: usize = 5_000;
/// For everything but a lane's drain.
const BUDGET: Duration = Duration::from_secs(3);
/// How long consumers may take to commit and to leave their groups.
const CLOSE: Duration = Duration::from_millis(2_500);
/// How long producers wait for what is still under way; their writers have ended by then.
const FLUSH: Duration = Duration::from_secs(1);
/// How long a store may take to answer whether it is there.
const STORE_ANSWERS: Duration = Duration::from_millis(500);

/// A role of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// From order events to stored orders and commands.
    Intake,
    /// From commands to recharges.
    Dispatch,
    /// From the event log to public events.
    Relay,
}

impl Role {
    /// Every role that this build has.
    pub const ALL: [Self; 3] = [Self::Intake, Self::Dispatch, Self::Relay];

    /// The role as `--roles` names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Intake => "intake",
            Self::Dispatch => "dispatch",
            Self::Relay => "relay",
        }
    }

    /// Reads a role as `--roles` names it.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

/// The providers that lanes call, by lane.
pub type Providers = HashMap<ProviderId, Arc<dyn RechargeProvider>>;

/// What a process is to be.
#[derive(Debug)]
pub struct Plan {
    /// The configuration, checked.
    pub config: Config,
    /// What it refers to.
    pub secrets: Secrets,
    /// What to do.
    pub roles: Vec<Role>,
    /// The broker lives in this process: it has no administration to verify topics with, and a
    /// gap in offsets is a loss.
    pub embedded_broker: bool,
    /// In place of the configured providers, for measurements.
    pub providers: Option<Providers>,
}

/// A process whose parts are running.
#[derive(Debug)]
pub struct App {
    /// Its components; run it to the end.
    pub lifecycle: Lifecycle,
    /// The store.
    pub store: Arc<dyn Store>,
    /// The time, corrected to the store's.
    pub clock: Arc<SystemClock>,
    /// How it is.
    pub health: Health,
    /// Its numbers.
    pub exporter: Exporter,
    /// Its consumers.
    pub consumers: Arc<Consumers>,
    /// Where probes and metrics are served.
    pub address: std::net::SocketAddr,
}

/// The consumers of a process; each is there until its role has stopped and it was closed.
#[derive(Debug, Default)]
pub struct Consumers(Vec<Mutex<Option<ConsumerHandle>>>);

impl Consumers {
    /// How they stand, those that are still open.
    pub fn statuses(&self) -> Vec<ConsumerStatus> {
        let open = |slot: &Mutex<Option<ConsumerHandle>>| {
            slot.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(ConsumerHandle::status)
        };
        self.0.iter().filter_map(open).collect()
    }

    /// Closes all at once: with a broker that does not answer, one after the other would take too long.
    async fn close(&self, deadline: Duration) -> anyhow::Result<()> {
        let take = |slot: &Mutex<Option<ConsumerHandle>>| slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        let closing = self.0.iter().filter_map(take).map(|handle| handle.close(deadline));
        let closed = futures_util::future::join_all(closing).await;
        let left: Vec<String> = closed.into_iter().filter_map(|closed| Some(closed.err()?.to_string())).collect();
        match left.len() {
            0 => Ok(()),
            _ => Err(Left(format!("{}: what came since the last commit comes again", left.join(", "))).into()),
        }
    }
}

/// Opens everything and starts the roles.
pub async fn start(plan: Plan) -> Result<App, StartError> {
    let listener = probes::bind(plan.config.http.listen.0).await.map_err(StartError::config)?;
    let address = listener.local_addr().map_err(StartError::config)?;
    let process =
        metrics::ProcessInfo { config_hash: plan.config.fingerprint(), sla_deadline: plan.config.sla.deadline.get() };
    let exporter = metrics::install(&process).map_err(StartError::failed)?;
    let clock = Arc::new(SystemClock::new());
    let store = open_checked_store(&plan.config, &plan.secrets).await?;
    watch::learn_skew(store.as_ref(), &clock).await?;
    let written = Arc::new(Notify::new());
    let store: Arc<dyn Store> = Arc::new(MeasuredStore {
        inner: store,
        clock: Arc::<SystemClock>::clone(&clock),
        metrics: StoreMetrics::new(),
        written: Arc::clone(&written),
    });
    let kafka = kafka_options(&plan.config, &plan.secrets);
    if !plan.embedded_broker {
        open::verify_topics(&plan.config, &kafka).await?;
    }
    let providers = match plan.providers.clone() {
        Some(providers) => providers,
        None => open::providers(&plan.config, &plan.secrets, &clock)?,
    };
    let builder = Builder {
        lifecycle: Lifecycle::new(plan.config.process.grace_period.get()),
        health: Health::new(),
        outcomes: Arc::new(OutcomeMetrics::new()),
        kafka_metrics: Arc::new(kafka_metrics(&plan)),
        consumers: Consumers::default(),
        producers: Vec::new(),
        plan,
        store,
        written,
        clock,
        kafka,
        providers,
    };
    builder.assemble(listener, address, exporter)
}

/// Of the topics that this process's roles read and write.
fn kafka_metrics(plan: &Plan) -> KafkaMetrics {
    let (topics, lanes) = (plan.config.topics(), plan.config.lanes());
    let commands = || lanes.iter().flat_map(|lane| [topics.requests(lane), topics.due(lane)]);
    let (mut read, mut written) = (Vec::new(), Vec::new());
    if plan.roles.contains(&Role::Intake) {
        read.extend([Arc::clone(&topics.orders), Arc::clone(&topics.lifecycle)]);
    }
    if plan.roles.contains(&Role::Dispatch) {
        read.extend(commands());
    }
    if plan.roles.contains(&Role::Relay) {
        written.extend([Arc::clone(&topics.order_events), Arc::clone(&topics.refunds)]);
    }
    written.extend(commands());
    written.push(Arc::clone(&topics.dead_letters));
    KafkaMetrics::new(&read, &written)
}

struct Builder {
    plan: Plan,
    lifecycle: Lifecycle,
    health: Health,
    store: Arc<dyn Store>,
    written: Arc<Notify>,
    clock: Arc<SystemClock>,
    kafka: KafkaOptions,
    providers: Providers,
    outcomes: Arc<OutcomeMetrics>,
    kafka_metrics: Arc<KafkaMetrics>,
    consumers: Consumers,
    producers: Vec<Arc<Producer>>,
}

impl Builder {
    /// Components stop in the reverse order of adding, so what others need comes first.
    fn assemble(
        mut self,
        listener: TcpListener,
        address: std::net::SocketAddr,
        exporter: Exporter,
    ) -> Result<App, StartError> {
        let (health, served) = (self.health.clone(), exporter.clone());
        self.lifecycle.add("probes", BUDGET, |stop| async move {
            probes::serve(listener, health, served, stop).await.map_err(Into::into)
        });
        let upkeep = exporter.clone();
        self.lifecycle.add("metrics upkeep", BUDGET, |stop| async move {
            upkeep.upkeep(stop).await;
            Ok(())
        });
        self.preset_metrics();
        let commands = self.producer(ProducerOptions { linger: Duration::from_millis(2), ..Default::default() })?;
        let roles = self.plan.roles.clone();
        let mut running = Vec::new();
        if roles.contains(&Role::Relay) {
            running.push(self.relay()?);
        }
        if roles.contains(&Role::Dispatch) {
            for lane in self.plan.config.lanes() {
                running.push(self.lane(&lane, &commands)?);
            }
        }
        if roles.contains(&Role::Intake) {
            running.extend(self.intake(&commands)?);
        }
        let producers = std::mem::take(&mut self.producers);
        self.lifecycle.add("producers", BUDGET, |stop| async move {
            stop.cancelled().await;
            flush(producers).await
        });
        let consumers = Arc::new(std::mem::take(&mut self.consumers));
        let closing = Arc::clone(&consumers);
        // Added before the roles, so closed after them: what they have settled is committed.
        self.lifecycle.add("consumers", BUDGET, |stop| async move {
            stop.cancelled().await;
            closing.close(CLOSE).await
        });
        watch::add(
            &mut self.lifecycle,
            watch::Watched {
                store: Arc::clone(&self.store),
                clock: Arc::clone(&self.clock),
                health: self.health.clone(),
                consumers: Arc::clone(&consumers),
                kafka: Arc::clone(&self.kafka_metrics),
                embedded_broker: self.plan.embedded_broker,
            },
        );
        for role in running {
            self.lifecycle.add_patient(role.name, role.budget, role.give_up, role.start);
        }
        Ok(App {
            lifecycle: self.lifecycle,
            store: self.store,
            clock: self.clock,
            health: self.health,
            exporter,
            consumers,
            address,
        })
    }

    fn preset_metrics(&self) {
        let topics = self.plan.config.topics();
        let mut sources = vec![Arc::clone(&topics.orders), Arc::clone(&topics.lifecycle)];
        for lane in self.plan.config.lanes() {
            sources.extend([topics.requests(&lane), topics.due(&lane)]);
        }
        metrics::preset_dead_letters(&sources);
    }

    /// How a role is told to end: to drain with all others, to drop everything when its time is over.
    fn stop(&self) -> StopSignals {
        StopSignals { drain: self.lifecycle.drain(), abort: CancellationToken::new() }
    }

    fn producer(&mut self, options: ProducerOptions) -> Result<Arc<dyn Publisher>, StartError> {
        let producer = Arc::new(Producer::new(&self.kafka, options).map_err(StartError::config)?);
        self.producers.push(Arc::clone(&producer));
        Ok(Arc::new(MeasuredPublisher { inner: producer, metrics: Arc::clone(&self.kafka_metrics) }))
    }

    /// A member of a topic's group: one group per topic, so that each is shared evenly.
    fn consumer(&mut self, group: &str, role: &str, topic: &Arc<str>) -> Result<Box<dyn Subscription>, StartError> {
        let inbox = TopicInbox { topic: Arc::clone(topic), high_mark: INBOX_HIGH_MARK };
        let mut options = ConsumerOptions::new(group, vec![inbox]);
        options.static_id = self.kafka.static_id(role, 0);
        options.begins_at_zero = self.plan.embedded_broker;
        options.properties = self.plan.config.kafka.consumer_properties();
        let (handle, subscriptions) = Consumer::start(&self.kafka, options).map_err(StartError::config)?;
        self.consumers.0.push(Mutex::new(Some(handle)));
        let missing = || StartError::Failed(format!("group {group}: the consumer gave no subscription"));
        let inner: TopicSubscription = subscriptions.into_iter().next().ok_or_else(missing)?;
        let (topic, metrics) = (Arc::clone(topic), Arc::clone(&self.kafka_metrics));
        Ok(Box::new(MeasuredSubscription { inner, topic, metrics }))
    }

    fn intake(&mut self, commands: &Arc<dyn Publisher>) -> Result<Vec<Running>, StartError> {
        let config = &self.plan.config;
        let (topics, groups) = (config.topics(), config.groups());
        let lanes: HashMap<ProviderId, LaneTopics> =
            config.lanes().into_iter().map(|lane| (lane.clone(), topics.lane(&lane))).collect();
        let table = config.route_table();
        let rules = Arc::new(IntakeRules {
            policy: config.policy(),
            route: Box::new(move |new| {
                let number = new.recipient.msisdn().ok_or(Reason::InvalidPhone)?;
                table.choose(&number, new.carrier.as_deref(), new.amount).cloned()
            }),
            phone_key: self.phone_key()?,
            lanes,
            dead_letters: Arc::clone(&topics.dead_letters),
            retention: config.retention.closed_orders.get(),
            batch_max: BATCH_MAX,
            writers: WRITERS,
        });
        let inputs = [
            (topics.orders, groups.intake, "orders", true),
            (topics.lifecycle, groups.intake_lifecycle, "lifecycle", false),
        ];
        let mut running = Vec::new();
        for (topic, group, source, plain_is_order) in inputs {
            let role = if plain_is_order { "intake".to_owned() } else { format!("intake.{source}") };
            let subscription = self.consumer(&group, &role, &topic)?;
            let intake = Intake {
                store: self.store.clone(),
                publisher: Arc::clone(commands),
                clock: Arc::<SystemClock>::clone(&self.clock),
                rules: Arc::clone(&rules),
                plain_is_order,
                metrics: Arc::new(IntakeMetrics::new(source)),
                outcomes: Arc::clone(&self.outcomes),
            };
            let stop = self.stop();
            let give_up = stop.abort.clone();
            let work = intake.run(subscription, stop);
            running.push(Running::new(format!("intake of {source}"), BUDGET, give_up, work));
        }
        Ok(running)
    }

    fn lane(&mut self, lane: &ProviderId, commands: &Arc<dyn Publisher>) -> Result<Running, StartError> {
        let config = &self.plan.config;
        let missing = || StartError::Config(format!("providers.{lane}: there is no such provider"));
        let settings = config.providers.get(lane.as_str()).ok_or_else(missing)?;
        let provider = Arc::clone(self.providers.get(lane).ok_or_else(missing)?);
        let topics = config.topics().lane(lane);
        let rules = LaneRules {
            policy: config.policy(),
            dead_letters: config.topics().dead_letters,
            phone_key: self.phone_key()?,
            terms: settings.quota.terms(),
            in_flight_max: usize::try_from(settings.quota.in_flight_max).unwrap_or(usize::MAX),
            heap_max: HEAP_MAX,
            batch_max: BATCH_MAX,
            writers: WRITERS,
            send_window: settings.send_window.get(),
            topics: topics.clone(),
        };
        let budget = settings.call_timeout.get() + Duration::from_secs(5);
        let (groups, role) = (config.groups(), format!("dispatch-{lane}"));
        let fresh = self.consumer(&groups.dispatch(lane), &role, &topics.requests)?;
        let due = self.consumer(&groups.dispatch_due(lane), &format!("{role}.due"), &topics.due)?;
        let dispatch = Lane::new(LaneParts {
            store: self.store.clone(),
            quota: self.store.clone(),
            publisher: Arc::clone(commands),
            provider,
            clock: Arc::<SystemClock>::clone(&self.clock),
            rules,
            metrics: LaneMetrics::new(lane),
            outcomes: Arc::clone(&self.outcomes),
        });
        let stop = self.stop();
        let give_up = stop.abort.clone();
        Ok(Running::new(format!("dispatch to {lane}"), budget, give_up, dispatch.run(fresh, due, stop)))
    }

    fn relay(&mut self) -> Result<Running, StartError> {
        // Without a time-out: giving up on one version would let the next one overtake it.
        let options = ProducerOptions {
            message_timeout: None,
            max_in_flight_records: 4 * RELAY_PAGE,
            linger: Duration::from_millis(5),
        };
        let publisher = self.producer(options)?;
        let names = self.plan.config.topics();
        let topics = RelayTopics { order_events: names.order_events, refunds: names.refunds };
        let relay = Relay {
            log: self.store.clone(),
            publisher,
            clock: Arc::<SystemClock>::clone(&self.clock),
            metrics: RelayMetrics::new(&[Arc::clone(&topics.order_events), Arc::clone(&topics.refunds)]),
            topics,
            written: Arc::clone(&self.written),
            page_max: RELAY_PAGE,
        };
        // It is told to end when its turn has come, after the roles whose last events it tells.
        let abort = CancellationToken::new();
        let (give_up, log) = (abort.clone(), Arc::clone(&self.store));
        Ok(Running::in_turn("relay".to_owned(), BUDGET, give_up, |turn| async move {
            let dropped = abort.clone();
            tokio::select! {
                biased; // An end of its own counts.
                ended = relay.run(StopSignals { drain: turn, abort }) => ended?,
                // A store that hangs may hold it for long; nothing is lost with it.
                () = dropped.cancelled() => {}
            }
            // A relay ends without a word when it cannot go on; here it says whether it could.
            let readable = tokio::time::timeout(STORE_ANSWERS, log.cursor()).await.is_ok_and(|cursor| cursor.is_ok());
            if dropped.is_cancelled() || !readable {
                let left = "the event log may not be told to its end: the next relay goes on from its cursor";
                return Err(RoleError::Left(left.to_owned()));
            }
            Ok(())
        }))
    }

    fn phone_key(&self) -> Result<PhoneKey, StartError> {
        let missing = || StartError::Config("security.phone_key_file: is missing".to_owned());
        self.plan.secrets.phone_key.clone().ok_or_else(missing)
    }
}

/// Waits for all producers at once, and counts what was not acknowledged.
async fn flush(producers: Vec<Arc<Producer>>) -> anyhow::Result<()> {
    let closing = producers.iter().map(|producer| producer.close(FLUSH));
    match futures_util::future::join_all(closing).await.into_iter().sum::<usize>() {
        0 => Ok(()),
        left => Err(Left(format!("{left} records were not acknowledged: what they tell is still in the store")).into()),
    }
}

/// A role, ready to run.
struct Running {
    name: &'static str,
    budget: Duration,
    give_up: CancellationToken,
    start: Box<dyn FnOnce(CancellationToken) -> BoxFuture<'static, anyhow::Result<()>> + Send>,
}

impl Running {
    /// A role that takes no new work as soon as the process is told to end.
    fn new(
        name: String,
        budget: Duration,
        give_up: CancellationToken,
        work: impl Future<Output = Result<(), RoleError>> + Send + 'static,
    ) -> Self {
        Self::in_turn(name, budget, give_up, |_| work)
    }

    /// A role that goes on until it is its turn to end.
    fn in_turn<F>(
        name: String,
        budget: Duration,
        give_up: CancellationToken,
        start: impl FnOnce(CancellationToken) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), RoleError>> + Send + 'static,
    {
        let start = |turn| {
            async move {
                start(turn).await.map_err(|error| match error {
                    RoleError::Left(what) => Left(what).into(),
                    error @ (RoleError::Subscription(_)
                    | RoleError::Task(_)
                    | RoleError::Render(_)
                    | RoleError::Store(_)) => error.into(),
                })
            }
            .boxed()
        };
        // A handful per process, for its whole life.
        Self { name: name.leak(), budget, give_up, start: Box::new(start) }
    }
}
