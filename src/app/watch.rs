//! What looks after the process itself: the store's clock and reachability once a second, the
//! consumers' state more often, and how long a drain may take when one of them is dead.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::clients::Producers;
use super::open::chain;
use super::{Consumers, StartError};
use crate::clock::SystemClock;
use crate::kafka::{ConsumerStatus, embedded};
use crate::lifecycle::Lifecycle;
use crate::metrics::{self, KafkaMetrics};
use crate::ports::{Clock, Store, StoreError};
use crate::probes::Health;

const STORE_EVERY: Duration = Duration::from_secs(1);
/// The consumers know by themselves when no broker answers; this is how soon it is told.
const CONSUMERS_EVERY: Duration = Duration::from_millis(250);
/// A store that has not said what time it is after this long does not answer.
const STORE_LIMIT: Duration = Duration::from_secs(2);
/// A consumer thread that has not polled for this long is stuck.
const POLL_MAX_AGE: Duration = Duration::from_secs(30);
/// With a dependency dead, the process ends this soon: what it waits for will not come. Those that
/// wait give up some seconds before, the rest is for closing.
const TROUBLED_DRAIN: Duration = Duration::from_secs(9);
/// A skew beyond this is told in the log.
const SKEW_TOLD: f64 = 1.0;

/// What is looked at.
pub(super) struct Watched {
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<SystemClock>,
    pub(super) health: Health,
    pub(super) consumers: Arc<Consumers>,
    pub(super) producers: Producers,
    pub(super) kafka: Arc<KafkaMetrics>,
    pub(super) embedded_broker: bool,
    /// None answered at the start, and this process goes on without until one does.
    pub(super) broker_is_away: bool,
}

/// What was told of the consumers before, so that counters grow by what is new.
#[derive(Default)]
struct Told {
    changes: HashMap<Arc<str>, Changes>,
    lagging: HashSet<(Arc<str>, i32)>,
}

#[derive(Default, Clone, Copy)]
struct Changes {
    rebalances: u64,
    lost: u64,
    failed_commits: u64,
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
    let skew = clock.learn(database, asked, clock.since_boot());
    metrics::clock_skew("database", skew.as_seconds_f64());
    Ok(skew.as_seconds_f64())
}

/// Adds the watch: before the roles, so that it sees their drain to its end.
pub(super) fn add(lifecycle: &mut Lifecycle, watched: Watched) {
    watched.health.expect(&["store", "kafka"]);
    let (drain, hard) = (lifecycle.drain(), lifecycle.hard_deadline());
    lifecycle.add("watch", Duration::from_secs(1), |stop| async move {
        let trouble = || {
            if drain.is_cancelled() {
                hard.at_most(TROUBLED_DRAIN);
            }
        };
        // A store that hangs must not keep the brokers' state from being told.
        tokio::join!(watched.watch_store(&stop, &trouble), watched.watch_consumers(&stop, &trouble));
        Ok(())
    });
}

async fn wait(stop: &CancellationToken, limit: Duration) -> bool {
    tokio::select! {
        biased; // Stopping comes before another look.
        () = stop.cancelled() => true,
        () = tokio::time::sleep(limit) => false,
    }
}

impl Watched {
    async fn watch_store(&self, stop: &CancellationToken, trouble: &impl Fn()) {
        let pulse = self.health.watch("watch", POLL_MAX_AGE);
        let mut skew_told = false;
        loop {
            pulse.beat();
            let measured = tokio::select! {
                biased; // Stopping comes before an answer.
                () = stop.cancelled() => return,
                measured = tokio::time::timeout(STORE_LIMIT, measure(self.store.as_ref(), &self.clock)) => measured,
            };
            if let Ok(Ok(skew)) = measured {
                // Told again after it was half as much: clocks drift, and wander around a limit.
                let is_skewed = skew.abs() > if skew_told { SKEW_TOLD / 2.0 } else { SKEW_TOLD };
                if is_skewed && !skew_told {
                    warn!(
                        skew_seconds = skew,
                        "this machine's clock differs from the database's; deadlines follow the database"
                    );
                }
                skew_told = is_skewed;
                self.health.set("store", Ok(()));
            } else {
                self.health.set("store", Err("not reachable".to_owned()));
                trouble();
            }
            if wait(stop, STORE_EVERY).await {
                return;
            }
        }
    }

    async fn watch_consumers(&self, stop: &CancellationToken, trouble: &impl Fn()) {
        let mut told = Told::default();
        let mut before = Err(String::new());
        loop {
            let well = self.look_at_consumers(&mut told);
            if well.is_err() {
                trouble();
            }
            if well != before {
                match &well {
                    Ok(()) => info!("the brokers answer, and every group is joined"),
                    Err(why) => warn!("not ready: {why}"),
                }
                before.clone_from(&well);
            }
            self.health.set("kafka", well);
            if wait(stop, CONSUMERS_EVERY).await {
                return;
            }
        }
    }

    fn look_at_consumers(&self, told: &mut Told) -> Result<(), String> {
        let mut trouble = Ok(());
        let mut lagging = HashSet::new();
        let statuses = self.consumers.statuses();
        self.producers.tend();
        // A process that only publishes.
        if self.broker_is_away || (statuses.is_empty() && self.producers.are_cut_off()) {
            trouble = Err("no broker answers".to_owned());
        }
        for status in statuses {
            self.count(&status, told, &mut lagging);
            if status.poll_age < POLL_MAX_AGE {
                self.health.beat("kafka poll");
            }
            if status.unreachable {
                trouble = Err("no broker answers".to_owned());
            } else if !status.joined {
                trouble = Err("a consumer has not joined its group".to_owned());
            } else if status.trouble.is_some() {
                trouble = Err("the brokers do not answer".to_owned());
            }
            if self.embedded_broker && embedded::lost_records(&status) > 0 {
                trouble = Err("the embedded broker dropped records".to_owned());
            }
        }
        // A partition that went to another process is that one's to report.
        for (topic, partition) in told.lagging.difference(&lagging) {
            self.kafka.lag_records(topic, *partition, 0);
        }
        told.lagging = lagging;
        trouble
    }

    fn count(&self, status: &ConsumerStatus, told: &mut Told, lagging: &mut HashSet<(Arc<str>, i32)>) {
        let now = self.clock.now();
        for topic in &status.topics {
            let name = &topic.topic;
            self.kafka.assigned(name, topic.assigned.len());
            self.kafka.poll_age(name, status.poll_age);
            let age = topic.oldest_unread.map_or(Duration::ZERO, |at| (now - at).to_std().unwrap_or_default());
            self.kafka.lag_seconds(name, age);
            for (partition, lag) in &topic.lag_by_partition {
                self.kafka.lag_records(name, *partition, *lag);
                lagging.insert((Arc::clone(name), *partition));
            }
            let changes = Changes {
                rebalances: status.rebalances,
                lost: status.assignments_lost,
                failed_commits: status.commits_failed + status.commits_refused,
            };
            let before = told.changes.insert(Arc::clone(name), changes).unwrap_or_default();
            for _ in before.rebalances..changes.rebalances {
                self.kafka.rebalance(name, "assigned");
            }
            for _ in before.lost..changes.lost {
                self.kafka.rebalance(name, "lost");
            }
            for _ in before.failed_commits..changes.failed_commits {
                self.kafka.commit_failure(name);
            }
        }
    }
}
