//! The claim: intent before effect (row 5).

use crate::domain::event::EventType;
use crate::domain::ids::{ClaimId, ClientRef};
use crate::domain::order::{Attempt, Inquiry};
use crate::domain::policy::ProviderPolicy;
use crate::domain::state::{AttemptState, Reason, State};
use crate::faults::{Bug, is_planted};

use super::draft::Draft;
use super::{Decision, Why};

/// Row 5: the claim is committed before the first byte leaves. A call that could not end before
/// the deadline is not made: the order fails now, and its refund is early.
pub(super) fn claim(mut draft: Draft<'_>, claim_id: ClaimId) -> Decision {
    match draft.before.state {
        State::Queued | State::RetryWait => {}
        State::InFlight if is_planted(Bug::ClaimBeside) => {}
        State::AwaitingPayment
        | State::InFlight
        | State::InDoubt
        | State::Succeeded
        | State::Failed
        | State::Cancelled => return Decision::Keep(Why::Overtaken),
    }
    if draft.before.has_open_attempt() && !is_planted(Bug::ClaimBeside) {
        return Decision::Keep(Why::NotApplicable);
    }
    let Some(provider) = draft.provider() else {
        return draft.fail(Reason::NoRoute).finish(EventType::Failed);
    };
    if draft.before.wake_at.is_some_and(|wake_at| draft.now < wake_at) {
        return Decision::Keep(Why::TooEarly);
    }
    if draft.now >= draft.before.deadline_at {
        return draft.fail(Reason::DeadlinePassed).finish(EventType::Failed);
    }
    if crate::domain::plus(draft.now, provider.expected_service) > draft.before.deadline_at {
        return draft.fail(Reason::DeadlineUnreachable).finish(EventType::Failed);
    }
    let Some(attempt) = next_attempt(&draft, claim_id, provider) else {
        return draft.fail(Reason::AttemptsExhausted).finish(EventType::Failed);
    };
    draft.after.attempt = Some(attempt);
    draft.after.state = State::InFlight;
    draft.after.wake_at = None;
    draft.finish(EventType::Submitted)
}

/// The attempt that a claim begins or repeats, or `None` if the order may make no further one.
fn next_attempt(draft: &Draft<'_>, claim_id: ClaimId, provider: &ProviderPolicy) -> Option<Attempt> {
    let begin = |number| Attempt {
        number,
        state: AttemptState::Sent,
        client_ref: ClientRef::for_attempt(&draft.before.order_id, number, provider.capabilities.client_ref),
        claim_id,
        claimed_at: draft.now,
        provider_ref: None,
        inquiry: Inquiry::default(),
    };
    let Some(last) = &draft.before.attempt else { return Some(begin(1)) };
    if last.state == AttemptState::Prepared && provider.capabilities.duplicates.resend_is_safe() {
        // The same reference, to the letter: its format may have been configured anew since. Two
        // "not found" must both come after the last send, so one from before it is forgotten.
        let inquiry = Inquiry { not_found_at: None, ..last.inquiry.clone() };
        let repeated = Attempt { state: AttemptState::Sent, claim_id, claimed_at: draft.now, inquiry, ..last.clone() };
        return Some(repeated);
    }
    // An earlier send may still arrive: never a new reference beside it.
    if last.inquiry.closed_by_not_found {
        return None;
    }
    last.number.checked_add(1).map(begin)
}
