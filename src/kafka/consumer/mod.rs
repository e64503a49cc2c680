//! A member of a consumer group: one thread that polls, an inbox per topic, a ledger per
//! partition.
//!
//! The thread owns the client and never waits for a role: a role that is behind only fills its
//! topic's inbox, and then that topic's partitions pause. Offsets follow the ledgers, four times
//! a second and at every revocation.

mod assignment;
mod commit;
mod flow;
mod inbox;
pub mod ledger;
mod progress;
mod rebalance;
pub(super) mod record;
mod run;
mod sentinel;
mod shared;
mod status;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use rdkafka::ClientConfig;
use tokio::sync::oneshot;

use super::KafkaError;
use super::options::KafkaOptions;

pub use inbox::TopicSubscription;
pub use status::{ConsumerStatus, TopicStatus};

use inbox::Inbox;
use run::Runner;
use shared::Shared;

/// How often the client says what it knows.
const STATISTICS: Duration = Duration::from_secs(1);
/// A consumer's settings, unless the user has others.
const DEFAULTS: [(&str, &str); 10] = [
    ("auto.offset.reset", "earliest"),
    ("partition.assignment.strategy", "cooperative-sticky"),
    ("session.timeout.ms", "6000"),
    ("heartbeat.interval.ms", "1000"),
    ("max.poll.interval.ms", "60000"),
    // With this the broker answers as soon as there is anything; the backoff below is what would
    // limit throughput, and its default is a second.
    ("fetch.min.bytes", "1"),
    ("fetch.queue.backoff.ms", "10"),
    ("queued.min.messages", "5000"),
    ("queued.max.messages.kbytes", "4096"),
    ("fetch.max.bytes", "4194304"),
];

/// One topic, and how many of its records may wait to be read.
#[derive(Debug, Clone)]
pub struct TopicInbox {
    /// The topic.
    pub topic: Arc<str>,
    /// From this many waiting records on the topic's partitions pause; they resume at half.
    pub high_mark: usize,
}

/// A member of a group.
#[derive(Debug, Clone)]
pub struct ConsumerOptions {
    /// The group.
    pub group: String,
    /// What to read.
    pub topics: Vec<TopicInbox>,
    /// The member's lasting name; see [`KafkaOptions::static_id`]. With it a restart within the
    /// session time-out moves no partition.
    pub static_id: Option<String>,
    /// Whether a partition without a committed offset must begin at offset 0, so that another
    /// beginning counts as a gap: true of brokers that are as old as this process.
    pub begins_at_zero: bool,
    /// Whether a topic may vanish while it is read: then its subscription ends as [`Stopped::Gone`] and the
    /// group is left, where otherwise that is a failure.
    ///
    /// [`Stopped::Gone`]: crate::ports::Stopped::Gone
    pub may_vanish: bool,
    /// librdkafka settings of this consumer alone, over those of [`KafkaOptions::properties`].
    pub properties: Vec<(String, String)>,
}

impl ConsumerOptions {
    /// A dynamic member of `group` that reads `topics`.
    pub fn new(group: impl Into<String>, topics: Vec<TopicInbox>) -> Self {
        Self {
            group: group.into(),
            topics,
            static_id: None,
            begins_at_zero: false,
            may_vanish: false,
            properties: Vec::new(),
        }
    }

    fn validate(&self) -> Result<(), KafkaError> {
        let problem = if self.topics.is_empty() {
            Some("a consumer needs a topic".to_owned())
        } else if self.topics.iter().any(|inbox| inbox.high_mark == 0) {
            Some("high_mark must be at least 1".to_owned())
        } else {
            self.topics.iter().enumerate().find_map(|(index, inbox)| {
                let twice = self.topics.iter().skip(index + 1).any(|other| other.topic == inbox.topic);
                twice.then(|| format!("topic {} is listed twice", inbox.topic))
            })
        };
        problem.map_or(Ok(()), |reason| Err(KafkaError::Options { reason }))
    }

    fn config(&self, kafka: &KafkaOptions) -> Result<ClientConfig, KafkaError> {
        let mut config = kafka.config(&DEFAULTS)?;
        config
            .set("group.id", &self.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("allow.auto.create.topics", "false")
            .set("statistics.interval.ms", STATISTICS.as_millis().to_string());
        if let Some(id) = &self.static_id {
            config.set("group.instance.id", id);
        }
        Ok(config)
    }
}

/// Starts members of groups.
#[derive(Debug)]
pub struct Consumer;

impl Consumer {
    /// Starts a member; it joins in the background. One subscription per topic comes back, in the
    /// order of the options. Brokers that are away are waited for.
    pub fn start(
        kafka: &KafkaOptions,
        options: ConsumerOptions,
    ) -> Result<(ConsumerHandle, Vec<TopicSubscription>), KafkaError> {
        options.validate()?;
        let mut kafka = kafka.clone();
        kafka.properties.extend(options.properties.iter().cloned());
        let inboxes: Vec<(Arc<str>, Arc<Inbox>)> = options
            .topics
            .iter()
            .map(|inbox| (Arc::clone(&inbox.topic), Arc::new(Inbox::new(inbox.high_mark))))
            .collect();
        let shared = Arc::new(Shared::new(options.group.clone(), inboxes.clone(), options.begins_at_zero));
        let config = options.config(&kafka)?;
        let runner = Runner::new(config, kafka.scrubber(), options.static_id, options.may_vanish, Arc::clone(&shared));
        let consumer = runner.connect()?;
        let (ended, end) = oneshot::channel();
        let name = format!("kafka-{}", options.group);
        thread::Builder::new()
            .name(name.clone())
            .spawn(move || {
                runner.run(consumer);
                if ended.send(()).is_err() {
                    tracing::debug!("the consumer ended by itself");
                }
            })
            .map_err(|source| KafkaError::Thread { name, source })?;
        let subscriptions = inboxes.into_iter().map(|(topic, inbox)| TopicSubscription::new(topic, inbox)).collect();
        Ok((ConsumerHandle { shared, end }, subscriptions))
    }
}

/// A running member. Dropped, it closes in the background.
#[derive(Debug)]
pub struct ConsumerHandle {
    shared: Arc<Shared>,
    end: oneshot::Receiver<()>,
}

impl ConsumerHandle {
    /// How it stands.
    pub fn status(&self) -> ConsumerStatus {
        self.shared.status()
    }

    /// Ends the subscriptions, waits up to a second for what roles have in hand, commits what is
    /// durable, and leaves the group (a static member stays in it until its session ends). After
    /// `deadline` it returns all the same; the thread then goes on closing by itself.
    pub async fn close(mut self, deadline: Duration) -> Result<(), KafkaError> {
        self.shared.stop.store(true, Ordering::Release);
        // The sender goes when the thread ends, so an error here is an end too.
        match tokio::time::timeout(deadline, &mut self.end).await {
            Ok(_) if self.shared.uncommitted.load(Ordering::Acquire) => {
                Err(KafkaError::NotCommitted { group: self.shared.group.clone() })
            }
            Ok(_) => Ok(()),
            Err(_) => Err(KafkaError::CloseTimedOut { group: self.shared.group.clone(), deadline }),
        }
    }
}

impl Drop for ConsumerHandle {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
    }
}
