//! The timers: what is to be told of an order at a moment of its own is logged there, once, with the state
//! that the order has by then. From the database alone: no other role, and no broker, can make it late.

use std::time::Duration;

use tracing::error;

use crate::domain::{LoggedEvent, Timestamp};
use crate::faults::{Bug, is_planted};
use crate::ports::{DeadlinePosition, TimerPage, Written};
use crate::roles::{RoleError, StopSignals};

use super::{Watchdog, wait};

/// It looks at least this often, whatever is due next.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What comes due together is logged together.
const GATHER: Duration = Duration::from_millis(20);

impl Watchdog {
    /// Works until told to stop.
    pub(super) async fn fire_timers(&self, stop: &StopSignals) -> Result<(), RoleError> {
        // Whoever moves or holds what is due has it back soon, or not for long.
        let mut again = GATHER;
        loop {
            let mut now = self.clock.now();
            if is_planted(Bug::NotifyTooEarly) {
                now += Duration::from_secs(2);
            }
            let Some(overtaken) = self.fire_due(now, stop).await? else { return Ok(()) };
            let sleep = if overtaken == 0 {
                again = GATHER;
                let Some(next) = self.next_timer(now, stop).await? else { return Ok(()) };
                (next - self.clock.now()).to_std().unwrap_or_default().max(GATHER)
            } else {
                again = (again * 2).min(LOOK_EVERY);
                again
            };
            if wait(stop, sleep).await {
                return Ok(());
            }
        }
    }

    /// Logs everything that is due; returns how much of it was overtaken, or `None` if told to stop before the end.
    async fn fire_due(&self, now: Timestamp, stop: &StopSignals) -> Result<Option<usize>, RoleError> {
        let mut overtaken = 0;
        let mut after = DeadlinePosition { at: Timestamp::UNIX_EPOCH, order_id: None };
        loop {
            let read = || self.timers.due(&after, now, self.rules.batch_max);
            let Some(page) = self.patiently("due_timers", stop, read).await? else { return Ok(None) };
            let Some(missed) = self.fire_page(&page, stop).await? else { return Ok(None) };
            overtaken += missed;
            let Some(next) = page.next else { return Ok(Some(overtaken)) };
            after = next;
        }
    }

    async fn fire_page(&self, page: &TimerPage, stop: &StopSignals) -> Result<Option<usize>, RoleError> {
        for row in &page.unreadable {
            error!(order_id = row.order_id, why = row.why, "its notification is due, and its row cannot be read");
            self.metrics.acted("stuck");
        }
        let now = self.clock.now();
        let events: Vec<LoggedEvent> = page.due.iter().map(|due| due.request(now)).collect();
        let fire = || self.timers.fire(&events);
        let Some(written) = self.patiently("fire_timers", stop, fire).await? else { return Ok(None) };
        let fired = written.iter().filter(|written| **written == Written::Stored).count();
        (0..fired).for_each(|_| self.metrics.acted("notify"));
        Ok(Some(written.len() - fired))
    }

    /// The moment at which the next look is due; `None` when told to stop.
    async fn next_timer(&self, now: Timestamp, stop: &StopSignals) -> Result<Option<Timestamp>, RoleError> {
        let latest = crate::domain::plus(now, LOOK_EVERY);
        let after = DeadlinePosition { at: now, order_id: None };
        let read = || self.timers.due(&after, latest, 1);
        let next = self.patiently("due_timers", stop, read).await?;
        Ok(next.map(|page| page.due.first().map_or(latest, |due| due.due_at)))
    }
}
