//! The consumer's thread.

use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};

use crate::kafka::KafkaError;
use crate::kafka::context::Listener;
use crate::kafka::options::{Scrubber, create};
use crate::kafka::sync::lock;
use crate::ports::Stopped;

use super::assignment::Held;
use super::flow::{Flow, QUIET_POLL};
use super::ledger::Delivery;
use super::rebalance::{GroupConsumer, GroupContext, give_back};
use super::sentinel;
use super::shared::{Scope, Shared, Slot, Topic};
use super::{commit, record};

/// Records between two looks at inboxes, commits and the clock.
const BURST: usize = 512;
const COMMIT_INTERVAL: Duration = Duration::from_millis(250);
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a wrong password, a missing right or a missing topic may last before the consumer
/// gives up. A topic that is being created, or a broker that has not loaded its users, is quicker.
const TROUBLE_LIMIT: Duration = Duration::from_secs(5);
/// A commit that waited for the coordinator is sent at most this long after the session's end.
const SELF_FENCE_LIMIT: Duration = Duration::from_secs(30);
/// How long a successor waits for the former client to leave the group: that it is out first spares the
/// group a rebalance.
const FAREWELL_LIMIT: Duration = Duration::from_secs(2);
/// Clients that could not be closed; each keeps its threads until the process ends.
const GRAVES_MAX: u32 = 8;
/// How long a question about a topic may hold up the thread.
const METADATA_LIMIT: Duration = Duration::from_secs(1);

/// Why the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    Asked,
    Failed,
    /// The topic was allowed to vanish, and has.
    Gone,
    /// A partition stands still for no reason, or the client has forgotten its brokers: a new
    /// client is the cure.
    Stuck,
    /// The client fenced itself: a new one is the cure.
    FencedItself,
}

/// Everything that a client of the group is made from.
pub(super) struct Runner {
    config: ClientConfig,
    scrubber: Scrubber,
    static_id: Option<String>,
    may_vanish: bool,
    shared: Arc<Shared>,
}

impl Runner {
    pub(super) fn new(
        config: ClientConfig,
        scrubber: Scrubber,
        static_id: Option<String>,
        may_vanish: bool,
        shared: Arc<Shared>,
    ) -> Self {
        Self { config, scrubber, static_id, may_vanish, shared }
    }

    /// A client that subscribes to the group's topics.
    pub(super) fn connect(&self) -> Result<GroupConsumer, KafkaError> {
        let context = GroupContext::new(Arc::clone(&self.shared), Listener::new(self.scrubber.clone()));
        let consumer: GroupConsumer = create(&self.config, context, &self.scrubber)?;
        let topics: Vec<&str> = self.shared.topics.iter().map(|topic| &*topic.name).collect();
        consumer
            .subscribe(&topics)
            .map_err(|source| KafkaError::Subscribe { group: self.shared.group.clone(), source })?;
        Ok(consumer)
    }

    /// Polls until asked to stop. The client is closed on this thread, where waiting is allowed.
    pub(super) fn run(self, consumer: GroupConsumer) {
        let shared = Arc::clone(&self.shared);
        // If this thread panics, its readers must not wait for ever.
        let _guard = StopOnDrop(Arc::clone(&shared));
        let (mut consumer, mut graves) = (consumer, 0);
        loop {
            let exit = self.poll(&consumer);
            give_up(&shared, &consumer, exit);
            if matches!(exit, Exit::Asked | Exit::Failed | Exit::Gone) || shared.should_stop() {
                drop(consumer);
                break;
            }
            if !bury(consumer, FAREWELL_LIMIT) {
                graves += 1;
                tracing::warn!(group = %shared.group, graves, "the former client does not close: it is left behind");
                if graves > GRAVES_MAX {
                    shared.fail(
                        "its client was stuck again and again, and could not be closed: a new process is the cure",
                    );
                    break;
                }
            }
            if shared.should_stop() {
                break;
            }
            shared.counters.rebuilds.fetch_add(1, Ordering::Relaxed);
            match self.connect() {
                Ok(anew) => consumer = anew,
                Err(error) => {
                    shared.fail(&error.to_string());
                    break;
                }
            }
        }
        shared.stop_inboxes(&Stopped::Closed);
    }

    fn poll(&self, consumer: &GroupConsumer) -> Exit {
        let mut flow = Flow::default();
        let (mut committed_at, mut checked_at, mut read_at) = (Instant::now(), Instant::now(), Instant::now());
        while !self.shared.should_stop() {
            if self.burst(consumer, flow.poll_timeout(read_at.elapsed())) {
                if committed_at > read_at {
                    // The first since the last commit: its reader gets its time, rather than that
                    // a part of what it is just working on is committed alone.
                    committed_at = Instant::now();
                }
                read_at = Instant::now();
            }
            self.shared.polled();
            flow.adjust(&self.shared, consumer);
            if committed_at.elapsed() >= COMMIT_INTERVAL {
                commit::soon(&self.shared, consumer);
                committed_at = Instant::now();
            }
            if let Some((code, text)) = consumer.client().fatal_error() {
                if self.fenced_itself(code) {
                    return Exit::FencedItself;
                }
                let text = self.explain(code, &text);
                self.shared.fail(&text);
                return Exit::Failed;
            }
            if checked_at.elapsed() >= CHECK_INTERVAL {
                checked_at = Instant::now();
                if let Some(exit) = self.lasting_trouble(consumer) {
                    return exit;
                }
                if self.shared.reach.take_forgotten(Instant::now()) {
                    tracing::error!(group = %self.shared.group, "the client has forgotten every broker: making a new one");
                    return Exit::Stuck;
                }
                if sentinel::is_stuck(&self.shared, consumer) {
                    return Exit::Stuck;
                }
            }
        }
        Exit::Asked
    }

    /// Waits for a record, then takes those that are there already; whether there was any.
    fn burst(&self, consumer: &GroupConsumer, timeout: Duration) -> bool {
        self.shared.sleeps_until((timeout == QUIET_POLL).then(|| Instant::now() + timeout));
        let mut timeout = timeout;
        let mut filled = false;
        for _ in 0..BURST {
            match consumer.poll(timeout) {
                Some(Ok(message)) => {
                    let full = self.accept(&message);
                    filled = true;
                    if full {
                        break;
                    }
                }
                Some(Err(error)) => self.note(&error),
                None => break,
            }
            timeout = Duration::ZERO;
        }
        if filled {
            for topic in &self.shared.topics {
                topic.inbox.wake();
            }
        }
        filled
    }

    /// Hands a record to its topic's inbox; `true` if that is full.
    fn accept(&self, message: &BorrowedMessage<'_>) -> bool {
        let Some(topic) = self.shared.topic(message.topic()) else { return false };
        let mut slots = lock(&topic.slots);
        // A record of a partition that was just given back comes again at its next holder.
        let Some(slot) = slots.get_mut(&message.partition()) else { return false };
        topic.deliver(slot, message.offset());
        slot.flowing = true;
        let held = Arc::<Held>::clone(&slot.held);
        let record = record::copy(message, &slot.held.topic, held);
        drop(slots);
        topic.inbox.push(record)
    }

    fn note(&self, error: &ClientError) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::PollExceeded) {
            self.shared.counters.polls_exceeded.fetch_add(1, Ordering::Relaxed);
        }
        // Its text went through the context; what it means is judged by `poll` and `lasting_trouble`.
        tracing::debug!(group = %self.shared.group, "poll: {error}");
    }

    /// librdkafka forgets its member id when a session ends, and then sends commits that had waited
    /// for the coordinator. To the coordinator, which still knows the id that this very member
    /// had, they come from an impostor. So a fence right after the end of a session proves no
    /// other process of this name; if there is one, the next fence comes without such an end.
    fn fenced_itself(&self, code: RDKafkaErrorCode) -> bool {
        let itself = is_fence(code) && self.static_id.is_some() && self.shared.take_session_end(SELF_FENCE_LIMIT);
        if itself {
            tracing::warn!(group = %self.shared.group, "fenced by its own former session: making a new client");
        }
        itself
    }

    fn explain(&self, code: RDKafkaErrorCode, text: &str) -> String {
        match &self.static_id {
            Some(id) if is_fence(code) => format!(
                "another process took the name {id} in group {}: names of processes must be unique",
                self.shared.group
            ),
            Some(_) | None => format!("{code}: {}", self.scrubber.clean(text)),
        }
    }

    /// What has stood in the way for too long.
    fn lasting_trouble(&self, consumer: &GroupConsumer) -> Option<Exit> {
        let trouble = lock(&self.shared.trouble).clone()?;
        if trouble.since.elapsed() < TROUBLE_LIMIT {
            return None;
        }
        let over = match trouble.scope {
            Scope::Topic => match self.look_at_topics(consumer) {
                Seen::There => true,
                Seen::Missing if self.may_vanish => {
                    tracing::info!(group = %self.shared.group, "the topic is gone: {}", trouble.text);
                    self.shared.gone.store(true, Ordering::Release);
                    self.shared.stop_inboxes(&Stopped::Gone);
                    return Some(Exit::Gone);
                }
                Seen::Missing | Seen::Unusable => false,
            },
            Scope::Login | Scope::Group => self.shared.joined.load(Ordering::Acquire),
        };
        if !over {
            self.shared.fail(&trouble.text);
            return Some(Exit::Failed);
        }
        *lock(&self.shared.trouble) = None;
        None
    }

    /// Asks the brokers; when they do not answer, the trouble is theirs and passes.
    fn look_at_topics(&self, consumer: &GroupConsumer) -> Seen {
        let mut seen = Seen::There;
        for topic in &self.shared.topics {
            let Ok(metadata) = consumer.fetch_metadata(Some(&topic.name), METADATA_LIMIT) else { continue };
            for found in metadata.topics() {
                match found.error().map(RDKafkaErrorCode::from) {
                    Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                        seen = Seen::Missing;
                    }
                    None if !found.partitions().is_empty() => {}
                    Some(_) | None => return Seen::Unusable,
                }
            }
        }
        seen
    }
}

/// What the brokers say of a group's topics.
enum Seen {
    There,
    /// One does not exist.
    Missing,
    /// One is there and cannot be used.
    Unusable,
}

fn is_fence(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::FencedInstanceId | RDKafkaErrorCode::Fenced)
}

impl Topic {
    fn deliver(&self, slot: &mut Slot, offset: i64) {
        slot.moved_at = Instant::now();
        match slot.held.deliver(offset) {
            Delivery::InOrder => {}
            Delivery::AfterGap(skipped) => {
                self.gaps.fetch_add(1, Ordering::Relaxed);
                self.skipped.fetch_add(u64::try_from(skipped).unwrap_or(0), Ordering::Relaxed);
                tracing::debug!("{}/{}: {skipped} offsets are missing before {offset}", self.name, slot.held.partition);
            }
            Delivery::Again => {
                self.replayed.fetch_add(1, Ordering::Relaxed);
            }
            Delivery::Rewound => {
                tracing::warn!("{}/{}: went back to offset {offset}", self.name, slot.held.partition);
                self.replayed.fetch_add(1, Ordering::Relaxed);
                slot.held.end();
                self.inbox.purge(&slot.held);
                let anew = Held::new(Arc::clone(&self.name), slot.held.partition, None);
                anew.deliver(offset);
                slot.held = Arc::new(anew);
                slot.progress = super::progress::Progress::default();
                slot.sent = None;
            }
        }
    }
}

/// Gives everything back, unless the client is not a member any more. What the client tells after this
/// concerns nobody.
fn give_up(shared: &Shared, consumer: &GroupConsumer, exit: Exit) {
    if exit == Exit::Asked {
        shared.stop_inboxes(&Stopped::Closed);
    }
    let slots: Vec<Slot> =
        shared.topics.iter().flat_map(|topic| std::mem::take(&mut *lock(&topic.slots)).into_values()).collect();
    if matches!(exit, Exit::Failed | Exit::FencedItself) || consumer.assignment_lost() {
        // What was not committed yet cannot be any more, and comes again.
        for slot in &slots {
            slot.held.begin_draining();
        }
    } else if !give_back(shared, consumer, &slots) {
        shared.uncommitted.store(true, Ordering::Release);
    }
    for slot in &slots {
        slot.held.end();
        if let Some(topic) = shared.topic(&slot.held.topic) {
            topic.inbox.purge(&slot.held);
        }
    }
    consumer.context().retire();
    shared.joined.store(false, Ordering::Release);
}

/// Drops something on a thread of its own and waits for that up to `limit`; whether it was long enough.
///
/// A client that was in the middle of a rebalance when it forgot its brokers waits for its coordinator
/// for ever before it is closed, and its successor must not wait with it.
fn bury<T: Send + 'static>(thing: T, limit: Duration) -> bool {
    let (dropped, wait) = mpsc::sync_channel(1);
    let grave = thread::Builder::new().name("kafka-closing".to_owned()).spawn(move || {
        drop(thing);
        // Whoever waited may have gone on.
        let _gone_on = dropped.send(());
    });
    // Without a thread it was dropped right here.
    grave.is_err() || wait.recv_timeout(limit).is_ok()
}

/// Ends the subscriptions even if the thread panics.
struct StopOnDrop(Arc<Shared>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail("the consumer's thread panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that closes only when its broker is back.
    struct Closing(mpsc::Receiver<()>);

    impl Drop for Closing {
        fn drop(&mut self) {
            let _back_or_never = self.0.recv();
        }
    }

    #[test]
    fn a_client_that_does_not_close_holds_up_its_successor_for_a_moment_only() {
        let (back, broker) = mpsc::sync_channel(1);
        assert!(!bury(Closing(broker), Duration::from_millis(20)));
        drop(back);
    }

    #[test]
    fn a_client_that_closes_is_waited_for() {
        let (back, broker) = mpsc::sync_channel(1);
        drop(back);
        assert!(bury(Closing(broker), Duration::from_secs(60)));
    }
}
