//! Components that obey, fail, wait and do not listen, under paused time.

use std::sync::{Arc, Mutex};

use super::*;

const LIMIT: Duration = Duration::from_secs(20);

async fn obedient(stop: CancellationToken) -> Ended {
    stop.cancelled().await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_signal_stops_components_in_the_reverse_order_of_adding() {
    let mut lifecycle = Lifecycle::new(LIMIT);
    let order = Arc::new(Mutex::new(Vec::new()));
    for name in ["producer", "relay", "dispatch"] {
        let order = Arc::clone(&order);
        lifecycle.add(name, Duration::from_secs(1), |stop| async move {
            stop.cancelled().await;
            order.lock().unwrap().push(name);
            Ok(())
        });
    }
    let drain = lifecycle.drain();
    let (sender, mut signals) = mpsc::channel(2);
    sender.send("SIGTERM").await.unwrap();
    let outcome = lifecycle.run_until_done(&mut signals).await;
    assert!(outcome.is_clean(), "{outcome:?}");
    assert!(drain.is_cancelled());
    assert_eq!(*order.lock().unwrap(), ["dispatch", "relay", "producer"]);
}

#[tokio::test(start_paused = true)]
async fn a_component_that_ends_unasked_stops_the_process_and_is_named() {
    for (how, said) in [("ok", "nobody had asked"), ("error", "outer: inner"), ("panic", "panicked")] {
        let mut lifecycle = Lifecycle::new(LIMIT);
        lifecycle.add("steady", Duration::from_secs(1), obedient);
        lifecycle.add("fragile", Duration::from_secs(1), |_| async move {
            tokio::time::sleep(Duration::from_secs(5)).await;
            match how {
                "ok" => Ok(()),
                "error" => Err(anyhow::anyhow!("inner").context("outer")),
                _ => panic!("as planned"),
            }
        });
        let (_sender, mut signals) = mpsc::channel(2);
        let outcome = lifecycle.run_until_done(&mut signals).await;
        let failed = outcome.failed.unwrap();
        assert!(failed.starts_with("fragile: ") && failed.contains(said), "{failed}");
        assert!(outcome.unfinished.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_component_that_overruns_its_budget_is_given_up_and_reported() {
    let mut lifecycle = Lifecycle::new(LIMIT);
    lifecycle.add("good", Duration::from_secs(1), obedient);
    lifecycle.add("stuck", Duration::from_secs(3), |_| std::future::pending());
    lifecycle.drain().cancel();
    let (_sender, mut signals) = mpsc::channel(2);
    let begun = Instant::now();
    let outcome = lifecycle.run_until_done(&mut signals).await;
    assert_eq!(outcome.unfinished, ["stuck"]);
    assert_eq!(outcome.failed, None);
    assert_eq!(begun.elapsed().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_hard_deadline_ends_every_budget() {
    let mut lifecycle = Lifecycle::new(LIMIT);
    for name in ["one", "two", "three"] {
        lifecycle.add(name, Duration::from_secs(15), |_| std::future::pending());
    }
    let (hard, drain) = (lifecycle.hard_deadline(), lifecycle.drain());
    let (_sender, mut signals) = mpsc::channel(2);
    let begun = Instant::now();
    tokio::spawn(async move {
        drain.cancelled().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        hard.at_most(Duration::from_secs(10));
        hard.at_most(Duration::from_mins(1));
    });
    lifecycle.drain().cancel();
    let outcome = lifecycle.run_until_done(&mut signals).await;
    assert_eq!(outcome.unfinished, ["three", "two", "one"]);
    assert_eq!(begun.elapsed().as_secs(), 10);
}

async fn stubborn(give_up: CancellationToken) -> Ended {
    give_up.cancelled().await;
    Err(Left("3 orders are not written".to_owned()).into())
}

#[tokio::test(start_paused = true)]
async fn who_waits_in_vain_is_told_to_give_up_and_says_what_it_leaves() {
    let mut lifecycle = Lifecycle::new(LIMIT);
    lifecycle.add("closes", Duration::from_secs(3), |stop| async move {
        stop.cancelled().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        Ok(())
    });
    for (name, budget) in [("waits long", 60), ("waits", 3)] {
        let give_up = CancellationToken::new();
        lifecycle.add_patient(name, Duration::from_secs(budget), give_up.clone(), |_| stubborn(give_up));
    }
    lifecycle.hard_deadline().at_most(Duration::from_secs(9));
    lifecycle.drain().cancel();
    let (_sender, mut signals) = mpsc::channel(2);
    let begun = Instant::now();
    let outcome = lifecycle.run_until_done(&mut signals).await;
    // After 3 s by its own budget, after 5 s by the limit of all; the rest is for closing.
    assert_eq!(begun.elapsed().as_secs(), 7);
    assert_eq!(outcome.left, ["waits: 3 orders are not written", "waits long: 3 orders are not written"]);
    assert!(!outcome.is_clean() && outcome.unfinished.is_empty() && outcome.failed.is_none(), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_even_say_what_it_leaves_is_ended() {
    let mut lifecycle = Lifecycle::new(LIMIT);
    lifecycle.add_patient("mute", Duration::from_secs(3), CancellationToken::new(), |_| std::future::pending());
    lifecycle.drain().cancel();
    let (_sender, mut signals) = mpsc::channel(2);
    let begun = Instant::now();
    let outcome = lifecycle.run_until_done(&mut signals).await;
    assert_eq!((outcome.unfinished.as_slice(), begun.elapsed().as_secs()), (["mute"].as_slice(), 4));
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_ends_at_once() {
    let mut lifecycle = Lifecycle::new(LIMIT);
    lifecycle.add("slow", Duration::from_secs(15), |_| std::future::pending());
    let (sender, mut signals) = mpsc::channel(2);
    let begun = Instant::now();
    tokio::spawn(async move {
        sender.send("SIGTERM").await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        sender.send("SIGINT").await.unwrap();
        std::future::pending::<()>().await;
    });
    let outcome = lifecycle.run_until_done(&mut signals).await;
    assert!(outcome.aborted);
    assert_eq!(outcome.unfinished, ["slow"]);
    assert_eq!(begun.elapsed().as_secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_error_while_stopping_is_a_failure() {
    let mut lifecycle = Lifecycle::new(LIMIT);
    lifecycle.add("flusher", Duration::from_secs(1), |stop| async move {
        stop.cancelled().await;
        Err(anyhow::anyhow!("3 records were not acknowledged"))
    });
    let (sender, mut signals) = mpsc::channel(2);
    sender.send("SIGTERM").await.unwrap();
    let outcome = lifecycle.run_until_done(&mut signals).await;
    assert_eq!(outcome.failed.as_deref(), Some("flusher: 3 records were not acknowledged"));
}
