//! The cases: a question that was lost is asked again a minute late at most, and what has waited long
//! enough for the provider is told to people.

use std::time::Duration;

use tracing::{debug, warn};

use crate::domain::inquiry::last_query;
use crate::domain::{Command, CommandKind, Order, OrderId, Policy, Timestamp};
use crate::ports::{OverdueQuestion, QuestionTime};
use crate::roles::{RoleError, StopSignals, patience};

use super::Watchdog;

/// A question that is later than this was lost.
const LOST_AFTER: Duration = Duration::from_mins(1);

impl Watchdog {
    pub(super) async fn look_after_cases(&self, stop: &StopSignals) -> Result<(), RoleError> {
        if self.escalate(stop).await? {
            self.ask_again(stop).await?;
        }
        Ok(())
    }

    async fn escalate(&self, stop: &StopSignals) -> Result<bool, RoleError> {
        loop {
            let now = self.clock.now();
            let mark = || self.cases.escalate(now, self.rules.batch_max);
            let Some(escalated) = self.patiently("escalate", stop, mark).await? else { return Ok(false) };
            for case in &escalated {
                warn!(order_id = %case.key.order_id, kind = case.key.kind.as_str(), opened_at = %case.opened_at,
                    "a case has waited long enough: a person must look");
                self.metrics.acted("escalate");
            }
            if escalated.len() < self.rules.batch_max {
                return Ok(true);
            }
        }
    }

    /// Asks the questions that are overdue, and notes when those stand that are not.
    async fn ask_again(&self, stop: &StopSignals) -> Result<(), RoleError> {
        loop {
            let now = self.clock.now();
            let Some(due_by) = now.checked_sub_signed(chrono::TimeDelta::from_std(LOST_AFTER).unwrap_or_default())
            else {
                return Ok(());
            };
            let read = || self.cases.overdue_questions(due_by, self.rules.batch_max);
            let Some(overdue) = self.patiently("overdue_questions", stop, read).await? else { return Ok(()) };
            let ids: Vec<OrderId> = overdue.iter().map(|one| one.key.order_id.clone()).collect();
            let Some(orders) = self.patiently("load", stop, || self.store.load(&ids)).await? else { return Ok(()) };
            let (mut records, mut times) = (Vec::new(), Vec::new());
            for (question, order) in overdue.iter().zip(&orders) {
                let next = next_look(question, order.as_ref(), now, due_by, &self.rules.policy);
                if let (Next::AskNow, Some(order)) = (next, order) {
                    debug!(order_id = %order.order_id, "a question was lost and is asked again");
                    records.extend(self.due_record(order, &Command::of(CommandKind::Query, order)));
                    self.metrics.acted("requeue");
                }
                let next = match next {
                    Next::AskNow => Some(now),
                    Next::Stands(at) => Some(at),
                    Next::Never => None,
                };
                times.push(QuestionTime { key: question.key.clone(), was: question.next_query_at, next });
            }
            if !patience::published("questions", self.publisher.as_ref(), records, &stop.drain).await {
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
    let provider = order.provider.as_ref().and_then(|lane| policy.provider(lane));
    let Some((attempt, provider)) = order.attempt.as_ref().zip(provider) else { return Next::Never };
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
