//! Back-pressure: pausing the partitions of a topic whose reader is behind, and those of which it
//! wants no more for now.
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
use super::shared::{Paused, Shared, Slot, Topic};

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
    /// When something was last paused because its reader is behind, while anything is.
    paused_since: Option<Instant>,
}

impl Flow {
    /// Pauses and resumes as the inboxes demand.
    pub(super) fn adjust(&mut self, shared: &Shared, consumer: &GroupConsumer) {
        let mut pause = TopicPartitionList::new();
        let mut resume = TopicPartitionList::new();
        for topic in &shared.topics {
            let mut slots = lock(&topic.slots);
            let is_full = is_full(topic, &slots);
            for slot in slots.values_mut() {
                let why = slot.why_pause(is_full, topic.inbox.is_wanted(slot.held.partition));
                match (slot.paused, why) {
                    (None, Some(_)) => {
                        pause.add_partition(&topic.name, slot.held.partition);
                    }
                    (Some(_), None) => {
                        slot.moved_at = Instant::now();
                        resume.add_partition(&topic.name, slot.held.partition);
                    }
                    (None, None) | (Some(_), Some(_)) => {}
                }
                if slot.paused != Some(Paused::Full) && why == Some(Paused::Full) {
                    self.paused_since = Some(Instant::now());
                }
                slot.paused = why;
            }
        }
        if pause.count() > 0
            && let Err(error) = consumer.pause(&pause)
        {
            tracing::warn!(group = %shared.group, "pause: {error}");
        }
        if resume.count() > 0
            && let Err(error) = consumer.resume(&resume)
        {
            tracing::warn!(group = %shared.group, "resume: {error}");
        }
        if self.paused_since.is_some() && !shared.topics.iter().any(|topic| any_full(&lock(&topic.slots))) {
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
        self.flowing && self.paused.is_none()
    }

    /// Why it is to be paused, if it is.
    fn why_pause(&self, is_full: bool, is_wanted: bool) -> Option<Paused> {
        let why = if is_full { Some(Paused::Full) } else { (!is_wanted).then_some(Paused::Unwanted) };
        why.filter(|_| self.paused.is_some() || self.flowing)
    }
}

fn any_full(slots: &BTreeMap<i32, Slot>) -> bool {
    slots.values().any(|slot| slot.paused == Some(Paused::Full))
}

fn longest_span(slots: &BTreeMap<i32, Slot>) -> usize {
    slots.values().map(|slot| slot.held.span()).max().unwrap_or(0)
}

/// Whether the reader of a topic is behind: from a full inbox on until it is half empty.
fn is_full(topic: &Topic, slots: &BTreeMap<i32, Slot>) -> bool {
    if any_full(slots) {
        return !topic.inbox.is_half_empty() || longest_span(slots) > SPAN_LIMIT / 2;
    }
    if !slots.values().any(Slot::can_pause) {
        return false;
    }
    longest_span(slots) > SPAN_LIMIT || topic.inbox.is_full() && !topic.inbox.wait_for_room(GRACE)
}
