//! The few administrative requests that are needed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigSource, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};

use crate::kafka::context::Listener;
use crate::kafka::options::create;
use crate::kafka::{KafkaError, KafkaOptions};

use super::{LOOK_AGAIN, Outcome, TopicPlan};

/// How long one request may take, the brokers' work included.
const LIMIT: Duration = Duration::from_secs(15);
/// How long a broker may take to know what it has changed.
const UNTIL_CHANGED: Duration = Duration::from_secs(10);

struct AdminContext(Listener);

impl ClientContext for AdminContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn error(&self, error: ClientError, reason: &str) {
        self.0.error(&error, reason);
    }
}

/// What is known of a topic.
pub(super) enum Found {
    Missing,
    There {
        partitions: u32,
        /// Of the partition with the fewest copies.
        replication: u16,
    },
    Unreadable(String),
}

/// A setting as it stands.
pub(super) struct Setting {
    pub(super) value: String,
    /// It was set for this topic, rather than inherited.
    own: bool,
}

pub(super) struct Admin {
    client: Arc<AdminClient<AdminContext>>,
    options: AdminOptions,
    /// How long a broker that may not be there at all is waited for.
    answer_limit: Duration,
}

impl Admin {
    pub(super) fn connect(kafka: &KafkaOptions, answer_limit: Duration) -> Result<Self, KafkaError> {
        let scrubber = kafka.scrubber();
        let client = create(&kafka.config(&[])?, AdminContext(Listener::new(scrubber.clone())), &scrubber)?;
        let options = AdminOptions::new().request_timeout(Some(LIMIT)).operation_timeout(Some(LIMIT));
        Ok(Self { client: Arc::new(client), options, answer_limit })
    }

    /// Its thread takes a moment to end; not on a worker of the runtime.
    pub(super) async fn close(self) {
        if let Err(error) = tokio::task::spawn_blocking(move || drop(self)).await {
            tracing::warn!("closing the administrative client: {error}");
        }
    }

    pub(super) async fn find(&self, topic: &str) -> Result<Found, KafkaError> {
        let (client, name, limit) = (Arc::clone(&self.client), topic.to_owned(), self.answer_limit);
        let asked = tokio::task::spawn_blocking(move || client.inner().fetch_metadata(Some(&name), limit));
        let failed = |source| KafkaError::Admin { operation: "asking for a topic", source };
        let metadata = asked.await.map_err(|_| failed(ClientError::Canceled))?.map_err(failed)?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
            return Ok(Found::Missing);
        };
        Ok(match found.error().map(RDKafkaErrorCode::from) {
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Found::Missing,
            Some(code) => Found::Unreadable(code.to_string()),
            None => {
                let copies = found.partitions().iter().map(|partition| partition.replicas().len()).min();
                Found::There {
                    partitions: u32::try_from(found.partitions().len()).unwrap_or(u32::MAX),
                    replication: u16::try_from(copies.unwrap_or(0)).unwrap_or(u16::MAX),
                }
            }
        })
    }

    /// The names of all topics that this login may see.
    pub(super) async fn names(&self) -> Result<Vec<String>, KafkaError> {
        let (client, limit) = (Arc::clone(&self.client), self.answer_limit);
        let asked = tokio::task::spawn_blocking(move || client.inner().fetch_metadata(None, limit));
        let failed = |source| KafkaError::Admin { operation: "listing the topics", source };
        let metadata = asked.await.map_err(|_| failed(ClientError::Canceled))?.map_err(failed)?;
        Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
    }

    pub(super) async fn create(&self, plan: &TopicPlan) -> Result<Outcome, KafkaError> {
        let settings: Vec<(&str, String)> =
            plan.config.iter().map(|(key, want)| (key.as_str(), want.initial())).collect();
        let partitions = i32::try_from(plan.partitions).unwrap_or(i32::MAX);
        let copies = plan.replication.map_or(-1, i32::from);
        let mut new = NewTopic::new(&plan.name, partitions, TopicReplication::Fixed(copies));
        for (key, value) in &settings {
            new = new.set(key, value);
        }
        let results = self.client.create_topics([&new], &self.options).await;
        let results = results.map_err(|source| KafkaError::Admin { operation: "creating a topic", source })?;
        let topic = plan.name.clone();
        Ok(match results.into_iter().next() {
            Some(Ok(_)) => Outcome::Created { topic },
            // Somebody else was quicker; the next run raises what they left out.
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Outcome::Unchanged { topic },
            Some(Err((_, code))) => Outcome::Refused { topic, reason: code.to_string() },
            None => Outcome::Refused { topic, reason: "the broker did not say".to_owned() },
        })
    }

    pub(super) async fn raise_partitions(&self, topic: &str, to: u32) -> Result<Result<(), String>, KafkaError> {
        let raised = NewPartitions::new(topic, to as usize);
        let results = self.client.create_partitions([&raised], &self.options).await;
        let results = results.map_err(|source| KafkaError::Admin { operation: "adding partitions", source })?;
        Ok(results.into_iter().next().map_or(Ok(()), |result| result.map(drop).map_err(|(_, code)| code.to_string())))
    }

    pub(super) async fn settings(&self, topic: &str) -> Result<Result<BTreeMap<String, Setting>, String>, KafkaError> {
        let results = self.client.describe_configs([&ResourceSpecifier::Topic(topic)], &self.options).await;
        let results =
            results.map_err(|source| KafkaError::Admin { operation: "reading a topic's settings", source })?;
        Ok(match results.into_iter().next() {
            None => Err("the broker did not say".to_owned()),
            Some(Err(code)) => Err(code.to_string()),
            Some(Ok(resource)) => Ok(resource
                .entries
                .into_iter()
                .map(|entry| {
                    let own = entry.source == ConfigSource::DynamicTopic;
                    (entry.name, Setting { value: entry.value.unwrap_or_default(), own })
                })
                .collect()),
        })
    }

    /// Changes settings. The request replaces all of a topic's own settings, so those that it has
    /// go along; and rdkafka does not tell what the broker thought of it, so it is read back, until what was
    /// changed is seen: a broker that has taken it may know it a moment later only.
    pub(super) async fn alter(
        &self,
        topic: &str,
        before: &BTreeMap<String, Setting>,
        changes: &BTreeMap<String, String>,
    ) -> Result<Result<(), String>, KafkaError> {
        let mut request = AlterConfig::new(ResourceSpecifier::Topic(topic));
        for (key, setting) in before.iter().filter(|(_, setting)| setting.own) {
            request = request.set(key, &setting.value);
        }
        for (key, value) in changes {
            request = request.set(key, value);
        }
        let altered = self.client.alter_configs([&request], &self.options).await;
        altered.map_err(|source| KafkaError::Admin { operation: "changing a topic's settings", source })?;
        let until = tokio::time::Instant::now() + UNTIL_CHANGED;
        loop {
            let after = match self.settings(topic).await? {
                Ok(after) => after,
                Err(reason) => return Ok(Err(reason)),
            };
            let mut kept =
                changes.iter().filter(|(key, value)| after.get(*key).is_none_or(|setting| setting.value != **value));
            match kept.next() {
                None => return Ok(Ok(())),
                Some((key, _)) if tokio::time::Instant::now() >= until => {
                    return Ok(Err(format!("the broker did not change {key}")));
                }
                Some(_) => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }
}
