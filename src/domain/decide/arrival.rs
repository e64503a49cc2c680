//! What the shop says: an order, its payment, its cancellation (rows 1–3).

use std::sync::Arc;
use std::time::Duration;

use crate::domain::event::EventType;
use crate::domain::ids::ProviderId;
use crate::domain::order::{NewOrder, Order};
use crate::domain::policy::Policy;
use crate::domain::state::{CaseKind, Reason, State};
use crate::domain::{Timestamp, notification};

use super::draft::Draft;
use super::{Decision, Why};

/// Row 1: a new order. Money that came in is kept even where the order is hopeless, so a paid one
/// with an unusable number, without a route or past its deadline is stored, failed and refunded.
pub(super) fn arrived(
    new: &NewOrder,
    verdict: &Result<ProviderId, Reason>,
    now: Timestamp,
    policy: &Policy,
) -> Decision {
    let deadline_at = match new.paid_at {
        Some(paid_at) => deadline_of(paid_at, now, policy.sla),
        None => deadline_of(new.created_at, now, policy.unpaid_timeout),
    };
    let blank = Order {
        order_id: new.order_id.clone(),
        version: 0,
        state: State::AwaitingPayment,
        asked_version: 0,
        recipient: new.recipient.clone(),
        amount: new.amount,
        carrier: None,
        created_at: crate::domain::to_micros(new.created_at),
        paid_at: new.paid_at.map(crate::domain::to_micros),
        payment_id: None,
        notify: new.notify,
        metadata: None,
        deadline_at,
        provider: None,
        attempt: None,
        declined: 0,
        wake_at: None,
        reason: None,
        sla: None,
        closed_at: None,
        refund_requested: false,
        refund_id: None,
        cases: 0,
    };
    let mut draft = Draft::for_arrival(&blank, now, policy).notify_at(notification::due_at(new, now, policy));
    // Not in the blank order, from which they would be copied once more.
    draft.after.carrier.clone_from(&new.carrier);
    draft.after.payment_id.clone_from(&new.payment_id);
    draft.after.metadata.clone_from(&new.metadata);
    let decision = if new.paid_at.is_some() {
        pay(draft, verdict)
    } else if now >= blank.deadline_at {
        draft.close(State::Cancelled, Some(Reason::Unpaid)).finish(EventType::Cancelled)
    } else {
        draft.finish(EventType::Accepted)
    };
    with_phone_hash(decision, new.phone_hash.as_ref())
}

/// `wait` after what the shop says it did. A shop whose clock runs ahead does not buy itself time.
fn deadline_of(told: Timestamp, now: Timestamp, wait: Duration) -> Timestamp {
    crate::domain::plus(told.min(now), wait)
}

fn with_phone_hash(decision: Decision, hash: Option<&Arc<str>>) -> Decision {
    let Decision::Apply(mut transition) = decision else { return decision };
    if let Some(facts) = &mut transition.event.data.facts {
        facts.phone_hash = hash.cloned();
    }
    Decision::Apply(transition)
}

/// The order is paid now: into its lane, or to its honest end.
fn pay(draft: Draft<'_>, verdict: &Result<ProviderId, Reason>) -> Decision {
    if draft.now >= draft.after.deadline_at {
        return draft.fail(Reason::DeadlinePassed).finish(EventType::Failed);
    }
    match verdict {
        Ok(lane) => {
            let mut draft = draft;
            draft.after.state = State::Queued;
            draft.after.provider = Some(lane.clone());
            draft.ask_submit(None).finish(EventType::Queued)
        }
        Err(reason) => draft.fail(*reason).finish(EventType::Failed),
    }
}

/// Row 2: an order id that is known. The first stands; another phone, amount or currency under
/// the same id is something for a person. The same order, now paid, is its payment.
pub(super) fn arrived_again(draft: Draft<'_>, new: &NewOrder, verdict: &Result<ProviderId, Reason>) -> Decision {
    if !draft.before.same_payload(new) {
        let evidence = format!("came again as {}, first {}", new.amount, draft.before.amount);
        return draft.case_only(CaseKind::PayloadConflict, evidence);
    }
    match new.paid_at {
        Some(paid_at) => paid(draft, paid_at, new.payment_id.as_ref(), verdict),
        None => Decision::Keep(Why::Known),
    }
}

/// The payment of an order that arrived unpaid. After a cancellation it is refunded, never
/// recharged. A second payment is money that nobody ordered anything for: a person must look.
pub(super) fn paid(
    draft: Draft<'_>,
    paid_at: Timestamp,
    payment_id: Option<&Arc<str>>,
    verdict: &Result<ProviderId, Reason>,
) -> Decision {
    if draft.before.paid_at.is_some() {
        return match (&draft.before.payment_id, payment_id) {
            (Some(first), Some(second)) if first != second => {
                draft.case_only(CaseKind::PayloadConflict, "paid again, under another payment id".to_owned())
            }
            _ => Decision::Keep(Why::Known),
        };
    }
    let mut draft = draft;
    draft.after.paid_at = Some(crate::domain::to_micros(paid_at));
    if payment_id.is_some() {
        draft.after.payment_id = payment_id.cloned();
    }
    match draft.before.state {
        State::AwaitingPayment => {
            draft.after.deadline_at = deadline_of(paid_at, draft.now, draft.policy.sla);
            pay(draft, verdict)
        }
        // The state stays cancelled; the entry repeats it, with the refund.
        State::Cancelled => {
            draft.refund(Reason::PaidAfterCancel).cause(Reason::PaidAfterCancel.as_str()).finish(EventType::Cancelled)
        }
        State::Queued | State::InFlight | State::RetryWait | State::InDoubt | State::Succeeded | State::Failed => {
            Decision::Keep(Why::NotApplicable)
        }
    }
}

/// Before payment an order can be cancelled; after it the wish is refused, openly and once,
/// however often it is repeated (row 19).
pub(super) fn cancel_requested(draft: Draft<'_>) -> Decision {
    match draft.before.state {
        State::AwaitingPayment => {
            draft.close(State::Cancelled, Some(Reason::CancelledUpstream)).finish(EventType::Cancelled)
        }
        State::Cancelled => Decision::Keep(Why::Known),
        State::Queued | State::InFlight | State::RetryWait | State::InDoubt | State::Succeeded | State::Failed => {
            if draft.before.cases & Order::CANCEL_REFUSED != 0 {
                return Decision::Keep(Why::Known);
            }
            let mut draft = draft;
            draft.after.cases |= Order::CANCEL_REFUSED;
            draft.finish(EventType::CancelRefused)
        }
    }
}
