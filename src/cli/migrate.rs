//! `recharged migrate`: brings the store's schema to what this build needs.

use clap::Args;

use super::config::ConfigArgs;
use super::output::{CliError, Output};
use crate::config::Needs;

/// `recharged migrate`.
#[derive(Debug, Clone, Args)]
pub struct MigrateArgs {
    #[command(flatten)]
    pub(crate) from: ConfigArgs,
    /// Only tell what would be done; exit 1 if the schema is not right
    #[arg(long)]
    pub check: bool,
}

#[expect(clippy::unused_async, reason = "what it will do is asynchronous")]
pub(crate) async fn run(args: MigrateArgs, _output: Output) -> Result<(), CliError> {
    args.from.load(Needs::STORE)?;
    Err(super::not_wired("migrate"))
}
