//! From a log entry to the records that the world reads: CloudEvents in binary mode, with a
//! deterministic id (`interface.md` section 4).

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::domain::{Currency, LoggedEvent, OrderId, Reason, Sla, State};
use crate::ports::OutRecord;

use super::RelayTopics;

/// Appends what one entry gives: its order event, and a refund request where it has one.
pub(super) fn records(event: &LoggedEvent, topics: &RelayTopics, out: &mut Vec<OutRecord>) {
    let public = event.kind.public(event.data.state);
    let kind = format!("recharge.order.{public}.v1");
    out.push(record(&topics.order_events, event, &kind, public, &order_event(event)));
    if let Some(refund) = &event.data.refund {
        let body = RefundRequested {
            order_id: &event.order_id,
            payment_id: refund.payment_id.as_deref(),
            amount_minor: refund.amount_minor,
            currency: refund.currency,
            reason: refund.reason,
            attempts: event.data.attempt,
        };
        out.push(record(&topics.refunds, event, "recharge.refund.requested.v1", "refund_requested", &body));
    }
}

#[derive(Serialize)]
struct OrderEvent<'a> {
    order_id: &'a OrderId,
    version: u32,
    state: State,
    at: String,
    deadline_at: String,
    attempt: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sla: Option<Sla>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
}

fn order_event(event: &LoggedEvent) -> OrderEvent<'_> {
    OrderEvent {
        order_id: &event.order_id,
        version: event.version,
        state: event.data.state,
        at: time(event.at),
        deadline_at: time(event.data.deadline_at),
        attempt: event.data.attempt,
        provider: event.data.provider.as_ref().map(crate::domain::ProviderId::as_str),
        reason: event.data.reason,
        sla: event.data.sla,
        metadata: event.data.metadata.as_deref().and_then(|text| serde_json::from_str(text).ok()),
    }
}

#[derive(Serialize)]
struct RefundRequested<'a> {
    order_id: &'a OrderId,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_id: Option<&'a str>,
    amount_minor: i64,
    currency: Currency,
    reason: Reason,
    attempts: u16,
}

fn time(at: crate::domain::Timestamp) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

fn record(topic: &Arc<str>, event: &LoggedEvent, kind: &str, id_part: &str, body: &impl Serialize) -> OutRecord {
    let header = |name: &'static str, value: Bytes| (Bytes::from_static(name.as_bytes()), Some(value));
    let order_id = Bytes::copy_from_slice(event.order_id.as_str().as_bytes());
    OutRecord {
        topic: Arc::clone(topic),
        key: Some(order_id.clone()),
        value: serde_json::to_vec(body).ok().map(Bytes::from),
        headers: vec![
            header("ce_specversion", Bytes::from_static(b"1.0")),
            header("ce_id", Bytes::from(format!("{}:{}:{id_part}", event.order_id, event.version))),
            header("ce_source", Bytes::from_static(b"recharged")),
            header("ce_type", Bytes::copy_from_slice(kind.as_bytes())),
            header("ce_subject", order_id),
            header("ce_time", Bytes::from(time(event.at))),
            header("content-type", Bytes::from_static(b"application/json")),
        ],
    }
}
