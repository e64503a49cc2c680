//! Ten thousand orders of which the shop tells in every order of its events, shuffled among each other, repeated, on
//! both topics and all partitions, while processes die: each ends as the rules give for its set of events, is notified
//! of once, and refunded once or not at all. The small twin is `early`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recharged::domain::{EventType, Order, Reason, State};
use recharged::ports::OutRecord;
use rustix::process::Signal;
use serde_json::json;

use super::storm::refunded;
use super::support::{cancelled, changed, paid, timeline};
use crate::harness::{Line, PATIENCE, Service, Wishes};

/// Long enough for whatever waits for its order, with a death or two in between; and short enough for many to time out.
const RULES: &str = "[sla]\nunpaid_timeout = \"45s\"\nnotify_after = \"10s\"\n";
/// The shop tells of all within this time.
const TELLING: Duration = Duration::from_secs(60);
/// The events of an order are so far apart at most.
const APART_MS: u64 = 2_000;
/// What is told again comes so much later at most.
const AGAIN_MS: u64 = 3_000;
const LIFE: Duration = Duration::from_secs(5);

/// What the shop says of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    Created,
    Paid,
    Cancelled,
}

/// Every order of every set of events that an order can have.
const SEQUENCES: [&[Says]; 11] = {
    use Says::{Cancelled, Created, Paid};
    [
        &[Created],
        &[Created, Paid],
        &[Paid, Created],
        &[Created, Cancelled],
        &[Cancelled, Created],
        &[Created, Paid, Cancelled],
        &[Created, Cancelled, Paid],
        &[Paid, Created, Cancelled],
        &[Paid, Cancelled, Created],
        &[Cancelled, Created, Paid],
        &[Cancelled, Paid, Created],
    ]
};

fn sequence(number: u64) -> &'static [Says] {
    SEQUENCES[usize::try_from(number).unwrap() % SEQUENCES.len()]
}

/// Half of them ask for a notification, of each sequence.
fn asks(number: u64) -> bool {
    (number / SEQUENCES.len() as u64).is_multiple_of(2)
}

fn name(number: u64) -> String {
    format!("p-{number}")
}

/// All that is told, with its time from the beginning, in that order.
fn told(line: &Line, orders: u64, dice: &mut StdRng) -> Vec<(Duration, OutRecord)> {
    let mut all = Vec::new();
    for number in 0..orders {
        let id = name(number);
        let mut at = TELLING.mul_f64(dice.random_range(0.0..1.0));
        for says in sequence(number) {
            let record = match says {
                Says::Created => {
                    let order = json!({ "paid_at": null, "payment_id": null, "notify": asks(number) });
                    line.record(&id, &changed(&id, &order))
                }
                Says::Paid => paid(line, &id),
                Says::Cancelled => cancelled(line, &id),
            };
            for again in 0..dice.random_range(1..=3_u64) {
                // Orders are told on their own topic; what follows them on either.
                let is_elsewhere = *says != Says::Created && dice.random_bool(0.5);
                let topic = if is_elsewhere { line.topic("lifecycle") } else { line.topic("orders") };
                // An order's events lie in any partition.
                let key = Some(Bytes::from(format!("k{}", dice.random_range(0..64_u8))));
                let later = if again == 0 { 0 } else { dice.random_range(0..AGAIN_MS) };
                all.push((at + Duration::from_millis(later), OutRecord { topic, key, ..record.clone() }));
            }
            at += Duration::from_millis(dice.random_range(0..APART_MS));
        }
    }
    all.sort_by_key(|(at, _)| *at);
    all
}

fn born(line: &Line, number: usize) -> Service {
    let name = format!("permuted-{number}");
    line.spawn(&name, &[("RECHARGED__PROCESS__NAME", &name)])
}

/// Tells it all at its time while one process dies after the other; returns those that live at the end.
async fn tell(line: &Line, all: Vec<(Duration, OutRecord)>) -> [Service; 2] {
    let mut processes = [born(line, 0), born(line, 1)];
    for process in &processes {
        process.until_ready().await;
    }
    let (began, mut kills) = (Instant::now(), 0);
    let mut all = all.into_iter().peekable();
    while all.peek().is_some() {
        let mut batch = Vec::new();
        while let Some((_, record)) = all.next_if(|(at, _)| *at <= began.elapsed()) {
            batch.push(record);
        }
        line.write(batch).await;
        let deaths = began.elapsed().as_secs() / LIFE.as_secs();
        if deaths > kills {
            kills = deaths;
            let turn = usize::try_from(kills % 2).unwrap();
            processes[turn].kill();
            processes[turn] = born(line, turn);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("{kills} kills");
    processes
}

/// Whether it ended as the rules give for its set of events; where it was paid and cancelled, whichever was read first decides.
fn is_right(order: &Order, said: &[Says]) -> bool {
    let end = (order.state, order.reason, order.refund_requested);
    let delivered = (State::Succeeded, None, false);
    let cancelled = |reason, is_refunded| (State::Cancelled, Some(reason), is_refunded);
    match (said.contains(&Says::Paid), said.contains(&Says::Cancelled)) {
        (false, false) => end == cancelled(Reason::Unpaid, false),
        (true, false) => end == delivered,
        (false, true) => end == cancelled(Reason::CancelledUpstream, false),
        (true, true) => end == delivered || end == cancelled(Reason::CancelledUpstream, true),
    }
}

async fn prove(orders: u64) {
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let line = Line::set_up(Wishes { tiers: r#"["1s", "5s"]"#, toml: RULES.to_owned(), ..Wishes::default() }).await;
    let all = told(&line, orders, &mut StdRng::seed_from_u64(seed));
    println!("{} records of {orders} orders", all.len());
    let mut processes = tell(&line, all).await;
    line.until_counts("every order has ended", |counts| {
        let ended = [State::Succeeded, State::Cancelled].iter().filter_map(|state| counts.get(state));
        ended.sum::<u64>() == orders && counts.values().sum::<u64>() == orders
    })
    .await;
    for process in &mut processes {
        process.signal(Signal::TERM);
        process.until_ended(PATIENCE).await;
    }
    let _relay = line.start_roles("teller", "relay", &[]).await;
    line.until_told().await;

    let rows: HashMap<String, Order> =
        line.rows().await.into_iter().map(|order| (order.order_id.to_string(), order)).collect();
    assert_eq!(rows.len() as u64, orders);
    let (refunds, notified) =
        (refunded(&line.read_all("refunds").await), refunded(&line.read_all("notifications").await));
    let (mut recharged, mut refused) = (0, 0);
    for number in 0..orders {
        let (id, said) = (name(number), sequence(number));
        let order = &rows[&id];
        assert!(is_right(order, said) && !order.has_cases(), "{said:?}: {order:?}");
        assert_eq!(refunds.get(&id).copied().unwrap_or(0), usize::from(order.refund_requested), "refunds of {id}");
        assert_eq!(notified.get(&id).copied().unwrap_or(0), usize::from(asks(number)), "notifications of {id}");
        recharged += usize::from(order.state == State::Succeeded);
        if order.state == State::Succeeded && said.contains(&Says::Cancelled) {
            refused += 1;
            let kinds = timeline(&line, &id).await.into_iter().map(|event| event.kind);
            assert_eq!(kinds.filter(|kind| *kind == EventType::CancelRefused).count(), 1, "{id}");
        }
    }
    assert!(line.read_all("dead-letters").await.is_empty());
    assert_eq!(line.delivered().len(), recharged, "nothing was delivered that was cancelled before");
    let report = line.audit().await;
    assert!(report.audit.clean, "{report:?}");
    println!(
        "{recharged} recharged, {refused} of them though they were cancelled later; {} refunded and {} notified of, once each",
        refunds.len(),
        notified.len()
    );
    assert!(refused > 0 && refunds.len() > 10, "both ways of being paid and cancelled happened");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "ten thousand orders, minutes: scripts/campaign permutations"]
async fn campaign_of_ten_thousand_orders_that_are_told_in_every_order() {
    prove(10_000).await;
}
