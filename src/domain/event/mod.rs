//! The event log: one entry per transition, in the same statement as the row.
//!
//! An entry is the audit trail, the outbox and the timeline at once. It carries what the public
//! event needs and, beside it, what changed in the row, so that replaying the log rebuilds the
//! row (all but the phone number, of which the log holds only a keyed hash).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

mod line;
mod mention;
mod replay;
#[cfg(test)]
mod tests;

pub use line::{Announcement, BadLine, Claimed, Text};
pub use mention::Mention;
pub use replay::{ReplayError, replay};

use super::Timestamp;
use super::ids::{ClaimId, ClientRef, OrderId, ProviderId};
use super::money::Currency;
use super::order::{Attempt, Inquiry, Order};
use super::state::{AttemptState, CaseKind, Reason, Sla, State};

super::state::text_enum! {
    /// What happened. What an entry is published as says [`EventType::public`].
    EventType {
        /// Arrived unpaid.
        Accepted = "accepted",
        /// Paid; a submit was asked for.
        Queued = "queued",
        /// An attempt was claimed and is about to be sent.
        Submitted = "submitted",
        /// News about the open attempt that changes no state.
        AttemptUpdated = "attempt_updated",
        /// The attempt had no effect; the next one waits.
        RetryScheduled = "retry_scheduled",
        /// The deadline passed with an open attempt.
        InDoubt = "in_doubt",
        /// Delivered.
        Succeeded = "succeeded",
        /// Failed, refund requested.
        Failed = "failed",
        /// Cancelled.
        Cancelled = "cancelled",
        /// Cancelling came too late.
        CancelRefused = "cancel_refused",
        /// Something for a person; the order did not change.
        CaseOpened = "case_opened",
        /// A person closed a case; the order did not change.
        CaseResolved = "case_resolved",
        /// The payment side has made the refund; the order did not change.
        RefundConfirmed = "refund_confirmed",
        /// Somebody is to be told where the order stands. Beside the version's own entry: it moves nothing.
        NotificationRequested = "notification_requested",
        /// Somebody is to be told that the order has ended, likewise.
        EndNotificationRequested = "end_notification_requested",
        /// A person took a case, gave it back, or noted something about it, likewise. Told to nobody: it is for those who
        /// read the log.
        CaseNoted = "case_noted",
    }
}

impl EventType {
    /// As what it is published. News about an attempt is published as the state it confirms, so
    /// that public versions have no gap.
    #[must_use]
    pub const fn public(self, state: State) -> Self {
        match self {
            Self::AttemptUpdated => match state {
                State::AwaitingPayment => Self::Accepted,
                State::Queued => Self::Queued,
                State::InFlight => Self::Submitted,
                State::RetryWait => Self::RetryScheduled,
                State::InDoubt => Self::InDoubt,
                State::Succeeded => Self::Succeeded,
                State::Failed => Self::Failed,
                State::Cancelled => Self::Cancelled,
            },
            Self::Accepted
            | Self::Queued
            | Self::Submitted
            | Self::RetryScheduled
            | Self::InDoubt
            | Self::Succeeded
            | Self::Failed
            | Self::Cancelled
            | Self::CancelRefused
            | Self::CaseOpened
            | Self::CaseResolved
            | Self::RefundConfirmed
            | Self::NotificationRequested
            | Self::EndNotificationRequested
            | Self::CaseNoted => self,
        }
    }

    /// Whether it is an entry beside its version's own: nothing moved.
    #[must_use]
    pub const fn is_aside(self) -> bool {
        matches!(self, Self::NotificationRequested | Self::EndNotificationRequested | Self::CaseNoted)
    }

    /// Whether the relay publishes it.
    #[must_use]
    pub const fn is_published(self) -> bool {
        !matches!(self, Self::CaseNoted)
    }

    /// The CloudEvents type.
    pub const fn event_type(self) -> &'static str {
        match self {
            Self::Accepted => "recharge.order.accepted.v1",
            Self::Queued => "recharge.order.queued.v1",
            Self::Submitted => "recharge.order.submitted.v1",
            Self::AttemptUpdated => "recharge.order.attempt_updated.v1",
            Self::RetryScheduled => "recharge.order.retry_scheduled.v1",
            Self::InDoubt => "recharge.order.in_doubt.v1",
            Self::Succeeded => "recharge.order.succeeded.v1",
            Self::Failed => "recharge.order.failed.v1",
            Self::Cancelled => "recharge.order.cancelled.v1",
            Self::CancelRefused => "recharge.order.cancel_refused.v1",
            Self::CaseOpened => "recharge.order.case_opened.v1",
            Self::CaseResolved => "recharge.order.case_resolved.v1",
            Self::RefundConfirmed => "recharge.order.refund_confirmed.v1",
            Self::CaseNoted => "recharge.order.case_noted.v1",
            Self::NotificationRequested | Self::EndNotificationRequested => "recharge.notification.requested.v1",
        }
    }
}

/// An entry of the log as it is read back.
#[derive(Debug, Clone, PartialEq)]
pub struct LoggedEvent {
    /// Whose.
    pub order_id: OrderId,
    /// The order's version after it.
    pub version: u32,
    /// What happened.
    pub kind: EventType,
    /// When, on the database's clock.
    pub at: Timestamp,
    /// The rest.
    pub data: EventData,
}

impl LoggedEvent {
    /// The reference that this entry announces to the provider, where it is a claim.
    pub fn client_ref(&self) -> Option<ClientRef> {
        let news = self.data.attempt_news.as_ref().filter(|news| news.claim_id.is_some())?;
        Some(news.client_ref.clone().unwrap_or_else(|| ClientRef::in_clear(&self.order_id, self.data.attempt)))
    }
}

/// What an entry holds beside its key. Short names: three of these are written per order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventData {
    /// The state after it.
    #[serde(rename = "st")]
    pub state: State,
    /// The deadline after it, µs.
    #[serde(rename = "dl", with = "chrono::serde::ts_microseconds")]
    pub deadline_at: Timestamp,
    /// The attempt, after it.
    #[serde(rename = "a", default, skip_serializing_if = "is_zero")]
    pub attempt: u16,
    /// The lane, after it.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<ProviderId>,
    /// Why, where the order is closed.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Decided in time or not, once that is known.
    #[serde(rename = "sla", default, skip_serializing_if = "Option::is_none")]
    pub sla: Option<Sla>,
    /// The shop's own JSON, handed back.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Arc<str>>,
    /// The version whose command is live after it, where it changed.
    #[serde(rename = "av", default, skip_serializing_if = "Option::is_none")]
    pub asked_version: Option<u32>,
    /// What the shop said, in the first entry.
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<Box<Facts>>,
    /// The payment, where it came later than the order.
    #[serde(rename = "pay", default, skip_serializing_if = "Option::is_none")]
    pub payment: Option<Box<Payment>>,
    /// The attempt's state and news, where they changed.
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    pub attempt_news: Option<AttemptNews>,
    /// When the next command may act; set as often as the state changes.
    #[serde(
        rename = "w",
        default,
        skip_serializing_if = "Option::is_none",
        with = "chrono::serde::ts_microseconds_option"
    )]
    pub wake_at: Option<Timestamp>,
    /// Attempts declined so far.
    #[serde(rename = "dc", default, skip_serializing_if = "is_zero")]
    pub declined: u16,
    /// The provider's code or our cause, for people: never a number, never free text of a customer.
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Cases that were opened with it.
    #[serde(rename = "case", default, skip_serializing_if = "Vec::is_empty")]
    pub cases_opened: Vec<CaseKind>,
    /// A refund that was requested with it.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub refund: Option<Box<RefundNote>>,
    /// The refund that the payment side says it has made.
    #[serde(rename = "rc", default, skip_serializing_if = "Option::is_none")]
    pub refund_made: Option<Box<RefundMade>>,
    /// Who decided, and on what evidence.
    #[serde(rename = "by", default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<Box<DecidedBy>>,
}

/// What the shop said of an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Minor units.
    #[serde(rename = "am")]
    pub amount_minor: i64,
    /// ISO 4217.
    #[serde(rename = "cu")]
    pub currency: Currency,
    /// Created, µs.
    #[serde(rename = "ct", with = "chrono::serde::ts_microseconds")]
    pub created_at: Timestamp,
    /// Paid, µs.
    #[serde(
        rename = "pt",
        default,
        skip_serializing_if = "Option::is_none",
        with = "chrono::serde::ts_microseconds_option"
    )]
    pub paid_at: Option<Timestamp>,
    /// The payment.
    #[serde(rename = "pi", default, skip_serializing_if = "Option::is_none")]
    pub payment_id: Option<Arc<str>>,
    /// The carrier.
    #[serde(rename = "ca", default, skip_serializing_if = "Option::is_none")]
    pub carrier: Option<Arc<str>>,
    /// Whether a notification was asked for.
    #[serde(rename = "nt", default, skip_serializing_if = "std::ops::Not::not")]
    pub notify: bool,
    /// The phone number's keyed hash.
    #[serde(rename = "ph", default, skip_serializing_if = "Option::is_none")]
    pub phone_hash: Option<Arc<str>>,
}

/// A payment that came after its order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Payment {
    /// Paid, µs.
    #[serde(rename = "pt", with = "chrono::serde::ts_microseconds")]
    pub paid_at: Timestamp,
    /// The payment.
    #[serde(rename = "pi", default, skip_serializing_if = "Option::is_none")]
    pub payment_id: Option<Arc<str>>,
}

/// The attempt after an entry, where it changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptNews {
    /// Its state.
    #[serde(rename = "s")]
    pub state: AttemptState,
    /// Its claim, where it is a new one; its time is then the entry's.
    #[serde(rename = "cl", default, skip_serializing_if = "Option::is_none")]
    pub claim_id: Option<ClaimId>,
    /// Its reference, with a new claim, where it is not the readable form of order and number
    /// ([`LoggedEvent::client_ref`]).
    #[serde(rename = "cr", default, skip_serializing_if = "Option::is_none")]
    pub client_ref: Option<ClientRef>,
    /// The provider's reference, once known.
    #[serde(rename = "pr", default, skip_serializing_if = "Option::is_none")]
    pub provider_ref: Option<String>,
    /// What was learned by asking.
    #[serde(rename = "q", default, skip_serializing_if = "Inquiry::is_empty")]
    pub inquiry: Inquiry,
}

/// A refund that was requested.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RefundNote {
    /// The payment to refund.
    #[serde(rename = "pi", default, skip_serializing_if = "Option::is_none")]
    pub payment_id: Option<Arc<str>>,
    /// Minor units.
    #[serde(rename = "am")]
    pub amount_minor: i64,
    /// ISO 4217.
    #[serde(rename = "cu")]
    pub currency: Currency,
    /// Why.
    #[serde(rename = "r")]
    pub reason: Reason,
}

/// A refund that the payment side says it has made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RefundMade {
    /// Its name there.
    #[serde(rename = "i")]
    pub refund_id: Arc<str>,
    /// When, as it says, µs.
    #[serde(rename = "at", with = "chrono::serde::ts_microseconds")]
    pub at: Timestamp,
}

/// A person's decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecidedBy {
    /// Who.
    pub name: String,
    /// On what evidence.
    pub evidence: String,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if hands a reference")]
fn is_zero(number: &u16) -> bool {
    *number == 0
}

fn claim_is_new(before: Option<&Attempt>, now: &Attempt) -> bool {
    before.is_none_or(|was| was.claim_id != now.claim_id)
}

impl EventData {
    /// What to log beside a version: how the order stands.
    pub fn aside(state: State, deadline_at: Timestamp) -> Self {
        Self {
            state,
            deadline_at,
            attempt: 0,
            provider: None,
            reason: None,
            sla: None,
            metadata: None,
            asked_version: None,
            facts: None,
            payment: None,
            attempt_news: None,
            wake_at: None,
            declined: 0,
            cause: None,
            cases_opened: Vec::new(),
            refund: None,
            refund_made: None,
            decided_by: None,
        }
    }

    /// What to log for a move from `before` (nothing, for a new order) to `after` at `at`.
    pub fn of_move(before: Option<&Order>, after: &Order) -> Self {
        let facts = before.is_none().then(|| {
            Box::new(Facts {
                amount_minor: after.amount.minor,
                currency: after.amount.currency,
                created_at: after.created_at,
                paid_at: after.paid_at,
                payment_id: after.payment_id.clone(),
                carrier: after.carrier.clone(),
                notify: after.notify,
                phone_hash: None,
            })
        });
        let payment = before.and_then(|before| {
            let paid_at = after.paid_at.filter(|_| before.paid_at != after.paid_at)?;
            Some(Box::new(Payment { paid_at, payment_id: after.payment_id.clone() }))
        });
        let before_attempt = before.and_then(|before| before.attempt.as_ref());
        let attempt_news = after.attempt.as_ref().filter(|now| before_attempt != Some(now)).map(|now| AttemptNews {
            state: now.state,
            claim_id: claim_is_new(before_attempt, now).then_some(now.claim_id),
            client_ref: claim_is_new(before_attempt, now)
                .then(|| now.client_ref.clone())
                .filter(|reference| !reference.is_in_clear(&after.order_id, now.number)),
            provider_ref: now.provider_ref.clone(),
            inquiry: now.inquiry.clone(),
        });
        let asked_before = before.map_or(0, |before| before.asked_version);
        Self {
            attempt: after.attempt_number(),
            provider: after.provider.clone(),
            reason: after.reason,
            sla: after.sla,
            metadata: after.metadata.clone(),
            asked_version: (after.asked_version != asked_before).then_some(after.asked_version),
            facts,
            payment,
            attempt_news,
            wake_at: after.wake_at,
            declined: after.declined,
            ..Self::aside(after.state, after.deadline_at)
        }
    }
}
