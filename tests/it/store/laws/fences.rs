//! Fenced writes: the expected version or nothing, and everything that belongs to it or nothing.

use std::sync::Arc;
use std::time::Duration;

use recharged::domain::{CaseChange, CaseKind, Input, NewOrder, QueryOutcome, Receipt, State};
use recharged::ports::{CaseFilter, Inserted, OrderFilter, Written};

use super::super::fixture::{
    Refunded, apply_one, arrive, claim, id, in_flight, insert_one, into_doubt, lane, load_one, new_order,
    resolve_as_failed, step, succeed,
};
use super::super::on_every_adapter;
use super::super::place::Place;

on_every_adapter!(
    of_two_writers_one_wins,
    an_overtaken_write_leaves_no_trace,
    a_case_opens_with_doubt_and_closes_with_its_resolution,
    a_case_of_every_kind_can_be_opened,
    a_refund_is_requested_once,
    closed_states_cannot_be_left,
    a_caller_that_goes_away_leaves_no_half_write,
    no_open_order_gets_a_deadline_that_has_passed,
);

async fn of_two_writers_one_wins(place: &Place) {
    let now = place.store.now().await.unwrap();
    let arrived: Vec<_> = (0..50).map(|n| arrive(new_order(&format!("race-{n}"), now), now)).collect();
    place.store.insert(&arrived).await.unwrap();
    let mut writers = Vec::new();
    for writer in 0..4 {
        let store = Arc::clone(&place.store);
        let mut claims: Vec<_> = arrived.iter().map(|arrived| claim(&arrived.after, now)).collect();
        if writer % 2 == 1 {
            claims.reverse();
        }
        writers.push(tokio::spawn(async move {
            let written = store.apply(&claims).await.unwrap();
            (claims, written)
        }));
    }
    let mut won = 0;
    for writer in writers {
        let (claims, written) = writer.await.unwrap();
        for (claim, written) in claims.iter().zip(written) {
            if written == Written::Stored {
                won += 1;
                assert_eq!(load_one(place.store.as_ref(), &claim.after.order_id).await.as_ref(), Some(&claim.after));
            }
        }
    }
    assert_eq!(won, 50);
    assert_eq!(place.entries().await.len(), 100);
}

async fn an_overtaken_write_leaves_no_trace(place: &Place) {
    let store = place.store.as_ref();
    let order = in_flight(store, "late").await;
    let doubt = into_doubt(&order);
    assert_eq!(apply_one(store, &doubt).await, Written::Stored);
    // Both begin at versions that are gone: one would request a refund, one would close the order.
    let mut failed = resolve_as_failed(&doubt.after, order.deadline_at);
    failed.from_version = 1;
    assert_eq!(apply_one(store, &failed).await, Written::Overtaken);
    assert_eq!(apply_one(store, &succeed(&order, order.claimed_at())).await, Written::Overtaken);
    assert_eq!(load_one(store, &order.order_id).await, Some(doubt.after));
    assert_eq!(store.timeline(&order.order_id).await.unwrap().len(), 3);
    assert!(place.refunds().await.is_empty());
    assert_eq!(store.cases(&CaseFilter::default(), None, 9).await.unwrap().len(), 1, "one is open");
}

trait ClaimedAt {
    fn claimed_at(&self) -> recharged::domain::Timestamp;
}

impl ClaimedAt for recharged::domain::Order {
    fn claimed_at(&self) -> recharged::domain::Timestamp {
        self.attempt.as_ref().expect("an attempt").claimed_at
    }
}

async fn a_case_opens_with_doubt_and_closes_with_its_resolution(place: &Place) {
    let store = place.store.as_ref();
    let quiet = in_flight(store, "a-quiet").await;
    let order = in_flight(store, "b-doubtful").await;
    let doubt = into_doubt(&order);
    assert_eq!(apply_one(store, &doubt).await, Written::Stored);
    let page = store.page(&OrderFilter::default(), None, 10).await.unwrap();
    let open: Vec<_> = page.orders.iter().map(|view| (&view.order.order_id, view.case_open)).collect();
    assert_eq!(open, [(&quiet.order_id, false), (&order.order_id, true)]);
    let cases = store.cases(&CaseFilter::default(), None, 9).await.unwrap();
    assert_eq!(cases.len(), 1);
    assert!(cases[0].next_query_at.is_some() && cases[0].escalate_at > cases[0].opened_at, "{cases:?}");

    let resolved = resolve_as_failed(&doubt.after, order.deadline_at + Duration::from_mins(1));
    assert_eq!(apply_one(store, &resolved).await, Written::Stored);
    let page = store.page(&OrderFilter::default(), Some(&quiet.order_id), 10).await.unwrap();
    assert_eq!(page.orders.iter().map(|view| view.case_open).collect::<Vec<_>>(), [false]);
    let alone = OrderFilter { ids: vec![order.order_id.clone()], ..OrderFilter::default() };
    let page = store.page(&alone, None, 1).await.unwrap();
    let views = page.orders.iter().map(|view| (view.order.cases != 0, view.case_open));
    assert_eq!(views.collect::<Vec<_>>(), [(true, false)]);
    let all = CaseFilter { with_resolved: true, ..CaseFilter::default() };
    let cases = store.cases(&all, None, 9).await.unwrap();
    let resolution = cases[0].resolution.as_ref().expect("it is resolved");
    assert_eq!((resolution.by.as_str(), resolution.evidence.as_str()), ("a person", "the provider's statement"));
    assert_eq!((cases.len(), cases[0].next_query_at), (1, None));
}

async fn a_case_of_every_kind_can_be_opened(place: &Place) {
    let store = place.store.as_ref();
    let order = in_flight(store, "all-kinds").await;
    let mut told = into_doubt(&order);
    let open = |kind: &CaseKind| CaseChange::Open {
        kind: *kind,
        escalate_at: order.deadline_at,
        evidence: "for the sake of it".to_owned(),
        next_query_at: None,
    };
    told.cases = CaseKind::ALL.iter().map(open).collect();
    told.after.cases = CaseKind::ALL.iter().fold(0, |set, kind| set | kind.bit());
    assert_eq!(apply_one(store, &told).await, Written::Stored);
    let mut found: Vec<CaseKind> =
        store.cases(&CaseFilter::default(), None, 99).await.unwrap().iter().map(|case| case.key.kind).collect();
    found.sort_unstable();
    assert_eq!(found, CaseKind::ALL);
}

async fn a_refund_is_requested_once(place: &Place) {
    let store = place.store.as_ref();
    let now = store.now().await.unwrap();
    let arrived = arrive(new_order("refunded", now), now);
    insert_one(store, &arrived).await;
    let failed = step(&arrived.after, &Input::Deadline, arrived.after.deadline_at);
    assert_eq!(apply_one(store, &failed).await, Written::Stored);
    assert_eq!(apply_one(store, &failed).await, Written::Overtaken, "the same write again");
    let refund = Refunded {
        order_id: "refunded".to_owned(),
        amount_minor: 5_000,
        currency: "CNY".to_owned(),
        payment_id: Some("pay-refunded".to_owned()),
        reason: "deadline_passed".to_owned(),
    };
    assert_eq!(place.refunds().await, [refund]);
}

async fn closed_states_cannot_be_left(place: &Place) {
    let store = place.store.as_ref();
    let order = in_flight(store, "closed").await;
    let done = succeed(&order, order.claimed_at());
    assert_eq!(apply_one(store, &done).await, Written::Stored);

    let mut forged = done.clone();
    forged.from_version = done.after.version;
    forged.after.version += 1;
    forged.event.version += 1;
    forged.after.state = State::Queued;
    forged.after.closed_at = None;
    assert_eq!(apply_one(store, &forged).await, Written::Overtaken);
    assert_eq!(load_one(store, &id("closed")).await.as_ref(), Some(&done.after));
    assert_eq!(store.timeline(&id("closed")).await.unwrap().len(), 3);

    // What is learned later opens a case, and the state stays.
    let reversed = Input::Reported {
        attempt: 1,
        asked_at: order.claimed_at(),
        outcome: QueryOutcome::Reversed(Receipt::default()),
    };
    let told = step(&done.after, &reversed, order.claimed_at());
    assert_eq!(apply_one(store, &told).await, Written::Stored);
}

async fn a_caller_that_goes_away_leaves_no_half_write(place: &Place) {
    let now = place.store.now().await.unwrap();
    for round in 0..40_u64 {
        let batch: Vec<_> = (0..20).map(|n| arrive(new_order(&format!("gone-{round}-{n}"), now), now)).collect();
        let insert = place.store.insert(&batch);
        // Dropped somewhere on its way; a time-out is the point here.
        drop(tokio::time::timeout(Duration::from_micros(round * 100), insert).await);
    }
    // What was begun is finished in the background; the next write of the same rows waits for it.
    for round in 0..40 {
        let batch: Vec<_> = (0..20).map(|n| arrive(new_order(&format!("gone-{round}-{n}"), now), now)).collect();
        place.store.insert(&batch).await.unwrap();
    }
    assert_eq!(place.orders().await, 800);
    assert_eq!(place.entries().await.len(), 800);
}

async fn no_open_order_gets_a_deadline_that_has_passed(place: &Place) {
    let store = place.store.as_ref();
    let now = store.now().await.unwrap();
    // Decided long ago, by whoever stood still since.
    let then = now - Duration::from_secs(200);
    let late = arrive(new_order("late", then), then);
    assert!(late.after.deadline_at < now && !late.after.state.is_closed());
    let error = store.insert(std::slice::from_ref(&late)).await.unwrap_err();
    assert!(error.is_transient(), "decided anew, it can be stored: {error:?}");
    assert_eq!(load_one(store, &id("late")).await, None);
    assert!(store.timeline(&id("late")).await.unwrap().is_empty());

    let unpaid = NewOrder { paid_at: None, payment_id: None, ..new_order("unpaid", now) };
    let unpaid = arrive(unpaid, now);
    assert_eq!(insert_one(store, &unpaid).await, Inserted::Stored);
    let paid = Input::Paid { paid_at: then, payment_id: None, verdict: Ok(lane()) };
    let paid_late = step(&unpaid.after, &paid, then);
    assert!(paid_late.after.deadline_at < now && !paid_late.after.state.is_closed());
    let written = store.apply(std::slice::from_ref(&paid_late)).await;
    assert!(!matches!(written.as_deref(), Ok([Written::Stored])), "{written:?}");
    assert_eq!(load_one(store, &id("unpaid")).await.as_ref(), Some(&unpaid.after));
    // What its deadline decides is decided in the same breath.
    let decided = step(&unpaid.after, &paid, now);
    assert!(decided.after.state.is_closed());
    assert_eq!(apply_one(store, &decided).await, Written::Stored);
}
