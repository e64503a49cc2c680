//! `recharged orders`: what the store knows, for people and exports.

mod filter;
mod show;

use std::time::{Duration, Instant};

use chrono::SecondsFormat;
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::config::{ConfigArgs, environment};
use super::output::{CliError, Output, csv_text};
use super::values;
use crate::app::{chain, open_checked_store};
use crate::audit::references_of;
use crate::config::{Config, Needs};
use crate::domain::{Currency, Order, OrderId, ProviderId, Reason, Sla, State, Timestamp};
use crate::ports::{OrderFilter, OrderView, Store, StoreError};

pub use filter::{FilterArgs, Refund};

/// Orders read at once.
const PAGE: usize = 1_000;
/// How often somebody who waits hears how far it is.
const TELL_EVERY: Duration = Duration::from_secs(2);

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
    /// Lists orders, by their ids
    ///
    /// Where there are more than --limit, the last line's id is where to go on: --after. No statement takes long, however few
    /// orders are looked for among however many.
    #[command(after_help = "Examples:\n  recharged orders list --state in_doubt --older-than 10m --limit 50\n  \
                            recharged orders list --refund unconfirmed --created-from 2026-01-31T00:00:00Z --json\n  \
                            recharged orders list --after 20260101-000017")]
    List {
        #[command(flatten)]
        #[doc(hidden)]
        from: ConfigArgs,
        #[command(flatten)]
        #[doc(hidden)]
        which: FilterArgs,
        /// Only those behind this id
        #[arg(long, value_name = "ID", value_parser = values::order_id)]
        after: Option<OrderId>,
        /// At most this many
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// Writes orders as JSON Lines or CSV, by their ids, however many
    #[command(after_help = "Examples:\n  recharged orders export --config recharged.toml > orders.jsonl\n  \
                            recharged orders export --format csv --state failed --created-from 2026-01-31T00:00:00Z")]
    Export {
        #[command(flatten)]
        #[doc(hidden)]
        from: ConfigArgs,
        #[command(flatten)]
        #[doc(hidden)]
        which: FilterArgs,
        /// Only those behind this id, where an export was cut short
        #[arg(long, value_name = "ID", value_parser = values::order_id)]
        after: Option<OrderId>,
        /// How each is written
        #[arg(long, value_enum, default_value_t = Format::Jsonl)]
        format: Format,
    },
}

/// How an order is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// An object of JSON a line
    Jsonl,
    /// A line of CSV, below one with the names of its fields
    Csv,
}

pub(crate) async fn run(args: OrdersArgs, output: Output) -> Result<(), CliError> {
    let (OrdersAction::Show { from, .. } | OrdersAction::List { from, .. } | OrdersAction::Export { from, .. }) =
        &args.action;
    let loaded = from.load(Needs::STORE)?;
    let secrets = loaded.secrets(environment())?;
    let store = open_checked_store(&loaded.config, &secrets).await?;
    match &args.action {
        OrdersAction::Show { id, .. } => show::show(store.as_ref(), id, output).await,
        OrdersAction::List { which, after, limit, .. } => {
            let filter = filter(which, store.as_ref(), &loaded.config).await?;
            list(&mut Pages { store: store.as_ref(), filter, after: after.clone() }, *limit, output).await
        }
        OrdersAction::Export { which, after, format, .. } => {
            let filter = filter(which, store.as_ref(), &loaded.config).await?;
            export(&mut Pages { store: store.as_ref(), filter, after: after.clone() }, *format, output).await
        }
    }
}

async fn filter(which: &FilterArgs, store: &dyn Store, config: &Config) -> Result<OrderFilter, CliError> {
    let now = store.now().await.map_err(|error| trouble(&error))?;
    which.filter(now, config.providers.keys().map(String::as_str))
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

/// The names of the fields of CSV, which are those of JSON.
const CSV_HEADER: &str = "order_id,state,reason,attempt,version,provider,client_refs,amount_minor,currency,created_at,paid_at,\
                          deadline_at,closed_at,sla,refund_requested,refund_id,case_open";

impl Row {
    fn csv(&self) -> String {
        fn or_empty(text: Option<&str>) -> &str {
            text.unwrap_or_default()
        }
        let references: Vec<String> = self.client_refs.iter().map(|reference| csv_text(reference)).collect();
        [
            self.order_id.as_str(),
            self.state.as_str(),
            or_empty(self.reason.map(Reason::as_str)),
            &self.attempt.to_string(),
            &self.version.to_string(),
            or_empty(self.provider.as_ref().map(ProviderId::as_str)),
            &references.join(" "),
            &self.amount_minor.to_string(),
            self.currency.as_str(),
            &self.created_at,
            or_empty(self.paid_at.as_deref()),
            &self.deadline_at,
            or_empty(self.closed_at.as_deref()),
            or_empty(self.sla.map(Sla::as_str)),
            if self.refund_requested { "true" } else { "false" },
            &self.refund_id.as_deref().map(csv_text).unwrap_or_default(),
            if self.case_open { "true" } else { "false" },
        ]
        .join(",")
    }
}

/// What a filter keeps, page by page.
struct Pages<'a> {
    store: &'a dyn Store,
    filter: OrderFilter,
    after: Option<OrderId>,
}

impl Pages<'_> {
    /// The next page, and whether others follow.
    async fn next(&mut self, limit: usize) -> Result<(Vec<OrderView>, bool), CliError> {
        let page = self.store.page(&self.filter, self.after.as_ref(), limit).await.map_err(|error| trouble(&error))?;
        let is_more = page.next.is_some();
        if is_more {
            self.after = page.next;
        }
        Ok((page.orders, is_more))
    }

    /// As programs read them.
    async fn rows(&self, page: &[OrderView]) -> Result<Vec<Row>, CliError> {
        let references = references_of(self.store, page.iter().map(|view| &view.order)).await;
        let references = references.map_err(|error| trouble(&error))?;
        Ok(page.iter().zip(references).map(|(view, references)| Row::of(view, references)).collect())
    }
}

async fn export(pages: &mut Pages<'_>, format: Format, output: Output) -> Result<(), CliError> {
    if format == Format::Csv {
        output.line(CSV_HEADER)?;
    }
    let (mut written, mut told) = (0_u64, Instant::now());
    loop {
        let (page, is_more) = pages.next(PAGE).await?;
        for row in pages.rows(&page).await? {
            match format {
                Format::Jsonl => output.object(&row)?,
                Format::Csv => output.line(row.csv())?,
            }
        }
        written += page.len() as u64;
        if !is_more {
            break;
        }
        if told.elapsed() > TELL_EVERY {
            told = Instant::now();
            let behind = pages.after.as_ref().map(OrderId::as_str).unwrap_or_default();
            output.progress(format_args!("{written} orders written, up to {behind}"));
        }
    }
    output.progress(format_args!("{written} orders written"));
    Ok(())
}

async fn list(pages: &mut Pages<'_>, limit: u32, output: Output) -> Result<(), CliError> {
    if !output.json {
        output.line(format_args!(
            "{:<32} {:<16} {:<22} {:>12} {:<4} {:>7}  {}",
            "ORDER", "STATE", "REASON", "AMOUNT", "", "ATTEMPT", "DEADLINE"
        ))?;
    }
    let (mut left, mut told) = (usize::try_from(limit).unwrap_or(usize::MAX), Instant::now());
    loop {
        let (page, is_more) = pages.next(PAGE.min(left)).await?;
        if output.json {
            for row in pages.rows(&page).await? {
                output.object(&row)?;
            }
        } else {
            for order in page.iter().map(|view| &view.order) {
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
        left -= page.len();
        let behind = pages.after.as_ref().map(OrderId::as_str).unwrap_or_default();
        if !is_more {
            return Ok(());
        }
        if left == 0 {
            output.progress(format_args!("there may be more: go on with --after {behind}, or raise --limit"));
            return Ok(());
        }
        if told.elapsed() > TELL_EVERY {
            told = Instant::now();
            output.progress(format_args!("looked up to {behind}"));
        }
    }
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
