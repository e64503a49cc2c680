//! The one function that moves an order.
//!
//! `docs/STATE_MACHINE.md` has the table whose rows the comments here name. A caller loads the
//! row, calls [`decide`], and writes the [`Transition`] fenced by its version; if it loses the
//! fence it loads again and decides again.

mod arrival;
mod attempt;
mod claim;
mod closed;
mod deadline;
mod draft;
mod elsewhere;
mod not_found;
mod people;
mod refund;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use draft::Draft;

use super::Timestamp;
use super::ids::{ClaimId, ProviderId};
use super::money::Money;
use super::order::{NewOrder, Order};
use super::outcome::{QueryOutcome, SubmitOutcome};
use super::policy::Policy;
use super::state::{CaseKind, Reason};
use super::transition::Transition;

/// What happened, or what somebody wants to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The shop told of an order.
    Arrived {
        /// What it said.
        new: Box<NewOrder>,
        /// The lane that would serve it, or why none can.
        verdict: Result<ProviderId, Reason>,
    },
    /// The shop told of its payment.
    Paid {
        /// When.
        paid_at: Timestamp,
        /// The payment.
        payment_id: Option<Arc<str>>,
        /// The lane that would serve it, or why none can.
        verdict: Result<ProviderId, Reason>,
    },
    /// The shop wants it cancelled.
    CancelRequested,
    /// Dispatch holds a permit and wants to send.
    Claim {
        /// The new claim.
        claim_id: ClaimId,
    },
    /// The lane that an order waits in takes none for now.
    LaneShut,
    /// The provider of the lane that it waits in takes its number only from then on, since that was recharged for another
    /// order a moment ago.
    NumberCools {
        /// From when on.
        until: Timestamp,
    },
    /// What became of a send.
    SubmitReply {
        /// The attempt that was sent: a delivery counts for its reference, even where a later
        /// attempt has a claim of its own by now.
        attempt: u16,
        /// The claim under which it was sent.
        claim_id: ClaimId,
        /// What the provider or the wire said.
        outcome: SubmitOutcome,
    },
    /// What the provider said when asked, or in a verified callback.
    Reported {
        /// About which attempt.
        attempt: u16,
        /// When the question left; "not found" is judged by it.
        asked_at: Timestamp,
        /// What it said.
        outcome: QueryOutcome,
    },
    /// What a provider's own list of a day says against a delivery that it had told us of. (What the list says of
    /// an attempt's end is [`Input::Reported`], like any other word of the provider.)
    Disputed {
        /// About which attempt.
        attempt: u16,
        /// What it says.
        dispute: Dispute,
    },
    /// What a callback said against what is known of an attempt that nobody asks about any more was asked about for as long
    /// as there was hope, and its provider neither confirmed nor denied it.
    Unconfirmed {
        /// About which attempt.
        attempt: u16,
    },
    /// The payment side says that it has refunded the order.
    RefundConfirmed {
        /// Its refund.
        refund_id: Arc<str>,
        /// When, as it says.
        at: Timestamp,
    },
    /// It should have confirmed a refund by now.
    RefundOverdue,
    /// The process that made the call is gone, or never heard an answer.
    CallerLost,
    /// The deadline has come.
    Deadline,
    /// A person decided what became of an order in doubt.
    Resolved {
        /// Delivered, or not.
        succeeded: bool,
        /// Who.
        by: String,
        /// On what evidence.
        evidence: String,
    },
    /// A person has dealt with a case that leaves its order as it is.
    CaseClosed {
        /// Which.
        kind: CaseKind,
        /// Who.
        by: String,
        /// On what evidence.
        evidence: String,
    },
}

/// What a list of a provider can say of a delivery that no answer to a question says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dispute {
    /// It has no such recharge.
    NotListed,
    /// It was of this amount.
    Amount(Money),
}

/// What follows.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Write this.
    Apply(Box<Transition>),
    /// Write nothing.
    Keep(Why),
}

/// Why nothing is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// A repeat of a known fact.
    Known,
    /// Somebody else has moved the order since, or another claim holds it.
    Overtaken,
    /// The input does not apply in this state.
    NotApplicable,
    /// Its time has not come.
    TooEarly,
    /// Nothing was learned; ask again.
    NoNews,
}

/// Decides what becomes of `order` (nothing, for an order that is not stored yet) on `input`.
///
/// `now` is on the database's clock. Closed states never change; an order never has two open
/// attempts; it never fails while one is open. The same input twice changes nothing twice.
pub fn decide(order: Option<&Order>, input: &Input, now: Timestamp, policy: &Policy) -> Decision {
    let now = super::to_micros(now);
    let Some(order) = order else {
        return match input {
            Input::Arrived { new, verdict } => arrival::arrived(new, verdict, now, policy),
            Input::Paid { .. }
            | Input::CancelRequested
            | Input::Claim { .. }
            | Input::LaneShut
            | Input::NumberCools { .. }
            | Input::SubmitReply { .. }
            | Input::Reported { .. }
            | Input::Disputed { .. }
            | Input::Unconfirmed { .. }
            | Input::RefundConfirmed { .. }
            | Input::RefundOverdue
            | Input::CallerLost
            | Input::Deadline
            | Input::Resolved { .. }
            | Input::CaseClosed { .. } => Decision::Keep(Why::NotApplicable),
        };
    };
    let draft = Draft::new(order, now, policy);
    match input {
        Input::Arrived { new, verdict } => arrival::arrived_again(draft, new, verdict),
        Input::Paid { paid_at, payment_id, verdict } => arrival::paid(draft, *paid_at, payment_id.as_ref(), verdict),
        Input::CancelRequested => arrival::cancel_requested(draft),
        Input::Claim { claim_id } => claim::claim(draft, *claim_id),
        Input::LaneShut => elsewhere::lane_shut(draft),
        Input::NumberCools { until } => elsewhere::number_cools(draft, *until),
        Input::SubmitReply { attempt, claim_id, outcome } => attempt::submit_reply(draft, *attempt, *claim_id, outcome),
        Input::Reported { attempt, asked_at, outcome } => {
            attempt::reported(Draft::for_answer(order, now, policy), *attempt, *asked_at, outcome)
        }
        Input::Disputed { attempt, dispute } => closed::disputed(draft, *attempt, *dispute),
        Input::Unconfirmed { attempt } => closed::unconfirmed(draft, *attempt),
        Input::RefundConfirmed { refund_id, at } => refund::confirmed(draft, refund_id, *at),
        Input::RefundOverdue => refund::overdue(draft),
        Input::CallerLost => attempt::caller_lost(draft),
        Input::Deadline => deadline::deadline(draft),
        Input::Resolved { succeeded, by, evidence } => people::resolved(draft, *succeeded, by, evidence),
        Input::CaseClosed { kind, by, evidence } => people::case_closed(draft, *kind, by, evidence),
    }
}
