//! `recharged run`: the service.

use clap::{Args, ValueEnum};
use tracing::{error, info};

use super::config::{ConfigArgs, environment};
use super::output::{CliError, Exit, Output};
use crate::app::{self, Plan, StartError};
use crate::config::Needs;
use crate::lifecycle;
use crate::telemetry;

/// A part of the service that scales on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum Role {
    /// Reads orders, stores them, chooses their lane
    Intake,
    /// Claims and calls, within the quota
    Dispatch,
    /// Publishes the event log
    Relay,
}

impl From<Role> for app::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Intake => Self::Intake,
            Role::Dispatch => Self::Dispatch,
            Role::Relay => Self::Relay,
        }
    }
}

/// `recharged run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub(crate) from: ConfigArgs,
    /// The roles of this process; all, if left out
    #[arg(long, value_enum, value_delimiter = ',', value_name = "ROLES")]
    pub roles: Vec<Role>,
}

impl RunArgs {
    /// The roles, each once.
    pub fn roles(&self) -> Vec<app::Role> {
        let chosen = if self.roles.is_empty() { Role::value_variants() } else { self.roles.as_slice() };
        let mut roles: Vec<app::Role> = chosen.iter().copied().map(Into::into).collect();
        roles.sort_unstable();
        roles.dedup();
        roles
    }
}

impl From<StartError> for CliError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Config(message) => Self::config(message),
            StartError::Unreachable(message) => Self::unreachable(message),
            StartError::Failed(message) => Self::failed(message),
        }
    }
}

pub(crate) async fn run(args: RunArgs, _output: Output) -> Result<(), CliError> {
    let loaded = args.from.load(Needs::RUN)?;
    let secrets = loaded.secrets(environment())?;
    telemetry::init(&loaded.config.log).map_err(|error| CliError::config(format!("log.level: {error}")))?;
    let signals =
        lifecycle::signals().map_err(|error| CliError::failed(format!("no signals can be heard ({error})")))?;
    let roles = args.roles();
    let names: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
    info!(version = env!("CARGO_PKG_VERSION"), roles = names.join(","), "starting");
    let plan = Plan { config: loaded.config, secrets, roles, embedded_broker: false, providers: None };
    let app = app::start(plan).await?;
    info!(listen = %app.address, "started");
    let outcome = app.lifecycle.run_until_done(signals).await;
    if let Some(failed) = outcome.failed {
        return Err(CliError::failed(failed));
    }
    if outcome.aborted || !outcome.unfinished.is_empty() {
        error!(unfinished = outcome.unfinished.join(", "), "ended with work under way; it comes again");
    }
    if outcome.aborted { Err(CliError::silent(Exit::Failed)) } else { Ok(()) }
}
