//! The event log of a time, for whoever looks at a day as a whole.

use async_trait::async_trait;

use crate::domain::Timestamp;

use super::{LogBatch, LogPosition, StoreError};

/// The event log by the time of writing. Reading it is long work beside the hot path.
#[async_trait]
pub trait DayLog: Send + Sync + std::fmt::Debug {
    /// Whole batches that were written from `from` on and before `until`, behind `after`, in log order, until they
    /// hold `limit` entries. Of what is being written while it is read some may be missing, so the last minute is
    /// not to be relied on. An entry is decided a moment before it is written: who looks for the entries of a time
    /// asks for a margin, and leaves out what is not of it.
    async fn written(
        &self,
        from: Timestamp,
        until: Timestamp,
        after: LogPosition,
        limit: usize,
    ) -> Result<Vec<LogBatch>, StoreError>;

    /// Of what was written from `from` on and before `until`, behind `after`, in log order, the entries in whose lines one of `marks` stands.
    /// Looks at some thousand batches, so that no statement takes long; then at those behind [`Mentions::next`].
    async fn mentions(
        &self,
        from: Timestamp,
        until: Timestamp,
        after: LogPosition,
        marks: &[String],
    ) -> Result<Mentions, StoreError>;
}

/// Entries that were looked for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Mentions {
    /// A line of JSON each.
    pub lines: Vec<String>,
    /// Behind which batch to go on; nothing is left, if none.
    pub next: Option<LogPosition>,
}
