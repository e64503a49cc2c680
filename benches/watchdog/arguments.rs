//! What to measure.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::common::child::ChildArguments;

/// Measures the watchdog: its verdicts and its looks in a full store, and what it costs the line.
#[derive(Debug, Parser)]
#[command(name = "scripts/bench watchdog")]
pub(crate) struct Arguments {
    /// Closed orders in the store; a tenth of them first, to see what a look costs then
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) closed: i64,
    /// Open orders, whose deadlines come one after the other
    #[arg(long, default_value_t = 20_000)]
    pub(crate) open: usize,
    /// Within this time, in seconds
    #[arg(long, default_value_t = 40.0)]
    pub(crate) within: f64,
    /// How often each look is repeated
    #[arg(long, default_value_t = 30)]
    pub(crate) looks: usize,
    /// Orders in each round of the line with and without the watchdog
    #[arg(long, default_value_t = 100_000)]
    pub(crate) orders: usize,
    /// Rounds of the line, in turns
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
    /// Write everything to this file as one JSON object
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Exit with 1 where a goal is missed
    #[arg(long)]
    pub(crate) check: bool,
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
    /// Verdicts and looks in a full store
    Full,
    /// The line with and without it
    Presence,
}

impl Arguments {
    pub(crate) fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}
