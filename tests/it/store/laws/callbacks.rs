//! Callbacks: each is noted once, and brings the question about its order forward.

use std::time::Duration;

use recharged::domain::inquiry::Hastened;
use recharged::domain::{Input, ProviderId, SubmitOutcome, Timestamp, decide};
use recharged::ports::{Became, Haste, Held, Hold, Hurried, NotedCallback, Store, Written};

use super::super::fixture::{applied, apply_one, id, in_flight, load_one, policy};
use super::super::on_every_adapter;
use super::super::place::Place;

on_every_adapter!(
    a_callback_is_noted_once_and_found_with_its_order,
    a_question_that_nobody_has_asked_comes_as_soon_as_it_may,
    a_question_that_may_just_have_been_asked_waits_for_its_turn,
    a_question_is_never_put_off_by_haste,
);

const SECOND: Duration = Duration::from_secs(1);

fn noted(order: &str, attempt: u16, said: &str, became: Became, at: Timestamp) -> NotedCallback {
    let provider = ProviderId::new("primary");
    NotedCallback { order_id: id(order), attempt, provider, said: said.to_owned(), became, at }
}

async fn a_callback_is_noted_once_and_found_with_its_order(place: &Place) {
    let store = place.store.as_ref();
    let now = store.now().await.unwrap();
    let first = noted("called", 1, "in_progress", Became::Asked, now);
    let second = noted("called", 2, "succeeded", Became::Settled, now + SECOND);
    let other = noted("other", 1, "succeeded", Became::Known, now);
    let batch = [second.clone(), first.clone(), other.clone(), first.clone()];
    assert_eq!(store.were_noted(&batch).await.unwrap(), [false; 4]);
    store.note_callbacks(&batch).await.unwrap();
    store.note_callbacks(&[]).await.unwrap();
    // Of a repetition neither the time nor what became of it counts.
    let again = noted("called", 1, "in_progress", Became::Known, now + 9 * SECOND);
    store.note_callbacks(std::slice::from_ref(&again)).await.unwrap();
    let unseen = noted("called", 1, "reversed", Became::Known, now);
    assert_eq!(store.were_noted(&[again, unseen, other]).await.unwrap(), [true, false, true]);
    assert_eq!(store.callbacks_of(&id("called")).await.unwrap(), [first, second]);
    assert!(store.callbacks_of(&id("nobody")).await.unwrap().is_empty());
}

/// An order that its provider has taken, with the version that asked for the first question, and when it stands.
async fn waiting(place: &Place, order: &str) -> (u32, Timestamp) {
    let store = place.store.as_ref();
    let sent = in_flight(store, order).await;
    let attempt = sent.attempt.clone().unwrap();
    let outcome = SubmitOutcome::Accepted { provider_ref: None };
    let input = Input::SubmitReply { attempt: attempt.number, claim_id: attempt.claim_id, outcome };
    let accepted = applied(decide(Some(&sent), &input, store.now().await.unwrap(), &policy()));
    assert_eq!(apply_one(store, &accepted).await, Written::Stored);
    (accepted.after.asked_version, accepted.after.wake_at.unwrap())
}

async fn hasten(store: &dyn Store, order: &str, version: u32, to: Hastened) -> Hurried {
    store.hasten(&[Haste { order_id: id(order), asked_version: version, to }]).await.unwrap()[0]
}

async fn a_question_that_nobody_has_asked_comes_as_soon_as_it_may(place: &Place) {
    let store = place.store.as_ref();
    let (version, wake_at) = waiting(place, "unasked").await;
    let before = load_one(store, &id("unasked")).await.unwrap();
    let to = Hastened { first: wake_at - 6 * SECOND, again: wake_at - SECOND };
    assert_eq!(hasten(store, "unasked", version, to).await, Hurried::From(to.first));
    assert_eq!(load_one(store, &id("unasked")).await.unwrap(), before, "it is no transition");
    assert_eq!(hasten(store, "unasked", version + 1, to).await, Hurried::Overtaken, "something else was asked for");
    assert_eq!(hasten(store, "nobody", version, to).await, Hurried::Overtaken);
}

async fn a_question_that_may_just_have_been_asked_waits_for_its_turn(place: &Place) {
    let store = place.store.as_ref();
    let (version, wake_at) = waiting(place, "asked").await;
    let now = wake_at - 9 * SECOND;
    let until = wake_at + 40 * SECOND;
    let hold = Hold { order_id: id("asked"), asked_version: version, replaces: None, until };
    assert_eq!(store.hold(std::slice::from_ref(&hold), now).await.unwrap(), [Held::Granted]);
    let to = Hastened { first: wake_at - 6 * SECOND, again: wake_at - SECOND };
    assert_eq!(hasten(store, "asked", version, to).await, Hurried::From(to.again));
    let taken = Held::Taken { until: Some(to.again), asked_version: Some(version) };
    assert_eq!(store.hold(std::slice::from_ref(&hold), to.again - SECOND).await.unwrap(), [taken], "not before");
    assert_eq!(store.hold(&[hold], to.again).await.unwrap(), [Held::Granted]);
}

async fn a_question_is_never_put_off_by_haste(place: &Place) {
    let store = place.store.as_ref();
    let (version, wake_at) = waiting(place, "soon").await;
    let now = wake_at - 9 * SECOND;
    let until = now + SECOND;
    let hold = Hold { order_id: id("soon"), asked_version: version, replaces: None, until };
    assert_eq!(store.hold(std::slice::from_ref(&hold), now).await.unwrap(), [Held::Granted]);
    let later = Hastened { first: now, again: now + 5 * SECOND };
    assert_eq!(hasten(store, "soon", version, later).await, Hurried::From(until), "its hold ends sooner");
    assert_eq!(store.hold(&[hold], until).await.unwrap(), [Held::Granted]);
    assert!(store.hasten(&[]).await.unwrap().is_empty());
}
