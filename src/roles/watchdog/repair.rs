//! The repair: an order that is not decided a while before its deadline, and that nobody works on any
//! more, is asked for again. It is the last net. Commands outlive crashes by themselves; what it
//! finds was lost with a broker's disk, or by a hand.
//!
//! One reader hands out what it finds to the lanes, each of which is mended at its own pace: a lane whose
//! topic takes nothing keeps no other one waiting.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::domain::{
    AttemptState, Command, CommandKind, Decision, Input, Order, Policy, ProviderId, State, Timestamp, Transition,
    decide,
};
use crate::ports::{DeadlinePosition, LaneTopics, Written};
use crate::roles::{RoleError, StopSignals, patience};

use super::{MEND_EVERY, Watchdog, wait};

/// So long before its deadline an order is looked at first, or a third of the whole time.
const AHEAD: Duration = Duration::from_mins(1);
/// A command that waits no longer than this is on its way.
const ON_ITS_WAY: Duration = Duration::from_secs(10);
/// Clocks differ, and reading marks are written every few seconds.
const UNSURE: Duration = Duration::from_secs(15);
/// A call that has not ended so long after its time-out will not end.
const CALL_MARGIN: Duration = Duration::from_secs(2);
/// Pages that wait for one lane at most.
const PAGES_MAX: usize = 8;
/// A lane that takes no page for so long is stalled: it is waited for once, and passed over until it
/// takes one again. What it misses comes by once more, or is decided at its deadline.
const STALLED_AFTER: Duration = Duration::from_secs(5);

/// Looks at each order twice, as its deadline draws near.
#[derive(Debug)]
struct Repair {
    looks: [Look; 2],
    desks: HashMap<ProviderId, Desk>,
}

#[derive(Debug)]
struct Look {
    ahead: Duration,
    /// Up to which deadline it has looked.
    done_to: Option<Timestamp>,
}

/// Where the pages of one lane are handed in.
#[derive(Debug)]
struct Desk {
    pages: mpsc::Sender<LanePage>,
    is_stalled: bool,
}

/// Orders of one lane that are near their deadlines.
#[derive(Debug, Default)]
struct LanePage {
    orders: Vec<Order>,
    /// Up to which time the lane has read its fresh orders.
    read_up_to: Option<Timestamp>,
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
    /// Looks for what was lost on the way, until told to stop.
    pub(super) async fn repair(&self, stop: &StopSignals) -> Result<(), RoleError> {
        let (mut desks, mut lanes) = (HashMap::new(), Vec::new());
        for (lane, topics) in &self.rules.lanes {
            let (pages, found) = mpsc::channel(PAGES_MAX);
            desks.insert(lane.clone(), Desk { pages, is_stalled: false });
            lanes.push(self.mend_lane(topics, found, stop));
        }
        let reads = async move {
            let mut repair = Repair::new(self.rules.policy.sla, desks);
            while !wait(stop, MEND_EVERY).await {
                repair.look(self, stop).await?;
            }
            Ok(())
        };
        tokio::try_join!(reads, try_join_all(lanes)).map(drop)
    }

    /// Mends one lane, page by page, until nobody reads any more.
    async fn mend_lane(
        &self,
        topics: &LaneTopics,
        mut found: mpsc::Receiver<LanePage>,
        stop: &StopSignals,
    ) -> Result<(), RoleError> {
        while let Some(page) = found.recv().await {
            if !self.remedy_page(&page, topics, stop).await? {
                break;
            }
        }
        Ok(())
    }

    async fn remedy_page(&self, page: &LanePage, topics: &LaneTopics, stop: &StopSignals) -> Result<bool, RoleError> {
        let (now, policy, commands) = (self.clock.now(), &self.rules.policy, &self.rules.commands);
        let due = |order: &Order, command: &Command| commands.due(topics, command, &order.recipient, now);
        let (mut records, mut transitions, mut questions) = (Vec::new(), Vec::new(), 0);
        for order in &page.orders {
            match remedy(order, page.read_up_to, now, policy) {
                Remedy::Nothing => {}
                Remedy::Fresh => {
                    let command = Command::of(CommandKind::Submit, order);
                    records.push(commands.fresh(topics, &command, &order.recipient));
                }
                Remedy::Due(kind) => {
                    questions += usize::from(kind == CommandKind::Query);
                    records.push(due(order, &Command::of(kind, order)));
                }
                Remedy::Adopt => {
                    if let Decision::Apply(transition) = decide(Some(order), &Input::CallerLost, now, policy) {
                        let follow_up = transition.follow_up.as_ref();
                        records.extend(follow_up.map(|follow_up| due(&transition.after, &follow_up.command)));
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
        if !patience::published("repair", self.publisher.as_ref(), records, &stop.drain).await
            || !self.write_adopted(&transitions, stop).await?
        {
            return Ok(false);
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

    async fn write_adopted(&self, transitions: &[Transition], stop: &StopSignals) -> Result<bool, RoleError> {
        if transitions.is_empty() {
            return Ok(true);
        }
        let written = match patience::applied("adopt", self.store.as_ref(), transitions, &stop.drain).await {
            Err(_) if stop.drain.is_cancelled() => return Ok(false),
            written => written?,
        };
        for (transition, written) in transitions.iter().zip(written) {
            if written == Written::Stored {
                self.outcomes.written(transition);
            }
        }
        Ok(true)
    }
}

impl Repair {
    fn new(sla: Duration, desks: HashMap<ProviderId, Desk>) -> Self {
        let ahead = AHEAD.min(sla / 3);
        Self { looks: [ahead, ahead / 2].map(|ahead| Look { ahead, done_to: None }), desks }
    }

    /// Looks at the orders whose deadlines have drawn near since the last look.
    async fn look(&mut self, watchdog: &Watchdog, stop: &StopSignals) -> Result<(), RoleError> {
        let now = watchdog.clock.now();
        let Some(marks) = read_marks(watchdog, stop).await? else { return Ok(()) };
        for Look { ahead, done_to } in &mut self.looks {
            let until = crate::domain::plus(now, *ahead);
            let mut after = DeadlinePosition { at: done_to.unwrap_or(now), order_id: None };
            loop {
                let read = || watchdog.deadlines.undecided(&after, until, watchdog.rules.batch_max);
                let Some(page) = watchdog.patiently("undecided", stop, read).await? else { return Ok(()) };
                for (lane, page) in by_lane(page.orders, &marks) {
                    let Some(desk) = self.desks.get_mut(&lane) else { continue };
                    if !desk.hand_in(&lane, page, stop).await {
                        return Ok(());
                    }
                }
                let Some(next) = page.next else { break };
                after = next;
            }
            *done_to = Some(until);
        }
        Ok(())
    }
}

impl Desk {
    /// `false` if told to stop meanwhile.
    async fn hand_in(&mut self, lane: &ProviderId, page: LanePage, stop: &StopSignals) -> bool {
        let patience = if self.is_stalled { Duration::ZERO } else { STALLED_AFTER };
        let handed_in = tokio::select! {
            biased; // Stopping comes before more work.
            () = stop.drain.cancelled() => return false,
            handed_in = self.pages.send_timeout(page, patience) => handed_in,
        };
        let was_stalled = std::mem::replace(&mut self.is_stalled, handed_in.is_err());
        if let Err(left) = handed_in
            && !was_stalled
        {
            let orders = left.into_inner().orders.len();
            warn!(%lane, orders, "this lane takes no commands: what it lost is asked for again when it does");
        }
        true
    }
}

/// The orders of a page that lanes of this process have, each lane's with its mark.
fn by_lane(page: Vec<Order>, marks: &HashMap<ProviderId, Option<Timestamp>>) -> HashMap<ProviderId, LanePage> {
    let mut pages: HashMap<ProviderId, LanePage> = HashMap::new();
    for order in page {
        let Some((lane, read_up_to)) = order.provider.as_ref().and_then(|lane| marks.get_key_value(lane)) else {
            continue;
        };
        let page = pages.entry(lane.clone()).or_default();
        page.read_up_to = *read_up_to;
        page.orders.push(order);
    }
    pages
}

/// How far each lane has read its fresh orders.
async fn read_marks(
    watchdog: &Watchdog,
    stop: &StopSignals,
) -> Result<Option<HashMap<ProviderId, Option<Timestamp>>>, RoleError> {
    let mut marks = HashMap::with_capacity(watchdog.rules.lanes.len());
    for (lane, topics) in &watchdog.rules.lanes {
        let read = || watchdog.read_marks.read_up_to(&topics.requests, watchdog.rules.partitions);
        let Some(mark) = watchdog.patiently("read_up_to", stop, read).await? else { return Ok(None) };
        marks.insert(lane.clone(), mark);
    }
    Ok(Some(marks))
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

    fn page_of(lanes: &[&str]) -> Vec<Order> {
        let of = |lane: &&str| Order { provider: Some(ProviderId::new(lane)), ..order(State::Queued, None, None) };
        lanes.iter().map(of).collect()
    }

    #[test]
    fn each_lane_gets_its_own_orders_with_its_own_mark_and_strangers_get_none() {
        let marks = HashMap::from([(ProviderId::new("a"), Some(at(7))), (ProviderId::new("b"), None)]);
        let mut page = page_of(&["a", "b", "a", "elsewhere"]);
        page.push(order(State::AwaitingPayment, None, None));
        page.last_mut().unwrap().provider = None;
        let pages = by_lane(page, &marks);
        let sizes = |lane: &str| pages.get(&ProviderId::new(lane)).map(|page| (page.orders.len(), page.read_up_to));
        assert_eq!((sizes("a"), sizes("b"), sizes("elsewhere")), (Some((2, Some(at(7)))), Some((1, None)), None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_that_takes_nothing_is_waited_for_once_until_it_takes_something_again() {
        let (pages, mut found) = mpsc::channel(1);
        let mut desk = Desk { pages, is_stalled: false };
        let (lane, stop) = (ProviderId::new("ill"), StopSignals::default());
        let began = tokio::time::Instant::now();
        for (seconds, is_stalled) in [(0, false), (5, true), (5, true), (5, true)] {
            assert!(desk.hand_in(&lane, LanePage::default(), &stop).await);
            assert_eq!((began.elapsed().as_secs(), desk.is_stalled), (seconds, is_stalled));
        }
        found.recv().await.unwrap();
        assert!(desk.hand_in(&lane, LanePage::default(), &stop).await);
        assert_eq!((began.elapsed().as_secs(), desk.is_stalled), (5, false));
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
