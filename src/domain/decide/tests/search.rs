//! Every interleaving of a small world, and random ones of a larger.

use std::collections::HashSet;

use proptest::prelude::*;

use super::world::{Bounds, Step, World};
use crate::domain::{DuplicateSemantics, OnUnknown, State};

/// Visits every world that can be reached, once; how many there are, and in which states the
/// order was seen. Panics with the way to the first world that breaks a law.
fn search(start: World, bounds: Bounds) -> (usize, HashSet<State>) {
    let mut seen = HashSet::from([start.fingerprint()]);
    let mut ends = HashSet::new();
    let mut ways: Vec<(Step, usize)> = Vec::new();
    let mut open = vec![(start, usize::MAX)];
    while let Some((world, way)) = open.pop() {
        ends.insert(world.order.state);
        for step in world.steps(bounds) {
            let mut next = world.clone();
            if !next.take(step) || !seen.insert(next.fingerprint()) {
                continue;
            }
            ways.push((step, way));
            let here = ways.len() - 1;
            if let Err(broken) = next.verdict() {
                panic!("{broken}: {:?}\n{:#?}", way_to(&ways, here), next);
            }
            open.push((next, here));
        }
    }
    (seen.len(), ends)
}

fn way_to(ways: &[(Step, usize)], end: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut here = end;
    while let Some((step, before)) = ways.get(here) {
        steps.push(*step);
        here = *before;
    }
    steps.reverse();
    steps
}

fn check(duplicates: DuplicateSemantics, on_unknown: OnUnknown, bounds: Bounds) {
    let (worlds, states) = search(World::new(duplicates, on_unknown), bounds);
    println!("{duplicates:?}: {worlds} worlds");
    assert!(worlds > 1000, "only {worlds} worlds: the search does not search");
    for state in [State::RetryWait, State::InDoubt, State::Succeeded, State::Failed] {
        assert!(states.contains(&state), "never {state}: the search does not search");
    }
}

const ALL: [DuplicateSemantics; 4] = [
    DuplicateSemantics::RejectsAlways,
    DuplicateSemantics::ReplaysResult,
    DuplicateSemantics::RejectsUnlessFailed,
    DuplicateSemantics::NotDeduplicated,
];

const SMALL: Bounds = Bounds { claims: 2, last: 3, thorough: false };

#[test]
fn no_interleaving_recharges_twice_or_refunds_in_silence_where_duplicates_are_rejected() {
    check(DuplicateSemantics::RejectsAlways, OnUnknown::Hold, SMALL);
}

#[test]
fn no_interleaving_recharges_twice_or_refunds_in_silence_where_results_are_replayed() {
    check(DuplicateSemantics::ReplaysResult, OnUnknown::Hold, SMALL);
}

#[test]
fn no_interleaving_recharges_twice_or_refunds_in_silence_where_failed_ones_run_again() {
    check(DuplicateSemantics::RejectsUnlessFailed, OnUnknown::Hold, SMALL);
}

#[test]
fn no_interleaving_recharges_twice_or_refunds_in_silence_without_deduplication() {
    check(DuplicateSemantics::NotDeduplicated, OnUnknown::Hold, SMALL);
}

#[test]
fn no_interleaving_refunds_in_silence_where_doubt_is_refunded_at_the_deadline() {
    check(DuplicateSemantics::RejectsAlways, OnUnknown::RefundFlagged, SMALL);
}

#[test]
#[ignore = "minutes: every interleaving with one more step after the deadline; run it in release"]
fn no_interleaving_of_a_larger_world_breaks_it() {
    for on_unknown in [OnUnknown::Hold, OnUnknown::RefundFlagged] {
        for duplicates in ALL {
            check(duplicates, on_unknown, Bounds { claims: 2, last: 4, thorough: true });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_long_random_interleaving_breaks_the_world(
        which in 0_usize..4, flagged in any::<bool>(), choices in prop::collection::vec(any::<prop::sample::Index>(), 10..80),
    ) {
        let duplicates = ALL[which];
        let mut world = World::new(duplicates, if flagged { OnUnknown::RefundFlagged } else { OnUnknown::Hold });
        for choice in choices {
            let steps = world.steps(Bounds { claims: 5, last: 9, thorough: true });
            if steps.is_empty() {
                break;
            }
            world.take(steps[choice.index(steps.len())]);
            prop_assert_eq!(world.verdict(), Ok(()), "{:#?}", world);
        }
    }
}
