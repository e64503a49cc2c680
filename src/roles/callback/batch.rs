//! A batch of callbacks: each is settled, leads to a question, or tells nothing new; and is noted, so that its
//! repetitions cost no more than a look. Each is acknowledged as soon as what it asks for is done: what holds one up (a row
//! that somebody holds, a broker that is away) costs no other one its acknowledgement.

use std::collections::HashMap;

use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::domain::{Order, OrderId, QueryOutcome};
use crate::ports::{Became, Loaded, NotedCallback, OutRecord, StoreError};
use crate::roles::patience;

use super::{Callbacks, Told, WITHIN};

/// A callback in hand, and the row that it is about.
pub(super) struct OnRow {
    pub(super) told: Told,
    pub(super) order: Order,
}

/// Callbacks that need nothing more but to be noted.
pub(super) type Ended = Vec<(Told, Became)>;

impl Callbacks {
    /// Deals with a batch. What cannot be dealt with in time is dropped, and its provider hears that it is to come again.
    pub(super) async fn deal_with(&self, batch: Vec<Told>, abort: &CancellationToken) {
        match tokio::time::timeout(WITHIN, self.work_off(batch, abort)).await {
            Ok(Ok(())) => {}
            Ok(Err(trouble)) if trouble.is_transient() => {
                warn!(error = ?trouble, "the store did not answer: callbacks are to be sent again");
            }
            Ok(Err(trouble)) => error!(error = ?trouble, "callbacks cannot be dealt with: they are to be sent again"),
            Err(_) => warn!("callbacks were not dealt with in time: they are to be sent again"),
        }
    }

    async fn work_off(&self, batch: Vec<Told>, abort: &CancellationToken) -> Result<(), StoreError> {
        let fresh = self.fresh(batch).await?;
        let rows = self.rows(fresh).await?;
        let (proven, hearsay): (Vec<OnRow>, Vec<OnRow>) = rows.into_iter().partition(|one| self.settles(one));
        let held = self.settle(proven, abort).await?;
        let free = hearsay.into_iter().filter(|one| !held.contains(&one.order.order_id));
        self.heed(free.collect()).await
    }

    /// Acknowledges what was noted before; returns the rest, each once: whatever becomes of the first of several that say
    /// the same becomes of them all.
    async fn fresh(&self, batch: Vec<Told>) -> Result<Vec<Told>, StoreError> {
        let keys: Vec<NotedCallback> = batch.iter().map(|told| self.noted(told, Became::Known)).collect();
        let were_noted = self.book.were_noted(&keys).await?;
        let mut fresh: Vec<Told> = Vec::with_capacity(batch.len());
        let mut places = HashMap::new();
        for ((told, key), was_noted) in batch.into_iter().zip(keys).zip(were_noted) {
            if was_noted {
                self.acknowledge(told, Became::Known);
                continue;
            }
            let place = *places.entry((key.order_id, key.attempt, key.provider, key.said)).or_insert(fresh.len());
            match fresh.get_mut(place) {
                Some(first) => first.twins.push(told.done),
                None => fresh.push(told),
            }
        }
        Ok(fresh)
    }

    /// Notes what was done, and acknowledges it.
    pub(super) async fn close(&self, ended: Ended) -> Result<(), StoreError> {
        if ended.is_empty() {
            return Ok(());
        }
        let noted: Vec<NotedCallback> = ended.iter().map(|(told, became)| self.noted(told, *became)).collect();
        self.book.note_callbacks(&noted).await?;
        for (told, became) in ended {
            self.acknowledge(told, became);
        }
        Ok(())
    }

    /// Who has hung up meanwhile sends it again, and it is known then.
    fn acknowledge(&self, Told { provider, done, twins, .. }: Told, became: Became) {
        self.metrics.taken(&provider, became);
        done.send(()).unwrap_or_default();
        for twin in twins {
            self.metrics.taken(&provider, Became::Known);
            twin.send(()).unwrap_or_default();
        }
    }

    fn noted(&self, told: &Told, became: Became) -> NotedCallback {
        NotedCallback {
            order_id: told.order_id.clone(),
            attempt: told.attempt,
            provider: told.provider.clone(),
            said: word(&told.news.said).to_owned(),
            became,
            at: self.clock.now(),
        }
    }

    /// Whether a callback's word counts like the answer to a query: proven, understood, and of the lane that the order is in.
    /// What another provider says of a reference that it cannot have would move the order from under this one.
    fn settles(&self, OnRow { told, order }: &OnRow) -> bool {
        let caller = self.rules.callers.get(&told.provider);
        told.news.is_proven
            && order.provider.as_ref() == Some(&told.provider)
            && !matches!(told.news.said, QueryOutcome::Unavailable { .. })
            && caller.is_some_and(|caller| caller.provider.capabilities().callback_settles)
    }

    /// The rows of callbacks. One about an attempt that its row does not know is let go: it is sent again.
    pub(super) async fn rows(&self, batch: Vec<Told>) -> Result<Vec<OnRow>, StoreError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<OrderId> = batch.iter().map(|told| told.order_id.clone()).collect();
        let rows = self.store.load(&ids).await?;
        let mut found = Vec::with_capacity(batch.len());
        for (told, row) in batch.into_iter().zip(rows) {
            match row {
                Loaded::Order(order) if (1..=order.attempt_number()).contains(&told.attempt) => {
                    found.push(OnRow { told, order });
                }
                Loaded::Order(_) | Loaded::Absent => {
                    warn!(order_id = %told.order_id, attempt = told.attempt, "a genuine callback about an attempt that is not stored");
                }
                Loaded::Unreadable(why) => patience::unreadable(&told.order_id, &why),
            }
        }
        Ok(found)
    }

    /// Publishes what there is to publish, once; answers for each whether nothing is left to do.
    pub(super) async fn publish(&self, records: Vec<Option<OutRecord>>) -> Vec<bool> {
        let mut done: Vec<bool> = records.iter().map(Option::is_none).collect();
        let (places, records): (Vec<usize>, Vec<OutRecord>) =
            records.into_iter().enumerate().filter_map(|(place, record)| Some((place, record?))).unzip();
        if records.is_empty() {
            return done;
        }
        let results = self.publisher.publish(&records).await;
        for (place, result) in places.into_iter().zip(results) {
            if let Some(done) = done.get_mut(place) {
                *done = result.is_ok();
            }
        }
        done
    }
}

/// What was said, in words of ours: what makes a callback one with its repetitions.
fn word(said: &QueryOutcome) -> &'static str {
    match said {
        QueryOutcome::Succeeded(_) => "succeeded",
        QueryOutcome::InProgress => "in_progress",
        // Not its code: some tables name the beginning of a code alone, and let the rest be anything.
        QueryOutcome::Failed(failure) => failure.class.as_str(),
        QueryOutcome::Reversed(_) => "reversed",
        QueryOutcome::ProviderUnknown => "unknown",
        QueryOutcome::NotFound
        | QueryOutcome::NotAsked
        | QueryOutcome::Unavailable { .. }
        | QueryOutcome::Throttled { .. }
        | QueryOutcome::Banned { .. } => "unreadable",
    }
}
