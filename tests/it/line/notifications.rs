//! Somebody is told where an order stands, some time after it was created.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use recharged::domain::{EventType, State, Timestamp};
use recharged::ports::InRecord;
use serde_json::{Value, json};

use super::support::{ago, body, changed, header_of, timeline};
use crate::harness::{Line, Wishes};
use crate::pace::at_most;

const AFTER: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_order_that_asks_for_it_is_told_of_once_in_time_as_it_is_by_then() {
    let toml = "[sla]\ndeadline = \"30s\"\nunpaid_timeout = \"30s\"\nnotify_after = \"4s\"\n".to_owned();
    let line = Line::set_up(Wishes { toml, ..Wishes::default() }).await;
    let services = [line.start("one", &[]).await, line.start("two", &[]).await];
    let ask = |id: &str, more: Value| {
        let mut changes = json!({ "notify": true });
        changes.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        line.record(id, &changed(id, &changes))
    };
    let (paid, unpaid) = (ask("paid", json!({})), ask("unpaid", json!({ "paid_at": null, "payment_id": null })));
    let unusable = ask("unusable", json!({ "phone": "12" }));
    // Told twice, as shops do; the first stands.
    line.write(vec![paid.clone(), unpaid, unusable, line.order("silent"), paid]).await;
    for id in ["paid", "silent"] {
        line.until_order(id, "succeeded", |order| order.state == State::Succeeded).await;
    }
    let of_orders =
        |records: &[InRecord]| records.iter().map(|record| record.key.clone()).collect::<HashSet<_>>().len();
    line.read("notifications", |records| of_orders(records) >= 2).await;
    // Whatever came late would have come by now.
    tokio::time::sleep(Duration::from_secs(2)).await;
    line.until_told().await;
    let all = line.read_all("notifications").await;
    let ids: HashSet<&str> = all.iter().map(|record| header_of(record, "ce_id")).collect();
    assert_eq!(ids.len(), 2, "each is told of once, by whichever relays: {ids:?}");
    let told: BTreeMap<String, _> =
        all.iter().map(|record| (body(record)["order_id"].as_str().unwrap().to_owned(), record)).collect();
    for id in ["paid", "unpaid"] {
        let (record, row) = (told[id], line.load(id).await.unwrap());
        let entries = timeline(&line, id).await;
        let entry = entries.iter().find(|event| event.kind == EventType::NotificationRequested).unwrap();
        let moved = entries.iter().find(|event| event.version == entry.version).unwrap();
        let state = moved.data.state.as_str();
        let wanted =
            json!({ "order_id": id, "phone": row.recipient.expose(), "template": "order_state", "state": state });
        assert_eq!(body(record), wanted);
        assert_eq!(header_of(record, "ce_type"), "recharge.notification.requested.v1");
        assert_eq!(header_of(record, "ce_id"), format!("{id}:{}:notification_requested", entry.version));
        assert_eq!((record.key.as_deref(), header_of(record, "ce_subject")), (Some(id.as_bytes()), id));
        let late = late_by(row.created_at, entry.at, AFTER);
        at_most("a notification", late, Duration::from_millis(250), Duration::from_secs(5));
    }
    let mut counted = 0.0;
    for service in &services {
        counted += service.metric_of("recharge_watchdog_actions_total", "action=\"notify\"").await.unwrap();
    }
    assert!((counted - 2.0).abs() < 0.5, "{counted} were counted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_is_told_where_that_is_wanted_and_then_nothing_is_told_after_it() {
    let toml =
        "[sla]\ndeadline = \"30s\"\nunpaid_timeout = \"10s\"\nnotify_after = \"4s\"\nnotify_at_end = true\n".to_owned();
    let line = Line::set_up(Wishes { toml, ..Wishes::default() }).await;
    let _services = [line.start("one", &[]).await, line.start("two", &[]).await];
    let ask = |id: &str, more: Value| {
        let mut changes = json!({ "notify": true });
        changes.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        line.record(id, &changed(id, &changes))
    };
    let unpaid = ask("unpaid", json!({ "paid_at": null, "payment_id": null }));
    let late = ask("late", json!({ "paid_at": ago(60) }));
    let unusable = ask("unusable", json!({ "phone": "12" }));
    line.write(vec![ask("paid", json!({})), unpaid, late, unusable, line.order("silent")]).await;
    line.until_order("paid", "succeeded", |order| order.state == State::Succeeded).await;
    line.until_order("unpaid", "cancelled", |order| order.state == State::Cancelled).await;
    line.until_told().await;
    let all = line.read_all("notifications").await;
    let mut told: BTreeMap<&str, (String, Value)> = BTreeMap::new();
    for record in &all {
        let text = (header_of(record, "ce_type").to_owned(), body(record));
        let first = told.entry(header_of(record, "ce_id")).or_insert_with(|| text.clone());
        assert_eq!(*first, text, "the same, however often it is told");
    }
    let of = |id: &str| {
        let mine = told.iter().filter(|(_, (_, body))| body["order_id"] == id);
        mine.map(|(event_id, (_, body))| (event_id.rsplit(':').next().unwrap(), body["state"].clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(of("paid"), [("end_notification_requested", json!("succeeded"))], "it ended before it was due");
    assert_eq!(of("late"), [("end_notification_requested", json!("failed"))], "it ended as it came");
    let [waits, ended] = &of("unpaid")[..] else { panic!("{:?}", of("unpaid")) };
    assert_eq!(*ended, ("end_notification_requested", json!("cancelled")));
    assert_eq!(*waits, ("notification_requested", json!("awaiting_payment")));
    assert_eq!(told.len(), 4, "nobody else is told of: {told:?}");
    assert!(
        told.values()
            .all(|(kind, body)| { kind == "recharge.notification.requested.v1" && body["template"] == "order_state" })
    );
    // In the breath of the transition that brings it.
    let entries = timeline(&line, "paid").await;
    let [.., ended, end] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!((ended.kind, end.kind), (EventType::Succeeded, EventType::EndNotificationRequested));
    assert_eq!((ended.version, ended.at), (end.version, end.at));
}

/// How late it came; it must not be early.
pub(super) fn late_by(created_at: Timestamp, told_at: Timestamp, after: Duration) -> Duration {
    (told_at - created_at - chrono::TimeDelta::from_std(after).unwrap()).to_std().expect("no notification is early")
}
