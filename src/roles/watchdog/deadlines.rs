//! The deadlines: read from the database alone, in their order, from a low-water mark below which
//! everything is decided; decided, and written fenced, like everybody else's moves.

use std::time::Duration;

use tracing::{debug, warn};

use crate::domain::{Decision, Input, Order, State, Timestamp, Transition, decide};
use crate::faults::{self, Bug, is_planted};
use crate::ports::{DeadlinePosition, Written};
use crate::roles::{RoleError, StopSignals};

use super::mark::Mark;
use super::{Watchdog, wait};

/// What it does at a deadline is right whoever was away, but a process that has just started lets
/// settlements that were on their way come first.
const QUIET: Duration = Duration::from_secs(2);
/// It looks at least this often, whatever the next deadline is.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Orders that come due together are decided together.
const GATHER: Duration = Duration::from_millis(20);
/// Everything from the low-water mark on is read this often; in between only what has come due
/// since. It finds what was committed so late that it was not there when its time had come.
const WHOLE_EVERY: Duration = Duration::from_secs(5);

impl Watchdog {
    /// Works until told to stop.
    pub(super) async fn decide_deadlines(&self, stop: &StopSignals) -> Result<(), RoleError> {
        if wait(stop, QUIET).await {
            return Ok(());
        }
        let Some(low) = self.patiently("low_water", stop, || self.deadlines.low_water()).await? else { return Ok(()) };
        let mut mark = Mark::new(low);
        let (mut decided_to, mut whole_at) = (low, Duration::ZERO);
        loop {
            let (mut now, since_boot) = (self.clock.now(), self.clock.since_boot());
            if is_planted(Bug::DeadlineTooEarly) {
                now += Duration::from_secs(1);
            }
            let is_whole = since_boot >= whole_at;
            let from = if is_whole { mark.low() } else { decided_to };
            let Some(overtaken) = self.decide_due(from, now, stop).await? else { return Ok(()) };
            // Whoever moved them at that very moment may have left something to decide.
            decided_to = if overtaken == 0 { now } else { from };
            if is_whole {
                whole_at = since_boot + WHOLE_EVERY;
                if !self.raise(&mut mark, now, stop).await? {
                    return Ok(());
                }
            }
            self.metrics.scanned(self.clock.since_boot().saturating_sub(since_boot), now);
            let sleep = if overtaken == 0 {
                let Some(next) = self.next_deadline(now, stop).await? else { return Ok(()) };
                (next - self.clock.now()).to_std().unwrap_or_default().max(GATHER)
            } else {
                GATHER
            };
            if wait(stop, sleep).await {
                return Ok(());
            }
        }
    }

    /// Decides every order whose deadline has come; returns how many were moved by others meanwhile, or `None` if
    /// told to stop before the end.
    async fn decide_due(
        &self,
        from: Timestamp,
        now: Timestamp,
        stop: &StopSignals,
    ) -> Result<Option<usize>, RoleError> {
        let mut overtaken = 0;
        let mut after = DeadlinePosition { at: from, order_id: None };
        loop {
            let read = || self.deadlines.undecided(&after, now, self.rules.batch_max);
            let Some(page) = self.patiently("undecided", stop, read).await? else { return Ok(None) };
            let Some(last) = page.last() else { return Ok(Some(overtaken)) };
            let (next, is_last) = (DeadlinePosition::behind(last), page.len() < self.rules.batch_max);
            let Some(missed) = self.decide_page(page, stop).await? else { return Ok(None) };
            overtaken += missed;
            if is_last {
                return Ok(Some(overtaken));
            }
            after = next;
        }
    }

    async fn decide_page(&self, page: Vec<Order>, stop: &StopSignals) -> Result<Option<usize>, RoleError> {
        let now = self.clock.now();
        let mut transitions: Vec<Transition> = Vec::with_capacity(page.len());
        for order in &page {
            match decide(Some(order), &Input::Deadline, now, &self.rules.policy) {
                Decision::Apply(transition) => transitions.push(*transition),
                Decision::Keep(why) => debug!(order_id = %order.order_id, ?why, "its deadline decides nothing"),
            }
        }
        if transitions.is_empty() {
            return Ok(Some(0));
        }
        faults::point("watchdog::decided");
        let write = || self.store.apply(&transitions);
        let Some(written) = self.patiently("deadline", stop, write).await? else { return Ok(None) };
        let mut overtaken = 0;
        for (transition, written) in transitions.iter().zip(written) {
            match written {
                Written::Stored => {
                    self.outcomes.written(transition);
                    self.metrics.acted(action(transition));
                }
                Written::Overtaken => overtaken += 1,
            }
        }
        Ok(Some(overtaken))
    }

    /// Raises the low-water mark where that is safe.
    async fn raise(&self, mark: &mut Mark, now: Timestamp, stop: &StopSignals) -> Result<bool, RoleError> {
        let Some(horizon) = self.patiently("horizon", stop, || self.deadlines.horizon()).await? else {
            return Ok(false);
        };
        let Some(to) = mark.look(now, horizon) else { return Ok(true) };
        // Everything that could still lie below is visible by now.
        let after = DeadlinePosition { at: mark.low(), order_id: None };
        let read = || self.deadlines.undecided(&after, to, 1);
        let Some(left) = self.patiently("undecided", stop, read).await? else { return Ok(false) };
        if let Some(order) = left.first() {
            warn!(order_id = %order.order_id, "an order stays undecided behind its deadline: the low-water mark waits for it");
            return Ok(true);
        }
        let Some(()) = self.patiently("raise_low_water", stop, || self.deadlines.raise_low_water(to)).await? else {
            return Ok(false);
        };
        mark.raised(to);
        Ok(true)
    }

    /// The moment at which the next look is due; `None` when told to stop.
    async fn next_deadline(&self, now: Timestamp, stop: &StopSignals) -> Result<Option<Timestamp>, RoleError> {
        let latest = crate::domain::plus(now, LOOK_EVERY);
        let after = DeadlinePosition { at: now, order_id: None };
        let read = || self.deadlines.undecided(&after, latest, 1);
        let next = self.patiently("undecided", stop, read).await?;
        Ok(next.map(|orders| orders.first().map_or(latest, |order| order.deadline_at)))
    }
}

fn action(transition: &Transition) -> &'static str {
    if transition.after.state == State::InDoubt { "reconcile" } else { "expire" }
}
