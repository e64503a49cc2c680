//! Rebuilding an order from its log.

use std::sync::Arc;

use crate::domain::money::Money;
use crate::domain::msisdn::Recipient;
use crate::domain::order::{Attempt, Order};

use super::{AttemptNews, EventType, LoggedEvent};

/// Why a log does not replay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The first entry lacks what the shop said.
    #[error("the first entry of an order's log must carry its facts")]
    NoFacts,
    /// A version is missing or out of order.
    #[error("version {found} follows version {after} in the log")]
    Gap {
        /// The version before.
        after: u32,
        /// The one that came.
        found: u32,
    },
    /// News of an attempt that never began.
    #[error("version {0} has news of an attempt that has no claim or reference")]
    NoAttempt(u32),
}

/// Rebuilds an order from its log. The recipient is taken from outside: the log has only its hash.
pub fn replay(events: &[LoggedEvent], recipient: &Recipient) -> Result<Option<Order>, ReplayError> {
    let mut order: Option<Order> = None;
    for event in events.iter().filter(|event| !event.kind.is_aside()) {
        let after = order.as_ref().map_or(0, |order| order.version);
        if event.version != after + 1 {
            return Err(ReplayError::Gap { after, found: event.version });
        }
        order = Some(apply(order, event, recipient)?);
    }
    Ok(order)
}

fn apply(order: Option<Order>, event: &LoggedEvent, recipient: &Recipient) -> Result<Order, ReplayError> {
    let data = &event.data;
    let mut order = match order {
        Some(order) => order,
        None => blank(event, recipient)?,
    };
    order.version = event.version;
    order.state = data.state;
    order.deadline_at = data.deadline_at;
    order.provider.clone_from(&data.provider);
    order.reason = data.reason;
    order.sla = data.sla;
    order.wake_at = data.wake_at;
    order.declined = data.declined;
    order.asked_version = data.asked_version.unwrap_or(order.asked_version);
    if let Some(payment) = &data.payment {
        order.paid_at = Some(payment.paid_at);
        order.payment_id.clone_from(&payment.payment_id);
    }
    if let Some(news) = &data.attempt_news {
        order.attempt = Some(attempt_after(order.attempt.take(), news, event)?);
    }
    if data.state.is_closed() && order.closed_at.is_none() {
        order.closed_at = Some(event.at);
    }
    order.refund_requested |= data.refund.is_some();
    if let Some(made) = &data.refund_made {
        order.refund_id = Some(Arc::clone(&made.refund_id));
    }
    order.cases |= data.cases_opened.iter().fold(0, |set, kind| set | kind.bit());
    if event.kind == EventType::CancelRefused {
        order.cases |= Order::CANCEL_REFUSED;
    }
    Ok(order)
}

fn blank(event: &LoggedEvent, recipient: &Recipient) -> Result<Order, ReplayError> {
    let facts = event.data.facts.as_deref().ok_or(ReplayError::NoFacts)?;
    Ok(Order {
        order_id: event.order_id.clone(),
        version: 0,
        state: event.data.state,
        asked_version: 0,
        recipient: recipient.clone(),
        amount: Money { minor: facts.amount_minor, currency: facts.currency },
        carrier: facts.carrier.clone(),
        created_at: facts.created_at,
        paid_at: facts.paid_at,
        payment_id: facts.payment_id.clone(),
        notify: facts.notify,
        metadata: event.data.metadata.clone(),
        deadline_at: event.data.deadline_at,
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
    })
}

fn attempt_after(before: Option<Attempt>, news: &AttemptNews, event: &LoggedEvent) -> Result<Attempt, ReplayError> {
    let lost = || ReplayError::NoAttempt(event.version);
    let (claim_id, claimed_at) = match (news.claim_id, &before) {
        (Some(claim), _) => (claim, event.at),
        (None, Some(was)) => (was.claim_id, was.claimed_at),
        (None, None) => return Err(lost()),
    };
    let client_ref = match (event.client_ref(), before) {
        (Some(reference), _) => reference,
        (None, Some(was)) => was.client_ref,
        (None, None) => return Err(lost()),
    };
    Ok(Attempt {
        number: event.data.attempt,
        state: news.state,
        client_ref,
        claim_id,
        claimed_at,
        provider_ref: news.provider_ref.clone(),
        inquiry: news.inquiry.clone(),
    })
}
