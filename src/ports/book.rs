//! The orders as people, exports and audits read them.

use async_trait::async_trait;

use crate::domain::{Order, OrderId, ProviderId, State, Timestamp};

use super::StoreError;

/// Which orders to read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OrderFilter {
    /// Only these; all, if empty. Unknown ids are left out.
    pub ids: Vec<OrderId>,
    /// In one of these states; all, if empty.
    pub states: Vec<State>,
    /// Sent to, or meant for, one of these lanes by now; all orders, if empty.
    pub lanes: Vec<ProviderId>,
    /// Created at this moment or later.
    pub created_from: Option<Timestamp>,
    /// Created before this moment.
    pub created_before: Option<Timestamp>,
    /// Due at this moment or later.
    pub deadline_from: Option<Timestamp>,
    /// Due before this moment.
    pub deadline_before: Option<Timestamp>,
    /// Only those that have an open case.
    pub only_with_case: bool,
    /// Only those whose refund was requested.
    pub only_refunded: bool,
    /// Only those whose refund was requested and is not confirmed.
    pub only_unconfirmed: bool,
}

impl OrderFilter {
    /// Whether an order passes; what the statements of the adapters say in SQL.
    pub fn keeps(&self, view: &OrderView) -> bool {
        let order = &view.order;
        let lane = |lanes: &[ProviderId]| order.provider.as_ref().is_some_and(|lane| lanes.contains(lane));
        let is_from = |from: Option<Timestamp>, at: Timestamp| from.is_none_or(|from| at >= from);
        let is_before = |before: Option<Timestamp>, at: Timestamp| before.is_none_or(|before| at < before);
        (self.ids.is_empty() || self.ids.contains(&order.order_id))
            && (self.states.is_empty() || self.states.contains(&order.state))
            && (self.lanes.is_empty() || lane(&self.lanes))
            && is_from(self.created_from, order.created_at)
            && is_before(self.created_before, order.created_at)
            && is_from(self.deadline_from, order.deadline_at)
            && is_before(self.deadline_before, order.deadline_at)
            && (!self.only_with_case || view.case_open)
            && (!self.only_refunded || order.refund_requested)
            && (!self.only_unconfirmed || order.refund_requested && order.refund_id.is_none())
    }
}

/// Some of the orders, and where the next ones begin.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OrderPage {
    /// By id.
    pub orders: Vec<OrderView>,
    /// Behind which id to go on; nothing is left, if none.
    pub next: Option<OrderId>,
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
    /// Orders by id, after `after`, at most `limit`. A page may hold fewer, or none, although more follow: so that no statement takes long, it
    /// looks at some ten thousand rows, however few of them pass the filter.
    async fn page(&self, filter: &OrderFilter, after: Option<&OrderId>, limit: usize) -> Result<OrderPage, StoreError>;

    /// What is still to come of an order by itself; nothing, where there is no such order.
    async fn waits(&self, order_id: &OrderId) -> Result<Waits, StoreError>;

    /// How many orders are in each state; states without any are absent.
    async fn count_by_state(&self) -> Result<Vec<(State, u64)>, StoreError>;
}
