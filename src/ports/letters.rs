//! What people decided about dead letters. The letters stand in Kafka alone; that one is done with stands here
//! (`docs/adr/0011`).

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::Timestamp;

use super::StoreError;

/// Which record a dead letter is of, by where that record stood. So a letter that was written twice, as may happen at a
/// crash, is one. The timestamp tells two lives of a topic apart, which begin with the same offsets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LetterKey {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The record's timestamp in Unix milliseconds, where it had one; else -1.
    pub stamp: i64,
}

crate::domain::text_enum! {
    /// What became of a dead letter.
    LetterState {
        /// It is on its way back to its topic; if whoever sent it died, it may be there.
        Replaying = "replaying",
        /// It is back in its topic.
        Replayed = "replayed",
        /// Somebody decided that nothing is to be done with it.
        Discarded = "discarded",
    }
}

impl LetterState {
    /// Whether nothing is left to do.
    pub const fn is_done(self) -> bool {
        match self {
            Self::Replaying => false,
            Self::Replayed | Self::Discarded => true,
        }
    }
}

/// What was decided about a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterMark {
    /// What became of it.
    pub state: LetterState,
    /// Who decided.
    pub by: String,
    /// Why; empty for a replay.
    pub why: String,
    /// When.
    pub at: Timestamp,
    /// The run of the command that wrote it: only the run that began a replay ends it.
    pub run: Uuid,
}

/// The marks.
#[async_trait]
pub trait LetterMarks: Send + Sync + std::fmt::Debug {
    /// What stands of each, in the order of the keys.
    async fn letter_marks(&self, keys: &[LetterKey]) -> Result<Vec<Option<LetterMark>>, StoreError>;

    /// Writes one mark for many letters; answers in the order of the keys whether it stands now. It does where there was
    /// none, where the same run wrote it before, and where a replay was begun before `abandoned_before` and never ended.
    async fn mark_letters(
        &self,
        keys: &[LetterKey],
        mark: &LetterMark,
        abandoned_before: Timestamp,
    ) -> Result<Vec<bool>, StoreError>;

    /// The replays that `run` began have come to their end: the letters are back in their topics.
    async fn replays_done(&self, keys: &[LetterKey], run: Uuid, at: Timestamp) -> Result<(), StoreError>;

    /// The replays that `run` began have failed for certain: the letters are as they were.
    async fn replays_failed(&self, keys: &[LetterKey], run: Uuid) -> Result<(), StoreError>;

    /// Removes marks of letters that are done with since before `before`; returns how many.
    async fn forget_letters(&self, before: Timestamp) -> Result<u64, StoreError>;
}
