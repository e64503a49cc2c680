//! From log entries to the records that the world reads: CloudEvents in binary mode, with a
//! deterministic id (`interface.md` section 4).
//!
//! Every event there ever is comes through here, so the texts of a page are written one behind
//! the other into one buffer, and its records hold slices of it.

use std::io::{self, Write as _};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::domain::{Announcement, Currency, Msisdn, Reason, Sla, State, Timestamp};
use crate::ports::OutRecord;

use super::RelayTopics;

/// The records of a page in the making.
pub(super) struct Rendering<'t> {
    topics: &'t RelayTopics,
    text: Vec<u8>,
    parts: Vec<Parts>,
}

/// Where the texts of a record stand.
struct Parts {
    topic: Arc<str>,
    kind: &'static str,
    order_id: Range<usize>,
    event_id: Range<usize>,
    time: Range<usize>,
    body: Range<usize>,
}

/// What a notification tells: where the order stands.
const ORDER_STATE: &str = "order_state";
/// About as long as what is written for an event.
const EVENT_LEN: usize = 400;

impl<'t> Rendering<'t> {
    pub(super) fn new(topics: &'t RelayTopics, events: usize) -> Self {
        Self { topics, text: Vec::with_capacity(events * EVENT_LEN), parts: Vec::with_capacity(events) }
    }

    /// Adds what one entry gives: its order event, and a refund request where it has one. After an
    /// error the page is half written and of no use.
    pub(super) fn add(&mut self, event: &Announcement<'_>) -> io::Result<()> {
        let public = event.kind.public(event.state);
        let at = time(event.at);
        let body = OrderEvent {
            order_id: &event.order_id,
            version: event.version,
            state: event.state,
            at: &at,
            deadline_at: &time(event.deadline_at),
            attempt: event.attempt,
            provider: event.provider.as_deref(),
            reason: event.reason,
            sla: event.sla,
            refund_id: event.refund_made.as_ref().map(|made| &*made.refund_id),
            metadata: event.metadata.as_deref().and_then(|text| serde_json::from_str(text).ok()),
        };
        let topic = Arc::clone(&self.topics.order_events);
        self.record(topic, event, (public.event_type(), public.as_str()), &at, &body)?;
        if let Some(refund) = &event.refund {
            let body = RefundRequested {
                order_id: &event.order_id,
                payment_id: refund.payment_id.as_deref(),
                amount_minor: refund.amount_minor,
                currency: refund.currency,
                reason: refund.reason,
                attempts: event.attempt,
            };
            let topic = Arc::clone(&self.topics.refunds);
            self.record(topic, event, ("recharge.refund.requested.v1", "refund_requested"), &at, &body)?;
        }
        Ok(())
    }

    /// Adds a notification, and whom it is for.
    pub(super) fn notify(&mut self, event: &Announcement<'_>, number: Msisdn) -> io::Result<()> {
        let body = NotificationRequested {
            order_id: &event.order_id,
            phone: &number.expose(),
            template: ORDER_STATE,
            state: event.state,
        };
        let topic = Arc::clone(&self.topics.notifications);
        self.record(topic, event, (event.kind.event_type(), event.kind.as_str()), &time(event.at), &body)
    }

    fn record(
        &mut self,
        topic: Arc<str>,
        event: &Announcement<'_>,
        (kind, id_part): (&'static str, &str),
        at: &str,
        body: &impl Serialize,
    ) -> io::Result<()> {
        let (id, version) = (event.order_id.as_bytes(), event.version);
        let event_id = self.write(|text| {
            text.extend_from_slice(id);
            write!(text, ":{version}:{id_part}")
        })?;
        let order_id = event_id.start..event_id.start + id.len();
        let time = self.write(|text| text.write_all(at.as_bytes()))?;
        let body = self.write(|text| Ok(serde_json::to_writer(text, body)?))?;
        self.parts.push(Parts { topic, kind, order_id, event_id, time, body });
        Ok(())
    }

    /// Appends a text; returns where it stands.
    fn write(&mut self, text: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> io::Result<Range<usize>> {
        let start = self.text.len();
        text(&mut self.text)?;
        Ok(start..self.text.len())
    }

    pub(super) fn finish(self) -> Vec<OutRecord> {
        let text = Bytes::from(self.text);
        let fixed = |text: &'static str| Bytes::from_static(text.as_bytes());
        let record = |parts: Parts| {
            let header = |name, value| (fixed(name), Some(value));
            let order_id = text.slice(parts.order_id);
            OutRecord {
                topic: parts.topic,
                key: Some(order_id.clone()),
                value: Some(text.slice(parts.body)),
                headers: vec![
                    header("ce_specversion", fixed("1.0")),
                    header("ce_id", text.slice(parts.event_id)),
                    header("ce_source", fixed("recharged")),
                    header("ce_type", fixed(parts.kind)),
                    header("ce_subject", order_id),
                    header("ce_time", text.slice(parts.time)),
                    header("content-type", fixed("application/json")),
                ],
            }
        };
        self.parts.into_iter().map(record).collect()
    }
}

#[derive(Serialize)]
struct OrderEvent<'a> {
    order_id: &'a str,
    version: u32,
    state: State,
    at: &'a str,
    deadline_at: &'a str,
    attempt: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sla: Option<Sla>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refund_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct RefundRequested<'a> {
    order_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_id: Option<&'a str>,
    amount_minor: i64,
    currency: Currency,
    reason: Reason,
    attempts: u16,
}

#[derive(Serialize)]
struct NotificationRequested<'a> {
    order_id: &'a str,
    phone: &'a str,
    template: &'static str,
    state: State,
}

fn time(at: Timestamp) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}
