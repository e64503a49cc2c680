//! What an orchestrator and Prometheus ask: `/livez`, `/readyz`, `/startupz`, `/metrics`.
//!
//! Liveness asks only whether our own loops move; a broker, a database or a provider that is away
//! is no reason to restart us. Readiness tells the truth about them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::ports::Clock;

/// What is known of the process's health. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Health {
    clock: Arc<dyn Clock>,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    started: bool,
    /// Loops: when each last moved, and for how long it may be still.
    beats: BTreeMap<String, (Duration, Duration)>,
    /// Conditions of readiness: what is wrong, if anything.
    conditions: BTreeMap<String, Option<String>>,
}

impl Health {
    /// Nothing is known yet, so the process is not ready.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, known: Arc::default() }
    }

    /// A loop moved just now, or `ago`; it may be still for `at_most`.
    pub fn beat(&self, name: &str, ago: Duration, at_most: Duration) {
        let at = self.clock.since_boot().saturating_sub(ago);
        self.known().beats.insert(name.to_owned(), (at, at_most));
    }

    /// A condition of readiness holds, or what is wrong.
    pub fn set(&self, name: &str, condition: Result<(), String>) {
        self.known().conditions.insert(name.to_owned(), condition.err());
    }

    /// Everything was opened once.
    pub fn started(&self) {
        self.known().started = true;
    }

    /// The loops that are stuck.
    fn stuck(&self) -> Vec<String> {
        let now = self.clock.since_boot();
        let known = self.known();
        let stuck = known.beats.iter().filter(|(_, (at, at_most))| now.saturating_sub(*at) > *at_most);
        stuck.map(|(name, _)| format!("{name}: does not move")).collect()
    }

    /// What stands in the way of readiness.
    fn unready(&self) -> Vec<String> {
        let known = self.known();
        if !known.started {
            return vec!["starting".to_owned()];
        }
        let wrong = known.conditions.iter().filter_map(|(name, why)| why.as_ref().map(|why| format!("{name}: {why}")));
        wrong.collect()
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Renders the metrics for a scrape.
pub type Render = Arc<dyn Fn() -> String + Send + Sync>;

#[derive(Clone)]
struct Served {
    health: Health,
    render: Render,
}

/// Serves on a listener that is bound already, until told to stop.
pub async fn serve(
    listener: TcpListener,
    health: Health,
    render: Render,
    stop: CancellationToken,
) -> Result<(), std::io::Error> {
    let router = Router::new()
        .route("/livez", get(async |State(served): State<Served>| answer(served.health.stuck())))
        .route("/readyz", get(async |State(served): State<Served>| answer(served.health.unready())))
        .route("/startupz", get(startup))
        .route("/metrics", get(metrics))
        .with_state(Served { health, render });
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// Binds, or says what is wrong with the address.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address)
        .await
        .map_err(|error| format!("cannot listen on {address} ({error}): name a free address"))
}

async fn startup(State(served): State<Served>) -> impl IntoResponse {
    let started = served.health.known().started;
    answer(if started { Vec::new() } else { vec!["starting".to_owned()] })
}

async fn metrics(State(served): State<Served>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], (served.render)())
}

fn answer(wrong: Vec<String>) -> (StatusCode, String) {
    if wrong.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, wrong.join("\n") + "\n")
}
