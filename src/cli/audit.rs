//! `recharged audit`: the store against what a simulator really delivered.

use std::path::PathBuf;

use clap::Args;

use super::config::ConfigArgs;
use super::output::{CliError, Output};
use crate::config::Needs;

/// `recharged audit`.
#[derive(Debug, Clone, Args)]
pub struct AuditArgs {
    #[command(flatten)]
    pub(crate) from: ConfigArgs,
    /// The simulator's ledger
    #[arg(long, value_name = "FILE")]
    pub ledger: PathBuf,
}

#[expect(clippy::unused_async, reason = "what it will do is asynchronous")]
pub(crate) async fn run(args: AuditArgs, _output: Output) -> Result<(), CliError> {
    args.from.load(Needs::STORE)?;
    Err(super::not_wired("audit"))
}
