//! One provider's day: what our store believes of it against the provider's own list.
//!
//! Both sides are read to their end before anything is said: our claims from the event log ([`crate::ports::DayLog`]),
//! theirs from a file or an API ([`crate::ports::Statement`]), both into one small table by reference. Then the orders'
//! rows are read in batches and compared (`compare`), and what contradicts a *closed* order becomes a case by the
//! state machine's own rules, fenced like every other write. No order is ever changed by it. `docs/RECONCILE.md`.

mod attempts;
mod cases;
mod compare;
mod day;
mod gather;
mod judge;
mod permits;
mod report;

use std::time::Duration;

use crate::domain::{Policy, ProviderId, Timestamp};
use crate::ports::{Statement, StatementError, Store, StoreError};

use self::attempts::Attempts;

pub use self::attempts::Full;
pub use self::cases::CASES_MAX;
pub use self::compare::{Class, Complaint, Here, There, Verdict, compare};
pub use self::day::Day;
pub use self::permits::QuotaPermits;
pub use self::report::{CaseCounts, CaseState, Counted, Entry, Listing, Matched, Report, Sum};

/// Orders loaded at once.
const BATCH: usize = 500;
/// What the store cannot answer now is asked again so often.
const TRIES: u32 = 5;
/// Before it is asked again the first time; then twice as long.
const WAIT: Duration = Duration::from_millis(200);

/// What to reconcile, and how.
#[derive(Debug, Clone)]
pub struct Task<'a> {
    /// Whose day.
    pub provider: ProviderId,
    /// Which.
    pub day: Day,
    /// The store's own time at the beginning.
    pub now: Timestamp,
    /// The rules.
    pub policy: &'a Policy,
    /// Open no case.
    pub dry_run: bool,
    /// If more cases than this had to be opened, none is: then the list is more likely to be the wrong one. Where nobody
    /// says how many, no more than a thousand are, and none where the list lacks most of what was delivered.
    pub cases_max: Option<usize>,
}

/// How far it is, for whoever waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Attempts of ours were read from the log.
    Ours(usize),
    /// Lines of the list were read.
    Theirs(u64),
    /// So many attempts were compared.
    Compared(usize),
    /// Cases were opened.
    Opened(u64),
}

/// What is wrong with what a list says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadList {
    /// In which of its lines, where it is one.
    pub line: Option<u64>,
    /// In words, with the remedy.
    pub what: String,
}

impl std::fmt::Display for BadList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        f.write_str(&self.what)
    }
}

/// Why there is no report. Cases that were opened by then stay open.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The list.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// What the list says.
    #[error("{0}")]
    List(BadList),
    /// An entry of the log.
    #[error(transparent)]
    Log(#[from] crate::domain::event::BadLine),
    /// Too much for the memory.
    #[error(transparent)]
    Full(#[from] Full),
}

/// A comparison that was made to its end.
#[derive(Debug)]
pub struct Reconciled {
    /// The counts.
    pub report: Report,
    attempts: Attempts,
    found: Vec<judge::Found>,
}

/// Compares, and opens the cases.
pub async fn reconcile(
    store: &dyn Store,
    statement: &mut dyn Statement,
    task: &Task<'_>,
    mut progress: impl FnMut(Progress),
) -> Result<Reconciled, ReconcileError> {
    let mut attempts = Attempts::default();
    gather::our_claims(store, task, &mut attempts, &mut progress).await?;
    let listing = gather::their_list(statement, task, &mut attempts, &mut progress).await?;
    gather::find_strangers(store, task, &mut attempts).await?;
    let mut judged = judge::judge(store, task, &mut attempts, &mut progress).await?;
    let cases = cases::open(store, task, &attempts, &mut judged.found, &mut progress).await?;
    let report = report::report(task, listing, &attempts, &judged, cases);
    Ok(Reconciled { report, attempts, found: judged.found })
}

impl Reconciled {
    /// Every difference, in the order of our claims and then of the list; with `matched`, everything else of the day.
    pub fn entries(&self, matched: bool) -> impl Iterator<Item = Entry> {
        report::entries(&self.attempts, &self.found, matched)
    }
}

/// Asks the store again while that can help.
async fn again<T, F, Fut>(mut ask: F) -> Result<T, StoreError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, StoreError>>,
{
    let mut wait = WAIT;
    for _ in 1..TRIES {
        match ask().await {
            Err(error) if error.is_transient() => {
                tokio::time::sleep(wait).await;
                wait *= 2;
            }
            answered => return answered,
        }
    }
    ask().await
}
