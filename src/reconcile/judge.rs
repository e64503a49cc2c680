//! The orders' rows, in batches, against what the table holds.

use crate::domain::{CaseKind, OrderId};
use crate::ports::{Loaded, Store};

use super::attempts::{Attempts, Slot};
use super::compare::{Class, Here, There, compare};
use super::report::CaseState;
use super::{BATCH, Progress, ReconcileError, Task, again};

/// A difference.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    /// Where in the table.
    pub(super) slot: usize,
    pub(super) class: Class,
    /// What a person looks at, where a rule has a case for it.
    pub(super) case: Option<(CaseKind, CaseState)>,
}

/// Everything that was compared.
#[derive(Debug, Default)]
pub(super) struct Judged {
    pub(super) found: Vec<Found>,
    /// Attempts of the day that may be filed on its neighbour, and are not on this list.
    pub(super) at_the_edge: u64,
    /// References of the list whose orders' rows are gone, or cannot be read.
    pub(super) unreadable: u64,
    /// Of nobody, and nothing was delivered.
    pub(super) idle_strangers: u64,
}

/// What a slot's line says.
pub(super) fn there(slot: &Slot) -> Option<There> {
    slot.there.map(|state| There { state, amount: slot.listed_amount() })
}

pub(super) async fn judge(
    store: &dyn Store,
    task: &Task<'_>,
    attempts: &mut Attempts,
    progress: &mut impl FnMut(Progress),
) -> Result<Judged, ReconcileError> {
    let mut judged = Judged::default();
    let mut at = 0;
    while at < attempts.len() {
        let until = (at + BATCH).min(attempts.len());
        let batch: Vec<(usize, OrderId)> = (at..until)
            .filter_map(|index| {
                let slot = attempts.get(index).filter(|slot| slot.counts() && slot.attempt > 0)?;
                Some((index, attempts.order_id(slot)?))
            })
            .collect();
        let ids: Vec<OrderId> = batch.iter().map(|(_, order_id)| order_id.clone()).collect();
        let rows = again(|| store.load(&ids)).await?;
        for ((index, _), row) in batch.iter().zip(rows) {
            judge_one(task, attempts, *index, row, &mut judged);
        }
        for index in at..until {
            if let Some(slot) = attempts.get(index).filter(|slot| slot.attempt == 0) {
                judge_stranger(index, slot, &mut judged);
            }
        }
        if at / 100_000 < until / 100_000 {
            progress(Progress::Compared(until));
        }
        at = until;
    }
    Ok(judged)
}

fn judge_one(task: &Task<'_>, attempts: &mut Attempts, index: usize, row: Loaded, judged: &mut Judged) {
    let Some(slot) = attempts.get_mut(index) else { return };
    let Loaded::Order(order) = row else {
        judged.unreadable += 1;
        return;
    };
    let here = Here::of(&order, slot.attempt);
    slot.set_here(here, order.state, order.amount);
    // A provider may file it under its end, which came before we heard of it.
    let has_ended_inside = order.closed_at.is_none_or(|at| task.day.must_hold(at, task.now));
    let must_be_listed = slot.is_inside && (here != Here::Delivered || has_ended_inside);
    if slot.there.is_none() && !must_be_listed && here != Here::NotDelivered {
        judged.at_the_edge += 1;
        slot.here = None;
        return;
    }
    let verdict = compare(&order, slot.attempt, there(slot), task.now);
    if verdict.class == Class::Matched {
        return;
    }
    let case = verdict.complaint.map(|complaint| {
        let is_known = order.cases & complaint.kind.bit() != 0;
        (complaint.kind, if is_known { CaseState::Known } else { CaseState::Due })
    });
    judged.found.push(Found { slot: index, class: verdict.class, case });
}

/// A reference of the list that is of no order of ours. What failed there moved no money.
fn judge_stranger(index: usize, slot: &Slot, judged: &mut Judged) {
    use crate::ports::ListedState::{Delivered, Failed, InProgress, Reversed, Unknown};
    if !slot.is_listed_of_day {
        return;
    }
    match slot.there {
        Some(Delivered | Reversed | InProgress | Unknown) => {
            judged.found.push(Found { slot: index, class: Class::MissingHere, case: None });
        }
        Some(Failed) | None => judged.idle_strangers += 1,
    }
}
