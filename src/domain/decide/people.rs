//! What people decide (row 16). Every decision carries a name and its evidence.

use crate::domain::event::EventType;
use crate::domain::state::{AttemptState, CaseKind, Reason, State};

use super::draft::Draft;
use super::{Decision, Why};

/// Row 16: a person settles an order in doubt.
pub(super) fn resolved(draft: Draft<'_>, succeeded: bool, by: &str, evidence: &str) -> Decision {
    if draft.before.state != State::InDoubt {
        return Decision::Keep(Why::NotApplicable);
    }
    let draft = draft.decided_by(by, evidence).resolve_case(CaseKind::InDoubt, by, evidence);
    if succeeded {
        let draft = draft.attempt_state(AttemptState::Succeeded).close(State::Succeeded, None);
        return draft.finish(EventType::Succeeded);
    }
    draft.attempt_state(AttemptState::WrittenOff).fail(Reason::ResolvedByOperator).finish(EventType::Failed)
}

/// A person has dealt with what a case is about. An order in doubt is not one of those: its case
/// ends with its doubt.
pub(super) fn case_closed(draft: Draft<'_>, kind: CaseKind, by: &str, evidence: &str) -> Decision {
    let is_the_doubt = kind == CaseKind::InDoubt && draft.before.state == State::InDoubt;
    if is_the_doubt || draft.before.cases & kind.bit() == 0 {
        return Decision::Keep(Why::NotApplicable);
    }
    let draft = draft.cause(kind.as_str()).decided_by(by, evidence).resolve_case(kind, by, evidence);
    // Its one question comes only for the case's sake.
    let draft = if kind == CaseKind::FailedUnproven { draft.ask_no_more() } else { draft };
    draft.finish(EventType::CaseResolved)
}
