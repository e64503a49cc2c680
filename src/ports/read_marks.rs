//! How far topics have been read: everything before a partition's mark was acted on.

use async_trait::async_trait;

use crate::domain::Timestamp;

use super::StoreError;

/// Of one partition: every record that was written before this moment was acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadMark {
    /// The partition.
    pub partition: i32,
    /// The moment, by the records' timestamps.
    pub up_to: Timestamp,
}

/// The marks of all processes. A mark stays true when its reader is gone.
#[async_trait]
pub trait ReadMarks: Send + Sync + std::fmt::Debug {
    /// Raises marks; a lower one than there is changes nothing.
    async fn note_read(&self, topic: &str, marks: &[ReadMark]) -> Result<(), StoreError>;

    /// The least mark of a topic; `None` while fewer than `partitions` have one.
    async fn read_up_to(&self, topic: &str, partitions: usize) -> Result<Option<Timestamp>, StoreError>;
}
