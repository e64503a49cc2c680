//! The deadlines: read from the database alone, in their order, from a low-water mark below which
//! everything is decided; decided, and written fenced, like everybody else's moves. A row that cannot be
//! read or written keeps no other one waiting.

use std::time::Duration;

use tracing::{debug, error, warn};

use crate::domain::{Decision, Input, Order, Timestamp, Transition, decide, minus};
use crate::faults::{self, Bug, is_planted};
use crate::ports::{DeadlinePage, DeadlinePosition};
use crate::roles::{RoleError, StopSignals};

use super::mark::Mark;
use super::questions::Questions;
use super::verdicts::Verdicts;
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
/// What could not be decided for so long is set aside: the mark goes past it.
const ASIDE_AFTER: Duration = Duration::from_mins(1);
/// Those that were set aside are looked at this often: they wait for people.
const ASIDE_EVERY: Duration = Duration::from_secs(30);
/// So many orders are looked at for the next deadline.
const NEXT_LOOK: usize = 16;

impl Watchdog {
    /// Works until told to stop.
    pub(super) async fn decide_deadlines(&self, questions: &Questions, stop: &StopSignals) -> Result<(), RoleError> {
        if wait(stop, QUIET).await {
            return Ok(());
        }
        let Some(low) = self.patiently("low_water", stop, || self.deadlines.low_water()).await? else { return Ok(()) };
        let (mut mark, mut verdicts) = (Mark::new(low), Verdicts::new(questions));
        let (mut decided_to, mut whole_at, mut aside_at) = (low, Duration::ZERO, Duration::ZERO);
        loop {
            let (mut now, since_boot) = (self.clock.now(), self.clock.since_boot());
            if is_planted(Bug::DeadlineTooEarly) {
                now += Duration::from_secs(1);
            }
            let is_whole = since_boot >= whole_at;
            if is_whole && !self.find_mark(&mut mark, now, stop).await? {
                return Ok(());
            }
            let from = if is_whole { mark.low() } else { decided_to.min(now) };
            let Some(mut overtaken) = self.decide_due(from, now, &mut verdicts, stop).await? else { return Ok(()) };
            if since_boot >= aside_at {
                aside_at = since_boot + ASIDE_EVERY;
                let Some(more) = self.decide_aside(&mut verdicts, stop).await? else { return Ok(()) };
                overtaken += more;
            }
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

    /// Where the low-water mark stands by now; `false` if told to stop. The database may be another one
    /// than a moment ago, which took over without the last moves of its mark; and its time may have gone
    /// back: what comes due from now on must not lie below the mark.
    async fn find_mark(&self, mark: &mut Mark, now: Timestamp, stop: &StopSignals) -> Result<bool, RoleError> {
        let Some(low) = self.patiently("low_water", stop, || self.deadlines.low_water()).await? else {
            return Ok(false);
        };
        mark.stands_at(low);
        let Some(to) = mark.too_high(now) else { return Ok(true) };
        error!(from = %low, %to, "the database's time went back: the low-water mark of the deadlines goes back with it");
        let lower = || self.deadlines.move_low_water(low, to);
        let Some(_) = self.patiently("move_low_water", stop, lower).await? else { return Ok(false) };
        mark.stands_at(to);
        Ok(true)
    }

    /// Decides every order whose deadline has come; returns how many were moved by others meanwhile, or `None` if
    /// told to stop before the end.
    async fn decide_due(
        &self,
        from: Timestamp,
        now: Timestamp,
        verdicts: &mut Verdicts<'_>,
        stop: &StopSignals,
    ) -> Result<Option<usize>, RoleError> {
        let mut overtaken = 0;
        let mut after = DeadlinePosition { at: from, order_id: None };
        loop {
            let read = || self.deadlines.undecided(&after, now, self.rules.batch_max);
            let Some(page) = self.patiently("undecided", stop, read).await? else { return Ok(None) };
            let next = page.next.clone();
            let Some(missed) = self.decide_page(page, verdicts, stop).await? else { return Ok(None) };
            overtaken += missed;
            let Some(next) = next else { return Ok(Some(overtaken)) };
            after = next;
        }
    }

    /// The same for those that were set aside.
    async fn decide_aside(&self, verdicts: &mut Verdicts<'_>, stop: &StopSignals) -> Result<Option<usize>, RoleError> {
        let mut overtaken = 0;
        let mut after = DeadlinePosition { at: Timestamp::UNIX_EPOCH, order_id: None };
        loop {
            let read = || self.deadlines.aside(&after, self.rules.batch_max);
            let Some(page) = self.patiently("aside", stop, read).await? else { return Ok(None) };
            let next = page.next.clone();
            let Some(missed) = self.decide_page(page, verdicts, stop).await? else { return Ok(None) };
            overtaken += missed;
            let Some(next) = next else { return Ok(Some(overtaken)) };
            after = next;
        }
    }

    async fn decide_page(
        &self,
        page: DeadlinePage,
        verdicts: &mut Verdicts<'_>,
        stop: &StopSignals,
    ) -> Result<Option<usize>, RoleError> {
        for row in &page.unreadable {
            error!(
                order_id = row.order_id,
                why = row.why,
                "its deadline has come, and its row cannot be read: mend it"
            );
            self.metrics.acted("stuck");
        }
        let now = self.clock.now();
        let transitions = page.orders.iter().filter_map(|order| self.verdict(order, now)).collect::<Vec<_>>();
        if transitions.is_empty() {
            return Ok(Some(0));
        }
        faults::point("watchdog::decided");
        verdicts.write(self, transitions, stop).await
    }

    fn verdict(&self, order: &Order, now: Timestamp) -> Option<Transition> {
        match decide(Some(order), &Input::Deadline, now, &self.rules.policy) {
            Decision::Apply(transition) => Some(*transition),
            Decision::Keep(why) => {
                debug!(order_id = %order.order_id, ?why, "its deadline decides nothing");
                None
            }
        }
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
        let Some(id) = first_id(&left) else {
            let raise = || self.deadlines.move_low_water(mark.low(), to);
            let Some(raised) = self.patiently("move_low_water", stop, raise).await? else { return Ok(false) };
            if raised {
                mark.stands_at(to);
            }
            return Ok(true);
        };
        // A page that is full says where it ends.
        let long_ago = minus(to, ASIDE_AFTER);
        if left.next.as_ref().is_none_or(|first| first.at >= long_ago) {
            warn!(order_id = id, "an order stays undecided behind its deadline: the low-water mark waits for it");
            return Ok(true);
        }
        // Else everybody would read all that came after it, again and again, until it is mended.
        warn!(
            order_id = id,
            "an order stays undecided long after its deadline: it is set aside, and looked at by name"
        );
        let set_aside = || self.deadlines.set_aside(mark.low(), long_ago);
        let Some(raised) = self.patiently("set_aside", stop, set_aside).await? else { return Ok(false) };
        if raised {
            mark.stands_at(long_ago);
        }
        Ok(true)
    }

    /// The moment at which the next look is due; `None` when told to stop.
    async fn next_deadline(&self, now: Timestamp, stop: &StopSignals) -> Result<Option<Timestamp>, RoleError> {
        let latest = crate::domain::plus(now, LOOK_EVERY);
        let after = DeadlinePosition { at: now, order_id: None };
        // More than one, since some may be unreadable.
        let read = || self.deadlines.undecided(&after, latest, NEXT_LOOK);
        let next = self.patiently("undecided", stop, read).await?;
        Ok(next.map(|page| page.orders.first().map_or(latest, |order| order.deadline_at)))
    }
}

fn first_id(page: &DeadlinePage) -> Option<&str> {
    let readable = page.orders.first().map(|order| order.order_id.as_str());
    readable.or_else(|| page.unreadable.first().map(|row| row.order_id.as_str()))
}
