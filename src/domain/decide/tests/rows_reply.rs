//! Rows 7–12b of the state table: what is said of an attempt before the deadline.

use super::story::{Story, TRY_AGAIN, at, delivered, found_delivered, no, secs, timed_out};
use crate::domain::decide::{Input, Why};
use crate::domain::*;

use DuplicateSemantics::{NotDeduplicated, RejectsAlways, RejectsUnlessFailed, ReplaysResult};

fn accepted() -> SubmitOutcome {
    SubmitOutcome::Accepted { provider_ref: Some("P-1".to_owned()) }
}

/// In flight again under the same reference, after a lost first reply and two "not found".
fn sent_again(second: i64) -> Story {
    let mut story = Story::in_flight(RejectsAlways);
    story.reply(timed_out(), 15);
    story.not_found_twice([second - 10, second - 1]);
    assert_eq!(story.stands(), (State::RetryWait, Some(AttemptState::Prepared)));
    story.claim(second);
    assert_eq!((story.attempt().number, story.attempt().state), (1, AttemptState::Sent));
    story
}

#[test]
fn row_7_an_accepted_attempt_is_asked_about_as_early_as_the_provider_allows() {
    let mut story = Story::in_flight(RejectsAlways);
    story.reply(accepted(), 1);
    assert_eq!(story.stands(), (State::InFlight, Some(AttemptState::Accepted)));
    assert_eq!(story.attempt().provider_ref.as_deref(), Some("P-1"));
    let command = story.follow_up.clone().unwrap().command;
    assert_eq!((command.kind, command.wake_at), (CommandKind::Query, Some(at(3))));
    assert_eq!(story.reply(accepted(), 2), Some(Why::Known));
    story.check_replay();
}

#[test]
fn row_8_unknown_and_duplicate_stay_open_and_are_asked_about_never_sent_again() {
    for outcome in [timed_out(), SubmitOutcome::Duplicate] {
        let mut story = Story::in_flight(ReplaysResult);
        story.reply(outcome, 15);
        assert_eq!(story.stands(), (State::InFlight, Some(AttemptState::Unknown)));
        let command = story.follow_up.clone().unwrap().command;
        assert_eq!((command.kind, command.wake_at), (CommandKind::Query, Some(at(15))), "the first one at once");
        story.claim(16);
        assert_eq!(story.attempt().claimed_at, at(0));
    }
}

#[test]
fn row_8_a_provider_that_knows_the_reference_cannot_lose_it() {
    let says: [fn(&mut Story); 4] = [
        |story| assert_eq!(story.reply(SubmitOutcome::Duplicate, 15), None),
        |story| assert_eq!(story.report(1, QueryOutcome::ProviderUnknown, 15), None),
        |story| assert_eq!(story.report(1, QueryOutcome::InProgress, 15), None),
        |story| assert_eq!(story.reply(accepted(), 15), None),
    ];
    for say in says {
        let mut story = Story::in_flight(RejectsAlways);
        say(&mut story);
        story.not_found_twice([40, 60]);
        assert_eq!(story.row().state, State::InFlight);
        story.tell(Input::Deadline, 180);
        story.not_found_twice([200, 220]);
        assert_eq!(story.row().state, State::InDoubt);
        story.check_replay();
    }
}

#[test]
fn row_8b_what_proves_nothing_writes_nothing() {
    let mut story = Story::in_flight(RejectsAlways);
    story.reply(accepted(), 1);
    let retry_after = Some(secs(9));
    for nothing in [
        QueryOutcome::NotAsked,
        QueryOutcome::Unavailable { retry_after },
        QueryOutcome::Throttled { retry_after },
        QueryOutcome::Banned { retry_after },
    ] {
        assert_eq!(story.report(1, nothing, 5), Some(Why::NoNews));
    }
    assert_eq!(story.report(1, QueryOutcome::InProgress, 5), Some(Why::Known));
    assert_eq!(story.report(1, QueryOutcome::ProviderUnknown, 5), Some(Why::NoNews));
    assert_eq!(story.report(2, found_delivered(), 5), Some(Why::NotApplicable));
    assert_eq!(story.report(0, found_delivered(), 5), Some(Why::NotApplicable));
}

#[test]
fn row_9_a_delivery_ends_the_order_by_reply_or_by_query() {
    let mut by_reply = Story::in_flight(RejectsAlways);
    by_reply.reply(delivered(), 4);
    let mut by_query = Story::in_flight(RejectsAlways);
    by_query.reply(timed_out(), 15);
    by_query.report(1, found_delivered(), 20);
    for story in [by_reply, by_query] {
        assert_eq!(story.stands(), (State::Succeeded, Some(AttemptState::Succeeded)));
        assert_eq!((story.row().sla, story.opened.len(), story.refunds.len()), (Some(Sla::Met), 0, 0));
        story.check_replay();
    }
}

#[test]
fn row_9_another_amount_than_ordered_is_delivered_and_a_case() {
    let mut story = Story::in_flight(RejectsAlways);
    let other = Money { minor: 1, ..story.row().amount };
    story.reply(SubmitOutcome::Succeeded(Receipt { delivered: Some(other), ..Receipt::default() }), 4);
    assert_eq!((story.row().state, &story.opened[..]), (State::Succeeded, &[CaseKind::AmountMismatch][..]));
}

#[test]
fn row_10_a_decline_that_may_pass_is_tried_again_under_a_new_reference() {
    let mut story = Story::in_flight(RejectsAlways);
    let busy = no(FailureClass::OperatorUnavailable, RetryAdvice::NewAttempt { after: secs(9) });
    story.reply(SubmitOutcome::Rejected(busy), 1);
    assert_eq!(story.stands(), (State::RetryWait, Some(AttemptState::Failed)));
    assert_eq!(story.row().declined, 1);
    assert!(story.row().wake_at >= Some(at(10)));
    story.claim(30);
    assert_eq!((story.attempt().number, story.attempt().client_ref.as_str()), (2, "order-1-2"));
}

#[test]
fn row_11_a_final_no_fails_and_refunds_and_so_does_the_last_attempt() {
    let mut barred = Story::in_flight(RejectsAlways);
    barred.reply(SubmitOutcome::Rejected(no(FailureClass::RecipientBarred, RetryAdvice::Never)), 1);
    assert_eq!((barred.row().reason, barred.refunds.len()), (Some(Reason::RecipientBarred), 1));
    let mut story = Story::in_flight(RejectsAlways);
    let mut held_until = None;
    for (second, claim) in [(1, 30), (31, 175), (176, 177)] {
        story.report(
            story.attempt().number,
            QueryOutcome::Failed(no(FailureClass::ProviderDeclared, TRY_AGAIN)),
            second,
        );
        held_until = story.row().wake_at.or(held_until);
        story.claim(claim);
    }
    assert!(held_until >= Some(at(31 + 143 * 8 / 10)), "the last attempt is held for the end: {held_until:?}");
    assert_eq!((story.row().reason, story.attempt().number), (Some(Reason::AttemptsExhausted), 3));
    let mut reversed = Story::in_flight(RejectsAlways);
    reversed.report(1, QueryOutcome::Reversed(Receipt::default()), 9);
    assert_eq!((reversed.row().state, reversed.row().reason), (State::Failed, Some(Reason::Reversed)));
}

#[test]
fn row_10_what_we_must_mend_costs_no_attempt_and_is_tried_ever_more_slowly_until_the_deadline() {
    let mut story = Story::in_flight(RejectsAlways);
    let (mut second, mut waits) = (0, Vec::new());
    while story.row().state == State::InFlight {
        story.reply(
            SubmitOutcome::Rejected(no(FailureClass::InsufficientFloat, RetryAdvice::AfterOperatorAction)),
            second,
        );
        let Some(wake_at) = story.row().wake_at else { break };
        waits.push((wake_at - at(second)).num_seconds());
        second = (wake_at - at(0)).num_seconds() + 1;
        story.claim(second);
    }
    assert_eq!((story.row().state, story.row().declined), (State::Failed, 0));
    assert!((4..12).contains(&waits.len()) && waits[3] > 2 * waits[0], "{waits:?}");
}

#[test]
fn row_12_a_conclusive_not_found_sends_the_same_reference_again() {
    let mut story = sent_again(60);
    assert_eq!(story.attempt().client_ref.as_str(), "order-1-1");
    assert!(story.attempt().inquiry.closed_by_not_found);
    story.reply(delivered(), 61);
    assert_eq!((story.row().state, story.opened.len()), (State::Succeeded, 0));
    story.check_replay();
}

#[test]
fn row_12_not_found_counts_only_late_enough_twice_and_after_the_last_send() {
    let mut story = Story::in_flight(RejectsAlways);
    story.reply(timed_out(), 15);
    assert_eq!(story.report(1, QueryOutcome::NotFound, 20), Some(Why::NoNews), "inside the grace");
    assert_eq!(story.report(1, QueryOutcome::NotFound, 21), None);
    assert_eq!(story.report(1, QueryOutcome::NotFound, 24), Some(Why::NoNews), "too close to the first");
    let future = Input::Reported { attempt: 1, asked_at: at(500), outcome: QueryOutcome::NotFound };
    assert_eq!(story.tell(future, 24), Some(Why::NoNews), "nobody asks in the future");
    story.reply(SubmitOutcome::NotSent(NotSentCause::WindowClosed), 24);
    story.claim(40);
    assert_eq!(story.report(1, QueryOutcome::NotFound, 61), None, "counts as the first");
    assert_eq!(story.row().state, State::InFlight);
    assert_eq!(story.report(1, QueryOutcome::NotFound, 66), None);
    assert_eq!(story.row().state, State::RetryWait);
    story.check_replay();
}

#[test]
fn row_12_a_late_reply_reaches_the_attempt_that_not_found_had_closed() {
    let lost = || {
        let mut story = Story::in_flight(RejectsAlways);
        story.tell(Input::CallerLost, 17);
        story.not_found_twice([40, 50]);
        story
    };
    let mut accepted_late = lost();
    accepted_late.reply(accepted(), 51);
    assert_eq!(accepted_late.stands(), (State::InFlight, Some(AttemptState::Accepted)));
    accepted_late.tell(Input::Deadline, 180);
    assert_eq!(accepted_late.row().state, State::InDoubt, "owned by the provider: no refund");
    let mut working = lost();
    working.report(1, QueryOutcome::InProgress, 51);
    assert_eq!(working.row().state, State::InFlight);
    let mut failed = lost();
    failed.report(1, QueryOutcome::Failed(no(FailureClass::ProviderDeclared, TRY_AGAIN)), 51);
    assert_eq!(failed.row().state, State::Failed);
    assert!(failed.has_open(CaseKind::FailedUnproven));
    let mut succeeded = lost();
    succeeded.reply(delivered(), 51);
    assert_eq!(succeeded.row().state, State::Succeeded);
    assert!(succeeded.has_open(CaseKind::ProviderFlipped));
}

#[test]
fn after_a_resend_the_first_sends_reply_counts_for_the_reference() {
    let mut story = sent_again(60);
    let first = Input::SubmitReply { attempt: 1, claim_id: super::story::claim_id(1), outcome: accepted() };
    story.tell(first, 61);
    assert_eq!(story.stands(), (State::InFlight, Some(AttemptState::Accepted)));
    for outcome in [
        SubmitOutcome::NotSent(NotSentCause::Connect),
        SubmitOutcome::Throttled { retry_after: None },
        SubmitOutcome::Rejected(no(FailureClass::InsufficientFloat, RetryAdvice::Never)),
    ] {
        assert_eq!(story.reply(outcome, 62), Some(Why::NoNews), "the provider owns the reference");
    }
    let delivered = Input::SubmitReply { attempt: 1, claim_id: super::story::claim_id(1), outcome: delivered() };
    story.tell(delivered, 63);
    assert_eq!((story.row().state, story.opened.len()), (State::Succeeded, 0));
}

#[test]
fn after_a_resend_a_duplicate_is_asked_about_and_only_a_verdict_closes_it() {
    let mut story = sent_again(60);
    story.reply(SubmitOutcome::Duplicate, 61);
    story.not_found_twice([100, 110]);
    assert_eq!(story.stands(), (State::InFlight, Some(AttemptState::Unknown)));
    story.report(1, QueryOutcome::Failed(no(FailureClass::ProviderDeclared, TRY_AGAIN)), 111);
    assert_eq!(story.row().state, State::Failed, "never a new reference");
    assert!(story.has_open(CaseKind::FailedUnproven));
}

#[test]
fn after_a_resend_not_found_closes_nothing_in_doubt() {
    let mut story = sent_again(150);
    story.reply(timed_out(), 165);
    story.tell(Input::Deadline, 180);
    story.not_found_twice([190, 200]);
    story.not_found_twice([210, 220]);
    assert_eq!(story.row().state, State::InDoubt);
    assert!(story.has_open(CaseKind::InDoubt));
}

#[test]
fn an_order_that_not_found_closed_once_fails_with_a_case() {
    let mut waiting = Story::in_flight(RejectsAlways);
    waiting.reply(timed_out(), 15);
    waiting.not_found_twice([40, 50]);
    let mut late = waiting.clone();
    waiting.tell(Input::Deadline, 180);
    late.claim(178);
    let mut found_late = Story::in_flight(RejectsAlways);
    found_late.reply(timed_out(), 15);
    found_late.not_found_twice([40, 177]);
    for story in [waiting, late, found_late] {
        assert_eq!((story.row().state, story.refunds.len()), (State::Failed, 1));
        assert!(story.has_open(CaseKind::FailedUnproven));
    }
}

#[test]
fn a_reference_closed_by_not_found_is_not_sent_to_a_provider_that_would_execute_it_twice() {
    let mut story = Story::in_flight(RejectsAlways);
    story.reply(timed_out(), 15);
    story.not_found_twice([40, 50]);
    story.policy = super::story::policy(NotDeduplicated);
    story.claim(60);
    assert_eq!((story.row().state, story.attempt().number), (State::Failed, 1));
    assert!(story.has_open(CaseKind::FailedUnproven));
}

#[test]
fn row_12b_where_a_second_send_is_not_safe_not_found_is_a_doubt() {
    for duplicates in [RejectsUnlessFailed, NotDeduplicated] {
        let mut story = Story::in_flight(duplicates);
        story.reply(timed_out(), 15);
        story.not_found_twice([40, 50]);
        assert_eq!((story.row().state, story.row().sla), (State::InDoubt, None));
        assert!(story.has_open(CaseKind::InDoubt));
        assert_eq!(story.report(1, QueryOutcome::NotFound, 60), Some(Why::NoNews), "it has until its deadline");
        story.tell(Input::Deadline, 180);
        assert_eq!(story.row().sla, Some(Sla::Missed), "counted at the deadline, though it is in doubt already");
        story.report(1, QueryOutcome::NotFound, 181);
        assert_eq!((story.row().state, story.refunds.len()), (State::Failed, 1));
        assert!(story.has_open(CaseKind::FailedUnproven));
        story.check_replay();
    }
}
