//! What is told of an order at a moment of its own.

use async_trait::async_trait;

use crate::domain::{LoggedEvent, Notification, Timestamp};

use super::{DeadlinePosition, StoreError, UnreadableRow, Written};

/// A page of notifications in the order of their times.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TimerPage {
    /// What has come due, of orders as they stand now.
    pub due: Vec<Notification>,
    /// Rows that hold what this build does not know; they keep nobody else from being read.
    pub unreadable: Vec<UnreadableRow>,
    /// Where the next page begins; none behind the last one.
    pub next: Option<DeadlinePosition>,
}

/// The timers. One is set with its order ([`Transition::notify_at`]) and fires once.
///
/// [`Transition::notify_at`]: crate::domain::Transition::notify_at
#[async_trait]
pub trait Timers: Send + Sync + std::fmt::Debug {
    /// The notifications behind `after` that are due by `until`, in the order of their times, at most `limit`.
    async fn due(&self, after: &DeadlinePosition, until: Timestamp, limit: usize) -> Result<TimerPage, StoreError>;

    /// Logs notifications, each if its order still has that version and its timer has not fired yet; both are
    /// overtaken otherwise, as is one whose row another session holds. An order stands once in a batch. Answers in the order of the batch.
    async fn fire(&self, batch: &[LoggedEvent]) -> Result<Vec<Written>, StoreError>;
}
