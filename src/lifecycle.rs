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

use std::future::Future;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// What components return. Its message is logged, so it holds no secret.
pub type Ended = anyhow::Result<()>;

/// What a component could neither write nor publish before its end, and who mends it: an error that
/// is told apart from failures.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Left(pub String);

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

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// The first component that ended unasked or with an error, and what it said.
    pub failed: Option<String>,
    /// What could neither be written nor published, by component: the database or the broker was away.
    pub left: Vec<String>,
    /// Components that did not end within their budgets.
    pub unfinished: Vec<&'static str>,
    /// A second signal came.
    pub aborted: bool,
}

impl Outcome {
    /// Whether everything ended as it should.
    pub fn is_clean(&self) -> bool {
        self.failed.is_none() && self.left.is_empty() && self.unfinished.is_empty() && !self.aborted
    }
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
    pub async fn run_until_done(mut self, mut signals: mpsc::Receiver<&'static str>) -> Outcome {
        let mut outcome = Outcome::default();
        self.wait_for_an_end(&mut signals, &mut outcome).await;
        self.drain.cancel();
        let begun = Instant::now();
        while let Some(index) = self.components.iter().rposition(|component| component.running) {
            if !self.stop_one(index, begun, &mut signals, &mut outcome).await {
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
            note_end(name, result, outcome);
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
                        note_end(name, result, outcome);
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
    fn settle(&mut self, ended: Joined) -> Option<(&'static str, Result<(), How>)> {
        let (id, result) = match ended {
            Ok((id, Ok(()))) => (id, Ok(())),
            Ok((id, Err(error))) if error.is::<Left>() => (id, Err(How::Left(error.to_string()))),
            // The whole chain: the outermost message alone seldom tells what happened.
            Ok((id, Err(error))) => (id, Err(How::Failed(format!("{error:#}")))),
            Err(error) => (error.id(), Err(How::Failed(how_it_broke(&error)))),
        };
        let component = self.components.iter_mut().find(|component| component.id == id && component.running)?;
        component.running = false;
        Some((component.name, result))
    }
}

/// An end that was not well.
enum How {
    Failed(String),
    Left(String),
}

type Joined = Result<(Id, Ended), JoinError>;

fn how_it_broke(error: &JoinError) -> String {
    if error.is_panic() { "panicked; the log has the message".to_owned() } else { "was cancelled".to_owned() }
}

fn note_end(name: &'static str, result: Result<(), How>, outcome: &mut Outcome) {
    match result {
        Ok(()) => info!(component = name, "stopped"),
        // What is left is told for all at once, in the end.
        Err(How::Left(what)) => {
            info!(component = name, "stopped, and leaves something");
            outcome.left.push(format!("{name}: {what}"));
        }
        Err(How::Failed(how)) => {
            error!(component = name, how, "failed while stopping");
            outcome.failed.get_or_insert(format!("{name}: {how}"));
        }
    }
}

/// SIGTERM and SIGINT of this process, one item each. Must be called inside a runtime.
pub fn signals() -> std::io::Result<mpsc::Receiver<&'static str>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (sender, receiver) = mpsc::channel(2);
    // Ends with the runtime, or when nobody listens any more.
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if sender.send(name).await.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    async fn obedient(stop: CancellationToken) -> Ended {
        stop.cancelled().await;
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_signal_stops_components_in_the_reverse_order_of_adding() {
        let mut lifecycle = Lifecycle::new(LIMIT);
        let order = Arc::new(Mutex::new(Vec::new()));
        for name in ["producer", "relay", "dispatch"] {
            let order = Arc::clone(&order);
            lifecycle.add(name, Duration::from_secs(1), |stop| async move {
                stop.cancelled().await;
                order.lock().unwrap().push(name);
                Ok(())
            });
        }
        let drain = lifecycle.drain();
        let (sender, signals) = mpsc::channel(2);
        sender.send("SIGTERM").await.unwrap();
        let outcome = lifecycle.run_until_done(signals).await;
        assert!(outcome.is_clean(), "{outcome:?}");
        assert!(drain.is_cancelled());
        assert_eq!(*order.lock().unwrap(), ["dispatch", "relay", "producer"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_component_that_ends_unasked_stops_the_process_and_is_named() {
        for (how, said) in [("ok", "nobody had asked"), ("error", "outer: inner"), ("panic", "panicked")] {
            let mut lifecycle = Lifecycle::new(LIMIT);
            lifecycle.add("steady", Duration::from_secs(1), obedient);
            lifecycle.add("fragile", Duration::from_secs(1), |_| async move {
                tokio::time::sleep(Duration::from_secs(5)).await;
                match how {
                    "ok" => Ok(()),
                    "error" => Err(anyhow::anyhow!("inner").context("outer")),
                    _ => panic!("as planned"),
                }
            });
            let (_sender, signals) = mpsc::channel(2);
            let outcome = lifecycle.run_until_done(signals).await;
            let failed = outcome.failed.unwrap();
            assert!(failed.starts_with("fragile: ") && failed.contains(said), "{failed}");
            assert!(outcome.unfinished.is_empty());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_component_that_overruns_its_budget_is_given_up_and_reported() {
        let mut lifecycle = Lifecycle::new(LIMIT);
        lifecycle.add("good", Duration::from_secs(1), obedient);
        lifecycle.add("stuck", Duration::from_secs(3), |_| std::future::pending());
        lifecycle.drain().cancel();
        let (_sender, signals) = mpsc::channel(2);
        let begun = Instant::now();
        let outcome = lifecycle.run_until_done(signals).await;
        assert_eq!(outcome.unfinished, ["stuck"]);
        assert_eq!(outcome.failed, None);
        assert_eq!(begun.elapsed().as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn the_hard_deadline_ends_every_budget() {
        let mut lifecycle = Lifecycle::new(LIMIT);
        for name in ["one", "two", "three"] {
            lifecycle.add(name, Duration::from_secs(15), |_| std::future::pending());
        }
        let (hard, drain) = (lifecycle.hard_deadline(), lifecycle.drain());
        let (_sender, signals) = mpsc::channel(2);
        let begun = Instant::now();
        tokio::spawn(async move {
            drain.cancelled().await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            hard.at_most(Duration::from_secs(10));
            hard.at_most(Duration::from_mins(1));
        });
        lifecycle.drain().cancel();
        let outcome = lifecycle.run_until_done(signals).await;
        assert_eq!(outcome.unfinished, ["three", "two", "one"]);
        assert_eq!(begun.elapsed().as_secs(), 10);
    }

    async fn stubborn(give_up: CancellationToken) -> Ended {
        give_up.cancelled().await;
        Err(Left("3 orders are not written".to_owned()).into())
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_in_vain_is_told_to_give_up_and_says_what_it_leaves() {
        let mut lifecycle = Lifecycle::new(LIMIT);
        lifecycle.add("closes", Duration::from_secs(3), |stop| async move {
            stop.cancelled().await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            Ok(())
        });
        for (name, budget) in [("waits long", 60), ("waits", 3)] {
            let give_up = CancellationToken::new();
            lifecycle.add_patient(name, Duration::from_secs(budget), give_up.clone(), |_| stubborn(give_up));
        }
        lifecycle.hard_deadline().at_most(Duration::from_secs(9));
        lifecycle.drain().cancel();
        let (_sender, signals) = mpsc::channel(2);
        let begun = Instant::now();
        let outcome = lifecycle.run_until_done(signals).await;
        // After 3 s by its own budget, after 5 s by the limit of all; the rest is for closing.
        assert_eq!(begun.elapsed().as_secs(), 7);
        assert_eq!(outcome.left, ["waits: 3 orders are not written", "waits long: 3 orders are not written"]);
        assert!(!outcome.is_clean() && outcome.unfinished.is_empty() && outcome.failed.is_none(), "{outcome:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_even_say_what_it_leaves_is_ended() {
        let mut lifecycle = Lifecycle::new(LIMIT);
        lifecycle.add_patient("mute", Duration::from_secs(3), CancellationToken::new(), |_| std::future::pending());
        lifecycle.drain().cancel();
        let (_sender, signals) = mpsc::channel(2);
        let begun = Instant::now();
        let outcome = lifecycle.run_until_done(signals).await;
        assert_eq!((outcome.unfinished.as_slice(), begun.elapsed().as_secs()), (["mute"].as_slice(), 4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_ends_at_once() {
        let mut lifecycle = Lifecycle::new(LIMIT);
        lifecycle.add("slow", Duration::from_secs(15), |_| std::future::pending());
        let (sender, signals) = mpsc::channel(2);
        let begun = Instant::now();
        tokio::spawn(async move {
            sender.send("SIGTERM").await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
            sender.send("SIGINT").await.unwrap();
            std::future::pending::<()>().await;
        });
        let outcome = lifecycle.run_until_done(signals).await;
        assert!(outcome.aborted);
        assert_eq!(outcome.unfinished, ["slow"]);
        assert_eq!(begun.elapsed().as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_while_stopping_is_a_failure() {
        let mut lifecycle = Lifecycle::new(LIMIT);
        lifecycle.add("flusher", Duration::from_secs(1), |stop| async move {
            stop.cancelled().await;
            Err(anyhow::anyhow!("3 records were not acknowledged"))
        });
        let (sender, signals) = mpsc::channel(2);
        sender.send("SIGTERM").await.unwrap();
        let outcome = lifecycle.run_until_done(signals).await;
        assert_eq!(outcome.failed.as_deref(), Some("flusher: 3 records were not acknowledged"));
    }

    #[tokio::test]
    async fn a_sigterm_of_the_system_is_seen() {
        let mut signals = signals().unwrap();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).unwrap();
        let seen = tokio::time::timeout(Duration::from_secs(10), signals.recv()).await.unwrap();
        assert_eq!(seen, Some("SIGTERM"));
    }
}
