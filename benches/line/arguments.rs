//! What to measure.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::common::child::ChildArguments;

/// Measures the whole line, from an order on Kafka to its status event.
#[derive(Debug, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
#[command(name = "scripts/bench line")]
pub(crate) struct Arguments {
    /// Orders that wait in the topic in each round
    #[arg(long, default_value_t = 200_000)]
    pub(crate) orders: usize,
    /// Rounds; each is a ceiling, the service, a ceiling, the service with a slow provider
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
    /// Rates of the open-loop runs, in orders a second [default: half of what was reached, and 5000]
    #[arg(long, value_delimiter = ',')]
    pub(crate) rate: Vec<f64>,
    /// How long each open-loop run lasts
    #[arg(long, default_value_t = 30.0)]
    pub(crate) seconds: f64,
    /// How long the idle service is looked at
    #[arg(long, default_value_t = 20.0)]
    pub(crate) idle_seconds: f64,
    /// Write everything to this file as one JSON object
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Exit with 1 where a goal is missed
    #[arg(long)]
    pub(crate) check: bool,
    /// Run the service once under `perf` and print where its time goes
    #[arg(long)]
    pub(crate) profile: bool,
    /// Profile Postgres as well
    #[arg(long)]
    pub(crate) profile_postgres: bool,
    /// Only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) only: Vec<Part>,
    #[command(flatten)]
    pub(crate) child: ChildArguments,
    /// Cargo passes it to every bench
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
}

/// A part of the measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// As fast as it goes, beside the ceiling
    Rounds,
    /// At a given rate
    Latency,
    /// With nothing to do
    Idle,
}

impl Arguments {
    pub(crate) fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}
