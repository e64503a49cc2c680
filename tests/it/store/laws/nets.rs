//! What the last nets read: orders by deadline, cases by their times, and how far lanes have read.

use std::time::Duration;

use recharged::domain::event::{DecidedBy, EventData};
use recharged::domain::{AttemptState, CaseKind, EventType, LoggedEvent, OrderId, State, Timestamp};
use recharged::ports::{
    CaseFilter, CaseKey, CaseNote, Census, DeadlinePosition, Hold, OverdueQuestion, QuestionTime, ReadMark, Store,
    Written,
};

use super::super::fixture::{
    apply_one, arrive, claim, id, in_flight, insert_one, into_doubt, lane, load_one, new_order, policy,
    resolve_as_failed, succeed,
};
use super::super::on_every_adapter;
use super::super::place::Place;

on_every_adapter!(
    a_send_without_an_answer_is_found_by_its_lane_and_age,
    what_is_undecided_comes_in_the_order_of_deadlines_page_by_page,
    the_low_water_mark_moves_from_where_it_stands_and_from_nowhere_else,
    what_the_mark_goes_past_undecided_is_set_aside_until_it_is_decided,
    a_census_counts_what_is_open,
    cases_are_read_oldest_first_and_page_by_page,
    a_case_is_looked_after_by_whom_the_log_says_and_an_action_on_what_has_changed_does_nothing,
    a_question_that_is_overdue_is_found_until_its_time_is_set,
    a_case_is_escalated_once_and_only_while_it_is_open,
    a_resolved_case_keeps_who_and_why_and_asks_no_more,
    a_topic_is_read_as_far_as_its_slowest_partition,
);

const SECOND: Duration = Duration::from_secs(1);

/// An order in doubt, with its case.
async fn doubtful(store: &dyn Store, order: &str) -> Timestamp {
    let row = in_flight(store, order).await;
    let doubt = into_doubt(&row);
    assert_eq!(apply_one(store, &doubt).await, Written::Stored);
    doubt.event.at
}

fn key(order: &str) -> CaseKey {
    CaseKey { order_id: id(order), kind: CaseKind::InDoubt }
}

async fn a_send_without_an_answer_is_found_by_its_lane_and_age(place: &Place) {
    let store = place.store.as_ref();
    let mut rows = Vec::new();
    for order in ["answered", "old-1", "old-2"] {
        rows.push(in_flight(store, order).await);
    }
    apply_one(store, &succeed(&rows[0], rows[0].attempt.as_ref().unwrap().claimed_at)).await;
    let now = store.now().await.unwrap();
    insert_one(store, &arrive(new_order("never-sent", now), now)).await;
    let start = DeadlinePosition { at: rows[0].deadline_at - 10 * SECOND, order_id: None };
    let (later, until) = (now + SECOND, rows[2].deadline_at);
    let found = |lane, claimed_before, after: DeadlinePosition, limit| async move {
        let found = store.unanswered(&lane, claimed_before, &after, until, limit).await.unwrap();
        found.orders.into_iter().map(|order| order.order_id).collect::<Vec<OrderId>>()
    };
    assert_eq!(found(lane(), later, start.clone(), 10).await, [id("old-1"), id("old-2")]);
    assert_eq!(found(lane(), later, start.clone(), 1).await, [id("old-1")]);
    let behind = DeadlinePosition { at: rows[1].deadline_at, order_id: Some("old-1".to_owned()) };
    assert_eq!(found(lane(), later, behind, 10).await, [id("old-2")]);
    let sent_at = rows[1].attempt.as_ref().unwrap().claimed_at;
    assert!(found(lane(), sent_at, start.clone(), 10).await.is_empty(), "none is so old");
    let other = recharged::domain::ProviderId::new("other");
    assert!(found(other, later, start, 10).await.is_empty());
}

async fn what_is_undecided_comes_in_the_order_of_deadlines_page_by_page(place: &Place) {
    let store = place.store.as_ref();
    let now = store.now().await.unwrap();
    // Two share a deadline; one is settled, one in doubt and counted, one in doubt before its deadline.
    let rows: Vec<_> = ["c", "a", "b", "settled", "doubt"].iter().zip([2, 1, 1, 1, 1]).collect();
    for (order, seconds) in rows {
        let at = now + seconds * SECOND;
        insert_one(store, &arrive(new_order(order, at), at)).await;
    }
    let settled = claim(&load_one(store, &id("settled")).await.unwrap(), now + SECOND);
    apply_one(store, &settled).await;
    apply_one(store, &succeed(&settled.after, now + 2 * SECOND)).await;
    let doubt = claim(&load_one(store, &id("doubt")).await.unwrap(), now + SECOND);
    apply_one(store, &doubt).await;
    apply_one(store, &into_doubt(&doubt.after)).await;
    let first = load_one(store, &id("a")).await.unwrap().deadline_at;
    let mut after = DeadlinePosition { at: first, order_id: None };
    let mut seen: Vec<String> = Vec::new();
    loop {
        let page = store.undecided(&after, first + SECOND, 2).await.unwrap();
        assert!(page.orders.len() <= 2 && page.unreadable.is_empty());
        seen.extend(page.orders.iter().map(|order| order.order_id.to_string()));
        let Some(next) = page.next else { break };
        after = next;
    }
    assert_eq!(seen, ["a", "b", "c"]);
    let before = DeadlinePosition { at: first - SECOND, order_id: None };
    assert!(store.undecided(&before, first - Duration::from_micros(1), 9).await.unwrap().orders.is_empty());
    let behind = DeadlinePosition { at: first, order_id: Some("b".to_owned()) };
    assert!(store.undecided(&behind, first, 9).await.unwrap().orders.is_empty(), "all of that moment are behind");
}

async fn the_low_water_mark_moves_from_where_it_stands_and_from_nowhere_else(place: &Place) {
    let store = place.store.as_ref();
    let (low, now) = (store.low_water().await.unwrap(), store.now().await.unwrap());
    assert!(!store.move_low_water(now, now + SECOND).await.unwrap(), "it does not stand there");
    assert!(store.move_low_water(low, now).await.unwrap());
    assert_eq!(store.low_water().await.unwrap(), now);
    assert!(!store.move_low_water(low, now + SECOND).await.unwrap(), "another has moved it");
    assert!(store.move_low_water(now, now - SECOND).await.unwrap(), "where the time went back it goes back too");
    assert_eq!(store.low_water().await.unwrap(), now - SECOND);
    let horizon = store.horizon().await.unwrap();
    assert!(horizon.oldest <= horizon.next);
}

async fn what_the_mark_goes_past_undecided_is_set_aside_until_it_is_decided(place: &Place) {
    let store = place.store.as_ref();
    let mut orders = Vec::new();
    for order in ["decided", "b", "a", "ahead"] {
        orders.push(in_flight(store, order).await);
    }
    let [first, last] = [orders[0].deadline_at, orders[3].deadline_at];
    apply_one(store, &into_doubt(&orders[0])).await;
    let (low, begin) = (store.low_water().await.unwrap(), DeadlinePosition { at: first - SECOND, order_id: None });
    let aside = async |after: &DeadlinePosition, limit| store.aside(after, limit).await.unwrap();
    assert!(!store.set_aside(first, last).await.unwrap(), "it does not stand there");
    assert!(aside(&begin, 9).await.orders.is_empty());
    assert!(store.set_aside(low, last).await.unwrap());
    assert_eq!(store.low_water().await.unwrap(), last);
    let page = aside(&begin, 1).await;
    assert_eq!(page.orders[0].order_id, id("b"));
    let page = aside(&page.next.unwrap(), 9).await;
    assert_eq!(page.orders.iter().map(|order| order.order_id.as_str()).collect::<Vec<_>>(), ["a"]);
    let open = |census: &Census| census.open.iter().find(|(state, _)| *state == State::InFlight).map(|(_, n)| *n);
    assert_eq!(open(&store.census(last, last + SECOND).await.unwrap()), Some(3), "what is set aside is still open");
    apply_one(store, &into_doubt(&orders[1])).await;
    assert_eq!(aside(&begin, 9).await.orders, [orders[2].clone()]);
    apply_one(store, &into_doubt(&orders[2])).await;
    assert!(aside(&begin, 9).await.orders.is_empty());
}

async fn a_census_counts_what_is_open(place: &Place) {
    let store = place.store.as_ref();
    let now = store.now().await.unwrap();
    assert_eq!(store.census(now, now).await.unwrap().overdue, 0);
    doubtful(store, "doubt").await;
    let flying = in_flight(store, "flying").await;
    for (order, earlier) in [("old", 100), ("young", 0)] {
        let at = now - earlier * SECOND;
        insert_one(store, &arrive(new_order(order, at), at)).await;
    }
    let census = store.census(now, now + 100 * SECOND).await.unwrap();
    let mut open: Vec<_> = census.open.iter().filter(|(_, orders)| *orders > 0).copied().collect();
    open.sort();
    assert_eq!(open, [(State::Queued, 2), (State::InFlight, 1), (State::InDoubt, 1)]);
    assert_eq!((census.overdue, census.oldest_paid_at), (1, Some(now - 100 * SECOND)));
    assert_eq!(census.cases, [(CaseKind::InDoubt, 1, 0)]);
    store.escalate(flying.deadline_at + policy().reconcile_within + SECOND, 10).await.unwrap();
    let later = store.census(now + 100 * SECOND, now + 100 * SECOND).await.unwrap();
    assert_eq!(
        (later.overdue, later.cases.as_slice()),
        (0, [(CaseKind::InDoubt, 1, 1)].as_slice()),
        "from the mark on"
    );
}

async fn cases_are_read_oldest_first_and_page_by_page(place: &Place) {
    let store = place.store.as_ref();
    let mut opened = Vec::new();
    for order in ["z", "m", "a"] {
        opened.push((doubtful(store, order).await, id(order)));
    }
    opened.sort();
    let filter = CaseFilter::default();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = store.cases(&filter, after.as_ref(), 2).await.unwrap();
        seen.extend(page.iter().map(|case| (case.opened_at, case.key.order_id.clone())));
        let Some(last) = page.into_iter().next_back() else { break };
        after = Some(last);
    }
    assert_eq!(seen, opened);
    let one = CaseFilter { order_id: Some(id("m")), kinds: vec![CaseKind::InDoubt], ..CaseFilter::default() };
    let found = store.cases(&one, None, 10).await.unwrap();
    assert_eq!(found.iter().map(|case| &case.key).collect::<Vec<_>>(), [&key("m")]);
    assert_eq!(found[0].evidence, "deadline passed with an open attempt");
    assert_eq!(found[0].escalate_at, found[0].opened_at + policy().reconcile_within);
    for none in [
        CaseFilter { kinds: vec![CaseKind::Conflict], ..CaseFilter::default() },
        CaseFilter { only_escalated: true, ..CaseFilter::default() },
        CaseFilter { opened_before: Some(opened[0].0), ..CaseFilter::default() },
        CaseFilter { order_id: Some(id("nobody")), ..CaseFilter::default() },
    ] {
        assert!(store.cases(&none, None, 10).await.unwrap().is_empty(), "{none:?}");
    }
}

async fn a_case_is_looked_after_by_whom_the_log_says_and_an_action_on_what_has_changed_does_nothing(place: &Place) {
    let store = place.store.as_ref();
    doubtful(store, "d").await;
    let before = load_one(store, &id("d")).await.unwrap();
    let steps = store.timeline(&id("d")).await.unwrap().len();
    let note = |was: Option<&str>, owner: Option<&str>, text: &str| CaseNote {
        key: key("d"),
        was: was.map(str::to_owned),
        owner: owner.map(str::to_owned),
        entry: LoggedEvent {
            order_id: id("d"),
            version: before.version,
            kind: EventType::CaseNoted,
            at: before.deadline_at,
            data: EventData {
                decided_by: Some(Box::new(DecidedBy { name: "A. Duty".to_owned(), evidence: text.to_owned() })),
                ..EventData::aside(before.state, before.deadline_at)
            },
        },
    };
    let taken = note(None, Some("A. Duty"), "takes it");
    assert_eq!(store.note(&taken).await.unwrap(), Written::Stored);
    assert_eq!(store.note(&taken).await.unwrap(), Written::Overtaken, "somebody looks after it by now");
    let mut noted = note(Some("A. Duty"), Some("A. Duty"), "notes something");
    noted.entry.at = before.deadline_at + SECOND;
    assert_eq!(store.note(&noted).await.unwrap(), Written::Stored);

    let mine = CaseFilter { owner: Some("A. Duty".to_owned()), ..CaseFilter::default() };
    let found = store.cases(&mine, None, 9).await.unwrap();
    assert_eq!(
        found.iter().map(|case| (&case.key, case.owner.as_deref())).collect::<Vec<_>>(),
        [(&key("d"), Some("A. Duty"))]
    );
    let nobodys = CaseFilter { only_unowned: true, ..CaseFilter::default() };
    assert!(store.cases(&nobodys, None, 9).await.unwrap().is_empty());
    let log = store.timeline(&id("d")).await.unwrap();
    assert_eq!(log[steps..], [taken.entry, noted.entry], "in their order, behind the version that they are about");
    assert_eq!(load_one(store, &id("d")).await.unwrap(), before, "nothing moved");

    let resolved = resolve_as_failed(&before, before.deadline_at + SECOND);
    assert_eq!(apply_one(store, &resolved).await, Written::Stored);
    assert_eq!(store.note(&note(Some("A. Duty"), None, "releases it")).await.unwrap(), Written::Overtaken);
}

async fn a_question_that_is_overdue_is_found_until_its_time_is_set(place: &Place) {
    let store = place.store.as_ref();
    doubtful(store, "late").await;
    doubtful(store, "later").await;
    let case = store.cases(&CaseFilter { order_id: Some(id("late")), ..CaseFilter::default() }, None, 1).await.unwrap();
    let due = case[0].next_query_at.unwrap();
    assert!(store.overdue_questions(due - SECOND, 10).await.unwrap().is_empty());
    let found = store.overdue_questions(due, 1).await.unwrap();
    assert_eq!(found, [OverdueQuestion { key: key("late"), next_query_at: due, held: None }]);

    // Whoever asks holds the row; the finder is told.
    let asked_version = load_one(store, &id("late")).await.unwrap().asked_version;
    let until = due + 30 * SECOND;
    store.hold(&[Hold { order_id: id("late"), asked_version, replaces: None, until }], due).await.unwrap();
    let found = store.overdue_questions(due, 1).await.unwrap();
    assert_eq!(found[0].held, Some((until, asked_version)));

    let set = |was, next| QuestionTime { key: key("late"), was, next };
    store.set_questions(&[set(due - SECOND, None)]).await.unwrap();
    assert_eq!(store.overdue_questions(due, 1).await.unwrap().len(), 1, "it had changed meanwhile");
    store.set_questions(&[set(due, Some(until))]).await.unwrap();
    assert!(store.overdue_questions(due, 1).await.unwrap().iter().all(|one| one.key != key("late")));
    assert!(store.overdue_questions(until, 10).await.unwrap().iter().any(|one| one.next_query_at == until));
    store.set_questions(&[set(until, None)]).await.unwrap();
    assert!(store.overdue_questions(until + 900 * SECOND, 10).await.unwrap().iter().all(|one| one.key != key("late")));
}

async fn a_case_is_escalated_once_and_only_while_it_is_open(place: &Place) {
    let store = place.store.as_ref();
    let opened_at = doubtful(store, "waits").await;
    doubtful(store, "settled").await;
    let settled = load_one(store, &id("settled")).await.unwrap();
    apply_one(store, &resolve_as_failed(&settled, opened_at + SECOND)).await;
    let due = opened_at + policy().reconcile_within;
    assert!(store.escalate(due - SECOND, 10).await.unwrap().is_empty());
    let escalated = store.escalate(due + SECOND, 10).await.unwrap();
    assert_eq!(escalated.iter().map(|case| &case.key).collect::<Vec<_>>(), [&key("waits")]);
    assert!(escalated[0].escalated);
    assert!(store.escalate(due + SECOND, 10).await.unwrap().is_empty(), "once");
    let filter = CaseFilter { only_escalated: true, ..CaseFilter::default() };
    assert_eq!(store.cases(&filter, None, 10).await.unwrap(), escalated);
}

async fn a_resolved_case_keeps_who_and_why_and_asks_no_more(place: &Place) {
    let store = place.store.as_ref();
    let opened_at = doubtful(store, "doubt").await;
    let row = load_one(store, &id("doubt")).await.unwrap();
    apply_one(store, &resolve_as_failed(&row, opened_at + SECOND)).await;
    assert!(store.cases(&CaseFilter::default(), None, 10).await.unwrap().is_empty());
    let all = CaseFilter { with_resolved: true, ..CaseFilter::default() };
    let case = store.cases(&all, None, 10).await.unwrap().pop().unwrap();
    let resolution = case.resolution.unwrap();
    assert_eq!((resolution.by.as_str(), resolution.at), ("a person", opened_at + SECOND));
    assert_eq!(resolution.evidence, "the provider's statement");
    assert_eq!(case.next_query_at, None);
    let row = load_one(store, &id("doubt")).await.unwrap();
    assert_eq!((row.state, row.attempt.unwrap().state), (State::Failed, AttemptState::WrittenOff));
    // An order that never had a case.
    let claimed = in_flight(store, "plain").await;
    assert_eq!(claim(&arrive(new_order("other", opened_at), opened_at).after, opened_at).after.cases, claimed.cases);
}

async fn a_topic_is_read_as_far_as_its_slowest_partition(place: &Place) {
    let store = place.store.as_ref();
    let now = store.now().await.unwrap();
    let mark = |partition, ago: u32| ReadMark { partition, up_to: now - ago * SECOND };
    assert_eq!(store.read_up_to("requests", 1).await.unwrap(), None);
    store.note_read("requests", &[mark(1, 10), mark(0, 40)]).await.unwrap();
    store.note_read("other", &[mark(2, 900)]).await.unwrap();
    assert_eq!(store.read_up_to("requests", 3).await.unwrap(), None, "nobody has told of the third");
    store.note_read("requests", &[mark(2, 20)]).await.unwrap();
    assert_eq!(store.read_up_to("requests", 3).await.unwrap(), Some(now - 40 * SECOND));
    store.note_read("requests", &[mark(0, 90), mark(1, 5)]).await.unwrap();
    assert_eq!(store.read_up_to("requests", 3).await.unwrap(), Some(now - 40 * SECOND), "a mark never falls");
    store.note_read("requests", &[mark(0, 1)]).await.unwrap();
    assert_eq!(store.read_up_to("requests", 3).await.unwrap(), Some(now - 20 * SECOND));
}
