//! The names of topics and consumer groups, and what `topics create` makes (`interface.md` section 3).

use std::sync::Arc;
use std::time::Duration;

use super::{Config, Span, tier_name};
use crate::domain::ProviderId;
use crate::ports::LaneTopics;

/// The largest value that the orders topic must take, with its headers.
const RECORD_MAX_BYTES: u32 = 1_048_576;
/// What the headers of a record that waits may add to the shop's own.
const WAITING_EXTRA_BYTES: u32 = 8_192;
/// What a dead letter's own headers may add to the original record, and to one that waited.
const DEAD_LETTER_EXTRA_BYTES: u32 = 65_536;

/// Every topic's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    prefix: Arc<str>,
    /// Order events from the shop.
    pub orders: Arc<str>,
    /// Payments, cancellations and refunds from the shop, where it keeps them apart.
    pub lifecycle: Arc<str>,
    /// Events that came before their order come back here.
    pub timers: Arc<str>,
    /// One event per transition.
    pub order_events: Arc<str>,
    /// Refunds requested.
    pub refunds: Arc<str>,
    /// Notifications requested.
    pub notifications: Arc<str>,
    /// What could not be read, with its original bytes.
    pub dead_letters: Arc<str>,
}

impl Topics {
    fn new(prefix: &str) -> Self {
        let name = |rest: &str| Arc::from(format!("{prefix}{rest}"));
        Self {
            prefix: Arc::from(prefix),
            orders: name("orders"),
            lifecycle: name("lifecycle"),
            timers: name("timers"),
            order_events: name("order-events"),
            refunds: name("refunds"),
            notifications: name("notifications"),
            dead_letters: name("dead-letters"),
        }
    }

    /// What the names of all lanes' topics begin with.
    pub fn lanes(&self) -> Arc<str> {
        Arc::from(format!("{}requests.", self.prefix))
    }

    /// Fresh commands of a lane.
    pub fn requests(&self, lane: &ProviderId) -> Arc<str> {
        Arc::from(format!("{}{lane}", self.lanes()))
    }

    /// Retries and queries of a lane whose time has come.
    pub fn due(&self, lane: &ProviderId) -> Arc<str> {
        Arc::from(format!("{}requests.{lane}.due", self.prefix))
    }

    /// Both topics of a lane.
    pub fn lane(&self, lane: &ProviderId) -> LaneTopics {
        LaneTopics { requests: self.requests(lane), due: self.due(lane) }
    }

    /// A delay tier.
    pub fn delay(&self, tier: Duration) -> Arc<str> {
        Arc::from(format!("{}delay.{}", self.prefix, tier_name(tier)))
    }

    /// The delay of the tier whose topic this is.
    pub fn tier_of(&self, topic: &str) -> Option<Duration> {
        let name = topic.strip_prefix(&*self.prefix)?.strip_prefix("delay.")?;
        Span::parse(name).map(Span::get).filter(|tier| !tier.is_zero() && tier_name(*tier) == name)
    }
}

/// Every consumer group's name: one group per topic, so that each topic is shared evenly
/// (`docs/adr/0404`). What a role reads beside its main topic stands behind a dot, which no lane's
/// name can hold: lane `x-due` and the due topic of lane `x` cannot meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups {
    prefix: Arc<str>,
    /// Of intake, on the orders.
    pub intake: Arc<str>,
    /// Of intake, on payments and cancellations.
    pub intake_lifecycle: Arc<str>,
    /// Of intake, on what came before its order.
    pub intake_timers: Arc<str>,
}

impl Groups {
    fn new(prefix: &str) -> Self {
        let name = |rest: &str| Arc::from(format!("{prefix}{rest}"));
        Self {
            prefix: Arc::from(prefix),
            intake: name("intake"),
            intake_lifecycle: name("intake.lifecycle"),
            intake_timers: name("intake.timers"),
        }
    }

    /// Of a lane's dispatch, on its fresh commands.
    pub fn dispatch(&self, lane: &ProviderId) -> Arc<str> {
        Arc::from(format!("{}dispatch-{lane}", self.prefix))
    }

    /// Of a lane's dispatch, on its retries and queries.
    pub fn dispatch_due(&self, lane: &ProviderId) -> Arc<str> {
        Arc::from(format!("{}dispatch-{lane}.due", self.prefix))
    }

    /// Of a delay tier.
    pub fn delay(&self, tier: Duration) -> Arc<str> {
        Arc::from(format!("{}delay-{}", self.prefix, tier_name(tier)))
    }
}

/// What a topic is for; decides how long its records stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicUse {
    /// Written by the shop.
    In,
    /// Written and read by this service.
    Work,
    /// Read by others.
    Out,
    /// Read by people.
    DeadLetters,
}

/// What a topic must be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPlan {
    /// Its name.
    pub name: Arc<str>,
    /// What it is for.
    pub usage: TopicUse,
    /// How many partitions.
    pub partitions: u16,
    /// How many replicas; `None`: the broker's own default.
    pub replication: Option<u16>,
    /// In-sync replicas that a write needs; `None`: the broker's own default.
    pub min_insync_replicas: Option<u16>,
    /// How long records stay.
    pub retention: Duration,
    /// The largest record.
    pub max_message_bytes: u32,
}

impl TopicPlan {
    /// The topic's settings, in the broker's words.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = vec![
            ("cleanup.policy", "delete".to_owned()),
            ("retention.ms", self.retention.as_millis().to_string()),
            ("max.message.bytes", self.max_message_bytes.to_string()),
        ];
        // A bound by size would delete what still waits, or was not read yet.
        if self.usage == TopicUse::Work {
            settings.push(("retention.bytes", "-1".to_owned()));
        }
        if let Some(replicas) = self.min_insync_replicas {
            settings.push(("min.insync.replicas", replicas.to_string()));
        }
        settings
    }
}

impl Config {
    /// Every topic's name.
    pub fn topics(&self) -> Topics {
        Topics::new(&self.kafka.topic_prefix)
    }

    /// Every consumer group's name.
    pub fn groups(&self) -> Groups {
        Groups::new(&self.kafka.group_prefix)
    }

    /// The lanes: one per provider.
    pub fn lanes(&self) -> Vec<ProviderId> {
        self.providers.keys().map(|name| ProviderId::new(name)).collect()
    }

    /// The delay tiers, rising.
    pub fn tiers(&self) -> Vec<Duration> {
        let mut tiers: Vec<Duration> = self.delay.tiers.iter().map(|tier| tier.get()).collect();
        tiers.sort_unstable();
        tiers
    }

    /// Every topic as it must be.
    pub fn topic_plan(&self) -> Vec<TopicPlan> {
        let topics = self.topics();
        let mut named = vec![
            (Arc::clone(&topics.orders), TopicUse::In),
            (Arc::clone(&topics.lifecycle), TopicUse::In),
            (Arc::clone(&topics.timers), TopicUse::Work),
            (Arc::clone(&topics.order_events), TopicUse::Out),
            (Arc::clone(&topics.refunds), TopicUse::Out),
            (Arc::clone(&topics.notifications), TopicUse::Out),
            (Arc::clone(&topics.dead_letters), TopicUse::DeadLetters),
        ];
        for lane in self.lanes() {
            named.push((topics.requests(&lane), TopicUse::Work));
            named.push((topics.due(&lane), TopicUse::Work));
        }
        named.extend(self.tiers().into_iter().map(|tier| (topics.delay(tier), TopicUse::Work)));
        named.into_iter().map(|(name, usage)| self.plan_of(name, usage)).collect()
    }

    fn plan_of(&self, name: Arc<str>, usage: TopicUse) -> TopicPlan {
        let shape = &self.kafka.topics;
        let longest_tier = self.tiers().last().copied().unwrap_or_default();
        let (retention, max_message_bytes) = match usage {
            TopicUse::In => (shape.orders_retention.get(), RECORD_MAX_BYTES),
            TopicUse::Work => (shape.work_retention.get() + longest_tier, RECORD_MAX_BYTES + WAITING_EXTRA_BYTES),
            TopicUse::Out => (shape.events_retention.get(), RECORD_MAX_BYTES),
            // A dead letter is the original record and its own headers.
            TopicUse::DeadLetters => (shape.dead_letter_retention.get(), RECORD_MAX_BYTES + DEAD_LETTER_EXTRA_BYTES),
        };
        TopicPlan {
            name,
            usage,
            partitions: shape.partitions,
            replication: shape.replication,
            min_insync_replicas: shape.min_insync_replicas,
            retention,
            max_message_bytes,
        }
    }
}
