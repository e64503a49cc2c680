//! The watchdog, alone: every order comes to its honest end at its deadline, whoever is away.

use std::time::{Duration, Instant};

use recharged::clock::SystemClock;
use recharged::domain::{Reason, Sla, State, Timestamp};
use recharged::ports::{Clock as _, OrderFilter};
use recharged::providers::simulator::{Latency, Outcomes, Profile, RequestKind};
use serde_json::{Value, json};
use sqlx::{Executor as _, Row as _};

use super::notifications::late_by;
use super::servers::Torture;
use super::support::{changed, timeline};
use crate::harness::{Line, PATIENCE, Wishes};
use crate::pace::at_most;
use crate::store::fixture::{arrive, new_order, policy};

const SHORT: &str = "[sla]\ndeadline = \"20s\"\nunpaid_timeout = \"20s\"\nnotify_after = \"10s\"\n";
const NOTIFY_AFTER: Duration = Duration::from_secs(10);

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
        line.record(&id, &changed(&id, &json!({ "paid_at": Value::Null, "payment_id": Value::Null, "notify": true })))
    };
    line.write((0..50).map(unpaid).collect()).await;
    line.until_counts("all are stored", |counts| counts.values().sum::<u64>() == 600).await;
    intake.kill();

    // It begins when the broker is gone already.
    torture.services(&["broker", "kill"]).await;
    let mut watchdog = line.spawn_roles("watchdog", "watchdog", &[]);
    line.until_counts("every order is decided", |counts| {
        let of = |state| counts.get(&state).copied().unwrap_or(0);
        of(State::InDoubt) == 50 && of(State::Failed) == 500 && of(State::Cancelled) == 50
    })
    .await;

    let (mut late, mut told_late) = (Vec::<i64>::new(), Vec::new());
    for view in line.store.page(&OrderFilter::default(), None, 1_000).await.unwrap().orders {
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
        let timeline = timeline(&line, id).await;
        let told = timeline.iter().filter(|event| event.kind.is_aside());
        told_late.extend(told.map(|event| late_by(order.created_at, event.at, NOTIFY_AFTER)));
        let decided_at = timeline.last().unwrap().at;
        late.push((decided_at - order.deadline_at).num_milliseconds());
    }
    assert_eq!(told_late.len(), 50, "the unpaid ones are told of, once each");
    let latest = told_late.iter().copied().max().unwrap();
    at_most("the latest notification", latest, Duration::from_secs(3), Duration::from_secs(20));
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
    for (metric, expected) in [("recharge_watchdog_actions_total", 650.0), ("recharge_sla_orders_total", 550.0)] {
        let counted = watchdog.metric(metric).await.unwrap();
        assert!((counted - expected).abs() < 0.5, "{metric}: {counted}");
    }
    assert!(watchdog.answers_ok("/livez").await && !watchdog.answers_ok("/readyz").await);
    watchdog.kill();

    // A process that has every role does the same without a broker.
    let whole = line.spawn("whole", &[]);
    let now = line.store.now().await.unwrap();
    let paid_at = now + Duration::from_secs(5) - policy().sla;
    let more: Vec<_> = (0..50).map(|n| arrive(new_order(&format!("more-{n}"), paid_at), paid_at)).collect();
    line.store.insert(&more).await.unwrap();
    line.until_counts("those are decided too", |counts| counts.get(&State::Failed) == Some(&550)).await;
    let probes = (whole.get("/livez").await, whole.get("/readyz").await);
    assert!(matches!(probes, (Some((200, _)), Some((503, _)))), "{probes:?}");

    torture.services(&["up"]).await;
    whole.until_ready().await;
    line.send("after", 20).await;
    line.until_counts("the new ones are sent", |counts| counts.get(&State::InFlight) == Some(&20)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_is_held_or_unreadable_holds_up_no_other() {
    let line = Line::set_up(Wishes { toml: SHORT.to_owned(), ..Wishes::default() }).await;
    let mut intake = line.start_roles("intake", "intake", &[]).await;
    line.send("w", 300).await;
    line.until_counts("all are stored", |counts| counts.get(&State::Queued) == Some(&300)).await;
    intake.kill();
    // Somebody's hand, and somebody's console.
    line.doctor("update orders set currency = 'cny' where order_id = 'w-7'").await;
    let mut console = line.connect().await;
    console.execute("begin").await.unwrap();
    console.execute("select 1 from orders where order_id = 'w-9' for update").await.unwrap();
    let watchdog = line.start_roles("watchdog", "watchdog", &[]).await;
    until_failed(&line, 298).await;
    let latest = "select (1000 * extract(epoch from max(closed_at - deadline_at)))::bigint from orders";
    let latest: i64 = line.connect().await.fetch_one(latest).await.unwrap().get(0);
    let latest = Duration::from_millis(latest.try_into().unwrap());
    at_most("the latest verdict beside them", latest, Duration::from_secs(4), Duration::from_secs(25));
    assert!(watchdog.log_text().contains("cannot be read"), "the unreadable row is told");
    console.execute("rollback").await.unwrap();
    until_failed(&line, 299).await;
    line.doctor("update orders set currency = 'CNY' where order_id = 'w-7'").await;
    until_failed(&line, 300).await;
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

/// Waits until so many orders have failed; by SQL, since not every row can be read otherwise.
#[expect(clippy::disallowed_methods, reason = "a test's own statement")]
async fn until_failed(line: &Line, wanted: i64) {
    let deadline = Instant::now() + PATIENCE;
    let mut connection = line.connect().await;
    loop {
        let failed: i64 = sqlx::query_scalar("select count(*) from orders where state = 'failed'")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        if failed == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{failed} of {wanted} have failed");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_comes_into_doubt_at_its_deadline_is_asked_about_then_and_not_a_minute_later() {
    // Accepted, and never delivered: each answer is "in progress".
    let outcomes = Outcomes { never: 1.0, ..Outcomes::default() };
    let profile = Profile { accepted_first: 1.0, outcomes, ..Profile::default() };
    let line = Line::set_up(Wishes { profile, toml: SHORT.to_owned(), ..Wishes::default() }).await;
    let service = line.start("service", &[]).await;
    line.send("d", 20).await;
    line.until_counts("all are in doubt", |counts| counts.get(&State::InDoubt) == Some(&20)).await;
    let deadlines: Vec<Timestamp> = line.rows().await.iter().map(|row| row.deadline_at).collect();
    let since_boot_us = |at: Timestamp| {
        let ago = (SystemClock::local() - at).num_microseconds().unwrap();
        i64::try_from(SystemClock::new().since_boot().as_micros()).unwrap() - ago
    };
    let (first, last) = (*deadlines.iter().min().unwrap(), *deadlines.iter().max().unwrap());
    // The question before the deadline comes seconds before it, and they were sold together.
    assert!(last - first < chrono::Duration::seconds(1), "{deadlines:?}");
    let (began, first_us) = (Instant::now(), since_boot_us(first));
    let asked = loop {
        let all = line.simulator.arrivals_us_of(RequestKind::Query);
        let mut after: Vec<i64> = all.into_iter().map(|at| i64::try_from(at).unwrap()).collect();
        after.retain(|at| *at >= first_us);
        after.sort_unstable();
        if let Some(twentieth) = after.get(19) {
            break *twentieth;
        }
        assert!(began.elapsed() < PATIENCE, "nobody asks");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let took = Duration::from_micros(u64::try_from(asked - since_boot_us(last)).unwrap_or(0));
    at_most("the first question after the deadline", took, Duration::from_secs(5), Duration::from_secs(40));
    assert_eq!(service.metric("recharge_overdue_orders").await, Some(0.0));
    let deadline = Instant::now() + PATIENCE;
    while service.metric("recharge_open_cases").await != Some(20.0) {
        assert!(Instant::now() < deadline, "the cases are counted now and then");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
