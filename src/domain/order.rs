//! An order: what the shop said, and where we stand.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::ids::{ClaimId, ClientRef, OrderId, ProviderId};
use super::money::Money;
use super::msisdn::Recipient;
use super::state::{AttemptState, Reason, Sla, State};

/// What the shop said; never changes after the first event but for the payment.
#[derive(Debug, Clone, PartialEq)]
pub struct NewOrder {
    /// The shop's id, our key.
    pub order_id: OrderId,
    /// Whom it is for.
    pub recipient: Recipient,
    /// How much.
    pub amount: Money,
    /// The carrier as the shop believes; a hint for routing, never trusted.
    pub carrier: Option<Arc<str>>,
    /// When the order was created.
    pub created_at: Timestamp,
    /// When it was paid, if it was.
    pub paid_at: Option<Timestamp>,
    /// The shop's payment id, named in a refund.
    pub payment_id: Option<Arc<str>>,
    /// Whether to ask for a notification after creation.
    pub notify: bool,
    /// The shop's own JSON, at most 1 KiB, handed back in every event.
    pub metadata: Option<Arc<str>>,
    /// The keyed hash of the phone number, for the event log and lookups.
    pub phone_hash: Option<Arc<str>>,
}

/// An order as the store holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// The shop's id.
    pub order_id: OrderId,
    /// Rises by one with each transition; every write names the version it expects.
    pub version: u32,
    /// Where it stands.
    pub state: State,
    /// The version of the transition that asked for the live command; a command that names
    /// another one is dead. An event that changes no state leaves it alone.
    pub asked_version: u32,
    /// Whom it is for.
    pub recipient: Recipient,
    /// How much.
    pub amount: Money,
    /// The carrier as the shop believes.
    pub carrier: Option<Arc<str>>,
    /// When the order was created.
    pub created_at: Timestamp,
    /// When it was paid.
    pub paid_at: Option<Timestamp>,
    /// The shop's payment id.
    pub payment_id: Option<Arc<str>>,
    /// Whether to ask for a notification.
    pub notify: bool,
    /// The shop's own JSON.
    pub metadata: Option<Arc<str>>,
    /// When it must be decided.
    pub deadline_at: Timestamp,
    /// The lane it is in.
    pub provider: Option<ProviderId>,
    /// The current attempt; older ones live in the event log.
    pub attempt: Option<Attempt>,
    /// Attempts that a provider declined.
    pub declined: u16,
    /// Before this moment no command acts.
    pub wake_at: Option<Timestamp>,
    /// Why it failed or was cancelled.
    pub reason: Option<Reason>,
    /// Decided in time or not; set once.
    pub sla: Option<Sla>,
    /// When it was closed.
    pub closed_at: Option<Timestamp>,
    /// Whether a refund was requested; at most one per order.
    pub refund_requested: bool,
    /// The refund that the payment side has confirmed, requested or not; the first one.
    pub refund_id: Option<Arc<str>>,
    /// The kinds of cases that were ever opened ([`super::CaseKind::bit`]), and
    /// [`Order::CANCEL_REFUSED`]; whether there is a case is asked by [`Order::has_cases`].
    pub cases: u16,
}

/// The current attempt at a provider.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// 1 for the first; names the reference.
    pub number: u16,
    /// Where it stands.
    pub state: AttemptState,
    /// Our reference at the provider.
    pub client_ref: ClientRef,
    /// The last claim under which it was, or may have been, sent.
    pub claim_id: ClaimId,
    /// When that claim was made.
    pub claimed_at: Timestamp,
    /// The provider's own reference.
    pub provider_ref: Option<String>,
    /// What was learned by asking.
    pub inquiry: Inquiry,
}

/// What was learned by asking about an attempt. Mostly empty, so the store keeps it as one value.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Inquiry {
    /// The provider once said that it owns this attempt: "not found" can no longer close it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub was_accepted: bool,
    /// When a "not found" that counts was asked, since the last claim; a second one must have
    /// been asked later.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "chrono::serde::ts_microseconds_option")]
    pub not_found_at: Option<Timestamp>,
    /// A claim of this order was closed by "not found": it never gets a new reference or
    /// another lane, and if it fails a case stays open.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub closed_by_not_found: bool,
    /// The provider refused this attempt because the number had just been recharged: an earlier
    /// attempt may have been delivered, and no "no" about this one says otherwise.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub earlier_suspected: bool,
    /// The order was closed by the delivery of this earlier attempt, not of the current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered_by: Option<u16>,
}

impl Inquiry {
    /// Whether there is nothing to keep.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Order {
    /// In `cases`: a cancellation was refused once, and is not answered again. Fits a signed
    /// 16-bit column beside the bits of the cases.
    pub const CANCEL_REFUSED: u16 = 1 << 14;

    /// Whether an attempt may still deliver.
    pub fn has_open_attempt(&self) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| attempt.state.is_open())
    }

    /// Whether a case was ever opened.
    pub fn has_cases(&self) -> bool {
        self.cases & !Self::CANCEL_REFUSED != 0
    }

    /// The current attempt's number; 0 before the first.
    pub fn attempt_number(&self) -> u16 {
        self.attempt.as_ref().map_or(0, |attempt| attempt.number)
    }

    /// Whether this attempt is known to be delivered.
    pub fn is_delivered(&self, number: u16) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| {
            attempt.inquiry.delivered_by == Some(number)
                || (attempt.number == number && attempt.state == AttemptState::Succeeded)
        })
    }

    /// Whether the shop sent the same order twice: what a recharge depends on is equal.
    pub fn same_payload(&self, other: &NewOrder) -> bool {
        self.recipient.expose() == other.recipient.expose() && self.amount == other.amount
    }
}
