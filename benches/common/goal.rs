//! Promises, and what became of them.

use std::borrow::Cow;

use anyhow::{Result, bail};
use serde::Serialize;

/// One promise and what became of it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Goal {
    pub(crate) name: Cow<'static, str>,
    pub(crate) wanted: String,
    pub(crate) found: String,
    pub(crate) met: bool,
}

impl Goal {
    /// Of a figure that must not be greater than its limit.
    pub(crate) fn at_most(name: impl Into<Cow<'static, str>>, found: f64, limit: f64, unit: &str) -> Self {
        let (wanted, shown) = (format!("≤ {limit} {unit}"), format!("{found:.2} {unit}"));
        Self { name: name.into(), wanted, found: shown, met: found <= limit }
    }

    /// Of something that must not happen.
    pub(crate) fn never(name: impl Into<Cow<'static, str>>, found: u64) -> Self {
        Self { name: name.into(), wanted: "none".to_owned(), found: found.to_string(), met: found == 0 }
    }
}

/// The table of goals.
pub(crate) fn print(goals: &[Goal]) {
    println!("\ngoals:");
    for goal in goals {
        let mark = if goal.met { "met   " } else { "MISSED" };
        println!("  {mark}  {:<64} {:>14}  ({})", goal.name, goal.found, goal.wanted);
    }
}

/// Fails where a goal was missed, if that is asked for.
pub(crate) fn check(asked: bool, goals: &[Goal]) -> Result<()> {
    if asked && goals.iter().any(|goal| !goal.met) {
        bail!("a goal was missed");
    }
    Ok(())
}
