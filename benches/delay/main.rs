//! The delay tiers under load: how late a record reaches its target, beside a plain trip through the
//! same broker; what a process that dies, comes, goes, or whose clock steps does to it; and what a
//! million waiting records cost. `docs/PERFORMANCE.md` says how; `scripts/bench delay` runs it.
#![expect(clippy::print_stdout, reason = "the table is what this program is for")]
#![expect(clippy::print_stderr, reason = "progress goes beside the table")]

mod arguments;
mod burst;
#[path = "../common/mod.rs"]
#[allow(dead_code, reason = "each measurement uses what it needs")]
mod common;
mod faults;
mod goals;
mod items;
mod paced;
mod pending;
mod report;
mod stage;
mod target;

use anyhow::Result;
use clap::Parser as _;

fn main() -> Result<()> {
    report::run(&arguments::Arguments::parse())
}

/// Tells what goes on, beside the results.
fn progress(text: &str) {
    eprintln!("delay: {text}");
}
