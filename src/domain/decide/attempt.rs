//! Attempts: the claim, the reply, and what the provider says when asked (rows 5–12b, 15, 17–21).

use std::time::Duration;

use crate::domain::event::EventType;
use crate::domain::ids::{ClaimId, ClientRef};
use crate::domain::order::{Attempt, Inquiry};
use crate::domain::outcome::{Failure, FailureClass, QueryOutcome, Receipt, RetryAdvice, SubmitOutcome};
use crate::domain::state::{AttemptState, CaseKind, Reason, State};
use crate::domain::{Timestamp, retry};

use super::draft::Draft;
use super::{Decision, Why};

/// Row 5: intent before effect. The claim is committed before the first byte leaves. A call that
/// could not end before the deadline is not made: the order fails now, and its refund is early.
pub(super) fn claim(draft: Draft<'_>, claim_id: ClaimId) -> Decision {
    match draft.before.state {
        State::Queued | State::RetryWait => {}
        State::AwaitingPayment
        | State::InFlight
        | State::InDoubt
        | State::Succeeded
        | State::Failed
        | State::Cancelled => return draft.keep(Why::Overtaken),
    }
    if draft.before.has_open_attempt() {
        return draft.keep(Why::NotApplicable);
    }
    let Some(provider) = draft.provider() else {
        return draft.fail(Reason::NoRoute).finish(EventType::Failed);
    };
    if draft.before.wake_at.is_some_and(|wake_at| draft.now < wake_at) {
        return draft.keep(Why::TooEarly);
    }
    if draft.now >= draft.before.deadline_at {
        return draft.fail(Reason::DeadlinePassed).finish(EventType::Failed);
    }
    if draft.now + provider.expected_service > draft.before.deadline_at {
        return draft.fail(Reason::DeadlineUnreachable).finish(EventType::Failed);
    }
    let format = provider.capabilities.client_ref;
    let mut draft = draft;
    let (number, inquiry) = match &draft.before.attempt {
        Some(attempt) if attempt.state == AttemptState::Prepared => (attempt.number, attempt.inquiry.clone()),
        Some(attempt) => (attempt.number + 1, Inquiry::default()),
        None => (1, Inquiry::default()),
    };
    draft.after.attempt = Some(Attempt {
        number,
        state: AttemptState::Sent,
        client_ref: ClientRef::for_attempt(&draft.before.order_id, number, format),
        claim_id,
        claimed_at: draft.now,
        provider_ref: None,
        inquiry,
    });
    draft.after.state = State::InFlight;
    draft.after.wake_at = None;
    draft.finish(EventType::Submitted)
}

/// Rows 6–11: the reply to a send. "No effect" and "unknown" count only for the call that holds
/// the claim: a settlement whose commit reply was lost would otherwise hit the next claim of the
/// same attempt. What the provider itself says holds by reference.
pub(super) fn submit_reply(draft: Draft<'_>, claim_id: ClaimId, outcome: &SubmitOutcome) -> Decision {
    let Some(attempt) = &draft.before.attempt else { return draft.keep(Why::NotApplicable) };
    let number = attempt.number;
    let holds_claim = attempt.claim_id == claim_id;
    let is_open = attempt.state.is_open();
    match outcome {
        SubmitOutcome::Succeeded(receipt) => succeeded(draft, number, receipt),
        _ if !holds_claim || !is_open => draft.keep(Why::Overtaken),
        SubmitOutcome::Accepted { provider_ref } => accepted(draft, provider_ref.as_ref()),
        SubmitOutcome::Rejected(failure) => refused(draft, failure),
        SubmitOutcome::NotSent(cause) => no_effect(draft.cause(cause.as_str()), Duration::ZERO),
        SubmitOutcome::Throttled { retry_after } => {
            no_effect(draft.cause("throttled"), retry_after.unwrap_or(Duration::ZERO))
        }
        SubmitOutcome::Duplicate => unknown(draft.cause("duplicate")),
        SubmitOutcome::Unknown(cause) => unknown(draft.cause(cause.as_str())),
    }
}

/// Rows 8b–12b, 15, 17, 18, 21: what the provider says of an attempt.
pub(super) fn reported(draft: Draft<'_>, attempt: u16, asked_at: Timestamp, outcome: &QueryOutcome) -> Decision {
    if attempt == 0 || attempt > draft.before.attempt_number() {
        return draft.keep(Why::NotApplicable);
    }
    let is_current = attempt == draft.before.attempt_number();
    let is_open = is_current && draft.before.has_open_attempt();
    match outcome {
        QueryOutcome::Succeeded(receipt) => succeeded(draft, attempt, receipt),
        QueryOutcome::Failed(failure) if draft.before.state == State::Succeeded => {
            contradicted(draft.cause(&failure.code), attempt, CaseKind::Conflict)
        }
        QueryOutcome::Reversed(_) if draft.before.state == State::Succeeded => {
            contradicted(draft, attempt, CaseKind::ReversedAfterSuccess)
        }
        _ if !is_open => draft.keep(Why::Known),
        QueryOutcome::Failed(failure) => refused(draft, failure),
        QueryOutcome::Reversed(_) => finally_refused(draft, Reason::Reversed),
        QueryOutcome::NotFound => not_found(draft, asked_at),
        QueryOutcome::ProviderUnknown => unknown(draft.cause("provider_unknown")),
        QueryOutcome::InProgress | QueryOutcome::Unavailable { .. } => draft.keep(Why::NoNews),
    }
}

/// Row 20: nobody waits for the answer any more.
pub(super) fn caller_lost(draft: Draft<'_>) -> Decision {
    match draft.before.attempt.as_ref().map(|attempt| attempt.state) {
        Some(AttemptState::Sent) if !draft.before.state.is_closed() => unknown(draft.cause("caller_lost")),
        _ => draft.keep(Why::NotApplicable),
    }
}

/// Row 7: the provider owns it.
fn accepted(draft: Draft<'_>, provider_ref: Option<&String>) -> Decision {
    let mut draft = draft.attempt_state(AttemptState::Accepted).provider_ref(provider_ref);
    if let Some(attempt) = &mut draft.after.attempt {
        attempt.inquiry.was_accepted = true;
    }
    draft.ask_query().finish(EventType::AttemptUpdated)
}

/// Row 8: a time-out is not a failure. The attempt stays open until the provider has spoken.
fn unknown(draft: Draft<'_>) -> Decision {
    let is_news = draft.before.attempt.as_ref().is_some_and(|attempt| attempt.state == AttemptState::Sent);
    if !is_news {
        return draft.keep(Why::NoNews);
    }
    draft.attempt_state(AttemptState::Unknown).ask_query().finish(EventType::AttemptUpdated)
}

/// Row 6: the send provably had no effect. The same reference where that is safe, else a new
/// one. It costs no attempt.
fn no_effect(draft: Draft<'_>, at_least: Duration) -> Decision {
    let Some(provider) = draft.provider() else { return draft.keep(Why::NotApplicable) };
    if draft.before.state == State::InDoubt {
        return draft
            .attempt_state(AttemptState::NotExecuted)
            .resolve_case(CaseKind::InDoubt, "provider", "not sent")
            .fail(Reason::DeadlinePassed)
            .finish(EventType::Failed);
    }
    let same_ref = provider.capabilities.duplicates.resend_is_safe();
    let next = if same_ref { AttemptState::Prepared } else { AttemptState::NotExecuted };
    let number = draft.before.attempt_number();
    let wake = retry::next_wake(
        &draft.before.order_id,
        number,
        at_least,
        draft.now,
        draft.before.deadline_at,
        draft.policy,
        provider,
    );
    let draft = draft.attempt_state(next);
    match wake {
        Some(wake_at) => wait_for_retry(draft, wake_at),
        None => draft.fail(Reason::DeadlineUnreachable).finish(EventType::Failed),
    }
}

fn wait_for_retry(mut draft: Draft<'_>, wake_at: Timestamp) -> Decision {
    draft.after.state = State::RetryWait;
    draft.ask_submit(Some(wake_at)).finish(EventType::RetryScheduled)
}

/// Rows 10 and 11: the provider says no.
fn refused(draft: Draft<'_>, failure: &Failure) -> Decision {
    let draft = draft.cause(&failure.code);
    // "Recharged a moment ago" on a later attempt speaks of an earlier one, which then was
    // delivered: refunding would give the money and the credit.
    if failure.class == FailureClass::CooldownActive && draft.before.attempt_number() > 1 {
        return unknown(draft);
    }
    let after_wait = match failure.advice {
        RetryAdvice::Never => return finally_refused(draft, reason_of(failure.class)),
        RetryAdvice::NewAttempt { after } => after,
        RetryAdvice::AfterOperatorAction => Duration::ZERO,
    };
    let bound_to_ref = draft.before.attempt.as_ref().is_some_and(|a| a.inquiry.closed_by_not_found);
    if draft.before.state == State::InDoubt || bound_to_ref {
        return finally_refused(draft, reason_of(failure.class));
    }
    // What we must mend ourselves is no fault of the order, and costs it no attempt.
    let counts = failure.advice != RetryAdvice::AfterOperatorAction;
    let declined = draft.before.declined + u16::from(counts);
    let wake = draft.provider().filter(|_| declined < draft.policy.max_attempts || !counts).and_then(|provider| {
        retry::next_wake(
            &draft.before.order_id,
            declined.max(1),
            after_wait,
            draft.now,
            draft.before.deadline_at,
            draft.policy,
            provider,
        )
    });
    let mut draft = draft;
    draft.after.declined = declined;
    match wake {
        Some(wake_at) => wait_for_retry(draft.attempt_state(AttemptState::Failed), wake_at),
        None => finally_refused(draft, Reason::AttemptsExhausted),
    }
}

fn finally_refused(draft: Draft<'_>, reason: Reason) -> Decision {
    let doubted = draft.before.state == State::InDoubt;
    let draft = draft.attempt_state(AttemptState::Failed).fail(reason);
    let draft = if doubted { draft.resolve_case(CaseKind::InDoubt, "provider", "not delivered") } else { draft };
    draft.finish(EventType::Failed)
}

fn reason_of(class: FailureClass) -> Reason {
    match class {
        FailureClass::InvalidRecipient => Reason::InvalidPhone,
        FailureClass::RecipientBarred => Reason::RecipientBarred,
        FailureClass::AmountNotAllowed => Reason::AmountNotSupported,
        FailureClass::LimitReached
        | FailureClass::CooldownActive
        | FailureClass::OperatorUnavailable
        | FailureClass::InsufficientFloat
        | FailureClass::AuthOrConfig
        | FailureClass::ProviderDeclared
        | FailureClass::Cancelled => Reason::ProviderDeclined,
    }
}

/// Rows 9, 17, 21: delivered.
fn succeeded(draft: Draft<'_>, attempt: u16, receipt: &Receipt) -> Decision {
    let is_current = attempt == draft.before.attempt_number();
    match draft.before.state {
        State::Succeeded => second_success(draft, attempt),
        State::Failed | State::Cancelled => {
            let evidence = format!("attempt {attempt} was delivered after the order had closed");
            case_only(draft, CaseKind::LateSuccess, evidence)
        }
        State::AwaitingPayment => draft.keep(Why::NotApplicable),
        State::Queued | State::RetryWait | State::InFlight | State::InDoubt => {
            let doubted = draft.before.state == State::InDoubt;
            let flipped = !is_current || !draft.before.has_open_attempt();
            let mut draft = draft;
            if is_current {
                draft = draft.attempt_state(AttemptState::Succeeded).provider_ref(receipt.provider_ref.as_ref());
            }
            draft = draft.close(State::Succeeded, None);
            if doubted {
                draft = draft.resolve_case(CaseKind::InDoubt, "provider", "delivered");
            }
            if flipped {
                draft = flipped_case(draft, attempt);
            }
            if receipt.delivered.is_some_and(|delivered| delivered != draft.before.amount) {
                let evidence = format!("ordered {}, delivered another amount", draft.before.amount);
                draft = draft.open_case(CaseKind::AmountMismatch, evidence, None);
            }
            draft.finish(EventType::Succeeded)
        }
    }
}

/// An attempt that had been called closed was delivered. A newer one that is open may be too:
/// the case goes on asking about it.
fn flipped_case(draft: Draft<'_>, attempt: u16) -> Draft<'_> {
    let ask_newer = draft.before.has_open_attempt().then(|| draft.now);
    let evidence = format!("attempt {attempt} had been called closed, and was delivered");
    draft.open_case(CaseKind::ProviderFlipped, evidence, ask_newer)
}

/// The order is delivered already. The same attempt again is no news; another one is a second
/// delivery, and its attempt is closed as what it is.
fn second_success(draft: Draft<'_>, attempt: u16) -> Decision {
    let current = draft.before.attempt_number();
    let current_is_open = draft.before.has_open_attempt();
    let effective_is_current = draft.before.attempt.as_ref().is_some_and(|a| a.state == AttemptState::Succeeded);
    let another = if attempt == current { current_is_open } else { effective_is_current };
    if !another {
        return draft.keep(Why::Known);
    }
    let draft = if attempt == current { draft.attempt_state(AttemptState::Succeeded) } else { draft };
    case_only(draft, CaseKind::DoubleSuccess, format!("attempt {attempt} was delivered too"))
}

/// Row 18: the provider takes back what it said. The order does not change.
fn contradicted(draft: Draft<'_>, attempt: u16, kind: CaseKind) -> Decision {
    let spoke_of_another = attempt != draft.before.attempt_number();
    let open = draft.before.has_open_attempt();
    if spoke_of_another {
        return draft.keep(Why::Known);
    }
    if open {
        // The newer attempt of an order that an older one delivered: now it is closed, as it should.
        return draft.attempt_state(AttemptState::Failed).finish(EventType::AttemptUpdated);
    }
    case_only(draft, kind, format!("attempt {attempt} had been reported delivered"))
}

fn case_only(draft: Draft<'_>, kind: CaseKind, evidence: String) -> Decision {
    if draft.before.cases & kind.bit() != 0 {
        return draft.keep(Why::Known);
    }
    draft.open_case(kind, evidence, None).finish(EventType::CaseOpened)
}

/// Rows 12, 12b, 15: the provider does not know the reference. That proves something only when it
/// was asked late enough, twice, and never said that it had it.
fn not_found(draft: Draft<'_>, asked_at: Timestamp) -> Decision {
    let Some(provider) = draft.provider() else { return draft.keep(Why::NotApplicable) };
    let Some(attempt) = &draft.before.attempt else { return draft.keep(Why::NotApplicable) };
    let capabilities = &provider.capabilities;
    let late_enough = asked_at - attempt.claimed_at >= chrono_duration(capabilities.not_found_grace);
    if attempt.inquiry.was_accepted || !late_enough {
        return draft.keep(Why::NoNews);
    }
    let first = attempt.inquiry.not_found_at;
    let conclusive = first.is_some_and(|at| asked_at - at >= chrono_duration(capabilities.query_min_interval));
    if first.is_some() && !conclusive {
        return draft.keep(Why::NoNews);
    }
    let mut draft = draft.cause("not_found");
    if !conclusive {
        if let Some(attempt) = &mut draft.after.attempt {
            attempt.inquiry.not_found_at = Some(crate::domain::to_micros(asked_at));
        }
        return draft.ask_query().finish(EventType::AttemptUpdated);
    }
    if let Some(attempt) = &mut draft.after.attempt {
        attempt.inquiry.closed_by_not_found = true;
        attempt.inquiry.not_found_at = None;
    }
    after_conclusive_not_found(draft, capabilities.duplicates.resend_is_safe())
}

fn after_conclusive_not_found(draft: Draft<'_>, resend_is_safe: bool) -> Decision {
    if draft.before.state == State::InDoubt {
        return close_unproven(draft);
    }
    if !resend_is_safe {
        // Row 12b: a late first send could still be executed beside a second one.
        return super::deadline::into_doubt(draft, "not found, and a second send is not safe");
    }
    let fits = draft.provider().is_some_and(|p| draft.now + p.expected_service <= draft.before.deadline_at);
    if fits {
        // Row 12: the same reference again, under a new claim; it waits for its permit like a retry.
        let now = draft.now;
        wait_for_retry(draft.attempt_state(AttemptState::Prepared), now)
    } else {
        draft.attempt_state(AttemptState::Prepared).fail_unproven(Reason::DeadlineUnreachable)
    }
}

/// Row 15: after the deadline there is no retry; refund, with a case until the provider's last word.
fn close_unproven(draft: Draft<'_>) -> Decision {
    draft
        .attempt_state(AttemptState::NotExecuted)
        .resolve_case(CaseKind::InDoubt, "provider", "not found")
        .fail_unproven(Reason::DeadlinePassed)
}

impl Draft<'_> {
    fn fail_unproven(self, reason: Reason) -> Decision {
        let last_query = self
            .before
            .attempt
            .as_ref()
            .zip(self.provider())
            .map(|(attempt, provider)| attempt.claimed_at + provider.capabilities.query_retention);
        self.fail(reason)
            .open_case(CaseKind::FailedUnproven, "closed by not found alone".to_owned(), last_query)
            .finish(EventType::Failed)
    }
}

fn chrono_duration(duration: Duration) -> chrono::Duration {
    chrono::Duration::from_std(duration).unwrap_or(chrono::Duration::MAX)
}
