//! The whole line under load: from an order on Kafka to its status event, on a real broker and a
//! real Postgres, beside a bare program that makes the same writes without any rule.
//! `docs/PERFORMANCE.md` says what is measured and how; `scripts/bench line` runs it.
#![expect(clippy::print_stdout, reason = "the table is what this program is for")]
#![expect(clippy::print_stderr, reason = "progress goes beside the table")]

mod arguments;
mod calibration;
mod ceiling;
mod child;
mod goals;
mod idle;
mod latency;
mod meter;
mod orders;
mod profile;
mod report;
mod round;
mod scratch;
mod service;
mod topics;

use anyhow::Result;
use clap::Parser as _;

use arguments::{Arguments, Role};

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match (arguments.child, &arguments.config) {
        (Some(Role::Ceiling), Some(config)) => ceiling::run(config),
        (Some(Role::Service), Some(config)) => service::run(config, arguments.answer_after()),
        (Some(_), None) => anyhow::bail!("a child needs --config"),
        (None, _) => report::run(&arguments),
    }
}

/// Tells what goes on, beside the results.
fn progress(text: &str) {
    eprintln!("line: {text}");
}
