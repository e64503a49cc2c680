//! `recharged demo`: everything in one process, on embedded parts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::output::{CliError, Output};
use super::values;

/// How badly the simulated provider behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Faults {
    /// Not at all
    None,
    /// Declines, time-outs and lost answers now and then
    Some,
    /// All of it, often
    Storm,
}

/// `recharged demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Orders to send
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub orders: u64,
    /// Orders a second
    #[arg(long, value_name = "N", default_value_t = 500.0, value_parser = values::rate)]
    pub rate: f64,
    /// How badly the simulated provider behaves
    #[arg(long, value_enum, default_value_t = Faults::Some)]
    pub faults: Faults,
    /// Seed of everything that is random; a random one, if left out
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Time from payment to the deadline
    #[arg(long, value_name = "TIME", default_value = "180s", value_parser = values::duration)]
    pub sla: Duration,
    /// The provider's quota, in calls a second; a little above the rate, if left out
    #[arg(long, value_name = "N", value_parser = values::rate)]
    pub quota: Option<f64>,
    /// Brokers to use in place of the embedded one
    #[arg(long, value_name = "BROKERS")]
    pub kafka: Option<String>,
    /// Database to use in place of the embedded one
    #[arg(long, value_name = "URL")]
    pub database: Option<String>,
    /// Where probes and metrics are served
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9400")]
    pub listen: SocketAddr,
    /// Go on serving after the load
    #[arg(long)]
    pub keep: bool,
    /// Also write the report, as JSON, to this file
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

#[expect(clippy::unused_async, reason = "what it will do is asynchronous")]
pub(crate) async fn run(_args: DemoArgs, _output: Output) -> Result<(), CliError> {
    Err(super::not_wired("demo"))
}
