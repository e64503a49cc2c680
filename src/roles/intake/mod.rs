//! Intake: from an order event to a stored order with its deadline, and to the command that asks
//! for its recharge. It is never held up by a provider's quota, so an order is in the database
//! milliseconds after it arrives, whatever the backlog.

mod batch;
mod early;
mod out;
mod sort;
#[cfg(test)]
mod tests;
mod turns;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::domain::{NewOrder, Policy, ProviderId, Reason, Timestamp};
use crate::metrics::{IntakeMetrics, OutcomeMetrics};
use crate::ports::{Clock, InRecord, LaneTopics, OrderStore, Publisher, Subscription};

use super::commands::CommandWriter;
use super::{RoleError, RowsAtHand, StopSignals};
use early::Taken;
use turns::Turns;

pub(crate) use early::as_it_came;
pub(crate) use sort::refuse_too_old;

/// Which lane serves an order, or why none does.
pub type Route = Box<dyn Fn(&NewOrder) -> Result<ProviderId, Reason> + Send + Sync>;

/// What intake goes by.
pub struct IntakeRules {
    /// For `decide`.
    pub policy: Policy,
    /// Which lane serves an order.
    pub route: Route,
    /// How commands are written.
    pub commands: CommandWriter,
    /// Where the lanes' commands go.
    pub lanes: HashMap<ProviderId, LaneTopics>,
    /// Where unusable records go.
    pub dead_letters: Arc<str>,
    /// To where the tiers bring back events that came before their order.
    pub timers: Arc<str>,
    /// How long closed orders are kept: what is older may have been handled and forgotten.
    pub retention: Duration,
    /// Records in one statement at most.
    pub batch_max: usize,
    /// Statements under way at once; more than four cost more than they bring (`docs/PERFORMANCE.md`).
    pub writers: usize,
}

impl std::fmt::Debug for IntakeRules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IntakeRules").field("lanes", &self.lanes).finish_non_exhaustive()
    }
}

/// From where intake reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The shop's orders; plain JSON is one.
    Orders,
    /// The shop's payments, cancellations and refunds, where they are kept apart.
    Lifecycle,
    /// What came before its order, and comes back.
    Timers,
}

impl Source {
    /// Its name, as in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Lifecycle => "lifecycle",
            Self::Timers => "timers",
        }
    }

    fn taken(self, record: InRecord, now: Timestamp) -> Taken {
        match self {
            Self::Orders | Self::Lifecycle => Taken::fresh(record),
            Self::Timers => Taken::returned(record, now),
        }
    }
}

/// The role, for one input topic.
#[derive(Debug, Clone)]
pub struct Intake {
    /// The orders.
    pub store: Arc<dyn OrderStore>,
    /// Where stored orders are left for the lanes of this process.
    pub at_hand: Arc<RowsAtHand>,
    /// For commands and dead letters.
    pub publisher: Arc<dyn Publisher>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The rules.
    pub rules: Arc<IntakeRules>,
    /// Which topic it is.
    pub source: Source,
    /// The numbers.
    pub metrics: Arc<IntakeMetrics>,
    /// What became of orders.
    pub outcomes: Arc<OutcomeMetrics>,
}

/// A record that came alone waits this long for company, so that a statement pays off.
const LINGER_QUIET: Duration = Duration::from_millis(2);
/// While other statements are under way it may wait longer: it would queue behind them anyway.
const LINGER_BUSY: Duration = Duration::from_millis(10);

impl Intake {
    /// Works until told to stop or until the subscription ends.
    pub async fn run(self, mut input: Box<dyn Subscription>, stop: StopSignals) -> Result<(), RoleError> {
        let mut under_way: JoinSet<Result<usize, RoleError>> = JoinSet::new();
        let mut turns = Turns::default();
        let mut left = 0;
        loop {
            while under_way.len() >= self.rules.writers.max(1) {
                left += finish_one(&mut under_way).await?;
            }
            let first = tokio::select! {
                biased; // Stopping comes first; a failed batch before more work.
                () = stop.drain.cancelled() => break,
                Some(ended) = under_way.join_next() => { left += ended_well(ended)?; continue }
                records = input.next(self.rules.batch_max) => records?,
            };
            let records = self.gather(first, input.as_mut(), under_way.is_empty()).await?;
            self.metrics.received(records.len() as u64);
            let now = self.clock.now();
            let records: Vec<Taken> = records.into_iter().map(|record| self.source.taken(record, now)).collect();
            let sorted = self.sort(&records, now);
            let turn = turns.next(sorted.orders());
            let (role, abort) = (self.clone(), stop.abort.clone());
            under_way.spawn(async move { role.take(records, sorted, turn, &abort).await });
        }
        while !under_way.is_empty() {
            left += finish_one(&mut under_way).await?;
        }
        match left {
            0 => Ok(()),
            _ => {
                Err(RoleError::Left(format!("{left} records were not brought to an end: uncommitted, they come again")))
            }
        }
    }

    /// Adds what has come meanwhile: batches grow with the backlog.
    async fn gather(
        &self,
        mut records: Vec<InRecord>,
        input: &mut dyn Subscription,
        quiet: bool,
    ) -> Result<Vec<InRecord>, RoleError> {
        let until = Instant::now() + if quiet { LINGER_QUIET } else { LINGER_BUSY };
        while records.len() < self.rules.batch_max {
            // A look now and then: being woken by each record would cost more than it is worth.
            match input.next(self.rules.batch_max - records.len()).now_or_never() {
                Some(more) => records.extend(more?),
                None if Instant::now() < until => tokio::time::sleep(LINGER_QUIET).await,
                None => break,
            }
        }
        Ok(records)
    }
}

async fn finish_one(under_way: &mut JoinSet<Result<usize, RoleError>>) -> Result<usize, RoleError> {
    match under_way.join_next().await {
        Some(ended) => ended_well(ended),
        None => Ok(0),
    }
}

fn ended_well(ended: Result<Result<usize, RoleError>, tokio::task::JoinError>) -> Result<usize, RoleError> {
    ended.map_err(|error| RoleError::Task(error.to_string()))?
}
