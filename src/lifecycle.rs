//! How the process ends: in order, in time, and never by half.
//!
//! The first signal begins a drain: the roles stop taking new work at once, and components are
//! then stopped in the reverse of the order in which they were added, each within its own budget.
//! The second signal ends the process on the spot, which is safe: whatever is under way is known
//! to the database. A component that ends before it was asked to stops the whole process, since
//! a service with one part missing looks alive and does not work.
//!
//! A component that waits for a database or broker that is away is told to give up when its time
//! is over, and then says what it leaves ([`Left`]): that is neither a failure of its own nor a
//! clean end, and the process says so with an exit code of its own (`docs/adr/0403`).

mod outcome;
mod signals;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use outcome::{How, Joined, end_of};

pub use outcome::{Ended, Left, Outcome};
pub use signals::signals;

/// Kept at the end of a drain for those that close connections, after those that wait gave up.
const CLOSING: Duration = Duration::from_secs(4);
/// Told to give up, a component says within this time what it leaves.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The components of a process.
#[derive(Debug)]
pub struct Lifecycle {
    drain: CancellationToken,
    deadline: watch::Sender<Duration>,
    components: Vec<Component>,
    tasks: JoinSet<Ended>,
}

#[derive(Debug)]
struct Component {
    name: &'static str,
    budget: Duration,
    stop: CancellationToken,
    give_up: Option<CancellationToken>,
    id: Id,
    abort: tokio::task::AbortHandle,
    running: bool,
}

/// Sets how long the drain may take in all; the shortest limit that was set counts.
#[derive(Debug, Clone)]
pub struct HardDeadline(watch::Sender<Duration>);

impl HardDeadline {
    /// Lets the drain take at most `limit` from its beginning. For a process whose broker or
    /// database is gone: what it waits for will not come.
    pub fn at_most(&self, limit: Duration) {
        self.0.send_if_modified(|current| {
            let shorter = limit < *current;
            if shorter {
                *current = limit;
            }
            shorter
        });
    }
}

impl Lifecycle {
    /// A process without components, whose drain may take `drain_limit` in all.
    pub fn new(drain_limit: Duration) -> Self {
        Self {
            drain: CancellationToken::new(),
            deadline: watch::Sender::new(drain_limit),
            components: Vec::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Cancelled when the drain begins: take no new work. Cancelling it begins the drain.
    pub fn drain(&self) -> CancellationToken {
        self.drain.clone()
    }

    /// Shortens the time that the drain may take.
    pub fn hard_deadline(&self) -> HardDeadline {
        HardDeadline(self.deadline.clone())
    }

    /// Starts a component. Its token is cancelled when its turn to stop has come, in the reverse
    /// order of adding: what others need is added before them. It then has `budget` to end.
    pub fn add<F>(&mut self, name: &'static str, budget: Duration, start: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Ended> + Send + 'static,
    {
        self.push(name, budget, None, start);
    }

    /// The same for a component that waits for services which may be away. When its time is over
    /// `give_up` is cancelled; it then has a moment to say what it leaves.
    pub fn add_patient<F>(
        &mut self,
        name: &'static str,
        budget: Duration,
        give_up: CancellationToken,
        start: impl FnOnce(CancellationToken) -> F,
    ) where
        F: Future<Output = Ended> + Send + 'static,
    {
        self.push(name, budget, Some(give_up), start);
    }

    fn push<F>(
        &mut self,
        name: &'static str,
        budget: Duration,
        give_up: Option<CancellationToken>,
        start: impl FnOnce(CancellationToken) -> F,
    ) where
        F: Future<Output = Ended> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let abort = self.tasks.spawn(start(stop.clone()));
        self.components.push(Component { name, budget, stop, give_up, id: abort.id(), abort, running: true });
    }

    /// Waits for a signal, for the drain token, or for a component that ends unasked; then stops
    /// all components, and tells how that went. `signals` gives one item per signal.
    pub async fn run_until_done(mut self, signals: &mut mpsc::Receiver<&'static str>) -> Outcome {
        let mut outcome = Outcome::default();
        self.wait_for_an_end(signals, &mut outcome).await;
        self.drain.cancel();
        let begun = Instant::now();
        while let Some(index) = self.components.iter().rposition(|component| component.running) {
            if !self.stop_one(index, begun, signals, &mut outcome).await {
                outcome.aborted = true;
                outcome.unfinished = self.components.iter().filter(|c| c.running).map(|c| c.name).collect();
                self.tasks.abort_all();
                return outcome;
            }
        }
        if !outcome.unfinished.is_empty() {
            error!(unfinished = outcome.unfinished.join(", "), "stopped, but not everything ended in time");
        }
        if !outcome.left.is_empty() {
            error!("stopped, and not everything could be written or published: {}", outcome.left.join("; "));
        }
        if outcome.is_clean() {
            info!(seconds = begun.elapsed().as_secs_f64(), "everything has stopped");
        }
        outcome
    }

    async fn wait_for_an_end(&mut self, signals: &mut mpsc::Receiver<&'static str>, outcome: &mut Outcome) {
        loop {
            // Signals first: a component that fails all the time must not keep one from being seen.
            tokio::select! {
                biased;
                signal = signals.recv() => match signal {
                    Some(signal) => return info!(signal, "stopping; a second signal stops at once"),
                    // Nobody can signal any more: wait for the rest.
                    None => return self.wait_without_signals(outcome).await,
                },
                () = self.drain.cancelled() => return info!("stopping, as asked from inside"),
                ended = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => {
                    if self.note_early_end(ended, outcome) { return }
                }
            }
        }
    }

    async fn wait_without_signals(&mut self, outcome: &mut Outcome) {
        loop {
            tokio::select! {
                biased;
                () = self.drain.cancelled() => return,
                ended = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => {
                    if self.note_early_end(ended, outcome) { return }
                }
            }
        }
    }

    /// Whether the end ends the process. It always does, unless the drain has begun meanwhile.
    fn note_early_end(&mut self, ended: Option<Joined>, outcome: &mut Outcome) -> bool {
        let Some((name, result)) = ended.and_then(|ended| self.settle(ended)) else { return false };
        if self.drain.is_cancelled() {
            outcome.note(name, result);
            return true;
        }
        let how = match result {
            Ok(()) => "ended although nobody had asked it to".to_owned(),
            Err(How::Failed(how) | How::Left(how)) => how,
        };
        error!(component = name, how, "a component ended early: stopping the process");
        outcome.failed = Some(format!("{name}: {how}"));
        true
    }

    /// Stops one component; `false` if a second signal came.
    async fn stop_one(
        &mut self,
        index: usize,
        begun: Instant,
        signals: &mut mpsc::Receiver<&'static str>,
        outcome: &mut Outcome,
    ) -> bool {
        let Some(component) = self.components.get(index) else { return true };
        let (name, budget, mut give_up) = (component.name, component.budget, component.give_up.clone());
        component.stop.cancel();
        let mut own = Instant::now() + budget;
        let mut limits = self.deadline.subscribe();
        while self.components.get(index).is_some_and(|component| component.running) {
            let limit = *limits.borrow_and_update();
            // Who waits for what may never come leaves time to those that only close.
            let patience = if give_up.is_some() { limit.saturating_sub(CLOSING) } else { limit };
            let until = own.min(begun + patience);
            tokio::select! {
                biased;
                Some(signal) = signals.recv() => {
                    error!(signal, "second signal: stopping at once");
                    return false;
                }
                Some(ended) = self.tasks.join_next_with_id() => {
                    if let Some((name, result)) = self.settle(ended) {
                        outcome.note(name, result);
                    }
                }
                Ok(()) = limits.changed() => {}
                () = tokio::time::sleep_until(until) => {
                    if let Some(give_up) = give_up.take() {
                        warn!(component = name, "its time is over: it gives up what it waits for");
                        give_up.cancel();
                        own = Instant::now() + LAST_WORDS;
                        continue;
                    }
                    warn!(component = name, budget = ?budget, "did not end in time");
                    outcome.unfinished.push(name);
                    if let Some(component) = self.components.get_mut(index) {
                        component.running = false;
                        component.abort.abort();
                    }
                }
            }
        }
        true
    }

    /// Whose end it was, and how it ended; `None` for one that was given up before.
    fn settle(&mut self, joined: Joined) -> Option<(&'static str, Result<(), How>)> {
        let (id, end) = end_of(joined);
        let component = self.components.iter_mut().find(|component| component.id == id && component.running)?;
        component.running = false;
        Some((component.name, end))
    }
}
