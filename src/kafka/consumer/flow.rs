//! Back-pressure: pausing the partitions of a topic whose reader is behind.
//!
//! Pausing throws away what librdkafka read ahead, and after it the next fetch may have to wait
//! until one without these partitions has timed out: paused and resumed under load, a topic came
//! to a stand for half a second each time. So a full inbox holds up the thread while its reader
//! keeps making room, and a paused topic resumes only at half. Only a
//! partition that already delivered something is paused, only what was paused here is resumed,
//! and nothing is paused inside a rebalance: each of these once left a partition silent for ever.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::topic_partition_list::TopicPartitionList;

use crate::kafka::sync::lock;

use super::rebalance::GroupConsumer;
use super::shared::{Shared, Slot, Topic};

/// How long a full inbox may hold up the thread before its topic is paused: a reader that takes a
/// batch in this time is merely the slower of the two.
const GRACE: Duration = Duration::from_millis(100);
/// Without a record for this long, a topic counts as quiet.
const QUIET_AFTER: Duration = Duration::from_secs(2);
/// How long a quiet consumer's thread sleeps in one poll.
pub(super) const QUIET_POLL: Duration = Duration::from_millis(300);
/// Records behind one that does not become durable; beyond it the topic pauses, so that neither
/// the ledger nor what a crash repeats grows without bound.
const SPAN_LIMIT: usize = 1 << 18;

/// How the thread should poll.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// When something was last paused, while anything is.
    paused_since: Option<Instant>,
}

impl Flow {
    /// Pauses and resumes as the inboxes demand.
    pub(super) fn adjust(&mut self, shared: &Shared, consumer: &GroupConsumer) {
        let mut pause = TopicPartitionList::new();
        let mut resume = TopicPartitionList::new();
        for topic in &shared.topics {
            let mut slots = lock(&topic.slots);
            if slots.values().any(|slot| slot.paused) && may_resume(topic, &slots) {
                for slot in slots.values_mut().filter(|slot| slot.paused) {
                    slot.paused = false;
                    slot.moved_at = Instant::now();
                    resume.add_partition(&topic.name, slot.held.partition);
                }
            } else if slots.values().any(Slot::can_pause) && must_pause(topic, &slots) {
                for slot in slots.values_mut().filter(|slot| slot.can_pause()) {
                    slot.paused = true;
                    pause.add_partition(&topic.name, slot.held.partition);
                }
            }
        }
        if pause.count() > 0 {
            self.paused_since = Some(Instant::now());
            if let Err(error) = consumer.pause(&pause) {
                tracing::warn!(group = %shared.group, "pause: {error}");
            }
        }
        if resume.count() > 0
            && let Err(error) = consumer.resume(&resume)
        {
            tracing::warn!(group = %shared.group, "resume: {error}");
        }
        if self.paused_since.is_some() && !any_paused(shared) {
            self.paused_since = None;
        }
    }

    /// How long to poll: while something is paused the thread must notice that its reader caught
    /// up, soon at first, then less and less often. Below a millisecond librdkafka would spin.
    /// With nothing to read for a while, it may sleep longer: an idle process has many of these.
    pub(super) fn poll_timeout(&self, quiet: Duration) -> Duration {
        match self.paused_since.map(|since| since.elapsed()) {
            None if quiet > QUIET_AFTER => QUIET_POLL,
            None => Duration::from_millis(100),
            Some(age) if age < Duration::from_millis(200) => Duration::from_millis(2),
            Some(age) if age < Duration::from_secs(2) => Duration::from_millis(10),
            Some(_) => Duration::from_millis(50),
        }
    }
}

impl Slot {
    fn can_pause(&self) -> bool {
        self.flowing && !self.paused
    }
}

fn any_paused(shared: &Shared) -> bool {
    shared.topics.iter().any(|topic| lock(&topic.slots).values().any(|slot| slot.paused))
}

fn longest_span(slots: &BTreeMap<i32, Slot>) -> usize {
    slots.values().map(|slot| slot.held.span()).max().unwrap_or(0)
}

fn may_resume(topic: &Topic, slots: &BTreeMap<i32, Slot>) -> bool {
    topic.inbox.is_half_empty() && longest_span(slots) <= SPAN_LIMIT / 2
}

fn must_pause(topic: &Topic, slots: &BTreeMap<i32, Slot>) -> bool {
    if longest_span(slots) > SPAN_LIMIT {
        return true;
    }
    // Not while something of it is paused already: then the reader is known to be slow.
    let already = slots.values().any(|slot| slot.paused);
    topic.inbox.is_full() && (already || !topic.inbox.wait_for_room(GRACE))
}
