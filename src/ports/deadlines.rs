//! The orders by deadline, as the watchdog reads them.

use async_trait::async_trait;

use crate::domain::{Order, OrderId, ProviderId, Timestamp};

use super::StoreError;

/// Where a reader by deadline stands: behind this order, or at the beginning of a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadlinePosition {
    /// A deadline.
    pub at: Timestamp,
    /// Of the orders with this very deadline, those up to this one are behind the reader.
    pub order_id: Option<OrderId>,
}

/// Which transactions a reader sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Horizon {
    /// The oldest transaction that is still running: every older one has ended.
    pub oldest: i64,
    /// The first that has not begun yet.
    pub next: i64,
}

/// Reads that cost what is due, not what exists.
#[async_trait]
pub trait DeadlineBook: Send + Sync + std::fmt::Debug {
    /// The low-water mark: every order with an earlier deadline is decided.
    async fn low_water(&self) -> Result<Timestamp, StoreError>;

    /// Raises the mark; a lower one than it has changes nothing.
    async fn raise_low_water(&self, to: Timestamp) -> Result<(), StoreError>;

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
    ) -> Result<Vec<Order>, StoreError>;

    /// Orders in flight at a provider whose send was claimed before a moment and has no answer yet,
    /// by deadline as above.
    async fn unanswered(
        &self,
        provider: &ProviderId,
        claimed_before: Timestamp,
        after: &DeadlinePosition,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Order>, StoreError>;
}
