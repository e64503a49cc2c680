//! What a consumer's thread, its rebalance callbacks and its status have in common.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::kafka::reach::Reach;
use crate::kafka::statistics::PartitionFacts;
use crate::kafka::sync::lock;
use crate::ports::Stopped;

use super::assignment::Held;
use super::inbox::Inbox;
use super::progress::Progress;
use super::status::{ConsumerStatus, TopicStatus};

/// A held partition, and what the thread knows of it.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) held: Arc<Held>,
    /// Why we paused it; only then may it be resumed.
    pub(super) paused: Option<Paused>,
    /// Something came from it in this assignment. Before that, a pause can make librdkafka forget
    /// where to begin.
    pub(super) flowing: bool,
    /// The last offset that was asked to be committed, and when.
    pub(super) sent: Option<(i64, Instant)>,
    pub(super) facts: PartitionFacts,
    pub(super) progress: Progress,
    /// When the position last moved or had no reason to.
    pub(super) moved_at: Instant,
}

/// Why a partition is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paused {
    /// The reader of its topic is behind.
    Full,
    /// Its reader wants no more of it for now.
    Unwanted,
}

/// One topic of the group.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) name: Arc<str>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) slots: Mutex<BTreeMap<i32, Slot>>,
    pub(super) gaps: AtomicU64,
    pub(super) skipped: AtomicU64,
    pub(super) replayed: AtomicU64,
}

/// Counters of a consumer.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) rebalances: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) polls_exceeded: AtomicU64,
    pub(super) commits_refused: AtomicU64,
    pub(super) commits_failed: AtomicU64,
    pub(super) rebuilds: AtomicU64,
}

/// What does not pass by itself, if it lasts.
#[derive(Debug, Clone)]
pub(super) struct Trouble {
    pub(super) since: Instant,
    pub(super) scope: Scope,
    pub(super) text: String,
}

/// What a trouble concerns, and so what disproves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Logging in: a membership disproves it, and so does a broker that cannot even be reached.
    Login,
    /// The group: a membership disproves it.
    Group,
    /// A topic: the broker must be asked.
    Topic,
}

/// One consumer.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) group: String,
    pub(super) topics: Vec<Topic>,
    pub(super) joined: AtomicBool,
    pub(super) reach: Reach,
    /// When the group last gave this member up, or the member itself, for want of an answer.
    session_ended_at: Mutex<Option<Instant>>,
    pub(super) stop: AtomicBool,
    /// Closed, and the last commit was not confirmed.
    pub(super) uncommitted: AtomicBool,
    pub(super) counters: Counters,
    pub(super) trouble: Mutex<Option<Trouble>>,
    pub(super) failed: Mutex<Option<String>>,
    /// The topic was allowed to vanish, and has.
    pub(super) gone: AtomicBool,
    /// Whether a partition without a committed offset must begin at 0.
    pub(super) begins_at_zero: bool,
    started: Instant,
    polled_after_ms: AtomicU64,
    /// When the poll of a quiet consumer ends, if nothing comes.
    sleeps_until: Mutex<Option<Instant>>,
}

/// A sleep takes so much longer than it should.
const OVERSLEEP: Duration = Duration::from_micros(200);

impl Shared {
    pub(super) fn new(group: String, topics: Vec<(Arc<str>, Arc<Inbox>)>, begins_at_zero: bool) -> Self {
        let topics = topics
            .into_iter()
            .map(|(name, inbox)| Topic {
                name,
                inbox,
                slots: Mutex::default(),
                gaps: AtomicU64::new(0),
                skipped: AtomicU64::new(0),
                replayed: AtomicU64::new(0),
            })
            .collect();
        Self {
            group,
            topics,
            joined: AtomicBool::new(false),
            reach: Reach::new(super::STATISTICS),
            session_ended_at: Mutex::new(None),
            stop: AtomicBool::new(false),
            uncommitted: AtomicBool::new(false),
            counters: Counters::default(),
            trouble: Mutex::new(None),
            failed: Mutex::new(None),
            gone: AtomicBool::new(false),
            begins_at_zero,
            started: Instant::now(),
            polled_after_ms: AtomicU64::new(0),
            sleeps_until: Mutex::new(None),
        }
    }

    pub(super) fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.iter().find(|topic| &*topic.name == name)
    }

    pub(super) fn polled(&self) {
        let after = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.polled_after_ms.store(after, Ordering::Relaxed);
    }

    pub(super) fn sleeps_until(&self, end: Option<Instant>) {
        *lock(&self.sleeps_until) = end;
    }

    /// A poll that was interrupted goes on for the whole milliseconds that are left, and then turns without
    /// a pause through the rest of one: half an idle process's time went there. A quiet consumer, for which
    /// a millisecond does not matter, sleeps through that rest at once.
    pub(super) fn sleep_through_the_fraction(&self) {
        let Some(until) = *lock(&self.sleeps_until) else { return };
        let left = until.saturating_duration_since(Instant::now());
        let fraction = Duration::from_nanos(u64::from(left.subsec_nanos() % 1_000_000));
        std::thread::sleep(fraction.saturating_sub(OVERSLEEP));
    }

    pub(super) fn should_stop(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// The session has ended; a static member that was fenced soon after has fenced itself.
    pub(super) fn session_ended(&self) {
        *lock(&self.session_ended_at) = Some(Instant::now());
    }

    /// Whether the session ended within the last `limit`; says so once.
    pub(super) fn take_session_end(&self, limit: Duration) -> bool {
        lock(&self.session_ended_at).take().is_some_and(|at| at.elapsed() <= limit)
    }

    /// Remembers what stands in the way; the first moment of it stays.
    pub(super) fn troubled(&self, scope: Scope, text: String) {
        let mut trouble = lock(&self.trouble);
        let since = trouble.as_ref().map_or_else(Instant::now, |trouble| trouble.since);
        *trouble = Some(Trouble { since, scope, text });
    }

    /// A broker is away. What it said about the login before is no longer what stands in the way,
    /// and an outage must not be taken for a wrong password.
    pub(super) fn unreachable(&self) {
        lock(&self.trouble).take_if(|trouble| trouble.scope == Scope::Login);
    }

    pub(super) fn fail(&self, text: &str) {
        tracing::error!(group = %self.group, "the consumer of group {} cannot go on: {text}", self.group);
        lock(&self.failed).get_or_insert_with(|| text.to_owned());
        self.stop_inboxes(&Stopped::Failed(text.to_owned()));
    }

    pub(super) fn stop_inboxes(&self, reason: &Stopped) {
        for topic in &self.topics {
            topic.inbox.stop(reason);
        }
    }

    pub(super) fn status(&self) -> ConsumerStatus {
        let topics: Vec<TopicStatus> = self.topics.iter().map(Topic::status).collect();
        let polled = Duration::from_millis(self.polled_after_ms.load(Ordering::Relaxed));
        ConsumerStatus {
            joined: self.joined.load(Ordering::Acquire),
            unreachable: self.reach.is_lost(Instant::now()),
            poll_age: self.started.elapsed().saturating_sub(polled),
            offset_gaps: topics.iter().map(|topic| topic.offset_gaps).sum(),
            offsets_skipped: topics.iter().map(|topic| topic.offsets_skipped).sum(),
            topics,
            gone: self.gone.load(Ordering::Acquire),
            failed: lock(&self.failed).clone(),
            trouble: lock(&self.trouble).as_ref().map(|trouble| trouble.text.clone()),
            rebalances: self.counters.rebalances.load(Ordering::Relaxed),
            assignments_lost: self.counters.lost.load(Ordering::Relaxed),
            polls_exceeded: self.counters.polls_exceeded.load(Ordering::Relaxed),
            commits_refused: self.counters.commits_refused.load(Ordering::Relaxed),
            commits_failed: self.counters.commits_failed.load(Ordering::Relaxed),
            rebuilds: self.counters.rebuilds.load(Ordering::Relaxed),
        }
    }
}

impl Topic {
    fn status(&self) -> TopicStatus {
        let slots = lock(&self.slots);
        let buffered = self.inbox.len();
        let open: usize = slots.values().map(|slot| slot.held.open()).sum();
        let lags: Vec<Option<u64>> = slots.values().map(Slot::lag).collect();
        TopicStatus {
            topic: Arc::clone(&self.name),
            assigned: slots.keys().copied().collect(),
            paused: slots.values().filter(|slot| slot.paused == Some(Paused::Full)).count(),
            buffered,
            in_hand: open.saturating_sub(buffered),
            lag: lags.into_iter().sum(),
            lag_by_partition: slots.iter().filter_map(|(partition, slot)| Some((*partition, slot.lag()?))).collect(),
            oldest_unread: self.inbox.oldest(),
            offset_gaps: self.gaps.load(Ordering::Relaxed),
            offsets_skipped: self.skipped.load(Ordering::Relaxed),
            replayed: self.replayed.load(Ordering::Relaxed),
        }
    }
}

impl Slot {
    pub(super) fn new(held: Arc<Held>) -> Self {
        Self {
            held,
            paused: None,
            flowing: false,
            sent: None,
            facts: PartitionFacts::default(),
            progress: Progress::default(),
            moved_at: Instant::now(),
        }
    }

    /// Where reading stands: past the last delivered record, else where it will begin.
    pub(super) fn position(&self) -> Option<i64> {
        self.held.next().or(self.facts.committed).or(self.facts.low)
    }

    fn lag(&self) -> Option<u64> {
        let (high, position) = (self.facts.high?, self.position()?);
        Some(u64::try_from(high - position).unwrap_or(0))
    }
}
