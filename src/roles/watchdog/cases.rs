//! The cases: a question that was lost is asked again a minute late at most, and what has waited long
//! enough for the provider is told to people.

use std::collections::HashMap;
use std::time::Duration;

use tracing::{debug, warn};

use crate::domain::inquiry::last_query;
use crate::domain::{Command, CommandKind, Order, OrderId, Policy, ProviderId, Timestamp, minus};
use crate::ports::{Loaded, OutRecord, OverdueQuestion, QuestionTime};
use crate::roles::{RoleError, StopSignals, patience};

use super::{CASES_EVERY, Watchdog};

/// A question that is later than this was lost.
const LOST_AFTER: Duration = Duration::from_mins(1);

impl Watchdog {
    /// Needs the database alone.
    pub(super) async fn escalate(&self, stop: &StopSignals) -> Result<(), RoleError> {
        loop {
            let now = self.clock.now();
            let mark = || self.cases.escalate(now, self.rules.batch_max);
            let Some(escalated) = self.patiently("escalate", stop, mark).await? else { return Ok(()) };
            for case in &escalated {
                warn!(order_id = %case.key.order_id, kind = case.key.kind.as_str(), opened_at = %case.opened_at,
                    "a case has waited long enough: a person must look");
                self.metrics.acted("escalate");
            }
            if escalated.len() < self.rules.batch_max {
                return Ok(());
            }
        }
    }

    /// Asks the questions that are overdue, and notes when those stand that are not.
    pub(super) async fn ask_again(&self, stop: &StopSignals) -> Result<(), RoleError> {
        let mut left = self.questions_left();
        loop {
            let now = self.clock.now();
            let due_by = minus(now, LOST_AFTER);
            let read = || self.cases.overdue_questions(due_by, self.rules.batch_max);
            let Some(overdue) = self.patiently("overdue_questions", stop, read).await? else { return Ok(()) };
            let ids: Vec<OrderId> = overdue.iter().map(|one| one.key.order_id.clone()).collect();
            let Some(rows) = self.patiently("load", stop, || self.store.load(&ids)).await? else { return Ok(()) };
            let mut records: HashMap<ProviderId, Vec<OutRecord>> = HashMap::new();
            let mut times = Vec::with_capacity(overdue.len());
            for (question, row) in overdue.iter().zip(rows) {
                let key = &question.key;
                if let Loaded::Unreadable(why) = &row {
                    patience::unreadable(&key.order_id, why);
                    times.push(QuestionTime { key: key.clone(), was: question.next_query_at, next: Some(now) });
                    continue;
                }
                let order = row.order();
                let next = next_look(question, order.as_ref(), now, due_by, &self.rules.policy);
                if let (Next::AskNow, Some(order)) = (next, &order)
                    && let Some((lane, record)) = self.question(order, &Command::of(CommandKind::Query, order))
                    && take_one(&mut left, &lane)
                {
                    debug!(order_id = %order.order_id, "a question was lost and is asked again");
                    records.entry(lane).or_default().push(record);
                }
                let next = match next {
                    Next::AskNow => Some(now),
                    Next::Stands(at) => Some(at),
                    Next::Never => None,
                };
                times.push(QuestionTime { key: key.clone(), was: question.next_query_at, next });
            }
            let asked = self.ask_lanes(records, stop).await;
            (0..asked).for_each(|_| self.metrics.acted("requeue"));
            if stop.drain.is_cancelled() {
                return Ok(());
            }
            if self.patiently("set_questions", stop, || self.cases.set_questions(&times)).await?.is_none() {
                return Ok(());
            }
            if overdue.len() < self.rules.batch_max {
                return Ok(());
            }
        }
    }
}

impl Watchdog {
    /// What each lane may be asked again in one look: as much as its quota lets it ask until the next. What a
    /// lane has no time for would only make its topic longer, once a minute and from each watchdog.
    fn questions_left(&self) -> HashMap<ProviderId, usize> {
        let per_look = |interval: &Duration| {
            let permits = CASES_EVERY.as_nanos() / interval.as_nanos().max(1);
            usize::try_from(permits).unwrap_or(usize::MAX).max(1)
        };
        self.rules.intervals.iter().map(|(lane, interval)| (lane.clone(), per_look(interval))).collect()
    }
}

/// Takes one of what is left to a lane; `false` where nothing is, and its question waits a minute more.
fn take_one(left: &mut HashMap<ProviderId, usize>, lane: &ProviderId) -> bool {
    match left.get_mut(lane) {
        Some(0) => false,
        Some(left) => {
            *left -= 1;
            true
        }
        None => true,
    }
}

/// What becomes of a question that its case calls overdue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    AskNow,
    /// The order knows of a later time: the case is brought up to it.
    Stands(Timestamp),
    /// Nothing is left to ask.
    Never,
}

fn next_look(
    question: &OverdueQuestion,
    order: Option<&Order>,
    now: Timestamp,
    due_by: Timestamp,
    policy: &Policy,
) -> Next {
    let Some(order) = order.filter(|order| order.asks()) else { return Next::Never };
    let Some(attempt) = order.attempt.as_ref() else { return Next::Never };
    // A lane that is not configured here may be at another process, or again in the next version.
    let provider = order.provider.as_ref().and_then(|lane| policy.provider(lane));
    let Some(provider) = provider else { return Next::Stands(now) };
    let forgotten_at = crate::domain::plus(attempt.claimed_at, provider.capabilities.query_retention);
    // The provider's memory ends; its last word may be asked for until then.
    if now >= forgotten_at.max(last_query(attempt.claimed_at, provider)) {
        return Next::Never;
    }
    let held = question.held.filter(|(_, version)| *version == order.asked_version).map(|(until, _)| until);
    match held.max(order.wake_at) {
        Some(at) if at > due_by => Next::Stands(at),
        _ => Next::AskNow,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{at, order, policy};
    use super::*;
    use crate::domain::{AttemptState, CaseKind, ProviderId, State};
    use crate::ports::CaseKey;

    const HOUR: i64 = 3_600;

    fn next(order: Option<&Order>, held: Option<(i64, u32)>, now: i64) -> Next {
        let key = CaseKey { order_id: OrderId::parse("o-1").unwrap(), kind: CaseKind::InDoubt };
        let held = held.map(|(until, version)| (at(until), version));
        let question = OverdueQuestion { key, next_query_at: at(200), held };
        next_look(&question, order, at(now), at(now - 60), &policy())
    }

    #[test]
    fn a_question_of_a_lane_that_is_not_configured_stands() {
        let elsewhere = Order {
            provider: Some(ProviderId::new("elsewhere")),
            ..order(State::InDoubt, Some(AttemptState::Unknown), Some(200))
        };
        assert_eq!(next(Some(&elsewhere), None, 260), Next::Stands(at(260)));
    }

    #[test]
    fn a_question_is_asked_again_a_minute_after_the_last_time_that_anybody_knows_of() {
        let doubtful = order(State::InDoubt, Some(AttemptState::Unknown), Some(200));
        assert_eq!(next(Some(&doubtful), None, 260), Next::AskNow);
        // The order was asked about since, and is asked about again later.
        assert_eq!(next(Some(&doubtful), Some((230, 3)), 260), Next::Stands(at(230)));
        assert_eq!(next(Some(&doubtful), Some((900, 3)), 260), Next::Stands(at(900)));
        assert_eq!(next(Some(&doubtful), Some((900, 3)), 960), Next::AskNow);
        // That was for something that nobody asks any more.
        assert_eq!(next(Some(&doubtful), Some((900, 2)), 260), Next::AskNow);
    }

    #[test]
    fn a_lane_is_asked_again_for_no_more_than_it_can_ask() {
        let (slow, other) = (ProviderId::new("slow"), ProviderId::new("other"));
        let mut left = HashMap::from([(slow.clone(), 2)]);
        let asked: Vec<bool> = (0..3).map(|_| take_one(&mut left, &slow)).collect();
        assert_eq!(asked, [true, true, false]);
        assert!(take_one(&mut left, &other), "of a lane whose quota is not known nothing is held back");
    }

    #[test]
    fn nothing_is_asked_where_no_answer_can_change_anything() {
        let settled = order(State::Succeeded, Some(AttemptState::Succeeded), None);
        assert_eq!(next(Some(&settled), None, 260), Next::Never);
        assert_eq!(next(None, None, 260), Next::Never);
        // The provider remembers for 20 hours.
        let doubtful = order(State::InDoubt, Some(AttemptState::Accepted), Some(200));
        assert_eq!(next(Some(&doubtful), None, 20 * HOUR), Next::AskNow);
        assert_eq!(next(Some(&doubtful), None, 20 * HOUR + 101), Next::Never);
    }
}
