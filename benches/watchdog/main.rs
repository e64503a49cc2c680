//! The watchdog over a store that is full: how late its verdicts are, what a look costs when nothing is due,
//! and what its presence costs the line. `docs/PERFORMANCE.md` says how; `scripts/bench watchdog`
//! runs it.
#![expect(clippy::print_stdout, reason = "the table is what this program is for")]
#![expect(clippy::print_stderr, reason = "progress goes beside the table")]

mod arguments;
mod bare;
#[path = "../common/mod.rs"]
#[allow(dead_code, reason = "each measurement uses what it needs")]
mod common;
mod filling;
mod goals;
mod presence;
mod report;
mod scan;
mod verdicts;

use anyhow::{Result, bail};
use clap::Parser as _;

use arguments::Arguments;
use common::child::Role;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.child.role()? {
        Some((Role::Service, config)) => common::service::run(config, &arguments.child),
        Some((Role::Ceiling, _)) => bail!("this measurement has no ceiling"),
        None => report::run(&arguments),
    }
}

/// Tells what goes on, beside the results.
fn progress(text: &str) {
    eprintln!("watchdog: {text}");
}
