//! `recharged simulate`: the provider simulator as a server.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::output::{CliError, Output};
use crate::app::chain;
use crate::clock::SystemClock;
use crate::config::{LogConfig, LogFormat};
use crate::lifecycle;
use crate::providers::Secret;
use crate::providers::simulator::{Profile, Script, Simulator, SimulatorError, SimulatorOptions};
use crate::telemetry;

/// `recharged simulate`.
#[derive(Debug, Clone, Args)]
pub struct SimulateArgs {
    /// Where it answers; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9500")]
    pub listen: SocketAddr,
    /// How it behaves (TOML); well, if left out
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,
    /// Where it writes what it really delivered, for `audit`
    #[arg(long, value_name = "FILE")]
    pub ledger: Option<PathBuf>,
    /// Where it writes when each request arrived
    #[arg(long, value_name = "FILE")]
    pub requests: Option<PathBuf>,
    /// The key that callers must show
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Seed of everything that looks random; a random one, if left out
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

#[derive(Serialize)]
struct Listening {
    base_url: String,
    seed: u64,
}

impl std::fmt::Display for Listening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "simulating a provider at {} (seed {})", self.base_url, self.seed)
    }
}

pub(crate) async fn run(args: SimulateArgs, output: Output) -> Result<(), CliError> {
    telemetry::init(&LogConfig { format: LogFormat::Pretty, level: "warn".to_owned() })
        .map_err(|error| CliError::failed(error.to_string()))?;
    let read = |flag: &str, path: &PathBuf| {
        std::fs::read_to_string(path)
            .map_err(|error| CliError::config(format!("{flag} {}: cannot be read ({error})", path.display())))
    };
    let profile = match &args.profile {
        None => Profile::default(),
        Some(path) => Profile::from_toml(&read("--profile", path)?)
            .map_err(|error| CliError::config(format!("--profile {}: {}", path.display(), chain(&error))))?,
    };
    let key = args.key_file.as_ref().map(|path| read("--key-file", path)).transpose()?;
    let options = SimulatorOptions {
        listen: args.listen,
        profile,
        script: Script::default(),
        balance: None,
        ledger: args.ledger,
        requests: args.requests,
        seed: args.seed,
        key: key.map(|text| Secret::new(text.trim_end())),
    };
    let mut signals =
        lifecycle::signals().map_err(|error| CliError::failed(format!("no signals can be heard ({error})")))?;
    let simulator = Simulator::start(options, Arc::new(SystemClock::new())).await.map_err(|error| match &error {
        SimulatorError::Listen { .. } => {
            CliError::config(format!("--listen {}: free the port or give another address", chain(&error)))
        }
        SimulatorError::Profile(_)
        | SimulatorError::Script(_)
        | SimulatorError::Ledger(_)
        | SimulatorError::Requests { .. }
        | SimulatorError::Recovery => CliError::config(chain(&error)),
    })?;
    output.result(&Listening { base_url: simulator.base_url(), seed: simulator.seed() })?;
    let _signal = signals.recv().await;
    let stats = simulator.stats();
    simulator.shutdown().await;
    if output.json { output.object(&stats) } else { output.line(format_args!("{stats:#?}")) }
}
