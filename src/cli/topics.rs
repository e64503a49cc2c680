//! `recharged topics`: makes the topics, or holds them against the configuration.

use clap::{Args, Subcommand};

use super::config::ConfigArgs;
use super::output::{CliError, Output};
use crate::config::Needs;

/// `recharged topics`.
#[derive(Debug, Clone, Args)]
pub struct TopicsArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: TopicsAction,
}

/// What to do with the topics.
#[derive(Debug, Clone, Subcommand)]
pub enum TopicsAction {
    /// Makes what is missing; never shrinks or deletes
    #[command(after_help = "Example:\n  recharged topics create --config recharged.toml")]
    Create {
        #[command(flatten)]
        #[doc(hidden)]
        from: ConfigArgs,
    },
    /// Compares partitions, replication, retention and sizes; exit 1 on any difference
    #[command(after_help = "Example:\n  recharged topics verify --config recharged.toml")]
    Verify {
        #[command(flatten)]
        #[doc(hidden)]
        from: ConfigArgs,
    },
}

#[expect(clippy::unused_async, reason = "what it will do is asynchronous")]
pub(crate) async fn run(args: TopicsArgs, _output: Output) -> Result<(), CliError> {
    let (TopicsAction::Create { from } | TopicsAction::Verify { from }) = &args.action;
    from.load(Needs::KAFKA)?;
    Err(super::not_wired("topics"))
}
