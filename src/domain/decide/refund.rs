//! What becomes of a refund that was requested. The payment side makes it; here it is known whether it has,
//! and whether money went back that nobody asked for. No state of the order depends on it.

use std::sync::Arc;

use crate::domain::Timestamp;
use crate::domain::event::EventType;
use crate::domain::state::CaseKind;
use crate::domain::transition::RefundNews;

use super::draft::Draft;
use super::{Decision, Why};

/// Row 23: the payment side says that it has refunded the order.
pub(super) fn confirmed(draft: Draft<'_>, refund_id: &Arc<str>, at: Timestamp) -> Decision {
    match &draft.before.refund_id {
        Some(known) if known == refund_id => Decision::Keep(Why::Known),
        Some(first) => {
            let evidence = format!("refund {refund_id} was confirmed, after refund {first}");
            draft.case_only(CaseKind::RefundedTwice, evidence)
        }
        None if draft.before.refund_requested => draft
            .refund_made(refund_id, at)
            .resolve_case(CaseKind::RefundUnconfirmed, "payments", "the refund was confirmed")
            .finish(EventType::RefundConfirmed),
        None => {
            let evidence = format!("refund {refund_id} was confirmed, and none was requested");
            draft
                .refund_made(refund_id, at)
                .open_case(CaseKind::UnrequestedRefund, evidence, None)
                .finish(EventType::CaseOpened)
        }
    }
}

/// Row 24: it should have been confirmed by now.
pub(super) fn overdue(draft: Draft<'_>) -> Decision {
    let is_awaited = draft.before.refund_requested && draft.before.refund_id.is_none();
    if !is_awaited || draft.before.cases & CaseKind::RefundUnconfirmed.bit() != 0 {
        return Decision::Keep(Why::Known);
    }
    draft
        .refund_news(RefundNews::Overdue)
        .open_case(
            CaseKind::RefundUnconfirmed,
            "the payment side has not confirmed the refund in time".to_owned(),
            None,
        )
        .finish(EventType::CaseOpened)
}
