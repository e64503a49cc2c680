//! What is made of a callback that proves nothing.

use std::time::Duration;

use super::story::{Story, TRY_AGAIN, at, delivered, found_delivered, no, policy, timed_out};
use crate::domain::decide::{Input, Why};
use crate::domain::inquiry::{Hastened, hastened};
use crate::domain::*;

use DuplicateSemantics::RejectsAlways;

fn failed() -> QueryOutcome {
    QueryOutcome::Failed(no(FailureClass::ProviderDeclared, TRY_AGAIN))
}

const UNREADABLE: QueryOutcome = QueryOutcome::Unavailable { retry_after: None };

/// What becomes of "delivered", "failed" and something that cannot be read, about an attempt.
fn heeded(story: &Story, attempt: u16) -> [Heed; 3] {
    [found_delivered(), failed(), UNREADABLE].map(|said| Heed::to(story.row(), attempt, &said))
}

#[test]
fn any_word_about_an_open_attempt_brings_its_question_forward() {
    let mut story = Story::in_flight(RejectsAlways);
    assert_eq!(heeded(&story, 1), [Heed::Nothing; 3], "its caller is about to hear more");
    story.reply(timed_out(), 15);
    assert_eq!(heeded(&story, 1), [Heed::Ask; 3]);
    story.tell(Input::Deadline, 180);
    assert_eq!(heeded(&story, 1), [Heed::Ask; 3], "in doubt");
}

#[test]
fn of_a_closed_attempt_only_what_contradicts_it_is_asked_about() {
    let mut story = Story::in_flight(RejectsAlways);
    story.reply(delivered(), 1);
    assert_eq!(heeded(&story, 1), [Heed::Nothing, Heed::Confirm, Heed::Nothing]);
    let mut story = Story::in_flight(RejectsAlways);
    story.reply(SubmitOutcome::Rejected(no(FailureClass::InvalidRecipient, RetryAdvice::Never)), 1);
    assert_eq!(story.row().state, State::Failed);
    assert_eq!(heeded(&story, 1), [Heed::Confirm, Heed::Nothing, Heed::Nothing]);
}

#[test]
fn a_success_of_an_attempt_before_the_current_one_is_asked_about_by_itself() {
    let mut story = Story::in_flight(RejectsAlways);
    story.reply(SubmitOutcome::Rejected(no(FailureClass::OperatorUnavailable, TRY_AGAIN)), 1);
    assert_eq!(heeded(&story, 1), [Heed::Confirm, Heed::Nothing, Heed::Nothing], "it waits for its next attempt");
    story.claim(20);
    assert_eq!(heeded(&story, 1), [Heed::Confirm, Heed::Nothing, Heed::Nothing]);
    assert_eq!(heeded(&story, 2), [Heed::Nothing; 3]);
    story.report(1, found_delivered(), 25);
    assert_eq!(story.row().state, State::Succeeded);
    assert_eq!(heeded(&story, 1), [Heed::Nothing, Heed::Confirm, Heed::Nothing], "that is what was delivered");
    story.reply(timed_out(), 36);
    assert_eq!(heeded(&story, 2), [Heed::Ask; 3], "the newer one may be delivered too");
}

#[test]
fn haste_keeps_to_what_the_provider_allows() {
    let provider = policy(RejectsAlways).providers.into_values().next().unwrap();
    let mut story = Story::in_flight(RejectsAlways);
    assert_eq!(hastened(story.row(), at(1), &provider), None, "nobody asks while its caller may hear");
    story.reply(timed_out(), 15);
    let interval = provider.capabilities.query_min_interval;
    let soon = Hastened { first: at(16), again: plus(at(16), interval) };
    assert_eq!(hastened(story.row(), at(16), &provider), Some(soon));
    let mut strict = provider.clone();
    strict.capabilities.query_not_before = Duration::from_mins(1);
    let allowed = strict.after_send(at(0), Duration::from_mins(1));
    let later = Hastened { first: allowed, again: allowed };
    assert_eq!(hastened(story.row(), at(16), &strict), Some(later), "before that moment nobody can have asked");
    assert_eq!(hastened(story.row(), at(2 * 86_400), &provider), None, "it remembers no more");
}

#[test]
fn what_is_not_confirmed_is_asked_about_ever_more_rarely_and_at_last_no_more() {
    let story = Story::in_flight(RejectsAlways);
    let mut command = Command::confirm(story.row(), 1, Some("p-1".to_owned()));
    assert_eq!((command.kind, command.wake_at, command.attempt), (CommandKind::Confirm, None, 1));
    let (mut now, mut waits) = (at(0), Vec::new());
    while let Some(next) = command.again(now) {
        let wake_at = next.wake_at.unwrap();
        waits.push((wake_at - now).num_seconds());
        assert_eq!((&next.provider_ref, next.attempt), (&command.provider_ref, 1));
        (now, command) = (wake_at, next);
    }
    assert!(waits.is_sorted() && waits[0] == 5 && *waits.last().unwrap() == 3_600, "{waits:?}");
    let all = now - at(0);
    assert!((8..24).contains(&all.num_hours()), "{} h", all.num_hours());
    let text = serde_json::to_string(&command).unwrap();
    assert_eq!(serde_json::from_str::<Command>(&text).unwrap(), command);
}

#[test]
fn a_word_that_was_not_confirmed_is_a_case_once_and_moves_nothing() {
    let unconfirmed = |attempt| Input::Unconfirmed { attempt };
    let mut delivered_at_once = Story::in_flight(RejectsAlways);
    delivered_at_once.reply(delivered(), 1);
    let mut refused = Story::in_flight(RejectsAlways);
    refused.reply(SubmitOutcome::Rejected(no(FailureClass::InvalidRecipient, RetryAdvice::Never)), 1);
    let mut on_its_way = Story::in_flight(RejectsAlways);
    on_its_way.reply(SubmitOutcome::Rejected(no(FailureClass::OperatorUnavailable, TRY_AGAIN)), 1);
    on_its_way.claim(20);
    for mut story in [delivered_at_once, refused, on_its_way] {
        let before = story.row().clone();
        assert_eq!(story.tell(unconfirmed(9), 50), Some(Why::NotApplicable), "there is no such attempt");
        assert_eq!(story.tell(unconfirmed(1), 50), None);
        assert_eq!((story.last(), story.has_open(CaseKind::Unconfirmed)), (EventType::CaseOpened, true));
        assert_eq!(story.tell(unconfirmed(1), 51), Some(Why::Known));
        let after = Order { version: before.version, cases: before.cases, ..story.row().clone() };
        assert_eq!((after, story.refunds.len()), (before.clone(), usize::from(before.refund_requested)));
        story.check_replay();
    }
}

#[test]
fn what_is_confirmed_after_all_is_a_case_of_its_own_and_one_that_is_there_needs_no_other() {
    let mut story = Story::in_flight(RejectsAlways);
    story.reply(SubmitOutcome::Rejected(no(FailureClass::InvalidRecipient, RetryAdvice::Never)), 1);
    let mut told = story.clone();
    story.tell(Input::Unconfirmed { attempt: 1 }, 50);
    story.report(1, found_delivered(), 60);
    assert!(story.has_open(CaseKind::LateSuccess), "also where somebody has closed the first by then");
    told.report(1, found_delivered(), 40);
    assert_eq!(told.tell(Input::Unconfirmed { attempt: 1 }, 50), Some(Why::Known));
}
