//! I3: what the world was told, word for word, against the log.

use std::collections::{BTreeMap, HashMap};

use recharged::domain::{LoggedEvent, Order, Timestamp};
use recharged::ports::OutRecord;
use serde_json::{Map, Value, json};

use super::Oracle;
use crate::laws::Law;

impl Oracle<'_> {
    /// Each log entry reaches the world at least once, per order in order after deduplication, as what it is; one
    /// refund is asked for where the store says so.
    pub(super) fn look_at_published(&self, rows: &BTreeMap<String, Order>) {
        let log: HashMap<(&str, u64), &LoggedEvent> =
            self.log.iter().map(|event| ((event.order_id.as_str(), u64::from(event.version)), event)).collect();
        let mut seen: HashMap<String, u64> = HashMap::new();
        for record in self.world.outside.broker.records("events") {
            let body = body(&record);
            let (id, version) = (body["order_id"].as_str().unwrap().to_owned(), body["version"].as_u64().unwrap());
            let last = seen.entry(id.clone()).or_default();
            self.hold(Law::Published, version <= *last + 1, || format!("{id}: version {version} came after {last}"));
            *last = (*last).max(version);
            let event = log.get(&(id.as_str(), version));
            let expected = event.map(|event| told(event));
            let is_so = expected.as_ref() == Some(&(headers(&record), body.clone()));
            self.hold(Law::Published, is_so, || {
                format!("{id}: version {version} was told as {body} ({:?}), expected {expected:?}", headers(&record))
            });
        }
        for (id, row) in rows {
            let last = seen.get(id).copied().unwrap_or_default();
            let all = last == u64::from(row.version);
            self.hold(Law::Published, all, || format!("{id}: published up to {last} of {}", row.version));
        }
        let mut asked: HashMap<String, String> = HashMap::new();
        for record in self.world.outside.broker.records("refunds") {
            let body = body(&record);
            let order = body["order_id"].as_str().unwrap_or_default().to_owned();
            let id = headers(&record).remove("ce_id").unwrap_or_default();
            let first = asked.entry(order.clone()).or_insert_with(|| id.clone()).clone();
            self.hold(Law::RefundedOnce, first == id, || format!("{order} is to be refunded twice"));
            let mut mine = self.log.iter().filter(|event| event.order_id.as_str() == order);
            let expected = mine.find_map(refund);
            let is_so = expected.as_ref() == Some(&(id, body.clone()));
            self.hold(Law::RefundedOnce, is_so, || format!("{order}: refund {body}, expected {expected:?}"));
        }
        for (id, row) in rows {
            let agrees = asked.contains_key(id) == row.refund_requested;
            self.hold(Law::RefundedOnce, agrees, || format!("{id}: its refund was not asked for as the row says"));
        }
    }
}

fn body(record: &OutRecord) -> Value {
    serde_json::from_slice(record.value.as_ref().unwrap()).unwrap()
}

/// Those that say which event it is, and of what kind.
fn headers(record: &OutRecord) -> BTreeMap<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let all = record.headers.iter().map(|(name, value)| (text(name), text(value.as_deref().unwrap_or_default())));
    all.filter(|(name, _)| matches!(name.as_str(), "ce_id" | "ce_type" | "ce_subject" | "ce_time")).collect()
}

fn time(at: Timestamp) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

/// What must be told of an entry.
fn told(event: &LoggedEvent) -> (BTreeMap<String, String>, Value) {
    let (id, data) = (event.order_id.as_str(), &event.data);
    let public = event.kind.public(data.state);
    let headers = [
        ("ce_id", format!("{id}:{}:{}", event.version, public.as_str())),
        ("ce_type", format!("recharge.order.{}.v1", public.as_str())),
        ("ce_subject", id.to_owned()),
        ("ce_time", time(event.at)),
    ];
    let mut body = Map::new();
    let mut say = |name: &str, value: Option<Value>| value.map(|value| body.insert(name.to_owned(), value));
    say("order_id", Some(json!(id)));
    say("version", Some(json!(event.version)));
    say("state", Some(json!(data.state.as_str())));
    say("at", Some(json!(time(event.at))));
    say("deadline_at", Some(json!(time(data.deadline_at))));
    say("attempt", Some(json!(data.attempt)));
    say("provider", data.provider.as_ref().map(|provider| json!(provider.as_str())));
    say("reason", data.reason.map(|reason| json!(reason.as_str())));
    say("sla", data.sla.map(|sla| json!(sla.as_str())));
    (headers.map(|(name, value)| (name.to_owned(), value)).into(), Value::Object(body))
}

/// The refund that an entry asks for: its event's id, and what it says.
fn refund(event: &LoggedEvent) -> Option<(String, Value)> {
    let (id, note) = (event.order_id.as_str(), event.data.refund.as_ref()?);
    let mut body = json!({
        "order_id": id, "amount_minor": note.amount_minor, "currency": note.currency.to_string(),
        "reason": note.reason.as_str(), "attempts": event.data.attempt,
    });
    if let Some(payment_id) = &note.payment_id {
        body["payment_id"] = json!(payment_id.as_ref());
    }
    Some((format!("{id}:{}:refund_requested", event.version), body))
}
