//! Questions to a provider: one asks, the others wait.

use std::time::Duration;

use recharged::ports::{Held, Hold, Store};

use super::super::fixture::{id, in_flight, load_one};
use super::super::on_every_adapter;
use super::super::place::Place;

on_every_adapter!(
    of_many_who_want_to_ask_one_may,
    a_hold_ends_by_itself_or_by_its_owner,
    a_question_that_was_asked_for_by_an_older_version_holds_nothing,
    a_hold_changes_neither_the_row_nor_its_log,
);

const SECOND: Duration = Duration::from_secs(1);
const FREE: Held = Held::Taken { until: None, asked_version: None };

async fn asked_version(store: &dyn Store, order: &str) -> u32 {
    load_one(store, &id(order)).await.unwrap().asked_version
}

async fn of_many_who_want_to_ask_one_may(place: &Place) {
    let store = &place.store;
    let mut ids: Vec<String> = (0..20).map(|number| format!("q-{number}")).collect();
    for order in &ids {
        in_flight(store.as_ref(), order).await;
    }
    let version = asked_version(store.as_ref(), "q-0").await;
    let now = store.now().await.unwrap();
    let mut asking = Vec::new();
    for asker in 0..8 {
        // Each in an order of its own: rows that are locked in different orders would wait for each other.
        ids.rotate_left(3);
        let until = now + 30 * SECOND + Duration::from_micros(asker);
        let hold = |order: &String| Hold { order_id: id(order), asked_version: version, replaces: None, until };
        let (batch, store) = (ids.iter().map(hold).collect::<Vec<_>>(), store.clone());
        asking.push(tokio::spawn(async move { store.hold(&batch, now).await.unwrap() }));
    }
    let mut granted = 0;
    for asked in asking {
        granted += asked.await.unwrap().iter().filter(|held| **held == Held::Granted).count();
    }
    assert_eq!(granted, 20, "each order is held once");
}

async fn a_hold_ends_by_itself_or_by_its_owner(place: &Place) {
    let store = place.store.as_ref();
    in_flight(store, "mine").await;
    let asked_version = asked_version(store, "mine").await;
    let now = store.now().await.unwrap();
    let hold =
        |replaces, seconds: u32| Hold { order_id: id("mine"), asked_version, replaces, until: now + seconds * SECOND };
    let missing = Hold { order_id: id("nobody"), ..hold(None, 1) };
    let first = store.hold(&[hold(None, 10), missing], now).await.unwrap();
    assert_eq!(first, [Held::Granted, FREE]);
    let taken = Held::Taken { until: Some(now + 10 * SECOND), asked_version: Some(asked_version) };
    assert_eq!(store.hold(&[hold(None, 20)], now + 9 * SECOND).await.unwrap(), [taken]);
    let not_mine = hold(Some(now + 11 * SECOND), 20);
    assert_eq!(store.hold(&[not_mine], now + SECOND).await.unwrap(), [taken]);
    let given_back = hold(Some(now + 10 * SECOND), 2);
    assert_eq!(store.hold(&[given_back], now + SECOND).await.unwrap(), [Held::Granted]);
    assert_eq!(store.hold(&[hold(None, 20)], now + 2 * SECOND).await.unwrap(), [Held::Granted], "it is over");
}

async fn a_question_that_was_asked_for_by_an_older_version_holds_nothing(place: &Place) {
    let store = place.store.as_ref();
    in_flight(store, "moved").await;
    let now = store.now().await.unwrap();
    let asked_version = asked_version(store, "moved").await + 1;
    let hold = Hold { order_id: id("moved"), asked_version, replaces: None, until: now + SECOND };
    assert_eq!(store.hold(&[hold], now).await.unwrap(), [FREE]);
    assert!(store.hold(&[], now).await.unwrap().is_empty());
}

async fn a_hold_changes_neither_the_row_nor_its_log(place: &Place) {
    let store = place.store.as_ref();
    in_flight(store, "same").await;
    let before = (load_one(store, &id("same")).await.unwrap(), store.timeline(&id("same")).await.unwrap());
    let now = store.now().await.unwrap();
    let hold =
        Hold { order_id: id("same"), asked_version: before.0.asked_version, replaces: None, until: now + SECOND };
    assert_eq!(store.hold(&[hold], now).await.unwrap(), [Held::Granted]);
    let after = (load_one(store, &id("same")).await.unwrap(), store.timeline(&id("same")).await.unwrap());
    assert_eq!(after, before);
}
