//! Orders that may go on in another lane.

use std::sync::Arc;

use super::story::{Story, TRY_AGAIN, arrived, at, found_delivered, lane, new_order, no, policy, secs, timed_out};
use crate::domain::decide::{Input, Why};
use crate::domain::route::{Lane, Route, RouteTable};
use crate::domain::*;

use DuplicateSemantics::{NotDeduplicated, RejectsAlways};
use FailureClass::{
    AmountNotAllowed, AuthOrConfig, CooldownActive, InsufficientFloat, InvalidRecipient, LimitReached,
    OperatorUnavailable, ProviderDeclared, RecipientBarred,
};

fn second() -> ProviderId {
    ProviderId::new("second")
}

/// Two lanes, the second of which may be slower.
fn two_lanes(duplicates: DuplicateSemantics) -> Policy {
    let mut policy = policy(duplicates);
    let own = policy.providers.values().next().unwrap().clone();
    policy.providers.insert(second(), own);
    let lanes = [lane(), second()].map(|id| Lane { id, products: Vec::new(), sells_anything: true });
    policy.routes = Arc::new(RouteTable::new(vec![Route::everything(lanes.into())]));
    policy
}

fn in_flight(duplicates: DuplicateSemantics) -> Story {
    let mut story = Story::new(two_lanes(duplicates));
    story.tell(arrived(new_order(Some(at(0)))), 0);
    story.claim(0);
    story
}

fn refused(class: FailureClass, advice: RetryAdvice) -> Story {
    let mut story = in_flight(RejectsAlways);
    story.reply(SubmitOutcome::Rejected(no(class, advice)), 1);
    story
}

#[test]
fn what_a_provider_refuses_for_a_reason_of_its_own_the_next_one_is_asked_for_at_once() {
    let never = RetryAdvice::Never;
    for (class, advice, declined) in [
        (AmountNotAllowed, never, 1),
        (LimitReached, never, 1),
        (ProviderDeclared, never, 1),
        (OperatorUnavailable, TRY_AGAIN, 1),
        (InsufficientFloat, RetryAdvice::AfterOperatorAction, 0),
        (AuthOrConfig, RetryAdvice::AfterOperatorAction, 0),
    ] {
        let mut story = refused(class, advice);
        assert_eq!((story.row().state, story.row().wake_at), (State::RetryWait, Some(at(1))), "{class}");
        assert_eq!((story.row().provider.clone(), story.row().declined), (Some(second()), declined), "{class}");
        assert_eq!(story.attempt().state, AttemptState::Failed);
        let asked = story.follow_up.clone().unwrap();
        assert_eq!((asked.lane, asked.command.kind, asked.command.attempt), (second(), CommandKind::Submit, 1));
        story.claim(2);
        assert_eq!((story.row().state, story.attempt().number), (State::InFlight, 2));
        // The last lane of the route: nothing comes after it but its own retries.
        story.reply(SubmitOutcome::Rejected(no(ProviderDeclared, never)), 3);
        assert_eq!(story.row().state, State::Failed);
        story.check_replay();
    }
}

#[test]
fn what_is_about_the_number_or_may_speak_of_an_earlier_recharge_is_tried_nowhere_else() {
    for class in [InvalidRecipient, RecipientBarred, CooldownActive] {
        let story = refused(class, RetryAdvice::Never);
        assert_eq!(story.row().provider, Some(lane()), "{class}");
    }
}

#[test]
fn an_outcome_that_is_not_known_keeps_an_order_where_it_is() {
    let mut story = in_flight(RejectsAlways);
    story.reply(timed_out(), 15);
    assert_eq!((story.row().provider.clone(), story.attempt().state), (Some(lane()), AttemptState::Unknown));
    story.policy.shut = vec![lane()];
    assert_eq!(story.tell(Input::LaneShut, 16), Some(Why::Overtaken));
    // Found by nobody twice: it is sent again under the same reference, and nowhere else.
    story.report(1, QueryOutcome::NotFound, 30);
    story.report(1, QueryOutcome::NotFound, 60);
    assert_eq!(story.row().state, State::RetryWait);
    assert_eq!(story.tell(Input::LaneShut, 61), Some(Why::NotApplicable));
    assert_eq!(story.row().provider, Some(lane()));
}

#[test]
fn a_provider_that_cannot_be_reached_passes_its_orders_on_and_one_that_is_at_its_pace_keeps_them() {
    let mut story = in_flight(RejectsAlways);
    story.reply(SubmitOutcome::NotSent(NotSentCause::Connect), 1);
    assert_eq!((story.row().provider.clone(), story.attempt().state), (Some(second()), AttemptState::NotExecuted));
    assert_eq!(story.row().declined, 0, "nothing was declined");
    for outcome in [SubmitOutcome::NotSent(NotSentCause::NoPermit), SubmitOutcome::Throttled { retry_after: None }] {
        let mut story = in_flight(RejectsAlways);
        story.reply(outcome, 1);
        assert_eq!((story.row().provider.clone(), story.attempt().state), (Some(lane()), AttemptState::Prepared));
    }
    // It would have it wait beyond the deadline.
    let mut story = in_flight(RejectsAlways);
    story.reply(SubmitOutcome::Throttled { retry_after: Some(secs(600)) }, 1);
    assert_eq!(story.row().provider, Some(second()));
}

#[test]
fn an_order_that_waits_in_a_lane_that_is_shut_goes_on_in_the_next_one() {
    let mut story = Story::new(two_lanes(NotDeduplicated));
    story.tell(arrived(new_order(Some(at(0)))), 0);
    story.policy.shut = vec![lane()];
    assert_eq!(story.tell(Input::LaneShut, 5), None);
    assert_eq!((story.row().state, story.row().provider.clone()), (State::Queued, Some(second())));
    let asked = story.follow_up.clone().unwrap();
    assert_eq!((asked.lane, asked.command.version), (second(), story.row().version));
    assert_eq!(story.tell(Input::LaneShut, 6), Some(Why::NotApplicable), "behind the last there is none");
    story.claim(7);
    story.reply(SubmitOutcome::NotSent(NotSentCause::WindowClosed), 8);
    assert_eq!(story.row().state, State::RetryWait);
    story.check_replay();
}

#[test]
fn a_number_that_cools_down_beyond_the_deadline_is_a_no_of_this_lane_alone() {
    let cools = |until| Input::NumberCools { until: at(until) };
    let fresh = || {
        let mut story = Story::new(two_lanes(RejectsAlways));
        story.tell(arrived(new_order(Some(at(0)))), 0);
        story
    };
    let service = i64::try_from(fresh().policy.providers[&lane()].expected_service.as_secs()).unwrap();
    let mut story = fresh();
    assert_eq!(story.tell(cools(180 - service), 5), Some(Why::TooEarly), "a call can still end in time here");
    assert_eq!(story.tell(cools(181 - service), 5), None);
    assert_eq!((story.row().state, story.row().provider.clone()), (State::Queued, Some(second())));
    assert_eq!(story.log.last().unwrap().data.cause.as_deref(), Some("number_cools"));
    assert_eq!(story.tell(cools(300), 6), Some(Why::NotApplicable), "behind the last there is none");
    story.check_replay();
    // Nobody knows what became of its first send: it stays where it is.
    let mut unknown = in_flight(RejectsAlways);
    unknown.reply(timed_out(), 15);
    assert_eq!(unknown.tell(cools(300), 16), Some(Why::Overtaken));
    unknown.report(1, QueryOutcome::NotFound, 30);
    unknown.report(1, QueryOutcome::NotFound, 60);
    assert_eq!(unknown.row().state, State::RetryWait);
    assert_eq!(unknown.tell(cools(300), 61), Some(Why::NotApplicable));
    // One that was at its pace has done nothing.
    let mut throttled = in_flight(RejectsAlways);
    throttled.reply(SubmitOutcome::Throttled { retry_after: None }, 1);
    assert_eq!(throttled.attempt().state, AttemptState::Prepared);
    assert_eq!(throttled.tell(cools(300), 2), None);
    assert_eq!(
        (throttled.attempt().state, throttled.row().provider.clone()),
        (AttemptState::NotExecuted, Some(second()))
    );
    throttled.check_replay();
}

#[test]
fn no_order_goes_to_a_lane_that_is_shut_too_or_that_would_be_too_late() {
    let mut story = refused(OperatorUnavailable, TRY_AGAIN);
    assert_eq!(story.row().provider, Some(second()));
    let mut shut = in_flight(RejectsAlways);
    shut.policy.shut = vec![second()];
    shut.reply(SubmitOutcome::Rejected(no(OperatorUnavailable, TRY_AGAIN)), 1);
    assert_eq!(shut.row().provider, Some(lane()), "it is tried again where it is");
    let mut late = in_flight(RejectsAlways);
    late.policy.providers.get_mut(&second()).unwrap().expected_service = secs(120);
    late.reply(SubmitOutcome::Rejected(no(ProviderDeclared, RetryAdvice::Never)), 70);
    assert_eq!(late.row().state, State::Failed, "a call there could not end in time");
    // The first was delivered after all: the order succeeds, and a person hears of the second.
    story.claim(2);
    story.report(1, found_delivered(), 3);
    assert_eq!(story.row().state, State::Succeeded);
    assert!(story.has_open(CaseKind::ProviderFlipped));
    story.check_replay();
}
