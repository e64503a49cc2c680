//! The event log: what was written, in the order in which it is told.

use async_trait::async_trait;

use crate::domain::{LoggedEvent, OrderId, Recipient};

use super::StoreError;

/// A position in the event log: writing transaction, then sequence. Reading in that order and
/// only below the oldest running transaction is what misses no batch under concurrent writers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogPosition {
    /// The writing transaction's id.
    pub xid: i64,
    /// The batch's sequence number.
    pub seq: i64,
}

/// Entries that were written together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogBatch {
    /// Where they stand.
    pub position: LogPosition,
    /// A line of JSON each (`domain::event`); an order stands in it once, and once more where its end is told.
    pub entries: String,
}

impl LogBatch {
    /// The entries, as lines.
    pub fn lines(&self) -> std::str::Lines<'_> {
        self.entries.lines()
    }
}

/// The event log, as the relay and people read it.
#[async_trait]
pub trait EventLog: Send + Sync + std::fmt::Debug {
    /// Whole batches after `after`, in log order, until they hold `limit` entries; none that an
    /// older transaction could still precede.
    async fn read_log(&self, after: LogPosition, limit: usize) -> Result<Vec<LogBatch>, StoreError>;

    /// Whether anything was committed after `after`, also what may not be read yet.
    async fn has_more(&self, after: LogPosition) -> Result<bool, StoreError>;

    /// The relay's cursor: the last batch that is known to be published.
    async fn cursor(&self) -> Result<LogPosition, StoreError>;

    /// Moves the cursor, if it still stands at `from`; `false` if another relay moved it.
    async fn advance_cursor(&self, from: LogPosition, to: LogPosition) -> Result<bool, StoreError>;

    /// The entries of orders, each one's by version, in the order of the ids; none for an unknown one. A page of orders costs hardly
    /// more than one of them, where they were written together.
    async fn timelines(&self, ids: &[OrderId]) -> Result<Vec<Vec<LoggedEvent>>, StoreError>;

    /// One order's entries, by version.
    async fn timeline(&self, order_id: &OrderId) -> Result<Vec<LoggedEvent>, StoreError> {
        Ok(self.timelines(std::slice::from_ref(order_id)).await?.pop().unwrap_or_default())
    }

    /// Whom to tell of orders, of which the log holds a hash only; in the order of the ids.
    async fn recipients(&self, ids: &[OrderId]) -> Result<Vec<Option<Recipient>>, StoreError>;
}
