//! The proof that the oracle can fail: each rule left out, and the law that is then found broken. A bug
//! that no seed finds is a law that nobody watches.

use recharged::faults::{Bug, plant};

use crate::laws::Law;
use crate::oracle::Report;
use crate::runs::{in_parallel, live, seeds};
use crate::weather::Weather;

/// A bug, the laws of which it breaks at least one, and the first seed that shows it.
const BUGS: [(Bug, &[Law], u64); 33] = [
    (Bug::SkipTheFence, &[Law::RowsAreLegal], 1),
    (Bug::AcknowledgeBeforeStored, &[Law::Offsets], 1),
    (Bug::CommitTheHighest, &[Law::Offsets], 1),
    (Bug::ForgetTheCommand, &[Law::Offsets], 2),
    (Bug::PayBeforeStored, &[Law::EveryOrderEnds], 80),
    (Bug::SequenceAsCursor, &[Law::Published], 3),
    (Bug::CursorBeforeEvents, &[Law::Published], 10),
    (Bug::TimeOutIsFailure, &[Law::ExecutedOnce], 3),
    (Bug::ResendTheUnknown, &[Law::AskedBeforeSentAgain], 3),
    (Bug::UnsafeResend, &[Law::ExecutedOnce], 15),
    (Bug::WhoseClaim, &[Law::ExecutedOnce, Law::OneAtATime], 239),
    (Bug::ForgetNotFound, &[Law::ExecutedOnce], 12),
    (Bug::SendTheOvertaken, &[Law::ExecutedOnce], 12),
    (Bug::ZombieSends, &[Law::SendWindow], 4),
    (Bug::StalePermits, &[Law::Quota], 66),
    (Bug::HintAfterState, &[Law::HintFirst], 2),
    (Bug::DropTheAhead, &[Law::Offsets], 2),
    (Bug::ForgetTheQuestion, &[Law::Offsets], 2),
    (Bug::AskUnheld, &[Law::AskedInTurn], 2),
    (Bug::CountTwice, &[Law::Counted], 1),
    (Bug::ForgetMissed, &[Law::Counted], 19),
    (Bug::DeadlineTooEarly, &[Law::Deadline], 3),
    (Bug::RefundTheUnknown, &[Law::ExecutedOnce], 4),
    (Bug::RefundAgain, &[Law::RefundedOnce], 15),
    (Bug::ClaimBeside, &[Law::OneAtATime], 23),
    (Bug::MarkTooEarly, &[Law::Deadline, Law::EveryOrderEnds], 12),
    (Bug::NotifyTooEarly, &[Law::NotifiedOnce], 1),
    (Bug::NotifyAgain, &[Law::NotifiedOnce], 1),
    (Bug::ForgetTheEarly, &[Law::Offsets, Law::EveryOrderEnds], 1),
    (Bug::ForgetTheRefund, &[Law::RefundsFollowed], 1),
    (Bug::TellAfterTheEnd, &[Law::NotifiedOnce], 2),
    (Bug::ForwardTooEarly, &[Law::NeverEarly], 2),
    (Bug::AcknowledgeBeforeForwarded, &[Law::Offsets], 1),
];

fn live_with(bug: Bug, seed: u64) -> Report {
    plant(Some(bug));
    // A bug may make a role panic, which ends the whole life: that is a find as well, but not this one.
    let report = live(seed, Weather::of(seed));
    plant(None);
    report
}

#[test]
fn each_planted_bug_breaks_its_law_in_the_life_that_is_known_to_show_it() {
    in_parallel(0..BUGS.len() as u64, |place| {
        let (bug, laws, seed) = BUGS[usize::try_from(place).unwrap()];
        let report = live_with(bug, seed);
        let found = &report.violations;
        assert!(
            report.breaks(laws),
            "{bug:?} in seed {seed} breaks {found:?} and not {laws:?}; scripts/campaign hunt tells a seed that does"
        );
        live(seed, Weather::of(seed)).check(seed);
    });
}

#[test]
#[ignore = "minutes: scripts/campaign hunt"]
fn campaign_each_planted_bug_is_found_within_a_thousand_seeds() {
    let wanted = std::env::var("SIM_BUG").ok();
    let is_wanted = |bug: Bug| wanted.as_ref().is_none_or(|wanted| *wanted == format!("{bug:?}"));
    assert!(BUGS.iter().any(|(bug, ..)| is_wanted(*bug)), "SIM_BUG names no bug: {wanted:?}");
    let missed = std::sync::Mutex::new(Vec::new());
    in_parallel(0..BUGS.len() as u64, |place| {
        let (bug, laws, _) = BUGS[usize::try_from(place).unwrap()];
        if !is_wanted(bug) {
            return;
        }
        let mut others = 0;
        let found = seeds(1_000).find(|seed| {
            let report = live_with(bug, *seed);
            others += usize::from(!report.violations.is_empty() && !report.breaks(laws));
            report.breaks(laws)
        });
        match found {
            Some(seed) => eprintln!("{bug:?}: seed {seed} breaks one of {laws:?} ({others} seeds broke others before)"),
            None => missed.lock().unwrap().push(bug),
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "not found: {missed:?}");
}
