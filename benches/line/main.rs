//! The whole line under load: from an order on Kafka to its status event, on a real broker and a
//! real Postgres, beside a bare program that makes the same writes without any rule.
//! `docs/PERFORMANCE.md` says what is measured and how; `scripts/bench line` runs it.
#![expect(clippy::print_stdout, reason = "the table is what this program is for")]
#![expect(clippy::print_stderr, reason = "progress goes beside the table")]

mod arguments;
mod ceiling;
#[path = "../common/mod.rs"]
#[allow(dead_code, reason = "each measurement uses what it needs")]
mod common;
mod goals;
mod idle;
mod latency;
mod report;

use anyhow::Result;
use clap::Parser as _;

use arguments::Arguments;
use common::child::Role;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.child.role()? {
        Some((Role::Ceiling, config)) => ceiling::run(config),
        Some((Role::Service, config)) => common::service::run(config, &arguments.child),
        None => report::run(&arguments),
    }
}

/// Tells what goes on, beside the results.
fn progress(text: &str) {
    eprintln!("line: {text}");
}
