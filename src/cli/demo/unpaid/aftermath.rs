//! Who reads what the service asks of others: the messaging side, which counts what it is asked to tell, and the payment side, which
//! gives the money back and says so.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use crate::cli::output::CliError;
use crate::config::Config;
use crate::domain::Timestamp;
use crate::kafka::{Consumer, ConsumerHandle, ConsumerOptions, KafkaOptions, TopicInbox};
use crate::ports::{Clock, InRecord, OutRecord, Publisher, Subscription as _};

/// Requests, each once: by their event ids, as every reader has to tell them apart.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    pub(super) ids: BTreeSet<String>,
    /// When the first of them was made.
    pub(super) first_at: Option<Timestamp>,
}

/// What was asked for, by order.
#[derive(Debug, Clone, Default)]
pub(super) struct Requests {
    pub(super) notifications: HashMap<String, Asked>,
    pub(super) refunds: HashMap<String, Asked>,
}

/// Both readers.
pub(in crate::cli::demo) struct Aftermath {
    requests: Arc<Mutex<Requests>>,
    consumer: ConsumerHandle,
}

#[derive(Deserialize)]
struct Whose {
    order_id: String,
}

impl Aftermath {
    /// Begins to read. `publisher` tells of refunds that are made, at once.
    pub(in crate::cli::demo) fn start(
        kafka: &KafkaOptions,
        config: &Config,
        embedded: bool,
        publisher: &Arc<dyn Publisher>,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, CliError> {
        let topics = config.topics();
        let group = format!("{}demo-aftermath", config.kafka.group_prefix);
        let inbox = |topic: &Arc<str>| TopicInbox { topic: Arc::clone(topic), high_mark: 10_000 };
        let mut options = ConsumerOptions::new(group, vec![inbox(&topics.notifications), inbox(&topics.refunds)]);
        options.begins_at_zero = embedded;
        let (consumer, subscriptions) =
            Consumer::start(kafka, options).map_err(|error| CliError::failed(error.to_string()))?;
        let requests = Arc::new(Mutex::new(Requests::default()));
        for mut subscription in subscriptions {
            let (requests, topics) = (Arc::clone(&requests), config.topics());
            let (publisher, clock) = (Arc::clone(publisher), Arc::clone(clock));
            tokio::spawn(async move {
                while let Ok(records) = subscription.next(1_000).await {
                    let refunds = take(&requests, &records, &topics.refunds);
                    let made: Vec<OutRecord> =
                        refunds.iter().map(|order_id| confirmation(&topics.lifecycle, order_id, clock.now())).collect();
                    confirm(publisher.as_ref(), made).await;
                    for record in records {
                        record.ack.done();
                    }
                }
            });
        }
        Ok(Self { requests, consumer })
    }

    pub(super) fn requests(&self) -> Requests {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Orders of which a notification was asked for.
    pub(super) fn notified(&self) -> usize {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).notifications.len()
    }

    pub(in crate::cli::demo) async fn close(self) {
        // Nothing depends on its offsets.
        drop(self.consumer.close(Duration::from_secs(3)).await);
    }
}

/// Notes what was asked for; returns the orders whose refund was not asked for before.
fn take(requests: &Mutex<Requests>, records: &[InRecord], refunds: &Arc<str>) -> Vec<String> {
    let mut requests = requests.lock().unwrap_or_else(PoisonError::into_inner);
    let mut fresh = Vec::new();
    for record in records {
        let is_refund = record.topic == *refunds;
        let Ok(Whose { order_id }) = serde_json::from_slice(record.value.as_deref().unwrap_or_default()) else {
            continue;
        };
        let of_kind = if is_refund { &mut requests.refunds } else { &mut requests.notifications };
        let asked = of_kind.entry(order_id.clone()).or_default();
        let is_first = asked.ids.is_empty();
        asked.ids.insert(header(record, "ce_id").unwrap_or_default());
        if is_first {
            asked.first_at = header(record, "ce_time").and_then(|at| at.parse().ok());
            fresh.extend(is_refund.then_some(order_id));
        }
    }
    fresh
}

fn header(record: &InRecord, name: &str) -> Option<String> {
    let (_, value) = record.headers.iter().find(|(found, _)| found == name.as_bytes())?;
    String::from_utf8(value.as_ref()?.to_vec()).ok()
}

/// Says that refunds were made, until the broker has acknowledged each.
async fn confirm(publisher: &dyn Publisher, mut made: Vec<OutRecord>) {
    while !made.is_empty() {
        let answers = publisher.publish(&made).await;
        let mut failed = answers.iter().map(Result::is_err);
        made.retain(|_| failed.next().unwrap_or(false));
    }
}

fn confirmation(topic: &Arc<str>, order_id: &str, at: Timestamp) -> OutRecord {
    let at = at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    let body = json!({ "order_id": order_id, "refund_id": format!("refund-{order_id}"), "at": at });
    let header = |name: &'static str, value: String| (Bytes::from_static(name.as_bytes()), Some(Bytes::from(value)));
    OutRecord {
        topic: Arc::clone(topic),
        key: Some(Bytes::from(order_id.to_owned())),
        value: Some(Bytes::from(body.to_string())),
        headers: vec![
            header("ce_specversion", "1.0".to_owned()),
            header("ce_id", format!("{order_id}:refund")),
            header("ce_source", "recharged-demo".to_owned()),
            header("ce_type", "recharge.refund.confirmed.v1".to_owned()),
            header("content-type", "application/json".to_owned()),
        ],
    }
}
