//! Which transitions `decide` has, and which of them the model takes.

use std::collections::{BTreeSet, HashSet};

use proptest::prelude::*;
use recharged::domain::{CaseKind, Decision, DuplicateSemantics, OnUnknown, Order, decide};

use crate::checks::check;
use crate::judge::{Answer, Asked, Judge, Kind, Word};
use crate::row::{FAR, Row, Tick, at};
use crate::rules::{ALL, Setting};

/// What anybody could tell `decide` about a row at an instant: also what no honest provider says.
fn inputs(row: Option<Row>, now: Tick) -> Vec<Asked> {
    let arrived = |paid, routed, same| Asked::Arrived { paid, routed, same };
    let Some(row) = row else {
        return vec![arrived(true, true, true), arrived(true, false, true), arrived(false, true, true)];
    };
    let attempt = row.attempt;
    let (number, claim) = attempt.map_or((0, 0), |attempt| (attempt.number, attempt.claim));
    let mut all = vec![
        arrived(true, true, true),
        arrived(false, true, false),
        Asked::Paid { routed: true },
        Asked::Paid { routed: false },
        Asked::Cancelled,
        Asked::CallerLost,
        Asked::Deadline,
        Asked::ReconcileDue,
        Asked::Resolved(true),
        Asked::Resolved(false),
        Asked::CaseClosed,
    ];
    all.extend(row.paid.then_some(Asked::PaidAgain));
    // The claim of an attempt that is over may be forgotten: what matters is that it is another.
    if number < 2 || claim == 1 {
        all.push(Asked::Claim(if claim == 1 { 2 } else { 1 }));
    }
    for attempt in number.saturating_sub(1)..=number {
        all.extend(Word::ALL.map(|word| Asked::Reply { attempt, claim, word }));
        all.extend(Word::ALL.map(|word| Asked::Reply { attempt, claim: claim.saturating_sub(1), word }));
        for asked in now.saturating_sub(1)..=now {
            all.extend(Answer::ALL.map(|answer| Asked::Reported { attempt, asked, answer }));
        }
    }
    all
}

/// Every kind of transition that `decide` has, from an empty store on, whatever it is told.
fn every_kind(policy: recharged::domain::Policy) -> (BTreeSet<Kind>, usize) {
    let judge = Judge::new(policy);
    let mut seen: HashSet<(Option<Row>, Tick)> = HashSet::from([(None, 0)]);
    let mut open = vec![(None, 0)];
    while let Some((row, now)) = open.pop() {
        let mut reach = |row: Option<Row>, now: Tick| {
            if seen.insert((row, now)) {
                open.push((row, now));
            }
        };
        // 10 s and 40 s tell nothing that 0 s, 20 s, 30 s and the end do not.
        let later = match now {
            0 => 2,
            2 => 3,
            _ => FAR,
        };
        reach(row.map(|row| seen_at(row, later)), later);
        for asked in inputs(row, now) {
            if let Some(decided) = judge.decide(row, asked, now) {
                reach(Some(seen_at(decided.row, now)), now);
            }
        }
    }
    (judge.seen(), seen.len())
}

fn seen_at(mut row: Row, now: Tick) -> Row {
    row.forget(now);
    // Which cases there were changes whether one is opened, not what becomes of the row.
    row.open = 0;
    row.cases &= CaseKind::FailedUnproven.bit() | CaseKind::PayloadConflict.bit();
    row.declined = 0;
    row
}

#[test]
fn print_all() {
    let mut all = BTreeSet::new();
    for duplicates in [DuplicateSemantics::RejectsAlways, DuplicateSemantics::NotDeduplicated] {
        for on_unknown in [OnUnknown::Hold, OnUnknown::RefundFlagged] {
            let (kinds, rows) = every_kind(Setting { on_unknown, ..Setting::new(duplicates) }.policy());
            println!("{rows} rows, {} kinds", kinds.len());
            all.extend(kinds);
        }
    }
    let mut model = BTreeSet::new();
    let flagged = Setting { on_unknown: OnUnknown::RefundFlagged, ..Setting::new(ALL[0]) };
    model.extend(check(&Setting { thorough: true, ..flagged }));
    model.extend(check(&Setting { thorough: true, ..Setting::new(ALL[1]) }));
    model.extend(check(&Setting { thorough: true, ..Setting::new(ALL[3]) }));
    model.extend(check(&Setting { shop: true, claims: 1, ..Setting::new(ALL[3]) }));
    println!("in model not in all: {:#?}", model.difference(&all).map(ToString::to_string).collect::<Vec<_>>());
    for kind in &all {
        println!("{} {kind}", if model.contains(kind) { "M" } else { "-" });
    }
}

fn inputs_of_walks() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    prop::collection::vec((any::<prop::sample::Index>(), 0_u8..4), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// What a small row leaves out, and what it forgets, `decide` does not look at.
    #[test]
    fn a_small_row_is_decided_like_the_whole_one(which in 0_usize..4, flagged in any::<bool>(), walk in inputs_of_walks()) {
        let on_unknown = if flagged { OnUnknown::RefundFlagged } else { OnUnknown::Hold };
        let judge = Judge::new(Setting { on_unknown, ..Setting::new(ALL[which]) }.policy());
        let (mut whole, mut small, mut now): (Option<Order>, Option<Row>, Tick) = (None, None, 0);
        for (choice, time) in walk {
            now = (now + Tick::from(time == 0)).min(FAR);
            let choices = inputs(small, now);
            let asked = choices[choice.index(choices.len())];
            let decided = judge.decide(small, asked, now).map(|decided| forgotten(decided.row, now));
            let open = small.map_or(0, |row| row.open);
            let expected = match decide(whole.as_ref(), &asked.input(), at(now), &judge.policy) {
                Decision::Keep(_) => None,
                Decision::Apply(transition) => {
                    let row = forgotten(Row::after(&transition, open), now);
                    whole = Some(transition.after);
                    Some(row)
                }
            };
            prop_assert_eq!(decided, expected, "{:?} at {}", asked, now);
            small = decided.or_else(|| small.map(|row| forgotten(row, now)));
        }
    }
}

fn forgotten(mut row: Row, now: Tick) -> Row {
    row.forget(now);
    row
}
