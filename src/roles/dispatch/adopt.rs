//! Adoption: sends whose caller is gone. After partitions have come to this process somebody else
//! may have died; as long as a call takes after that, whatever of the lane still waits for an answer
//! waits for one that nobody hears, and is asked about. So a crash costs a call's time-out; a minute more, where nothing was
//! assigned to anybody.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::domain::{Decision, Input, Order, Timestamp, Transition, decide};
use crate::ports::{DeadlinePosition, StoreError, Written};
use crate::roles::patience;

use super::Lane;

/// A call that has not ended so long after its time-out will not end.
const MARGIN: Duration = Duration::from_secs(2);
/// Deadlines that are looked through at once: a few thousand rows even where thousands of orders a
/// second come in.
const STEP: Duration = Duration::from_secs(2);

/// Without any assignment there is a look this often: a process that dies and comes back under its own name, again and
/// again, moves no partition to anybody.
const EVERY: Duration = Duration::from_mins(1);

/// When to look next.
#[derive(Debug, Default)]
pub(super) struct Adoption {
    assignments: u64,
    /// The first of these stays where it is, whatever else is assigned: what it is for has waited long enough by then.
    due_at: Option<Timestamp>,
    /// After the last assignment that came meanwhile.
    then_at: Option<Timestamp>,
    looking: bool,
}

impl Adoption {
    /// Notes how many assignments there were so far.
    pub(super) fn note(&mut self, assignments: u64, now: Timestamp, wait: Duration) {
        if assignments == self.assignments {
            return;
        }
        self.assignments = assignments;
        let at = crate::domain::plus(now, wait);
        if self.due_at.is_none_or(|due_at| due_at > at) {
            self.due_at = Some(at);
        } else {
            self.then_at = Some(at);
        }
    }

    pub(super) fn due_at(&self) -> Option<Timestamp> {
        self.due_at.filter(|_| !self.looking)
    }

    /// Whether to look now; says so once, until that look has ended.
    pub(super) fn take_due(&mut self, now: Timestamp) -> bool {
        let is_due = self.due_at().is_some_and(|at| at <= now);
        if is_due {
            self.due_at = self.then_at.take();
            self.looking = true;
        }
        is_due
    }

    /// A look has ended.
    pub(super) fn looked(&mut self, now: Timestamp) {
        self.looking = false;
        self.due_at.get_or_insert(crate::domain::plus(now, EVERY));
    }
}

impl Lane {
    /// How long after an assignment every call that was under way then has ended.
    pub(super) fn adopt_after(&self) -> Duration {
        self.call_ends_after() + MARGIN
    }

    fn call_ends_after(&self) -> Duration {
        self.rules.send_window + self.provider.capabilities().call_timeout
    }

    /// Takes over every send of this lane that nobody waits for any more.
    pub(super) async fn adopt(&self, abort: &CancellationToken) -> Result<usize, StoreError> {
        let now = self.clock.now();
        let Ok(wait) = chrono::TimeDelta::from_std(self.call_ends_after()) else { return Ok(0) };
        let claimed_before = now - wait;
        let last = crate::domain::plus(now, self.rules.policy.sla);
        let mut from = patience::stored_unless("low_water", abort, || self.deadlines.low_water()).await?;
        let mut adopted = 0;
        while from <= last {
            // What is behind its deadline is little, however far back it reaches: the watchdog has decided it.
            let to = crate::domain::plus(from.max(now), STEP);
            let mut after = DeadlinePosition { at: from, order_id: None };
            loop {
                let read =
                    || self.deadlines.unanswered(self.provider.id(), claimed_before, &after, to, self.rules.batch_max);
                let page = patience::stored_unless("unanswered", abort, read).await?;
                adopted += self.adopt_page(page.orders, abort).await?;
                let Some(next) = page.next else { break };
                after = next;
            }
            from = to;
        }
        if adopted > 0 {
            info!(lane = %self.provider.id(), orders = adopted, "sends whose caller is gone are asked about");
        }
        Ok(adopted)
    }

    async fn adopt_page(&self, page: Vec<Order>, abort: &CancellationToken) -> Result<usize, StoreError> {
        let (now, policy) = (self.clock.now(), self.policy());
        let transitions: Vec<Transition> = page
            .iter()
            .filter_map(|order| match decide(Some(order), &Input::CallerLost, now, &policy) {
                Decision::Apply(transition) => Some(*transition),
                Decision::Keep(_) => None,
            })
            .collect();
        if transitions.is_empty() || !self.publish_waits(&transitions, abort).await {
            return Ok(0);
        }
        let written = patience::applied("adopt", self.store.as_ref(), &transitions, abort).await?;
        // One that was overtaken has its answer after all; one that is locked is looked at again in a minute.
        let stored = transitions.iter().zip(written).filter(|(_, written)| *written == Written::Stored);
        Ok(stored.inspect(|(transition, _)| self.outcomes.written(transition)).count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    #[test]
    fn each_assignment_is_followed_by_a_look_when_every_call_has_ended() {
        let (mut adoption, wait) = (Adoption::default(), Duration::from_secs(18));
        adoption.note(0, at(0), wait);
        assert_eq!(adoption.due_at(), None, "nothing is held yet");
        adoption.note(1, at(1), wait);
        assert!(!adoption.take_due(at(18)));
        assert!(adoption.take_due(at(19)) && !adoption.take_due(at(20)));
        adoption.looked(at(20));
        adoption.note(1, at(30), wait);
        adoption.note(2, at(40), wait);
        // What a further one brings may be under way for longer: it has a look of its own.
        adoption.note(3, at(50), wait);
        assert!(!adoption.take_due(at(57)) && adoption.take_due(at(58)));
        adoption.looked(at(59));
        assert!(!adoption.take_due(at(67)) && adoption.take_due(at(68)));
    }

    #[test]
    fn assignments_without_end_put_off_no_look() {
        let (mut adoption, wait) = (Adoption::default(), Duration::from_secs(18));
        let mut looks = Vec::new();
        for second in 0..100 {
            // A process of a large fleet is restarted every five seconds.
            adoption.note(u64::try_from(second / 5 + 1).unwrap(), at(second), wait);
            if adoption.take_due(at(second)) {
                looks.push(second);
                adoption.looked(at(second));
            }
        }
        assert_eq!(looks, [18, 33, 48, 63, 78, 93]);
    }

    #[test]
    fn there_is_a_look_now_and_then_though_nothing_is_assigned() {
        let mut adoption = Adoption::default();
        adoption.note(1, at(0), Duration::from_secs(18));
        assert!(adoption.take_due(at(18)));
        assert_eq!(adoption.due_at(), None, "not while there is one");
        adoption.looked(at(20));
        assert!(!adoption.take_due(at(79)) && adoption.take_due(at(80)));
    }
}
