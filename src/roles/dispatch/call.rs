//! One call: from a committed claim to an outcome. No transaction and no database connection is
//! held meanwhile.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio::task::{JoinSet, unconstrained};

use crate::domain::{ClaimId, NotSentCause, Order, QueryOutcome, SubmitOutcome, Timestamp, UnknownCause};
use crate::faults::{self, Bug, is_planted};
use crate::ports::{PermitClass, Reservation, SubmitRequest};

use super::Lane;
use super::breaker::Sign;
use super::claim::Claimed;
use super::permits::STALE_AFTER;
use super::question::Asker;
use super::slots::Slot;

/// A call that has ended.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The row as the claim left it.
    pub(super) order: Order,
    pub(super) said: Said,
}

/// What was said in it.
#[derive(Debug)]
pub(super) enum Said {
    /// To a send.
    Reply { claim_id: ClaimId, outcome: SubmitOutcome },
    /// To a question.
    Answer { attempt: u16, asked_at: Timestamp, outcome: QueryOutcome, asker: Asker },
}

/// Calls of one batch that are under way.
pub(super) type Calls = Vec<BoxFuture<'static, ()>>;

/// A claim that ends later than this after its permit's moment needs another permit: a call needs
/// a little time to begin, and what is then too late would not be sent at all.
const LAST_MOMENT: Duration = Duration::from_millis(150);

/// Sees a batch of calls to their end.
pub(super) async fn finish(calls: Calls) {
    let mut calls: FuturesUnordered<_> = calls.into_iter().collect();
    while calls.next().await.is_some() {}
}

impl Lane {
    /// Begins the calls of a batch of claims, here and now; returns those that are under way. A
    /// task for each would cost more than most of them do.
    pub(super) fn begin(self: &Arc<Self>, claimed: Vec<Claimed>, settle: &mpsc::Sender<Outcome>) -> Calls {
        let now = self.clock.now();
        let mut calls = Calls::new();
        let (mut late_fresh, mut late_retries) = (Vec::new(), Vec::new());
        for claimed in claimed {
            if now > claimed.permit + LAST_MOMENT && !is_planted(Bug::StalePermits) {
                let late = if claimed.class == PermitClass::Fresh { &mut late_fresh } else { &mut late_retries };
                late.push(claimed);
                continue;
            }
            let mut call = Arc::clone(self).call(claimed, settle.clone()).boxed();
            // Without the runtime's ration: there is one batch of them, and all must begin now.
            if unconstrained(&mut call).now_or_never().is_none() {
                calls.push(call);
            }
        }
        for (class, late) in [(PermitClass::Retry, late_retries), (PermitClass::Fresh, late_fresh)] {
            if !late.is_empty() {
                calls.push(Arc::clone(self).call_late(class, late, settle.clone()).boxed());
            }
        }
        calls
    }

    /// Makes the call and hands its outcome to the settlement. Its place among the calls in
    /// flight is given up only once the settlement has taken it.
    async fn call(self: Arc<Self>, claimed: Claimed, settle: mpsc::Sender<Outcome>) {
        let Claimed { order, claim_id, send_by, permit, slot, .. } = claimed;
        let outcome = match self.await_permit(permit, send_by).await {
            Some(send_by) => self.submit(&order, &slot, send_by).await,
            None => SubmitOutcome::NotSent(NotSentCause::NoPermit),
        };
        faults::point("dispatch::replied");
        // A closed channel means that the role was told to drop everything: the row says
        // `in_flight`, and whoever adopts it asks the provider.
        let _closed = settle.send(Outcome { order, said: Said::Reply { claim_id, outcome } }).await;
        drop(slot);
    }

    /// Calls claims of one class that took so long to commit that their permits will be, or are,
    /// too late: they share the asking for others, inside their send window. (Each asking for
    /// itself would be one statement a call, just when the store is slow.)
    async fn call_late(self: Arc<Self>, class: PermitClass, mut late: Vec<Claimed>, settle: mpsc::Sender<Outcome>) {
        self.metrics.permits("delayed", late.len() as u64);
        let mut calls = JoinSet::new();
        while let Some(send_by) = late.first().map(|claimed| claimed.send_by) {
            let window = send_by.saturating_sub(self.clock.since_boot());
            let wanted = u32::try_from(late.len()).unwrap_or(u32::MAX);
            let reservation =
                Reservation { provider: self.provider.id().clone(), class, wanted, terms: self.rules.terms };
            let Ok(Ok(grant)) = tokio::time::timeout(window, self.quota.reserve(&reservation)).await else { break };
            let granted = grant.send_at.len().min(late.len());
            for (claimed, permit) in late.drain(..granted).zip(grant.send_at) {
                calls.spawn(Arc::clone(&self).call(Claimed { permit, ..claimed }, settle.clone()));
            }
            let again = grant.ask_again_at.unwrap_or_else(|| self.clock.now());
            if late.is_empty() || !self.until(again, send_by).await {
                break;
            }
        }
        for Claimed { order, claim_id, slot, .. } in late {
            let outcome = SubmitOutcome::NotSent(NotSentCause::NoPermit);
            let _closed = settle.send(Outcome { order, said: Said::Reply { claim_id, outcome } }).await;
            drop(slot);
        }
        while let Some(ended) = calls.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }

    /// Waits for the permit's moment; returns until when the first byte may leave, if it still
    /// may. A permit's end closes the send window too: a process that is held up between here and
    /// its sockets would otherwise send what it held all at once, beside what others send.
    pub(super) async fn await_permit(&self, permit: Timestamp, send_by: Duration) -> Option<Duration> {
        if !self.until(permit, send_by).await {
            return None;
        }
        // In this order: time that passes between the two makes the end earlier, never later.
        let since_boot = self.clock.since_boot();
        let grows_old = !is_planted(Bug::StalePermits) && !is_planted(Bug::ZombieSends);
        let stale_after = if grows_old { STALE_AFTER } else { Duration::from_hours(1) };
        let left = (permit + stale_after - self.clock.now()).to_std().ok()?;
        faults::point("dispatch::permitted");
        Some(send_by.min(since_boot + left))
    }

    /// Waits for a moment; `false` at once where that lies behind the send window.
    async fn until(&self, moment: Timestamp, send_by: Duration) -> bool {
        let wait = (moment - self.clock.now()).to_std().unwrap_or_default();
        if wait > send_by.saturating_sub(self.clock.since_boot()) {
            return false;
        }
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        true
    }

    async fn submit(&self, order: &Order, slot: &Slot, send_by: Duration) -> SubmitOutcome {
        let (Some(attempt), Some(msisdn)) = (&order.attempt, order.recipient.msisdn()) else {
            return SubmitOutcome::NotSent(NotSentCause::Unbuildable);
        };
        if self.clock.since_boot() > send_by {
            return SubmitOutcome::NotSent(NotSentCause::WindowClosed);
        }
        let request = SubmitRequest {
            client_ref: attempt.client_ref.clone(),
            msisdn,
            amount: order.amount,
            carrier: order.carrier.clone(),
            callback_url: self.rules.callbacks.as_ref().and_then(|links| links.link(&order.order_id, attempt.number)),
            sent_at: attempt.claimed_at,
            send_by,
        };
        let began = self.clock.since_boot();
        let outcome = self.provider.submit(&request).await;
        let took = self.clock.since_boot().saturating_sub(began);
        self.metrics.request("submit", result_label(&outcome), took);
        self.note_sign(Sign::of(&outcome), began);
        if !matches!(outcome, SubmitOutcome::NotSent(_) | SubmitOutcome::Throttled { .. }) {
            self.service_time.note(took);
            self.tide.note(took, slot.in_use(), self.clock.since_boot());
        }
        outcome
    }
}

fn result_label(outcome: &SubmitOutcome) -> &'static str {
    match outcome {
        SubmitOutcome::Succeeded(_) | SubmitOutcome::Accepted { .. } => "ok",
        SubmitOutcome::Rejected(_) => "declined",
        SubmitOutcome::NotSent(_) => "not_sent",
        SubmitOutcome::Throttled { .. } => "throttled",
        SubmitOutcome::Unknown(UnknownCause::Timeout) => "timeout",
        SubmitOutcome::Unknown(UnknownCause::ServerError | UnknownCause::Reset) => "error",
        SubmitOutcome::Duplicate | SubmitOutcome::Unknown(UnknownCause::BrokenBody | UnknownCause::UnmappedCode) => {
            "in_doubt"
        }
    }
}
