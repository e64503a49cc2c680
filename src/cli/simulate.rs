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
use crate::domain::Currency;
use crate::lifecycle;
use crate::providers::Secret;
use crate::providers::simulator::{
    CallbackUrl, Dialect, Profile, Script, Simulator, SimulatorError, SimulatorOptions, Stats, Strike,
};
use crate::telemetry;

pub(super) const EXAMPLES: &str = "\
Example:
  recharged simulate --listen 127.0.0.1:9500 --ledger ledger.jsonl --profile bad-day.toml --script script.toml

A profile has only what differs from a provider that works:
  accepted_first = 0.3
  [faults.hang]
  after = 0.01                  # executed, and never answered
  [outcomes]
  never = 0.001                 # accepted, and never completed

A script says what certain submits meet:
  [[step]]
  order = \"order-7\"             # or client_ref = \"order-7-1\", or next = 3
  then = \"faults.reset.after\"   # a class of trouble, \"deliver\" or \"accept\"

In the words of a real provider, for trying its adapter:
  recharged simulate --dialect dtone --account us --key-file key --currency SGD

With callbacks, signed as the dialect has it:
  recharged simulate --callback-key-file key --callback-url http://127.0.0.1:9600/x --profile told.toml
where told.toml has
  [callbacks]
  enabled = true
  lost = 0.05                   # never sent
  forged = 0.01                 # besides, somebody else says the opposite with a wrong signature

While it runs:
  curl -X PUT --data-binary @bad-day.toml http://127.0.0.1:9500/_admin/profile
  curl http://127.0.0.1:9500/_admin/strikes

docs/SIMULATOR.md has every class of trouble and all of the administration.";

/// `recharged simulate`.
#[derive(Debug, Clone, Args)]
pub struct SimulateArgs {
    /// Where it answers; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9500")]
    pub listen: SocketAddr,
    /// How it behaves (TOML); well, if left out. May be changed while it runs: PUT /_admin/profile
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,
    /// What certain references, orders, or the next submits are to meet (TOML); more while it runs: POST /_admin/script
    #[arg(long, value_name = "FILE")]
    pub script: Option<PathBuf>,
    /// Our balance there, in minor units; without end, if left out. May be changed while it runs: PUT /_admin/balance
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    pub balance: Option<i64>,
    /// Where it writes what it really delivered, for `audit`
    #[arg(long, value_name = "FILE")]
    pub ledger: Option<PathBuf>,
    /// Where it writes when each request arrived
    #[arg(long, value_name = "FILE")]
    pub requests: Option<PathBuf>,
    /// Whose protocol it speaks
    #[arg(long, value_name = "NAME", value_parser = dialect, default_value = "simulator")]
    pub dialect: Dialect,
    /// The account that callers must name; any, if left out
    #[arg(long, value_name = "NAME")]
    pub account: Option<String>,
    /// The key that callers must show, or sign with
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// The currency of amounts that a dialect sends without one
    #[arg(long, value_name = "CODE", value_parser = Currency::parse, default_value = "CNY")]
    pub currency: Currency,
    /// Where callbacks go whose submit named no address. Plain HTTP: TLS is ended in front of whoever takes them. The
    /// profile says under callbacks whether there are any
    #[arg(long, value_name = "URL", value_parser = CallbackUrl::parse)]
    pub callback_url: Option<CallbackUrl>,
    /// What callbacks are signed with; the key of --key-file, if left out
    #[arg(long, value_name = "FILE")]
    pub callback_key_file: Option<PathBuf>,
    /// Seed of everything that looks random; a random one, if left out
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

fn dialect(text: &str) -> Result<Dialect, String> {
    let names = || Dialect::ALL.map(Dialect::as_str).join(", ");
    Dialect::parse(text).ok_or_else(|| format!("no dialect is called {text:?}: give one of {}", names()))
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

/// What it did.
#[derive(Serialize)]
struct Ended {
    #[serde(flatten)]
    counts: Stats,
    /// The classes of trouble that struck somebody.
    strikes: Vec<Strike>,
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#?}", self.counts)?;
        for strike in &self.strikes {
            write!(f, "\n{:<34} {} requests, {} orders", strike.class.as_str(), strike.requests, strike.orders)?;
        }
        Ok(())
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
    let script = match &args.script {
        None => Script::default(),
        Some(path) => Script::from_toml(&read("--script", path)?)
            .map_err(|error| CliError::config(format!("--script {}: {}", path.display(), chain(&error))))?,
    };
    let key = args.key_file.as_ref().map(|path| read("--key-file", path)).transpose()?;
    let callback_key = args.callback_key_file.as_ref().map(|path| read("--callback-key-file", path)).transpose()?;
    let options = SimulatorOptions {
        listen: args.listen,
        profile,
        script,
        balance: args.balance,
        ledger: args.ledger,
        requests: args.requests,
        seed: args.seed,
        dialect: args.dialect,
        account: args.account,
        key: key.map(|text| Secret::new(text.trim_end())),
        currency: args.currency,
        callback_url: args.callback_url,
        callback_key: callback_key.map(|text| Secret::new(text.trim_end())),
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
    let (counts, mut strikes) = (simulator.stats(), simulator.strikes());
    simulator.shutdown().await;
    strikes.retain(|strike| strike.requests > 0);
    output.result(&Ended { counts, strikes })
}
