//! A provider of recharges that does not exist, over HTTP: for the demo, the tests and trials.
//!
//! It behaves as its [`Profile`] says, repeatably from a seed, and keeps a [ledger](read_ledger)
//! of what it really delivered, which is on the disk before the reply goes out.
//!
//! | request | answers |
//! |---|---|
//! | `POST /recharges` `{client_ref, phone, amount_minor, currency, callback_url?}` | 200 `{status: "succeeded", provider_ref, amount_minor, currency, delivered_at}`, 202 `{status: "accepted", provider_ref}`, 422 `{status: "rejected", code, retryable, retry_after_ms?}`, 409 `{code: "duplicate"}`, 429 or 200 `{code: "throttled", retry_after_ms?}` with `Retry-After`, 200 `{code: "system_error"}` (ask, do not take it for a failure), 403 `{code: "banned", retry_after_ms?}` with `Retry-After`, 401 |
//! | `GET /recharges/{client_ref}` | 200 with one of the three statuses above, or `reversed`, or `unknown`; 404 `{code: "not_found"}`, 403 `{code: "too_early" or "too_often", retry_after_ms}`, 403 as above, 429, 401 |
//! | `GET /recharges?from=&until=&after=&limit=` | 200 `{recharges: [{client_ref, state, amount_minor, currency, at, provider_ref}], after}`, by reference: how each truly stands, and behind which the next page begins, where there is one |
//! | `/_admin/…` | the administration, `docs/SIMULATOR.md` |
//!
//! Where callbacks are on, the end of a recharge is told by a POST to its `callback_url`, with the body of the answer to a
//! query and `client_ref`, signed as Standard Webhooks has it; a 2xx acknowledges it.
//!
//! With a rate limit every answer carries `X-Ratelimit-Limit` and `X-Ratelimit-Remaining`.

mod arrivals;
mod callbacks;
mod class;
mod dialect;
mod dice;
mod engine;
mod faced;
mod fate;
mod ledger;
mod profile;
mod reply;
mod script;
mod scripted;
mod server;
mod setup;
mod stats;
mod strikes;
mod text;
mod windows;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle as ThreadHandle;

use rand::Rng as _;
use tokio::task::JoinHandle;
use tokio_util::sync::DropGuard;

use self::arrivals::Arrivals;
pub use self::arrivals::{Arrival, QuotaExceeded, RequestKind, check_quota, max_over_window, read_arrivals};
use self::callbacks::Outbox;
pub use self::callbacks::{CallbackUrl, NoCallbackUrl};
pub use self::class::FaultClass;
pub use self::dialect::Dialect;
use self::dialect::Login;
use self::engine::{Engine, Remembered};
pub use self::engine::{ReferenceView, Resolution, ResolveError};
use self::ledger::Ledger;
pub use self::ledger::{Delivery, LedgerError, LedgerReader, read_ledger};
pub use self::profile::{
    Ban, Callbacks, Declines, Faults, Latency, Outcomes, Profile, ProfileError, Queries, Rates, Spell, Throttle,
};
pub use self::script::{Script, ScriptError, ScriptedAnswer, Step};
use self::server::Door;
pub use self::stats::{CallbackStats, Stats};
pub use self::strikes::Strike;
use super::Secret;
use crate::domain::Currency;
use crate::ports::Clock;

/// How to run a simulator.
#[derive(Debug, Clone)]
pub struct SimulatorOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// How it behaves.
    pub profile: Profile,
    /// What is to happen to certain references or submits.
    pub script: Script,
    /// Our balance there in minor units, of whatever currency; without one it has no end.
    pub balance: Option<i64>,
    /// The ledger file; without one nothing is kept beyond this run.
    pub ledger: Option<PathBuf>,
    /// A log of every request's arrival.
    pub requests: Option<PathBuf>,
    /// What decides everything that looks random; without one it is drawn, and logged.
    pub seed: Option<u64>,
    /// Whose protocol it speaks.
    pub dialect: Dialect,
    /// The account that callers must name; any, without one.
    pub account: Option<String>,
    /// The key that callers must show, or sign with.
    pub key: Option<Secret>,
    /// The currency of amounts that a dialect sends without one.
    pub currency: Currency,
    /// Where callbacks go whose submit named no address; nowhere, without one.
    pub callback_url: Option<CallbackUrl>,
    /// What callbacks are signed with; `key`, if left out.
    pub callback_key: Option<Secret>,
}

impl Default for SimulatorOptions {
    /// On a free port of this machine alone.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            profile: Profile::default(),
            script: Script::default(),
            balance: None,
            ledger: None,
            requests: None,
            seed: None,
            dialect: Dialect::Own,
            account: None,
            key: None,
            currency: Currency::CNY,
            callback_url: None,
            callback_key: None,
        }
    }
}

/// Why a simulator does not start.
#[derive(Debug, thiserror::Error)]
pub enum SimulatorError {
    /// Its profile makes no sense.
    #[error("the profile cannot be used: {0}")]
    Profile(#[from] ProfileError),
    /// Its script makes no sense.
    #[error("the script cannot be used: {0}")]
    Script(#[from] ScriptError),
    /// Its ledger cannot be used.
    #[error("{0}")]
    Ledger(#[from] LedgerError),
    /// Reading its ledger back broke off.
    #[error("reading the ledger back broke off")]
    Recovery,
    /// Its request log cannot be written.
    #[error("request log {path}: it cannot be opened")]
    Requests {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot listen there.
    #[error("{listen}: cannot listen there")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The provider simulator.
#[derive(Debug)]
pub struct Simulator;

impl Simulator {
    /// Reads the ledger back, listens, and serves in the background.
    pub async fn start(options: SimulatorOptions, clock: Arc<dyn Clock>) -> Result<SimulatorHandle, SimulatorError> {
        options.profile.check()?;
        let seed = options.seed.unwrap_or_else(|| rand::rng().random());
        let path = options.ledger;
        // A long ledger takes a while to read.
        let recovery = tokio::task::spawn_blocking(move || {
            let mut known = Remembered::new();
            let (ledger, writer) = Ledger::open(path.as_deref(), |delivery| known.add(&delivery))?;
            Ok::<_, LedgerError>((ledger, writer, known))
        });
        let (ledger, writer, known) = recovery.await.map_err(|_| SimulatorError::Recovery)??;
        let arrivals = Arrivals::open(options.requests.as_deref(), Arc::clone(&clock)).map_err(|source| {
            SimulatorError::Requests { path: options.requests.clone().unwrap_or_default(), source }
        })?;
        let door =
            Door::open(options.listen).map_err(|source| SimulatorError::Listen { listen: options.listen, source })?;
        let addr = door.address();
        let login = Login { account: options.account, key: options.key };
        let decisions = (seed, options.profile, options.dialect, login, options.currency);
        let records = (ledger, known, arrivals);
        let outbox = Outbox::new(options.callback_url, options.callback_key);
        let engine = Engine::new(decisions, records, options.balance, outbox, clock);
        engine.scripted.add(&options.script)?;
        tracing::info!(%addr, seed, "the provider simulator listens");
        let stop = engine.stop.clone().drop_guard();
        let server = tokio::spawn(server::serve(door, Arc::clone(&engine)));
        let sender = tokio::spawn(callbacks::send_all(Arc::clone(&engine)));
        Ok(SimulatorHandle { addr, seed, engine, server, sender, writer, stop })
    }
}

/// A running simulator. Dropped, it stops by itself; [`SimulatorHandle::shutdown`] waits for that.
#[derive(Debug)]
pub struct SimulatorHandle {
    addr: SocketAddr,
    seed: u64,
    engine: Arc<Engine>,
    server: JoinHandle<()>,
    sender: JoinHandle<()>,
    writer: ThreadHandle<()>,
    stop: DropGuard,
}

impl SimulatorHandle {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What an adapter takes as its base URL.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// What repeats this run.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Counts since the start.
    pub fn stats(&self) -> Stats {
        self.engine.counts.stats()
    }

    /// How it behaves now.
    pub fn profile(&self) -> Profile {
        self.engine.profile()
    }

    /// Changes how it behaves, for requests from now on. A rate limit begins with a full bucket, and
    /// abuses are counted anew.
    pub fn set_profile(&self, profile: Profile) -> Result<(), ProfileError> {
        profile.check()?;
        self.engine.set_profile(profile);
        Ok(())
    }

    /// What each class of trouble has struck since the start, in the order of [`FaultClass::ALL`].
    pub fn strikes(&self) -> Vec<Strike> {
        self.engine.strikes.all()
    }

    /// How many orders a class of trouble has struck.
    pub fn struck(&self, class: FaultClass) -> u64 {
        self.strikes().iter().find(|strike| strike.class == class).map_or(0, |strike| strike.orders)
    }

    /// How references truly stand: those behind `after`, by name.
    pub fn references(&self, after: &str, limit: usize) -> Vec<ReferenceView> {
        self.engine.references(after, limit)
    }

    /// How many callbacks wait for their time, are under way, or wait to be sent again.
    pub fn callbacks_open(&self) -> usize {
        self.engine.outbox.open()
    }

    /// Adds steps to the script.
    pub fn script(&self, script: &Script) -> Result<(), ScriptError> {
        self.engine.scripted.add(script)
    }

    /// Where it is administered.
    pub fn admin_url(&self) -> String {
        format!("{}/_admin", self.base_url())
    }

    /// When the last million requests arrived, as [`check_quota`] takes it.
    pub fn arrivals_us(&self) -> Vec<u64> {
        self.engine.arrival_times().into_iter().map(|(at_us, _)| at_us).collect()
    }

    /// The same for one kind of request.
    pub fn arrivals_us_of(&self, kind: RequestKind) -> Vec<u64> {
        self.engine.arrival_times().into_iter().filter(|(_, of)| *of == kind).map(|(at_us, _)| at_us).collect()
    }

    /// Stops: nothing new, open requests may end within a second, what is not yet completed
    /// never is, and what is not yet told never will be. Returns once the ledger is closed.
    pub async fn shutdown(self) {
        let Self { engine, server, sender, writer, stop, .. } = self;
        drop(stop);
        if server.await.is_err() {
            tracing::error!("the simulator's server panicked");
        }
        if sender.await.is_err() {
            tracing::error!("the simulator's sender of callbacks panicked");
        }
        // The writer ends when nobody can append any more.
        drop(engine);
        let joined = tokio::task::spawn_blocking(move || writer.join().is_ok()).await;
        if !matches!(joined, Ok(true)) {
            tracing::error!("the ledger's writer panicked");
        }
    }
}
