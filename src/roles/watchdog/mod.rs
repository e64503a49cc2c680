//! The watchdog: at its deadline every order is decided, by whoever is still there; and what was
//! lost on the way is found before that. Whatever decides reads and writes the database alone; what
//! is asked for again goes through Kafka, beside it, so that a broker that is away holds up no
//! deadline. It writes fenced, like everybody else, so any number of them may run.

mod cases;
mod census;
mod deadlines;
#[cfg(test)]
mod fixture;
mod housekeeping;
mod mark;
mod questions;
mod refunds;
mod repair;
mod timers;
mod verdicts;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tracing::error;

use crate::domain::{Policy, ProviderId};
use crate::metrics::{OutcomeMetrics, WatchdogMetrics};
use crate::ports::{
    CaseBook, Clock, Cooldowns, DeadlineBook, LaneTopics, OrderStore, Publisher, ReadMarks, RefundBook, StoreError,
    Timers,
};

use super::commands::CommandWriter;
use super::{RoleError, StopSignals, patience};
use questions::Questions;

/// What was lost is looked for this often,
const MEND_EVERY: Duration = Duration::from_secs(1);
/// and in the cases, whose questions are not so urgent, this often.
const CASES_EVERY: Duration = Duration::from_secs(5);
/// A net that has failed is begun again after this long.
const AGAIN_AFTER: Duration = Duration::from_mins(1);

/// The role.
#[derive(Debug)]
pub struct Watchdog {
    /// The orders.
    pub store: Arc<dyn OrderStore>,
    /// The same by deadline.
    pub deadlines: Arc<dyn DeadlineBook>,
    /// What people look at.
    pub cases: Arc<dyn CaseBook>,
    /// What is told at moments of its own.
    pub timers: Arc<dyn Timers>,
    /// What the payment side has not confirmed.
    pub refunds: Arc<dyn RefundBook>,
    /// How far the lanes have read.
    pub read_marks: Arc<dyn ReadMarks>,
    /// Numbers that cool down at their providers.
    pub cooldowns: Arc<dyn Cooldowns>,
    /// For what is asked for again.
    pub publisher: Arc<dyn Publisher>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The rules.
    pub rules: WatchdogRules,
    /// What became of orders.
    pub outcomes: Arc<OutcomeMetrics>,
    /// The numbers.
    pub metrics: WatchdogMetrics,
}

/// What the watchdog goes by.
#[derive(Debug)]
pub struct WatchdogRules {
    /// For `decide`.
    pub policy: Policy,
    /// How commands are written.
    pub commands: CommandWriter,
    /// Where the lanes' commands go.
    pub lanes: HashMap<ProviderId, LaneTopics>,
    /// The time between two calls that each lane's quota grants: no more questions are asked again.
    pub intervals: HashMap<ProviderId, Duration>,
    /// Partitions of a lane's topic at least.
    pub partitions: usize,
    /// Orders in one statement at most.
    pub batch_max: usize,
}

impl Watchdog {
    /// Works until told to stop.
    pub async fn run(self, stop: StopSignals) -> Result<(), RoleError> {
        let (questions, waiting) = Questions::new();
        tokio::try_join!(
            self.decide_deadlines(&questions, &stop),
            self.ask_for_verdicts(waiting, &stop),
            self.persistently("escalating cases", &stop, || self.tell_people(&stop)),
            self.persistently("the repair", &stop, || self.repair(&stop)),
            self.persistently("asking again", &stop, || self.mend_cases(&stop)),
            self.persistently("the timers", &stop, || self.fire_timers(&stop)),
            self.persistently("following refunds", &stop, || self.follow_refunds(&stop)),
            self.persistently("the census", &stop, || self.take_census(&stop)),
            self.persistently("housekeeping", &stop, || self.keep_house(&stop)),
        )
        .map(drop)
    }

    /// What fails beside the deadlines is told, and begun again: deadlines are decided all the same.
    async fn persistently<F, Fut>(&self, what: &'static str, stop: &StopSignals, work: F) -> Result<(), RoleError>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<(), RoleError>>,
    {
        while let Err(trouble) = work().await {
            error!(what, error = ?trouble, "a net of the watchdog has failed; it is begun again in a minute");
            self.metrics.acted("stuck");
            if wait(stop, AGAIN_AFTER).await {
                break;
            }
        }
        Ok(())
    }

    /// Cases whose time has come are escalated.
    async fn tell_people(&self, stop: &StopSignals) -> Result<(), RoleError> {
        while !wait(stop, CASES_EVERY).await {
            self.escalate(stop).await?;
        }
        Ok(())
    }

    /// Questions that were lost are asked again.
    async fn mend_cases(&self, stop: &StopSignals) -> Result<(), RoleError> {
        while !wait(stop, CASES_EVERY).await {
            self.ask_again(stop).await?;
        }
        Ok(())
    }

    /// `None` when told to stop meanwhile: what is left is the next one's.
    async fn patiently<T, F, Fut>(
        &self,
        operation: &'static str,
        stop: &StopSignals,
        attempt: F,
    ) -> Result<Option<T>, RoleError>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, StoreError>>,
    {
        match patience::stored_unless(operation, &stop.drain, attempt).await {
            Ok(done) => Ok(Some(done)),
            Err(_) if stop.drain.is_cancelled() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Waits; `true` if told to stop meanwhile.
async fn wait(stop: &StopSignals, limit: Duration) -> bool {
    tokio::select! {
        biased; // Stopping comes before another look.
        () = stop.drain.cancelled() => true,
        () = tokio::time::sleep(limit) => false,
    }
}
