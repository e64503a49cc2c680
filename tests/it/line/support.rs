//! What the tests of the line's edges share.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use recharged::domain::LoggedEvent;
use recharged::ports::{InRecord, OutRecord};
use recharged::roles::dead_letter::{DeadLetter, Header};
use serde_json::{Value, json};

use crate::harness::{Line, PATIENCE, Service, last_versions, order_json};

/// For tests that look at each step of an order: on a busy machine a call that leaves too late is
/// put off, which is right and yet two steps more. This makes that rare; a permit that is too old
/// does it still, and `Line::history` knows such steps.
pub(super) const UNHURRIED: &str = "20s";

pub(super) fn header(name: &str, value: &str) -> Header {
    (Bytes::from(name.to_owned()), Some(Bytes::from(value.to_owned())))
}

/// The headers of an event in binary mode.
pub(super) fn binary(kind: &str) -> Vec<Header> {
    vec![header("ce_specversion", "1.0"), header("ce_id", "e-1"), header("ce_source", "shop"), header("ce_type", kind)]
}

/// A record of the lifecycle topic.
pub(super) fn lifecycle(line: &Line, kind: &str, data: &Value) -> OutRecord {
    let key = data["order_id"].as_str().unwrap_or_default().to_owned();
    OutRecord {
        topic: line.topic("lifecycle"),
        key: Some(Bytes::from(key)),
        value: Some(Bytes::from(data.to_string())),
        headers: binary(kind),
    }
}

pub(super) fn paid(line: &Line, id: &str) -> OutRecord {
    let data = json!({ "order_id": id, "paid_at": now_text(), "payment_id": format!("pay-{id}") });
    lifecycle(line, "recharge.order.paid.v1", &data)
}

pub(super) fn cancelled(line: &Line, id: &str) -> OutRecord {
    lifecycle(line, "recharge.order.cancelled.v1", &json!({ "order_id": id, "reason": "changed my mind" }))
}

/// An order as JSON with some fields changed; a null takes the field away.
pub(super) fn changed(id: &str, changes: &Value) -> Value {
    let mut order = order_json(id);
    let fields = order.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            fields.remove(name);
        } else {
            fields.insert(name.clone(), value.clone());
        }
    }
    order
}

pub(super) fn unpaid(id: &str) -> Value {
    changed(id, &json!({ "paid_at": null, "payment_id": null }))
}

pub(super) fn now_text() -> String {
    recharged::clock::SystemClock::local().to_rfc3339()
}

/// Some time ago.
pub(super) fn ago(seconds: i64) -> String {
    (recharged::clock::SystemClock::local() - chrono::Duration::seconds(seconds)).to_rfc3339()
}

/// The first so many dead letters, each read back.
pub(super) async fn letters(line: &Line, count: usize) -> Vec<(InRecord, DeadLetter)> {
    let records = line.read("dead-letters", |records| records.len() >= count).await;
    let read = |record: InRecord| {
        let letter = DeadLetter::read(&record).expect("a dead letter of ours");
        (record, letter)
    };
    records.into_iter().map(read).collect()
}

/// The public events of every order, each version once, when all that the store knows was told.
pub(super) async fn events(line: &Line) -> HashMap<String, Vec<InRecord>> {
    let rows = line.rows().await;
    let wanted: HashMap<String, u64> =
        rows.iter().map(|row| (row.order_id.to_string(), u64::from(row.version))).collect();
    let told = |records: &[InRecord]| {
        let last = last_versions(records);
        wanted.iter().all(|(id, version)| last.get(id).is_some_and(|told| told >= version))
    };
    let mut events: HashMap<String, Vec<InRecord>> = HashMap::new();
    for record in line.read("order-events", told).await {
        let id = std::str::from_utf8(record.key.as_deref().unwrap()).unwrap().to_owned();
        assert_eq!(body(&record)["order_id"], id.as_str(), "the key is the order id");
        let of_it = events.entry(id).or_default();
        // A version may be told twice; then with the same words.
        match of_it.iter().find(|known| body(known)["version"] == body(&record)["version"]) {
            Some(known) => assert_eq!((&known.value, &known.headers), (&record.value, &record.headers)),
            None => of_it.push(record),
        }
    }
    events
}

pub(super) fn body(record: &InRecord) -> Value {
    serde_json::from_slice(record.value.as_deref().unwrap()).unwrap()
}

/// A header's text; fails if it is missing or comes twice.
pub(super) fn header_of<'a>(record: &'a InRecord, name: &str) -> &'a str {
    let found: Vec<_> = record.headers.iter().filter(|(known, _)| known.as_ref() == name.as_bytes()).collect();
    assert_eq!(found.len(), 1, "{name}: {:?}", record.headers);
    std::str::from_utf8(found[0].1.as_deref().unwrap()).unwrap()
}

pub(super) fn types(events: &[InRecord]) -> Vec<String> {
    let short = |record| {
        let kind = header_of(record, "ce_type");
        kind.strip_prefix("recharge.order.").and_then(|kind| kind.strip_suffix(".v1")).unwrap_or(kind).to_owned()
    };
    events.iter().map(short).collect()
}

/// One order's log.
pub(super) async fn timeline(line: &Line, id: &str) -> Vec<LoggedEvent> {
    line.store.timeline(&recharged::domain::OrderId::parse(id).unwrap()).await.unwrap()
}

/// Waits until one order's log holds such an entry; returns the first.
pub(super) async fn until_logged(
    line: &Line,
    id: &str,
    what: &str,
    is_it: impl Fn(&LoggedEvent) -> bool,
) -> LoggedEvent {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let log = timeline(line, id).await;
        if let Some(found) = log.iter().find(|event| is_it(event)) {
            return found.clone();
        }
        assert!(Instant::now() < deadline, "{id} was not {what}: {log:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until a metric of the service, summed over its labels, has a value.
pub(super) async fn until_metric(service: &Service, name: &str, wanted: usize) {
    let deadline = Instant::now() + PATIENCE;
    let counted = f64::from(u32::try_from(wanted).unwrap());
    loop {
        let found = service.metric(name).await;
        if found.is_some_and(|found| (found - counted).abs() < 0.5) {
            return;
        }
        assert!(Instant::now() < deadline, "{name} is {found:?}, not {wanted}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits for a condition.
pub(super) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// No synthetic number, in any of the forms in which it was sent, stands in a text.
pub(crate) fn assert_no_numbers(text: &str, place: &str) {
    for (at, _) in text.match_indices("138000") {
        let digits = text[at..].bytes().take_while(u8::is_ascii_digit).count();
        assert!(digits < 11, "{place} shows a phone number");
    }
}
