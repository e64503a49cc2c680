//! Which transitions `decide` has, and which of them the model takes.

use std::collections::{BTreeSet, HashSet};

use proptest::prelude::*;
use recharged::domain::{CaseKind, Decision, DuplicateSemantics, OnUnknown, Order, Policy, decide};

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
        Asked::Refunded(1),
        Asked::Refunded(2),
        Asked::RefundOverdue,
        Asked::CallerLost,
        Asked::LaneShut,
        Asked::NumberCools,
        Asked::Deadline,
        Asked::Resolved(true),
        Asked::Resolved(false),
        Asked::CaseClosed,
        Asked::NotListed,
        Asked::Unconfirmed,
        Asked::Listed { same: true },
        Asked::Listed { same: false },
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
fn every_kind(policy: Policy) -> (BTreeSet<Kind>, usize) {
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
    // Which of two is all the same.
    row.refunded = row.refunded.map(|_| 1);
    row
}

/// What the model does not take, one by one, and why: a new kind is in no list, and must be modelled or excused.
const EXCUSED: [(&str, &[&str]); 9] = [
    (
        "the modelled provider knows no cooldown: its no speaks of the attempt that it refuses",
        &[
            "in_flight | reply: cooldown | in_flight | attempt_updated",
            "in_flight | reply: cooldown | retry_wait | retry_scheduled",
            "in_flight | reply: cooldown | failed | failed",
            "in_doubt | reply: cooldown | in_doubt | attempt_updated",
            "in_doubt | reply: cooldown | failed | failed",
            "succeeded | reply: cooldown | succeeded | attempt_updated",
        ],
    ),
    (
        "the modelled provider takes nothing back",
        &[
            "in_flight | report: reversed | failed | failed",
            "retry_wait | report: reversed | failed | failed",
            "in_doubt | report: reversed | failed | failed",
            "succeeded | report: reversed | succeeded | attempt_updated",
            "succeeded | report: reversed | succeeded | case_opened",
        ],
    ),
    (
        "no rule binds a person",
        &[
            "awaiting_payment | case closed | awaiting_payment | case_resolved",
            "queued | case closed | queued | case_resolved",
            "in_flight | case closed | in_flight | case_resolved",
            "retry_wait | case closed | retry_wait | case_resolved",
            "in_doubt | case closed | in_doubt | case_resolved",
            "succeeded | case closed | succeeded | case_resolved",
            "failed | case closed | failed | case_resolved",
            "cancelled | case closed | cancelled | case_resolved",
            "in_doubt | resolved | succeeded | succeeded",
            "in_doubt | resolved | failed | failed",
        ],
    ),
    (
        "the modelled provider never delivers what it had refused, nor refuses what it delivered",
        &[
            "succeeded | reply: accepted | succeeded | attempt_updated",
            "succeeded | reply: delivered | succeeded | case_opened",
            "succeeded | reply: duplicate | succeeded | attempt_updated",
            "succeeded | reply: not sent | succeeded | attempt_updated",
            "succeeded | reply: refused | succeeded | attempt_updated",
            "succeeded | reply: throttled | succeeded | attempt_updated",
            "succeeded | reply: unknown | succeeded | attempt_updated",
            "succeeded | report: delivered | succeeded | case_opened",
            "succeeded | report: failed | succeeded | attempt_updated",
            "succeeded | report: failed | succeeded | case_opened",
            "succeeded | report: in progress | succeeded | attempt_updated",
            "succeeded | report: provider unknown | succeeded | attempt_updated",
        ],
    ),
    (
        "the modelled provider calls nobody back: what nobody confirmed of a callback opens a case and moves nothing",
        &[
            "in_flight | callback: unconfirmed | in_flight | case_opened",
            "retry_wait | callback: unconfirmed | retry_wait | case_opened",
            "in_doubt | callback: unconfirmed | in_doubt | case_opened",
            "succeeded | callback: unconfirmed | succeeded | case_opened",
            "failed | callback: unconfirmed | failed | case_opened",
        ],
    ),
    (
        "the modelled provider keeps no list of its days: what one says against a delivery opens a case and moves nothing",
        &[
            "succeeded | list: not there | succeeded | case_opened",
            "succeeded | list: amount | succeeded | case_opened",
        ],
    ),
    (
        "what the payment side has done moves no order: it is noted, and a case is opened or closed",
        &[
            "awaiting_payment | refund confirmed | awaiting_payment | case_opened",
            "queued | refund confirmed | queued | case_opened",
            "in_flight | refund confirmed | in_flight | case_opened",
            "retry_wait | refund confirmed | retry_wait | case_opened",
            "in_doubt | refund confirmed | in_doubt | case_opened",
            "succeeded | refund confirmed | succeeded | case_opened",
            "failed | refund confirmed | failed | case_opened",
            "cancelled | refund confirmed | cancelled | case_opened",
            "in_doubt | refund confirmed | in_doubt | refund_confirmed",
            "succeeded | refund confirmed | succeeded | refund_confirmed",
            "failed | refund confirmed | failed | refund_confirmed",
            "cancelled | refund confirmed | cancelled | refund_confirmed",
            "in_doubt | refund overdue | in_doubt | case_opened",
            "succeeded | refund overdue | succeeded | case_opened",
            "failed | refund overdue | failed | case_opened",
            "cancelled | refund overdue | cancelled | case_opened",
        ],
    ),
    (
        "the modelled provider does not fail what never reached it",
        &["retry_wait | report: failed | retry_wait | retry_scheduled"],
    ),
    (
        "answers that cross, or come unasked: the modelled time has no instant left for a third question",
        &[
            "retry_wait | report: delivered | succeeded | succeeded",
            "retry_wait | report: failed | failed | failed",
            "retry_wait | report: in progress | in_flight | attempt_updated",
            "retry_wait | report: provider unknown | in_flight | attempt_updated",
        ],
    ),
];

/// Why the model does not take a kind of transition, where it does not.
fn why_not(kind: &Kind) -> Option<&'static str> {
    let name = kind.to_string();
    EXCUSED.iter().find(|(_, kinds)| kinds.contains(&name.as_str())).map(|(reason, _)| *reason)
}

/// What the model takes: the union of small worlds that together leave nothing out.
fn taken() -> BTreeSet<Kind> {
    let small = |duplicates| Setting { commit_lag: 0, lost_replies: false, ..Setting::new(duplicates) };
    let mut taken = BTreeSet::new();
    let replayed = Setting { thorough: true, commit_lag: 1, ..small(DuplicateSemantics::ReplaysResult) };
    taken.extend(check(&replayed));
    taken.extend(check(&Setting { thorough: true, ..small(DuplicateSemantics::NotDeduplicated) }));
    let flagged = Setting { on_unknown: OnUnknown::RefundFlagged, ..small(DuplicateSemantics::RejectsAlways) };
    taken.extend(check(&Setting { commit_lag: 1, ..flagged }));
    taken.extend(check(&Setting {
        shop: true,
        claims: 1,
        hesitant: false,
        ..small(DuplicateSemantics::NotDeduplicated)
    }));
    taken
}

#[test]
fn the_model_takes_every_transition_that_decide_has_but_for_those_with_a_reason() {
    let mut all = BTreeSet::new();
    for duplicates in [DuplicateSemantics::RejectsAlways, DuplicateSemantics::NotDeduplicated] {
        for on_unknown in [OnUnknown::Hold, OnUnknown::RefundFlagged] {
            let (kinds, rows) = every_kind(Setting { on_unknown, ..Setting::new(duplicates) }.policy());
            println!("{duplicates:?}, {on_unknown:?}: decide has {} kinds of transition over {rows} rows", kinds.len());
            all.extend(kinds);
        }
    }
    let taken = taken();
    let expected: BTreeSet<Kind> = all.iter().filter(|kind| why_not(kind).is_none()).cloned().collect();
    println!("{} kinds in all, {} of them taken by the model", all.len(), taken.len());
    let told = |kinds: &BTreeSet<Kind>, but: &BTreeSet<Kind>| -> Vec<String> {
        kinds.difference(but).map(ToString::to_string).collect()
    };
    assert_eq!(told(&expected, &taken), Vec::<String>::new(), "decide has these, and the model never takes them");
    assert_eq!(told(&taken, &expected), Vec::<String>::new(), "the model takes these, which should not be possible");
    let names: BTreeSet<String> = all.iter().map(ToString::to_string).collect();
    let excused = EXCUSED.iter().flat_map(|(_, kinds)| kinds.iter());
    let idle: Vec<&&str> = excused.filter(|kind| !names.contains(**kind)).collect();
    assert!(idle.is_empty(), "excuses for transitions that `decide` no longer has: {idle:?}");
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
