//! Records that go out, commands among them.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::domain::Command;

/// A record to write.
#[derive(Debug, Clone, PartialEq)]
pub struct OutRecord {
    /// The topic.
    pub topic: Arc<str>,
    /// The key, which chooses the partition.
    pub key: Option<Bytes>,
    /// The value.
    pub value: Option<Bytes>,
    /// The headers.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// Why a record was not written. It may have been, where a time-out says so: consumers
/// deduplicate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Not acknowledged in time, or the broker is away: try again.
    #[error("not acknowledged: {0}")]
    Unacknowledged(String),
    /// There is no such topic or partition.
    #[error("no such topic: {0}")]
    NoSuchTopic(String),
    /// The broker will not take it: too large, not authorised.
    #[error("refused: {0}")]
    Refused(String),
}

/// Writes records.
#[async_trait]
pub trait Publisher: Send + Sync + std::fmt::Debug {
    /// Writes a batch and waits until each record is acknowledged or has failed; answers in the
    /// order of the batch. Bounded in flight: a full queue makes the caller wait.
    async fn publish(&self, batch: &[OutRecord]) -> Vec<Result<(), PublishError>>;
}

/// Where commands go: the topics of a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneTopics {
    /// Fresh orders.
    pub requests: Arc<str>,
    /// Retries and queries whose time has come.
    pub due: Arc<str>,
}

/// A command as a record for `topic`; the key is the phone number's keyed hash.
pub fn command_record(topic: &Arc<str>, key: Bytes, command: &Command) -> OutRecord {
    OutRecord {
        topic: Arc::clone(topic),
        key: Some(key),
        value: serde_json::to_vec(command).ok().map(Bytes::from),
        headers: Vec::new(),
    }
}
