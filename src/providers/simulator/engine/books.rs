//! How references truly stand, for people and tests; and their end by decision from outside.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use serde::{Deserialize, Serialize};

use super::super::fate::Refusal;
use super::{Engine, Life, lock_shard};

/// How a reference truly stands, whatever its queries are told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReferenceView {
    /// The caller's reference.
    pub client_ref: String,
    /// `nothing`, `in_progress`, `delivered`, `reversed` or `refused`.
    pub state: &'static str,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// What was really delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount_minor: Option<i64>,
    /// How often it was submitted.
    pub submits: u32,
    /// How often it was asked about.
    pub queries: u32,
}

/// How an open recharge ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// Delivered, and so in the ledger.
    Delivered,
    /// Refused for good.
    Failed,
}

/// Why a reference cannot be brought to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// Never heard of.
    #[error("no such reference: list them with GET /_admin/references")]
    Unknown,
    /// Nothing is open about it.
    #[error("it is not in progress: only what was accepted and has no end yet can be resolved")]
    NotOpen,
    /// It could not be delivered.
    #[error("the ledger cannot be written")]
    Ledger,
}

fn view(name: &str, reference: &super::Reference) -> ReferenceView {
    let (state, code, amount) = match reference.life {
        Life::Nothing => ("nothing", None, None),
        Life::InProgress => ("in_progress", None, None),
        Life::Delivered { amount, .. } => ("delivered", None, Some(amount.minor)),
        Life::Reversed { amount, .. } => ("reversed", None, Some(amount.minor)),
        Life::Refused(refusal) => ("refused", Some(refusal.code), None),
    };
    let (submits, queries) = (reference.submits, reference.queries);
    ReferenceView { client_ref: name.to_owned(), state, code, amount_minor: amount, submits, queries }
}

impl Engine {
    /// The references behind `after`, in the order of their names.
    pub(in super::super) fn references(&self, after: &str, limit: usize) -> Vec<ReferenceView> {
        let mut found = BTreeMap::new();
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for (name, reference) in shard.iter().filter(|(name, _)| name.as_ref() > after) {
                let is_wanted = found.len() < limit || found.last_key_value().is_some_and(|(last, _)| name < last);
                if is_wanted {
                    found.insert(name.clone(), view(name, reference));
                }
                if found.len() > limit {
                    found.pop_last();
                }
            }
        }
        found.into_values().collect()
    }

    /// Brings what was accepted to its end, and lets queries tell it.
    pub(in super::super) async fn resolve(
        self: &Arc<Self>,
        client_ref: &str,
        resolution: Resolution,
    ) -> Result<ReferenceView, ResolveError> {
        let order = {
            let mut shard = lock_shard(&self.shards, client_ref);
            let reference = shard.get_mut(client_ref).ok_or(ResolveError::Unknown)?;
            let is_open = matches!(reference.life, Life::InProgress);
            let rest = reference.rest.as_mut().filter(|rest| !rest.resolved).ok_or(ResolveError::NotOpen)?;
            // One whose end only its queries do not tell yet tells it from now on.
            let was_untold = rest.unclear_until.take().is_some();
            rest.resolved = is_open;
            match (is_open, was_untold) {
                (true, _) => Some((rest.order.clone(), rest.held)),
                (false, true) => None,
                (false, false) => return Err(ResolveError::NotOpen),
            }
        };
        if let Some((order, held)) = order {
            // What was held is for another end than this one, perhaps for another amount.
            self.windows.release(held);
            match resolution {
                Resolution::Failed => {
                    self.refuse(&order, Refusal::for_good("declined", None), None);
                }
                Resolution::Delivered => {
                    self.windows.charge(order.amount.minor);
                    self.deliver(&order, None).await.map_err(|_| ResolveError::Ledger)?;
                }
            }
        }
        let shard = lock_shard(&self.shards, client_ref);
        shard.get(client_ref).map(|reference| view(client_ref, reference)).ok_or(ResolveError::Unknown)
    }
}
