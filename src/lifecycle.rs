//! From start to end of a process: signals, a drain with a limit, and the rule that a component
//! that ends by itself ends the process.
//!
//! The first signal drains: roles take no new work and finish what they have. What is not done
//! when its time is over, or at the second signal, is dropped: nothing durable is lost by it, and
//! what was not acknowledged comes again.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

use crate::roles::StopSignals;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// As it was told to, with everything done.
    Clean,
    /// As it was told to, with work dropped: it comes again.
    Cut,
    /// A component ended by itself.
    Failed,
}

/// The running components of a process.
#[derive(Debug)]
pub struct Lifecycle {
    stop: StopSignals,
    components: JoinSet<(String, Result<(), String>)>,
    limits: DrainLimits,
}

/// How long a drain may take.
pub struct DrainLimits {
    /// With everything at hand: a call's time-out and a little.
    pub whole: Duration,
    /// With a dependency dead, for which there is nothing to wait.
    pub troubled: Duration,
    /// Whether a dependency is dead.
    pub is_troubled: Box<dyn Fn() -> bool + Send + Sync>,
}

impl std::fmt::Debug for DrainLimits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DrainLimits")
            .field("whole", &self.whole)
            .field("troubled", &self.troubled)
            .finish_non_exhaustive()
    }
}

impl DrainLimits {
    /// The same, whatever is dead.
    pub fn of(limit: Duration) -> Self {
        Self { whole: limit, troubled: limit, is_troubled: Box::new(|| false) }
    }

    /// Waits until a drain that began now has taken too long.
    async fn passed(&self) {
        let began = Instant::now();
        sleep_until(began + self.troubled.min(self.whole)).await;
        while began.elapsed() < self.whole && !(self.is_troubled)() {
            sleep_until((Instant::now() + Duration::from_millis(100)).min(began + self.whole)).await;
        }
    }
}

impl Lifecycle {
    /// With a limit from the first signal to the end.
    pub fn new(limits: DrainLimits) -> Self {
        Self { stop: StopSignals::default(), components: JoinSet::new(), limits }
    }

    /// The signals that components listen to.
    pub fn signals(&self) -> StopSignals {
        self.stop.clone()
    }

    /// Starts a component. It ends when told to drain; if it ends before, the process ends.
    pub fn spawn<E: std::fmt::Display + Send + 'static>(
        &mut self,
        name: impl Into<String>,
        work: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let name = name.into();
        self.components.spawn(async move {
            let ended = work.await.map_err(|error| error.to_string());
            (name, ended)
        });
    }

    /// Runs until a signal comes, until [`StopSignals::drain`] is cancelled, or until a component
    /// ends; then drains.
    pub async fn run(mut self) -> Ending {
        let mut failed = self.until_told().await;
        self.stop.drain.cancel();
        let limit = self.limits.passed();
        tokio::pin!(limit);
        let cut = loop {
            tokio::select! {
                biased; // A second signal and the limit come before a component that ends just then.
                () = told_by_signal() => {
                    warn!("told to stop twice: work under way is dropped");
                    break true;
                }
                () = &mut limit => {
                    warn!(left = self.components.len(), "the drain took too long: work under way is dropped");
                    break true;
                }
                ended = self.components.join_next() => match ended {
                    None => break false,
                    Some(ended) => failed |= note(ended, true),
                }
            }
        };
        self.stop.abort.cancel();
        // Enough for components to notice; then they are dropped where they stand.
        let grace = Instant::now() + Duration::from_millis(500);
        while let Ok(Some(ended)) = tokio::time::timeout_at(grace, self.components.join_next()).await {
            failed |= note(ended, true);
        }
        self.components.abort_all();
        match (failed, cut) {
            (true, _) => Ending::Failed,
            (false, true) => Ending::Cut,
            (false, false) => Ending::Clean,
        }
    }

    /// Returns whether a component failed.
    async fn until_told(&mut self) -> bool {
        tokio::select! {
            biased; // Being told to stop is no failure of whatever ends in the same moment.
            () = told_by_signal() => {
                info!("told to stop: finishing what is under way");
                false
            }
            () = self.stop.drain.cancelled() => false,
            Some(ended) = self.components.join_next() => note(ended, false),
        }
    }
}

/// Logs how a component ended; returns whether that is a failure.
fn note(ended: Result<(String, Result<(), String>), tokio::task::JoinError>, told: bool) -> bool {
    match ended {
        Ok((name, Ok(()))) if told => {
            info!(component = %name, "done");
            false
        }
        Ok((name, Ok(()))) => {
            error!(component = %name, "ended by itself; the process stops");
            true
        }
        Ok((name, Err(why))) => {
            error!(component = %name, "failed: {why}; the process stops");
            true
        }
        Err(error) if error.is_cancelled() => false,
        Err(error) => {
            error!(%error, "a component panicked; the process stops");
            true
        }
    }
}

async fn told_by_signal() {
    let listen = |kind| signal(kind).map_err(|error| warn!(%error, "a signal cannot be listened to"));
    match (listen(SignalKind::terminate()), listen(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        _ => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_component_that_ends_by_itself_ends_the_process() {
        let mut lifecycle = Lifecycle::new(DrainLimits::of(Duration::from_secs(5)));
        let signals = lifecycle.signals();
        lifecycle.spawn("patient", async move {
            signals.drain.cancelled().await;
            Ok::<(), String>(())
        });
        lifecycle.spawn("hasty", async { Err("no reason".to_owned()) });
        assert_eq!(lifecycle.run().await, Ending::Failed);
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_drain_in_time_is_dropped() {
        let mut lifecycle = Lifecycle::new(DrainLimits::of(Duration::from_secs(5)));
        lifecycle.spawn("deaf", std::future::pending::<Result<(), String>>());
        lifecycle.signals().drain.cancel();
        let began = Instant::now();
        assert_eq!(lifecycle.run().await, Ending::Cut);
        assert!(began.elapsed() < Duration::from_secs(6));
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_does_not_wait_long_for_a_dead_dependency() {
        let limits = DrainLimits {
            whole: Duration::from_secs(60),
            troubled: Duration::from_secs(8),
            is_troubled: Box::new(|| true),
        };
        let mut lifecycle = Lifecycle::new(limits);
        lifecycle.spawn("waits for a broker", std::future::pending::<Result<(), String>>());
        lifecycle.signals().drain.cancel();
        let began = Instant::now();
        assert_eq!(lifecycle.run().await, Ending::Cut);
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_was_told_to_stop_ends_clean() {
        let mut lifecycle = Lifecycle::new(DrainLimits::of(Duration::from_secs(5)));
        let signals = lifecycle.signals();
        lifecycle.spawn("patient", async move {
            signals.drain.cancelled().await;
            Ok::<(), String>(())
        });
        lifecycle.signals().drain.cancel();
        assert_eq!(lifecycle.run().await, Ending::Clean);
    }
}
