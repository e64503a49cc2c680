//! What the payment side says of refunds, and what is said when it says nothing.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use recharged::domain::{CaseKind, EventType, Order, State};
use recharged::ports::{CaseFilter, OutRecord};
use serde_json::{Value, json};

use super::support::{
    UNHURRIED, ago, body, changed, events, header_of, letters, lifecycle, now_text, timeline, types, unpaid,
    until_metric,
};
use crate::harness::{Line, Wishes};
use crate::pace::at_most;

const WITHIN: Duration = Duration::from_secs(20);
const OVERDUE: &str = "recharge_watchdog_actions_total";

fn refunded(line: &Line, id: &str, refund_id: &str) -> OutRecord {
    let data = json!({ "order_id": id, "refund_id": refund_id, "at": now_text() });
    lifecycle(line, "recharge.refund.confirmed.v1", &data)
}

fn on_orders(line: &Line, record: &OutRecord) -> OutRecord {
    OutRecord { topic: line.topic("orders"), key: Some(Bytes::from_static(b"elsewhere")), ..record.clone() }
}

/// One that is paid and cannot be recharged.
fn hopeless(line: &Line, id: &str) -> OutRecord {
    line.record(id, &changed(id, &json!({ "phone": "138" })))
}

async fn open_cases(line: &Line, id: &str) -> Vec<CaseKind> {
    let filter = CaseFilter { order_id: Some(recharged::domain::OrderId::parse(id).unwrap()), ..CaseFilter::default() };
    line.store.cases(&filter, None, 9).await.unwrap().iter().map(|case| case.key.kind).collect()
}

fn shown(line: &Line, id: &str) -> (Value, String) {
    let json = line.command(&["--json", "orders", "show", id]).output().unwrap();
    let text = line.command(&["orders", "show", id]).output().unwrap();
    (serde_json::from_slice(&json.stdout).unwrap(), String::from_utf8_lossy(&text.stdout).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refund_is_followed_until_its_money_is_back_and_a_person_hears_where_it_is_not() {
    let toml = "[sla]\nrefund_confirm_within = \"20s\"\n".to_owned();
    let line = Line::set_up(Wishes { send_window: UNHURRIED, toml, ..Wishes::default() }).await;
    let services = [line.start("one", &[]).await, line.start("two", &[]).await];
    // One says that its money is back before its order is there.
    line.write(vec![refunded(&line, "early", "r-early")]).await;
    let failing = ["made", "twice", "late", "never", "early"];
    line.write(failing.iter().map(|id| hopeless(&line, id)).collect()).await;
    line.write(vec![line.record("open", &unpaid("open")), line.order("delivered")]).await;
    for id in failing {
        line.until_order(id, "failed", |order| order.state == State::Failed).await;
    }
    line.until_order("open", "stored", |order| order.state == State::AwaitingPayment).await;
    line.until_order("delivered", "succeeded", |order| order.state == State::Succeeded).await;
    let (waiting, text) = shown(&line, "never");
    assert!(waiting["waits"]["refund_confirmed_by"].is_string() && waiting["refund_id"].is_null(), "{waiting}");
    assert!(text.contains("waits     for the confirmation of its refund until"), "{text}");

    let made = refunded(&line, "made", "r-1");
    let unasked = [refunded(&line, "open", "r-3"), refunded(&line, "delivered", "r-4")];
    line.write(vec![made.clone(), on_orders(&line, &made), made, refunded(&line, "twice", "r-1")]).await;
    for id in ["made", "twice", "early"] {
        line.until_order(id, "refunded", |order| order.refund_id.is_some()).await;
    }
    line.write(vec![refunded(&line, "twice", "r-2"), refunded(&line, "twice", "r-2")]).await;
    line.write(unasked.iter().flat_map(|record| [record.clone(), on_orders(&line, record)]).collect()).await;
    for (id, state, kind) in [
        ("twice", State::Failed, CaseKind::RefundedTwice),
        ("open", State::AwaitingPayment, CaseKind::UnrequestedRefund),
        ("delivered", State::Succeeded, CaseKind::UnrequestedRefund),
    ] {
        let row = line.until_order(id, "a case", Order::has_cases).await;
        assert_eq!((row.state, row.cases), (state, kind.bit()), "{id}");
        assert_eq!(open_cases(&line, id).await, [kind]);
    }

    let overdue = CaseKind::RefundUnconfirmed;
    for id in ["late", "never"] {
        let row = line.until_order(id, "missed", |order| order.cases & overdue.bit() != 0).await;
        let opened = timeline(&line, id).await.into_iter().find(|event| event.kind == EventType::CaseOpened).unwrap();
        let late = opened.at - row.closed_at.unwrap() - chrono::TimeDelta::from_std(WITHIN).unwrap();
        let late = late.to_std().expect("no alarm is early");
        at_most("an alarm", late, Duration::from_millis(5_500), Duration::from_secs(20));
    }
    line.write(vec![refunded(&line, "late", "r-5")]).await;
    line.until_order("late", "refunded", |order| order.refund_id.is_some()).await;
    assert_eq!((open_cases(&line, "late").await, open_cases(&line, "never").await), (vec![], vec![overdue]));

    let told = events(&line).await;
    for (id, kinds) in [
        ("made", vec!["failed", "refund_confirmed"]),
        ("early", vec!["failed", "refund_confirmed"]),
        ("twice", vec!["failed", "refund_confirmed", "case_opened"]),
        ("late", vec!["failed", "case_opened", "refund_confirmed"]),
        ("never", vec!["failed", "case_opened"]),
        ("open", vec!["accepted", "case_opened"]),
    ] {
        assert_eq!(types(&told[id]), kinds, "{id}");
    }
    let confirmed = &told["made"][1];
    assert_eq!((&body(confirmed)["refund_id"], &body(confirmed)["state"]), (&json!("r-1"), &json!("failed")));
    assert_eq!(header_of(confirmed, "ce_id"), "made:2:refund_confirmed");
    line.until_told().await;
    let requests = line.read_all("refunds").await;
    let requested: HashSet<&str> = requests.iter().map(|record| header_of(record, "ce_id")).collect();
    assert_eq!(requested.len(), failing.len(), "each was requested once");
    let mut counted = 0.0;
    for service in &services {
        counted += service.metric_of(OVERDUE, "action=\"refund_overdue\"").await.unwrap();
    }
    assert!((counted - 2.0).abs() < 0.5, "{counted} were counted");
    let (after, text) = shown(&line, "made");
    assert_eq!((&after["refund_id"], &after["waits"]["refund_confirmed_by"]), (&json!("r-1"), &Value::Null));
    assert!(text.contains("not delivered, refunded") && text.contains("refund r-1 made at"), "{text}");
    let cases = line.command(&["cases", "show", "never"]).output().unwrap();
    let cases = String::from_utf8_lossy(&cases.stdout).into_owned();
    assert!(cases.contains("refund_unconfirmed: the payment side has not confirmed"), "{cases}");
    let report = line.audit().await;
    assert!(report.audit.clean, "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refund_of_which_nothing_usable_is_said_is_a_dead_letter() {
    let line = Line::set_up(Wishes::default()).await;
    let service = line.start("one", &[]).await;
    line.write(vec![hopeless(&line, "o-1")]).await;
    line.until_order("o-1", "failed", |order| order.state == State::Failed).await;
    let said = |data: Value| lifecycle(&line, "recharge.refund.confirmed.v1", &data);
    let bad = [
        json!({ "order_id": "o-1", "at": now_text() }),
        json!({ "order_id": "o-1", "refund_id": "", "at": now_text() }),
        json!({ "order_id": "o-1", "refund_id": "r\u{0}", "at": now_text() }),
        json!({ "order_id": "o-1", "refund_id": "r".repeat(129), "at": now_text() }),
        json!({ "order_id": "o-1", "refund_id": "r", "at": "soon" }),
    ];
    let count = bad.len();
    line.write(bad.into_iter().map(said).collect()).await;
    let read = letters(&line, count).await;
    assert!(read.iter().all(|(_, letter)| letter.reason == "schema"), "{read:?}");
    until_metric(&service, "recharge_dead_letter_messages_total", count).await;
    // By clocks that are ahead of ours and behind it.
    let ahead = json!({ "order_id": "o-1", "refund_id": "r-1", "at": ago(-7_200) });
    line.write(vec![said(ahead)]).await;
    line.until_order("o-1", "refunded", |order| order.refund_id.is_some()).await;
    let now = line.store.now().await.unwrap();
    let log = timeline(&line, "o-1").await;
    let made = log.last().unwrap().data.refund_made.as_deref().unwrap();
    assert!(made.at <= now, "told as of {}, at {now}", made.at);
}
