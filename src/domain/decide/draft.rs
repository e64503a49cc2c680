//! A transition in the making: the row before, the row as it will be, and what goes with it.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::command::{Command, CommandKind};
use crate::domain::event::{DecidedBy, EventData, EventType, LoggedEvent, RefundMade, RefundNote};
use crate::domain::ids::ProviderId;
use crate::domain::inquiry::last_query;
use crate::domain::order::Order;
use crate::domain::policy::{Policy, ProviderPolicy};
use crate::domain::state::{AttemptState, CaseKind, Reason, Sla, State};
use crate::domain::transition::{CaseChange, FollowUp, Refund, RefundNews, Transition};
use crate::domain::{Timestamp, notification};
use crate::faults::{Bug, is_planted};

use super::{Decision, Why};

pub(super) struct Draft<'a> {
    pub(super) before: &'a Order,
    pub(super) after: Order,
    pub(super) now: Timestamp,
    pub(super) policy: &'a Policy,
    cause: Option<String>,
    decided_by: Option<DecidedBy>,
    refund: Option<Refund>,
    refund_news: Option<RefundNews>,
    cases: Vec<CaseChange>,
    notify_at: Option<Timestamp>,
    follow_up: Option<FollowUp>,
    inserts: bool,
    /// What is decided on is the provider's answer to a question.
    answers: bool,
    /// What is decided on is what the caller heard under the row's claim: its first byte has left.
    pub(super) has_left: bool,
}

impl<'a> Draft<'a> {
    pub(super) fn new(order: &'a Order, now: Timestamp, policy: &'a Policy) -> Self {
        let mut after = order.clone();
        after.version = order.version + 1;
        Self {
            before: order,
            after,
            now,
            policy,
            cause: None,
            decided_by: None,
            refund: None,
            refund_news: None,
            cases: Vec::new(),
            notify_at: None,
            follow_up: None,
            inserts: false,
            answers: false,
            has_left: false,
        }
    }

    /// For an order that is not stored yet: `order` is what it would be, at version 0.
    pub(super) fn for_arrival(order: &'a Order, now: Timestamp, policy: &'a Policy) -> Self {
        Self { inserts: true, ..Self::new(order, now, policy) }
    }

    /// For a decision on the provider's answer to a question.
    pub(super) fn for_answer(order: &'a Order, now: Timestamp, policy: &'a Policy) -> Self {
        Self { answers: true, ..Self::new(order, now, policy) }
    }

    /// The policy of the order's lane.
    pub(super) fn provider(&self) -> Option<&'a ProviderPolicy> {
        self.before.provider.as_ref().and_then(|id| self.policy.provider(id))
    }

    /// Into another lane, which begins with a reference of its own.
    pub(super) fn into_lane(mut self, lane: &ProviderId) -> Self {
        self.after.provider = Some(lane.clone());
        self
    }

    /// Notes the provider's code or our own cause; bounded, and stripped of anything odd, since
    /// providers are known to echo a number in an error text.
    pub(super) fn cause(mut self, text: &str) -> Self {
        self.cause = Some(safe_cause(text));
        self
    }

    pub(super) fn decided_by(mut self, by: &str, evidence: &str) -> Self {
        self.decided_by = Some(DecidedBy { name: bounded(by, 64), evidence: bounded(evidence, 1000) });
        self
    }

    pub(super) fn notify_at(mut self, at: Option<Timestamp>) -> Self {
        self.notify_at = at;
        self
    }

    pub(super) fn attempt_state(mut self, state: AttemptState) -> Self {
        if let Some(attempt) = &mut self.after.attempt {
            attempt.state = state;
        }
        self
    }

    pub(super) fn provider_ref(mut self, provider_ref: Option<&String>) -> Self {
        if let (Some(attempt), Some(text)) = (&mut self.after.attempt, provider_ref) {
            attempt.provider_ref = Some(bounded(text, MAX_PROVIDER_REF));
        }
        self
    }

    /// Opens a case, unless one of this kind was ever opened.
    pub(super) fn open_case(mut self, kind: CaseKind, evidence: String, next_query_at: Option<Timestamp>) -> Self {
        if self.after.cases & kind.bit() == 0 {
            self.after.cases |= kind.bit();
            let escalate_at = crate::domain::plus(self.now, self.policy.reconcile_within);
            self.cases.push(CaseChange::Open { kind, escalate_at, evidence, next_query_at });
        }
        self
    }

    /// Opens a case and changes nothing else; a case that was opened before is known.
    pub(super) fn case_only(self, kind: CaseKind, evidence: String) -> Decision {
        if self.before.cases & kind.bit() != 0 {
            return Decision::Keep(Why::Known);
        }
        self.open_case(kind, evidence, None).finish(EventType::CaseOpened)
    }

    pub(super) fn resolve_case(mut self, kind: CaseKind, by: &str, evidence: &str) -> Self {
        if self.before.cases & kind.bit() != 0 {
            self.cases.push(CaseChange::Resolve { kind, by: bounded(by, 64), evidence: bounded(evidence, 1000) });
        }
        self
    }

    /// Requests the refund of what was paid, once per order.
    pub(super) fn refund(mut self, reason: Reason) -> Self {
        let is_new = !self.after.refund_requested || is_planted(Bug::RefundAgain);
        if self.after.paid_at.is_some() && is_new {
            self.after.refund_requested = true;
            // What has gone back already, unasked, has its case.
            let within = self.policy.refund_confirm_within.filter(|_| self.after.refund_id.is_none());
            let within = within.filter(|_| !is_planted(Bug::ForgetTheRefund));
            let confirm_by = within.map(|within| crate::domain::plus(self.now, within));
            let (payment_id, amount) = (self.after.payment_id.clone(), self.after.amount);
            self.refund = Some(Refund { payment_id, amount, reason, confirm_by });
        }
        self
    }

    /// The payment side has refunded the order.
    pub(super) fn refund_made(mut self, refund_id: &Arc<str>, at: Timestamp) -> Self {
        self.after.refund_id = Some(Arc::clone(refund_id));
        self.refund_news(RefundNews::Confirmed { refund_id: Arc::clone(refund_id), at: crate::domain::to_micros(at) })
    }

    pub(super) fn refund_news(mut self, news: RefundNews) -> Self {
        self.refund_news = Some(news);
        self
    }

    /// Asks for a submit by this version's command; it waits where `wake_at` lies ahead.
    pub(super) fn ask_submit(mut self, wake_at: Option<Timestamp>) -> Self {
        self.after.wake_at = wake_at;
        self.ask(CommandKind::Submit)
    }

    /// Asks for a query as early as the provider allows: its first one at once where the time
    /// for it has come, a further one after the least interval.
    pub(super) fn ask_query(self) -> Self {
        let provider = self.provider();
        let interval = provider.map_or(Duration::from_mins(1), |provider| provider.capabilities.query_min_interval);
        let first = self.after.attempt.as_ref().zip(provider).map_or(self.now, |(attempt, provider)| {
            let not_before = provider.capabilities.query_not_before;
            let at_the_latest = provider.after_send(attempt.claimed_at, not_before);
            if self.has_left { at_the_latest.min(crate::domain::plus(self.now, not_before)) } else { at_the_latest }
        });
        let was_asked = self.answers || self.before.attempt.as_ref().is_some_and(|a| a.state != AttemptState::Sent);
        let next = if was_asked { crate::domain::plus(self.now, interval) } else { self.now };
        let at = if first > self.now { first } else { next };
        self.ask_query_at(at)
    }

    /// Asks for a query at a moment.
    pub(super) fn ask_query_at(mut self, at: Timestamp) -> Self {
        self.after.wake_at = Some(at);
        self.ask(CommandKind::Query)
    }

    /// Nothing is asked any more.
    pub(super) fn ask_no_more(mut self) -> Self {
        self.after.wake_at = None;
        self
    }

    fn ask(mut self, kind: CommandKind) -> Self {
        self.after.asked_version = self.after.version;
        if let Some(lane) = self.after.provider.clone() {
            self.follow_up = Some(FollowUp { lane, command: Command::of(kind, &self.after) });
        }
        self
    }

    /// Moves to a closed state and settles the SLA, once.
    pub(super) fn close(mut self, state: State, reason: Option<Reason>) -> Self {
        self.after.state = state;
        self.after.reason = reason;
        self.after.wake_at = None;
        self.after.closed_at = Some(self.now);
        if self.after.sla.is_none() && self.after.paid_at.is_some() {
            self.after.sla = Some(if self.now < self.after.deadline_at { Sla::Met } else { Sla::Missed });
        }
        self
    }

    /// Fails the order and requests its refund. Where only "not found" speaks for it, a case
    /// stays open until the provider is asked once more at the end of its retention.
    pub(super) fn fail(self, reason: Reason) -> Self {
        let unproven = self.after.attempt.as_ref().filter(|attempt| attempt.inquiry.closed_by_not_found);
        let last_query =
            unproven.zip(self.provider()).map(|(attempt, provider)| last_query(attempt.claimed_at, provider));
        let is_unproven = unproven.is_some();
        let failed = self.close(State::Failed, Some(reason)).refund(reason);
        if !is_unproven {
            return failed;
        }
        let last_query = last_query.filter(|last| *last > failed.now);
        let failed = failed.open_case(CaseKind::FailedUnproven, "closed by not found alone".to_owned(), last_query);
        match last_query {
            Some(at) => failed.ask_query_at(at),
            None => failed,
        }
    }

    /// Ends the draft as one transition with one log entry.
    pub(super) fn finish(self, kind: EventType) -> Decision {
        let mut data = EventData::of_move((!self.inserts).then_some(self.before), &self.after);
        data.cause = self.cause;
        data.decided_by = self.decided_by.map(Box::new);
        data.refund = self.refund.as_ref().map(|refund| {
            Box::new(RefundNote {
                payment_id: refund.payment_id.clone(),
                amount_minor: refund.amount.minor,
                currency: refund.amount.currency,
                reason: refund.reason,
            })
        });
        data.refund_made = match &self.refund_news {
            Some(RefundNews::Confirmed { refund_id, at }) => {
                Some(Box::new(RefundMade { refund_id: Arc::clone(refund_id), at: *at }))
            }
            Some(RefundNews::Overdue) | None => None,
        };
        let ends = self.after.state.is_closed() && !self.before.state.is_closed();
        let told = if ends { notification::of_end(&self.after, self.now, self.policy) } else { None };
        data.cases_opened = self
            .cases
            .iter()
            .filter_map(|change| match change {
                CaseChange::Open { kind, .. } => Some(*kind),
                CaseChange::Resolve { .. } => None,
            })
            .collect();
        Decision::Apply(Box::new(Transition {
            from_version: self.before.version,
            sla: self.after.sla.filter(|_| self.before.sla.is_none()),
            event: LoggedEvent {
                order_id: self.after.order_id.clone(),
                version: self.after.version,
                kind,
                at: self.now,
                data,
            },
            after: self.after,
            refund: self.refund,
            refund_news: self.refund_news,
            cases: self.cases,
            notify_at: self.notify_at.filter(|_| told.is_none()),
            told: told.map(Box::new),
            follow_up: self.follow_up,
        }))
    }
}

/// The longest reference of a provider that is kept.
pub(super) const MAX_PROVIDER_REF: usize = 128;

pub(super) fn bounded(text: &str, max_chars: usize) -> String {
    if text.len() <= max_chars { text.to_owned() } else { text.chars().take(max_chars).collect() }
}

/// A code as it may be logged and published. Eight digits are a phone number, whatever stands
/// between them.
fn safe_cause(text: &str) -> String {
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    if digits >= 8 {
        return "withheld".to_owned();
    }
    let safe: String =
        text.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')).take(48).collect();
    if safe.is_empty() { "unprintable".to_owned() } else { safe }
}
