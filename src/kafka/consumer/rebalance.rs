//! The group's callbacks: partitions come, partitions go.
//!
//! A revocation runs on the consumer's thread in this order: the generation is marked as ending,
//! so that roles begin nothing new with it; its unread records are dropped; what roles have in
//! hand gets at most a second to become durable; the position is committed and read back; the
//! generation ends. If the assignment was already lost, others may own the partition: then
//! nothing is waited for and nothing committed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::kafka::context::Listener;
use crate::kafka::statistics::{PartitionFacts, Statistics};
use crate::kafka::sync::lock;
use crate::ports::Assignment;

use super::assignment::Held;
use super::commit;
use super::shared::{Scope, Shared, Slot};

/// How long a revocation waits for the records that roles have in hand.
const IN_HAND_LIMIT: Duration = Duration::from_secs(1);
/// How long a synchronous commit may take.
pub(super) const COMMIT_LIMIT: Duration = Duration::from_secs(2);
/// What librdkafka's log calls the end of a session that it notices by itself.
const SESSION_TIMED_OUT: &str = "SESSTMOUT";
/// How long an assignment waits to learn where it begins.
const COMMITTED_LIMIT: Duration = Duration::from_millis(500);

/// The context of a group's client.
#[derive(Debug)]
pub(super) struct GroupContext {
    shared: Arc<Shared>,
    listener: Listener,
    /// The client was given up, and another may be in its place.
    retired: AtomicBool,
}

pub(super) type GroupConsumer = BaseConsumer<GroupContext>;

impl ClientContext for GroupContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility == SESSION_TIMED_OUT && !self.is_retired() {
            self.shared.session_ended();
        }
        self.listener.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if matches!(error, KafkaError::Global(RDKafkaErrorCode::PartitionEOF)) {
            return;
        }
        self.listener.error(&error, reason);
        if self.is_retired() {
            return;
        }
        let Some(code) = error.rdkafka_error_code() else { return };
        if matches!(code, RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::Resolve) {
            self.shared.unreachable();
            self.shared.reach.a_connection_failed(Instant::now());
        } else if code == RDKafkaErrorCode::AllBrokersDown {
            self.shared.reach.none_answers(Duration::ZERO, Instant::now());
        } else if let Some(scope) = scope_of_lasting(code) {
            self.shared.troubled(scope, self.listener.clean(reason));
        }
    }

    fn stats_raw(&self, json: &[u8]) {
        if self.is_retired() {
            return;
        }
        match Statistics::parse(json) {
            Ok(statistics) => self.note(&statistics),
            Err(error) => tracing::warn!("librdkafka's statistics cannot be read: {error}"),
        }
        self.shared.sleep_through_the_fraction();
    }
}

impl ConsumerContext for GroupContext {
    fn pre_rebalance(&self, consumer: &GroupConsumer, rebalance: &Rebalance<'_>) {
        if self.is_retired() {
            return;
        }
        self.shared.counters.rebalances.fetch_add(1, Ordering::Relaxed);
        match rebalance {
            Rebalance::Assign(partitions) => self.assign(consumer, partitions),
            Rebalance::Revoke(partitions) => self.revoke(consumer, partitions),
            Rebalance::Error(error) => {
                tracing::error!(group = %self.shared.group, "rebalance: {error}");
            }
        }
        self.shared.polled();
    }
}

impl GroupContext {
    pub(super) fn new(shared: Arc<Shared>, listener: Listener) -> Self {
        Self { shared, listener, retired: AtomicBool::new(false) }
    }

    /// From now on nothing that the client tells changes what is known of the member.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    fn assign(&self, consumer: &GroupConsumer, partitions: &TopicPartitionList) {
        let begins = self.beginnings(consumer, partitions);
        for element in partitions.elements() {
            let Some(topic) = self.shared.topic(element.topic()) else { continue };
            let partition = element.partition();
            let begin = begins.as_ref().and_then(|begins| self.beginning(begins, &topic.name, partition));
            let held = Arc::new(Held::new(Arc::clone(&topic.name), partition, begin));
            topic.inbox.assigned(partition);
            let replaced = lock(&topic.slots).insert(partition, Slot::new(held));
            if let Some(slot) = replaced {
                slot.held.end();
                topic.inbox.purge(&slot.held);
            }
        }
        *lock(&self.shared.trouble) = None;
        self.shared.joined.store(true, Ordering::Release);
        tracing::info!(group = %self.shared.group, "assigned: {}", names(partitions));
    }

    /// The committed offsets, to tell a gap at the very beginning. Not knowing them costs nothing
    /// but that.
    fn beginnings(&self, consumer: &GroupConsumer, partitions: &TopicPartitionList) -> Option<TopicPartitionList> {
        if partitions.count() == 0 {
            return None;
        }
        let mut asked = TopicPartitionList::with_capacity(partitions.count());
        for element in partitions.elements() {
            asked.add_partition(element.topic(), element.partition());
        }
        match consumer.committed_offsets(asked, COMMITTED_LIMIT) {
            Ok(committed) => Some(committed),
            Err(error) => {
                tracing::debug!(group = %self.shared.group, "committed offsets are not known: {error}");
                None
            }
        }
    }

    fn beginning(&self, committed: &TopicPartitionList, topic: &str, partition: i32) -> Option<i64> {
        match committed.find_partition(topic, partition)?.offset() {
            Offset::Offset(offset) => Some(offset),
            Offset::Invalid if self.shared.begins_at_zero => Some(0),
            Offset::Invalid | Offset::Beginning | Offset::End | Offset::Stored | Offset::OffsetTail(_) => None,
        }
    }

    fn revoke(&self, consumer: &GroupConsumer, partitions: &TopicPartitionList) {
        let mut slots = Vec::new();
        let mut paused = TopicPartitionList::new();
        for element in partitions.elements() {
            let Some(topic) = self.shared.topic(element.topic()) else { continue };
            let Some(slot) = lock(&topic.slots).remove(&element.partition()) else { continue };
            if slot.paused.is_some() {
                paused.add_partition(element.topic(), element.partition());
            }
            slots.push(slot);
        }
        if consumer.assignment_lost() {
            self.shared.joined.store(false, Ordering::Release);
            self.shared.session_ended();
            self.shared.counters.lost.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(group = %self.shared.group, "lost: {}", names(partitions));
        } else {
            // What is not committed was told there, and comes again at the next holder.
            let _committed = give_back(&self.shared, consumer, &slots);
            tracing::info!(group = %self.shared.group, "revoked: {}", names(partitions));
        }
        for slot in &slots {
            slot.held.end();
            purge(&self.shared, &slot.held);
        }
        // librdkafka keeps an application's pause beyond the assignment: a partition that came
        // back would stay silent. It is settled now, and nothing more is fetched before it goes.
        if paused.count() > 0
            && let Err(error) = consumer.resume(&paused)
        {
            tracing::warn!(group = %self.shared.group, "resuming what is given back: {error}");
        }
    }

    fn note(&self, statistics: &Statistics) {
        let now = Instant::now();
        self.shared.reach.note(statistics, now);
        for (topic, partition, facts) in statistics.partitions() {
            let Some(topic) = self.shared.topic(topic) else { continue };
            if let Some(slot) = lock(&topic.slots).get_mut(&partition) {
                // The end of the log is not always known anew; what was known still holds.
                let high = facts.high.or(slot.facts.high);
                slot.facts = PartitionFacts { high, ..facts };
                slot.progress.note(slot.facts, slot.held.position(), now);
            }
        }
        for topic in &self.shared.topics {
            let slots = lock(&topic.slots);
            let age = |(partition, slot): (&i32, &Slot)| slot.progress.age(now).map(|age| (*partition, age, now));
            topic.inbox.set_ages(slots.iter().filter_map(age).collect());
        }
        if statistics.is_steady() {
            self.shared.joined.store(true, Ordering::Release);
        }
    }
}

/// Ends generations in order; used by revocations and by the close. Returns whether everything
/// that is durable is committed.
pub(super) fn give_back(shared: &Shared, consumer: &GroupConsumer, slots: &[Slot]) -> bool {
    for slot in slots {
        slot.held.begin_draining();
        purge(shared, &slot.held);
    }
    let until = Instant::now() + IN_HAND_LIMIT;
    while slots.iter().any(|slot| is_in_hand(&slot.held)) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(2));
    }
    commit::now(shared, consumer, slots, COMMIT_LIMIT)
}

/// Whether a role may still report a record of it: some are open, and somebody holds one.
fn is_in_hand(held: &Arc<Held>) -> bool {
    held.open() > 0 && Arc::strong_count(held) > 1
}

fn purge(shared: &Shared, held: &Held) {
    debug_assert!(!held.is_live(), "only what is given back is dropped");
    if let Some(topic) = shared.topic(&held.topic) {
        topic.inbox.purge(held);
    }
}

/// What an error concerns, if it lasts until somebody changes something.
fn scope_of_lasting(code: RDKafkaErrorCode) -> Option<Scope> {
    const LASTING: [(RDKafkaErrorCode, Scope); 13] = [
        (RDKafkaErrorCode::Authentication, Scope::Login),
        (RDKafkaErrorCode::SaslAuthenticationFailed, Scope::Login),
        (RDKafkaErrorCode::UnsupportedSASLMechanism, Scope::Login),
        (RDKafkaErrorCode::SSL, Scope::Login),
        (RDKafkaErrorCode::GroupAuthorizationFailed, Scope::Group),
        (RDKafkaErrorCode::ClusterAuthorizationFailed, Scope::Group),
        (RDKafkaErrorCode::InvalidGroupId, Scope::Group),
        (RDKafkaErrorCode::InvalidSessionTimeout, Scope::Group),
        (RDKafkaErrorCode::InconsistentGroupProtocol, Scope::Group),
        (RDKafkaErrorCode::TopicAuthorizationFailed, Scope::Topic),
        (RDKafkaErrorCode::UnknownTopicOrPartition, Scope::Topic),
        (RDKafkaErrorCode::UnknownTopic, Scope::Topic),
        (RDKafkaErrorCode::InvalidTopic, Scope::Topic),
    ];
    LASTING.iter().find(|(lasting, _)| *lasting == code).map(|(_, scope)| *scope)
}

fn names(partitions: &TopicPartitionList) -> String {
    if partitions.count() == 0 {
        return "nothing".to_owned();
    }
    let names: Vec<String> =
        partitions.elements().iter().map(|element| format!("{}/{}", element.topic(), element.partition())).collect();
    names.join(" ")
}
