//! What holds for orders and their log, whichever adapter keeps them.

mod batches;
mod callbacks;
mod fences;
mod letters;
mod nets;
mod questions;
mod reading;
mod refunds;
mod timers;

use std::collections::HashMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recharged::domain::event::replay;
use recharged::domain::{Decision, LoggedEvent, OrderId, decide};
use recharged::ports::{Inserted, LogBatch, LogPosition, Store, Written};

use super::fixture::{anything, apply_one, arrive, insert_one, load_one, new_order, policy};
use super::on_every_adapter;
use super::place::Place;

on_every_adapter!(every_order_replays_from_its_log_into_its_row, a_reader_of_the_log_misses_nothing);

async fn every_order_replays_from_its_log_into_its_row(place: &Place) {
    let store = place.store.as_ref();
    let seed = 20_260_301;
    let mut random = StdRng::seed_from_u64(seed);
    let mut moves = 0;
    for number in 0..60 {
        let mut now = store.now().await.unwrap();
        let mut new = new_order(&format!("walk-{number}"), now);
        if number % 4 == 0 {
            (new.paid_at, new.payment_id) = (None, None);
        }
        let recipient = new.recipient.clone();
        let arrived = arrive(new, now);
        assert_eq!(insert_one(store, &arrived).await, Inserted::Stored);
        let mut order = arrived.after;
        for _ in 0..random.random_range(0..40) {
            now += Duration::from_millis(random.random_range(0..9_000));
            let input = anything(&order, random.random(), now);
            if let Decision::Apply(next) = decide(Some(&order), &input, now, &policy()) {
                assert_eq!(apply_one(store, &next).await, Written::Stored, "seed {seed}");
                order = next.after;
                moves += 1;
            }
        }
        let stored = load_one(store, &order.order_id).await;
        assert_eq!(stored.as_ref(), Some(&order), "seed {seed}");
        let timeline = store.timeline(&order.order_id).await.unwrap();
        assert_eq!(replay(&timeline, &recipient).unwrap(), stored, "seed {seed}");
    }
    assert!(moves > 150, "the walk has moved orders: {moves}");
}

/// Reads the log from its beginning in small pages until `enough` entries have come.
pub(crate) async fn follow(store: &dyn Store, enough: usize) -> Vec<(LogPosition, LoggedEvent)> {
    let mut seen = Vec::new();
    let mut at = LogPosition::default();
    let give_up = tokio::time::Instant::now() + Duration::from_mins(1);
    while seen.len() < enough {
        assert!(tokio::time::Instant::now() < give_up, "{} of {enough} entries came", seen.len());
        let page = store.read_log(at, 37).await.unwrap();
        assert!(page.is_empty() || store.has_more(at).await.unwrap(), "what can be read lies behind");
        match page.last() {
            Some(batch) => at = batch.position,
            None => tokio::time::sleep(Duration::from_millis(2)).await,
        }
        seen.extend(page.iter().flat_map(entries));
    }
    assert!(store.read_log(at, 10).await.unwrap().is_empty(), "nothing comes after the last entry");
    assert!(!store.has_more(at).await.unwrap(), "nothing lies after the last entry");
    seen
}

/// The entries of a batch, each with the batch's position.
pub(crate) fn entries(batch: &LogBatch) -> impl Iterator<Item = (LogPosition, LoggedEvent)> {
    batch.lines().map(|line| (batch.position, LoggedEvent::from_line(line).unwrap()))
}

/// Each order's versions rise by one, in the order of the log, and each comes once.
pub(crate) fn assert_in_order(log: &[(LogPosition, LoggedEvent)]) {
    let mut versions: HashMap<&OrderId, u32> = HashMap::new();
    let mut last = LogPosition::default();
    for (position, event) in log {
        assert!(*position >= last, "positions rise: {position:?} after {last:?}");
        last = *position;
        let before = versions.insert(&event.order_id, event.version).unwrap_or(0);
        assert_eq!(event.version, before + 1, "{}", event.order_id);
    }
}

async fn a_reader_of_the_log_misses_nothing(place: &Place) {
    const WRITERS: usize = 8;
    const ROUNDS: usize = 12;
    const BATCH: usize = 9;
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let store = std::sync::Arc::clone(&place.store);
        writers.push(tokio::spawn(async move {
            for round in 0..ROUNDS {
                let now = store.now().await.unwrap();
                let batch: Vec<_> =
                    (0..BATCH).map(|n| arrive(new_order(&format!("o-{writer}-{round}-{n}"), now), now)).collect();
                store.insert(&batch).await.unwrap();
                let claims: Vec<_> = batch.iter().map(|arrived| super::fixture::claim(&arrived.after, now)).collect();
                assert!(store.apply(&claims).await.unwrap().iter().all(|written| *written == Written::Stored));
                let ends: Vec<_> = claims.iter().map(|claim| super::fixture::succeed(&claim.after, now)).collect();
                assert!(store.apply(&ends).await.unwrap().iter().all(|written| *written == Written::Stored));
            }
        }));
    }
    let log = follow(place.store.as_ref(), WRITERS * ROUNDS * BATCH * 3).await;
    for writer in writers {
        writer.await.unwrap();
    }
    assert_in_order(&log);
}
