//! When an attempt is asked about.

use std::time::Duration;

use proptest::prelude::*;

use super::story::{Story, at, policy};
use crate::domain::inquiry::next_query;
use crate::domain::{DuplicateSemantics, Input, State, SubmitOutcome, UnknownCause};

/// The moments, in seconds after the claim, at which an order whose attempt stays unknown is
/// asked about, each asked as soon as it may be.
fn asked_until(end: i64) -> Vec<i64> {
    let mut story = Story::in_flight(DuplicateSemantics::RejectsAlways);
    story.reply(SubmitOutcome::Unknown(UnknownCause::Timeout), 5);
    let provider = story.policy.providers.values().next().unwrap().clone();
    let (mut seconds, mut now) = (Vec::new(), story.row().wake_at.unwrap());
    while now <= at(end) {
        if now >= at(180) && story.row().state != State::InDoubt {
            story.tell(Input::Deadline, 180);
        }
        seconds.push((now - at(0)).num_seconds());
        let Some(next) = next_query(story.row(), Duration::ZERO, now, &provider) else { break };
        now = next;
    }
    seconds
}

#[test]
fn questions_grow_rare_one_is_kept_for_the_end_and_they_go_on_in_doubt() {
    let before: Vec<i64> = asked_until(179);
    assert_eq!(before, [5, 10, 20, 40, 80, 120, 160, 173], "from 20 s on, not found tells something");
    let late = asked_until(4_000);
    assert!(late.len() > before.len() + 5, "{late:?}");
    let all = asked_until(10 * 86_400);
    assert!(all.windows(2).all(|two| two[1] - two[0] <= 1_800), "{all:?}");
    assert_eq!(all.last(), Some(&(86_400 - 3_600)), "the last one comes before the provider forgets");
}

proptest! {
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
        prop_assert!(next >= at(0) + Duration::from_secs(not_before));
        prop_assert!(next <= at(86_400));
    }
}
