//! `recharged orders`: what the store knows, for people and exports; and orders out of another store.

mod import;
mod show;

use std::sync::Arc;
use std::time::Duration;

use chrono::SecondsFormat;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::config::{ConfigArgs, environment};
use super::output::{CliError, Output};
use super::values;
use crate::app::{chain, open_checked_store};
use crate::audit::references_of;
use crate::config::Needs;
use crate::domain::{Currency, Order, OrderId, ProviderId, Reason, Sla, State, Timestamp};
use crate::ports::{OrderFilter, OrderView, Store, StoreError};

/// Orders read at once.
const PAGE: usize = 1_000;

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
    /// Brings in open orders from a file, as the events that a shop would have sent
    ///
    /// The whole file is looked at before anything is sent: each line that is wrong is told with its field and the rule, and
    /// then nothing is sent. What is there already is not sent again, so that the command may be repeated.
    #[command(after_help = import::EXAMPLES)]
    Import {
        #[command(flatten)]
        #[doc(hidden)]
        from: ConfigArgs,
        #[command(flatten)]
        #[doc(hidden)]
        what: import::ImportArgs,
    },
    /// Writes every order as JSON Lines
    #[command(after_help = "Example:\n  recharged orders export --config recharged.toml > orders.jsonl")]
    Export {
        #[command(flatten)]
        #[doc(hidden)]
        from: ConfigArgs,
    },
}

pub(crate) async fn run(args: OrdersArgs, output: Output) -> Result<(), CliError> {
    match &args.action {
        OrdersAction::Show { from, id } => show::show(open(from).await?.as_ref(), id, output).await,
        OrdersAction::List { from, state, older_than, limit } => {
            let store = open(from).await?;
            let now = store.now().await.map_err(|error| trouble(&error))?;
            let filter = OrderFilter {
                states: state.clone(),
                created_before: older_than.map(|age| now - age),
                ..OrderFilter::default()
            };
            list(store.as_ref(), &filter, *limit, output).await
        }
        OrdersAction::Import { from, what } => import::run(from, what, output).await,
        OrdersAction::Export { from } => export(open(from).await?.as_ref(), output).await,
    }
}

async fn open(from: &ConfigArgs) -> Result<Arc<dyn Store>, CliError> {
    let loaded = from.load(Needs::STORE)?;
    let secrets = loaded.secrets(environment())?;
    Ok(open_checked_store(&loaded.config, &secrets).await?)
}

pub(in crate::cli) fn trouble(error: &StoreError) -> CliError {
    let said = format!("store.url: {}", chain(error));
    if error.is_transient() { CliError::unreachable(said) } else { CliError::failed(said) }
}

/// An order as programs read it (`interface.md` section 1).
#[derive(Serialize)]
struct Row {
    order_id: OrderId,
    state: State,
    reason: Option<Reason>,
    attempt: u16,
    version: u32,
    provider: Option<ProviderId>,
    client_refs: Vec<String>,
    amount_minor: i64,
    currency: Currency,
    created_at: String,
    paid_at: Option<String>,
    deadline_at: String,
    closed_at: Option<String>,
    sla: Option<Sla>,
    refund_requested: bool,
    refund_id: Option<String>,
    case_open: bool,
}

impl Row {
    fn of(view: &OrderView, client_refs: Vec<String>) -> Self {
        let order = &view.order;
        Self {
            order_id: order.order_id.clone(),
            state: order.state,
            reason: order.reason,
            attempt: order.attempt_number(),
            version: order.version,
            provider: order.provider.clone(),
            client_refs,
            amount_minor: order.amount.minor,
            currency: order.amount.currency,
            created_at: time(order.created_at),
            paid_at: order.paid_at.map(time),
            deadline_at: time(order.deadline_at),
            closed_at: order.closed_at.map(time),
            sla: order.sla,
            refund_requested: order.refund_requested,
            refund_id: order.refund_id.as_deref().map(str::to_owned),
            case_open: view.case_open,
        }
    }
}

pub(in crate::cli) fn time(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

async fn export(store: &dyn Store, output: Output) -> Result<(), CliError> {
    let mut after: Option<OrderId> = None;
    let mut written = 0_u64;
    loop {
        let page = store.page(&OrderFilter::default(), after.as_ref(), PAGE).await.map_err(|error| trouble(&error))?;
        let Some(last) = page.last() else { break };
        after = Some(last.order.order_id.clone());
        for view in &page {
            let references = references_of(store, &view.order).await.map_err(|error| trouble(&error))?;
            output.object(&Row::of(view, references))?;
        }
        written += page.len() as u64;
        if written.is_multiple_of(100 * PAGE as u64) {
            output.progress(format_args!("{written} orders written"));
        }
    }
    output.progress(format_args!("{written} orders written"));
    Ok(())
}

async fn list(store: &dyn Store, filter: &OrderFilter, limit: u32, output: Output) -> Result<(), CliError> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let page = store.page(filter, None, limit).await.map_err(|error| trouble(&error))?;
    if !output.json {
        output.line(format_args!(
            "{:<32} {:<16} {:<22} {:>12} {:<4} {:>7}  {}",
            "ORDER", "STATE", "REASON", "AMOUNT", "", "ATTEMPT", "DEADLINE"
        ))?;
    }
    for view in &page {
        let order = &view.order;
        if output.json {
            let references = references_of(store, order).await.map_err(|error| trouble(&error))?;
            output.object(&Row::of(view, references))?;
        } else {
            output.line(format_args!(
                "{:<32} {:<16} {:<22} {:>12} {:<4} {:>7}  {}",
                order.order_id.as_str(),
                order.state.as_str(),
                order.reason.map_or("-", Reason::as_str),
                order.amount.minor,
                order.amount.currency.as_str(),
                order.attempt_number(),
                time(order.deadline_at)
            ))?;
        }
    }
    if page.len() == limit {
        output.progress(format_args!("there may be more: raise --limit, or use `recharged orders export`"));
    }
    Ok(())
}

/// Where an order stands, for somebody who reads it at 3 a.m.
pub(in crate::cli) fn in_words(order: &Order) -> String {
    let why = order.reason.map_or(String::new(), |reason| format!(" ({reason})"));
    let words = match order.state {
        State::AwaitingPayment => "not paid yet",
        State::Queued => "paid, waits for its first call",
        State::InFlight => "a call was made, its outcome is not known yet",
        State::RetryWait => "the last call had no effect, waits for the next one",
        State::InDoubt => "the deadline passed and only the provider knows the outcome",
        State::Succeeded => "delivered",
        State::Failed if order.refund_id.is_some() => "not delivered, refunded",
        State::Failed => "not delivered, refund requested",
        State::Cancelled if order.refund_id.is_some() => "cancelled before payment, refunded",
        State::Cancelled if order.refund_requested => "cancelled before payment, refund requested",
        State::Cancelled => "cancelled before payment",
    };
    format!("{}: {words}{why}", order.state)
}
