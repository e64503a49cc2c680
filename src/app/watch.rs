//! What looks after the process itself once a second: the store's clock and reachability, the
//! consumers' state, and how long a drain may take when one of them is dead.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::open::chain;
use super::{Consumers, StartError};
use crate::clock::SystemClock;
use crate::kafka::embedded;
use crate::lifecycle::Lifecycle;
use crate::metrics;
use crate::ports::{Clock, Store, StoreError};
use crate::probes::Health;

const EVERY: Duration = Duration::from_secs(1);
/// A consumer thread that has not polled for this long is stuck.
const POLL_MAX_AGE: Duration = Duration::from_secs(30);
/// With a dependency dead, a drain ends this soon: what it waits for will not come.
const TROUBLED_DRAIN: Duration = Duration::from_secs(6);
/// A skew beyond this is told in the log.
const SKEW_TOLD: f64 = 1.0;

/// What is looked at.
pub(super) struct Watched {
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<SystemClock>,
    pub(super) health: Health,
    pub(super) consumers: Arc<Consumers>,
    pub(super) embedded_broker: bool,
}

/// Measures the store's clock against ours, before anything is decided by it.
pub(super) async fn learn_skew(store: &dyn Store, clock: &SystemClock) -> Result<(), StartError> {
    match measure(store, clock).await {
        Ok(_) => Ok(()),
        Err(error) => Err(StartError::Unreachable(format!("store.url: {}", chain(&error)))),
    }
}

async fn measure(store: &dyn Store, clock: &SystemClock) -> Result<f64, StoreError> {
    let asked = clock.since_boot();
    let database = store.now().await?;
    // The answer is taken to be of the middle of the question.
    let half = chrono::TimeDelta::from_std((clock.since_boot().saturating_sub(asked)) / 2).unwrap_or_default();
    let skew = database - (SystemClock::local() - half);
    clock.set_skew(skew);
    metrics::clock_skew("database", skew.as_seconds_f64());
    Ok(skew.as_seconds_f64())
}

/// Adds the watch: before the roles, so that it sees their drain to its end.
pub(super) fn add(lifecycle: &mut Lifecycle, watched: Watched) {
    watched.health.expect(&["store", "kafka"]);
    let (drain, hard) = (lifecycle.drain(), lifecycle.hard_deadline());
    lifecycle.add("watch", Duration::from_secs(1), |stop| async move {
        let pulse = watched.health.watch("watch", POLL_MAX_AGE);
        let mut told_skew = false;
        loop {
            pulse.beat();
            let well = watched.look(&mut told_skew).await;
            if drain.is_cancelled() && !well {
                hard.at_most(TROUBLED_DRAIN);
            }
            if wait(&stop).await {
                return Ok(());
            }
        }
    });
}

async fn wait(stop: &CancellationToken) -> bool {
    tokio::select! {
        biased; // Stopping comes before another look.
        () = stop.cancelled() => true,
        () = tokio::time::sleep(EVERY) => false,
    }
}

impl Watched {
    /// One look; whether all is well.
    async fn look(&self, told_skew: &mut bool) -> bool {
        let store = match measure(self.store.as_ref(), &self.clock).await {
            Ok(skew) => {
                if skew.abs() > SKEW_TOLD && !*told_skew {
                    warn!(
                        skew_seconds = skew,
                        "this machine's clock differs from the database's; deadlines follow the database"
                    );
                    *told_skew = true;
                }
                Ok(())
            }
            Err(_) => Err("not reachable".to_owned()),
        };
        let store_well = store.is_ok();
        self.health.set("store", store);
        let kafka = self.look_at_consumers();
        let kafka_well = kafka.is_ok();
        self.health.set("kafka", kafka);
        store_well && kafka_well
    }

    fn look_at_consumers(&self) -> Result<(), String> {
        let mut trouble = Ok(());
        for status in self.consumers.statuses() {
            if status.poll_age < POLL_MAX_AGE {
                self.health.beat("kafka poll");
            }
            if !status.joined {
                trouble = Err("a consumer has not joined its group".to_owned());
            } else if status.trouble.is_some() {
                trouble = Err("the brokers do not answer".to_owned());
            }
            if self.embedded_broker && embedded::lost_records(&status) > 0 {
                trouble = Err("the embedded broker dropped records".to_owned());
            }
        }
        trouble
    }
}
