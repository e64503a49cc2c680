//! The stage of the demo: broker, store, provider and service, each in this process unless told
//! otherwise; and the play on it.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::plan::{Expected, TooFewOrders, Trouble};
use super::props::{Folder, configure, open_broker, quota, refuse_used, seller, simulate};
use super::report::DemoReport;
use super::tap::{Seen, Tap};
use super::unpaid::{self, Aftermath, Verdict, left_to_come};
use super::view::{Frame, View};
use super::{DemoArgs, Scenario};
use crate::app::{self, App, Plan, Role, chain, kafka_options, store_options};
use crate::audit::{self, Ledgers, micros_histogram, percentiles};
use crate::cli::audit::read_ledger;
use crate::cli::output::{CliError, Output};
use crate::config::Config;
use crate::domain::State;
use crate::kafka::{ConsumerStatus, EmbeddedBroker, Producer, ProducerOptions, embedded};
use crate::lifecycle::Outcome;
use crate::metrics;
use crate::ports::{CaseFilter, Clock, Publisher, Store};
use crate::providers::simulator::SimulatorHandle;
use crate::shop::Shop;
use crate::shop::customers::Customers;
use crate::store;

/// The shortest deadline into which a call fits, with its window, and a second one.
const SLA_MIN: Duration = Duration::from_secs(10);
/// Orders that are sold and not yet stored, and sold and not yet closed: what the embedded broker
/// can hold without dropping any, with room to spare.
const UNSTORED_MAX: u64 = 8_000;
const UNCLOSED_MAX: u64 = 40_000;
/// How often the view is drawn.
const FRAME: Duration = Duration::from_millis(250);
/// How often the open cases are counted.
const CASES_EVERY: Duration = Duration::from_secs(1);
/// After this long without any event, what is open is waiting for something that does not come.
const QUIET: Duration = Duration::from_secs(7);

/// Everything that the demo runs.
pub(super) struct Stage {
    pub(super) seed: u64,
    pub(super) address: std::net::SocketAddr,
    service: JoinHandle<Outcome>,
    stop_service: CancellationToken,
    app: Running,
    tap: Tap,
    simulator: SimulatorHandle,
    cast: Cast,
    producer: Arc<dyn Publisher>,
    config: Config,
    // Dropped last: the others use them.
    broker: Option<EmbeddedBroker>,
    folder: Folder,
}

/// Who brings the orders, and what goes with them.
enum Cast {
    Paid { seller: Shop, trouble: Trouble },
    Unpaid { customers: Customers, aftermath: Aftermath },
}

/// What is left of the service's parts once it runs.
struct Running {
    store: Arc<dyn Store>,
    clock: Arc<crate::clock::SystemClock>,
    consumers: Arc<app::Consumers>,
}

impl Stage {
    /// Starts everything.
    pub(super) async fn set(args: &DemoArgs) -> Result<Self, CliError> {
        if args.sla < SLA_MIN {
            let (given, least) = (humantime::format_duration(args.sla), humantime::format_duration(SLA_MIN));
            return Err(CliError::config(format!(
                "--sla: {given} leaves no time for a call and another one: give at least {least}"
            )));
        }
        unpaid::check(args)?;
        let seed = args.seed.unwrap_or_else(|| rand::rng().random());
        let folder = Folder::make()?;
        let (config, secrets) = configure(args, &folder)?;
        let seller = seller(args, seed);
        let profile = args.faults().profile();
        let trouble = Trouble::plan(&profile, &seller).map_err(|few| too_few(args, seed, few))?;
        let simulator = simulate(profile, &trouble, seed, &folder).await?;
        metrics::keep_lateness(micros_histogram());
        let mut config = config;
        if let Some(provider) = config.providers.get_mut("simulator") {
            provider.base_url = simulator.base_url();
        }
        let options = store_options(&config, &secrets);
        refuse_used(args.database.as_deref(), &options).await?;
        store::migrate(config.store.url.expose(), &options).await.map_err(|error| match &error {
            store::MigrateError::Open(error) => app::store_trouble(error).into(),
            store::MigrateError::Apply(_) => CliError::failed(format!("--database: {}", chain(&error))),
        })?;
        let broker = open_broker(args, &mut config, &secrets).await?;
        let kafka = kafka_options(&config, &secrets);
        let tap = Tap::start(&kafka, &config, broker.is_some())?;
        let plan = Plan {
            config: config.clone(),
            secrets,
            roles: Role::ALL.to_vec(),
            embedded_broker: broker.is_some(),
            providers: None,
        };
        let producer = Producer::new(&kafka, ProducerOptions::default());
        let producer: Arc<dyn Publisher> = Arc::new(producer.map_err(|error| CliError::failed(chain(&error)))?);
        let app = app::start(plan).await?;
        let App { lifecycle, store, clock, consumers, address, .. } = app;
        let stop_service = lifecycle.drain();
        // The demo hears the signals itself, so the service gets none.
        let service = tokio::spawn(async move {
            let (silent, mut signals) = tokio::sync::mpsc::channel(1);
            let outcome = lifecycle.run_until_done(&mut signals).await;
            drop(silent);
            outcome
        });
        let cast = match args.scenario {
            Scenario::Paid => Cast::Paid { seller, trouble },
            Scenario::Unpaid => {
                let customers = unpaid::customers(args, seed, &config.topics());
                let time = Arc::clone(&clock) as Arc<dyn Clock>;
                let aftermath = Aftermath::start(&kafka, &config, broker.is_some(), &producer, &time)?;
                Cast::Unpaid { customers, aftermath }
            }
        };
        let app = Running { store, clock, consumers };
        Ok(Self { seed, address, service, stop_service, app, tap, simulator, cast, producer, config, broker, folder })
    }

    /// Sells the orders, shows how they fare, and waits until nothing moves any more. Returns how
    /// many were sold.
    pub(super) async fn play(&self, args: &DemoArgs, output: Output) -> u64 {
        self.until_joined().await;
        let stop = CancellationToken::new();
        let _stop_with_us = stop.clone().drop_guard();
        let sold = std::sync::atomic::AtomicU64::new(0);
        let room = || {
            let sold = sold.load(std::sync::atomic::Ordering::Relaxed);
            if self.broker.is_none() {
                return u64::MAX;
            }
            let seen = self.tap.seen();
            let unstored = UNSTORED_MAX.saturating_sub(sold.saturating_sub(seen.orders));
            unstored.min(UNCLOSED_MAX.saturating_sub(sold.saturating_sub(seen.closed())))
        };
        let on_sold = |count| {
            sold.fetch_add(count, std::sync::atomic::Ordering::Relaxed);
        };
        let all_sold = std::sync::atomic::AtomicBool::new(false);
        let selling = async {
            let (producer, clock) = (Arc::clone(&self.producer), self.app.clock.as_ref());
            let sold = match &self.cast {
                Cast::Paid { seller, .. } => {
                    seller.sell(producer, &self.config.topics().orders, clock, &room, &on_sold, &stop).await
                }
                Cast::Unpaid { customers, .. } => customers.come(producer, clock, &room, &on_sold, &stop).await,
            };
            all_sold.store(true, std::sync::atomic::Ordering::Relaxed);
            sold.acknowledged
        };
        let watching = self.watch(args, output, &sold, &all_sold);
        tokio::join!(selling, watching).0
    }

    /// Waits until the service has its partitions: joining a group takes the broker some seconds,
    /// and the first orders would show nothing but that.
    async fn until_joined(&self) {
        let has_all = |status: &ConsumerStatus| status.topics.iter().all(|topic| !topic.assigned.is_empty());
        for _ in 0..200 {
            if self.app.consumers.statuses().iter().all(has_all) || self.service.is_finished() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn watch(
        &self,
        args: &DemoArgs,
        output: Output,
        sold: &std::sync::atomic::AtomicU64,
        all_sold: &std::sync::atomic::AtomicBool,
    ) {
        let mut view = View::open(output);
        let (mut cases, mut counted_at) = (0, None::<tokio::time::Instant>);
        let (mut last, mut quiet_since) = (Seen::default(), tokio::time::Instant::now());
        loop {
            tokio::time::sleep(FRAME).await;
            let seen = self.tap.seen();
            if seen.read != last.read {
                quiet_since = tokio::time::Instant::now();
            }
            let sold = sold.load(std::sync::atomic::Ordering::Relaxed);
            if counted_at.is_none_or(|at| at.elapsed() > CASES_EVERY) {
                (cases, counted_at) = (self.open_cases().await, Some(tokio::time::Instant::now()));
            }
            view.draw(&Frame {
                cases,
                wanted: args.orders,
                sold,
                seen: &seen,
                rate: args.rate,
                quota: self.quota(args),
                provider: self.simulator.stats(),
            });
            let quiet = quiet_since.elapsed();
            let all_sold = all_sold.load(std::sync::atomic::Ordering::Relaxed);
            // An order of which nothing is ever heard is waited for longer, and then it is lost. One
            // that is open is decided at its deadline; in doubt is a decision. Where none comes, the report says so.
            let undecided = seen.open() - seen.of(State::InDoubt);
            let longest = args.sla.max(self.config.sla.unpaid_timeout.get());
            let is_over = quiet > longest + audit::DECIDED_WITHIN + QUIET;
            let at_rest = if seen.orders < sold { quiet > 3 * QUIET } else { undecided == 0 || is_over };
            if all_sold && at_rest && (is_over || !self.is_left(sold).await) || self.service.is_finished() {
                break;
            }
            last = seen;
        }
        view.close();
    }

    /// Whether something is still to come of orders that are decided.
    async fn is_left(&self, sold: u64) -> bool {
        match &self.cast {
            Cast::Paid { .. } => false,
            Cast::Unpaid { aftermath, .. } => {
                // A store that is busy is asked again.
                left_to_come(self.app.store.as_ref(), aftermath, sold).await.unwrap_or(true)
            }
        }
    }

    /// Up to a thousand; a store that is busy is asked again the next time.
    async fn open_cases(&self) -> usize {
        self.app.store.cases(&CaseFilter::default(), None, 1_000).await.map_or(0, |cases| cases.len())
    }

    fn quota(&self, args: &DemoArgs) -> f64 {
        quota(args)
            .unwrap_or(0.0)
            .max(self.config.providers.get("simulator").map_or(0.0, |provider| provider.quota.permits_per_second))
    }

    /// Stops everything, and compares the books with the ledger. `sold` is how many orders must be
    /// in the books; when the play was broken off, nobody knows.
    pub(super) async fn finish(self, sold: Option<u64>) -> Result<DemoReport, CliError> {
        let told = |error: &dyn std::error::Error| CliError::failed(chain(error));
        let dropped: u64 = match &self.broker {
            Some(_) => self.app.consumers.statuses().iter().map(embedded::lost_records).sum(),
            None => 0,
        };
        self.stop_service.cancel();
        let outcome = self.service.await.map_err(|error| told(&error))?;
        if !outcome.aborted {
            crate::cli::run::told(outcome)?;
        }
        let strikes = self.simulator.strikes();
        self.simulator.shutdown().await;
        // The service has told its last events; the tap has still to read them.
        read_all(&self.tap, self.app.store.as_ref()).await;
        let ledgers = Ledgers::Anyones(read_ledger(&self.folder.file("ledger.jsonl"))?);
        let store = self.app.store.as_ref();
        let mut report = audit::reckon(store, &ledgers, sold, |_| ()).await.map_err(|error| told(&error))?;
        report.events = Some(self.tap.against(store).await.map_err(|error| told(&error))?);
        if let Some(kept) = metrics::kept_lateness() {
            (report.delay_lateness_ms, report.early) = (percentiles(&kept.late), kept.early);
        }
        let seen = self.tap.seen();
        let (expected, verdict) = match self.cast {
            Cast::Paid { trouble, .. } => (trouble.expected(), None),
            Cast::Unpaid { customers, aftermath } => {
                let notify_after = self.config.sla.notify_after.get();
                let verdict = Verdict::find(store, &customers, &aftermath, notify_after).await;
                aftermath.close().await;
                (Expected::default(), Some(verdict.map_err(|error| told(&error))?))
            }
        };
        self.tap.close().await;
        drop(self.broker);
        // One that was broken off had no time for everything.
        let expected = if sold.is_some() { expected } else { Expected::default() };
        let report = DemoReport::new(report, (dropped, self.seed), sold.is_some(), &seen, &strikes, &expected);
        Ok(report.with_verdict(verdict))
    }
}

fn too_few(args: &DemoArgs, seed: u64, TooFewOrders { classes, least }: TooFewOrders) -> CliError {
    CliError::config(format!(
        "--orders: with {} there are too few for --faults {}, of whose {classes} classes each must strike somebody: give \
         --orders {} or more (--seed {seed} needs {least}), or --faults none",
        args.orders,
        args.faults().as_str(),
        least.next_multiple_of(50),
    ))
}

/// Gives the tap the time to read the last events.
async fn read_all(tap: &Tap, store: &dyn Store) {
    for _ in 0..100 {
        if tap.is_even(store).await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
