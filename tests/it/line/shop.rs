//! What a shop may send that is right and yet not simple: the same order again, another amount,
//! odd times, what cannot be recharged, payments and cancellations.

use std::time::Duration;

use bytes::Bytes;
use recharged::domain::{CaseKind, Order, Reason, Sla, State};
use recharged::ports::{InRecord, OutRecord};
use recharged::providers::simulator::{Latency, Profile};
use serde_json::{Value, json};
use sqlx::Executor as _;

use super::support::{
    UNHURRIED, ago, body, cancelled, changed, events, header_of, letters, lifecycle, now_text, paid, types, unpaid,
    until_metric,
};
use crate::harness::{Line, Wishes, order_json};

fn unhurried() -> Wishes {
    Wishes { send_window: UNHURRIED, ..Wishes::default() }
}

fn keyed(record: &OutRecord, key: &str) -> OutRecord {
    OutRecord { key: Some(Bytes::from(key.to_owned())), ..record.clone() }
}

/// Sends one order after all others and waits for it: what came before has been looked at.
async fn settle(line: &Line, name: &str, partitions: u64) {
    let before = line.counts().await.get(&State::Succeeded).copied().unwrap_or(0);
    line.send(name, 40).await;
    line.until_succeeded(before + 40).await;
    assert!(partitions <= 4, "forty keys reach every partition");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_comes_again_is_recharged_once() {
    let line = Line::set_up(unhurried()).await;
    let service = line.start("one", &[]).await;
    let mut batch = Vec::new();
    for number in 0..10 {
        batch.extend(vec![line.order(&format!("twice-{number}")); 2]);
        batch.extend(vec![line.order(&format!("ten-{number}")); 10]);
        // Other keys, so other partitions, taken at the same time.
        let order = line.order(&format!("apart-{number}"));
        batch.extend((0..8).map(|key| keyed(&order, &format!("k{key}"))));
    }
    line.write(batch).await;
    line.until_succeeded(30).await;
    // And once more, when all is over.
    line.write((0..10).map(|number| line.order(&format!("ten-{number}"))).collect()).await;
    until_metric(&service, "recharge_orders_received_total", 210).await;
    until_metric(&service, "recharge_orders_duplicate_total", 180).await;
    let rows = line.rows().await;
    assert_eq!(rows.len(), 30);
    for row in rows {
        let id = row.order_id.as_str();
        assert_eq!((line.history(id).await.steps(), row.attempt_number(), row.cases), (3, 1, 0), "{id}");
    }
    assert_eq!(line.delivered().into_values().collect::<Vec<_>>(), [1; 30]);
    assert_eq!(line.simulator.stats().submits, 30);
    assert!(line.audit().await.audit.clean);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_orders_with_one_id_the_first_stands_and_a_case_is_opened() {
    let line = Line::set_up(unhurried()).await;
    let _service = line.start("one", &[]).await;
    line.write(vec![line.order("changed")]).await;
    line.until_succeeded(1).await;
    let others =
        [json!({ "amount_minor": 10_000 }), json!({ "phone": "+8613800099999" }), json!({ "currency": "USD" })]
            .map(|change| line.record("changed", &changed("changed", &change)));
    line.write(others.to_vec()).await;
    // At the same time, on partitions of their own: either may be the first.
    let order = line.order("raced");
    let dearer = line.record("raced", &changed("raced", &json!({ "amount_minor": 9_000 })));
    let race = (0..6).map(|key| keyed(if key % 2 == 0 { &order } else { &dearer }, &format!("k{key}")));
    line.write(race.collect()).await;
    for id in ["changed", "raced"] {
        let row = line
            .until_order(id, "done, with a case", |order| order.state == State::Succeeded && order.cases != 0)
            .await;
        assert_eq!(row.cases, CaseKind::PayloadConflict.bit());
    }
    settle(&line, "then", 4).await;
    assert_eq!(line.load("changed").await.unwrap().amount.minor, 5_000);
    let told = events(&line).await;
    for id in ["changed", "raced"] {
        let row = line.load(id).await.unwrap();
        let history = line.history(id).await;
        assert_eq!(history.steps(), 4, "one event more, however often it came: {id}");
        let mut kinds = types(&history.told(&told[id]));
        kinds.sort_unstable();
        assert_eq!(kinds, ["case_opened", "queued", "submitted", "succeeded"], "{id}");
        let opened: Vec<_> = history.log.into_iter().flat_map(|event| event.data.cases_opened).collect();
        assert_eq!(opened, [CaseKind::PayloadConflict], "{id}");
        let ledger = recharged::providers::simulator::read_ledger(&line.folder.path().join("ledger.jsonl")).unwrap();
        let reference = row.attempt.unwrap().client_ref;
        let amounts: Vec<i64> =
            ledger.iter().filter(|line| line.client_ref == reference).map(|line| line.amount_minor).collect();
        assert_eq!(amounts, [row.amount.minor], "{id}");
    }
    assert_eq!(line.simulator.stats().submits, 42);
    let shown = line.command(&["--json", "orders", "show", "changed"]).output().unwrap();
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!((&shown["case_open"], &shown["state"]), (&json!(true), &json!("succeeded")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_shop_says_of_an_order_past_its_deadline_is_taken_and_holds_up_nobody() {
    // Accepted, and nobody hears what became of it.
    let completion = Latency::Fixed(Duration::from_secs(3_600));
    let profile = Profile { accepted_first: 1.0, completion, ..Profile::default() };
    let toml = "[sla]\ndeadline = \"20s\"\nunpaid_timeout = \"20s\"\nnotify_after = \"10s\"\n".to_owned();
    let line =
        Line::set_up(Wishes { partitions: 1, profile, query_not_before: "10m", toml, ..Wishes::default() }).await;
    let _service = line.start("one", &[]).await;
    let ids = ["cancelled", "changed", "paid-again"];
    line.write(ids.iter().map(|id| line.order(id)).collect()).await;
    for id in ids {
        line.until_order(id, "in doubt", |order| order.state == State::InDoubt).await;
    }
    let dearer = line.record("changed", &changed("changed", &json!({ "amount_minor": 9_000 })));
    let second = json!({ "order_id": "paid-again", "paid_at": now_text(), "payment_id": "another" });
    let second = lifecycle(&line, "recharge.order.paid.v1", &second);
    line.write(vec![cancelled(&line, "cancelled"), dearer, second]).await;
    for (id, told) in [
        ("cancelled", Order::CANCEL_REFUSED),
        ("changed", CaseKind::PayloadConflict.bit()),
        ("paid-again", CaseKind::PayloadConflict.bit()),
    ] {
        let row = line.until_order(id, "told of it", |order| order.cases & told != 0).await;
        assert_eq!((row.state, row.cases), (State::InDoubt, CaseKind::InDoubt.bit() | told), "{id}");
    }
    line.simulator.set_profile(Profile::default()).unwrap();
    settle(&line, "then", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_from_the_future_or_the_past_gets_what_its_time_allows() {
    let line = Line::set_up(unhurried()).await;
    let service = line.start("one", &[]).await;
    let at = |id: &str, seconds: i64| {
        line.record(id, &changed(id, &json!({ "paid_at": ago(seconds), "created_at": ago(seconds) })))
    };
    line.write(vec![
        at("ahead", -3_600),
        at("near", -2),
        at("late", 181),
        at("hours-late", 7_200),
        at("forgotten", 91 * 86_400),
        line.record("unpaid-late", &changed("unpaid-late", &json!({ "paid_at": null, "created_at": ago(31 * 60) }))),
    ])
    .await;

    // The record's own time counts, so nobody buys himself time.
    let ahead = line.until_order("ahead", "succeeded", |order| order.state == State::Succeeded).await;
    let limit = line.store.now().await.unwrap() + chrono::Duration::seconds(180);
    assert!(ahead.paid_at.unwrap() <= limit - chrono::Duration::seconds(180), "{:?}", ahead.paid_at);
    assert!(ahead.deadline_at <= limit);
    line.until_order("near", "succeeded", |order| order.state == State::Succeeded).await;
    assert_eq!(service.metric("recharge_orders_future_paid_at_total").await, Some(1.0));

    for id in ["late", "hours-late"] {
        let row = line.until_order(id, "failed", |order| order.state == State::Failed).await;
        assert_eq!((row.reason, row.version, row.sla), (Some(Reason::DeadlinePassed), 1, Some(Sla::Missed)), "{id}");
        assert!(row.refund_requested && row.attempt.is_none(), "{id}");
    }
    let told = events(&line).await;
    assert!(["late", "hours-late"].iter().all(|id| types(&told[*id]) == ["failed"]));
    let letter = letters(&line, 1).await.remove(0).1;
    assert_eq!(letter.reason, "too_old");
    assert!(line.load("forgotten").await.is_none(), "neither a row nor a refund");
    let row = line.until_order("unpaid-late", "cancelled", |order| order.state == State::Cancelled).await;
    assert_eq!((row.reason, row.refund_requested), (Some(Reason::Unpaid), false));

    let refunds = line.read("refunds", |records| records.len() >= 2).await;
    assert_eq!(refunds.len(), 2);
    for refund in &refunds {
        let id = std::str::from_utf8(refund.key.as_deref().unwrap()).unwrap();
        assert_refund(refund, id, "deadline_passed", 1);
        assert!(["late", "hours-late"].contains(&id));
    }
    settle(&line, "then", 4).await;
    assert_eq!(line.simulator.stats().submits, 42, "what was late was never sent");
}

fn assert_refund(record: &InRecord, id: &str, reason: &str, version: u32) {
    let wanted = json!({
        "order_id": id, "payment_id": format!("pay-{id}"), "amount_minor": body(record)["amount_minor"],
        "currency": "CNY", "reason": reason, "attempts": 0,
    });
    assert_eq!(body(record), wanted);
    assert_eq!(record.key.as_deref(), Some(id.as_bytes()));
    assert_eq!(header_of(record, "ce_type"), "recharge.refund.requested.v1");
    assert_eq!(header_of(record, "ce_id"), format!("{id}:{version}:refund_requested"));
    assert_eq!(header_of(record, "ce_specversion"), "1.0");
    assert_eq!(header_of(record, "ce_subject"), id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paid_order_that_cannot_be_recharged_fails_with_its_reason_and_a_refund() {
    let toml = "products = [ { country = \"CN\", amount_minor = 5000, product = \"50\" } ]\n\
                [[routes]]\ncountry = \"CN\"\nlanes = [\"sim\"]\n";
    let line = Line::set_up(Wishes { send_window: UNHURRIED, toml: toml.to_owned(), ..Wishes::default() }).await;
    let _service = line.start("one", &[]).await;
    let cases = [
        ("short", json!({ "phone": "138" }), Reason::InvalidPhone),
        ("empty", json!({ "phone": "" }), Reason::InvalidPhone),
        (
            "words",
            json!({ "phone": "call me at +8613800012345 or so, it is a long text".repeat(20) }),
            Reason::InvalidPhone,
        ),
        ("homeless", json!({ "phone": "13800012345", "region": "XX" }), Reason::InvalidPhone),
        ("landline-like", json!({ "phone": "+86000000000000000" }), Reason::InvalidPhone),
        ("odd-amount", json!({ "amount_minor": 5_001 }), Reason::AmountNotSupported),
        ("huge", json!({ "amount_minor": i64::MAX }), Reason::AmountNotSupported),
        ("dollars", json!({ "currency": "USD" }), Reason::AmountNotSupported),
        ("abroad", json!({ "phone": "+4915112345678" }), Reason::NoRoute),
    ];
    let mut batch: Vec<OutRecord> = cases.iter().map(|(id, change, _)| line.record(id, &changed(id, change))).collect();
    batch.push(line.record("national", &changed("national", &json!({ "phone": "13800012345", "region": "CN" }))));
    line.write(batch).await;
    line.until_order("national", "succeeded", |order| order.state == State::Succeeded).await;
    for (id, _, reason) in &cases {
        let row = line.until_order(id, "failed", |order| order.state == State::Failed).await;
        assert_eq!((row.reason, row.version, row.sla), (Some(*reason), 1, Some(Sla::Met)), "{id}");
    }
    let refunds = line.read("refunds", |records| records.len() >= cases.len()).await;
    assert_eq!(refunds.len(), cases.len());
    for (id, _, reason) in &cases {
        let refund = refunds.iter().find(|record| record.key.as_deref() == Some(id.as_bytes())).unwrap();
        if *id == "dollars" {
            assert_eq!(body(refund)["currency"], "USD");
        } else {
            assert_refund(refund, id, reason.as_str(), 1);
        }
    }
    assert_eq!(line.simulator.stats().submits, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payments_and_cancellations_move_orders_as_they_may() {
    let line = Line::set_up(unhurried()).await;
    let _service = line.start("one", &[]).await;
    let ids = ["pays", "cancels", "pays-late", "pays-twice"];
    line.write(ids.map(|id| line.record(id, &unpaid(id))).to_vec()).await;
    for id in ids {
        let row = line.until_order(id, "stored", |order| order.state == State::AwaitingPayment).await;
        assert!(row.deadline_at > row.created_at + chrono::Duration::minutes(29));
    }
    assert_eq!(line.simulator.stats().submits, 0);

    line.write(vec![paid(&line, "pays"), paid(&line, "pays-twice"), paid(&line, "pays-twice")]).await;
    line.write(vec![cancelled(&line, "cancels"), cancelled(&line, "cancels"), cancelled(&line, "pays-late")]).await;
    for id in ["pays", "pays-twice"] {
        let row = line.until_order(id, "succeeded", |order| order.state == State::Succeeded).await;
        assert_eq!(row.payment_id.as_deref(), Some(format!("pay-{id}").as_str()));
        assert!(row.deadline_at < row.paid_at.unwrap() + chrono::Duration::seconds(181), "anew, from the payment");
        assert_eq!((line.history(id).await.steps(), row.cases), (4, 0));
    }
    let row = line.until_order("cancels", "cancelled", |order| order.state == State::Cancelled).await;
    assert_eq!((row.reason, row.refund_requested), (Some(Reason::CancelledUpstream), false));

    // Too late to cancel what is paid; too late to pay what is cancelled.
    line.until_order("pays-late", "cancelled", |order| order.state == State::Cancelled).await;
    line.write(vec![cancelled(&line, "pays"), cancelled(&line, "pays"), paid(&line, "pays-late")]).await;
    let late = line.until_order("pays-late", "refunded", |order| order.refund_requested).await;
    assert_eq!(late.state, State::Cancelled);
    line.until_order("pays", "refused its cancellation", |order| order.cases != 0).await;
    let told = events(&line).await;
    let pays = line.history("pays").await.told(&told["pays"]);
    assert_eq!(types(&pays), ["accepted", "queued", "submitted", "succeeded", "cancel_refused"]);
    let pays_twice = line.history("pays-twice").await.told(&told["pays-twice"]);
    assert_eq!(types(&pays_twice), ["accepted", "queued", "submitted", "succeeded"]);
    assert_eq!(types(&told["cancels"]), ["accepted", "cancelled"]);
    assert_eq!(types(&told["pays-late"]), ["accepted", "cancelled", "cancelled"]);
    assert_eq!(body(&pays[4])["state"], "succeeded");
    let refunds = line.read("refunds", |records| !records.is_empty()).await;
    assert_eq!((refunds.len(), &body(&refunds[0])["reason"]), (1, &json!("paid_after_cancel")));

    settle(&line, "then", 4).await;
    assert_eq!(line.history("pays").await.steps(), 5, "a cancellation is refused once");
    assert_eq!(line.simulator.stats().submits, 42);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_that_was_read_before_its_order_was_stored_does_not_miss_it() {
    let line = Line::set_up(unhurried()).await;
    let service = line.start("one", &[]).await;
    let on_orders = |record: OutRecord| OutRecord { topic: line.topic("orders"), ..record };
    let mut other = line.connect().await;
    other.execute("begin; lock table orders in exclusive mode").await.unwrap();
    line.write(vec![line.record("early", &unpaid("early"))]).await;
    until_metric(&service, "recharge_orders_received_total", 1).await;
    line.write(vec![on_orders(paid(&line, "early")), on_orders(paid(&line, "nobody"))]).await;
    until_metric(&service, "recharge_orders_received_total", 3).await;
    // Time for who does not wait to look for the order and to miss it.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(line.load("early").await.is_none(), "its batch waits for the lock");
    other.execute("commit").await.unwrap();
    let row = line.until_order("early", "succeeded", |order| order.state == State::Succeeded).await;
    assert_eq!((row.payment_id.as_deref(), row.cases), (Some("pay-early"), 0));
    let waits = service.metric_of("recharge_intake_early_events_total", "source=\"orders\",result=\"waits\"").await;
    assert_eq!(waits, Some(1.0), "only what is nobody's has to wait");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn public_events_are_cloud_events_with_the_fields_that_are_promised() {
    let line = Line::set_up(unhurried()).await;
    let _service = line.start("one", &[]).await;
    let order = changed("told", &json!({ "metadata": { "shop": 7, "词": ["a", null] } }));
    line.write(vec![line.record("some-other-key", &order), line.order("plain")]).await;
    line.until_succeeded(2).await;
    let row = line.load("told").await.unwrap();
    let told_of = events(&line).await;
    let expected = [("queued", 0, "queued"), ("submitted", 1, "in_flight"), ("succeeded", 1, "succeeded")];
    let mut earlier = String::new();
    let versions: Vec<_> = told_of["told"].iter().map(|event| body(event)["version"].clone()).collect();
    assert!(versions.into_iter().eq((1..=row.version).map(|version| json!(version))));
    let steps = line.history("told").await.told(&told_of["told"]);
    for (event, (kind, attempt, state)) in steps.iter().zip(expected) {
        let told = body(event);
        let version = &told["version"];
        let text = |name: &str| told[name].as_str().unwrap().to_owned();
        assert_eq!(header_of(event, "ce_type"), format!("recharge.order.{kind}.v1"));
        assert_eq!(header_of(event, "ce_id"), format!("told:{version}:{kind}"), "the same, however often it is told");
        assert_eq!(header_of(event, "ce_specversion"), "1.0");
        assert_eq!(header_of(event, "ce_source"), "recharged");
        assert_eq!(header_of(event, "ce_subject"), "told");
        assert_eq!(header_of(event, "ce_time"), text("at"));
        assert_eq!(header_of(event, "content-type"), "application/json");
        assert_eq!(told["order_id"], "told");
        assert_eq!(told["attempt"], attempt);
        assert_eq!(told["state"], state);
        assert_eq!(told["provider"], "sim");
        assert_eq!(told["metadata"], order["metadata"]);
        assert_eq!(told.get("sla"), (kind == "succeeded").then_some(&json!("met")));
        assert_eq!(told.get("reason"), None);
        let deadline = chrono::DateTime::parse_from_rfc3339(&text("deadline_at")).unwrap();
        assert_eq!(deadline, row.deadline_at);
        chrono::DateTime::parse_from_rfc3339(&text("at")).unwrap();
        assert!(text("at") >= earlier, "time does not run backwards");
        earlier = text("at");
        for name in told.as_object().unwrap().keys() {
            let known = [
                "order_id",
                "version",
                "state",
                "at",
                "deadline_at",
                "attempt",
                "provider",
                "reason",
                "sla",
                "metadata",
            ];
            assert!(known.contains(&name.as_str()), "{name} is promised nowhere");
        }
        assert!(!told.to_string().contains(order_json("told")["phone"].as_str().unwrap()));
    }
    assert_eq!((steps.len(), line.history("plain").await.steps()), (3, 3));
    assert!(told_of["plain"].iter().all(|event| body(event).get("metadata").is_none()));
}
