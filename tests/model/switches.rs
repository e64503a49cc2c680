//! Each rule turned off: the way to the harm that it prevents, or the rule that covers for it.

use stateright::Property;

use recharged::domain::DuplicateSemantics::{self, NotDeduplicated, RejectsAlways, RejectsUnlessFailed, ReplaysResult};

use crate::actions::Universe;
use crate::checks::{ASKED_ALONE, NO_SILENT_REFUND, ONE_RECHARGE, laws, look};
use crate::rules::{ALL, Rule, Setting};

fn only(law: &str) -> Vec<Property<Universe>> {
    laws().into_iter().filter(|one| one.name == law).collect()
}

fn without(rule: Rule, duplicates: DuplicateSemantics) -> Setting {
    Setting { hesitant: false, off: Some(rule), ..Setting::new(duplicates) }
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

#[test]
fn explore3() {
    for duplicates in ALL {
            let three = Setting { claims: 3, ..without(Rule::WhoseAttempt, duplicates) };
            let looked = look(&three, one_recharge); println!("{:#?}", looked.broken);
    }
}

#[test]
fn explore4() {
    for rule in Rule::ALL {
        for duplicates in ALL {
            let q = if rule == Rule::Hold { 2 } else { 1 };
            let setting = Setting { questions: q, ..without(rule, duplicates) };
            for law in [one_recharge, no_silent_refund, asked_alone] {
                let looked = look(&setting, law); println!("{:#?}", looked.broken);
            }
        }
    }
    let _ = (NotDeduplicated, RejectsAlways, RejectsUnlessFailed, ReplaysResult, breaks as usize, is_covered as usize);
}
