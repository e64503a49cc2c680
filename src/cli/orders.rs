//! `recharged orders`: what the store knows, for people and exports.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::config::ConfigArgs;
use super::output::{CliError, Output};
use super::values;
use crate::config::Needs;
use crate::domain::{OrderId, State};

/// `recharged orders`.
#[derive(Debug, Clone, Args)]
pub struct OrdersArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: OrdersAction,
}

/// What to do with the orders.
#[derive(Debug, Clone, Subcommand)]
pub enum OrdersAction {
    /// Shows one order's state and timeline
    #[command(after_help = "Example:\n  recharged orders show 20260101-000017 --config recharged.toml")]
    Show {
        #[command(flatten)]
        #[doc(hidden)]
        from: ConfigArgs,
        /// The shop's order id
        #[arg(value_parser = values::order_id)]
        id: OrderId,
    },
    /// Lists orders
    #[command(after_help = "Example:\n  recharged orders list --state in_doubt --older-than 10m --limit 50")]
    List {
        #[command(flatten)]
        #[doc(hidden)]
        from: ConfigArgs,
        /// Only in these states; may be repeated, or separated by commas
        #[arg(long, value_name = "STATE", value_delimiter = ',', value_parser = values::state)]
        state: Vec<State>,
        /// Only those that were created longer ago than this
        #[arg(long, value_name = "TIME", value_parser = values::duration)]
        older_than: Option<Duration>,
        /// At most this many
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// Writes every order as JSON Lines
    #[command(after_help = "Example:\n  recharged orders export --config recharged.toml > orders.jsonl")]
    Export {
        #[command(flatten)]
        #[doc(hidden)]
        from: ConfigArgs,
    },
}

#[expect(clippy::unused_async, reason = "what it will do is asynchronous")]
pub(crate) async fn run(args: OrdersArgs, _output: Output) -> Result<(), CliError> {
    let (OrdersAction::Show { from, .. } | OrdersAction::List { from, .. } | OrdersAction::Export { from }) =
        &args.action;
    from.load(Needs::STORE)?;
    Err(super::not_wired("orders"))
}
