//! x
use recharged::domain::OnUnknown;
use crate::checks::{laws, look};
use crate::rules::{ALL, Rule, Setting};

#[test]
fn explore() {
    for rule in Rule::ALL {
        for duplicates in ALL {
            let questions = if rule == Rule::Hold { 2 } else { 1 };
            let looked = look(&Setting { questions, ..Setting::new(duplicates) }.without(rule), laws, 1);
            println!("=== {rule:?} off, {duplicates:?}: {} worlds", looked.worlds);
            for (law, way) in looked.broken {
                println!("--- {law}");
                for line in way { println!("      {line}"); }
            }
        }
    }
    let _ = OnUnknown::Hold;
}
