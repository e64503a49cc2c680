//! What a person decides about a case.

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{ANSWERS_WITHIN, Outcome, TRIES, moved, order, which};
use crate::cli::orders::trouble;
use crate::cli::output::{CliError, Output};
use crate::config::Config;
use crate::domain::{CaseKind, Decision, Input, Order, OrderId, State, Transition, decide};
use crate::ports::{Store, Written};
use crate::roles::patience;

/// What a person decided.
pub(super) struct Ruling {
    pub(super) id: OrderId,
    pub(super) outcome: Outcome,
    pub(super) evidence: String,
    pub(super) by: String,
    pub(super) kind: Option<CaseKind>,
}

#[derive(Serialize)]
struct Resolved<'a> {
    order_id: &'a OrderId,
    kind: CaseKind,
    state: State,
    version: u32,
    refund_requested: bool,
    by: &'a str,
}

pub(super) async fn resolve(
    store: &dyn Store,
    config: &Config,
    ruling: &Ruling,
    output: Output,
) -> Result<(), CliError> {
    let policy = config.policy();
    for _ in 0..TRIES {
        let order = order(store, &ruling.id).await?;
        let kind = which(store, &ruling.id, ruling.kind).await?.key.kind;
        let input = ruling.input(kind, &order)?;
        let now = store.now().await.map_err(|error| trouble(&error))?;
        let Decision::Apply(transition) = decide(Some(&order), &input, now, &policy) else { continue };
        let written = written(store, &transition).await?;
        if written != Written::Stored {
            continue;
        }
        let after = &transition.after;
        if output.json {
            let (state, version, by) = (after.state, after.version, ruling.by.as_str());
            let refund_requested = transition.refund.is_some();
            return output.object(&Resolved { order_id: &ruling.id, kind, state, version, refund_requested, by });
        }
        let refund = if transition.refund.is_some() { ", its refund is requested" } else { "" };
        return output.line(format_args!(
            "order {}: {}{refund}; its case {} is resolved by {}",
            ruling.id,
            after.state,
            kind.as_str(),
            ruling.by
        ));
    }
    Err(moved(&ruling.id))
}

/// What a person decided is written once: a commit whose answer was lost is known by its row.
async fn written(store: &dyn Store, transition: &Transition) -> Result<Written, CliError> {
    let abort = CancellationToken::new();
    let write = patience::applied_once("resolve", store, transition, &abort);
    match tokio::time::timeout(ANSWERS_WITHIN, write).await {
        Ok(written) => written.map_err(|error| trouble(&error)),
        Err(_) => Err(CliError::unreachable(format!(
            "store.url: the database did not say whether it has written this: look with `recharged cases show {}` \
             before you decide again",
            transition.after.order_id
        ))),
    }
}

impl Ruling {
    fn input(&self, kind: CaseKind, order: &Order) -> Result<Input, CliError> {
        let (by, evidence) = (self.by.clone(), self.evidence.clone());
        if kind == CaseKind::InDoubt && order.state == State::InDoubt {
            return Ok(Input::Resolved { succeeded: self.outcome == Outcome::Succeeded, by, evidence });
        }
        let same = match order.state {
            State::Succeeded => self.outcome == Outcome::Succeeded,
            State::Failed | State::Cancelled => self.outcome == Outcome::Failed,
            // Not decided yet: the case is about something else.
            State::AwaitingPayment | State::Queued | State::InFlight | State::RetryWait | State::InDoubt => true,
        };
        if !same {
            return Err(CliError::failed(format!(
                "order {} is {} and stays so, whatever is found: --as must say that; what was found belongs into --evidence",
                self.id, order.state
            )));
        }
        Ok(Input::CaseClosed { kind, by, evidence })
    }
}
