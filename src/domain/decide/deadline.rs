//! What happens at the deadline (rows 13 and 14). Refund or doubt: never a guess.

use std::time::Duration;

use crate::domain::event::EventType;
use crate::domain::policy::OnUnknown;
use crate::domain::state::{AttemptState, CaseKind, Reason, Sla, State};
use crate::faults::{Bug, is_planted};

use super::draft::Draft;
use super::{Decision, Why};

/// Rows 13 and 14.
pub(super) fn deadline(draft: Draft<'_>) -> Decision {
    let ahead = Duration::from_secs(u64::from(is_planted(Bug::DeadlineTooEarly)));
    if crate::domain::plus(draft.now, ahead) < draft.before.deadline_at {
        return Decision::Keep(Why::TooEarly);
    }
    match draft.before.state {
        State::AwaitingPayment => draft.close(State::Cancelled, Some(Reason::Unpaid)).finish(EventType::Cancelled),
        State::Queued | State::RetryWait => draft.fail(Reason::DeadlinePassed).finish(EventType::Failed),
        State::InFlight if is_planted(Bug::RefundTheUnknown) => {
            draft.attempt_state(AttemptState::Failed).fail(Reason::DeadlinePassed).finish(EventType::Failed)
        }
        State::InFlight => into_doubt(draft, "deadline passed with an open attempt"),
        // Came into doubt before its deadline: what the deadline decides is decided now.
        State::InDoubt if draft.before.sla.is_none() => miss(draft).finish(EventType::InDoubt),
        State::InDoubt | State::Succeeded | State::Failed | State::Cancelled => Decision::Keep(Why::Known),
    }
}

/// Row 14 (and 12b): an open attempt that cannot be closed honestly becomes a case.
pub(super) fn into_doubt(mut draft: Draft<'_>, why: &str) -> Decision {
    draft.after.state = State::InDoubt;
    let draft = draft.ask_query();
    let next_query_at = draft.after.wake_at;
    let draft = draft.open_case(CaseKind::InDoubt, why.to_owned(), next_query_at);
    let draft = if draft.now >= draft.after.deadline_at { miss(draft) } else { draft };
    draft.finish(EventType::InDoubt)
}

/// The deadline has passed in doubt: counted once, and refunded where the policy says so.
fn miss(mut draft: Draft<'_>) -> Draft<'_> {
    draft.after.sla = draft.after.sla.or(Some(Sla::Missed));
    match draft.policy.on_unknown {
        OnUnknown::Hold => draft,
        OnUnknown::RefundFlagged => draft.refund(Reason::DeadlinePassed),
    }
}
