//! When an attempt is asked about.

use std::time::Duration;

use proptest::prelude::*;

use super::story::{Story, at, policy};
use crate::domain::inquiry::{ask_again, next_query};
use crate::domain::{DuplicateSemantics, Input, ProviderPolicy, State, SubmitOutcome, UnknownCause};

/// The moments, in seconds after the claim, at which an order whose attempt stays unknown is
/// asked about, each asked as soon as it may be and answered at once.
fn asked_until(end: i64) -> Vec<i64> {
    let provider = policy(DuplicateSemantics::RejectsAlways).providers.into_values().next().unwrap();
    asked(end, 5, Duration::ZERO, &provider)
}

/// The same for a provider; the send is answered at `replied`, each question `takes`.
fn asked(end: i64, replied: i64, takes: Duration, provider: &ProviderPolicy) -> Vec<i64> {
    let mut story = Story::in_flight(DuplicateSemantics::RejectsAlways);
    story.policy.providers.values_mut().for_each(|own| own.clone_from(provider));
    story.reply(SubmitOutcome::Unknown(UnknownCause::Timeout), replied);
    let (mut seconds, mut now) = (Vec::new(), story.row().wake_at.unwrap());
    while now <= at(end) {
        if now >= at(180) && story.row().state != State::InDoubt {
            story.tell(Input::Deadline, 180);
        }
        seconds.push((now - at(0)).num_seconds());
        let Some(next) = next_query(story.row(), Duration::ZERO, now + takes, provider) else { break };
        now = next;
    }
    seconds
}

#[test]
fn questions_grow_rare_one_is_kept_for_the_end_and_they_go_on_in_doubt() {
    let before: Vec<i64> = asked_until(179);
    assert_eq!(before, [5, 10, 20, 25, 50, 90, 130, 173], "from 21 s on, not found tells something");
    let late = asked_until(4_000);
    assert!(late.len() > before.len() + 5, "{late:?}");
    let all = asked_until(10 * 86_400);
    assert!(all.windows(2).all(|two| two[1] - two[0] <= 1_800), "{all:?}");
    assert_eq!(all.last(), Some(&(86_400 - 3_600)), "the last one comes before the provider forgets");
}

#[test]
fn a_first_question_waits_for_the_last_moment_at_which_the_send_may_have_left() {
    let mut story = Story::in_flight(DuplicateSemantics::RejectsAlways);
    story.reply(SubmitOutcome::Accepted { provider_ref: None }, 1);
    assert_eq!(story.row().wake_at, Some(at(3)), "2 s after the end of the send window");
}

#[test]
fn a_question_is_kept_for_the_end_also_where_the_provider_wants_a_minute_between_two() {
    let mut provider = policy(DuplicateSemantics::RejectsAlways).providers.into_values().next().unwrap();
    provider.capabilities.query_min_interval = Duration::from_mins(1);
    provider.capabilities.query_not_before = Duration::from_mins(1);
    assert_eq!(asked(179, 1, Duration::from_millis(300), &provider), [61, 173], "and not 61, 121, 181");
}

#[test]
fn a_question_that_did_not_leave_is_put_again_soon_whatever_the_providers_interval() {
    let mut story = Story::in_flight(DuplicateSemantics::RejectsAlways);
    story.reply(SubmitOutcome::Unknown(UnknownCause::Timeout), 1);
    let mut provider = policy(DuplicateSemantics::RejectsAlways).providers.into_values().next().unwrap();
    provider.capabilities.query_min_interval = Duration::from_mins(1);
    // One whose age would have the next one come as much later.
    for (asked, next) in [(3, 4), (24, 27), (80, 90)] {
        assert_eq!(ask_again(story.row(), at(asked), &provider), Some(at(next)), "at {asked}");
    }
    assert_eq!(ask_again(story.row(), at(165), &provider), Some(at(173)), "one is kept for the end");
    assert_eq!(ask_again(story.row(), at(173), &provider), Some(at(174)), "and put again until it is too late");
}

proptest! {
    /// Whatever the provider's interval is and however long its answers take, as long as they take no longer than
    /// it is expected to: the last question stands at the end, once the first has left room for it.
    #[test]
    fn the_last_question_before_the_deadline_is_kept(
        interval in 1_u64..120, not_before in 0_u64..100, replied in 1_i64..60, takes in 0_u64..5_000,
    ) {
        let mut provider = policy(DuplicateSemantics::RejectsAlways).providers.into_values().next().unwrap();
        provider.capabilities.query_min_interval = Duration::from_secs(interval);
        provider.capabilities.query_not_before = Duration::from_secs(not_before);
        let asked = asked(179, replied, Duration::from_millis(takes), &provider);
        let answered = asked[0] + i64::try_from(takes / 1000 + 1 + interval).unwrap();
        if answered <= 173 {
            prop_assert_eq!(asked.iter().filter(|second| **second >= 173).count(), 1, "{:?}", asked);
            prop_assert!(asked.contains(&173), "{:?}", asked);
        }
    }

    #[test]
    fn a_question_never_comes_before_the_provider_allows_it(
        asked in 2_i64..100_000, interval in 0_u64..120, not_before in 0_u64..120, at_least in 0_u64..600,
    ) {
        let mut story = Story::in_flight(DuplicateSemantics::RejectsAlways);
        story.reply(SubmitOutcome::Unknown(UnknownCause::Timeout), 1);
        let mut provider = policy(DuplicateSemantics::RejectsAlways).providers.values().next().unwrap().clone();
        provider.capabilities.query_min_interval = Duration::from_secs(interval);
        provider.capabilities.query_not_before = Duration::from_secs(not_before);
        let now = at(asked);
        let Some(next) = next_query(story.row(), Duration::from_secs(at_least), now, &provider) else { return Ok(()) };
        prop_assert!(next >= now + Duration::from_secs(interval.max(at_least).max(1)));
        prop_assert!(next >= at(0) + Duration::from_secs(not_before + 1), "its send may have left a second after its claim");
        prop_assert!(next <= at(86_400));
    }
}
