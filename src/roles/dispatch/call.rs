//! One call: from a committed claim to an outcome. No transaction and no database connection is
//! held meanwhile.

use std::time::Duration;

use tokio::sync::mpsc;

use crate::domain::{ClaimId, NotSentCause, Order, SubmitOutcome, Timestamp, UnknownCause};
use crate::faults;
use crate::ports::{Reservation, SubmitRequest};

use super::Lane;
use super::claim::Claimed;
use super::permits::STALE_AFTER;

/// A call that has ended.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The row as the claim left it.
    pub(super) order: Order,
    pub(super) claim_id: ClaimId,
    pub(super) said: SubmitOutcome,
}

impl Lane {
    /// Makes the call and hands its outcome to the settlement. Its place among the calls in
    /// flight is given up only once the settlement has taken it.
    pub(super) async fn call(self, claimed: Claimed, settle: mpsc::Sender<Outcome>) {
        let Claimed { order, claim_id, send_by, class, permit, slot } = claimed;
        let said = if self.holds_permit(permit, send_by, class).await {
            self.submit(&order, send_by).await
        } else {
            SubmitOutcome::NotSent(NotSentCause::NoPermit)
        };
        faults::point("dispatch::replied");
        // A closed channel means that the role was told to drop everything: the row says
        // `in_flight`, and whoever adopts it asks the provider.
        let _closed = settle.send(Outcome { order, claim_id, said }).await;
        drop(slot);
    }

    /// Waits for the permit's moment. A claim that took long to commit may have outlived its
    /// permit; then it needs another one, inside its send window.
    async fn holds_permit(&self, permit: Timestamp, send_by: Duration, class: crate::ports::PermitClass) -> bool {
        if !self.until(permit, send_by).await {
            return false;
        }
        if self.clock.now() <= permit + STALE_AFTER {
            return true;
        }
        self.metrics.permits("delayed", 1);
        let window = send_by.saturating_sub(self.clock.since_boot());
        let reservation =
            Reservation { provider: self.provider.id().clone(), class, wanted: 1, terms: self.rules.terms };
        let reserve = tokio::time::timeout(window, self.quota.reserve(&reservation)).await;
        let Ok(Ok(grant)) = reserve else { return false };
        let Some(send_at) = grant.send_at.first().copied() else { return false };
        self.until(send_at, send_by).await
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

    async fn submit(&self, order: &Order, send_by: Duration) -> SubmitOutcome {
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
            first_sent_at: attempt.claimed_at,
            send_by,
        };
        let began = self.clock.since_boot();
        let outcome = self.provider.submit(&request).await;
        let took = self.clock.since_boot().saturating_sub(began);
        self.metrics.request("submit", result_label(&outcome), took);
        if !matches!(outcome, SubmitOutcome::NotSent(_) | SubmitOutcome::Throttled { .. }) {
            self.service_time.note(took);
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
