//! The order of a batch: sorted on the way in, the caller's on the way out.

use std::collections::{HashMap, HashSet};

use crate::domain::{Order, OrderId, Transition};
use crate::ports::{Inserted, Loaded, StoreError, StoreErrorKind, Written};

/// The first transition of each order, sorted by id: batches that lock the same rows in the same
/// order cannot wait for each other in a circle.
pub(super) fn sorted(batch: &[Transition]) -> Vec<&Transition> {
    let mut firsts: Vec<&Transition> = batch.iter().collect();
    firsts.sort_by(|a, b| a.after.order_id.cmp(&b.after.order_id));
    firsts.dedup_by(|later, first| later.after.order_id == first.after.order_id);
    firsts
}

/// Which of the orders of a statement it stored.
#[derive(Debug)]
pub(super) enum Stored {
    /// Each of them: nearly always.
    All,
    /// These.
    Some(HashSet<String>),
}

impl Stored {
    pub(super) fn has(&self, id: &OrderId) -> bool {
        match self {
            Self::All => true,
            Self::Some(ids) => ids.contains(id.as_str()),
        }
    }
}

/// The orders of a batch that an insert did not store, because they were there.
pub(super) fn not_stored(firsts: &[&Transition], stored: &Stored) -> Vec<OrderId> {
    firsts.iter().map(|first| &first.after.order_id).filter(|id| !stored.has(id)).cloned().collect()
}

/// An order that is neither stored nor there: its deadline passed on the way, or the row that was in the way
/// of the insert was gone a moment later.
#[derive(Debug, thiserror::Error)]
#[error("an order's deadline passed while it was inserted, or it was deleted")]
struct NeitherStoredNorThere;

/// An insert's answers, of a batch of so many orders. `existing` is what was found of those that were `missing`, the orders
/// that were not stored; those that were stored are in `batch` alone. Of several of one id, the later ones meet the first.
pub(super) fn insert_answers(
    batch: &[Transition],
    firsts: usize,
    stored: &Stored,
    (missing, existing): (&[OrderId], &[Loaded]),
) -> Result<Vec<Inserted>, StoreError> {
    if matches!(stored, Stored::All) && firsts == batch.len() {
        return Ok(batch.iter().map(|_| Inserted::Stored).collect());
    }
    let mut known: HashMap<&OrderId, &Order> = HashMap::with_capacity(batch.len());
    let mut unreadable: HashMap<&OrderId, &String> = HashMap::new();
    for (id, loaded) in missing.iter().zip(existing) {
        match loaded {
            Loaded::Order(order) => drop(known.insert(id, order)),
            Loaded::Unreadable(why) => drop(unreadable.insert(id, why)),
            Loaded::Absent => {}
        }
    }
    let mut answers = Vec::with_capacity(batch.len());
    for transition in batch {
        let id = &transition.after.order_id;
        answers.push(match (known.get(id), unreadable.get(id)) {
            (Some(order), _) => Inserted::Exists(Box::new((*order).clone())),
            (None, Some(why)) => Inserted::Unreadable((*why).clone()),
            (None, None) if stored.has(id) => {
                known.insert(id, &transition.after);
                Inserted::Stored
            }
            (None, None) => {
                let kind = StoreErrorKind::Contention;
                return Err(StoreError { operation: "insert", kind, source: Box::new(NeitherStoredNorThere) });
            }
        });
    }
    Ok(answers)
}

/// A fenced write's answers, of a batch of so many orders. An order stands once in a batch; were it there twice, only the
/// first was written.
pub(super) fn apply_answers(batch: &[Transition], firsts: usize, stored: &Stored) -> Vec<Written> {
    if matches!(stored, Stored::All) && firsts == batch.len() {
        return vec![Written::Stored; batch.len()];
    }
    let mut seen = HashSet::with_capacity(batch.len());
    batch
        .iter()
        .map(|transition| {
            let id = &transition.after.order_id;
            if seen.insert(id) && stored.has(id) { Written::Stored } else { Written::Overtaken }
        })
        .collect()
}
