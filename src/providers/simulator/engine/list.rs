//! What the provider would put on its bill: every reference that it has begun, as it truly stands.

use std::sync::PoisonError;

use chrono::TimeDelta;

use super::{Engine, Life, Reference};
use crate::domain::{ClientRef, Timestamp};

/// A recharge as the provider lists it.
#[derive(Debug, Clone)]
pub(in super::super) struct ListedRecharge {
    pub(in super::super) client_ref: ClientRef,
    pub(in super::super) life: Life,
    /// When its last submit came: under this it is filed. Of an earlier run, when its ledger's line was written.
    pub(in super::super) at: Timestamp,
}

/// Of which time, up to and without its end.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Span {
    pub(in super::super) from: Timestamp,
    pub(in super::super) until: Timestamp,
}

impl Span {
    pub(in super::super) const EVER: Self = Self { from: Timestamp::MIN_UTC, until: Timestamp::MAX_UTC };

    fn holds(self, at: Timestamp) -> bool {
        self.from <= at && at < self.until
    }
}

impl Engine {
    /// What is filed in a time, by reference.
    pub(in super::super) fn listed(&self, span: Span) -> Vec<ListedRecharge> {
        let now = self.now();
        let mut all = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend(shard.iter().filter_map(|(name, reference)| {
                let at = filed_at(reference, now)?;
                let client_ref = ClientRef::from_stored(name);
                span.holds(at).then_some(ListedRecharge { client_ref, life: reference.life, at })
            }));
        }
        all.sort_unstable_by(|one, other| one.client_ref.cmp(&other.client_ref));
        all
    }
}

fn filed_at(reference: &Reference, now: Timestamp) -> Option<Timestamp> {
    let submitted = reference.submitted_at.map(|at| now - TimeDelta::from_std(at.elapsed()).unwrap_or_default());
    match reference.life {
        Life::Nothing => None,
        Life::InProgress | Life::Refused(_) => submitted,
        Life::Delivered { at, .. } | Life::Reversed { at, .. } => Some(submitted.unwrap_or(at)),
    }
}
