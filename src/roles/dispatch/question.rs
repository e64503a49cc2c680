//! Questions: what became of an attempt? One process asks at a time (the hold), no sooner than the
//! provider allows, and an answer that settles nothing leads to the next question.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::domain::{AttemptState, ClientRef, Command, CommandKind, Order, OrderId, QueryOutcome, State, Timestamp};
use crate::faults::{Bug, is_planted};
use crate::ports::{Ack, Held, Hold, OutRecord, QueryKey, StoreError};
use crate::roles::patience;

use super::Lane;
use super::call::{Outcome, Said};
use super::claim::{Fit, Leftover, Picked, order_of};
use super::heap::Queued;
use super::put_off::PutOff;
use super::slots::Slot;

/// A row is held for a call, until the provider may be asked again, and for this much more.
const HOLD_MARGIN: Duration = Duration::from_secs(2);
/// By this much the clocks of two processes differ at most.
const CLOCKS_DIFFER: chrono::TimeDelta = chrono::TimeDelta::seconds(2);
/// A question whose row is held by somebody unknown is looked at again after this long.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A question that may be asked now.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) order: Order,
    /// About which attempt.
    attempt: u16,
    /// The first byte leaves before this moment (since boot), or never.
    send_by: Duration,
    permit: Timestamp,
    slot: Slot,
    asker: Asker,
}

/// Why a question is asked, and what is owed until its answer is settled.
#[derive(Debug)]
pub(super) enum Asker {
    /// The row asks for it, and this process alone may.
    Held(OwnHold),
    /// A callback speaks of an attempt that nobody asks about any more.
    Told(Confirming),
}

/// The command of a callback, and the duty to say when it is done.
#[derive(Debug)]
pub(super) struct Confirming {
    pub(super) command: Command,
    pub(super) ack: Ack,
}

/// What is left of a question until its answer is settled: the hold on its row, and the duty to
/// say when the next one stands.
#[derive(Debug)]
pub(super) struct OwnHold {
    until: Timestamp,
    ack: Ack,
}

impl Lane {
    /// Takes a batch of questions that may be asked now.
    pub(super) async fn hold(&self, batch: Vec<Picked>, abort: &CancellationToken) -> Result<Leftover, StoreError> {
        let mut leftover = Leftover::default();
        let picked = self.with_connections(batch, &mut leftover).await;
        let send_by = self.clock.since_boot() + self.rules.send_window;
        let ids: Vec<OrderId> = picked.iter().map(|one| one.queued.command.order_id.clone()).collect();
        if ids.is_empty() {
            return Ok(leftover);
        }
        let rows = patience::stored_unless("load", abort, || self.store.load(&ids)).await?;
        let now = self.clock.now();
        let until = crate::domain::plus(now, self.hold_time());
        let (mut asking, mut holds, mut named) = (Vec::new(), Vec::new(), HashSet::new());
        for (one, row) in picked.into_iter().zip(rows) {
            let Some(row) = order_of(&one.queued.command, row) else {
                leftover.drop_command(one);
                continue;
            };
            if one.queued.command.kind == CommandKind::Confirm {
                leftover.confirm(one, row, send_by);
                continue;
            }
            match self.judge(&one.queued.command, &row, now) {
                Fit::Acts if !row.asks() => leftover.drop_command(one),
                // Two commands of one transition, or one that came again with its partition: the second
                // waits for what becomes of the first, whose acknowledgement may count no more.
                Fit::Acts if !named.insert(row.order_id.clone()) => leftover.put_back(one, now + LOOK_AGAIN),
                Fit::Acts => {
                    let (order_id, asked_version) = (row.order_id.clone(), row.asked_version);
                    holds.push(Hold { order_id, asked_version, replaces: None, until });
                    asking.push((one, row));
                }
                Fit::Dead => leftover.drop_command(one),
                Fit::Ahead => leftover.not_yet(one, now),
                // It would hold its partition's offset for long.
                Fit::Early(theirs) if theirs > until => leftover.put_off(one, self.question_record(&row, theirs)),
                Fit::Early(until) => leftover.put_back(one, until),
            }
        }
        let held = patience::stored_unless("hold", abort, || self.questions.hold(&holds, now)).await?;
        for ((one, order), held) in asking.into_iter().zip(held) {
            match held {
                Held::Granted => leftover.ask(one, order, until, send_by),
                Held::Taken { .. } if is_planted(Bug::AskUnheld) => leftover.ask(one, order, until, send_by),
                // Later than any clock's call takes: the next question of this version has a command of its own.
                Held::Taken { until: Some(theirs), asked_version }
                    if theirs > until + CLOCKS_DIFFER && asked_version == Some(order.asked_version) =>
                {
                    leftover.drop_command(one);
                }
                // Asked for since: it comes when the provider may be asked again.
                Held::Taken { until: Some(theirs), .. } if theirs > until => {
                    leftover.put_off(one, self.question_record(&order, theirs));
                }
                Held::Taken { until, .. } => leftover.put_back(one, until.unwrap_or(now + LOOK_AGAIN)),
            }
        }
        Ok(leftover)
    }

    /// The command for the next question about an order.
    pub(super) fn question_record(&self, order: &Order, at: Timestamp) -> OutRecord {
        let command = Command { wake_at: Some(at), ..Command::of(CommandKind::Query, order) };
        self.command_record(&command, order)
    }

    fn hold_time(&self) -> Duration {
        let capabilities = self.provider.capabilities();
        self.rules.send_window + capabilities.call_timeout + capabilities.query_min_interval + HOLD_MARGIN
    }

    /// Asks, and hands the answer to the settlement.
    pub(super) async fn ask(self: Arc<Self>, question: Question, settle: mpsc::Sender<Outcome>) {
        let Question { order, attempt, send_by, permit, slot, asker } = question;
        let send_by = self.await_permit(permit, send_by).await;
        // "Not found" is judged by the moment at which it was asked: before the first byte leaves.
        let asked_at = self.clock.now();
        let outcome = if let Some(key) = send_by.and_then(|send_by| self.query_key(&order, &asker, send_by)) {
            self.query(&key).await
        } else {
            self.metrics.request("query", result_label(&QueryOutcome::NotAsked), Duration::ZERO);
            QueryOutcome::NotAsked
        };
        // A closed channel means that the role was told to drop everything: the command comes again.
        let _closed = settle.send(Outcome { order, said: Said::Answer { attempt, asked_at, outcome, asker } }).await;
        drop(slot);
    }

    fn query_key(&self, order: &Order, asker: &Asker, send_by: Duration) -> Option<QueryKey> {
        let current = order.attempt.as_ref()?;
        let (client_ref, provider_ref, give_up) = match asker {
            Asker::Held(_) => (current.client_ref.clone(), current.provider_ref.clone(), order.state == State::InDoubt),
            // The row may have forgotten it; what it was called is known by its number.
            Asker::Told(Confirming { command, .. }) => {
                let format = self.provider.capabilities().client_ref;
                let client_ref = ClientRef::for_attempt(&order.order_id, command.attempt, format);
                let is_given_up = order.state.is_closed() || command.attempt != current.number;
                (client_ref, command.provider_ref.clone(), is_given_up)
            }
        };
        Some(QueryKey { client_ref, provider_ref, sent_at: current.claimed_at, give_up, send_by })
    }

    async fn query(&self, key: &QueryKey) -> QueryOutcome {
        let began = self.clock.since_boot();
        let outcome = self.provider.query(key).await;
        let took = self.clock.since_boot().saturating_sub(began);
        self.metrics.request("query", result_label(&outcome), took);
        outcome
    }

    /// Replaces holds; one that was lost meanwhile is not missed.
    pub(super) async fn release(&self, holds: Vec<Hold>, abort: &CancellationToken) -> Result<(), StoreError> {
        if holds.is_empty() {
            return Ok(());
        }
        let now = self.clock.now();
        patience::stored_unless("hold", abort, || self.questions.hold(&holds, now)).await.map(drop)
    }
}

impl Asker {
    /// The database owns what follows, or nothing does.
    pub(super) fn done(self) {
        match self {
            Self::Held(OwnHold { ack, .. }) | Self::Told(Confirming { ack, .. }) => ack.done(),
        }
    }
}

impl OwnHold {
    /// The row was moved, and asks for something of its own: others may ask from then on.
    pub(super) fn replaced_by(&self, order: &Order, until: Timestamp) -> Hold {
        let (order_id, asked_version) = (order.order_id.clone(), order.asked_version);
        Hold { order_id, asked_version, replaces: Some(self.until), until }
    }

    /// The database owns what follows.
    pub(super) fn done(self) {
        self.ack.done();
    }
}

impl Leftover {
    /// Nothing is done about it now: a record of it comes when its time has come.
    pub(super) fn put_off(&mut self, picked: Picked, record: OutRecord) {
        self.permits.extend(picked.permit.map(|permit| (picked.class, permit)));
        self.later.push(PutOff { queued: picked.queued, record });
    }

    fn ask(&mut self, picked: Picked, order: Order, until: Timestamp, send_by: Duration) {
        let (Some(permit), Some(slot)) = (picked.permit, picked.slot) else { return };
        let asker = Asker::Held(OwnHold { until, ack: picked.queued.ack });
        let attempt = order.attempt_number();
        self.questions.push(Question { order, attempt, send_by, permit, slot, asker });
    }

    /// About an attempt that nobody asks about. One that somebody asks about by now needs no more.
    fn confirm(&mut self, mut picked: Picked, order: Order, send_by: Duration) {
        let attempt = picked.queued.command.attempt;
        // Its caller is about to hear, or somebody asks.
        let is_sent = order.attempt.as_ref().is_some_and(|current| current.state == AttemptState::Sent);
        let is_awaited = order.asks() || (is_sent && order.state == State::InFlight);
        let is_asked = attempt == order.attempt_number() && is_awaited;
        let there = (1..=order.attempt_number()).contains(&attempt) && !is_asked;
        let (Some(permit), Some(slot)) = (picked.permit.filter(|_| there), picked.slot.take()) else {
            self.drop_command(picked);
            return;
        };
        let Queued { command, ack, .. } = picked.queued;
        let asker = Asker::Told(Confirming { command, ack });
        self.questions.push(Question { order, attempt, send_by, permit, slot, asker });
    }
}

fn result_label(outcome: &QueryOutcome) -> &'static str {
    match outcome {
        QueryOutcome::Succeeded(_) | QueryOutcome::InProgress => "ok",
        QueryOutcome::Failed(_) | QueryOutcome::Reversed(_) => "declined",
        QueryOutcome::NotFound | QueryOutcome::ProviderUnknown => "in_doubt",
        QueryOutcome::Throttled { .. } | QueryOutcome::Banned { .. } => "throttled",
        QueryOutcome::NotAsked => "not_sent",
        QueryOutcome::Unavailable { .. } => "error",
    }
}
