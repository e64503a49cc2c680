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
    /// What became of the refund.
    pub refund_news: Option<RefundNews>,
    /// Cases to open or to resolve; mostly none.
    pub cases: Vec<CaseChange>,
    /// When the notification is due that a new order asks for.
    pub notify_at: Option<Timestamp>,
    /// What somebody is told with it: that the order has ended. The notification that is still ahead falls away.
    pub told: Option<Box<LoggedEvent>>,
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
    /// When a person must hear that it was not confirmed; nobody follows it where there is none.
    pub confirm_by: Option<Timestamp>,
}

/// What becomes of a refund. Nobody waits for its confirmation any more.
#[derive(Debug, Clone, PartialEq)]
pub enum RefundNews {
    /// The payment side has made it.
    Confirmed {
        /// Its name there.
        refund_id: Arc<str>,
        /// When, as it says.
        at: Timestamp,
    },
    /// It was not confirmed in time, and a case says so.
    Overdue,
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
