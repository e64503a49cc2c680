//! The Kafka clients of a process: each is measured, and all are closed together.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::measured::{MeasuredPublisher, MeasuredSubscription};
use super::{Plan, Role, StartError};
use crate::kafka::{
    Consumer, ConsumerHandle, ConsumerOptions, ConsumerStatus, KafkaOptions, Producer, ProducerOptions, TopicInbox,
    TopicSubscription,
};
use crate::lifecycle::Left;
use crate::metrics::KafkaMetrics;
use crate::ports::{Publisher, Subscription};

/// Records of a topic that wait in memory at most.
const INBOX_HIGH_MARK: usize = 4_000;
/// The same for a tier, whose reader looks after each batch at whether it wants more of a partition.
const TIER_HIGH_MARK: usize = 256;
/// How long consumers may take to commit and to leave their groups.
const CLOSE: Duration = Duration::from_millis(2_500);
/// How long producers wait for what is still under way; their writers have ended by then.
const FLUSH: Duration = Duration::from_secs(1);

/// Settings of a tier's consumer. There are many of these, and in most little happens; in those in which
/// much does, nearly all of it is to be left at the broker. What is fetched is compressed: in memory it
/// takes many times its size.
const TIER: [(&str, &str); 3] =
    [("fetch.wait.max.ms", "2000"), ("fetch.message.max.bytes", "65536"), ("queued.min.messages", "1000")];

/// Makes the clients, and keeps them for the end.
pub(super) struct Clients {
    kafka: KafkaOptions,
    consumer_properties: Vec<(String, String)>,
    embedded_broker: bool,
    pub(super) metrics: Arc<KafkaMetrics>,
    pub(super) consumers: Consumers,
    pub(super) producers: Producers,
}

impl Clients {
    pub(super) fn new(kafka: KafkaOptions, plan: &Plan) -> Self {
        Self {
            kafka,
            consumer_properties: plan.config.kafka.consumer_properties(),
            embedded_broker: plan.embedded_broker,
            metrics: Arc::new(metrics_of(plan)),
            consumers: Consumers::default(),
            producers: Producers::default(),
        }
    }

    pub(super) fn producer(&mut self, options: ProducerOptions) -> Result<Arc<dyn Publisher>, StartError> {
        let producer = Arc::new(Producer::new(&self.kafka, options).map_err(StartError::config)?);
        self.producers.0.push(Arc::clone(&producer));
        Ok(Arc::new(MeasuredPublisher { inner: producer, metrics: Arc::clone(&self.metrics) }))
    }

    /// A member of a topic's group: one group per topic, so that each is shared evenly.
    pub(super) fn consumer(
        &mut self,
        group: &str,
        role: &str,
        topic: &Arc<str>,
    ) -> Result<Box<dyn Subscription>, StartError> {
        let inbox = TopicInbox { topic: Arc::clone(topic), high_mark: INBOX_HIGH_MARK };
        self.consumer_with(group, role, inbox, &[], false)
    }

    /// The same for a tier: a broker that has nothing to tell is asked less often, and less is read ahead.
    /// What comes is answered at once all the same.
    pub(super) fn tier_consumer(
        &mut self,
        group: &str,
        role: &str,
        topic: &Arc<str>,
    ) -> Result<Box<dyn Subscription>, StartError> {
        self.consumer_with(group, role, tier_inbox(topic), &TIER, false)
    }

    /// The same for a tier whose topic is to be deleted once it is empty.
    pub(super) fn former_tier_consumer(
        &mut self,
        group: &str,
        role: &str,
        topic: &Arc<str>,
    ) -> Result<Box<dyn Subscription>, StartError> {
        self.consumer_with(group, role, tier_inbox(topic), &TIER, true)
    }

    fn consumer_with(
        &mut self,
        group: &str,
        role: &str,
        inbox: TopicInbox,
        properties: &[(&str, &str)],
        may_vanish: bool,
    ) -> Result<Box<dyn Subscription>, StartError> {
        let topic = Arc::clone(&inbox.topic);
        let mut options = ConsumerOptions::new(group, vec![inbox]);
        options.static_id = self.kafka.static_id(role, 0);
        options.begins_at_zero = self.embedded_broker;
        options.may_vanish = may_vanish;
        options.properties.clone_from(&self.consumer_properties);
        options.properties.extend(properties.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let (handle, subscriptions) = Consumer::start(&self.kafka, options).map_err(StartError::config)?;
        self.consumers.0.push(Mutex::new(Some(handle)));
        let missing = || StartError::Failed(format!("group {group}: the consumer gave no subscription"));
        let inner: TopicSubscription = subscriptions.into_iter().next().ok_or_else(missing)?;
        let metrics = Arc::clone(&self.metrics);
        Ok(Box::new(MeasuredSubscription { inner, topic, metrics }))
    }
}

fn tier_inbox(topic: &Arc<str>) -> TopicInbox {
    TopicInbox { topic: Arc::clone(topic), high_mark: TIER_HIGH_MARK }
}

/// Of the topics that this process's roles read and write.
fn metrics_of(plan: &Plan) -> KafkaMetrics {
    let (topics, lanes) = (plan.config.topics(), plan.config.lanes());
    let commands = || lanes.iter().flat_map(|lane| [topics.requests(lane), topics.due(lane)]);
    let tiers = || plan.config.tiers().into_iter().map(|tier| topics.delay(tier));
    let (mut read, mut written) = (Vec::new(), Vec::new());
    if plan.roles.contains(&Role::Intake) {
        read.extend([&topics.orders, &topics.lifecycle, &topics.timers].map(Arc::clone));
    }
    if plan.roles.contains(&Role::Dispatch) {
        read.extend(commands());
    }
    if plan.roles.contains(&Role::Delay) {
        read.extend(tiers());
    }
    if plan.roles.contains(&Role::Relay) {
        written.extend([&topics.order_events, &topics.refunds, &topics.notifications].map(Arc::clone));
    }
    written.extend(commands());
    written.extend(tiers());
    written.extend([&topics.timers, &topics.dead_letters].map(Arc::clone));
    KafkaMetrics::new(&read, &written)
}

/// The consumers of a process; each is there until its role has stopped and it was closed.
#[derive(Debug, Default)]
pub struct Consumers(Vec<Mutex<Option<ConsumerHandle>>>);

impl Consumers {
    /// How they stand, those that are still open and have something to read.
    pub fn statuses(&self) -> Vec<ConsumerStatus> {
        let open = |slot: &Mutex<Option<ConsumerHandle>>| {
            slot.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(ConsumerHandle::status)
        };
        self.0.iter().filter_map(open).filter(|status| !status.gone).collect()
    }

    /// Closes all at once: with a broker that does not answer, one after the other would take too long.
    pub(super) async fn close(&self) -> anyhow::Result<()> {
        let take = |slot: &Mutex<Option<ConsumerHandle>>| slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        let closing = self.0.iter().filter_map(take).map(|handle| handle.close(CLOSE));
        let closed = futures_util::future::join_all(closing).await;
        let left: Vec<String> = closed.into_iter().filter_map(|closed| Some(closed.err()?.to_string())).collect();
        match left.len() {
            0 => Ok(()),
            _ => Err(Left(format!("{}: what came since the last commit comes again", left.join(", "))).into()),
        }
    }
}

/// The producers of a process.
#[derive(Debug, Clone, Default)]
pub(super) struct Producers(Vec<Arc<Producer>>);

impl Producers {
    /// Whether one of them reaches no broker. They learn that later than consumers do.
    pub(super) fn are_cut_off(&self) -> bool {
        self.0.iter().any(|producer| producer.status().unreachable)
    }

    /// Replaces those whose client broke while nothing was written.
    pub(super) fn tend(&self) {
        self.0.iter().for_each(|producer| producer.tend());
    }

    /// Waits for all at once, and counts what was not acknowledged.
    pub(super) async fn flush(self) -> anyhow::Result<()> {
        let closing = self.0.iter().map(|producer| producer.close(FLUSH));
        match futures_util::future::join_all(closing).await.into_iter().sum::<usize>() {
            0 => Ok(()),
            left => {
                Err(Left(format!("{left} records were not acknowledged: what they tell is still in the store")).into())
            }
        }
    }
}
