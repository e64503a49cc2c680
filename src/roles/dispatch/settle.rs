//! Settlement: outcomes become transitions, in batches. A wait is published before its row is
//! committed (hint before state), so that a crash between the two loses nothing: a hint that is
//! ahead of its row waits, one that its row never asked for dies.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::{self, error::TryRecvError};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::domain::{CommandKind, Decision, FollowUp, Input, Order, OrderId, SubmitOutcome, Transition, decide};
use crate::ports::{OutRecord, StoreError, Written, command_record};
use crate::roles::{RoleError, patience};

use super::Lane;
use super::call::Outcome;

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
        let mut open: Vec<(Order, Input)> = batch
            .into_iter()
            .map(|o| {
                let attempt = o.order.attempt_number();
                (o.order, Input::SubmitReply { attempt, claim_id: o.claim_id, outcome: o.said })
            })
            .collect();
        while !open.is_empty() {
            let (now, before) = (self.clock.now(), open.len());
            let (mut transitions, mut inputs) = (Vec::with_capacity(before), Vec::with_capacity(before));
            for (order, input) in open {
                match decide(Some(&order), &input, now, &policy) {
                    Decision::Apply(transition) => {
                        transitions.push(*transition);
                        inputs.push(input);
                    }
                    Decision::Keep(why) => debug!(order_id = %order.order_id, ?why, "an outcome changes nothing"),
                }
            }
            if !self.publish_waits(&transitions, abort).await {
                return Ok(());
            }
            open = self.write_settlements(&transitions, inputs, abort).await?;
            self.unsettled.fetch_sub(before - open.len(), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Writes; returns what lost the fence, with the row as it is now.
    async fn write_settlements(
        &self,
        transitions: &[Transition],
        inputs: Vec<Input>,
        abort: &CancellationToken,
    ) -> Result<Vec<(Order, Input)>, StoreError> {
        if transitions.is_empty() {
            return Ok(Vec::new());
        }
        let written = patience::stored_unless("settle", abort, || self.store.apply(transitions)).await?;
        let (mut lost_ids, mut lost_inputs): (Vec<OrderId>, Vec<Input>) = (Vec::new(), Vec::new());
        for ((transition, input), written) in transitions.iter().zip(inputs).zip(written) {
            match written {
                Written::Stored => self.outcomes.written(transition),
                Written::Overtaken => {
                    lost_ids.push(transition.after.order_id.clone());
                    lost_inputs.push(input);
                }
            }
        }
        if lost_ids.is_empty() {
            return Ok(Vec::new());
        }
        let rows = patience::stored_unless("load", abort, || self.store.load(&lost_ids)).await?;
        Ok(rows.into_iter().zip(lost_inputs).filter_map(|(row, input)| Some((row?, input))).collect())
    }

    /// Publishes the commands of waits. Queries have no role yet that sends them: an attempt
    /// whose outcome is unknown stays `in_flight`, never failed and never sent again.
    async fn publish_waits(&self, transitions: &[Transition], abort: &CancellationToken) -> bool {
        let records: Vec<OutRecord> = transitions
            .iter()
            .filter_map(|transition| Some((transition.follow_up.as_ref()?, transition)))
            .filter(|(follow_up, _)| follow_up.command.kind == CommandKind::Submit)
            .map(|(follow_up, transition)| self.wait_record(follow_up, transition))
            .collect();
        records.is_empty() || patience::published("retry", self.publisher.as_ref(), records, abort).await
    }

    fn wait_record(&self, follow_up: &FollowUp, transition: &Transition) -> OutRecord {
        let key = transition.after.recipient.msisdn().map_or_else(Bytes::new, |msisdn| {
            Bytes::copy_from_slice(msisdn.keyed_hash(&self.rules.phone_key).as_bytes())
        });
        let record = command_record(&self.rules.topics.due, key, &follow_up.command);
        match follow_up.command.wake_at {
            Some(due_at) => self.rules.tiers.put_off(record, due_at, self.clock.now()),
            None => record,
        }
    }

    /// A provider that asks us to slow down is heard by the whole fleet.
    async fn heed_throttling(&self, batch: &[Outcome]) {
        let asked = batch.iter().filter_map(|outcome| match &outcome.said {
            SubmitOutcome::Throttled { retry_after } => {
                Some(retry_after.and_then(|wait| chrono::Duration::from_std(wait).ok()).unwrap_or(PAUSE))
            }
            SubmitOutcome::Succeeded(_)
            | SubmitOutcome::Accepted { .. }
            | SubmitOutcome::Rejected(_)
            | SubmitOutcome::NotSent(_)
            | SubmitOutcome::Duplicate
            | SubmitOutcome::Unknown(_) => None,
        });
        let Some(longest) = asked.max() else { return };
        let until = self.clock.now() + longest;
        if let Err(error) = self.quota.pause(self.provider.id(), until).await {
            warn!(provider = %self.provider.id(), error = ?error, "a throttled lane could not be paused");
        }
    }
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
