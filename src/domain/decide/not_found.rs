//! "Not found" (rows 12, 12b, 15): the weakest answer of all.

use std::time::Duration;

use crate::domain::event::EventType;
use crate::domain::state::{AttemptState, Reason, State};
use crate::domain::{Timestamp, to_micros};
use crate::faults::{Bug, is_planted};

use super::attempt::{end_undelivered, wait_for_retry};
use super::draft::Draft;
use super::{Decision, Why};

/// The provider does not know the reference. That proves something only when it was asked late
/// enough, twice, and the provider never said that it had it. What is proven then is that the
/// last claim had no effect so far; no more, since bytes can be late.
pub(super) fn not_found(mut draft: Draft<'_>, asked_at: Timestamp) -> Decision {
    // Without its provider's terms nobody can say what the answer is worth; the attempt stays
    // open, and the deadline makes it a case.
    let Some(provider) = draft.provider() else { return Decision::Keep(Why::NoNews) };
    let Some(attempt) = &draft.before.attempt else { return Decision::Keep(Why::NotApplicable) };
    let capabilities = &provider.capabilities;
    let asked_at = to_micros(asked_at).min(draft.now);
    let telling = provider.after_send(attempt.claimed_at, capabilities.not_found_grace);
    if attempt.inquiry.was_accepted || asked_at < telling {
        return Decision::Keep(Why::NoNews);
    }
    let Some(first) = attempt.inquiry.not_found_at else {
        if let Some(attempt) = &mut draft.after.attempt {
            attempt.inquiry.not_found_at = Some(asked_at);
        }
        return draft.cause("not_found").ask_query().finish(EventType::AttemptUpdated);
    };
    if !is_at_least(capabilities.query_min_interval, first, asked_at) || asked_at == first {
        return Decision::Keep(Why::NoNews);
    }
    let resend_is_safe = capabilities.duplicates.resend_is_safe();
    let was_closed_before = attempt.inquiry.closed_by_not_found;
    let in_doubt = draft.before.state == State::InDoubt;
    if in_doubt && ((resend_is_safe && was_closed_before) || draft.now < draft.before.deadline_at) {
        // Sent again after an earlier "not found": from then on only the provider's final verdict
        // closes the attempt. And what came into doubt early has until its deadline to be found.
        return Decision::Keep(Why::NoNews);
    }
    if let Some(attempt) = &mut draft.after.attempt {
        attempt.inquiry.closed_by_not_found = !is_planted(Bug::ForgetNotFound);
        attempt.inquiry.not_found_at = Some(asked_at);
    }
    let draft = draft.cause("not_found");
    if in_doubt {
        // Row 15: no retry after the deadline; a refund, with a case until the provider's last word.
        return end_undelivered(draft, AttemptState::NotExecuted, Reason::DeadlinePassed, "not found");
    }
    if !resend_is_safe {
        // Row 12b: a late first send could still be executed beside a second one.
        return super::deadline::into_doubt(draft, "not found, and a second send is not safe");
    }
    if crate::domain::plus(draft.now, provider.expected_service) > draft.before.deadline_at {
        return end_undelivered(draft, AttemptState::NotExecuted, Reason::DeadlineUnreachable, "not found");
    }
    // Row 12: the same reference again, under a new claim; it waits for its permit like a retry.
    let now = draft.now;
    wait_for_retry(draft.attempt_state(AttemptState::Prepared), now)
}

fn is_at_least(wait: Duration, from: Timestamp, to: Timestamp) -> bool {
    (to - from).to_std().is_ok_and(|passed| passed >= wait)
}
