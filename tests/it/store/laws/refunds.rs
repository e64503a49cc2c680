//! What holds for refunds that are followed, and for what is told of an order's end.

use std::time::Duration;

use recharged::domain::{
    CaseKind, EventType, Input, LoggedEvent, NewOrder, Order, Policy, Reason, State, Timestamp, Transition, decide,
};
use recharged::ports::{CaseFilter, DeadlinePosition, LogPosition, RefundPage, Store, Waits, Written};

use super::super::fixture::{
    applied, apply_one, claim, hopeless, id, insert_one, lane, load_one, new_order, policy, step, succeed,
};
use super::super::on_every_adapter;
use super::super::place::Place;

on_every_adapter!(
    a_refund_is_followed_until_it_is_confirmed,
    an_overdue_refund_opens_its_case_once_and_its_confirmation_closes_it,
    overdue_refunds_come_in_the_order_of_their_times_page_by_page,
    what_is_not_to_be_followed_is_not,
    the_end_is_told_in_the_same_breath_and_nothing_is_told_later,
    a_write_that_is_overtaken_tells_of_no_end,
);

const WITHIN: Duration = Duration::from_hours(24);

fn confirmed(refund_id: &str, at: Timestamp) -> Input {
    Input::RefundConfirmed { refund_id: refund_id.into(), at }
}

async fn overdue(store: &dyn Store, until: Timestamp, limit: usize) -> RefundPage {
    let start = DeadlinePosition { at: Timestamp::UNIX_EPOCH, order_id: None };
    store.unconfirmed(&start, until, limit).await.unwrap()
}

fn ids(page: &RefundPage) -> Vec<&str> {
    page.overdue.iter().map(recharged::domain::OrderId::as_str).collect()
}

async fn a_refund_is_followed_until_it_is_confirmed(place: &Place) {
    let store = place.store.as_ref();
    let now = store.now().await.unwrap();
    // Requested as the order comes, and at its deadline.
    let first = hopeless("r-1", now);
    insert_one(store, &first).await;
    let arrived = super::super::fixture::arrive(new_order("r-2", now), now);
    insert_one(store, &arrived).await;
    let second = step(&arrived.after, &Input::Deadline, arrived.after.deadline_at);
    assert_eq!(apply_one(store, &second).await, Written::Stored);
    for (order, since) in [("r-1", now), ("r-2", arrived.after.deadline_at)] {
        let waits = store.waits(&id(order)).await.unwrap();
        assert_eq!(waits, Waits { notification_at: None, refund_confirm_by: Some(since + WITHIN) });
    }
    assert_eq!(ids(&overdue(store, now + WITHIN - Duration::from_micros(1), 9).await), [""; 0]);
    assert_eq!(ids(&overdue(store, now + WITHIN * 2, 9).await), ["r-1", "r-2"]);

    let made = step(&first.after, &confirmed("refund-1", now), now);
    let mut overtaken = made.clone();
    overtaken.from_version += 1;
    assert_eq!(apply_one(store, &overtaken).await, Written::Overtaken);
    assert_eq!(ids(&overdue(store, now + WITHIN * 2, 9).await), ["r-1", "r-2"]);
    assert_eq!(apply_one(store, &made).await, Written::Stored);
    assert_eq!(ids(&overdue(store, now + WITHIN * 2, 9).await), ["r-2"]);
    assert_eq!(store.waits(&id("r-1")).await.unwrap(), Waits::default());
    let row = load_one(store, &id("r-1")).await.unwrap();
    assert_eq!((&row, row.refund_id.as_deref()), (&made.after, Some("refund-1")));
    assert_eq!(store.waits(&id("nobody")).await.unwrap(), Waits::default());
}

async fn an_overdue_refund_opens_its_case_once_and_its_confirmation_closes_it(place: &Place) {
    let store = place.store.as_ref();
    let now = store.now().await.unwrap();
    let failed = hopeless("late", now);
    insert_one(store, &failed).await;
    let later = now + WITHIN;
    let told = step(&failed.after, &Input::RefundOverdue, later);
    assert_eq!(apply_one(store, &told).await, Written::Stored);
    assert_eq!(apply_one(store, &told).await, Written::Overtaken, "two watchdogs, one case");
    assert_eq!(ids(&overdue(store, later + WITHIN, 9).await), [""; 0]);
    let cases = store.cases(&CaseFilter::default(), None, 9).await.unwrap();
    assert_eq!(cases.iter().map(|case| case.key.kind).collect::<Vec<_>>(), [CaseKind::RefundUnconfirmed]);

    let made = step(&told.after, &confirmed("refund-1", later), later);
    assert_eq!(apply_one(store, &made).await, Written::Stored);
    assert!(store.cases(&CaseFilter::default(), None, 9).await.unwrap().is_empty());
    let twice = step(&made.after, &confirmed("refund-2", later), later);
    assert_eq!(apply_one(store, &twice).await, Written::Stored);
    let cases = store.cases(&CaseFilter::default(), None, 9).await.unwrap();
    assert_eq!(cases.iter().map(|case| case.key.kind).collect::<Vec<_>>(), [CaseKind::RefundedTwice]);
    let row = load_one(store, &id("late")).await.unwrap();
    assert_eq!(row.refund_id.as_deref(), Some("refund-1"), "the first one stands");
    let unasked = super::super::fixture::arrive(new_order("open", now), now);
    insert_one(store, &unasked).await;
    let told = step(&unasked.after, &confirmed("refund-3", later), now);
    assert_eq!(apply_one(store, &told).await, Written::Stored);
    assert_eq!(load_one(store, &id("open")).await.as_ref(), Some(&told.after));
}

async fn overdue_refunds_come_in_the_order_of_their_times_page_by_page(place: &Place) {
    let store = place.store.as_ref();
    let now = store.now().await.unwrap();
    for (order, seconds) in [("c", 2), ("a", 1), ("b", 1)] {
        insert_one(store, &hopeless(order, now + Duration::from_secs(seconds))).await;
    }
    let until = now + WITHIN + Duration::from_secs(2);
    let first = overdue(store, until, 1).await;
    assert_eq!(ids(&first), ["a"]);
    let rest = store.unconfirmed(&first.next.unwrap(), until, 9).await.unwrap();
    assert_eq!((ids(&rest), rest.next.clone()), (vec!["b", "c"], None));
    store.unfollow(&[id("b"), id("nobody")]).await.unwrap();
    assert_eq!(ids(&overdue(store, until, 9).await), ["a", "c"]);
}

async fn what_is_not_to_be_followed_is_not(place: &Place) {
    let store = place.store.as_ref();
    let now = store.now().await.unwrap();
    let unfollowed = Policy { refund_confirm_within: None, ..policy() };
    let input = Input::Arrived { new: Box::new(new_order("quiet", now)), verdict: Err(Reason::NoRoute) };
    insert_one(store, &applied(decide(None, &input, now, &unfollowed))).await;
    assert!(load_one(store, &id("quiet")).await.unwrap().refund_requested);
    assert_eq!(ids(&overdue(store, now + WITHIN * 9, 9).await), [""; 0]);
}

fn telling() -> Policy {
    Policy { notify_at_end: true, ..policy() }
}

fn notified(order: &str, now: Timestamp) -> NewOrder {
    NewOrder { notify: true, ..new_order(order, now) }
}

/// Arrived and claimed, with its timer set.
async fn under_way(store: &dyn Store, order: &str, now: Timestamp) -> Order {
    let input = Input::Arrived { new: Box::new(notified(order, now)), verdict: Ok(lane()) };
    let arrived = applied(decide(None, &input, now, &telling()));
    insert_one(store, &arrived).await;
    assert!(store.waits(&id(order)).await.unwrap().notification_at.is_some());
    let claimed = claim(&arrived.after, now);
    assert_eq!(apply_one(store, &claimed).await, Written::Stored);
    claimed.after
}

/// As [`succeed`] has it, by the policy that tells of ends.
fn succeed_telling(order: &Order, now: Timestamp) -> Transition {
    let as_told = succeed(order, now);
    let attempt = order.attempt.as_ref().unwrap();
    let outcome = recharged::domain::SubmitOutcome::Succeeded(recharged::domain::Receipt {
        provider_ref: as_told.after.attempt.as_ref().unwrap().provider_ref.clone(),
        ..recharged::domain::Receipt::default()
    });
    let input = Input::SubmitReply { attempt: attempt.number, claim_id: attempt.claim_id, outcome };
    applied(decide(Some(order), &input, now, &telling()))
}

async fn told_of(store: &dyn Store, order: &str) -> Vec<(u32, EventType, State)> {
    let timeline = store.timeline(&id(order)).await.unwrap();
    timeline.iter().map(|event| (event.version, event.kind, event.data.state)).collect()
}

async fn the_end_is_told_in_the_same_breath_and_nothing_is_told_later(place: &Place) {
    let store = place.store.as_ref();
    let now = store.now().await.unwrap();
    let order = under_way(store, "e-1", now).await;
    let silent = under_way(store, "e-2", now).await;
    let ended = succeed_telling(&order, now);
    let batch = [ended.clone(), succeed(&silent, now)];
    assert_eq!(store.apply(&batch).await.unwrap(), [Written::Stored, Written::Stored]);
    let told = told_of(store, "e-1").await;
    let end = (3, EventType::EndNotificationRequested, State::Succeeded);
    assert_eq!(told[2..], [(3, EventType::Succeeded, State::Succeeded), end]);
    assert_eq!(load_one(store, &id("e-1")).await.as_ref(), Some(&ended.after));
    assert_eq!(store.waits(&id("e-1")).await.unwrap(), Waits::default(), "there is nothing left to tell");
    assert!(store.waits(&id("e-2")).await.unwrap().notification_at.is_some(), "another's stays");
    assert_eq!(told_of(store, "e-2").await.len(), 3);

    // One that is closed as it comes.
    let input = Input::Arrived { new: Box::new(notified("e-3", now)), verdict: Err(Reason::NoRoute) };
    insert_one(store, &applied(decide(None, &input, now, &telling()))).await;
    let end = (1, EventType::EndNotificationRequested, State::Failed);
    assert_eq!(told_of(store, "e-3").await, [(1, EventType::Failed, State::Failed), end]);
    assert_eq!(store.waits(&id("e-3")).await.unwrap().notification_at, None);

    // The relay reads them behind the transitions that bring them; and a page is as long as its entries.
    let mut seen: Vec<LoggedEvent> = Vec::new();
    let mut at = LogPosition::default();
    let give_up = tokio::time::Instant::now() + Duration::from_mins(1);
    while seen.len() < 9 {
        assert!(tokio::time::Instant::now() < give_up, "{} of 9 entries came", seen.len());
        for batch in store.read_log(at, 1).await.unwrap() {
            at = batch.position;
            seen.extend(super::entries(&batch).map(|(_, event)| event));
        }
    }
    for (place, told) in seen.iter().enumerate().filter(|(_, event)| event.kind.is_aside()) {
        let brings = |event: &LoggedEvent| (&event.order_id, event.version) == (&told.order_id, told.version);
        assert!(seen[..place].iter().any(brings), "{seen:?}");
    }
    assert_eq!(seen.iter().filter(|event| event.kind.is_aside()).count(), 2);
}

async fn a_write_that_is_overtaken_tells_of_no_end(place: &Place) {
    let store = place.store.as_ref();
    let now = store.now().await.unwrap();
    let order = under_way(store, "o-1", now).await;
    let mut late = succeed_telling(&order, now);
    late.from_version -= 1;
    assert_eq!(apply_one(store, &late).await, Written::Overtaken);
    assert!(store.waits(&id("o-1")).await.unwrap().notification_at.is_some());
    assert_eq!(told_of(store, "o-1").await.len(), 2);
}
