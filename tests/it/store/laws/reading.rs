//! The cursor, and the orders as people read them.

use std::time::Duration;

use recharged::domain::State;
use recharged::ports::{LogPosition, OrderFilter, Written};

use super::super::fixture::{
    apply_one, arrive, claim, hopeless, id, in_flight, into_doubt, load_one, new_order, succeed,
};
use super::super::on_every_adapter;
use super::super::place::Place;

on_every_adapter!(
    the_cursor_moves_only_from_where_it_stands,
    pages_hold_each_order_once_while_others_arrive,
    a_filter_keeps_what_it_names,
    the_few_that_pass_a_filter_are_found_among_many_page_by_page,
    orders_are_counted_by_state,
    the_log_of_a_time_is_read_in_pages_and_nothing_else_is,
);

async fn the_log_of_a_time_is_read_in_pages_and_nothing_else_is(place: &Place) {
    let store = place.store.as_ref();
    let began = store.now().await.unwrap();
    for number in 0..9 {
        in_flight(store, &format!("o-{number}")).await;
    }
    let all = super::follow(store, 18).await;
    let (from, until) = (began - Duration::from_secs(5), began + Duration::from_mins(5));
    let (mut read, mut after, mut pages) = (Vec::new(), LogPosition::default(), 0);
    loop {
        let page = store.written(from, until, after, 4).await.unwrap();
        let Some(last) = page.last() else { break };
        (after, pages) = (last.position, pages + 1);
        read.extend(page.iter().flat_map(super::entries));
    }
    assert_eq!(read, all, "each entry once, in the order of the log");
    assert!(pages >= 4, "{pages} pages");
    let none = async |from, until| {
        let page = store.written(from, until, LogPosition::default(), 100).await.unwrap();
        page.iter().flat_map(super::entries).count()
    };
    let day = Duration::from_hours(24);
    assert_eq!(none(from - day, from - day / 2).await, 0, "of a time before");
    assert_eq!(none(until + day / 2, until + day).await, 0, "of a time after");
    let claims = all.iter().map(|(_, event)| event.to_line()).filter_map(|line| {
        let claimed = recharged::domain::event::Claimed::from_line(&line).unwrap()?;
        Some((claimed.order_id.to_string(), claimed.attempt, claimed.provider.to_string(), claimed.at))
    });
    let expected = all.iter().map(|(_, event)| event).filter(|event| event.client_ref().is_some());
    let expected = expected.map(|event| (event.order_id.to_string(), 1, "primary".to_owned(), event.at));
    assert_eq!(claims.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "a claim is read from its line");
}

async fn the_cursor_moves_only_from_where_it_stands(place: &Place) {
    let store = place.store.as_ref();
    in_flight(store, "a").await;
    in_flight(store, "b").await;
    let start = store.cursor().await.unwrap();
    assert_eq!(start, LogPosition::default());
    let log = super::follow(store, 4).await;
    let (second, last) = (log[1].0, log[3].0);
    assert!(store.advance_cursor(start, second).await.unwrap());
    assert!(!store.advance_cursor(start, last).await.unwrap(), "another relay has moved it");
    assert_eq!(store.cursor().await.unwrap(), second);
    let rest: Vec<_> = store.read_log(second, 10).await.unwrap().iter().flat_map(super::entries).collect();
    assert_eq!(rest, log[2..], "and reading goes on behind it");
    assert!(store.advance_cursor(second, last).await.unwrap());
    assert!(store.read_log(last, 10).await.unwrap().is_empty());
}

async fn pages_hold_each_order_once_while_others_arrive(place: &Place) {
    let store = place.store.as_ref();
    let now = store.now().await.unwrap();
    let before: Vec<_> = (0..100).map(|n| arrive(new_order(&format!("m-{n:03}"), now), now)).collect();
    store.insert(&before).await.unwrap();
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = store.page(&OrderFilter::default(), after.as_ref(), 7).await.unwrap();
        seen.extend(page.orders.into_iter().map(|view| view.order.order_id));
        after = page.next;
        if after.is_none() {
            break;
        }
        let round = seen.len();
        let more = [format!("a-{round:03}"), format!("m-{:03}x", round + 20)];
        store.insert(&more.map(|order_id| arrive(new_order(&order_id, now), now))).await.unwrap();
        let changed = claim(&before[99 - round.min(99)].after, now);
        store.apply(&[changed]).await.unwrap();
    }
    assert!(seen.is_sorted());
    for transition in &before {
        let times = seen.iter().filter(|order_id| **order_id == transition.after.order_id).count();
        assert_eq!(times, 1, "{}", transition.after.order_id);
    }
}

async fn a_filter_keeps_what_it_names(place: &Place) {
    let store = place.store.as_ref();
    let now = store.now().await.unwrap();
    let old = now - Duration::from_mins(1);
    store.insert(&[arrive(new_order("old", old), now), arrive(new_order("young", now), now)]).await.unwrap();
    let flying = in_flight(store, "flying").await;
    let ids = |filter: OrderFilter| async move {
        let page = store.page(&filter, None, 10).await.unwrap();
        assert_eq!(page.next, None, "it was not full");
        page.orders.into_iter().map(|view| view.order.order_id).collect::<Vec<_>>()
    };
    let states = vec![State::InFlight, State::InDoubt];
    assert_eq!(ids(OrderFilter { states, ..OrderFilter::default() }).await, std::slice::from_ref(&flying.order_id));
    assert_eq!(ids(OrderFilter { created_before: Some(now), ..OrderFilter::default() }).await, [id("old")]);
    let fresh = [flying.order_id.clone(), id("young")];
    assert_eq!(ids(OrderFilter { created_from: Some(now), ..OrderFilter::default() }).await, fresh);
    let due = Some(flying.deadline_at.min(load_one(store, &id("young")).await.unwrap().deadline_at));
    assert_eq!(ids(OrderFilter { deadline_before: due, ..OrderFilter::default() }).await, [id("old")]);
    assert_eq!(ids(OrderFilter { deadline_from: due, ..OrderFilter::default() }).await, fresh);
    let lanes = vec![flying.provider.clone().unwrap()];
    let meant = [flying.order_id.clone(), id("old"), id("young")];
    assert_eq!(ids(OrderFilter { lanes, ..OrderFilter::default() }).await, meant);
    let lanes = vec![recharged::domain::ProviderId::new("another")];
    assert_eq!(ids(OrderFilter { lanes, ..OrderFilter::default() }).await, []);
    assert_eq!(ids(OrderFilter { only_with_case: true, ..OrderFilter::default() }).await, []);
    assert_eq!(ids(OrderFilter { only_refunded: true, ..OrderFilter::default() }).await, []);
    assert_eq!(apply_one(store, &into_doubt(&flying)).await, Written::Stored);
    assert_eq!(
        ids(OrderFilter { only_with_case: true, ..OrderFilter::default() }).await,
        std::slice::from_ref(&flying.order_id)
    );
    store.insert(&[hopeless("refunded", now)]).await.unwrap();
    for filter in [
        OrderFilter { only_refunded: true, ..OrderFilter::default() },
        OrderFilter { only_unconfirmed: true, ..OrderFilter::default() },
    ] {
        assert_eq!(ids(filter).await, [id("refunded")]);
    }
    let named = vec![id("young"), id("unknown"), id("old")];
    assert_eq!(ids(OrderFilter { ids: named.clone(), ..OrderFilter::default() }).await, [id("old"), id("young")]);
    let both = OrderFilter { ids: named, states: vec![State::InFlight], ..OrderFilter::default() };
    assert_eq!(ids(both).await, []);
    assert_eq!(ids(OrderFilter::default()).await.len(), 4);
}

async fn the_few_that_pass_a_filter_are_found_among_many_page_by_page(place: &Place) {
    let store = place.store.as_ref();
    let now = store.now().await.unwrap();
    for page in 0..12 {
        let batch = (0..1_000).map(|number| arrive(new_order(&format!("n-{page:02}-{number:03}"), now), now));
        store.insert(&batch.collect::<Vec<_>>()).await.unwrap();
    }
    let last = in_flight(store, "z-last").await;
    let filter = OrderFilter { states: vec![State::InFlight], ..OrderFilter::default() };
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.page(&filter, after.as_ref(), 5).await.unwrap();
        found.extend(page.orders.into_iter().map(|view| view.order.order_id));
        assert!(page.next.is_none() || page.next > after, "it goes on");
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found, [last.order_id]);
}

async fn orders_are_counted_by_state(place: &Place) {
    let store = place.store.as_ref();
    assert!(store.count_by_state().await.unwrap().is_empty());
    let now = store.now().await.unwrap();
    store.insert(&[arrive(new_order("q-1", now), now), arrive(new_order("q-2", now), now)]).await.unwrap();
    let (a, b) = (in_flight(store, "f-1").await, in_flight(store, "f-2").await);
    assert_eq!(apply_one(store, &succeed(&a, now)).await, Written::Stored);
    assert_eq!(apply_one(store, &into_doubt(&b)).await, Written::Stored);
    let mut counts = store.count_by_state().await.unwrap();
    counts.sort();
    assert_eq!(counts, [(State::Queued, 2), (State::InDoubt, 1), (State::Succeeded, 1)]);
}
