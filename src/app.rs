//! The composition root: the only place that names concrete adapters. It opens what a process
//! needs, in an order in which a mistake is found before any order is touched, and hands the
//! roles their ports. [`start`] is the list of how the parts are put together.

mod alone;
mod clients;
mod lanes;
mod measured;
mod open;
mod plan;
mod roles;
mod running;
mod watch;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::callbacks;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::kafka::topics;
use crate::lifecycle::Lifecycle;
use crate::metrics::{self, Exporter, OutcomeMetrics, StoreMetrics};
use crate::ports::Store;
use crate::probes::{self, Health};

use clients::Clients;
use measured::MeasuredStore;
use roles::Parts;

pub use alone::run;
pub use clients::Consumers;
pub use open::{
    StartError, broker_trouble, chain, kafka_options, open_checked_store, open_list, open_store, store_options,
    store_trouble, topic_plans,
};
pub use plan::{Plan, Providers, Role};

/// For everything but a lane's drain.
const BUDGET: Duration = Duration::from_secs(3);

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
    pub address: SocketAddr,
    /// Where callbacks are taken, if they are.
    pub callbacks: Option<SocketAddr>,
}

/// Opens everything and starts the roles; refuses to work on topics that are missing or of another shape.
pub async fn start(plan: Plan) -> Result<App, StartError> {
    let former_tiers = open::check_topics(&plan, topics::ANSWER_LIMIT).await?;
    start_on(plan, Broker::Answers { former_tiers }).await
}

/// What is known of the broker when a process starts.
enum Broker {
    /// Its topics were looked at, and these tiers are no longer configured.
    Answers { former_tiers: Vec<Duration> },
    /// It does not answer. Who starts all the same is not ready, and begins anew when it does.
    Away,
}

/// Opens everything else and starts the roles.
async fn start_on(plan: Plan, broker: Broker) -> Result<App, StartError> {
    let (former_tiers, broker_is_away) = match broker {
        Broker::Answers { former_tiers } => (former_tiers, false),
        Broker::Away => (Vec::new(), true),
    };
    let listener = probes::bind(plan.config.http.listen.0).await.map_err(StartError::config)?;
    let address = listener.local_addr().map_err(StartError::config)?;
    let callbacks = open::callback_listener(&plan).await?;
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
    let board = Arc::default();
    lanes::learn(store.as_ref(), &board, &plan.config.lanes()).await;
    let kafka = kafka_options(&plan.config, &plan.secrets);
    let providers = match plan.providers.clone() {
        Some(providers) => providers,
        None => open::providers(&plan.config, &plan.secrets, &clock)?,
    };
    let lifecycle = Lifecycle::new(plan.config.process.grace_period.get());
    let parts = Parts {
        clients: Clients::new(kafka, &plan),
        outcomes: Arc::new(OutcomeMetrics::new()),
        at_hand: roles::rows_at_hand(&plan),
        board,
        drain: lifecycle.drain(),
        plan,
        former_tiers,
        broker_is_away,
        store,
        written,
        clock,
        providers,
    };
    assemble(parts, lifecycle, Listeners { probes: listener, callbacks }, address, exporter)
}

/// The ports of a process, open.
struct Listeners {
    probes: TcpListener,
    callbacks: Option<callbacks::Listener>,
}

/// Components stop in the reverse order of adding, so what others need comes first.
fn assemble(
    mut parts: Parts,
    mut lifecycle: Lifecycle,
    listeners: Listeners,
    address: SocketAddr,
    exporter: Exporter,
) -> Result<App, StartError> {
    let health = Health::new();
    let (served_health, served) = (health.clone(), exporter.clone());
    lifecycle.add("probes", BUDGET, |stop| async move {
        probes::serve(listeners.probes, served_health, served, stop).await.map_err(Into::into)
    });
    let upkeep = exporter.clone();
    lifecycle.add("metrics upkeep", BUDGET, |stop| async move {
        upkeep.upkeep(stop).await;
        Ok(())
    });
    preset_dead_letters(&parts.plan.config);

    let commands = parts.commands()?;
    let chosen = parts.plan.roles.clone();
    let mut roles = Vec::new();
    if chosen.contains(&Role::Relay) {
        roles.push(parts.relay()?);
    }
    if chosen.contains(&Role::Watchdog) {
        roles.push(parts.watchdog(&commands)?);
    }
    if chosen.contains(&Role::Delay) {
        roles.extend(parts.delay()?);
    }
    if chosen.contains(&Role::Dispatch) {
        for lane in parts.plan.config.lanes() {
            roles.push(parts.lane(&lane, &commands)?);
        }
    }
    if chosen.contains(&Role::Intake) {
        roles.extend(parts.intake(&commands)?);
    }
    let mut door = None;
    if let Some(listener) = listeners.callbacks
        && let Some((role, taken)) = parts.callback(&commands)?
    {
        roles.push(role);
        door = Some((listener, taken));
    }

    let Parts { plan, broker_is_away, store, clock, clients, board, .. } = parts;
    let (producers, consumers) = (clients.producers, Arc::new(clients.consumers));
    let flushed = producers.clone();
    lifecycle.add("producers", BUDGET, |stop| async move {
        stop.cancelled().await;
        flushed.flush().await
    });
    let closing = Arc::clone(&consumers);
    // Added before the roles, so closed after them: what they have settled is committed.
    lifecycle.add("consumers", BUDGET, |stop| async move {
        stop.cancelled().await;
        closing.close().await
    });
    lanes::add(&mut lifecycle, Arc::clone(&store), board, plan.config.lanes());
    watch::add(
        &mut lifecycle,
        watch::Watched {
            store: Arc::clone(&store),
            clock: Arc::clone(&clock),
            health: health.clone(),
            consumers: Arc::clone(&consumers),
            producers,
            kafka: clients.metrics,
            embedded_broker: plan.embedded_broker,
            broker_is_away,
        },
    );
    for role in roles {
        role.add_to(&mut lifecycle);
    }
    let mut callbacks = None;
    if let Some((listener, door)) = door {
        callbacks = Some(listener.address().map_err(StartError::config)?);
        lifecycle.add("callback listener", BUDGET, |stop| async move {
            listener.serve(door, stop).await;
            Ok(())
        });
    }
    Ok(App { lifecycle, store, clock, health, exporter, consumers, address, callbacks })
}

/// Of every topic whose records can become dead letters, whatever this process reads.
fn preset_dead_letters(config: &Config) {
    let topics = config.topics();
    let mut sources = [&topics.orders, &topics.lifecycle, &topics.timers].map(Arc::clone).to_vec();
    for lane in config.lanes() {
        sources.extend([topics.requests(&lane), topics.due(&lane)]);
    }
    metrics::preset_dead_letters(&sources);
}
