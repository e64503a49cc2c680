//! Both sides into one table: our claims, their list, and whose the references are that no claim of the day has.

use std::time::Duration;

use crate::domain::event::Claimed;
use crate::domain::{ClientRef, Order, OrderId, ProviderId, Timestamp, minus, plus};
use crate::ports::{Loaded, LogPosition, Statement, Store};

use super::attempts::{Attempts, Noted};
use super::report::Listing;
use super::{BATCH, BadList, Progress, ReconcileError, Task, again};

/// Entries of the log read at once.
const PAGE: usize = 5_000;
/// A claim is written so soon after it was decided.
const WRITTEN_WITHIN: Duration = Duration::from_mins(10);
/// What was claimed so short a time ago may not be in the log as it is read.
const FRESH: Duration = Duration::from_mins(1);
/// How far from the day a claim is looked for whose reference does not tell its order.
const NEIGHBOURS: Duration = Duration::from_hours(24);
/// No reference of ours has more bytes.
const REFERENCE_MAX: usize = 128;
/// More references that nobody knows are no list of this provider's account with us.
const STRANGERS_MAX: usize = 1_000_000;

/// Reads every claim at the provider that may be of the day.
pub(super) async fn our_claims(
    store: &dyn Store,
    task: &Task<'_>,
    attempts: &mut Attempts,
    progress: &mut impl FnMut(Progress),
) -> Result<(), ReconcileError> {
    let day = &task.day;
    let mut told = 0;
    each_claim(store, &task.provider, day.widened(), |claimed| {
        let place = (day.holds(claimed.at), day.must_hold(claimed.at, task.now));
        let reference = claimed.client_ref.as_deref();
        attempts.claim((&claimed.order_id, claimed.attempt, reference), claimed.at, place)?;
        if attempts.len() >= told + 100_000 {
            told = attempts.len();
            progress(Progress::Ours(told));
        }
        Ok(())
    })
    .await
}

/// Shows each claim at a provider within a time.
async fn each_claim(
    store: &dyn Store,
    provider: &ProviderId,
    (from, until): (Timestamp, Timestamp),
    mut show: impl FnMut(&Claimed<'_>) -> Result<(), ReconcileError>,
) -> Result<(), ReconcileError> {
    let (written_from, written_until) = (minus(from, WRITTEN_WITHIN), plus(until, WRITTEN_WITHIN));
    let mut after = LogPosition::default();
    loop {
        let page = again(|| store.written(written_from, written_until, after, PAGE)).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.position;
        for line in page.iter().flat_map(|batch| batch.lines()) {
            let Some(claimed) = Claimed::from_line(line)? else { continue };
            if *claimed.provider == *provider.as_str() && from <= claimed.at && claimed.at < until {
                show(&claimed)?;
            }
        }
    }
}

/// Reads the list to its end.
pub(super) async fn their_list(
    statement: &mut dyn Statement,
    task: &Task<'_>,
    attempts: &mut Attempts,
    progress: &mut impl FnMut(Progress),
) -> Result<Listing, ReconcileError> {
    let (day, fresh_from) = (&task.day, minus(task.now, FRESH));
    let mut listing = Listing::default();
    let (mut told, mut strangers) = (0, 0_usize);
    while let Some(page) = statement.next_page().await? {
        for listed in &page {
            listing.lines += 1;
            if listed.client_ref.as_str().len() > REFERENCE_MAX {
                let what = format!(
                    "its reference has more than {REFERENCE_MAX} bytes, which none of ours has: is it the right column?"
                );
                return Err(bad(Some(listed.place), what));
            }
            let may_be_of_day = listed.at.is_none_or(|at| day.may_hold(at));
            let found = match attempts.find(listed.client_ref.as_str()) {
                Some(found) => found,
                None if !may_be_of_day => {
                    // Of another day altogether, and not ours of this one.
                    listing.of_other_days += 1;
                    continue;
                }
                None if listed.at.is_some_and(|at| at >= fresh_from) => {
                    listing.fresh += 1;
                    continue;
                }
                None => {
                    strangers += 1;
                    attempts.add_stranger(listed.client_ref.as_str())?
                }
            };
            let is_of_day = listed.at.is_none_or(|at| day.holds(at));
            let noted = attempts.note(found, listed, is_of_day).map_err(|clash| {
                let what = format!(
                    "its reference stands on line {} already, and {}: keep one line for each reference, its last state",
                    clash.first, clash.why
                );
                bad(Some(listed.place), what)
            })?;
            listing.repeated += u64::from(noted == Noted::Repeated);
        }
        if strangers > STRANGERS_MAX {
            let what = format!(
                "more than {STRANGERS_MAX} of its references are of no claim of ours: is it the list of this provider, this \
                 account and this day?"
            );
            return Err(bad(None, what));
        }
        if listing.lines >= told + 100_000 {
            told = listing.lines;
            progress(Progress::Theirs(told));
        }
    }
    if listing.lines > 0 && listing.of_other_days == listing.lines {
        let what = format!(
            "none of its {} lines is of {} at {}: is it the list of another day, or --timezone another one?",
            listing.lines, day.date, day.offset
        );
        return Err(bad(None, what));
    }
    Ok(listing)
}

fn bad(line: Option<u64>, what: String) -> ReconcileError {
    ReconcileError::List(BadList { line, what })
}

/// Looks whose the references are that no claim of the day has: of an order that was claimed on another day, or nobody's.
pub(super) async fn find_strangers(
    store: &dyn Store,
    task: &Task<'_>,
    attempts: &mut Attempts,
) -> Result<(), ReconcileError> {
    let strangers: Vec<usize> = attempts.slots().filter(|(_, slot)| slot.attempt == 0).map(|(at, _)| at).collect();
    let mut has_moved = false;
    for batch in strangers.chunks(BATCH) {
        let named: Vec<(usize, OrderId, u16)> = batch
            .iter()
            .filter_map(|at| {
                let (order_id, attempt) = in_clear(&attempts.client_ref(attempts.get(*at)?))?;
                Some((*at, order_id, attempt))
            })
            .collect();
        let ids: Vec<OrderId> = named.iter().map(|(_, order_id, _)| order_id.clone()).collect();
        let rows = again(|| store.load(&ids)).await?;
        for ((at, order_id, attempt), row) in named.iter().zip(rows) {
            let Loaded::Order(order) = row else { continue };
            match whose(&order, *attempt, &task.provider) {
                Whose::Here => attempts.adopt(*at, order_id.as_str(), *attempt)?,
                Whose::Anywhere => has_moved = true,
                Whose::Nobodys => {}
            }
        }
    }
    let has_hashed = |attempts: &Attempts| {
        let mut left = strangers.iter().filter_map(|at| attempts.get(*at)).filter(|slot| slot.attempt == 0);
        left.any(|slot| ClientRef::from_stored(&attempts.client_ref(slot)).may_be_hashed())
    };
    if !has_moved && !has_hashed(attempts) {
        return Ok(());
    }
    let (from, until) = task.day.widened();
    for around in [(minus(from, NEIGHBOURS), from), (until, plus(until, NEIGHBOURS))] {
        each_claim(store, &task.provider, around, |claimed| {
            let found = attempts.find_claim(&claimed.order_id, claimed.attempt, claimed.client_ref.as_deref());
            match found.filter(|at| attempts.get(*at).is_some_and(|slot| slot.attempt == 0)) {
                Some(at) => Ok(attempts.adopt(at, &claimed.order_id, claimed.attempt)?),
                None => Ok(()),
            }
        })
        .await?;
    }
    Ok(())
}

/// The order and the attempt of a reference in its readable form.
pub(super) fn in_clear(reference: &str) -> Option<(OrderId, u16)> {
    let (order_id, attempt) = reference.rsplit_once('-')?;
    let (order_id, attempt) = (OrderId::parse(order_id).ok()?, attempt.parse().ok()?);
    ClientRef::from_stored(reference).is_in_clear(&order_id, attempt).then_some((order_id, attempt))
}

/// Whose a reference in clear is.
enum Whose {
    /// It is an attempt of the order, which is at this provider.
    Here,
    /// It is an attempt of the order, which is at another one by now. Where it was made the log tells.
    Anywhere,
    Nobodys,
}

fn whose(order: &Order, attempt: u16, provider: &ProviderId) -> Whose {
    if !(1..=order.attempt_number()).contains(&attempt) {
        return Whose::Nobodys;
    }
    if order.provider.as_ref() == Some(provider) { Whose::Here } else { Whose::Anywhere }
}
