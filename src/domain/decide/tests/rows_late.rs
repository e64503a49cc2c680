//! Rows 14–21 of the state table: the deadline, people, and what comes after the end.

use super::story::{Story, TRY_AGAIN, arrived, at, delivered, found_delivered, new_order, no, policy, secs, timed_out};
use crate::domain::decide::{Input, Why};
use crate::domain::*;

use DuplicateSemantics::{NotDeduplicated, RejectsAlways};

fn in_doubt() -> Story {
    let mut story = Story::in_flight(RejectsAlways);
    story.reply(timed_out(), 15);
    story.tell(Input::Deadline, 180);
    story
}

/// Attempt 1 was called failed; attempt 2 is in flight.
fn second_attempt() -> Story {
    let mut story = Story::in_flight(RejectsAlways);
    story.reply(SubmitOutcome::Rejected(no(FailureClass::OperatorUnavailable, TRY_AGAIN)), 1);
    story.claim(20);
    assert_eq!((story.row().state, story.attempt().number), (State::InFlight, 2));
    story
}

fn failed_now() -> QueryOutcome {
    QueryOutcome::Failed(no(FailureClass::ProviderDeclared, TRY_AGAIN))
}

#[test]
fn row_14_the_deadline_with_an_open_attempt_is_a_doubt_with_a_case_and_no_refund() {
    let mut story = in_doubt();
    assert_eq!((story.row().sla, story.refunds.len()), (Some(Sla::Missed), 0));
    assert!(story.has_open(CaseKind::InDoubt));
    assert_eq!(story.follow_up.clone().unwrap().command.kind, CommandKind::Query);
    assert_eq!(story.tell(Input::Deadline, 181), Some(Why::Known));
    story.check_replay();
}

#[test]
fn row_14_a_miss_stays_a_miss_when_the_clock_steps_back_before_the_end() {
    let mut story = in_doubt();
    story.report(1, found_delivered(), 179);
    assert_eq!((story.row().state, story.row().sla), (State::Succeeded, Some(Sla::Missed)));
}

#[test]
fn row_14_the_policy_may_refund_the_doubt_and_says_so_when_it_was_delivered_after_all() {
    let mut story = Story::in_flight(RejectsAlways);
    story.policy.on_unknown = OnUnknown::RefundFlagged;
    story.reply(timed_out(), 15);
    story.tell(Input::Deadline, 180);
    assert_eq!((story.row().state, story.refunds.len()), (State::InDoubt, 1));
    let mut failed = story.clone();
    failed.report(1, failed_now(), 200);
    assert_eq!((failed.row().state, failed.refunds.len()), (State::Failed, 1), "refunded once");
    story.report(1, found_delivered(), 200);
    assert_eq!(story.row().state, State::Succeeded);
    assert!(story.has_open(CaseKind::LateSuccess), "money and credit: somebody must hear of it");
    story.check_replay();
}

#[test]
fn row_14_a_doubt_from_before_the_deadline_is_refunded_at_the_deadline_where_the_policy_says_so() {
    let mut story = Story::in_flight(NotDeduplicated);
    story.policy.on_unknown = OnUnknown::RefundFlagged;
    story.reply(timed_out(), 15);
    story.not_found_twice([40, 50]);
    assert_eq!((story.row().state, story.refunds.len()), (State::InDoubt, 0));
    let asked = story.row().asked_version;
    story.tell(Input::Deadline, 180);
    assert_eq!((story.refunds.len(), story.row().asked_version), (1, asked));
    assert_eq!(story.tell(Input::Deadline, 181), Some(Why::Known));
}

#[test]
fn row_15_in_doubt_a_conclusive_not_found_fails_refunds_and_leaves_a_case() {
    let mut story = in_doubt();
    story.not_found_twice([200, 210]);
    assert_eq!(story.stands(), (State::Failed, Some(AttemptState::NotExecuted)));
    assert_eq!((story.row().reason, story.refunds.len()), (Some(Reason::DeadlinePassed), 1));
    assert!(!story.has_open(CaseKind::InDoubt) && story.has_open(CaseKind::FailedUnproven));
    story.check_replay();
}

#[test]
fn row_15_the_case_of_a_refund_on_not_found_is_closed_by_the_providers_last_word() {
    // A day is remembered; the last question comes an hour before it is over.
    let last = 86_400 - 3_600;
    let mut story = in_doubt();
    story.not_found_twice([200, 210]);
    let command = story.follow_up.clone().unwrap().command;
    assert_eq!((command.kind, command.wake_at), (CommandKind::Query, Some(at(last))));
    assert_eq!(story.report(1, QueryOutcome::NotFound, 5_000), Some(Why::Known), "not yet the end");
    let mut late = story.clone();
    story.report(1, QueryOutcome::NotFound, last);
    assert_eq!((story.row().state, story.last()), (State::Failed, EventType::CaseResolved));
    assert!(!story.has_open(CaseKind::FailedUnproven) && story.row().wake_at.is_none());
    assert_eq!(story.report(1, QueryOutcome::NotFound, last + 1), Some(Why::Known));
    story.check_replay();
    late.report(1, found_delivered(), last);
    assert!(late.has_open(CaseKind::FailedUnproven) && late.has_open(CaseKind::LateSuccess));
}

#[test]
fn in_doubt_the_providers_word_ends_it_and_nothing_is_tried_again() {
    let mut delivered = in_doubt();
    delivered.report(1, found_delivered(), 300);
    assert_eq!((delivered.row().state, delivered.row().sla), (State::Succeeded, Some(Sla::Missed)));
    let mut failed = in_doubt();
    failed.report(1, failed_now(), 300);
    assert_eq!((failed.row().state, failed.refunds.len()), (State::Failed, 1));
    let mut not_sent = Story::in_flight(RejectsAlways);
    not_sent.tell(Input::Deadline, 180);
    not_sent.reply(SubmitOutcome::NotSent(NotSentCause::WindowClosed), 181);
    assert_eq!((not_sent.row().state, not_sent.row().reason), (State::Failed, Some(Reason::DeadlinePassed)));
    for story in [delivered, failed, not_sent] {
        assert!(!story.has_open(CaseKind::InDoubt));
    }
}

#[test]
fn row_16_a_person_settles_a_doubt_and_nothing_else() {
    let word = |succeeded| Input::Resolved { succeeded, by: "duty".to_owned(), evidence: "x".repeat(5000) };
    assert_eq!(Story::in_flight(RejectsAlways).tell(word(true), 5), Some(Why::NotApplicable));
    let mut written_off = in_doubt();
    written_off.tell(word(false), 900);
    assert_eq!(written_off.stands(), (State::Failed, Some(AttemptState::WrittenOff)));
    assert_eq!(written_off.refunds[0].reason, Reason::ResolvedByOperator);
    let decided = written_off.log.last().unwrap().data.decided_by.clone().unwrap();
    assert_eq!((decided.name.as_str(), decided.evidence.len()), ("duty", 1000));
    let mut settled = in_doubt();
    settled.tell(word(true), 900);
    assert_eq!(settled.stands(), (State::Succeeded, Some(AttemptState::Succeeded)));
}

#[test]
fn a_person_closes_a_case_that_leaves_its_order_as_it_is() {
    let close = |kind| Input::CaseClosed { kind, by: "duty".to_owned(), evidence: "mail".to_owned() };
    let mut story = in_doubt();
    assert_eq!(story.tell(close(CaseKind::InDoubt), 200), Some(Why::NotApplicable), "that is for its outcome to end");
    assert_eq!(story.tell(close(CaseKind::LateSuccess), 200), Some(Why::NotApplicable), "there is none");
    story.report(1, failed_now(), 200);
    story.report(1, found_delivered(), 260);
    assert!(story.has_open(CaseKind::LateSuccess));
    let before = story.stands();
    story.tell(close(CaseKind::LateSuccess), 300);
    assert_eq!((story.stands(), story.last()), (before, EventType::CaseResolved));
    assert!(!story.has_open(CaseKind::LateSuccess));
    let event = story.log.last().unwrap();
    assert_eq!(event.data.cause.as_deref(), Some("late_success"));
    assert_eq!(event.data.decided_by.as_ref().map(|by| by.name.as_str()), Some("duty"));
}

#[test]
fn row_17_a_success_after_the_failure_is_a_case_and_changes_nothing() {
    let mut story = in_doubt();
    story.report(1, failed_now(), 200);
    story.report(1, found_delivered(), 400);
    assert_eq!((story.row().state, story.last()), (State::Failed, EventType::CaseOpened));
    assert!(story.has_open(CaseKind::LateSuccess));
    assert_eq!(story.report(1, found_delivered(), 500), Some(Why::Known));
}

#[test]
fn row_18_a_failure_or_a_reversal_after_the_success_is_a_case_and_changes_nothing() {
    let mut story = Story::in_flight(RejectsAlways);
    story.reply(delivered(), 4);
    story.report(1, failed_now(), 5);
    story.report(1, QueryOutcome::Reversed(Receipt::default()), 6);
    assert_eq!(story.opened, [CaseKind::Conflict, CaseKind::ReversedAfterSuccess]);
    assert_eq!(story.report(1, failed_now(), 7), Some(Why::Known));
    assert_eq!((story.row().state, story.refunds.len()), (State::Succeeded, 0));
    story.check_replay();
}

#[test]
fn row_22_what_a_list_says_against_a_delivery_is_a_case_once_and_changes_nothing() {
    let dispute = |attempt, dispute| Input::Disputed { attempt, dispute };
    let amount = |minor| Dispute::Amount(Money { minor, currency: Currency::parse("CNY").unwrap() });
    let mut story = Story::in_flight(RejectsAlways);
    assert_eq!(story.tell(dispute(1, Dispute::NotListed), 3), Some(Why::NotApplicable), "its own questions settle it");
    story.reply(delivered(), 4);
    assert_eq!(story.tell(dispute(2, Dispute::NotListed), 5), Some(Why::NotApplicable), "there is no such attempt");
    assert_eq!(story.tell(dispute(1, amount(5000)), 6), Some(Why::Known), "the amount that was ordered");
    let before = story.row().clone();
    story.tell(dispute(1, Dispute::NotListed), 7);
    story.tell(dispute(1, amount(1000)), 8);
    assert_eq!(story.opened, [CaseKind::Conflict, CaseKind::AmountMismatch]);
    assert_eq!(story.tell(dispute(1, Dispute::NotListed), 9), Some(Why::Known));
    assert_eq!(story.tell(dispute(1, amount(2000)), 10), Some(Why::Known), "a case of its kind was there");
    let after = Order { version: before.version, cases: before.cases, ..story.row().clone() };
    assert_eq!((after, story.refunds.len()), (before, 0));
    story.check_replay();
    let mut failed = in_doubt();
    failed.report(1, failed_now(), 200);
    assert_eq!(failed.tell(dispute(1, Dispute::NotListed), 300), Some(Why::NotApplicable), "as it should be");
}

#[test]
fn row_20_a_lost_caller_leaves_the_attempt_unknown_and_its_late_reply_still_counts() {
    let mut story = Story::in_flight(RejectsAlways);
    story.tell(Input::CallerLost, 17);
    assert_eq!(story.stands(), (State::InFlight, Some(AttemptState::Unknown)));
    assert_eq!(story.tell(Input::CallerLost, 18), Some(Why::NotApplicable));
    let mut not_sent = story.clone();
    story.reply(delivered(), 19);
    assert_eq!(story.row().state, State::Succeeded);
    not_sent.reply(SubmitOutcome::NotSent(NotSentCause::WindowClosed), 19);
    assert_eq!(not_sent.stands(), (State::RetryWait, Some(AttemptState::Prepared)));
}

#[test]
fn row_21_an_older_attempt_that_was_delivered_after_all_ends_the_order_with_a_case() {
    let mut story = second_attempt();
    let late = Input::SubmitReply { attempt: 1, claim_id: super::story::claim_id(1), outcome: delivered() };
    story.tell(late.clone(), 21);
    assert_eq!(story.stands(), (State::Succeeded, Some(AttemptState::Sent)));
    assert!(story.has_open(CaseKind::ProviderFlipped));
    assert_eq!(story.tell(late, 22), Some(Why::Known));
    story.report(1, failed_now(), 23);
    assert!(story.has_open(CaseKind::Conflict), "it is the older one that counts");
    story.check_replay();
}

#[test]
fn row_21_the_newer_attempt_ends_quietly_or_as_a_double_success() {
    let ends = [
        (SubmitOutcome::NotSent(NotSentCause::Connect), AttemptState::NotExecuted),
        (SubmitOutcome::Throttled { retry_after: None }, AttemptState::NotExecuted),
        (SubmitOutcome::Rejected(no(FailureClass::LimitReached, TRY_AGAIN)), AttemptState::Failed),
        (timed_out(), AttemptState::Unknown),
        (SubmitOutcome::Accepted { provider_ref: None }, AttemptState::Accepted),
        (delivered(), AttemptState::Succeeded),
    ];
    for (outcome, ended) in ends {
        let mut story = second_attempt();
        story.report(1, found_delivered(), 21);
        let is_double = outcome == delivered();
        story.reply(outcome, 22);
        assert_eq!(story.stands(), (State::Succeeded, Some(ended)));
        assert_eq!(story.has_open(CaseKind::DoubleSuccess), is_double);
        story.report(2, QueryOutcome::NotFound, 100);
        story.report(2, QueryOutcome::InProgress, 100);
        story.report(2, failed_now(), 101);
        story.report(2, found_delivered(), 102);
        assert!(story.has_open(CaseKind::DoubleSuccess), "even after the provider called it failed");
        assert_eq!((story.row().state, story.refunds.len()), (State::Succeeded, 0));
        story.check_replay();
    }
}

#[test]
fn row_21_a_third_delivery_is_not_taken_for_a_repeat_of_the_first() {
    let mut story = second_attempt();
    story.reply(SubmitOutcome::Rejected(no(FailureClass::OperatorUnavailable, TRY_AGAIN)), 21);
    story.claim(60);
    story.report(1, found_delivered(), 61);
    assert_eq!(story.report(1, found_delivered(), 62), Some(Why::Known));
    assert_eq!(story.report(2, found_delivered(), 63), None);
    assert!(story.has_open(CaseKind::DoubleSuccess));
    story.check_replay();
}

#[test]
fn a_cooldown_on_a_later_attempt_is_a_doubt_about_the_earlier_one() {
    let cooldown = no(FailureClass::CooldownActive, RetryAdvice::Never);
    let by_reply = SubmitOutcome::Rejected(cooldown.clone());
    let by_query = QueryOutcome::Failed(cooldown.clone());
    let mut replied = second_attempt();
    replied.reply(by_reply.clone(), 21);
    let mut asked = second_attempt();
    asked.reply(timed_out(), 21);
    asked.report(2, by_query.clone(), 25);
    for mut story in [replied, asked] {
        assert_eq!(story.stands(), (State::InDoubt, Some(AttemptState::Unknown)));
        assert_eq!(story.log.last().unwrap().data.cause.as_deref(), Some("E-cooldown_active"));
        assert!(story.has_open(CaseKind::InDoubt));
        for second in 30..40 {
            assert_eq!(story.report(2, by_query.clone(), second), Some(Why::NoNews), "no loop");
        }
        story.tell(Input::Deadline, 180);
        assert_eq!(story.report(2, failed_now(), 190), Some(Why::NoNews), "it says nothing of the earlier one");
        story.not_found_twice([200, 300]);
        assert_eq!((story.row().state, story.refunds.len()), (State::InDoubt, 0));
        story.report(1, found_delivered(), 400);
        assert_eq!((story.row().state, story.refunds.len()), (State::Succeeded, 0));
        story.check_replay();
    }
    let mut first = Story::in_flight(RejectsAlways);
    first.reply(by_reply, 1);
    assert_eq!(first.row().reason, Some(Reason::ProviderDeclined), "on the first attempt it speaks of another order");
}

#[test]
fn a_cooldown_speaks_of_another_order_where_no_earlier_attempt_has_reached_the_provider() {
    let cooldown = |advice| SubmitOutcome::Rejected(no(FailureClass::CooldownActive, advice));
    let without_effect = [
        SubmitOutcome::NotSent(NotSentCause::Connect),
        SubmitOutcome::Throttled { retry_after: None },
        SubmitOutcome::Rejected(no(FailureClass::InsufficientFloat, RetryAdvice::AfterOperatorAction)),
    ];
    for outcome in without_effect {
        // The reference cannot be sent again, so the number rises.
        let mut story = Story::in_flight(NotDeduplicated);
        story.reply(outcome, 1);
        story.claim(10);
        assert_eq!((story.attempt().number, story.row().declined), (2, 0));
        story.reply(cooldown(RetryAdvice::NewAttempt { after: secs(60) }), 11);
        assert_eq!((story.row().state, story.opened.len()), (State::RetryWait, 0), "no doubt for a person");
        assert!(story.row().wake_at >= Some(at(71)));
        story.check_replay();
    }
    // Without advice, what the provider's contract says about the number counts.
    let mut policy = policy(RejectsAlways);
    policy.providers.values_mut().for_each(|own| own.capabilities.same_number_cooldown = Some(secs(90)));
    for (second, wanted) in [(1, State::RetryWait), (120, State::Failed)] {
        let mut story = Story::new(policy.clone());
        story.tell(arrived(new_order(Some(at(0)))), 0);
        story.claim(second);
        story.reply(cooldown(RetryAdvice::Never), second + 1);
        assert_eq!(story.row().state, wanted, "a wait until {}", second + 91);
    }
}

#[test]
fn a_cooldown_on_a_resend_speaks_of_the_first_send_and_is_asked_about() {
    let mut story = Story::in_flight(RejectsAlways);
    story.reply(timed_out(), 15);
    story.not_found_twice([40, 50]);
    story.claim(51);
    story.reply(SubmitOutcome::Rejected(no(FailureClass::CooldownActive, RetryAdvice::Never)), 52);
    assert_eq!(story.stands(), (State::InFlight, Some(AttemptState::Unknown)));
    story.report(1, found_delivered(), 60);
    assert_eq!((story.row().state, story.row().closed_at), (State::Succeeded, Some(at(60))));
}
