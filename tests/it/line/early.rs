//! Events that come before their order, on topics and partitions that know nothing of each other.

use std::time::Duration;

use bytes::Bytes;
use recharged::clock::SystemClock;
use recharged::domain::{EventType, Reason, State};
use recharged::ports::OutRecord;
use recharged::roles::dead_letter::Header;
use serde_json::json;

use super::support::{UNHURRIED, binary, body, cancelled, header, letters, paid, timeline, unpaid, until_metric};
use crate::harness::{Line, Wishes};

const EARLY: &str = "recharge_intake_early_events_total";

fn wishes() -> Wishes {
    Wishes { send_window: UNHURRIED, tiers: r#"["1s", "5s"]"#, ..Wishes::default() }
}

/// The same on the topic of orders, and under another key: in another partition, for all we know.
fn on_orders(line: &Line, record: &OutRecord) -> OutRecord {
    OutRecord { topic: line.topic("orders"), key: Some(Bytes::from_static(b"elsewhere")), ..record.clone() }
}

/// What the shop says of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    Created,
    Paid,
    Cancelled,
}

const ORDERS_OF_THREE: [[Says; 3]; 6] = {
    use Says::{Cancelled, Created, Paid};
    [
        [Created, Paid, Cancelled],
        [Created, Cancelled, Paid],
        [Paid, Created, Cancelled],
        [Paid, Cancelled, Created],
        [Cancelled, Created, Paid],
        [Cancelled, Paid, Created],
    ]
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_comes_first_on_whichever_topic_however_often_each_order_ends_honestly() {
    let line = Line::set_up(wishes()).await;
    let mut services = vec![line.start("one", &[]).await, line.start("two", &[]).await];
    let mut all = Vec::new();
    for (number, sequence) in ORDERS_OF_THREE.iter().enumerate() {
        for (what, said) in [("all", &sequence[..]), ("two", &sequence[..2])] {
            for topics in 0..4 {
                all.push((format!("{what}-{number}-{topics}"), said.to_vec(), topics));
            }
        }
    }
    for place in 0..3 {
        let mut batch = Vec::new();
        for (id, said, topics) in &all {
            let Some(says) = said.get(place) else { continue };
            let record = match says {
                Says::Created => line.record(id, &unpaid(id)),
                Says::Paid => paid(&line, id),
                Says::Cancelled => cancelled(&line, id),
            };
            // On one topic or the other; every other time on both, and so twice.
            let elsewhere = on_orders(&line, &record);
            match topics {
                0 => batch.push(record),
                1 => batch.push(elsewhere),
                _ => batch.extend([record, elsewhere]),
            }
        }
        line.write(batch).await;
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        if place == 1 {
            // What waits, waits at the broker.
            services.remove(0).kill();
        }
    }
    let created = all.iter().filter(|(_, said, _)| said.contains(&Says::Created));
    let mut recharged = 0;
    for (id, said, _) in created {
        let (is_paid, is_cancelled) = (said.contains(&Says::Paid), said.contains(&Says::Cancelled));
        let ended = line
            .until_order(id, "ended", |order| {
                order.state == State::Succeeded || order.state == State::Cancelled && order.refund_requested == is_paid
            })
            .await;
        let kinds: Vec<EventType> = timeline(&line, id).await.iter().map(|event| event.kind).collect();
        let refused = kinds.iter().filter(|kind| **kind == EventType::CancelRefused).count();
        if ended.state == State::Succeeded {
            recharged += 1;
            assert!(is_paid && !ended.refund_requested && !ended.has_cases(), "{id}: {ended:?}");
        } else {
            assert!(is_cancelled && ended.reason == Some(Reason::CancelledUpstream), "{id}: {ended:?}");
            assert!(!kinds.contains(&EventType::Queued), "{id} was cancelled, and recharged: {kinds:?}");
        }
        assert!(refused <= 1, "{id}: {kinds:?}");
        assert!(is_paid || ended.state == State::Cancelled);
        assert!(is_cancelled || ended.state == State::Succeeded);
    }
    line.until_told().await;
    let refunds = line.read_all("refunds").await;
    for refund in &refunds {
        assert_eq!(body(refund)["reason"], "paid_after_cancel");
    }
    // Those without an order wait, all of them; they are nobody's yet.
    assert!(line.read_all("dead-letters").await.is_empty());
    assert_eq!(line.delivered().len(), recharged, "nothing was delivered that was cancelled before");
    let report = line.audit().await;
    assert!(report.audit.clean, "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_waited_a_quarter_of_an_hour_is_an_orphan_that_tells_from_where_it_came() {
    let line = Line::set_up(wishes()).await;
    let service = line.start("one", &[]).await;
    let now = SystemClock::local();
    let came = |id: &str, minutes: i64| {
        let first_seen = (now - chrono::Duration::minutes(minutes)).timestamp_millis();
        let mut record = paid(&line, id);
        let ours: Vec<Header> = vec![
            header("first-seen", &first_seen.to_string()),
            header("original-topic", &line.topic("lifecycle")),
            header("original-partition", "3"),
            header("original-offset", "4711"),
            header("original-timestamp", &(first_seen - 5).to_string()),
        ];
        record.headers.push(header("hops", "the shop's own"));
        record.headers.extend(ours);
        OutRecord { topic: line.topic("timers"), ..record }
    };
    line.write(vec![came("never", 15), came("may-come", 13)]).await;
    let (record, letter) = letters(&line, 1).await.remove(0);
    assert_eq!((letter.reason.as_str(), letter.topic.as_str()), ("orphan", &*line.topic("lifecycle")));
    assert_eq!((letter.partition, letter.offset), (3, 4711));
    let first_seen = (now - chrono::Duration::minutes(15)).timestamp_millis();
    assert_eq!(letter.first_seen.timestamp_millis(), first_seen);
    assert_eq!(letter.timestamp.map(|at| at.timestamp_millis()), Some(first_seen - 5));
    assert_eq!(record.key.as_deref(), Some(b"never".as_slice()));
    let mut headers = binary("recharge.order.paid.v1");
    headers.push(header("hops", "the shop's own"));
    assert_eq!(letter.headers, headers, "as it came");
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(record.value.as_deref().unwrap()).unwrap()["order_id"],
        "never"
    );
    until_metric(&service, "recharge_dead_letter_messages_total", 1).await;
    assert_eq!(service.metric_of(EARLY, "result=\"waits\"").await, Some(1.0));
    assert_eq!(service.metric_of(EARLY, "result=\"found\"").await, Some(0.0));

    // What nobody put off is taken as it comes, also there.
    let order = line.record("late", &unpaid("late"));
    let created = OutRecord { topic: line.topic("timers"), headers: binary("recharge.order.created.v1"), ..order };
    let garbage = OutRecord { headers: Vec::new(), value: Some(Bytes::from(json!({}).to_string())), ..created.clone() };
    line.write(vec![created, garbage]).await;
    line.until_order("late", "stored", |order| order.state == State::AwaitingPayment).await;
    assert_eq!(letters(&line, 2).await[1].1.reason, "unknown_type");
}
