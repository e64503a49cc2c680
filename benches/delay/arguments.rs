//! What to measure.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Measures the delay tiers: lateness, a burst, faults, and a million waiting records.
#[derive(Debug, Parser)]
#[command(name = "scripts/bench delay")]
pub(crate) struct Arguments {
    /// Items a second in the paced runs
    #[arg(long, value_delimiter = ',', default_values_t = [500.0, 5_000.0])]
    pub(crate) rate: Vec<f64>,
    /// How long each paced run lasts
    #[arg(long, default_value_t = 20.0)]
    pub(crate) seconds: f64,
    /// Rounds of everything that has rounds, interleaved
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
    /// Records that are due at one instant
    #[arg(long, default_value_t = 20_000)]
    pub(crate) burst: usize,
    /// Records that wait in the tier of 30 minutes
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) pending: usize,
    /// How often each fault is tried
    #[arg(long, default_value_t = 3)]
    pub(crate) fault_rounds: usize,
    /// Write everything to this file as one JSON object
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Exit with 1 where a goal is missed
    #[arg(long)]
    pub(crate) check: bool,
    /// Only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) only: Vec<Part>,
    /// Cargo passes it to every bench
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
}

/// A part of the measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// At a given rate, beside plain trips
    Paced,
    /// All due at one instant
    Burst,
    /// Killed, joined by another, with a clock that steps
    Faults,
    /// Beside a tier that is full
    Pending,
}

impl Arguments {
    pub(crate) fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}
