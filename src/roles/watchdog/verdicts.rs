//! Verdicts are written page by page. One that cannot be written (its row is held by another session, or what it
//! says breaks a constraint) is left out for half a minute, so that it holds up itself alone.

use std::collections::HashMap;
use std::time::Duration;

use tracing::error;

use crate::domain::{OrderId, State, Transition};
use crate::ports::Written;
use crate::roles::{RoleError, StopSignals, patience};

use super::Watchdog;
use super::questions::Questions;

/// A verdict that could not be written is tried again after this long.
const STUCK_FOR: Duration = Duration::from_secs(30);
/// So many are remembered; with more of them something else is wrong, and all are tried each time.
const STUCK_MAX: usize = 10_000;

/// What writes verdicts, and remembers which could not be.
#[derive(Debug)]
pub(super) struct Verdicts<'a> {
    questions: &'a Questions,
    /// When they are tried again, on the clock that only goes forward.
    stuck: HashMap<OrderId, Duration>,
}

impl<'a> Verdicts<'a> {
    pub(super) fn new(questions: &'a Questions) -> Self {
        Self { questions, stuck: HashMap::new() }
    }

    /// Writes them; returns how many orders were moved by others meanwhile, or `None` if told to stop.
    pub(super) async fn write(
        &mut self,
        watchdog: &Watchdog,
        transitions: Vec<Transition>,
        stop: &StopSignals,
    ) -> Result<Option<usize>, RoleError> {
        let since_boot = watchdog.clock.since_boot();
        let is_due = |transition: &Transition| {
            self.stuck.get(&transition.after.order_id).is_none_or(|until| *until <= since_boot)
        };
        let due = transitions.into_iter().filter(is_due);
        // What was stuck before may be stuck again: the others do not wait for it.
        let (again, first): (Vec<_>, Vec<_>) =
            due.partition(|transition| self.stuck.contains_key(&transition.after.order_id));
        self.stuck.retain(|_, until| *until > since_boot);
        let mut overtaken = 0;
        for part in [first, again] {
            let write = patience::applied("deadline", watchdog.store.as_ref(), &part, &stop.drain);
            match write.await {
                Ok(written) => overtaken += self.note(watchdog, &part, &written),
                Err(_) if stop.drain.is_cancelled() => return Ok(None),
                Err(trouble) => return Err(trouble.into()),
            }
        }
        Ok(Some(overtaken))
    }

    fn note(&mut self, watchdog: &Watchdog, part: &[Transition], written: &[Written]) -> usize {
        let mut overtaken = 0;
        for (transition, written) in part.iter().zip(written) {
            match written {
                Written::Stored => {
                    watchdog.outcomes.written(transition);
                    watchdog.metrics.acted(action(transition));
                    self.questions.ask(transition);
                }
                Written::Overtaken => overtaken += 1,
                Written::Locked | Written::Refused => self.stuck(watchdog, &transition.after.order_id),
            }
        }
        overtaken
    }

    fn stuck(&mut self, watchdog: &Watchdog, id: &OrderId) {
        error!(order_id = %id, "its deadline has come, and the verdict cannot be written: it is tried again in half a minute");
        watchdog.metrics.acted("stuck");
        if self.stuck.len() < STUCK_MAX {
            self.stuck.insert(id.clone(), watchdog.clock.since_boot() + STUCK_FOR);
        }
    }
}

fn action(transition: &Transition) -> &'static str {
    if transition.after.state == State::InDoubt { "reconcile" } else { "expire" }
}
