//! What the cluster and Prometheus ask: `/livez`, `/readyz`, `/startupz`, `/metrics`.
//!
//! *Live* means that the loops of this process turn: never that Kafka, the database or a provider
//! is well, or their outage would restart the whole fleet. *Ready* means that the conditions of
//! work hold. *Started* means that they held once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::metrics::Exporter;

/// How this process is. Cheap to clone; every part holds one.
#[derive(Debug, Clone)]
pub struct Health(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    began: Instant,
    loops: RwLock<BTreeMap<&'static str, Arc<Beat>>>,
    conditions: RwLock<BTreeMap<&'static str, Result<(), String>>>,
    started: AtomicBool,
}

#[derive(Debug)]
struct Beat {
    /// Milliseconds since the process began.
    last: AtomicU64,
    max_age: Duration,
}

/// One loop's pulse: a turn costs one atomic store.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    began: Instant,
    beat: Arc<Beat>,
}

impl Heartbeat {
    /// The loop has turned.
    pub fn beat(&self) {
        self.beat.last.store(millis_since(self.began), Ordering::Relaxed);
    }

    /// Time since the last turn.
    pub fn age(&self) -> Duration {
        Duration::from_millis(millis_since(self.began).saturating_sub(self.beat.last.load(Ordering::Relaxed)))
    }
}

fn millis_since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl Default for Health {
    fn default() -> Self {
        Self(Arc::new(Inner {
            began: Instant::now(),
            loops: RwLock::default(),
            conditions: RwLock::default(),
            started: AtomicBool::new(false),
        }))
    }
}

impl Health {
    /// A process of which nothing is known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Watches a loop: it is alive while it turns at least every `max_age`. A loop that is paused
    /// or throttled goes on turning.
    pub fn watch(&self, component: &'static str, max_age: Duration) -> Heartbeat {
        let beat = Arc::new(Beat { last: AtomicU64::new(millis_since(self.0.began)), max_age });
        self.0.loops.write().unwrap_or_else(PoisonError::into_inner).insert(component, Arc::clone(&beat));
        Heartbeat { began: self.0.began, beat }
    }

    /// Stops watching a loop that has ended as it should.
    pub fn forget(&self, component: &str) {
        self.0.loops.write().unwrap_or_else(PoisonError::into_inner).remove(component);
    }

    /// A watched loop has turned; for those that hold no [`Heartbeat`].
    pub fn beat(&self, component: &str) {
        if let Some(beat) = self.0.loops.read().unwrap_or_else(PoisonError::into_inner).get(component) {
            beat.last.store(millis_since(self.0.began), Ordering::Relaxed);
        }
    }

    /// Names conditions that must come to hold before the process is ready.
    pub fn expect(&self, conditions: &[&'static str]) {
        let mut all = self.0.conditions.write().unwrap_or_else(PoisonError::into_inner);
        for condition in conditions {
            all.entry(condition).or_insert_with(|| Err("not yet".to_owned()));
        }
    }

    /// Says whether a condition holds. The text is seen by anybody who reaches the port: a few
    /// words, no addresses, no ids.
    pub fn set(&self, condition: &'static str, holds: Result<(), String>) {
        let mut all = self.0.conditions.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(condition, holds);
        if all.values().all(Result::is_ok) {
            self.0.started.store(true, Ordering::Relaxed);
        }
    }

    /// Loops that have not turned for too long.
    pub fn stalled(&self) -> Vec<String> {
        let loops = self.0.loops.read().unwrap_or_else(PoisonError::into_inner);
        let stalled = loops.iter().filter_map(|(name, beat)| {
            let age = Heartbeat { began: self.0.began, beat: Arc::clone(beat) }.age();
            (age > beat.max_age).then(|| format!("{name}: no turn for {} s", age.as_secs()))
        });
        stalled.collect()
    }

    /// Conditions that do not hold.
    pub fn unready(&self) -> Vec<String> {
        let conditions = self.0.conditions.read().unwrap_or_else(PoisonError::into_inner);
        if conditions.is_empty() {
            return vec!["nothing has reported yet".to_owned()];
        }
        conditions.iter().filter_map(|(name, holds)| Some(format!("{name}: {}", holds.as_ref().err()?))).collect()
    }

    /// Whether all conditions held at one time.
    pub fn has_started(&self) -> bool {
        self.0.started.load(Ordering::Relaxed)
    }
}

/// Why the probes are not served.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The port is taken, or not ours to take.
    #[error("http.listen: cannot listen on {address} ({source}): free the port or give another address")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The listener broke.
    #[error("the listener for probes and metrics broke")]
    Serve(#[source] std::io::Error),
}

/// Opens the port. Done before anything else is opened, so that a taken port is found at once.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ProbeError> {
    TcpListener::bind(address).await.map_err(|source| ProbeError::Bind { address, source })
}

/// Serves until `stop`.
pub async fn serve(
    listener: TcpListener,
    health: Health,
    exporter: Exporter,
    stop: CancellationToken,
) -> Result<(), ProbeError> {
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/startupz", get(startupz))
        .route("/metrics", get(metrics))
        .with_state((health, exporter));
    axum::serve(listener, router)
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .await
        .map_err(ProbeError::Serve)
}

type Shared = State<(Health, Exporter)>;

#[derive(Serialize)]
struct Report {
    status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failing: Vec<String>,
}

fn report(failing: Vec<String>) -> Response {
    if failing.is_empty() {
        (StatusCode::OK, Json(Report { status: "ok", failing })).into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, Json(Report { status: "failing", failing })).into_response()
    }
}

async fn livez(State((health, _)): Shared) -> Response {
    report(health.stalled())
}

async fn readyz(State((health, _)): Shared) -> Response {
    report(health.unready())
}

async fn startupz(State((health, _)): Shared) -> Response {
    report(if health.has_started() { Vec::new() } else { health.unready() })
}

async fn metrics(State((_, exporter)): Shared) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], exporter.render()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_is_alive_while_it_turns() {
        let health = Health::new();
        let pulse = health.watch("intake", Duration::from_secs(30));
        tokio::time::advance(Duration::from_secs(29)).await;
        assert!(health.stalled().is_empty());
        pulse.beat();
        tokio::time::advance(Duration::from_secs(31)).await;
        assert_eq!(health.stalled(), ["intake: no turn for 31 s"]);
        health.beat("intake");
        assert!(health.stalled().is_empty());
        tokio::time::advance(Duration::from_secs(31)).await;
        health.forget("intake");
        assert!(health.stalled().is_empty());
    }

    #[tokio::test]
    async fn a_process_is_ready_while_every_condition_holds_and_started_for_ever_after() {
        let health = Health::new();
        assert!(!health.unready().is_empty(), "a process that knows nothing is not ready");
        health.expect(&["kafka", "store"]);
        health.set("store", Ok(()));
        assert_eq!(health.unready(), ["kafka: not yet"]);
        assert!(!health.has_started());
        health.set("kafka", Ok(()));
        assert!(health.unready().is_empty() && health.has_started());
        health.set("store", Err("not reachable".to_owned()));
        assert_eq!(health.unready(), ["store: not reachable"]);
        assert!(health.has_started());
    }
}
