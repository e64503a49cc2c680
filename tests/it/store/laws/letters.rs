//! What holds for decisions about dead letters: each stands once, and only who began a replay ends it.

use std::time::Duration;

use recharged::domain::Timestamp;
use recharged::ports::{LetterKey, LetterMark, LetterState, Store};
use uuid::Uuid;

use super::super::on_every_adapter;
use super::super::place::Place;

on_every_adapter!(
    a_decision_stands_and_no_other_run_changes_it,
    a_replay_that_was_abandoned_is_taken_over_and_its_former_run_ends_nothing,
    a_replay_that_failed_leaves_no_trace,
    of_two_runs_that_begin_with_the_same_letters_each_gets_some_and_none_gets_both,
    marks_are_forgotten_by_age_but_for_replays_that_have_not_ended,
);

const MINUTE: Duration = Duration::from_mins(1);

fn key(offset: i64) -> LetterKey {
    LetterKey { topic: "recharge.orders".to_owned(), partition: 3, offset, stamp: 1_790_000_000_000 }
}

fn mark(state: LetterState, by: &str, at: Timestamp) -> LetterMark {
    LetterMark { state, by: by.to_owned(), why: "as agreed, 充值".to_owned(), at, run: Uuid::new_v4() }
}

async fn found(store: &dyn Store, keys: &[LetterKey]) -> Vec<Option<LetterMark>> {
    store.letter_marks(keys).await.unwrap()
}

async fn a_decision_stands_and_no_other_run_changes_it(place: &Place) {
    let store = place.store.as_ref();
    let now = store.now().await.unwrap();
    let first = mark(LetterState::Discarded, "first", now);
    let keys = [key(2), key(1)];
    assert_eq!(store.mark_letters(&keys, &first, now).await.unwrap(), [true, true]);
    // The same run may not have heard the answer.
    assert_eq!(store.mark_letters(&keys, &first, now).await.unwrap(), [true, true]);
    let second = mark(LetterState::Replaying, "second", now + MINUTE);
    let mixed = [key(1), key(3), key(2), key(3)];
    assert_eq!(store.mark_letters(&mixed, &second, now + MINUTE).await.unwrap(), [false, true, false, true]);
    // Each part of a key counts.
    let others = [
        LetterKey { topic: "recharge.lifecycle".to_owned(), ..key(1) },
        LetterKey { partition: 4, ..key(1) },
        LetterKey { stamp: -1, ..key(1) },
    ];
    assert_eq!(found(store, &others).await, [None, None, None]);
    assert_eq!(found(store, &[key(3), key(9), key(1)]).await, [Some(second), None, Some(first)]);
    assert_eq!(found(store, &[]).await, []);
}

async fn a_replay_that_was_abandoned_is_taken_over_and_its_former_run_ends_nothing(place: &Place) {
    let store = place.store.as_ref();
    let now = store.now().await.unwrap();
    let (former, later) =
        (mark(LetterState::Replaying, "former", now), mark(LetterState::Replaying, "later", now + MINUTE));
    let keys = [key(1)];
    assert_eq!(store.mark_letters(&keys, &former, now).await.unwrap(), [true]);
    assert_eq!(store.mark_letters(&keys, &later, now).await.unwrap(), [false], "it is not old enough");
    assert_eq!(store.mark_letters(&keys, &later, now + Duration::from_micros(1)).await.unwrap(), [true]);
    store.replays_done(&keys, former.run, now + MINUTE).await.unwrap();
    store.replays_failed(&keys, former.run).await.unwrap();
    assert_eq!(found(store, &keys).await, [Some(later.clone())]);
    store.replays_done(&keys, later.run, now + 2 * MINUTE).await.unwrap();
    let done = LetterMark { state: LetterState::Replayed, at: now + 2 * MINUTE, ..later.clone() };
    assert_eq!(found(store, &keys).await, [Some(done.clone())]);
    // What has ended does not fail after that, and nobody begins anew.
    store.replays_failed(&keys, later.run).await.unwrap();
    let third = mark(LetterState::Replaying, "third", now + 3 * MINUTE);
    assert_eq!(store.mark_letters(&keys, &third, now + 3 * MINUTE).await.unwrap(), [false]);
    assert_eq!(found(store, &keys).await, [Some(done)]);
}

async fn a_replay_that_failed_leaves_no_trace(place: &Place) {
    let store = place.store.as_ref();
    let now = store.now().await.unwrap();
    let begun = mark(LetterState::Replaying, "a", now);
    store.mark_letters(&[key(1), key(2)], &begun, now).await.unwrap();
    store.replays_failed(&[key(2)], begun.run).await.unwrap();
    assert_eq!(found(store, &[key(1), key(2)]).await, [Some(begun), None]);
    let again = mark(LetterState::Discarded, "b", now);
    assert_eq!(store.mark_letters(&[key(2)], &again, now).await.unwrap(), [true]);
}

async fn of_two_runs_that_begin_with_the_same_letters_each_gets_some_and_none_gets_both(place: &Place) {
    let now = place.store.now().await.unwrap();
    let keys: Vec<LetterKey> = (0..200).map(key).collect();
    let backwards: Vec<LetterKey> = keys.iter().rev().cloned().collect();
    let (one, two) = (mark(LetterState::Replaying, "one", now), mark(LetterState::Replaying, "two", now));
    let begin = |keys: &[LetterKey], mark: &LetterMark| {
        let (store, keys, mark) = (std::sync::Arc::clone(&place.store), keys.to_vec(), mark.clone());
        tokio::spawn(async move {
            let mut stands = Vec::new();
            for few in keys.chunks(20) {
                stands.extend(store.mark_letters(few, &mark, now).await.unwrap());
            }
            stands
        })
    };
    let (first, second) = tokio::join!(begin(&keys, &one), begin(&backwards, &two));
    let (first, mut second) = (first.unwrap(), second.unwrap());
    second.reverse();
    assert!(first.iter().zip(&second).all(|(one, two)| one != two), "each letter is one run's");
    for (mark, ours) in found(place.store.as_ref(), &keys).await.iter().zip(first) {
        assert_eq!(mark.as_ref().unwrap().by, if ours { "one" } else { "two" });
    }
}

async fn marks_are_forgotten_by_age_but_for_replays_that_have_not_ended(place: &Place) {
    let store = place.store.as_ref();
    let now = store.now().await.unwrap();
    let begun = mark(LetterState::Replaying, "a", now);
    let old = mark(LetterState::Discarded, "b", now);
    let young = mark(LetterState::Discarded, "c", now + MINUTE);
    for (offset, mark) in [(1, &begun), (2, &old), (3, &young)] {
        store.mark_letters(&[key(offset)], mark, now).await.unwrap();
    }
    assert_eq!(store.forget_letters(now + MINUTE).await.unwrap(), 1);
    assert_eq!(found(store, &[key(1), key(2), key(3)]).await, [Some(begun), None, Some(young)]);
}
