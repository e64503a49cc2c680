//! `recharged cases`: what a person has to look at, and what was decided about it.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use note::{Action, NoteArgs};
use resolve::{Ruling, resolve};

use super::config::{ConfigArgs, environment};
use super::orders::{in_words, time, trouble};
use super::output::{CliError, Output};
use super::values;
use crate::app::open_checked_store;
use crate::config::Needs;
use crate::domain::{CaseKind, Order, OrderId, State, Timestamp};
use crate::ports::{Case, CaseFilter, Loaded, Store};

mod note;
mod resolve;

/// Cases read at once.
const PAGE: usize = 1_000;
/// Somebody else may move the order at the same moment, a few times.
const TRIES: u32 = 5;
/// A database that has not said whether it has written something after this long is away.
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);

/// `recharged cases`.
#[derive(Debug, Clone, Args)]
pub struct CasesArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: CasesAction,
}

/// What to do with the cases.
#[derive(Debug, Clone, Subcommand)]
pub enum CasesAction {
    /// Lists cases, the oldest first
    #[command(after_help = "Examples:\n  recharged cases list --escalated\n  \
                            recharged cases list --kind in_doubt,double_success --older-than 1h --json")]
    List {
        #[command(flatten)]
        #[doc(hidden)]
        from: ConfigArgs,
        /// Only of these kinds; may be repeated, or separated by commas
        #[arg(long, value_name = "KIND", value_delimiter = ',', value_parser = values::case_kind)]
        kind: Vec<CaseKind>,
        /// Only those that have waited so long that a person must look
        #[arg(long)]
        escalated: bool,
        /// Also those that are resolved
        #[arg(long)]
        resolved: bool,
        /// Only those that were opened longer ago than this
        #[arg(long, value_name = "TIME", value_parser = values::duration)]
        older_than: Option<Duration>,
        /// Only those that this person looks after
        #[arg(long, value_name = "NAME", value_parser = values::name, conflicts_with = "unowned")]
        owner: Option<String>,
        /// Only those that nobody looks after
        #[arg(long)]
        unowned: bool,
        /// At most this many
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// Shows an order's cases and what can be done about them
    #[command(after_help = "Example:\n  recharged cases show 20260101-000017")]
    Show {
        #[command(flatten)]
        #[doc(hidden)]
        from: ConfigArgs,
        /// The shop's order id
        #[arg(value_parser = values::order_id)]
        id: OrderId,
    },
    /// Says who looks after a case from now on
    #[command(after_help = "Example:\n  recharged cases take 20260101-000017 --by \"A. Duty\"")]
    Take {
        #[command(flatten)]
        #[doc(hidden)]
        from: ConfigArgs,
        #[command(flatten)]
        #[doc(hidden)]
        note: NoteArgs,
        /// From whom it is taken over, where somebody else looks after it
        #[arg(long, value_name = "NAME", value_parser = values::name)]
        over_from: Option<String>,
    },
    /// Says that nobody looks after a case any more
    #[command(after_help = "Example:\n  recharged cases release 20260101-000017 --by \"A. Duty\"")]
    Release {
        #[command(flatten)]
        #[doc(hidden)]
        from: ConfigArgs,
        #[command(flatten)]
        #[doc(hidden)]
        note: NoteArgs,
    },
    /// Notes something about a case, for whoever looks at it next
    #[command(
        after_help = "Example:\n  recharged cases note 20260101-000017 --by \"A. Duty\" --text \"asked the operator, ticket 8841\""
    )]
    Note {
        #[command(flatten)]
        #[doc(hidden)]
        from: ConfigArgs,
        #[command(flatten)]
        #[doc(hidden)]
        note: NoteArgs,
        /// What there is to know
        #[arg(long, value_name = "TEXT", value_parser = values::evidence)]
        text: String,
    },
    /// Records what a person decided about a case
    ///
    /// An order in doubt is settled by it: as succeeded, or as failed with a refund. A closed order
    /// stays as it is; there it is recorded that the case was dealt with.
    #[command(
        after_help = "Example:\n  recharged cases resolve 20260101-000017 --as succeeded --by \"A. Duty\" \\\n    \
                            --evidence \"delivered according to the operator's portal, reference 8841\""
    )]
    Resolve {
        #[command(flatten)]
        #[doc(hidden)]
        from: ConfigArgs,
        /// The shop's order id
        #[arg(value_parser = values::order_id)]
        id: OrderId,
        /// What became of the recharge; of a closed order, the state that it has
        #[arg(long = "as", value_name = "OUTCOME")]
        outcome: Outcome,
        /// What was seen, and where
        #[arg(long, value_name = "TEXT", value_parser = values::evidence)]
        evidence: String,
        /// Who decides
        #[arg(long, value_name = "NAME", value_parser = values::name)]
        by: String,
        /// Which case, where the order has several
        #[arg(long, value_name = "KIND", value_parser = values::case_kind)]
        kind: Option<CaseKind>,
    },
}

/// What became of a recharge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Outcome {
    /// It was delivered.
    Succeeded,
    /// It was not, and will not be.
    Failed,
}

pub(crate) async fn run(args: CasesArgs, output: Output) -> Result<(), CliError> {
    let (CasesAction::List { from, .. }
    | CasesAction::Show { from, .. }
    | CasesAction::Take { from, .. }
    | CasesAction::Release { from, .. }
    | CasesAction::Note { from, .. }
    | CasesAction::Resolve { from, .. }) = &args.action;
    let loaded = from.load(Needs::STORE)?;
    let secrets = loaded.secrets(environment())?;
    let store = open_checked_store(&loaded.config, &secrets).await?;
    let now = store.now().await.map_err(|error| trouble(&error))?;
    match args.action {
        CasesAction::List { kind, escalated, resolved, older_than, owner, unowned, limit, .. } => {
            let filter = CaseFilter {
                order_id: None,
                kinds: kind,
                with_resolved: resolved,
                only_escalated: escalated,
                opened_before: older_than.map(|age| now - age),
                owner,
                only_unowned: unowned,
            };
            list(store.as_ref(), &filter, limit, now, output).await
        }
        CasesAction::Show { id, .. } => show(store.as_ref(), &id, now, output).await,
        CasesAction::Take { note: about, over_from, .. } => {
            note::note(store.as_ref(), &about, &Action::Take { over_from }, output).await
        }
        CasesAction::Release { note: about, .. } => note::note(store.as_ref(), &about, &Action::Release, output).await,
        CasesAction::Note { note: about, text, .. } => {
            note::note(store.as_ref(), &about, &Action::Note { text }, output).await
        }
        CasesAction::Resolve { id, outcome, evidence, by, kind, .. } => {
            let decision = Ruling { id, outcome, evidence, by, kind };
            resolve(store.as_ref(), &loaded.config, &decision, output).await
        }
    }
}

/// A case as programs read it.
#[derive(Serialize)]
struct Row<'a> {
    order_id: &'a OrderId,
    kind: CaseKind,
    state: &'static str,
    opened_at: String,
    /// Seconds since then, until now or until it was resolved.
    age_seconds: i64,
    escalate_at: String,
    escalated: bool,
    next_query_at: Option<String>,
    evidence: &'a str,
    owner: Option<&'a str>,
    resolved_at: Option<String>,
    resolved_by: Option<&'a str>,
    resolved_evidence: Option<&'a str>,
}

impl<'a> Row<'a> {
    fn of(case: &'a Case, now: Timestamp) -> Self {
        let resolution = case.resolution.as_ref();
        Self {
            order_id: &case.key.order_id,
            kind: case.key.kind,
            state: if resolution.is_some() { "resolved" } else { "open" },
            opened_at: time(case.opened_at),
            age_seconds: age(case, now).num_seconds(),
            escalate_at: time(case.escalate_at),
            escalated: case.escalated,
            next_query_at: case.next_query_at.map(time),
            evidence: &case.evidence,
            owner: case.owner.as_deref(),
            resolved_at: resolution.map(|resolution| time(resolution.at)),
            resolved_by: resolution.map(|resolution| resolution.by.as_str()),
            resolved_evidence: resolution.map(|resolution| resolution.evidence.as_str()),
        }
    }
}

fn age(case: &Case, now: Timestamp) -> chrono::TimeDelta {
    case.resolution.as_ref().map_or(now, |resolution| resolution.at) - case.opened_at
}

fn in_hours(span: chrono::TimeDelta) -> String {
    let seconds = span.num_seconds().max(0);
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3_600),
    }
}

async fn list(
    store: &dyn Store,
    filter: &CaseFilter,
    limit: u32,
    now: Timestamp,
    output: Output,
) -> Result<(), CliError> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if !output.json {
        output.line(format_args!(
            "{:<32} {:<22} {:>8}  {:<10} {:<24} OWNER",
            "ORDER", "CASE", "AGE", "STATE", "OPENED"
        ))?;
    }
    let (mut after, mut told): (Option<Case>, usize) = (None, 0);
    while told < limit {
        let page = store.cases(filter, after.as_ref(), PAGE.min(limit - told)).await;
        let page = page.map_err(|error| trouble(&error))?;
        for case in &page {
            if output.json {
                output.object(&Row::of(case, now))?;
                continue;
            }
            let state = match (&case.resolution, case.escalated) {
                (Some(_), _) => "resolved",
                (None, true) => "escalated",
                (None, false) => "open",
            };
            output.line(format_args!(
                "{:<32} {:<22} {:>8}  {:<10} {:<24} {}",
                case.key.order_id.as_str(),
                case.key.kind.as_str(),
                in_hours(age(case, now)),
                state,
                time(case.opened_at),
                case.owner.as_deref().unwrap_or("-")
            ))?;
        }
        told += page.len();
        let Some(last) = page.into_iter().next_back() else { return Ok(()) };
        after = Some(last);
    }
    output.progress(format_args!("there may be more: raise --limit"));
    Ok(())
}

async fn order(store: &dyn Store, id: &OrderId) -> Result<Order, CliError> {
    let found = store.load(std::slice::from_ref(id)).await.map_err(|error| trouble(&error))?;
    match found.into_iter().next().unwrap_or(Loaded::Absent) {
        Loaded::Order(order) => Ok(order),
        Loaded::Absent => Err(CliError::failed(format!(
            "there is no order {id} in the store: it was never accepted, or it is older than the retention"
        ))),
        Loaded::Unreadable(why) => Err(CliError::failed(format!(
            "order {id} cannot be read: {why}; mend its row in the database, or use the version that wrote it"
        ))),
    }
}

async fn cases_of(store: &dyn Store, id: &OrderId, with_resolved: bool) -> Result<Vec<Case>, CliError> {
    let filter = CaseFilter { order_id: Some(id.clone()), with_resolved, ..CaseFilter::default() };
    store.cases(&filter, None, CaseKind::ALL.len()).await.map_err(|error| trouble(&error))
}

async fn show(store: &dyn Store, id: &OrderId, now: Timestamp, output: Output) -> Result<(), CliError> {
    let (order, cases) = (order(store, id).await?, cases_of(store, id, true).await?);
    if output.json {
        for case in &cases {
            output.object(&Row::of(case, now))?;
        }
        return Ok(());
    }
    output.line(format_args!("order     {}   {}", order.order_id, in_words(&order)))?;
    if cases.is_empty() {
        return output.line("it has no case and never had one");
    }
    for case in &cases {
        output.line("")?;
        output.line(format_args!("case      {}: {}", case.key.kind.as_str(), meaning(case.key.kind)))?;
        output.line(format_args!("opened    {}   {} ago", time(case.opened_at), in_hours(now - case.opened_at)))?;
        output.line(format_args!("because   {}", case.evidence))?;
        if let Some(owner) = &case.owner {
            output.line(format_args!("owner     {owner}"))?;
        }
        if let Some(resolution) = &case.resolution {
            output.line(format_args!("resolved  {}   by {}", time(resolution.at), resolution.by))?;
            output.line(format_args!("evidence  {}", resolution.evidence))?;
            continue;
        }
        let urgency = if case.escalated { "   a person must look now" } else { "" };
        output.line(format_args!("escalates {}{urgency}", time(case.escalate_at)))?;
        if let Some(at) = case.next_query_at {
            output.line(format_args!("asks      the provider again, at the latest a minute after {}", time(at)))?;
        }
        output.line(format_args!("next      {}", what_to_do(case.key.kind, &order)))?;
    }
    Ok(())
}

/// What a kind of case says, for somebody who has never seen one.
fn meaning(kind: CaseKind) -> &'static str {
    match kind {
        CaseKind::InDoubt => "the deadline passed and only the provider knows whether it delivered",
        CaseKind::PayloadConflict => "the same order id came again with other contents; the first stands",
        CaseKind::LateSuccess => "the provider delivered after the order had failed or its refund was requested",
        CaseKind::Conflict => "the provider says failed after it had said succeeded",
        CaseKind::ReversedAfterSuccess => "the provider took a delivery back after the order had succeeded",
        CaseKind::ProviderFlipped => "an attempt that the provider had called failed was delivered after all",
        CaseKind::DoubleSuccess => "two attempts of the order were delivered",
        CaseKind::AmountMismatch => "the provider delivered another amount than was ordered",
        CaseKind::FailedUnproven => "failed and refunded although only \"not found\" speaks for it",
        CaseKind::Unconfirmed => "a callback contradicts the order, and the provider did not confirm it when asked",
        CaseKind::UnrequestedRefund => "the payment side refunded it, and nobody had requested that",
        CaseKind::RefundedTwice => "the payment side refunded it a second time",
        CaseKind::RefundUnconfirmed => "the payment side has not confirmed its refund in time",
    }
}

fn what_to_do(kind: CaseKind, order: &Order) -> String {
    match (kind, order.state) {
        (CaseKind::InDoubt, State::InDoubt) => format!(
            "it settles by itself when the provider answers; else look the reference up at the provider, then:\n          \
             recharged cases resolve {} --as succeeded|failed --by NAME --evidence TEXT",
            order.order_id
        ),
        _ => format!(
            "{}, then:\n          \
             recharged cases resolve {} --kind {} --as {} --by NAME --evidence TEXT",
            whom_to_ask(kind),
            order.order_id,
            kind.as_str(),
            if order.state == State::Succeeded { "succeeded" } else { "failed" }
        ),
    }
}

fn whom_to_ask(kind: CaseKind) -> &'static str {
    match kind {
        CaseKind::RefundUnconfirmed => {
            "it settles by itself when the refund is confirmed; else ask those who make refunds where the money is"
        }
        CaseKind::UnrequestedRefund | CaseKind::RefundedTwice => "settle it with those who make refunds",
        CaseKind::InDoubt
        | CaseKind::PayloadConflict
        | CaseKind::LateSuccess
        | CaseKind::Conflict
        | CaseKind::ReversedAfterSuccess
        | CaseKind::ProviderFlipped
        | CaseKind::DoubleSuccess
        | CaseKind::AmountMismatch
        | CaseKind::FailedUnproven
        | CaseKind::Unconfirmed => "settle it with the shop or the provider",
    }
}

/// That nothing is open, and what became of it.
async fn nothing_open(store: &dyn Store, id: &OrderId) -> CliError {
    let resolved = cases_of(store, id, true).await.ok().and_then(|cases| cases.into_iter().next_back());
    let last = resolved.and_then(|case| Some((case.key.kind, case.resolution?)));
    CliError::failed(match last {
        Some((kind, how)) => {
            format!("order {id} has no open case; its case {} was resolved at {} by {}", kind.as_str(), how.at, how.by)
        }
        None => format!("order {id} has no open case"),
    })
}

/// Which open case of an order is meant: the only one, or that of a kind.
async fn which(store: &dyn Store, id: &OrderId, kind: Option<CaseKind>) -> Result<Case, CliError> {
    let open = cases_of(store, id, false).await?;
    let names = open.iter().map(|case| case.key.kind.as_str()).collect::<Vec<_>>().join(", ");
    let (count, mut meant) =
        (open.len(), open.into_iter().filter(|case| kind.is_none_or(|kind| case.key.kind == kind)));
    match (kind, count, meant.next()) {
        (_, 0, _) => Err(nothing_open(store, id).await),
        (Some(_), _, Some(case)) | (None, 1, Some(case)) => Ok(case),
        (Some(kind), ..) => {
            Err(CliError::failed(format!("order {id} has no open case {}; it has {names}", kind.as_str())))
        }
        (None, ..) => {
            Err(CliError::usage(format!("order {id} has several open cases: say with --kind which one of {names}")))
        }
    }
}

fn moved(id: &OrderId) -> CliError {
    CliError::failed(format!(
        "order {id} was moved by others {TRIES} times meanwhile: look at it again with `recharged cases show {id}`"
    ))
}
