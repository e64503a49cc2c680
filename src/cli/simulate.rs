//! `recharged simulate`: the provider simulator as a server.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::output::{CliError, Output};

/// Whose API the simulator speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dialect {
    /// Its own, for `kind = "simulator"`
    Simulator,
    /// DT One DVS
    Dtone,
    /// mf178
    Mf178,
}

/// `recharged simulate`.
#[derive(Debug, Clone, Args)]
pub struct SimulateArgs {
    /// Where it answers
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9500")]
    pub listen: SocketAddr,
    /// Whose API it speaks
    #[arg(long, value_enum, default_value_t = Dialect::Simulator)]
    pub dialect: Dialect,
    /// How it behaves; well, if left out
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,
    /// Where it writes what it really delivered, for `audit`
    #[arg(long, value_name = "FILE")]
    pub ledger: Option<PathBuf>,
    /// Seed of what it does; a random one, if left out
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

#[expect(clippy::unused_async, reason = "what it will do is asynchronous")]
pub(crate) async fn run(_args: SimulateArgs, _output: Output) -> Result<(), CliError> {
    Err(super::not_wired("simulate"))
}
