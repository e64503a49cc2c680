//! `recharged orders`: what the store knows, for people and exports.

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
use crate::domain::{CaseKind, Currency, LoggedEvent, Order, OrderId, ProviderId, Reason, Sla, State, Timestamp};
use crate::ports::{Became, NotedCallback, OrderFilter, OrderView, Store, StoreError};

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
    /// Writes every order as JSON Lines
    #[command(after_help = "Example:\n  recharged orders export --config recharged.toml > orders.jsonl")]
    Export {
        #[command(flatten)]
        #[doc(hidden)]
        from: ConfigArgs,
    },
}

pub(crate) async fn run(args: OrdersArgs, output: Output) -> Result<(), CliError> {
    let (OrdersAction::Show { from, .. } | OrdersAction::List { from, .. } | OrdersAction::Export { from }) =
        &args.action;
    let loaded = from.load(Needs::STORE)?;
    let secrets = loaded.secrets(environment())?;
    let store = open_checked_store(&loaded.config, &secrets).await?;
    match &args.action {
        OrdersAction::Show { id, .. } => show(store.as_ref(), id, output).await,
        OrdersAction::List { state, older_than, limit, .. } => {
            let now = store.now().await.map_err(|error| trouble(&error))?;
            let filter = OrderFilter {
                states: state.clone(),
                created_before: older_than.map(|age| now - age),
                ..OrderFilter::default()
            };
            list(store.as_ref(), &filter, *limit, output).await
        }
        OrdersAction::Export { .. } => export(store.as_ref(), output).await,
    }
}

pub(super) fn trouble(error: &StoreError) -> CliError {
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
            case_open: view.case_open,
        }
    }
}

pub(super) fn time(at: Timestamp) -> String {
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

#[derive(Serialize)]
struct Story {
    #[serde(flatten)]
    row: Row,
    timeline: Vec<Step>,
    callbacks: Vec<Call>,
}

/// What a provider told of its own accord.
#[derive(Serialize)]
struct Call {
    at: String,
    provider: ProviderId,
    attempt: u16,
    said: String,
    became: Became,
}

impl From<NotedCallback> for Call {
    fn from(noted: NotedCallback) -> Self {
        let NotedCallback { attempt, provider, said, became, at, .. } = noted;
        Self { at: time(at), provider, attempt, said, became }
    }
}

#[derive(Serialize)]
struct Step {
    version: u32,
    event: &'static str,
    at: String,
    /// Since the step before, s.
    after_seconds: f64,
    state: State,
    attempt: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wake_at: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    refund_requested: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cases_opened: Vec<CaseKind>,
}

async fn show(store: &dyn Store, id: &OrderId, output: Output) -> Result<(), CliError> {
    let filter = OrderFilter { ids: vec![id.clone()], ..OrderFilter::default() };
    let found = store.page(&filter, None, 1).await.map_err(|error| trouble(&error))?;
    let Some(view) = found.into_iter().next() else {
        return Err(CliError::failed(format!(
            "there is no order {id} in the store: it was never accepted, or it is older than the retention"
        )));
    };
    let log = store.timeline(id).await.map_err(|error| trouble(&error))?;
    let references = references_of(store, &view.order).await.map_err(|error| trouble(&error))?;
    let mut before: Option<Timestamp> = None;
    let timeline: Vec<Step> = log.iter().map(|event| step(event, &mut before)).collect();
    let called = store.callbacks_of(id).await.map_err(|error| trouble(&error))?;
    let callbacks: Vec<Call> = called.into_iter().map(Into::into).collect();
    if output.json {
        return output.object(&Story { row: Row::of(&view, references), timeline, callbacks });
    }
    tell(&view, &references, &timeline, output)?;
    for call in &callbacks {
        let Call { at, provider, attempt, said, became } = call;
        output.line(format_args!(
            "     {at}  {provider} called: attempt {attempt} {said}; {}",
            became_in_words(*became)
        ))?;
    }
    Ok(())
}

fn became_in_words(became: Became) -> &'static str {
    match became {
        Became::Settled => "signed, so it was decided on",
        Became::Asked => "not proven, so the provider was asked at once",
        Became::Confirming => "not proven, and nobody asked about that attempt any more, so somebody was told to ask",
        Became::Known => "nothing new",
    }
}

fn step(event: &LoggedEvent, before: &mut Option<Timestamp>) -> Step {
    let since = before.replace(event.at).map_or(0.0, |earlier| (event.at - earlier).as_seconds_f64());
    Step {
        version: event.version,
        event: event.kind.as_str(),
        at: time(event.at),
        after_seconds: since,
        state: event.data.state,
        attempt: event.data.attempt,
        cause: event.data.cause.clone(),
        wake_at: event.data.wake_at.map(time),
        refund_requested: event.data.refund.is_some(),
        cases_opened: event.data.cases_opened.clone(),
    }
}

fn tell(view: &OrderView, references: &[String], timeline: &[Step], output: Output) -> Result<(), CliError> {
    let order = &view.order;
    output.line(format_args!("order     {}   {}", order.order_id, in_words(order)))?;
    output.line(format_args!("for       {}   {}", order.recipient, order.amount))?;
    output.line(format_args!("created   {}", time(order.created_at)))?;
    output.line(format_args!("paid      {}", order.paid_at.map_or("not yet".to_owned(), time)))?;
    output.line(format_args!(
        "deadline  {}   {}",
        time(order.deadline_at),
        order.sla.map_or("not decided yet", Sla::as_str)
    ))?;
    if let Some(provider) = &order.provider {
        output.line(format_args!("provider  {provider}   references {}", references.join(", ")))?;
    }
    output.line("")?;
    for step in timeline {
        let mut notes = String::new();
        for note in [
            (step.attempt > 0).then(|| format!(" attempt {}", step.attempt)),
            step.cause.as_ref().map(|cause| format!("  because {cause}")),
            step.wake_at.as_ref().map(|at| format!("  next at {at}")),
            step.refund_requested.then(|| "  refund requested".to_owned()),
        ]
        .into_iter()
        .flatten()
        {
            notes.push_str(&note);
        }
        for case in &step.cases_opened {
            notes.push_str("  case ");
            notes.push_str(case.as_str());
        }
        output.line(format_args!(
            "{:>3}  {}  {:>+10.3} s  {:<16}{notes}",
            step.version, step.at, step.after_seconds, step.event
        ))?;
    }
    Ok(())
}

/// Where an order stands, for somebody who reads it at 3 a.m.
pub(super) fn in_words(order: &Order) -> String {
    let why = order.reason.map_or(String::new(), |reason| format!(" ({reason})"));
    let words = match order.state {
        State::AwaitingPayment => "not paid yet",
        State::Queued => "paid, waits for its first call",
        State::InFlight => "a call was made, its outcome is not known yet",
        State::RetryWait => "the last call had no effect, waits for the next one",
        State::InDoubt => "the deadline passed and only the provider knows the outcome",
        State::Succeeded => "delivered",
        State::Failed => "not delivered, refund requested",
        State::Cancelled => "cancelled before payment",
    };
    format!("{}: {words}{why}", order.state)
}
