//! What holds for timers: set with an order, they fire once, of the order as it stands.

use std::time::Duration;

use recharged::domain::{EventType, LoggedEvent, NewOrder, Notification, Recipient, State, Timestamp, Transition};
use recharged::ports::{DeadlinePosition, Store, Written};

use super::super::fixture::{apply_one, arrive, claim, id, insert_one, load_one, new_order, policy, succeed};
use super::super::on_every_adapter;
use super::super::place::Place;

on_every_adapter!(
    what_is_due_comes_in_the_order_of_its_time_page_by_page,
    a_notification_is_logged_once_with_the_state_that_the_order_has_by_then,
    an_order_that_moved_meanwhile_is_told_of_as_it_is_by_then,
    of_two_who_tell_of_the_same_orders_while_these_move_each_is_told_of_once,
    whom_to_tell_is_known_of_every_order_that_is_there,
);

const SECOND: Duration = Duration::from_secs(1);

fn notified(order: &str, now: Timestamp) -> NewOrder {
    NewOrder { notify: true, ..new_order(order, now) }
}

async fn all_due(store: &dyn Store, until: Timestamp, limit: usize) -> (Vec<Notification>, Option<DeadlinePosition>) {
    let start = DeadlinePosition { at: Timestamp::UNIX_EPOCH, order_id: None };
    let page = store.due(&start, until, limit).await.unwrap();
    assert_eq!(page.unreadable, []);
    (page.due, page.next)
}

fn ids(due: &[Notification]) -> Vec<&str> {
    due.iter().map(|due| due.order_id.as_str()).collect()
}

async fn what_is_due_comes_in_the_order_of_its_time_page_by_page(place: &Place) {
    let store = place.store.as_ref();
    let now = store.now().await.unwrap();
    for (order, seconds) in [("c", 2), ("a", 1), ("b", 1)] {
        let at = now + seconds * SECOND;
        insert_one(store, &arrive(notified(order, at), at)).await;
    }
    insert_one(store, &arrive(new_order("wants-none", now), now)).await;
    let after = policy().notify_after;
    let until = |seconds: u32| now + seconds * SECOND + after;
    assert_eq!(ids(&all_due(store, until(1) - Duration::from_micros(1), 10).await.0), [""; 0]);
    let (due, next) = all_due(store, until(2), 10).await;
    assert_eq!((ids(&due), next), (vec!["a", "b", "c"], None));
    assert_eq!((due[0].due_at, due[0].version, due[0].state), (until(1), 1, State::Queued));
    let (first, next) = all_due(store, until(2), 1).await;
    assert_eq!(ids(&first), ["a"]);
    let page = store.due(&next.unwrap(), until(2), 10).await.unwrap();
    assert_eq!(ids(&page.due), ["b", "c"]);
}

async fn a_notification_is_logged_once_with_the_state_that_the_order_has_by_then(place: &Place) {
    let store = place.store.as_ref();
    let now = store.now().await.unwrap();
    let mut orders = Vec::new();
    for order in ["n-1", "n-2"] {
        let arrived = arrive(notified(order, now), now);
        insert_one(store, &arrived).await;
        let claimed = claim(&arrived.after, now);
        apply_one(store, &claimed).await;
        orders.push(claimed.after);
    }
    let settled = succeed(&orders[0], now);
    apply_one(store, &settled).await;
    let at = now + policy().notify_after;
    let (due, _) = all_due(store, at, 10).await;
    let events: Vec<LoggedEvent> = due.iter().map(|due| due.request(at)).collect();
    assert_eq!(store.fire(&events).await.unwrap(), [Written::Stored, Written::Stored]);
    assert_eq!(store.fire(&events).await.unwrap(), [Written::Overtaken, Written::Overtaken]);
    assert_eq!(ids(&all_due(store, at, 10).await.0), [""; 0]);

    // Beside what moved it, and the row is as it was.
    let timeline = store.timeline(&id("n-1")).await.unwrap();
    let told: Vec<_> = timeline.iter().map(|event| (event.version, event.kind, event.data.state)).collect();
    assert_eq!(
        told[2..],
        [(3, EventType::Succeeded, State::Succeeded), (3, EventType::NotificationRequested, State::Succeeded)]
    );
    assert_eq!(load_one(store, &id("n-1")).await, Some(settled.after.clone()));
    // What comes later is written as if nothing had been told.
    assert_eq!(apply_one(store, &succeed(&orders[1], now)).await, Written::Stored);
    let timeline = store.timeline(&id("n-2")).await.unwrap();
    let kinds: Vec<EventType> = timeline.iter().map(|event| event.kind).collect();
    let wanted = [EventType::Queued, EventType::Submitted, EventType::NotificationRequested, EventType::Succeeded];
    assert_eq!(kinds, wanted);
    let entries = place.entries().await;
    assert_eq!(entries.iter().filter(|order| *order == "n-1").count(), 4, "it is in the log as the relay reads it");
}

async fn an_order_that_moved_meanwhile_is_told_of_as_it_is_by_then(place: &Place) {
    let store = place.store.as_ref();
    let now = store.now().await.unwrap();
    let arrived = arrive(notified("moves", now), now);
    insert_one(store, &arrived).await;
    let at = now + policy().notify_after;
    let (due, _) = all_due(store, at, 10).await;
    apply_one(store, &claim(&arrived.after, now)).await;
    assert_eq!(store.fire(&[due[0].request(at)]).await.unwrap(), [Written::Overtaken]);
    let (due, _) = all_due(store, at, 10).await;
    assert_eq!((due[0].version, due[0].state), (2, State::InFlight));
    assert_eq!(store.fire(&[due[0].request(at)]).await.unwrap(), [Written::Stored]);
}

async fn of_two_who_tell_of_the_same_orders_while_these_move_each_is_told_of_once(place: &Place) {
    let store = place.store.as_ref();
    let mut races = 0;
    for round in 0..6 {
        let now = store.now().await.unwrap();
        let names: Vec<String> = (0..20).map(|n| format!("race-{round}-{n:02}")).collect();
        let arrivals: Vec<Transition> = names.iter().map(|name| arrive(notified(name, now), now)).collect();
        store.insert(&arrivals).await.unwrap();
        let at = now + policy().notify_after;
        let request = |due: &[Notification]| due.iter().map(|due| due.request(at)).collect::<Vec<LoggedEvent>>();
        let events = request(&all_due(store, at, 100).await.0);
        let claims: Vec<Transition> = arrivals.iter().map(|arrived| claim(&arrived.after, now)).collect();
        let (one, claimed, two) = tokio::join!(store.fire(&events), store.apply(&claims), store.fire(&events));
        assert!(claimed.unwrap().iter().all(|written| *written == Written::Stored), "it waits for none of them");
        let told = |written: &[Written]| written.iter().filter(|written| **written == Written::Stored).count();
        let at_once = told(&one.unwrap()) + told(&two.unwrap());
        races += usize::from(at_once < names.len());
        let rest = store.fire(&request(&all_due(store, at, 100).await.0)).await.unwrap();
        assert_eq!(at_once + told(&rest), names.len());
        for name in &names {
            let timeline = store.timeline(&id(name)).await.unwrap();
            let entries: Vec<_> = timeline.iter().filter(|event| event.kind.is_aside()).collect();
            assert_eq!(entries.len(), 1, "{name}");
            let of_it = timeline.iter().find(|event| event.version == entries[0].version).unwrap();
            assert_eq!(entries[0].data.state, of_it.data.state, "{name}");
        }
    }
    println!("in {races} of 6 rounds a claim came between");
}

async fn whom_to_tell_is_known_of_every_order_that_is_there(place: &Place) {
    let store = place.store.as_ref();
    let now = store.now().await.unwrap();
    insert_one(store, &arrive(notified("there", now), now)).await;
    let found = store.recipients(&[id("gone"), id("there")]).await.unwrap();
    assert_eq!(found, [None, Some(Recipient::read("+8613800000017", None))]);
}
