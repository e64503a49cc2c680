//! Rows 23 and 24, and what is told of an order's end.

use super::story::{Story, arrived, at, delivered, lane, new_order, no, paid, policy, secs};
use crate::domain::DuplicateSemantics::RejectsAlways;
use crate::domain::decide::{Input, Why};
use crate::domain::*;

fn confirmed(refund_id: &str, second: i64) -> Input {
    Input::RefundConfirmed { refund_id: refund_id.into(), at: at(second) }
}

/// Failed at second 10, its refund requested.
fn failed() -> Story {
    let mut story = Story::in_flight(RejectsAlways);
    story.reply(SubmitOutcome::Rejected(no(FailureClass::ProviderDeclared, RetryAdvice::Never)), 10);
    assert_eq!((story.row().state, story.row().refund_requested), (State::Failed, true));
    story
}

#[test]
fn row_23_a_refund_that_was_requested_is_confirmed_once() {
    let mut story = failed();
    assert_eq!(story.refunds[0].confirm_by, Some(at(10 + 86_400)));
    story.tell(confirmed("r-1", 40), 50);
    assert_eq!((story.last(), story.row().refund_id.as_deref()), (EventType::RefundConfirmed, Some("r-1")));
    let made = story.log.last().unwrap().data.refund_made.as_deref().unwrap();
    assert_eq!((&*made.refund_id, made.at), ("r-1", at(40)));
    assert_eq!(story.tell(confirmed("r-1", 60), 60), Some(Why::Known));
    assert_eq!(story.tell(Input::RefundOverdue, 90_000), Some(Why::Known));
    assert_eq!((story.row().state, story.opened.len()), (State::Failed, 0));
    story.check_replay();
}

#[test]
fn row_23_a_second_refund_is_for_a_person() {
    let mut story = failed();
    story.tell(confirmed("r-1", 40), 50);
    story.tell(confirmed("r-2", 60), 60);
    assert_eq!((&story.opened[..], story.row().refund_id.as_deref()), (&[CaseKind::RefundedTwice][..], Some("r-1")));
    assert_eq!(story.tell(confirmed("r-3", 70), 70), Some(Why::Known), "that it is more than one is known");
    story.check_replay();
}

#[test]
fn row_23_a_refund_that_nobody_requested_moves_no_order_and_is_for_a_person() {
    let mut unpaid = Story::new(policy(RejectsAlways));
    unpaid.tell(arrived(new_order(None)), 0);
    let mut cancelled = unpaid.clone();
    cancelled.tell(Input::CancelRequested, 1);
    let mut succeeded = Story::in_flight(RejectsAlways);
    succeeded.reply(delivered(), 1);
    for mut story in [unpaid, cancelled, Story::queued(RejectsAlways), Story::in_flight(RejectsAlways), succeeded] {
        let before = story.row().clone();
        story.tell(confirmed("r-1", 2), 2);
        assert_eq!(story.opened, [CaseKind::UnrequestedRefund], "{}", before.state);
        let after = story.row();
        assert_eq!(
            (after.state, after.asked_version, after.deadline_at),
            (before.state, before.asked_version, before.deadline_at)
        );
        assert_eq!(story.tell(confirmed("r-1", 3), 3), Some(Why::Known));
        story.check_replay();
    }
}

#[test]
fn row_23_an_order_that_fails_after_its_money_went_back_unasked_is_not_followed() {
    let mut story = Story::queued(RejectsAlways);
    story.tell(confirmed("r-1", 2), 2);
    story.tell(Input::Deadline, 180);
    assert_eq!((story.row().state, story.refunds[0].confirm_by), (State::Failed, None));
    assert_eq!(story.tell(confirmed("r-1", 200), 200), Some(Why::Known));
    assert_eq!(story.tell(Input::RefundOverdue, 90_000), Some(Why::Known));
    // Two refunds, then: what was requested, and what was not.
    story.tell(confirmed("r-2", 201), 201);
    assert_eq!(story.opened, [CaseKind::UnrequestedRefund, CaseKind::RefundedTwice]);
    story.check_replay();
}

#[test]
fn row_24_an_unconfirmed_refund_is_a_case_once_which_its_confirmation_closes() {
    let mut story = failed();
    story.tell(Input::RefundOverdue, 86_410);
    assert_eq!((&story.opened[..], story.last()), (&[CaseKind::RefundUnconfirmed][..], EventType::CaseOpened));
    assert_eq!(story.tell(Input::RefundOverdue, 86_420), Some(Why::Known));
    let closed = Input::CaseClosed { kind: CaseKind::RefundUnconfirmed, by: "ann".into(), evidence: "mail".into() };
    let mut by_person = story.clone();
    by_person.tell(closed, 86_430);
    for mut story in [story, by_person] {
        story.tell(confirmed("r-1", 86_440), 86_450);
        assert!(!story.has_open(CaseKind::RefundUnconfirmed));
        assert_eq!(story.last(), EventType::RefundConfirmed);
        story.check_replay();
    }
}

#[test]
fn row_24_a_refund_is_followed_wherever_it_was_requested_and_nowhere_else() {
    let mut late = Story::new(policy(RejectsAlways));
    late.tell(arrived(new_order(None)), 0);
    late.tell(Input::CancelRequested, 1);
    assert_eq!(late.tell(Input::RefundOverdue, 90_000), Some(Why::Known), "nothing was paid");
    late.tell(paid(2, "pay-1"), 2);
    assert_eq!(late.refunds[0].confirm_by, Some(at(2 + 86_400)));
    late.tell(Input::RefundOverdue, 90_000);
    assert_eq!((late.row().state, &late.opened[..]), (State::Cancelled, &[CaseKind::RefundUnconfirmed][..]));

    let mut unfollowed = Story::new(Policy { refund_confirm_within: None, ..policy(RejectsAlways) });
    unfollowed.tell(Input::Arrived { new: Box::new(new_order(Some(at(0)))), verdict: Err(Reason::NoRoute) }, 0);
    assert_eq!(unfollowed.refunds[0].confirm_by, None);
}

fn told_at_end() -> Story {
    let policy = Policy { notify_at_end: true, notify_after: secs(60), ..policy(RejectsAlways) };
    Story::new(policy)
}

fn ends(story: &Story) -> Vec<(u32, State)> {
    let told = story.log.iter().filter(|event| event.kind == EventType::EndNotificationRequested);
    told.map(|event| (event.version, event.data.state)).collect()
}

#[test]
fn the_end_is_told_once_with_the_transition_that_brings_it() {
    let wanted = NewOrder { notify: true, ..new_order(Some(at(0))) };
    let mut story = told_at_end();
    story.tell(arrived(wanted.clone()), 0);
    story.claim(1);
    story.reply(delivered(), 2);
    assert_eq!(ends(&story), [(3, State::Succeeded)]);
    // What is learned later is no second end.
    story.tell(Input::CancelRequested, 3);
    story.tell(confirmed("r-1", 4), 4);
    assert_eq!(ends(&story).len(), 1);
    story.check_replay();

    let mut unpaid = told_at_end();
    unpaid.tell(arrived(NewOrder { paid_at: None, payment_id: None, ..wanted.clone() }), 0);
    unpaid.tell(Input::CancelRequested, 1);
    unpaid.tell(paid(2, "pay-1"), 2);
    assert_eq!(ends(&unpaid), [(2, State::Cancelled)], "the refund of a late payment is no end");

    let mut hopeless = told_at_end();
    hopeless.tell(Input::Arrived { new: Box::new(wanted.clone()), verdict: Err(Reason::NoRoute) }, 0);
    assert_eq!(ends(&hopeless), [(1, State::Failed)]);

    let mut silent = told_at_end();
    silent.tell(Input::Arrived { new: Box::new(new_order(Some(at(0)))), verdict: Err(Reason::NoRoute) }, 0);
    let mut nobody = told_at_end();
    let new = NewOrder { recipient: Recipient::read("12", None), ..wanted };
    nobody.tell(Input::Arrived { new: Box::new(new), verdict: Err(Reason::InvalidPhone) }, 0);
    assert_eq!((ends(&silent), ends(&nobody)), (vec![], vec![]));
}

#[test]
fn an_order_that_is_closed_as_it_comes_is_told_of_once_not_twice() {
    let policy = Policy { notify_at_end: true, ..policy(RejectsAlways) };
    let new = NewOrder { notify: true, ..new_order(Some(at(0))) };
    for (verdict, timed, told) in [(Ok(lane()), true, false), (Err(Reason::NoRoute), false, true)] {
        let input = Input::Arrived { new: Box::new(new.clone()), verdict };
        let Decision::Apply(transition) = decide(None, &input, at(0), &policy) else { panic!("it is stored") };
        assert_eq!((transition.notify_at.is_some(), transition.told.is_some()), (timed, told));
    }
}
