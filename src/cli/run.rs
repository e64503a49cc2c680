//! `recharged run`: the service.

use clap::{Args, ValueEnum};
use tracing::{error, info};

use super::config::{ConfigArgs, environment};
use super::output::{CliError, Exit, Output};
use crate::app::{self, Plan, StartError};
use crate::config::Needs;
use crate::lifecycle::{self, Outcome};
use crate::telemetry;

/// A part of the service that scales on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum Role {
    /// Reads orders, stores them, chooses their lane
    Intake,
    /// Claims and calls, within the quota
    Dispatch,
    /// Forwards delayed records when they are due
    Delay,
    /// Decides every order at its deadline
    Watchdog,
    /// Publishes the event log
    Relay,
    /// Takes the providers' callbacks
    Callback,
}

impl From<Role> for app::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Intake => Self::Intake,
            Role::Dispatch => Self::Dispatch,
            Role::Delay => Self::Delay,
            Role::Watchdog => Self::Watchdog,
            Role::Relay => Self::Relay,
            Role::Callback => Self::Callback,
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
            StartError::Unreachable(message) | StartError::NoBroker(message) => Self::unreachable(message),
            StartError::Failed(message) => Self::failed(message),
        }
    }
}

pub(crate) async fn run(args: RunArgs, _output: Output) -> Result<(), CliError> {
    let loaded = args.from.load(Needs::RUN)?;
    let secrets = loaded.secrets(environment())?;
    telemetry::init(&loaded.config.log).map_err(|error| CliError::config(format!("log.level: {error}")))?;
    let mut signals =
        lifecycle::signals().map_err(|error| CliError::failed(format!("no signals can be heard ({error})")))?;
    let roles = args.roles();
    let names: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
    info!(version = env!("CARGO_PKG_VERSION"), roles = names.join(","), "starting");
    let plan = Plan { config: loaded.config, secrets, roles, embedded_broker: false, providers: None };
    told(app::run(plan, &mut signals).await?)
}

/// What the exit code says of an end; the log says the same. What is left behind is never lost,
/// so a failure of the process's own stands before it.
pub(crate) fn told(outcome: Outcome) -> Result<(), CliError> {
    if let Some(failed) = outcome.failed {
        return Err(CliError::failed(failed));
    }
    if outcome.aborted {
        error!(unfinished = outcome.unfinished.join(", "), "ended at once, with work under way; it comes again");
        return Err(CliError::silent(Exit::Failed));
    }
    if !outcome.unfinished.is_empty() {
        let unfinished = outcome.unfinished.join(", ");
        return Err(CliError::failed(format!("did not end in time: {unfinished}; what they had in hand comes again")));
    }
    if !outcome.left.is_empty() {
        let left = outcome.left.join("; ");
        return Err(CliError::unreachable(format!("not everything could be written or published: {left}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_says_how_the_process_ended() {
        let code = |outcome| told(outcome).map_or_else(|error| error.exit, |()| Exit::Done);
        let left = vec!["relay: the log".to_owned()];
        assert_eq!(code(Outcome::default()), Exit::Done);
        assert_eq!(code(Outcome { left: left.clone(), ..Outcome::default() }), Exit::Unreachable);
        assert_eq!(code(Outcome { unfinished: vec!["relay"], left: left.clone(), ..Outcome::default() }), Exit::Failed);
        assert_eq!(code(Outcome { aborted: true, ..Outcome::default() }), Exit::Failed);
        assert_eq!(code(Outcome { failed: Some("x".to_owned()), left, ..Outcome::default() }), Exit::Failed);
    }
}
