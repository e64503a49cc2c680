//! The rules that an operator sets, in the form in which `decide` reads them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::ids::ProviderId;
use super::order::Order;
use super::outcome::Capabilities;
use super::route::RouteTable;

/// What to do at the deadline with an open attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnUnknown {
    /// Wait for the provider's word; a case is open.
    #[default]
    Hold,
    /// Refund at once, with the case open: the recharge may still arrive.
    RefundFlagged,
}

/// Everything `decide` may ask about the configuration.
#[derive(Debug, Clone)]
pub struct Policy {
    /// From `paid_at` to the deadline.
    pub sla: Duration,
    /// From `created_at` to the cancellation of an unpaid order.
    pub unpaid_timeout: Duration,
    /// From `created_at` to the notification, where the order asks for one.
    pub notify_after: Duration,
    /// Whether somebody is told of the end of an order that asks for notifications.
    pub notify_at_end: bool,
    /// How long the payment side may take to confirm a refund; nobody follows it where there is none.
    pub refund_confirm_within: Option<Duration>,
    /// Open attempts at the deadline.
    pub on_unknown: OnUnknown,
    /// How long an order may stay in doubt before a person must look.
    pub reconcile_within: Duration,
    /// Attempts that a provider may decline before the order fails.
    pub max_attempts: u16,
    /// The first retry's wait; each further one waits twice as long.
    pub backoff_first: Duration,
    /// The longest back-off.
    pub backoff_max: Duration,
    /// Per provider.
    pub providers: HashMap<ProviderId, ProviderPolicy>,
    /// Which lanes may serve an order.
    pub routes: Arc<RouteTable>,
    /// Lanes that take no orders for now: paused, or their provider is sick.
    pub shut: Vec<ProviderId>,
}

/// What `decide` must know of one provider.
#[derive(Debug, Clone)]
pub struct ProviderPolicy {
    /// Its contract.
    pub capabilities: Capabilities,
    /// How long a call is expected to take, at the 95th percentile: the least slack with which
    /// a call is still worth a permit.
    pub expected_service: Duration,
    /// From a claim's commit request to the first byte.
    pub send_window: Duration,
}

impl ProviderPolicy {
    /// So long after what was sent under a claim, reckoned from its last possible first byte: the provider counts
    /// from what it saw, and the claim may be older by the whole send window.
    pub fn after_send(&self, claimed_at: Timestamp, wait: Duration) -> Timestamp {
        super::plus(claimed_at, self.send_window.saturating_add(wait))
    }
}

impl Policy {
    /// The lane that may try an order after the one it is in: a later one of its route that takes orders, and at which a call could still
    /// end in time. `None` for the last, and where its own lane is on no route any more.
    pub fn next_lane(&self, order: &Order, now: Timestamp) -> Option<&ProviderId> {
        let (own, number) = (order.provider.as_ref()?, order.recipient.msisdn()?);
        let lanes = self.routes.lanes(&order.order_id, number, order.carrier.as_deref(), order.amount).ok()?;
        let in_time = |provider: &ProviderPolicy| super::plus(now, provider.expected_service) <= order.deadline_at;
        let takes_it = |lane: &&ProviderId| !self.shut.contains(lane) && self.provider(lane).is_some_and(in_time);
        lanes.skip_while(|lane| *lane != own).skip(1).find(takes_it)
    }

    /// The policy of a provider; `None` if it is no longer configured.
    pub fn provider(&self, id: &ProviderId) -> Option<&ProviderPolicy> {
        self.providers.get(id)
    }
}
