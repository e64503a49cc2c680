//! Kafka behind the ports: a consumer group, a producer, topics, dead letters, and a broker in
//! this process for demonstrations.
//!
//! [`consumer`] owns one thread per group and keeps the ledger of what may be committed;
//! [`producer`] writes batches; [`topics`] creates and checks topics;
//! [`snapshot`] reads a topic without taking part; [`embedded`] is a broker that keeps little. `docs/adr/0200` to `0205`
//! say why they are as they are.

mod context;
mod reach;
mod statistics;
mod sync;

pub mod consumer;
pub mod embedded;
pub mod options;
pub mod producer;
pub mod snapshot;
pub mod topics;

use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode;

pub use consumer::TopicSubscription;
pub use consumer::{Consumer, ConsumerHandle, ConsumerOptions, ConsumerStatus, TopicInbox, TopicStatus};
pub use embedded::EmbeddedBroker;
pub use options::KafkaOptions;
pub use producer::{Producer, ProducerOptions, ProducerStatus};

/// Why Kafka cannot be used as asked. No variant carries the value of a secret property.
#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    /// A property whose value this crate's guarantees rest on.
    #[error("kafka property `{key}` cannot be set: {why}")]
    Reserved {
        /// The property.
        key: String,
        /// What sets it instead.
        why: &'static str,
    },
    /// A property that librdkafka does not know or not in this form.
    #[error("kafka property `{key}` is not accepted: {reason}")]
    Property {
        /// The property.
        key: String,
        /// librdkafka's words, without the value of a secret.
        reason: String,
    },
    /// The client could not be made: unreadable certificate, contradicting properties.
    #[error("no Kafka client can be made with these settings: {reason}")]
    Client {
        /// librdkafka's words, without the value of a secret.
        reason: String,
    },
    /// The options of a consumer or producer contradict themselves.
    #[error("kafka options: {reason}")]
    Options {
        /// What is wrong and what would be right.
        reason: String,
    },
    /// The group could not be subscribed to its topics.
    #[error("could not subscribe to the topics of group {group}")]
    Subscribe {
        /// The group.
        group: String,
        /// librdkafka's error.
        #[source]
        source: rdkafka::error::KafkaError,
    },
    /// The operating system gave no thread.
    #[error("could not start the thread {name}")]
    Thread {
        /// Its name.
        name: String,
        /// The operating system's error.
        #[source]
        source: std::io::Error,
    },
    /// The consumer was still closing when the time was up; its thread goes on alone.
    #[error("the consumer of group {group} was not closed within {deadline:?}")]
    CloseTimedOut {
        /// The group.
        group: String,
        /// The time that it had.
        deadline: Duration,
    },
    /// The consumer is closed, and its last commit was not confirmed.
    #[error("the last offsets of group {group} were not committed")]
    NotCommitted {
        /// The group.
        group: String,
    },
    /// An administrative request failed.
    #[error("kafka: {operation} failed")]
    Admin {
        /// Which request.
        operation: &'static str,
        /// librdkafka's error.
        #[source]
        source: rdkafka::error::KafkaError,
    },
    /// The embedded broker could not be started.
    #[error("the embedded broker did not start: {reason}")]
    Embedded {
        /// librdkafka's words.
        reason: String,
    },
}

impl KafkaError {
    /// Whether trying again can help: the brokers did not answer.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Admin { source, .. } => source.rdkafka_error_code().is_some_and(is_unreachable),
            Self::CloseTimedOut { .. } | Self::NotCommitted { .. } => true,
            Self::Reserved { .. }
            | Self::Property { .. }
            | Self::Client { .. }
            | Self::Options { .. }
            | Self::Subscribe { .. }
            | Self::Thread { .. }
            | Self::Embedded { .. } => false,
        }
    }
}

fn is_unreachable(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::RequestTimedOut
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::TimedOutQueue
            | RDKafkaErrorCode::Resolve
    )
}
