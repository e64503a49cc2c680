//! Refunds that the payment side has not confirmed.

use async_trait::async_trait;

use crate::domain::{OrderId, Timestamp};

use super::{DeadlinePosition, StoreError, UnreadableRow};

/// A page of refunds in the order of the times at which they were to be confirmed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RefundPage {
    /// Whose.
    pub overdue: Vec<OrderId>,
    /// Rows that hold what this build does not know.
    pub unreadable: Vec<UnreadableRow>,
    /// Where the next page begins; none behind the last one.
    pub next: Option<DeadlinePosition>,
}

/// The refunds. One is written with the transition that requests it ([`Transition::refund`]), and followed until it is
/// confirmed or a case says that it was not ([`Transition::refund_news`]).
///
/// [`Transition::refund`]: crate::domain::Transition::refund
/// [`Transition::refund_news`]: crate::domain::Transition::refund_news
#[async_trait]
pub trait RefundBook: Send + Sync + std::fmt::Debug {
    /// Those behind `after` that were to be confirmed by `until`, at most `limit`.
    async fn unconfirmed(
        &self,
        after: &DeadlinePosition,
        until: Timestamp,
        limit: usize,
    ) -> Result<RefundPage, StoreError>;

    /// Follows the refunds of these orders no longer: of what they were to be watched for, their rows know.
    async fn unfollow(&self, ids: &[OrderId]) -> Result<(), StoreError>;
}
