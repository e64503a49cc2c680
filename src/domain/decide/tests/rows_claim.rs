//! Rows 1–6 and 13 of the state table: arrival, payment, cancellation, claim, deadline.

use super::story::{Story, arrived, at, lane, new_order, no, paid, policy, secs, timed_out};
use crate::domain::decide::{Input, Why};
use crate::domain::*;

use DuplicateSemantics::{NotDeduplicated, RejectsAlways, RejectsUnlessFailed, ReplaysResult};

#[test]
fn row_1_a_paid_order_is_queued_and_asks_for_its_submit() {
    let story = Story::queued(RejectsAlways);
    assert_eq!(story.row().state, State::Queued);
    assert_eq!((story.row().deadline_at, story.last()), (at(180), EventType::Queued));
    let asked = story.follow_up.clone().unwrap();
    assert_eq!((asked.lane, asked.command.kind, asked.command.version), (lane(), CommandKind::Submit, 1));
    assert_eq!(story.log[0].data.facts.as_ref().unwrap().phone_hash.as_deref(), Some("hash"));
}

#[test]
fn row_1_an_unpaid_order_waits_for_its_payment_for_thirty_minutes() {
    let mut story = Story::new(policy(RejectsAlways));
    story.tell(arrived(new_order(None)), 0);
    assert_eq!((story.row().state, story.row().deadline_at), (State::AwaitingPayment, at(1800)));
    assert_eq!(story.tell(Input::Deadline, 1799), Some(Why::TooEarly));
    story.tell(Input::Deadline, 1800);
    assert_eq!((story.row().state, story.row().reason), (State::Cancelled, Some(Reason::Unpaid)));
    assert_eq!(story.refunds, []);
}

#[test]
fn row_1_a_shop_whose_clock_runs_ahead_does_not_buy_itself_time() {
    let mut story = Story::new(policy(RejectsAlways));
    story.tell(arrived(new_order(Some(at(7200)))), 0);
    assert_eq!((story.row().deadline_at, story.row().paid_at), (at(180), Some(at(7200))));
}

#[test]
fn row_1_no_configuration_and_no_date_brings_the_arithmetic_down() {
    for paid_at in [Timestamp::MIN_UTC, Timestamp::MAX_UTC] {
        for sla in [secs(0), secs(180), std::time::Duration::MAX] {
            let mut story =
                Story::new(Policy { sla, unpaid_timeout: sla, reconcile_within: sla, ..policy(RejectsAlways) });
            story.tell(arrived(NewOrder { created_at: paid_at, ..new_order(Some(paid_at)) }), 0);
            story.claim(1);
            story.tell(Input::Deadline, 300);
            assert!(story.order.is_some());
        }
    }
}

#[test]
fn row_2_the_same_order_again_is_known_and_another_payload_is_a_case_once() {
    let mut story = Story::queued(RejectsAlways);
    assert_eq!(story.tell(arrived(new_order(Some(at(0)))), 1), Some(Why::Known));
    let mut other = new_order(Some(at(0)));
    other.amount.minor = 1;
    story.tell(arrived(other.clone()), 2);
    assert_eq!((story.row().state, story.last()), (State::Queued, EventType::CaseOpened));
    assert_eq!(story.row().asked_version, 1, "the live command lives on");
    other.amount.minor = 2;
    assert_eq!(story.tell(arrived(other), 3), Some(Why::Known));
    assert_eq!(story.opened, [CaseKind::PayloadConflict]);
}

#[test]
fn row_2_the_same_order_again_but_paid_is_its_payment() {
    let mut story = Story::new(policy(RejectsAlways));
    story.tell(arrived(new_order(None)), 0);
    story.tell(arrived(new_order(Some(at(5)))), 6);
    assert_eq!((story.row().state, story.row().deadline_at), (State::Queued, at(185)));
    assert_eq!(story.row().payment_id.as_deref(), Some("pay-1"));
    story.check_replay();
}

#[test]
fn row_3_a_paid_order_that_nobody_can_serve_fails_at_once_and_is_refunded() {
    for reason in [Reason::InvalidPhone, Reason::AmountNotSupported, Reason::NoRoute] {
        let mut story = Story::new(policy(RejectsAlways));
        story.tell(Input::Arrived { new: Box::new(new_order(Some(at(0)))), verdict: Err(reason) }, 1);
        assert_eq!((story.row().state, story.row().reason), (State::Failed, Some(reason)));
        assert_eq!((story.refunds[0].reason, story.row().sla), (reason, Some(Sla::Met)));
    }
}

#[test]
fn row_3_an_order_that_arrives_after_its_deadline_fails_at_once_and_is_counted_as_missed() {
    let mut story = Story::new(policy(RejectsAlways));
    story.tell(arrived(new_order(Some(at(0)))), 180);
    assert_eq!((story.row().reason, story.row().sla), (Some(Reason::DeadlinePassed), Some(Sla::Missed)));
}

#[test]
fn a_payment_is_taken_once_and_a_second_one_is_a_case() {
    let mut story = Story::new(policy(RejectsAlways));
    story.tell(arrived(new_order(None)), 0);
    story.tell(paid(10, "pay-1"), 11);
    assert_eq!((story.row().state, story.row().deadline_at), (State::Queued, at(190)));
    assert_eq!(story.tell(paid(10, "pay-1"), 12), Some(Why::Known));
    story.tell(paid(12, "pay-2"), 13);
    assert_eq!((story.row().payment_id.as_deref(), story.last()), (Some("pay-1"), EventType::CaseOpened));
    assert_eq!(story.tell(paid(14, "pay-3"), 15), Some(Why::Known));
}

#[test]
fn a_payment_after_the_cancellation_is_refunded_once_and_never_recharged() {
    let mut story = Story::new(policy(RejectsAlways));
    story.tell(arrived(new_order(None)), 0);
    story.tell(Input::CancelRequested, 1);
    story.tell(paid(2, "pay-1"), 2);
    assert_eq!((story.row().state, story.row().reason), (State::Cancelled, Some(Reason::CancelledUpstream)));
    assert_eq!((story.refunds.len(), story.refunds[0].reason), (1, Reason::PaidAfterCancel));
    assert_eq!(story.tell(paid(2, "pay-1"), 3), Some(Why::Known));
    story.tell(paid(4, "pay-2"), 4);
    assert_eq!(story.opened, [CaseKind::PayloadConflict], "the second payment is for a person");
    story.claim(5);
    assert_eq!(story.row().state, State::Cancelled);
    story.check_replay();
}

#[test]
fn row_19_a_cancellation_after_payment_is_refused_once_however_often_it_comes() {
    let mut story = Story::queued(RejectsAlways);
    story.tell(Input::CancelRequested, 1);
    assert_eq!((story.last(), story.row().asked_version), (EventType::CancelRefused, 1));
    for second in 2..50 {
        assert_eq!(story.tell(Input::CancelRequested, second), Some(Why::Known));
    }
    story.check_replay();
}

#[test]
fn row_5_a_claim_is_recorded_with_its_reference_before_anything_is_sent() {
    let mut story = Story::queued(RejectsAlways);
    let claim_id = story.claim(3);
    assert_eq!(story.stands(), (State::InFlight, Some(AttemptState::Sent)));
    let attempt = story.attempt();
    assert_eq!((attempt.claim_id, attempt.claimed_at, attempt.client_ref.as_str()), (claim_id, at(3), "order-1-1"));
    assert_eq!(story.tell(Input::Claim { claim_id }, 3), Some(Why::Overtaken), "nor twice");
    story.check_replay();
}

#[test]
fn row_5_a_claim_that_cannot_end_in_time_fails_the_order_early() {
    let mut story = Story::queued(RejectsAlways);
    story.claim(176);
    assert_eq!((story.row().state, story.row().reason), (State::Failed, Some(Reason::DeadlineUnreachable)));
    assert_eq!((story.row().sla, story.refunds.len()), (Some(Sla::Met), 1));
}

#[test]
fn row_5_a_claim_before_its_time_waits_and_one_after_the_deadline_fails() {
    let mut story = Story::in_flight(RejectsAlways);
    story.reply(SubmitOutcome::Throttled { retry_after: Some(secs(60)) }, 1);
    let claim_id = super::story::claim_id(77);
    assert_eq!(story.tell(Input::Claim { claim_id }, 60), Some(Why::TooEarly));
    story.claim(180);
    assert_eq!((story.row().reason, story.row().sla), (Some(Reason::DeadlinePassed), Some(Sla::Missed)));
}

#[test]
fn a_lane_that_is_no_longer_configured_strands_no_order() {
    let gone = || Policy { providers: std::collections::HashMap::new(), ..policy(NotDeduplicated) };
    let mut queued = Story::queued(NotDeduplicated);
    queued.policy = gone();
    queued.claim(1);
    assert_eq!(queued.row().reason, Some(Reason::NoRoute));

    let no_effect = [SubmitOutcome::NotSent(NotSentCause::Connect), SubmitOutcome::Throttled { retry_after: None }];
    let refused = SubmitOutcome::Rejected(no(FailureClass::OperatorUnavailable, super::story::TRY_AGAIN));
    for outcome in no_effect.into_iter().chain([refused]) {
        let mut story = Story::in_flight(NotDeduplicated);
        story.policy = gone();
        story.reply(outcome, 1);
        assert_eq!((story.row().state, story.refunds.len()), (State::Failed, 1));
    }
    let mut unknown = Story::in_flight(NotDeduplicated);
    unknown.policy = gone();
    unknown.reply(timed_out(), 1);
    unknown.not_found_twice([100, 110]);
    assert_eq!(unknown.row().state, State::InFlight, "nobody can say what these are worth");
    unknown.tell(Input::Deadline, 180);
    assert!(unknown.has_open(CaseKind::InDoubt));
}

#[test]
fn row_6_what_was_not_sent_goes_again_under_the_same_reference_where_that_is_safe() {
    for (duplicates, same) in
        [(RejectsAlways, true), (ReplaysResult, true), (RejectsUnlessFailed, false), (NotDeduplicated, false)]
    {
        for outcome in
            [SubmitOutcome::NotSent(NotSentCause::Connect), SubmitOutcome::Throttled { retry_after: Some(secs(7)) }]
        {
            let mut story = Story::in_flight(duplicates);
            let waits = matches!(outcome, SubmitOutcome::Throttled { .. });
            story.reply(outcome, 1);
            let kept = if same { AttemptState::Prepared } else { AttemptState::NotExecuted };
            assert_eq!(story.stands(), (State::RetryWait, Some(kept)));
            assert!(story.row().wake_at.unwrap() >= at(if waits { 8 } else { 2 }));
            assert_eq!(story.row().declined, 0, "it costs no attempt");
            story.claim(30);
            assert_eq!(story.attempt().number, if same { 1 } else { 2 });
            story.check_replay();
        }
    }
}

#[test]
fn row_6_a_wait_that_does_not_fit_fails_the_order_now() {
    let mut story = Story::in_flight(RejectsAlways);
    story.reply(SubmitOutcome::Throttled { retry_after: Some(secs(600)) }, 1);
    assert_eq!((story.row().state, story.row().reason), (State::Failed, Some(Reason::DeadlineUnreachable)));
}

#[test]
fn row_6_a_request_that_cannot_be_built_is_not_tried_again() {
    let mut story = Story::in_flight(RejectsAlways);
    story.reply(SubmitOutcome::NotSent(NotSentCause::Unbuildable), 1);
    assert_eq!((story.row().state, story.row().reason), (State::Failed, Some(Reason::NoRoute)));
}

#[test]
fn row_6_no_effect_counts_only_for_the_claim_that_had_none() {
    let mut story = Story::in_flight(RejectsAlways);
    let first = story.attempt().claim_id;
    let outcome = SubmitOutcome::NotSent(NotSentCause::Connect);
    story.reply(outcome.clone(), 1);
    story.claim(10);
    for outcome in [
        outcome,
        SubmitOutcome::Throttled { retry_after: None },
        SubmitOutcome::Rejected(no(FailureClass::ProviderDeclared, RetryAdvice::Never)),
        timed_out(),
    ] {
        let again = Input::SubmitReply { attempt: 1, claim_id: first, outcome };
        assert_eq!(story.tell(again, 11), Some(Why::Overtaken));
    }
    assert_eq!(story.stands(), (State::InFlight, Some(AttemptState::Sent)));
}

#[test]
fn row_6_a_reference_does_not_change_when_its_format_is_configured_anew() {
    let mut story = Story::in_flight(RejectsAlways);
    story.reply(SubmitOutcome::NotSent(NotSentCause::Connect), 1);
    if let Some(provider) = story.policy.providers.get_mut(&lane()) {
        provider.capabilities.client_ref.alphanumeric_only = true;
    }
    story.claim(10);
    assert_eq!(story.attempt().client_ref.as_str(), "order-1-1");
    story.check_replay();
}

#[test]
fn attempt_numbers_end_before_they_wrap_to_a_used_reference() {
    let mut story = Story::in_flight(NotDeduplicated);
    story.reply(SubmitOutcome::NotSent(NotSentCause::NoPermit), 1);
    story.order.as_mut().unwrap().attempt.as_mut().unwrap().number = u16::MAX;
    story.claim(20);
    assert_eq!((story.row().state, story.row().reason), (State::Failed, Some(Reason::AttemptsExhausted)));
}

#[test]
fn row_13_the_deadline_fails_and_refunds_what_has_nothing_open() {
    let mut queued = Story::queued(RejectsAlways);
    assert_eq!(queued.tell(Input::Deadline, 179), Some(Why::TooEarly));
    queued.tell(Input::Deadline, 180);
    assert_eq!((queued.row().reason, queued.row().sla), (Some(Reason::DeadlinePassed), Some(Sla::Missed)));
    let mut waiting = Story::in_flight(RejectsAlways);
    waiting.reply(SubmitOutcome::NotSent(NotSentCause::Connect), 1);
    waiting.tell(Input::Deadline, 180);
    assert_eq!((waiting.row().state, waiting.refunds.len(), waiting.opened.len()), (State::Failed, 1, 0));
}
