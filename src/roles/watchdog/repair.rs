//! The repair: an order that is not decided a while before its deadline, and that nobody works on any
//! more, is asked for again. It is the last net. Commands outlive crashes by themselves; what it
//! finds was lost with a broker's disk, or by a hand.

use std::time::Duration;

use tracing::{debug, warn};

use crate::domain::{
    AttemptState, Command, CommandKind, Decision, Input, Order, Policy, ProviderId, State, Timestamp, Transition,
    decide,
};
use crate::ports::{DeadlinePosition, OutRecord, Written};
use crate::roles::{RoleError, StopSignals, patience};

use super::Watchdog;

/// So long before its deadline an order is looked at first, or a third of the whole time.
const AHEAD: Duration = Duration::from_mins(1);
/// A command that waits no longer than this is on its way.
const ON_ITS_WAY: Duration = Duration::from_secs(10);
/// Clocks differ, and reading marks are written every few seconds.
const UNSURE: Duration = Duration::from_secs(15);
/// A call that has not ended so long after its time-out will not end.
const CALL_MARGIN: Duration = Duration::from_secs(2);

/// Looks at each order twice, as its deadline draws near.
#[derive(Debug)]
pub(super) struct Repair {
    looks: [Look; 2],
}

#[derive(Debug)]
struct Look {
    ahead: Duration,
    /// Up to which deadline it has looked.
    done_to: Option<Timestamp>,
}

/// What to do about an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remedy {
    Nothing,
    /// Its command was never read.
    Fresh,
    /// Its command has not come back.
    Due(CommandKind),
    /// Nobody waits for the answer to its call.
    Adopt,
}

impl Watchdog {
    pub(super) fn repair(&self) -> Repair {
        let ahead = AHEAD.min(self.rules.policy.sla / 3);
        Repair { looks: [ahead, ahead / 2].map(|ahead| Look { ahead, done_to: None }) }
    }

    async fn remedy_page(&self, page: &[Order], marks: &Marks, stop: &StopSignals) -> Result<bool, RoleError> {
        let now = self.clock.now();
        let (mut records, mut transitions, mut questions) = (Vec::new(), Vec::new(), 0);
        for order in page {
            let read_up_to = order.provider.as_ref().and_then(|lane| marks.of(lane));
            match remedy(order, read_up_to, now, &self.rules.policy) {
                Remedy::Nothing => {}
                Remedy::Fresh => records.extend(self.fresh_record(order)),
                Remedy::Due(kind) => {
                    questions += usize::from(kind == CommandKind::Query);
                    records.extend(self.due_record(order, &Command::of(kind, order)));
                }
                Remedy::Adopt => {
                    if let Decision::Apply(transition) =
                        decide(Some(order), &Input::CallerLost, now, &self.rules.policy)
                    {
                        records.extend(self.wait_record(&transition));
                        transitions.push(*transition);
                    }
                }
            }
        }
        let repaired = records.len();
        if repaired == 0 && transitions.is_empty() {
            return Ok(true);
        }
        // A hint before its state; and no longer than until told to stop: the others repair too.
        if !patience::published("repair", self.publisher.as_ref(), records, &stop.drain).await {
            return Ok(false);
        }
        if !transitions.is_empty() {
            let write = || self.store.apply(&transitions);
            let Some(written) = self.patiently("adopt", stop, write).await? else { return Ok(false) };
            for (transition, written) in transitions.iter().zip(written) {
                if written == Written::Stored {
                    self.outcomes.written(transition);
                }
            }
        }
        // A question whose answer settled nothing waits for the next one, of which the row knows nothing.
        if repaired > questions {
            warn!(
                orders = repaired - questions,
                "orders near their deadline on which nobody worked were asked for again"
            );
        }
        if questions > 0 {
            debug!(questions, "open attempts near their deadline are asked about again, if nobody does");
        }
        (0..repaired).for_each(|_| self.metrics.acted("requeue"));
        Ok(true)
    }

    fn fresh_record(&self, order: &Order) -> Option<OutRecord> {
        let topics = self.rules.lanes.get(order.provider.as_ref()?)?;
        Some(self.rules.commands.fresh(topics, &Command::of(CommandKind::Submit, order), &order.recipient))
    }

    fn wait_record(&self, transition: &Transition) -> Option<OutRecord> {
        self.due_record(&transition.after, &transition.follow_up.as_ref()?.command)
    }
}

impl Repair {
    /// Looks at the orders whose deadlines have drawn near since the last look.
    pub(super) async fn look(&mut self, watchdog: &Watchdog, stop: &StopSignals) -> Result<(), RoleError> {
        let now = watchdog.clock.now();
        let Some(marks) = Marks::read(watchdog, stop).await? else { return Ok(()) };
        for look in &mut self.looks {
            let until = crate::domain::plus(now, look.ahead);
            let mut after = DeadlinePosition { at: look.done_to.unwrap_or(now), order_id: None };
            loop {
                let read = || watchdog.deadlines.undecided(&after, until, watchdog.rules.batch_max);
                let Some(page) = watchdog.patiently("undecided", stop, read).await? else { return Ok(()) };
                let Some(last) = page.last() else { break };
                after = DeadlinePosition::behind(last);
                if !watchdog.remedy_page(&page, &marks, stop).await? {
                    return Ok(());
                }
                if page.len() < watchdog.rules.batch_max {
                    break;
                }
            }
            look.done_to = Some(until);
        }
        Ok(())
    }
}

/// How far each lane has read its fresh orders.
struct Marks(Vec<(ProviderId, Option<Timestamp>)>);

impl Marks {
    async fn read(watchdog: &Watchdog, stop: &StopSignals) -> Result<Option<Self>, RoleError> {
        let mut marks = Vec::with_capacity(watchdog.rules.lanes.len());
        for (lane, topics) in &watchdog.rules.lanes {
            let read = || watchdog.read_marks.read_up_to(&topics.requests, watchdog.rules.partitions);
            let Some(mark) = watchdog.patiently("read_up_to", stop, read).await? else { return Ok(None) };
            marks.push((lane.clone(), mark));
        }
        Ok(Some(Self(marks)))
    }

    fn of(&self, lane: &ProviderId) -> Option<Timestamp> {
        self.0.iter().find(|(name, _)| name == lane).and_then(|(_, mark)| *mark)
    }
}

fn remedy(order: &Order, read_up_to: Option<Timestamp>, now: Timestamp, policy: &Policy) -> Remedy {
    let since = |at: Timestamp| (now - at).to_std().unwrap_or_default();
    match order.state {
        // Behind a backlog its command is not lost, and another would make the backlog longer.
        State::Queued => {
            let queued_at = order.paid_at.unwrap_or(order.created_at);
            let is_passed = read_up_to.is_some_and(|mark| mark > crate::domain::plus(queued_at, UNSURE));
            if is_passed { Remedy::Fresh } else { Remedy::Nothing }
        }
        State::RetryWait if order.wake_at.is_some_and(|at| since(at) > ON_ITS_WAY) => Remedy::Due(CommandKind::Submit),
        State::InFlight => {
            let provider = order.provider.as_ref().and_then(|lane| policy.provider(lane));
            let Some((attempt, provider)) = order.attempt.as_ref().zip(provider) else { return Remedy::Nothing };
            let call = provider.send_window + provider.capabilities.call_timeout + CALL_MARGIN;
            let is_overdue = || order.wake_at.is_some_and(|at| since(at) > ON_ITS_WAY);
            if attempt.state == AttemptState::Sent {
                if since(attempt.claimed_at) > call { Remedy::Adopt } else { Remedy::Nothing }
            } else if is_overdue() {
                Remedy::Due(CommandKind::Query)
            } else {
                Remedy::Nothing
            }
        }
        State::RetryWait
        | State::AwaitingPayment
        | State::InDoubt
        | State::Succeeded
        | State::Failed
        | State::Cancelled => Remedy::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{at, order, policy};
    use super::*;

    fn at_120(order: &Order, read_up_to: Option<i64>) -> Remedy {
        remedy(order, read_up_to.map(at), at(120), &policy())
    }

    #[test]
    fn a_fresh_command_is_lost_once_everything_before_it_was_read() {
        let queued = order(State::Queued, None, None);
        assert_eq!(at_120(&queued, None), Remedy::Nothing, "nobody knows");
        assert_eq!(at_120(&queued, Some(10)), Remedy::Nothing, "behind a backlog");
        assert_eq!(at_120(&queued, Some(16)), Remedy::Fresh);
    }

    #[test]
    fn a_wait_is_lost_ten_seconds_after_its_time() {
        for (state, attempt, kind) in [
            (State::RetryWait, Some(AttemptState::Failed), CommandKind::Submit),
            (State::InFlight, Some(AttemptState::Unknown), CommandKind::Query),
            (State::InFlight, Some(AttemptState::Accepted), CommandKind::Query),
        ] {
            let waits = |wake_at| at_120(&order(state, attempt, wake_at), Some(119));
            assert_eq!(waits(Some(130)), Remedy::Nothing);
            assert_eq!(waits(Some(110)), Remedy::Nothing);
            assert_eq!(waits(Some(109)), Remedy::Due(kind), "{state}");
        }
    }

    #[test]
    fn a_call_that_must_have_ended_has_lost_its_caller() {
        let sent = order(State::InFlight, Some(AttemptState::Sent), None);
        let judged = |second| remedy(&sent, None, at(second), &policy());
        assert_eq!(judged(118), Remedy::Nothing);
        assert_eq!(judged(119), Remedy::Adopt);
    }

    #[test]
    fn what_is_decided_or_unpaid_is_left_alone() {
        for state in [State::AwaitingPayment, State::InDoubt, State::Succeeded, State::Failed, State::Cancelled] {
            assert_eq!(at_120(&order(state, None, Some(0)), Some(119)), Remedy::Nothing);
        }
    }
}
