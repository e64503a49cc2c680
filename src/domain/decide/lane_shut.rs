//! An order whose lane takes none for now, and which another may serve.

use crate::domain::event::EventType;
use crate::domain::state::{AttemptState, State};

use super::draft::Draft;
use super::{Decision, Why, attempt};

/// Into the next lane of its route that takes orders, if nothing of it is open where it was.
pub(super) fn lane_shut(draft: Draft<'_>) -> Decision {
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
    let draft = draft.cause("lane_shut");
    if draft.before.state == State::Queued {
        return draft.into_lane(lane).ask_submit(None).finish(EventType::Queued);
    }
    // Its reference was never used, or had no effect, and is not used elsewhere.
    let was_prepared = draft.before.attempt.as_ref().is_some_and(|attempt| attempt.state == AttemptState::Prepared);
    let draft = if was_prepared { draft.attempt_state(AttemptState::NotExecuted) } else { draft };
    attempt::try_lane(draft, lane)
}
