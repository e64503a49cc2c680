//! Settlement: outcomes become transitions, in batches. A wait is published before its row is
//! committed (hint before state), so that a crash between the two loses nothing: a hint that is
//! ahead of its row waits, one that its row never asked for dies.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc::{self, error::TryRecvError};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::domain::{Command, Decision, Input, Order, OrderId, QueryOutcome, SubmitOutcome, Transition, decide};
use crate::faults::{Bug, is_planted};
use crate::ports::{Hold, OutRecord, StoreError, Written};
use crate::roles::{RoleError, patience};

use super::Lane;
use super::call::{Outcome, Said};
use super::question::{OwnHold, Unsettled};

/// Outcomes wait this long for company.
const LINGER_QUIET: Duration = Duration::from_millis(2);
const LINGER_BUSY: Duration = Duration::from_millis(10);
/// The pause after a throttling that names no time.
const PAUSE: chrono::Duration = chrono::Duration::seconds(1);

impl Lane {
    /// Settles until every sender is gone and every batch is written.
    pub(super) async fn settle_all(
        self,
        mut outcomes: mpsc::Receiver<Outcome>,
        abort: CancellationToken,
    ) -> Result<(), RoleError> {
        let mut under_way: JoinSet<Result<(), StoreError>> = JoinSet::new();
        loop {
            while under_way.len() >= self.rules.writers.max(1) {
                ended(under_way.join_next().await, &abort)?;
            }
            let mut batch = Vec::new();
            if outcomes.recv_many(&mut batch, self.rules.batch_max).await == 0 {
                break;
            }
            let until = Instant::now() + if under_way.is_empty() { LINGER_QUIET } else { LINGER_BUSY };
            while batch.len() < self.rules.batch_max {
                // A look now and then: being woken by each outcome would cost more than it is worth.
                match outcomes.try_recv() {
                    Ok(outcome) => batch.push(outcome),
                    Err(TryRecvError::Empty) if Instant::now() < until => tokio::time::sleep(LINGER_QUIET).await,
                    Err(_) => break,
                }
            }
            let (lane, abort) = (self.clone(), abort.clone());
            under_way.spawn(async move { lane.settle(batch, &abort).await });
        }
        while !under_way.is_empty() {
            ended(under_way.join_next().await, &abort)?;
        }
        Ok(())
    }

    async fn settle(self, batch: Vec<Outcome>, abort: &CancellationToken) -> Result<(), StoreError> {
        tokio::select! {
            biased; // A store that hangs must not hold up the end.
            () = abort.cancelled() => {}
            () = self.heed_throttling(&batch) => {}
        }
        let policy = self.policy();
        let mut open: Vec<Pending> = batch.into_iter().map(Pending::from).collect();
        let (mut unsettled, mut replaced) = (Vec::new(), Vec::new());
        while !open.is_empty() {
            let (now, before) = (self.clock.now(), replies(&open));
            let (mut transitions, mut pending) = (Vec::with_capacity(open.len()), Vec::with_capacity(open.len()));
            for one in open {
                match decide(Some(&one.order), &one.input, now, &policy) {
                    Decision::Apply(transition) => {
                        transitions.push(*transition);
                        pending.push(one);
                    }
                    Decision::Keep(why) => {
                        debug!(order_id = %one.order.order_id, ?why, "an outcome changes nothing");
                        unsettled.extend(one.unsettled());
                    }
                }
            }
            let hint_first = !is_planted(Bug::HintAfterState);
            if hint_first && !self.publish_waits(&transitions, abort).await {
                return Ok(());
            }
            open = self.write_settlements(&transitions, pending, (&mut unsettled, &mut replaced), abort).await?;
            if !hint_first && !self.publish_waits(&transitions, abort).await {
                return Ok(());
            }
            self.unsettled.fetch_sub(before - replies(&open), Ordering::Relaxed);
        }
        let (holds, done): (Vec<_>, Vec<_>) = replaced.into_iter().unzip();
        self.release(holds, abort).await?;
        done.into_iter().for_each(OwnHold::done);
        self.ask_again(unsettled, abort).await
    }

    /// Writes; returns what lost the fence, with the row as it is now. Of what was written by an
    /// answer, `kept` takes what asks on: with a new command, or as before.
    async fn write_settlements(
        &self,
        transitions: &[Transition],
        pending: Vec<Pending>,
        (unsettled, replaced): (&mut Vec<Unsettled>, &mut Vec<(Hold, OwnHold)>),
        abort: &CancellationToken,
    ) -> Result<Vec<Pending>, StoreError> {
        if transitions.is_empty() {
            return Ok(Vec::new());
        }
        let written = patience::stored_unless("settle", abort, || self.store.apply(transitions)).await?;
        let mut lost: Vec<Pending> = Vec::new();
        for ((transition, mut one), written) in transitions.iter().zip(pending).zip(written) {
            match written {
                Written::Stored => {
                    self.outcomes.written(transition);
                    one.order = transition.after.clone();
                    match (one.hold.take(), &transition.follow_up) {
                        (Some(hold), Some(follow_up)) => {
                            // Also where it is sent again: the provider counts by the reference.
                            let interval = self.provider.capabilities().query_min_interval;
                            let rested = crate::domain::plus(self.clock.now(), interval);
                            let until = follow_up.command.wake_at.map_or(rested, |wake_at| wake_at.max(rested));
                            replaced.push((hold.replaced_by(&transition.after, until), hold));
                        }
                        (Some(hold), None) => {
                            one.hold = Some(hold);
                            unsettled.extend(one.unsettled());
                        }
                        (None, _) => {}
                    }
                }
                Written::Overtaken => lost.push(one),
            }
        }
        if lost.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<OrderId> = lost.iter().map(|one| one.order.order_id.clone()).collect();
        let rows = patience::stored_unless("load", abort, || self.store.load(&ids)).await?;
        let mut again = Vec::with_capacity(lost.len());
        for (mut one, row) in lost.into_iter().zip(rows) {
            let Some(row) = row else { continue };
            one.order = row;
            // What the provider did not find may have been sent since: it is asked again.
            if matches!(&one.input, Input::Reported { outcome: QueryOutcome::NotFound, .. }) {
                unsettled.extend(one.unsettled());
            } else {
                again.push(one);
            }
        }
        Ok(again)
    }

    /// Publishes what transitions ask for: a retry that waits, a question.
    pub(super) async fn publish_waits(&self, transitions: &[Transition], abort: &CancellationToken) -> bool {
        let records: Vec<OutRecord> = transitions
            .iter()
            .filter_map(|transition| {
                Some(self.command_record(&transition.follow_up.as_ref()?.command, &transition.after))
            })
            .collect();
        records.is_empty() || patience::published("retry", self.publisher.as_ref(), records, abort).await
    }

    /// A retry or a question as a record.
    pub(super) fn command_record(&self, command: &Command, order: &Order) -> OutRecord {
        self.rules.commands.due(&self.rules.topics, command, &order.recipient, self.clock.now())
    }

    /// A provider that asks us to slow down is heard by the whole fleet.
    async fn heed_throttling(&self, batch: &[Outcome]) {
        let asked = batch.iter().filter_map(|outcome| outcome.said.asks_for_rest());
        let Some(longest) = asked.max() else { return };
        let until = self.clock.now() + longest;
        if let Err(error) = self.quota.pause(self.provider.id(), until).await {
            warn!(provider = %self.provider.id(), error = ?error, "a throttled lane could not be paused");
        }
    }
}

/// An outcome that is not written yet, with the row that it is decided on.
struct Pending {
    order: Order,
    input: Input,
    /// Of a question.
    hold: Option<OwnHold>,
    /// Before the next question, as the provider said.
    at_least: Duration,
}

impl Pending {
    fn unsettled(self) -> Option<Unsettled> {
        Some(Unsettled { hold: self.hold?, order: self.order, at_least: self.at_least })
    }
}

impl From<Outcome> for Pending {
    fn from(Outcome { order, said }: Outcome) -> Self {
        let attempt = order.attempt_number();
        match said {
            Said::Reply { claim_id, outcome } => Self {
                order,
                input: Input::SubmitReply { attempt, claim_id, outcome },
                hold: None,
                at_least: Duration::ZERO,
            },
            Said::Answer { asked_at, outcome, hold } => {
                let at_least = match &outcome {
                    QueryOutcome::Unavailable { retry_after } => retry_after.unwrap_or_default(),
                    QueryOutcome::Succeeded(_)
                    | QueryOutcome::InProgress
                    | QueryOutcome::Failed(_)
                    | QueryOutcome::Reversed(_)
                    | QueryOutcome::NotFound
                    | QueryOutcome::ProviderUnknown => Duration::ZERO,
                };
                Self { order, input: Input::Reported { attempt, asked_at, outcome }, hold: Some(hold), at_least }
            }
        }
    }
}

impl Said {
    /// How long the provider wants to be left in peace.
    fn asks_for_rest(&self) -> Option<chrono::Duration> {
        let rest = |wait: &Duration| chrono::Duration::from_std(*wait).ok();
        match self {
            Self::Reply { outcome: SubmitOutcome::Throttled { retry_after }, .. } => {
                Some(retry_after.as_ref().and_then(rest).unwrap_or(PAUSE))
            }
            Self::Answer { outcome: QueryOutcome::Unavailable { retry_after: Some(wait) }, .. } => rest(wait),
            Self::Reply { .. } | Self::Answer { .. } => None,
        }
    }
}

/// Outcomes of sends: those of questions are not counted, since their commands come again.
fn replies(pending: &[Pending]) -> usize {
    pending.iter().filter(|one| matches!(one.input, Input::SubmitReply { .. })).count()
}

fn ended(
    ended: Option<Result<Result<(), StoreError>, tokio::task::JoinError>>,
    abort: &CancellationToken,
) -> Result<(), RoleError> {
    match ended {
        None | Some(Ok(Ok(()))) => Ok(()),
        // Told to drop everything: the rows say `in_flight`, and are asked about later.
        Some(Ok(Err(_))) if abort.is_cancelled() => Ok(()),
        Some(Ok(Err(error))) => Err(error.into()),
        Some(Err(error)) => Err(RoleError::Task(error.to_string())),
    }
}
