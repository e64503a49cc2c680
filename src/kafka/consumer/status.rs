//! What a consumer tells of itself.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::Timestamp;

/// A consumer, seen from outside. Counters count from the start of the process.
#[derive(Debug, Clone, Default)]
pub struct ConsumerStatus {
    /// Whether the group gave it an assignment, be it empty.
    pub joined: bool,
    /// No broker has answered for more than a second.
    pub unreachable: bool,
    /// How long ago its thread last polled; beyond a few seconds it hangs.
    pub poll_age: Duration,
    /// Its topics, as in the options.
    pub topics: Vec<TopicStatus>,
    /// Its topic was allowed to vanish, and has: nothing is read any more.
    pub gone: bool,
    /// Why it cannot go on.
    pub failed: Option<String>,
    /// What stands in its way at the moment, be it passing.
    pub trouble: Option<String>,
    /// Jumps between consecutive delivered offsets, all topics: compaction or transaction markers
    /// on a real broker, lost records on the embedded one.
    pub offset_gaps: u64,
    /// The offsets that these jumps skipped.
    pub offsets_skipped: u64,
    /// Assignments and revocations.
    pub rebalances: u64,
    /// Revocations that came too late to commit: others may have had the partition already.
    pub assignments_lost: u64,
    /// Times that the group expelled it for not polling.
    pub polls_exceeded: u64,
    /// Commits that the ledger refused: a defect. Must stay 0.
    pub commits_refused: u64,
    /// Commits that the broker did not take or answer in time; the records come again.
    pub commits_failed: u64,
    /// Times that the client was made anew because a partition stood still or it had fenced itself.
    pub rebuilds: u64,
}

/// One topic of a consumer.
#[derive(Debug, Clone)]
pub struct TopicStatus {
    /// The topic.
    pub topic: Arc<str>,
    /// The partitions that it holds.
    pub assigned: Vec<i32>,
    /// How many of them are paused because the reader is behind.
    pub paused: usize,
    /// Records that were fetched and not yet read.
    pub buffered: usize,
    /// Records that were read and are not durable yet.
    pub in_hand: usize,
    /// Records in the log that were not yet fetched, where it is known; at most a second old, for
    /// a paused partition at most ten.
    pub lag: Option<u64>,
    /// The same for each partition of which it is known.
    pub lag_by_partition: Vec<(i32, u64)>,
    /// The timestamp of the oldest record that waits to be read.
    pub oldest_unread: Option<Timestamp>,
    /// Jumps between consecutive delivered offsets.
    pub offset_gaps: u64,
    /// The offsets that these jumps skipped.
    pub offsets_skipped: u64,
    /// Records that the client delivered again within an assignment.
    pub replayed: u64,
}
