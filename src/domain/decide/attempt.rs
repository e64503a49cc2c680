//! Attempts: the reply to a send, and what the provider says when asked (rows 6–11, 20, 21).

use std::time::Duration;

use crate::domain::event::EventType;
use crate::domain::ids::{ClaimId, ProviderId};
use crate::domain::order::Order;
use crate::domain::outcome::{Failure, FailureClass, NotSentCause, QueryOutcome, Receipt, RetryAdvice, SubmitOutcome};
use crate::domain::state::{AttemptState, CaseKind, Reason, State};
use crate::domain::{Timestamp, retry};
use crate::faults::{Bug, is_planted};

use super::draft::{self, Draft};
use super::{Decision, Why, closed, not_found};

/// Rows 6–11: the reply to a send. "No effect", "refused" and "unknown" count only for the call
/// that holds the claim: a settlement whose commit reply was lost would otherwise hit the next
/// claim of the same attempt. "Delivered" and "accepted" hold by reference.
pub(super) fn submit_reply(mut draft: Draft<'_>, number: u16, claim_id: ClaimId, outcome: &SubmitOutcome) -> Decision {
    let Some(attempt) = draft.before.attempt.as_ref().filter(|attempt| (1..=attempt.number).contains(&number)) else {
        return Decision::Keep(Why::NotApplicable);
    };
    if let SubmitOutcome::Succeeded(receipt) = outcome {
        return succeeded(draft, number, receipt);
    }
    if number != attempt.number {
        return Decision::Keep(Why::Overtaken);
    }
    draft.has_left = attempt.claim_id == claim_id;
    if draft.before.state.is_closed() {
        return closed::replied(draft, number, claim_id, outcome);
    }
    if let SubmitOutcome::Accepted { provider_ref } = outcome {
        return accepted(draft, provider_ref.as_ref());
    }
    let is_its_claim = attempt.claim_id == claim_id || is_planted(Bug::WhoseClaim);
    if !is_its_claim || !attempt.state.is_open() {
        return Decision::Keep(Why::Overtaken);
    }
    // Once the provider has said that it owns the reference (of an earlier claim, perhaps), what
    // became of this one call closes nothing: only its verdict on the reference does.
    let closes_nothing = attempt.inquiry.was_accepted || attempt.inquiry.earlier_suspected;
    match outcome {
        SubmitOutcome::Unknown(cause) if is_planted(Bug::TimeOutIsFailure) => {
            end_undelivered(draft.cause(cause.as_str()), AttemptState::Failed, Reason::ProviderDeclined, "time-out")
        }
        SubmitOutcome::Unknown(_) if is_planted(Bug::ResendTheUnknown) => {
            let now = draft.now;
            wait_for_retry(draft.attempt_state(AttemptState::Prepared), now)
        }
        SubmitOutcome::Duplicate => unknown(draft.cause("duplicate"), true),
        SubmitOutcome::Unknown(cause) => unknown(draft.cause(cause.as_str()), false),
        _ if closes_nothing => Decision::Keep(Why::NoNews),
        SubmitOutcome::Rejected(failure) if speaks_of_earlier_send(&draft, failure) => {
            unknown(draft.cause(&failure.code), false)
        }
        SubmitOutcome::Rejected(failure) => refused(draft, failure),
        SubmitOutcome::NotSent(NotSentCause::Unbuildable) => {
            // It would not be built the next time either: another lane, or the money goes back now.
            let draft = draft.cause(NotSentCause::Unbuildable.as_str());
            if let Some(lane) = next_lane(&draft).filter(|_| draft.before.state == State::InFlight) {
                return try_lane(draft.attempt_state(AttemptState::NotExecuted), lane);
            }
            end_undelivered(draft, AttemptState::NotExecuted, Reason::NoRoute, "not sent")
        }
        SubmitOutcome::NotSent(cause) => {
            // Nobody is there: another provider may be. For want of a permit or of time of ours, none would do better.
            let is_away = *cause == NotSentCause::Connect;
            no_effect(draft.cause(cause.as_str()), Duration::ZERO, is_away)
        }
        SubmitOutcome::Throttled { retry_after } => {
            no_effect(draft.cause("throttled"), retry_after.unwrap_or(Duration::ZERO), false)
        }
        SubmitOutcome::Succeeded(_) | SubmitOutcome::Accepted { .. } => Decision::Keep(Why::Known),
    }
}

/// Rows 8b–12b, 15, 17, 18, 21: what the provider says of an attempt. It holds by reference, so
/// it also reaches an attempt that waits to be sent again under the same one.
pub(super) fn reported(draft: Draft<'_>, number: u16, asked_at: Timestamp, outcome: &QueryOutcome) -> Decision {
    let Some(attempt) = draft.before.attempt.as_ref().filter(|attempt| (1..=attempt.number).contains(&number)) else {
        return Decision::Keep(Why::NotApplicable);
    };
    if let QueryOutcome::Succeeded(receipt) = outcome {
        return succeeded(draft, number, receipt);
    }
    if draft.before.state.is_closed() {
        return closed::reported(draft, number, asked_at, outcome);
    }
    if number != attempt.number || !(attempt.state.is_open() || attempt.state == AttemptState::Prepared) {
        return Decision::Keep(Why::Known);
    }
    let suspected = attempt.inquiry.earlier_suspected;
    match outcome {
        QueryOutcome::InProgress => accepted(draft, None),
        QueryOutcome::ProviderUnknown => unknown(draft.cause("provider_unknown"), true),
        QueryOutcome::NotAsked
        | QueryOutcome::Unavailable { .. }
        | QueryOutcome::Throttled { .. }
        | QueryOutcome::Banned { .. } => Decision::Keep(Why::NoNews),
        _ if suspected => Decision::Keep(Why::NoNews),
        QueryOutcome::Failed(failure) => refused(draft, failure),
        QueryOutcome::Reversed(_) => {
            end_undelivered(draft, AttemptState::Failed, Reason::Reversed, "taken back by the provider")
        }
        QueryOutcome::NotFound if attempt.state.is_open() => not_found::not_found(draft, asked_at),
        QueryOutcome::NotFound | QueryOutcome::Succeeded(_) => Decision::Keep(Why::Known),
    }
}

/// Row 20: nobody waits for the answer any more.
pub(super) fn caller_lost(draft: Draft<'_>) -> Decision {
    match draft.before.attempt.as_ref().map(|attempt| attempt.state) {
        Some(AttemptState::Sent) if !draft.before.state.is_closed() => unknown(draft.cause("caller_lost"), false),
        _ => Decision::Keep(Why::NotApplicable),
    }
}

/// Row 7: the provider owns it, by its reply or by saying that it is at it. An attempt that
/// "not found" had closed, and that waits to be sent again, is in flight after all.
fn accepted(mut draft: Draft<'_>, provider_ref: Option<&String>) -> Decision {
    let Some(attempt) = &mut draft.after.attempt else { return Decision::Keep(Why::NotApplicable) };
    match attempt.state {
        AttemptState::Sent | AttemptState::Unknown | AttemptState::Prepared => {}
        AttemptState::Accepted => {
            // A callback can bring the news before the reply brings the provider's reference.
            let is_news = provider_ref
                .is_some_and(|told| attempt.provider_ref != Some(draft::bounded(told, draft::MAX_PROVIDER_REF)));
            if !is_news {
                return Decision::Keep(Why::Known);
            }
            return draft.provider_ref(provider_ref).finish(EventType::AttemptUpdated);
        }
        AttemptState::Succeeded | AttemptState::Failed | AttemptState::NotExecuted | AttemptState::WrittenOff => {
            return Decision::Keep(Why::Known);
        }
    }
    attempt.inquiry.was_accepted = true;
    attempt.state = AttemptState::Accepted;
    back_in_flight(draft.provider_ref(provider_ref)).ask_query().finish(EventType::AttemptUpdated)
}

/// Row 8: a time-out is not a failure. The attempt stays open until the provider has spoken.
/// `is_known` says that the provider knows the reference: "not found" can then close it no more.
fn unknown(mut draft: Draft<'_>, is_known: bool) -> Decision {
    let Some(attempt) = &mut draft.after.attempt else { return Decision::Keep(Why::NotApplicable) };
    let learned = is_known && !attempt.inquiry.was_accepted;
    attempt.inquiry.was_accepted |= is_known;
    match attempt.state {
        AttemptState::Sent | AttemptState::Prepared => {
            attempt.state = AttemptState::Unknown;
            back_in_flight(draft).ask_query().finish(EventType::AttemptUpdated)
        }
        AttemptState::Unknown if learned => draft.finish(EventType::AttemptUpdated),
        AttemptState::Unknown
        | AttemptState::Accepted
        | AttemptState::Succeeded
        | AttemptState::Failed
        | AttemptState::NotExecuted
        | AttemptState::WrittenOff => Decision::Keep(Why::NoNews),
    }
}

fn back_in_flight(mut draft: Draft<'_>) -> Draft<'_> {
    if draft.after.state == State::RetryWait {
        draft.after.state = State::InFlight;
    }
    draft
}

/// Row 6: the send provably had no effect. The same reference where that is safe, else a new
/// one. It costs no attempt. Where the provider `is_away`, or would have it wait too long, the next lane is tried.
fn no_effect(draft: Draft<'_>, at_least: Duration, is_away: bool) -> Decision {
    let ended = AttemptState::NotExecuted;
    let Some(provider) = draft.provider() else {
        return end_undelivered(draft, ended, Reason::NoRoute, "not sent, and its lane is gone");
    };
    if draft.before.state == State::InDoubt {
        let passed = draft.now >= draft.before.deadline_at;
        let reason = if passed { Reason::DeadlinePassed } else { Reason::AttemptsExhausted };
        return end_undelivered(draft, ended, reason, "not sent");
    }
    let same_ref = provider.capabilities.duplicates.resend_is_safe();
    let wake = wake_of_retry(&draft, at_least, false);
    if (is_away || wake.is_none())
        && let Some(lane) = next_lane(&draft)
    {
        return try_lane(draft.attempt_state(ended), lane);
    }
    match wake {
        Some(wake_at) => {
            wait_for_retry(draft.attempt_state(if same_ref { AttemptState::Prepared } else { ended }), wake_at)
        }
        None => end_undelivered(draft, ended, Reason::DeadlineUnreachable, "not sent"),
    }
}

/// The back-off grows with the attempts that were made, whoever was at fault.
fn wake_of_retry(draft: &Draft<'_>, at_least: Duration, is_last: bool) -> Option<Timestamp> {
    let Order { order_id, deadline_at, .. } = draft.before;
    let tries = draft.before.attempt_number();
    let next = retry::Next { order_id, deadline_at: *deadline_at, tries, at_least, is_last };
    retry::next_wake(next, draft.now, draft.policy, draft.provider()?)
}

/// The lane that may try an order after this one has done nothing. What "not found" closed once stays where it is: its
/// send may still arrive.
pub(super) fn next_lane<'a>(draft: &Draft<'a>) -> Option<&'a ProviderId> {
    let is_bound = draft.before.attempt.as_ref().is_some_and(|attempt| attempt.inquiry.closed_by_not_found);
    if is_bound { None } else { draft.policy.next_lane(draft.before, draft.now) }
}

/// At once: it has waited for another lane already.
pub(super) fn try_lane(draft: Draft<'_>, lane: &ProviderId) -> Decision {
    let now = draft.now;
    wait_for_retry(draft.into_lane(lane), now)
}

pub(super) fn wait_for_retry(mut draft: Draft<'_>, wake_at: Timestamp) -> Decision {
    draft.after.state = State::RetryWait;
    draft.ask_submit(Some(wake_at)).finish(EventType::RetryScheduled)
}

/// Rows 10 and 11: the provider says no.
fn refused(draft: Draft<'_>, failure: &Failure) -> Decision {
    let mut draft = draft.cause(&failure.code);
    if failure.class == FailureClass::CooldownActive && has_earlier(&draft) {
        return suspect_earlier(draft);
    }
    let after_wait = match failure.advice {
        // Of another order's recharge, and over after a known time.
        RetryAdvice::Never if failure.class == FailureClass::CooldownActive => {
            draft.provider().and_then(|provider| provider.capabilities.same_number_cooldown)
        }
        RetryAdvice::Never => None,
        RetryAdvice::NewAttempt { after } => Some(after),
        RetryAdvice::AfterOperatorAction => Some(Duration::ZERO),
    };
    // What "not found" closed once gets no new reference, and after the deadline nothing does.
    let bound_to_ref = draft.before.attempt.as_ref().is_some_and(|a| a.inquiry.closed_by_not_found);
    let last = draft.before.state == State::InDoubt || bound_to_ref;
    // What we must mend ourselves is no fault of the order, and costs it no attempt: it is tried
    // again until its deadline.
    let counts = failure.advice != RetryAdvice::AfterOperatorAction;
    let declined = draft.before.declined.saturating_add(u16::from(counts));
    let may_retry = !counts || declined < draft.policy.max_attempts;
    if !last
        && may_retry
        && others_may_do_better(failure.class)
        && let Some(lane) = next_lane(&draft)
    {
        draft.after.declined = declined;
        return try_lane(draft.attempt_state(AttemptState::Failed), lane);
    }
    let Some(after_wait) = after_wait.filter(|_| !last) else {
        return end_undelivered(draft, AttemptState::Failed, reason_of(failure.class), "not delivered");
    };
    draft.after.declined = declined;
    // An order that was declined once only has its one retry soon: most are mended by it.
    let is_last = counts && draft.after.declined > 1 && draft.after.declined + 1 == draft.policy.max_attempts;
    match wake_of_retry(&draft, after_wait, is_last).filter(|_| may_retry) {
        Some(wake_at) => wait_for_retry(draft.attempt_state(AttemptState::Failed), wake_at),
        None => end_undelivered(draft, AttemptState::Failed, Reason::AttemptsExhausted, "not delivered"),
    }
}

/// Whether a refusal is about the provider, or what it sells and to whom; not about the number itself.
fn others_may_do_better(class: FailureClass) -> bool {
    match class {
        FailureClass::AmountNotAllowed
        | FailureClass::LimitReached
        | FailureClass::OperatorUnavailable
        | FailureClass::InsufficientFloat
        | FailureClass::AuthOrConfig
        | FailureClass::ProviderDeclared => true,
        // Cooling down: somebody has just recharged that number, for all we know by this very order.
        FailureClass::CooldownActive
        | FailureClass::InvalidRecipient
        | FailureClass::RecipientBarred
        | FailureClass::Cancelled => false,
    }
}

/// Whether a resend was refused because of what an earlier send of the same reference did.
fn speaks_of_earlier_send(draft: &Draft<'_>, failure: &Failure) -> bool {
    let was_sent_before = draft.before.attempt.as_ref().is_some_and(|a| a.inquiry.closed_by_not_found);
    failure.class == FailureClass::CooldownActive && was_sent_before && !has_earlier(draft)
}

/// Whether the provider has declined an attempt before the current one, which then may have been delivered all the same.
/// A higher number alone does not say so: where a reference cannot be sent again, a send that never left, or that was
/// refused for its pace, moves the number too. Nor does a refusal that was about our account.
fn has_earlier(draft: &Draft<'_>) -> bool {
    draft.before.attempt_number() > 1 && draft.before.declined > 0
}

/// "Recharged a moment ago" about a later attempt speaks of an earlier one, which then was
/// delivered: a refund would give the money and the credit, a retry a second credit. The truth
/// lies with an attempt that no command asks about, so a person hears of it now, and only a
/// delivery or a person closes the order.
fn suspect_earlier(mut draft: Draft<'_>) -> Decision {
    if let Some(attempt) = &mut draft.after.attempt {
        attempt.inquiry.earlier_suspected = true;
        attempt.state = AttemptState::Unknown;
    }
    if draft.before.state == State::InDoubt {
        return draft.finish(EventType::AttemptUpdated);
    }
    super::deadline::into_doubt(draft, "recharged a moment ago: an earlier attempt may have been delivered")
}

/// The attempt is closed without a delivery, and the order with it.
pub(super) fn end_undelivered(draft: Draft<'_>, attempt: AttemptState, reason: Reason, told: &str) -> Decision {
    let doubted = draft.before.state == State::InDoubt;
    let draft = draft.attempt_state(attempt).fail(reason);
    let draft = if doubted { draft.resolve_case(CaseKind::InDoubt, "provider", told) } else { draft };
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
fn succeeded(mut draft: Draft<'_>, number: u16, receipt: &Receipt) -> Decision {
    match draft.before.state {
        State::Succeeded | State::Failed | State::Cancelled => return closed::succeeded(draft, number, receipt),
        State::AwaitingPayment => return Decision::Keep(Why::NotApplicable),
        State::Queued | State::RetryWait | State::InFlight | State::InDoubt => {}
    }
    let was_open = draft.before.has_open_attempt();
    let is_current = number == draft.before.attempt_number();
    if is_current {
        draft = draft.attempt_state(AttemptState::Succeeded).provider_ref(receipt.provider_ref.as_ref());
    } else if let Some(attempt) = &mut draft.after.attempt {
        attempt.inquiry.delivered_by = Some(number);
    }
    let doubted = draft.before.state == State::InDoubt;
    draft = draft.close(State::Succeeded, None);
    if doubted {
        draft = draft.resolve_case(CaseKind::InDoubt, "provider", "delivered");
    }
    if !is_current || !was_open {
        // Row 21: an attempt that had been called closed was delivered. A newer one that is open
        // may be too: the case goes on asking about it.
        let ask_newer = was_open.then_some(draft.now);
        let evidence = format!("attempt {number} had been called closed, and was delivered");
        draft = draft.open_case(CaseKind::ProviderFlipped, evidence, ask_newer);
        if let Some(at) = ask_newer {
            draft = draft.ask_query_at(at);
        }
    }
    if draft.before.refund_requested {
        draft = draft.open_case(CaseKind::LateSuccess, "delivered after its refund was requested".to_owned(), None);
    }
    if receipt.delivered.is_some_and(|delivered| delivered != draft.before.amount) {
        let evidence = format!("ordered {}, delivered another amount", draft.before.amount);
        draft = draft.open_case(CaseKind::AmountMismatch, evidence, None);
    }
    draft.finish(EventType::Succeeded)
}
