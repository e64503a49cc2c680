//! Verdicts are written page by page. What keeps a page from being written (a row that another
//! session holds, one that breaks a constraint) is searched for by halves, so that it holds up itself alone.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tracing::error;

use crate::domain::{OrderId, State, Transition};
use crate::ports::{StoreError, Written};
use crate::roles::{RoleError, StopSignals, patience};

use super::Watchdog;
use super::questions::Questions;

/// A row that is held by another session at the second try is taken for a matter of its batch.
const HELD_MAX: u32 = 2;
/// A verdict that could not be written by itself is tried again after this long.
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
        mut transitions: Vec<Transition>,
        stop: &StopSignals,
    ) -> Result<Option<usize>, RoleError> {
        let since_boot = watchdog.clock.since_boot();
        self.stuck.retain(|_, until| *until > since_boot);
        transitions.retain(|transition| !self.stuck.contains_key(&transition.after.order_id));
        let (mut overtaken, mut parts) = (0, VecDeque::from([transitions]));
        // In the order of the deadlines, and what went through is not waited with for what did not.
        while let Some(part) = parts.pop_front().filter(|part| !part.is_empty()) {
            let write =
                patience::applied_unless_held("deadline", watchdog.store.as_ref(), &part, HELD_MAX, &stop.drain);
            match write.await {
                Ok(written) => overtaken += self.note(watchdog, &part, &written),
                Err(_) if stop.drain.is_cancelled() => return Ok(None),
                Err(trouble) if trouble.is_about_data() => parts.extend(self.halves(watchdog, part, &trouble)),
                Err(trouble) => return Err(trouble.into()),
            }
        }
        Ok(Some(overtaken))
    }

    fn note(&self, watchdog: &Watchdog, part: &[Transition], written: &[Written]) -> usize {
        let mut overtaken = 0;
        for (transition, written) in part.iter().zip(written) {
            match written {
                Written::Stored => {
                    watchdog.outcomes.written(transition);
                    watchdog.metrics.acted(action(transition));
                    self.questions.ask(transition);
                }
                Written::Overtaken => overtaken += 1,
            }
        }
        overtaken
    }

    /// The two halves of what could not be written together; nothing, where it stands alone.
    fn halves(&mut self, watchdog: &Watchdog, mut part: Vec<Transition>, trouble: &StoreError) -> Vec<Vec<Transition>> {
        if let [alone] = part.as_slice() {
            error!(order_id = %alone.after.order_id, error = ?trouble,
                "its deadline has come, and the verdict cannot be written: it is tried again in half a minute");
            watchdog.metrics.acted("stuck");
            if self.stuck.len() < STUCK_MAX {
                self.stuck.insert(alone.after.order_id.clone(), watchdog.clock.since_boot() + STUCK_FOR);
            }
            return Vec::new();
        }
        let behind = part.split_off(part.len() / 2);
        vec![part, behind]
    }
}

fn action(transition: &Transition) -> &'static str {
    if transition.after.state == State::InDoubt { "reconcile" } else { "expire" }
}
