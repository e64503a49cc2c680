//! The orders by deadline, as the watchdog reads them.

use async_trait::async_trait;

use crate::domain::{CaseKind, Order, ProviderId, State, Timestamp};

use super::StoreError;

/// Where a reader by deadline stands: behind this order, or at the beginning of a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadlinePosition {
    /// A deadline.
    pub at: Timestamp,
    /// Of the orders with this very deadline, those up to this id are behind the reader.
    pub order_id: Option<String>,
}

/// A page of orders in the order of their deadlines.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DeadlinePage {
    /// The orders.
    pub orders: Vec<Order>,
    /// Rows among them that hold what this build does not know: another version's, or somebody's hand.
    /// They keep nobody else from being read.
    pub unreadable: Vec<UnreadableRow>,
    /// Where the next page begins; none behind the last one.
    pub next: Option<DeadlinePosition>,
}

/// A row that makes no order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableRow {
    /// Its key, as it stands.
    pub order_id: String,
    /// What is wrong with it.
    pub why: String,
}

/// Which transactions a reader sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Horizon {
    /// The oldest transaction that is still running: every older one has ended.
    pub oldest: i64,
    /// The first that has not begun yet.
    pub next: i64,
}

/// What is open, for the gauges.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Census {
    /// Open orders by state, those in doubt among them; states without any may be absent.
    pub open: Vec<(State, u64)>,
    /// Open past their deadline and not in doubt.
    pub overdue: u64,
    /// When the oldest order was paid that is paid and open.
    pub oldest_paid_at: Option<Timestamp>,
    /// Open cases by kind: how many, and how many of them were escalated.
    pub cases: Vec<(CaseKind, u64, u64)>,
}

/// Reads that cost what is due, not what exists.
#[async_trait]
pub trait DeadlineBook: Send + Sync + std::fmt::Debug {
    /// The low-water mark: every order with an earlier deadline is decided, or set aside.
    async fn low_water(&self) -> Result<Timestamp, StoreError>;

    /// Moves the mark, if it still stands at `from`; `false` if another watchdog moved it, or the database
    /// went back to an earlier one.
    async fn move_low_water(&self, from: Timestamp, to: Timestamp) -> Result<bool, StoreError>;

    /// Moves the mark in the same way, past orders that are not decided: they are set aside with it.
    async fn set_aside(&self, from: Timestamp, to: Timestamp) -> Result<bool, StoreError>;

    /// Orders that were set aside and are not decided yet, behind `after` in the order of their deadlines, at most
    /// `limit`. The others are forgotten.
    async fn aside(&self, after: &DeadlinePosition, limit: usize) -> Result<DeadlinePage, StoreError>;

    /// What has ended by now, and what has begun.
    async fn horizon(&self) -> Result<Horizon, StoreError>;

    /// Orders for whom their deadline has something to decide (open and not in doubt, or in doubt
    /// with the SLA not counted), behind `after` and with deadlines up to `until`, in the order of
    /// their deadlines, at most `limit`.
    async fn undecided(
        &self,
        after: &DeadlinePosition,
        until: Timestamp,
        limit: usize,
    ) -> Result<DeadlinePage, StoreError>;

    /// Counts what is open: the orders with deadlines from `low_water` on or set aside, and the cases. Costs what came in
    /// within the longest time to a deadline, so it is no read for every second.
    async fn census(&self, low_water: Timestamp, now: Timestamp) -> Result<Census, StoreError>;

    /// Orders in flight at a provider whose send was claimed before a moment and has no answer yet,
    /// by deadline as above.
    async fn unanswered(
        &self,
        provider: &ProviderId,
        claimed_before: Timestamp,
        after: &DeadlinePosition,
        until: Timestamp,
        limit: usize,
    ) -> Result<DeadlinePage, StoreError>;
}
