//! Each rule turned off: the way to the harm that it prevents, or the rule that covers for it.

use stateright::Property;

use recharged::domain::DuplicateSemantics::{self, NotDeduplicated, RejectsAlways, RejectsUnlessFailed, ReplaysResult};

use crate::actions::Universe;
use crate::checks::{ASKED_ALONE, NO_SILENT_REFUND, ONE_RECHARGE, laws, look};
use crate::row::FAR;
use crate::rules::{ALL, Rule, Setting};

fn only(law: &str) -> Vec<Property<Universe>> {
    laws().into_iter().filter(|one| one.name == law).collect()
}

fn without(off: &'static [Rule], duplicates: DuplicateSemantics) -> Setting {
    Setting { hesitant: false, off, ..Setting::new(duplicates) }
}

/// Without the rule the law is broken; says how.
fn breaks(setting: &Setting, law: fn() -> Vec<Property<Universe>>) {
    let looked = look(setting, law);
    assert!(!looked.broken.is_empty(), "nothing happens: {setting}");
    for (law, way) in looked.broken {
        println!("broken: {law}\n    {}", way.join("\n    "));
    }
}

/// Without the rule another one covers for it: every law holds but for those named.
fn is_covered(setting: &Setting, but: &[&str]) {
    let looked = look(setting, laws);
    let broken: Vec<_> = looked.broken.into_iter().filter(|(law, _)| !but.contains(law)).collect();
    assert!(broken.is_empty(), "{setting}\n{broken:#?}");
}

fn one_recharge() -> Vec<Property<Universe>> {
    only(ONE_RECHARGE)
}

fn no_silent_refund() -> Vec<Property<Universe>> {
    only(NO_SILENT_REFUND)
}

fn asked_alone() -> Vec<Property<Universe>> {
    only(ASKED_ALONE)
}

/// One where the same reference is safe to send again, and one where it is not.
const TWO: [DuplicateSemantics; 2] = [RejectsAlways, NotDeduplicated];

#[test]
fn without_the_send_window_a_process_that_stopped_sends_what_was_refunded_and_forgotten() {
    for duplicates in TWO {
        breaks(&without(&[Rule::SendWindow], duplicates), no_silent_refund);
    }
}

#[test]
fn as_long_as_the_provider_remembers_the_open_case_covers_for_the_send_window() {
    is_covered(&Setting { last: FAR - 1, ..without(&[Rule::SendWindow], RejectsAlways) }, &[]);
}

#[test]
fn without_the_claim_a_repeated_settlement_closes_a_resend_that_is_executed() {
    for duplicates in [RejectsAlways, ReplaysResult] {
        breaks(&without(&[Rule::WhoseClaim], duplicates), no_silent_refund);
    }
}

#[test]
fn where_nothing_is_sent_twice_under_one_reference_the_attempts_number_covers_for_the_claim() {
    is_covered(&without(&[Rule::WhoseClaim], NotDeduplicated), &[]);
}

#[test]
fn without_claim_and_number_a_repeated_settlement_makes_a_second_recharge() {
    for duplicates in ALL {
        breaks(&Setting { claims: 3, ..without(&[Rule::WhoseAttempt], duplicates) }, one_recharge);
    }
}

/// The rules by which "not found" is weighed.
const WEIGHED: [&[Rule]; 4] = [&[Rule::Grace], &[Rule::Twice], &[Rule::AskedAt], &[Rule::Fence]];

#[test]
fn when_not_found_tells_something_is_covered_by_the_safe_resend_and_the_case() {
    for rule in WEIGHED {
        is_covered(&without(rule, RejectsAlways), &[]);
    }
    is_covered(&without(&[Rule::Twice], NotDeduplicated), &[]);
}

/// Where no byte is late, what "not found" closed need not be remembered, if it was weighed.
fn prompt(off: &'static [Rule]) -> Setting {
    Setting { late_bytes: false, claims: 1, ..without(off, RejectsAlways) }
}

#[test]
fn without_late_bytes_not_found_rests_on_the_grace_or_on_being_heard_twice() {
    is_covered(&prompt(&[Rule::Remembered]), &[]);
    is_covered(&prompt(&[Rule::Remembered, Rule::Grace]), &[]);
    is_covered(&prompt(&[Rule::Remembered, Rule::AskedAt]), &[]);
    is_covered(&prompt(&[Rule::Remembered, Rule::Twice]), &[]);
    breaks(&prompt(&[Rule::Remembered, Rule::Twice, Rule::Grace]), no_silent_refund);
    breaks(&prompt(&[Rule::Remembered, Rule::Twice, Rule::AskedAt]), no_silent_refund);
}

#[test]
fn without_late_bytes_the_grace_covers_for_the_fence() {
    is_covered(&Setting { claims: 2, ..prompt(&[Rule::Remembered, Rule::Fence]) }, &[]);
}

#[test]
fn a_resend_that_is_not_safe_is_executed_twice() {
    breaks(&without(&[Rule::SafeResend], NotDeduplicated), one_recharge);
}

#[test]
fn a_provider_that_runs_again_only_what_failed_covers_for_an_unsafe_resend() {
    is_covered(&without(&[Rule::SafeResend], RejectsUnlessFailed), &[]);
}

#[test]
fn where_not_found_is_not_remembered_what_is_refunded_is_delivered_later() {
    for duplicates in TWO {
        breaks(&without(&[Rule::Remembered], duplicates), no_silent_refund);
    }
}

#[test]
fn without_the_hold_two_ask_at_once_and_the_fence_covers_for_what_they_hear() {
    let two_questions = Setting { claims: 1, questions: 2, ..without(&[Rule::Hold], RejectsAlways) };
    breaks(&two_questions, asked_alone);
    is_covered(&two_questions, &[ASKED_ALONE]);
}

#[test]
fn whose_outcome_it_is_covers_for_an_adoption_that_comes_too_early() {
    is_covered(&without(&[Rule::AdoptLate], RejectsAlways), &[]);
}

/// The same with everything that a provider may do, and every provider.
#[test]
#[ignore = "many minutes: scripts/campaign model"]
fn campaign_switches() {
    for duplicates in ALL {
        let full = |off| Setting { hesitant: true, thorough: true, ..without(off, duplicates) };
        breaks(&full(&[Rule::SendWindow]), no_silent_refund);
        breaks(&full(&[Rule::Remembered]), no_silent_refund);
        if !duplicates.resend_is_safe() {
            is_covered(&full(&[Rule::WhoseClaim]), &[]);
        }
        is_covered(&Setting { last: FAR - 1, ..full(&[Rule::SendWindow]) }, &[]);
        for rule in WEIGHED.into_iter().chain([&[Rule::AdoptLate][..]]) {
            is_covered(&full(rule), &[]);
        }
        is_covered(&Setting { questions: 2, ..without(&[Rule::Hold], duplicates) }, &[ASKED_ALONE]);
    }
}
