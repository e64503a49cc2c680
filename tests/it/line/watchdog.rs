//! The watchdog, alone: every order comes to its honest end at its deadline, whoever is away.

use std::time::Duration;

use recharged::domain::{Reason, Sla, State};
use recharged::ports::OrderFilter;
use recharged::providers::simulator::{Latency, Profile};
use serde_json::{Value, json};

use super::servers::Torture;
use super::support::{changed, timeline};
use crate::harness::Wishes;
use crate::pace::at_most;

const SHORT: &str = "[sla]\ndeadline = \"20s\"\nunpaid_timeout = \"20s\"\nnotify_after = \"10s\"\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alone_and_without_a_broker_it_decides_every_order_at_its_deadline_and_never_before() {
    let torture = Torture::begin().await;
    // It answers long after everybody has stopped waiting.
    let profile = Profile { reply: Latency::Fixed(Duration::from_secs(600)), ..Profile::default() };
    let wishes = Wishes { profile, call_timeout: "2s", toml: SHORT.to_owned(), ..Wishes::default() };
    let line = torture.line(wishes).await;

    let mut both = line.start_roles("both", "intake,dispatch", &[]).await;
    line.send("sent", 50).await;
    line.until_counts("all are sent", |counts| counts.get(&State::InFlight) == Some(&50)).await;
    both.kill();
    let mut intake = line.start_roles("intake", "intake", &[]).await;
    line.send("queued", 500).await;
    let unpaid = |n: i32| {
        let id = format!("unpaid-{n}");
        line.record(&id, &changed(&id, &json!({ "paid_at": Value::Null, "payment_id": Value::Null })))
    };
    line.write((0..50).map(unpaid).collect()).await;
    line.until_counts("all are stored", |counts| counts.values().sum::<u64>() == 600).await;
    intake.kill();

    let watchdog = line.start_roles("watchdog", "watchdog", &[]).await;
    torture.services(&["broker", "kill"]).await;
    line.until_counts("every order is decided", |counts| {
        let of = |state| counts.get(&state).copied().unwrap_or(0);
        of(State::InDoubt) == 50 && of(State::Failed) == 500 && of(State::Cancelled) == 50
    })
    .await;

    let mut late: Vec<i64> = Vec::new();
    for view in line.store.page(&OrderFilter::default(), None, 1_000).await.unwrap() {
        let order = view.order;
        let id = order.order_id.as_str();
        match order.state {
            State::Failed => {
                assert!(id.starts_with("queued") && order.refund_requested && !view.case_open, "{order:?}");
                assert_eq!((order.reason, order.sla), (Some(Reason::DeadlinePassed), Some(Sla::Missed)), "{id}");
            }
            State::InDoubt => {
                assert!(id.starts_with("sent") && !order.refund_requested && view.case_open, "{order:?}");
                assert_eq!(order.sla, Some(Sla::Missed), "{id}");
            }
            State::Cancelled => {
                assert!(id.starts_with("unpaid") && !order.refund_requested && !view.case_open, "{order:?}");
                assert_eq!((order.reason, order.sla), (Some(Reason::Unpaid), None), "{id}");
            }
            other
            @ (State::AwaitingPayment | State::Queued | State::InFlight | State::RetryWait | State::Succeeded) => {
                panic!("{id} is {other}")
            }
        }
        let decided_at = timeline(&line, id).await.last().unwrap().at;
        late.push((decided_at - order.deadline_at).num_milliseconds());
    }
    late.sort_unstable();
    println!(
        "decided after the deadline, ms: least {}, median {}, most {}",
        late[0],
        late[late.len() / 2],
        late[late.len() - 1]
    );
    assert!(late[0] >= 0, "decided before the deadline");
    let latest = Duration::from_millis(late[late.len() - 1].try_into().unwrap());
    at_most("the latest verdict", latest, Duration::from_millis(1_500), Duration::from_secs(20));
    assert_eq!(watchdog.metric("recharge_watchdog_actions_total").await, Some(600.0));
    assert_eq!(watchdog.metric("recharge_sla_orders_total").await, Some(550.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_them_count_and_refund_each_order_once() {
    let torture = Torture::begin().await;
    let line = torture.line(Wishes { toml: SHORT.to_owned(), ..Wishes::default() }).await;
    let mut intake = line.start_roles("intake", "intake", &[]).await;
    line.send("w", 2_000).await;
    line.until_counts("all are stored", |counts| counts.get(&State::Queued) == Some(&2_000)).await;
    intake.end_well(Duration::from_secs(12)).await;
    let one = line.start_roles("one", "watchdog", &[]).await;
    let two = line.start_roles("two", "watchdog,relay", &[]).await;
    line.until_counts("all have failed", |counts| counts.get(&State::Failed) == Some(&2_000)).await;
    let mut missed = 0.0;
    for service in [&one, &two] {
        missed += service.metric("recharge_sla_orders_total").await.unwrap();
    }
    assert!((missed - 2_000.0).abs() < 0.5, "{missed} were counted");
    let refunds = line.read("refunds", |records| records.len() >= 2_000).await;
    assert_eq!(refunds.len(), 2_000);
}
