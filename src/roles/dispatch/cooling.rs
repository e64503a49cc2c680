//! Numbers that a provider refuses for a while after it has recharged them. An order takes its number before it is
//! claimed, so that two orders for one number do not meet there, whoever handles them; it gives it back where
//! nothing was recharged.

use std::time::Duration;

use crate::domain::{AttemptState, Order, State, Timestamp, Transition, plus};
use crate::ports::{Cooling, StoreError, Written};
use crate::roles::patience;

use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::Lane;

impl Lane {
    /// Takes the numbers of orders that are to be claimed; `Some` says until when another order has one. Asks nobody where the
    /// provider has no such rule.
    pub(super) async fn cool(
        &self,
        claims: &[Transition],
        now: Timestamp,
        abort: &CancellationToken,
    ) -> Result<Vec<Option<Timestamp>>, StoreError> {
        let mut held = vec![None; claims.len()];
        if self.provider.capabilities().same_number_cooldown.is_none() {
            return Ok(held);
        }
        let wishes = claims.iter().enumerate().filter(|(_, claim)| claim.after.state == State::InFlight);
        let (places, batch): (Vec<usize>, Vec<Cooling>) =
            wishes.filter_map(|(place, claim)| Some((place, self.cooling(&claim.after, now)?))).unzip();
        let answers = patience::stored_unless("cool", abort, || self.cooldowns.cool(&batch, now)).await?;
        for (place, answer) in places.into_iter().zip(answers) {
            if let Some(held) = held.get_mut(place) {
                *held = answer;
            }
        }
        Ok(held)
    }

    /// Gives back the numbers of orders whose send had no effect. One that is not given back cools down in vain.
    pub(super) async fn give_back(&self, settled: &[Transition], written: &[Written]) {
        if self.provider.capabilities().same_number_cooldown.is_none() {
            return;
        }
        let now = self.clock.now();
        let has_no_effect = |order: &Order| {
            let state = order.attempt.as_ref().map(|attempt| attempt.state);
            matches!(state, Some(AttemptState::Failed | AttemptState::NotExecuted | AttemptState::Prepared))
        };
        let stored = settled.iter().zip(written).filter(|(_, written)| **written == Written::Stored);
        let batch: Vec<Cooling> = stored
            .filter(|(transition, _)| has_no_effect(&transition.after))
            .filter_map(|(transition, _)| self.cooling(&transition.after, now))
            .collect();
        if batch.is_empty() {
            return;
        }
        if let Err(error) = self.cooldowns.give_back(&batch).await {
            debug!(error = ?error, "numbers were not given back: they cool down in vain");
        }
    }

    /// Whether a call that begins then can end by the order's deadline.
    pub(super) fn is_in_time(&self, order: &Order, then: Timestamp) -> bool {
        let policy = self.rules.policy.provider(self.provider.id());
        let service = policy.map_or(Duration::ZERO, |policy| policy.expected_service);
        plus(then, service) <= order.deadline_at
    }

    /// Until the provider takes the number again, whenever inside its send window the request leaves.
    fn cooling(&self, order: &Order, now: Timestamp) -> Option<Cooling> {
        let lasts = self.provider.capabilities().same_number_cooldown?;
        let number = order.recipient.msisdn()?;
        Some(Cooling {
            provider: self.provider.id().clone(),
            phone_hash: number.keyed_hash(&self.rules.commands.phone_key).to_text(),
            order_id: order.order_id.clone(),
            until: plus(now, lasts + self.rules.send_window),
        })
    }
}
