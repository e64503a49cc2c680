//! `recharged run`: the service.

use clap::{Args, ValueEnum};

use super::config::ConfigArgs;
use super::output::{CliError, Output};
use crate::config::Needs;

/// A part of the service that scales on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum Role {
    /// Reads orders, stores them, chooses their lane
    Intake,
    /// Claims and calls, within the quota
    Dispatch,
    /// Forwards what is due
    Delay,
    /// Decides at deadlines and repairs
    Watchdog,
    /// Publishes the event log
    Relay,
    /// Receives the providers' callbacks
    Callback,
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
    pub fn roles(&self) -> Vec<Role> {
        let mut roles = if self.roles.is_empty() { Role::value_variants().to_vec() } else { self.roles.clone() };
        roles.sort_unstable();
        roles.dedup();
        roles
    }
}

#[expect(clippy::unused_async, reason = "what it will do is asynchronous")]
pub(crate) async fn run(args: RunArgs, _output: Output) -> Result<(), CliError> {
    args.from.load(Needs::RUN)?;
    Err(super::not_wired("run"))
}
