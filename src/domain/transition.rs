//! What `decide` returns: the row after, the log entry, and what goes with them.

use std::sync::Arc;

use super::Timestamp;
use super::command::Command;
use super::event::LoggedEvent;
use super::ids::ProviderId;
use super::money::Money;
use super::order::Order;
use super::state::{CaseKind, Reason, Sla};

/// One fenced write: the row from `from_version` to `after`, one log entry, and with them, in
/// the same statement, at most one refund, and what becomes of the order's cases.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    /// The version that the row must have; 0 for a new order.
    pub from_version: u32,
    /// The row after; its version is `from_version + 1`.
    pub after: Order,
    /// The log entry.
    pub event: LoggedEvent,
    /// Whether the deadline was met, where it is this transition that settles it.
    pub sla: Option<Sla>,
    /// A refund to request.
    pub refund: Option<Refund>,
    /// Cases to open or to resolve; mostly none.
    pub cases: Vec<CaseChange>,
    /// When the notification is due that a new order asks for.
    pub notify_at: Option<Timestamp>,
    /// What must be asked for next. Its command is published before the row commits when it
    /// waits for a time, after it when it does not.
    pub follow_up: Option<FollowUp>,
}

/// A refund request: one per order at most.
#[derive(Debug, Clone, PartialEq)]
pub struct Refund {
    /// The payment to refund, where the shop named one.
    pub payment_id: Option<Arc<str>>,
    /// How much: what was paid.
    pub amount: Money,
    /// Why.
    pub reason: Reason,
}

/// A change of a case.
#[derive(Debug, Clone, PartialEq)]
pub enum CaseChange {
    /// Something for a person to look at.
    Open {
        /// What kind; an order has at most one of each.
        kind: CaseKind,
        /// When a person must look at the latest.
        escalate_at: Timestamp,
        /// What is known, for people; holds no personal data.
        evidence: String,
        /// When the provider is asked next, where inquiries go on.
        next_query_at: Option<Timestamp>,
    },
    /// The truth came, or a person decided.
    Resolve {
        /// Which one.
        kind: CaseKind,
        /// Who: a name, or `provider` where its word settled it.
        by: String,
        /// On what evidence.
        evidence: String,
    },
}

/// A command to publish, to a lane.
#[derive(Debug, Clone, PartialEq)]
pub struct FollowUp {
    /// The lane.
    pub lane: ProviderId,
    /// The command; `wake_at` tells whether it waits.
    pub command: Command,
}
