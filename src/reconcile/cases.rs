//! The cases: by the state machine's own rules, on rows that were read again, fenced and in batches.

use std::collections::HashSet;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::domain::{Decision, EventType, OrderId, Transition, decide};
use crate::ports::{Loaded, Store, StoreError, StoreErrorKind, Written};
use crate::roles::patience;

use super::attempts::{Attempts, Slot};
use super::compare::{Class, Here, compare};
use super::judge::{Found, there};
use super::report::{CaseCounts, CaseState};
use super::{Progress, ReconcileError, Task, again};

/// More cases than this are not opened unless somebody says so.
pub const CASES_MAX: u64 = 1_000;
/// So few deliveries may be missing on a list, whatever it has.
const FEW: usize = 10;
/// Cases opened by one statement.
const BATCH: usize = 200;
/// Somebody else may move an order at the same moment, a few times.
const TRIES: u32 = 5;
/// A database that has not said whether it has written something after this long is away.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);

/// Opens what is due, and says of each difference what became of its case.
pub(super) async fn open(
    store: &dyn Store,
    task: &Task<'_>,
    attempts: &Attempts,
    found: &mut [Found],
    progress: &mut impl FnMut(Progress),
) -> Result<CaseCounts, ReconcileError> {
    let due: Vec<usize> = (0..found.len())
        .filter(|at| found.get(*at).is_some_and(|found| matches!(found.case, Some((_, CaseState::Due)))))
        .collect();
    let is_too_much = match task.cases_max {
        Some(most) => due.len() > most,
        None => due.len() as u64 > CASES_MAX || lacks_most(attempts, found),
    };
    if task.dry_run || is_too_much {
        let state = if task.dry_run { CaseState::Due } else { CaseState::Withheld };
        for at in due {
            set(found, at, state);
        }
        return Ok(count(found));
    }
    let mut opened = 0;
    for batch in due.chunks(BATCH) {
        open_batch(store, task, attempts, found, batch).await?;
        opened += batch.len() as u64;
        if opened.is_multiple_of(1_000) {
            progress(Progress::Opened(opened));
        }
    }
    Ok(count(found))
}

/// Whether a list has fewer of the deliveries than it has not: one that was cut off between two lines, of another account, or
/// empty is more likely then than that a provider has lost them.
fn lacks_most(attempts: &Attempts, found: &[Found]) -> bool {
    let missing = found.iter().filter(|found| found.class == Class::MissingThere && found.case.is_some()).count();
    let is_listed = |slot: &Slot| slot.here == Some(Here::Delivered) && slot.there.is_some();
    missing > FEW && missing > attempts.slots().filter(|(_, slot)| is_listed(slot)).count()
}

fn set(found: &mut [Found], at: usize, state: CaseState) {
    if let Some((_, known)) = found.get_mut(at).and_then(|found| found.case.as_mut()) {
        *known = state;
    }
}

fn count(found: &[Found]) -> CaseCounts {
    let mut counts = CaseCounts::default();
    for (_, state) in found.iter().filter_map(|found| found.case) {
        match state {
            CaseState::Opened => counts.opened += 1,
            CaseState::Known => counts.known += 1,
            CaseState::Due => counts.due += 1,
            CaseState::Withheld => counts.withheld += 1,
            CaseState::Overtaken => counts.overtaken += 1,
            CaseState::NotWritten => counts.not_written += 1,
        }
    }
    counts
}

/// Until each is written, was there, or applies no more.
async fn open_batch(
    store: &dyn Store,
    task: &Task<'_>,
    attempts: &Attempts,
    found: &mut [Found],
    batch: &[usize],
) -> Result<(), ReconcileError> {
    let mut left = batch.to_vec();
    for _ in 0..TRIES {
        let Decided { transitions, of, later } = decided(store, task, attempts, found, &left).await?;
        if transitions.is_empty() {
            return Ok(());
        }
        let abort = CancellationToken::new();
        let write = patience::applied("reconcile", store, &transitions, &abort);
        let written = tokio::time::timeout(ANSWERS_WITHIN, write).await.map_err(|_| silent())??;
        left = later;
        for (at, written) in of.into_iter().zip(written) {
            match written {
                Written::Stored => set(found, at, CaseState::Opened),
                Written::Overtaken => left.push(at),
                Written::Locked | Written::Refused => set(found, at, CaseState::NotWritten),
            }
        }
        if left.is_empty() {
            return Ok(());
        }
    }
    for at in left {
        set(found, at, CaseState::NotWritten);
    }
    Ok(())
}

/// What is to be written.
#[derive(Debug, Default)]
struct Decided {
    transitions: Vec<Transition>,
    /// Of which difference each is.
    of: Vec<usize>,
    /// Those of an order that has one here already: they are decided on what that one leaves.
    later: Vec<usize>,
}

/// Decides these differences by their rows as they are now.
async fn decided(
    store: &dyn Store,
    task: &Task<'_>,
    attempts: &Attempts,
    found: &mut [Found],
    batch: &[usize],
) -> Result<Decided, StoreError> {
    let slot_of = |found: &[Found], at: usize| found.get(at).and_then(|found| attempts.get(found.slot));
    let named: Vec<(usize, OrderId)> =
        batch.iter().filter_map(|at| Some((*at, attempts.order_id(slot_of(found, *at)?)?))).collect();
    let ids: Vec<OrderId> = named.iter().map(|(_, order_id)| order_id.clone()).collect();
    let rows = again(|| store.load(&ids)).await?;
    let now = again(|| store.now()).await?;
    let mut seen: HashSet<&OrderId> = HashSet::new();
    let mut decided = Decided::default();
    for ((at, order_id), row) in named.iter().zip(rows) {
        let (Loaded::Order(order), Some(slot)) = (row, slot_of(found, *at)) else {
            set(found, *at, CaseState::NotWritten);
            continue;
        };
        let complaint = compare(&order, slot.attempt, there(slot), now).complaint;
        let Some(complaint) = complaint else {
            set(found, *at, CaseState::Overtaken);
            continue;
        };
        match decide(Some(&order), &complaint.input, now, task.policy) {
            // What does not open a case is no business of a list.
            Decision::Apply(transition)
                if transition.event.kind == EventType::CaseOpened && !transition.cases.is_empty() =>
            {
                if seen.insert(order_id) {
                    decided.transitions.push(*transition);
                    decided.of.push(*at);
                } else {
                    decided.later.push(*at);
                }
            }
            Decision::Apply(_) | Decision::Keep(_) => {
                let is_known = order.cases & complaint.kind.bit() != 0;
                set(found, *at, if is_known { CaseState::Known } else { CaseState::Overtaken });
            }
        }
    }
    Ok(decided)
}

fn silent() -> StoreError {
    StoreError {
        operation: "reconcile",
        kind: StoreErrorKind::Unreachable,
        source: "the database did not say whether it has written the cases: run this again, no case is opened twice"
            .into(),
    }
}
