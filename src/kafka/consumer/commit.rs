//! Committing positions. This is the only place that does, and it takes them from the ledgers.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::kafka::sync::lock;

use super::rebalance::GroupConsumer;
use super::shared::{Shared, Slot};

/// After this long without confirmation a position is sent again: the client never tells of an
/// asynchronous commit that failed.
const CONFIRM_LIMIT: Duration = Duration::from_secs(5);

/// Sends what advanced, without waiting. While nobody could take it nothing is sent: it would wait
/// in the client and arrive when the assignment may be another's.
pub(super) fn soon(shared: &Shared, consumer: &GroupConsumer) {
    let now = Instant::now();
    if shared.reach.is_lost(now) || consumer.assignment_lost() {
        return;
    }
    let mut offsets = TopicPartitionList::new();
    for topic in &shared.topics {
        for slot in lock(&topic.slots).values_mut() {
            let moved = slot.held.position().is_some_and(|position| slot.needs_sending(position, now, shared));
            if !moved {
                continue;
            }
            if let Some(position) = position(shared, slot) {
                add(&mut offsets, slot, position);
                slot.sent = Some((position, now));
            }
        }
    }
    if offsets.count() > 0
        && let Err(error) = consumer.commit(&offsets, CommitMode::Async)
    {
        shared.counters.commits_failed.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(group = %shared.group, "commit: {error}");
    }
}

/// Commits and reads back, within `limit`. librdkafka's own synchronous commit has no limit and
/// waits a session time-out when the broker is away; a commit followed by a question on the same
/// connection is bounded, and its answer is the proof. A broker that does not answer the first
/// question gets no commit at all: an unanswered one would hold up the close.
///
/// Returns whether everything is committed.
pub(super) fn now(shared: &Shared, consumer: &GroupConsumer, slots: &[Slot], limit: Duration) -> bool {
    let mut offsets = TopicPartitionList::new();
    for slot in slots {
        if let Some(position) = position(shared, slot)
            && slot.facts.committed != Some(position)
        {
            add(&mut offsets, slot, position);
        }
    }
    if offsets.count() == 0 {
        return true;
    }
    let done = consumer.committed_offsets(offsets.clone(), limit / 2).and_then(|committed| {
        if same(&committed, &offsets) {
            return Ok(committed);
        }
        consumer.commit(&offsets, CommitMode::Async)?;
        consumer.committed_offsets(offsets.clone(), limit / 2)
    });
    let problem = match done {
        Ok(committed) if same(&committed, &offsets) => return true,
        Ok(_) => "the broker kept another offset".to_owned(),
        Err(error) => error.to_string(),
    };
    shared.counters.commits_failed.fetch_add(1, Ordering::Relaxed);
    tracing::warn!(group = %shared.group, "the last commit did not go through, some records come again: {problem}");
    false
}

impl Slot {
    fn needs_sending(&self, position: i64, now: Instant, shared: &Shared) -> bool {
        let Some((sent, at)) = self.sent else { return true };
        if sent != position {
            return true;
        }
        let unconfirmed = self.facts.committed != Some(position) && now.duration_since(at) > CONFIRM_LIMIT;
        if unconfirmed {
            shared.counters.commits_failed.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(group = %shared.group, "a commit was not confirmed, sending it again");
        }
        unconfirmed
    }
}

/// The position to commit; a ledger that contradicts itself commits nothing, so that its records
/// come again rather than being lost.
fn position(shared: &Shared, slot: &Slot) -> Option<i64> {
    slot.held.commit_position().unwrap_or_else(|contradiction| {
        shared.counters.commits_refused.fetch_add(1, Ordering::Relaxed);
        tracing::error!(
            group = %shared.group,
            "refused to commit {}/{}: {contradiction}",
            slot.held.topic,
            slot.held.partition
        );
        None
    })
}

fn same(committed: &TopicPartitionList, asked: &TopicPartitionList) -> bool {
    asked.elements().iter().all(|asked| {
        let found = committed.find_partition(asked.topic(), asked.partition());
        found.is_some_and(|found| found.offset() == asked.offset())
    })
}

fn add(offsets: &mut TopicPartitionList, slot: &Slot, position: i64) {
    let mut element = offsets.add_partition(&slot.held.topic, slot.held.partition);
    if let Err(error) = element.set_offset(Offset::Offset(position)) {
        tracing::error!("offset {position}: {error}");
    }
}
