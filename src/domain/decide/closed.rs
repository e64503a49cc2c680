//! What is still said of an order that is closed (rows 17, 18, 22 and the end of 21). The order
//! never changes; a person hears of it.

use crate::domain::Timestamp;
use crate::domain::event::EventType;
use crate::domain::ids::ClaimId;
use crate::domain::inquiry::last_query;
use crate::domain::outcome::{QueryOutcome, Receipt, SubmitOutcome};
use crate::domain::state::{AttemptState, CaseKind, State};

use super::draft::Draft;
use super::{Decision, Dispute, Why};

/// A delivery, after the end. Repeated, it is known.
pub(super) fn succeeded(draft: Draft<'_>, number: u16, receipt: &Receipt) -> Decision {
    if draft.before.state != State::Succeeded {
        let evidence = format!("attempt {number} was delivered after the order had closed");
        return draft.case_only(CaseKind::LateSuccess, evidence);
    }
    if draft.before.is_delivered(number) {
        return Decision::Keep(Why::Known);
    }
    let evidence = format!("attempt {number} was delivered too");
    if number != draft.before.attempt_number() {
        return draft.case_only(CaseKind::DoubleSuccess, evidence);
    }
    draft
        .attempt_state(AttemptState::Succeeded)
        .provider_ref(receipt.provider_ref.as_ref())
        .open_case(CaseKind::DoubleSuccess, evidence, None)
        .ask_no_more()
        .finish(EventType::CaseOpened)
}

/// The reply to a send of an order that is closed by now.
pub(super) fn replied(draft: Draft<'_>, number: u16, claim_id: ClaimId, outcome: &SubmitOutcome) -> Decision {
    let news = match outcome {
        SubmitOutcome::Accepted { .. } => Some(AttemptState::Accepted),
        _ if draft.before.attempt.as_ref().is_none_or(|attempt| attempt.claim_id != claim_id) => None,
        _ if owned(&draft) => None,
        SubmitOutcome::NotSent(_) | SubmitOutcome::Throttled { .. } => Some(AttemptState::NotExecuted),
        SubmitOutcome::Rejected(_) => Some(AttemptState::Failed),
        SubmitOutcome::Duplicate | SubmitOutcome::Unknown(_) => Some(AttemptState::Unknown),
        SubmitOutcome::Succeeded(_) => None,
    };
    let is_about_delivered = draft.before.is_delivered(number);
    match news {
        Some(state) if !is_about_delivered => newer_attempt(draft, number, state),
        _ => Decision::Keep(Why::Known),
    }
}

/// What the provider says of an attempt of an order that is closed by now.
pub(super) fn reported(draft: Draft<'_>, number: u16, asked_at: Timestamp, outcome: &QueryOutcome) -> Decision {
    let takes_back = match outcome {
        QueryOutcome::Failed(_) => Some(CaseKind::Conflict),
        QueryOutcome::Reversed(_) => Some(CaseKind::ReversedAfterSuccess),
        QueryOutcome::Succeeded(_)
        | QueryOutcome::InProgress
        | QueryOutcome::NotFound
        | QueryOutcome::ProviderUnknown
        | QueryOutcome::NotAsked
        | QueryOutcome::Unavailable { .. }
        | QueryOutcome::Throttled { .. }
        | QueryOutcome::Banned { .. } => None,
    };
    if draft.before.state == State::Succeeded && draft.before.is_delivered(number) {
        let evidence = format!("attempt {number} had been reported delivered");
        return match takes_back {
            Some(kind) => draft.case_only(kind, evidence),
            None => Decision::Keep(Why::Known),
        };
    }
    match outcome {
        QueryOutcome::NotFound if is_last_word(&draft, number, asked_at) => draft
            .resolve_case(CaseKind::FailedUnproven, "provider", "not found at the end of what it remembers")
            .ask_no_more()
            .finish(EventType::CaseResolved),
        QueryOutcome::Failed(_) | QueryOutcome::Reversed(_) => newer_attempt(draft, number, AttemptState::Failed),
        QueryOutcome::InProgress => newer_attempt(draft, number, AttemptState::Accepted),
        QueryOutcome::ProviderUnknown if !owned(&draft) => newer_attempt(draft, number, AttemptState::Unknown),
        QueryOutcome::ProviderUnknown
        | QueryOutcome::Succeeded(_)
        | QueryOutcome::NotFound
        | QueryOutcome::NotAsked
        | QueryOutcome::Unavailable { .. }
        | QueryOutcome::Throttled { .. }
        | QueryOutcome::Banned { .. } => Decision::Keep(Why::Known),
    }
}

/// What the provider's list of a day says against a delivery that closed the order. A recharge that is not listed is
/// the provider's contradiction of its own word, as one that it calls failed afterwards.
pub(super) fn disputed(draft: Draft<'_>, number: u16, dispute: Dispute) -> Decision {
    if draft.before.state != State::Succeeded || !draft.before.is_delivered(number) {
        return Decision::Keep(Why::NotApplicable);
    }
    match dispute {
        Dispute::NotListed => {
            let evidence = format!("attempt {number} had been reported delivered, and the provider's list has it not");
            draft.case_only(CaseKind::Conflict, evidence)
        }
        Dispute::Amount(listed) if listed == draft.before.amount => Decision::Keep(Why::Known),
        Dispute::Amount(listed) => {
            let evidence = format!("ordered {}, delivered {listed} by the provider's list", draft.before.amount);
            draft.case_only(CaseKind::AmountMismatch, evidence)
        }
    }
}

/// What tells of the same contradiction, and of which a person knows more than a word that nobody confirmed.
const TOLD_ALREADY: [CaseKind; 5] = [
    CaseKind::LateSuccess,
    CaseKind::DoubleSuccess,
    CaseKind::ProviderFlipped,
    CaseKind::Conflict,
    CaseKind::ReversedAfterSuccess,
];

/// A callback contradicts what is known of an attempt, and its provider was asked about that in vain, for as long as there
/// was hope. Nobody asks any more, so a person must; also of an order that is open still, whose current attempt is
/// another one.
pub(super) fn unconfirmed(draft: Draft<'_>, number: u16) -> Decision {
    if !(1..=draft.before.attempt_number()).contains(&number) {
        return Decision::Keep(Why::NotApplicable);
    }
    if TOLD_ALREADY.iter().any(|kind| draft.before.cases & kind.bit() != 0) {
        return Decision::Keep(Why::Known);
    }
    let evidence = format!(
        "a callback about attempt {number} contradicts what is known of it, and the provider, asked for half a day, gave no \
         answer that settles it: `recharged orders show` has what the callback said"
    );
    draft.case_only(CaseKind::Unconfirmed, evidence)
}

/// Whether "not found" is what the case of a refund was kept open for: the last question about
/// an attempt that only "not found" speaks for.
fn is_last_word(draft: &Draft<'_>, number: u16, asked_at: Timestamp) -> bool {
    let Some((attempt, provider)) = draft.before.attempt.as_ref().zip(draft.provider()) else { return false };
    draft.before.state == State::Failed
        && draft.before.wake_at.is_some()
        && attempt.inquiry.closed_by_not_found
        && number == attempt.number
        && asked_at >= last_query(attempt.claimed_at, provider)
}

/// News of an attempt that was open when an older one turned out to be delivered. The question
/// that its case asks stands on while it is open.
fn newer_attempt(mut draft: Draft<'_>, number: u16, state: AttemptState) -> Decision {
    let is_current = number == draft.before.attempt_number();
    let is_news = draft.before.attempt.as_ref().is_some_and(|attempt| attempt.state != state);
    if !is_current || !is_news || !draft.before.has_open_attempt() {
        return Decision::Keep(Why::Known);
    }
    if let Some(attempt) = &mut draft.after.attempt {
        attempt.inquiry.was_accepted |= state == AttemptState::Accepted;
    }
    let draft = draft.attempt_state(state);
    let draft = if state.is_open() { draft } else { draft.ask_no_more() };
    draft.finish(EventType::AttemptUpdated)
}

fn owned(draft: &Draft<'_>) -> bool {
    draft.before.attempt.as_ref().is_some_and(|attempt| attempt.inquiry.was_accepted)
}
