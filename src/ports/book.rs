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

    /// How many orders are in each state; states without any are absent.
    async fn count_by_state(&self) -> Result<Vec<(State, u64)>, StoreError>;
}
