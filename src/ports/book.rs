//! The orders as people, exports and audits read them.

use async_trait::async_trait;

use crate::domain::{Order, OrderId, State, Timestamp};

use super::StoreError;

/// Which orders to read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OrderFilter {
    /// Only these; all, if empty. Unknown ids are left out.
    pub ids: Vec<OrderId>,
    /// In one of these states; all, if empty.
    pub states: Vec<State>,
    /// Created before this moment.
    pub created_before: Option<Timestamp>,
}

/// An order as people and exports see it.
#[derive(Debug, Clone, PartialEq)]
pub struct OrderView {
    /// The row.
    pub order: Order,
    /// Whether a case of it is open.
    pub case_open: bool,
}

/// What is still to come of an order by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waits {
    /// When somebody is told where it stands.
    pub notification_at: Option<Timestamp>,
    /// When a case is opened, if its refund is not confirmed by then.
    pub refund_confirm_by: Option<Timestamp>,
}

/// A person's or an export's view of the orders; never on the hot path.
#[async_trait]
pub trait OrderBook: Send + Sync + std::fmt::Debug {
    /// Orders by id, after `after`, at most `limit`.
    async fn page(
        &self,
        filter: &OrderFilter,
        after: Option<&OrderId>,
        limit: usize,
    ) -> Result<Vec<OrderView>, StoreError>;

    /// What is still to come of an order by itself; nothing, where there is no such order.
    async fn waits(&self, order_id: &OrderId) -> Result<Waits, StoreError>;

    /// How many orders are in each state; states without any are absent.
    async fn count_by_state(&self) -> Result<Vec<(State, u64)>, StoreError>;
}
