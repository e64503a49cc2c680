//! An order that its lane cannot serve now, and another may.

use crate::domain::Timestamp;
use crate::domain::event::EventType;
use crate::domain::state::{AttemptState, State};

use super::draft::Draft;
use super::{Decision, Why, attempt};

/// The lane takes no order: into the next one that does.
pub(super) fn lane_shut(draft: Draft<'_>) -> Decision {
    go_on(draft, "lane_shut")
}

/// Its provider has just recharged the number for another order, and takes it again later. Nothing of this one was sent to
/// be told from that: where a call could not end in time by then, the next lane may try. Else it waits here.
pub(super) fn number_cools(draft: Draft<'_>, until: Timestamp) -> Decision {
    let fits = |service| crate::domain::plus(until, service) <= draft.before.deadline_at;
    if draft.provider().is_some_and(|provider| fits(provider.expected_service)) {
        return Decision::Keep(Why::TooEarly);
    }
    go_on(draft, "number_cools")
}

/// Into the next lane of its route that takes orders, if nothing of it is open where it was.
fn go_on(draft: Draft<'_>, cause: &str) -> Decision {
    match draft.before.state {
        State::Queued | State::RetryWait => {}
        State::AwaitingPayment
        | State::InFlight
        | State::InDoubt
        | State::Succeeded
        | State::Failed
        | State::Cancelled => return Decision::Keep(Why::Overtaken),
    }
    let Some(lane) = attempt::next_lane(&draft).filter(|_| !draft.before.has_open_attempt()) else {
        return Decision::Keep(Why::NotApplicable);
    };
    let draft = draft.cause(cause);
    if draft.before.state == State::Queued {
        return draft.into_lane(lane).ask_submit(None).finish(EventType::Queued);
    }
    // Its reference was never used, or had no effect, and is not used elsewhere.
    let was_prepared = draft.before.attempt.as_ref().is_some_and(|attempt| attempt.state == AttemptState::Prepared);
    let draft = if was_prepared { draft.attempt_state(AttemptState::NotExecuted) } else { draft };
    attempt::try_lane(draft, lane)
}
