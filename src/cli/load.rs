//! `recharged load`: a shop that sends orders.

use std::time::Duration;

use clap::Args;

use super::config::ConfigArgs;
use super::output::{CliError, Output};
use super::values;
use crate::config::Needs;

/// `recharged load`.
#[derive(Debug, Clone, Args)]
pub struct LoadArgs {
    #[command(flatten)]
    pub(crate) from: ConfigArgs,
    /// Orders a second, each sent at its intended time whatever became of the others
    #[arg(long, value_name = "N", default_value_t = 100.0, value_parser = values::rate)]
    pub rate: f64,
    /// Orders in all; without it, until --duration
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), required_unless_present = "duration")]
    pub orders: Option<u64>,
    /// How long to send; without it, until --orders
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub duration: Option<Duration>,
    /// Seed of numbers and amounts; a random one, if left out
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

#[expect(clippy::unused_async, reason = "what it will do is asynchronous")]
pub(crate) async fn run(args: LoadArgs, _output: Output) -> Result<(), CliError> {
    args.from.load(Needs::KAFKA)?;
    Err(super::not_wired("load"))
}
