//! From one batch to its answers: delivery reports count down, the last one wakes the caller.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryResult, ProducerContext};
use tokio::sync::{Notify, Semaphore};

use crate::kafka::context::Listener;
use crate::kafka::reach::Reach;
use crate::kafka::statistics::Statistics;
use crate::kafka::sync::lock;
use crate::ports::PublishError;

use super::waves::Waves;

/// The answers of one batch; only failures are written down.
#[derive(Debug)]
pub(super) struct Batch {
    waiting: AtomicUsize,
    failures: Mutex<Vec<(usize, PublishError)>>,
    all_answered: Notify,
}

impl Batch {
    pub(super) fn new(count: usize) -> Self {
        Self { waiting: AtomicUsize::new(count), failures: Mutex::default(), all_answered: Notify::new() }
    }

    pub(super) fn answer(&self, index: usize, result: Result<(), PublishError>) {
        if let Err(error) = result {
            lock(&self.failures).push((index, error));
        }
        if self.waiting.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.all_answered.notify_one();
        }
    }

    /// Whether a record of it is known to have failed.
    pub(super) fn has_failed(&self) -> bool {
        !lock(&self.failures).is_empty()
    }

    pub(super) async fn answers(&self, count: usize) -> Vec<Result<(), PublishError>> {
        while self.waiting.load(Ordering::Acquire) > 0 {
            self.all_answered.notified().await;
        }
        let mut answers = vec![Ok(()); count];
        for (index, error) in lock(&self.failures).drain(..) {
            if let Some(answer) = answers.get_mut(index) {
                *answer = Err(error);
            }
        }
        answers
    }
}

/// What travels with a record: whose answer it is.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) batch: Arc<Batch>,
    /// Of its topic.
    pub(super) waves: Arc<Waves>,
    /// What it takes of its topic's share.
    pub(super) weight: u32,
    pub(super) index: usize,
}

/// The context of a producer's client.
#[derive(Debug)]
pub(super) struct DeliveryContext {
    pub(super) listener: Listener,
    /// The clients of this producer that were made before.
    pub(super) generation: u64,
    /// A permit for each record that may be in flight; a report gives one back.
    pub(super) permits: Arc<Semaphore>,
    pub(super) broken: AtomicBool,
    pub(super) reach: Arc<Reach>,
    /// It has forgotten every broker: an answer of a broker that knows of none makes librdkafka
    /// forget all, those of its settings included (its issue 5301).
    pub(super) forgotten: AtomicBool,
}

impl ClientContext for DeliveryContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.listener.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.listener.error(&error, reason);
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Fatal) => self.broken.store(true, Ordering::Release),
            Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::Resolve) => {
                self.reach.a_connection_failed(Instant::now());
            }
            Some(RDKafkaErrorCode::AllBrokersDown) => self.reach.none_answers(Duration::ZERO, Instant::now()),
            Some(_) | None => {}
        }
    }

    fn stats_raw(&self, json: &[u8]) {
        let statistics = match Statistics::parse(json) {
            Ok(statistics) => statistics,
            Err(error) => {
                tracing::warn!("librdkafka's statistics cannot be read: {error}");
                return;
            }
        };
        self.look_at(&statistics, Instant::now());
    }
}

impl ProducerContext for DeliveryContext {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Self::DeliveryOpaque) {
        let result = result.as_ref().map(drop).map_err(|(error, _)| self.refusal(error));
        self.permits.add_permits(1);
        ticket.waves.answered();
        ticket.waves.give_back(ticket.weight);
        ticket.batch.answer(ticket.index, result);
    }
}

impl DeliveryContext {
    fn look_at(&self, statistics: &Statistics, now: Instant) {
        self.reach.note(statistics, now);
        if self.reach.take_forgotten(now) {
            self.forgotten.store(true, Ordering::Release);
            self.broken.store(true, Ordering::Release);
        }
    }

    /// Whether the client has forgotten every broker: what is in it will never be written.
    pub(super) fn has_forgotten(&self) -> bool {
        self.forgotten.load(Ordering::Acquire)
    }

    /// What an error of one record means to its writer.
    pub(super) fn refusal(&self, error: &KafkaError) -> PublishError {
        let code = error.rdkafka_error_code();
        if code == Some(RDKafkaErrorCode::Fatal) {
            self.broken.store(true, Ordering::Release);
        }
        if code.is_some_and(is_no_such_topic) {
            return PublishError::NoSuchTopic(error.to_string());
        }
        if code.is_some_and(is_refusal) {
            return PublishError::Refused(error.to_string());
        }
        // A time-out does not say what stood in the way; the client's last error does.
        match self.listener.last() {
            Some(told) if told.code != code => {
                PublishError::Unacknowledged(format!("{error} (last error of the client: {})", told.text))
            }
            Some(_) | None => PublishError::Unacknowledged(error.to_string()),
        }
    }
}

fn is_no_such_topic(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::InvalidTopic
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownPartition
    )
}

/// Whether trying again without a change elsewhere is in vain.
fn is_refusal(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::MessageBatchTooLarge
            | RDKafkaErrorCode::InvalidMessageSize
            | RDKafkaErrorCode::InvalidRecord
            | RDKafkaErrorCode::InvalidTimestamp
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::PolicyViolation
            | RDKafkaErrorCode::InvalidArgument
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_knows_no_broker_for_seconds_is_broken() {
        let context = DeliveryContext {
            listener: Listener::default(),
            generation: 0,
            permits: Arc::new(Semaphore::new(1)),
            broken: AtomicBool::new(false),
            reach: Arc::new(Reach::new(Duration::from_secs(1))),
            forgotten: AtomicBool::new(false),
        };
        let parsed = |json: &[u8]| Statistics::parse(json).unwrap();
        let none = parsed(br#"{"brokers":{}}"#);
        let some = parsed(br#"{"brokers":{"b":{"source":"learned","state":"UP","waitresp_cnt":0,"rxidle":-1}}}"#);
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        context.look_at(&none, start);
        context.look_at(&some, start + 3 * second);
        context.look_at(&none, start + 6 * second);
        assert!(!context.has_forgotten() && !context.broken.load(Ordering::Acquire));
        context.look_at(&none, start + 9 * second);
        assert!(context.has_forgotten() && context.broken.load(Ordering::Acquire));
    }
}
