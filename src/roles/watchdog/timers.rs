//! The timers: what is to be told of an order at a moment of its own is logged there, once, with the state
//! that the order has by then. From the database alone: no other role, and no broker, can make it late.

use std::time::Duration;

use tracing::error;

use crate::domain::{LoggedEvent, Timestamp};
use crate::faults::{Bug, is_planted};
use crate::ports::{DeadlinePosition, TimerPage, UnreadableRow, Written};
use crate::roles::{RoleError, StopSignals};

use super::{Watchdog, wait};

/// It looks at least this often, whatever is due next.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What comes due together is logged together.
const GATHER: Duration = Duration::from_millis(20);

/// What is wrong with rows is said again after this long.
const SAID_AGAIN: Duration = Duration::from_secs(30);

/// What a look found.
#[derive(Debug, Default)]
struct Look {
    fired: usize,
    /// So many are due and could not be told of: they were moved, told of or held by others meanwhile.
    overtaken: usize,
    unreadable: Option<UnreadableRow>,
    /// The next one, if it comes before the next look.
    next: Option<Timestamp>,
}

impl Watchdog {
    /// Works until told to stop.
    pub(super) async fn fire_timers(&self, stop: &StopSignals) -> Result<(), RoleError> {
        // Whoever moves or holds what is due has it back soon, or not for long.
        let (mut again, mut ahead) = (GATHER, LOOK_EVERY);
        let (mut told_to, mut whole_at, mut wrong_at) = (Timestamp::UNIX_EPOCH, Duration::ZERO, Duration::ZERO);
        loop {
            let mut now = self.clock.now();
            if is_planted(Bug::NotifyTooEarly) {
                now += Duration::from_secs(2);
            }
            let since_boot = self.clock.since_boot();
            // From the beginning now and then, for what came in late; between that only what has come due since:
            // whatever was told of lies there, deleted, for as long as the oldest transaction runs.
            if since_boot >= whole_at {
                (told_to, whole_at) = (Timestamp::UNIX_EPOCH, since_boot + LOOK_EVERY);
            }
            let Some(look) = self.look_at_timers((told_to, now, ahead), stop).await? else { return Ok(()) };
            if look.overtaken == 0 {
                told_to = now;
            }
            if let Some(row) = look.unreadable.filter(|_| since_boot >= wrong_at) {
                error!(
                    order_id = row.order_id,
                    why = row.why,
                    "its notification is due, and its row cannot be read: mend it"
                );
                self.metrics.acted("stuck");
                wrong_at = since_boot + SAID_AGAIN;
            }
            again = if look.overtaken == 0 { GATHER } else { (again * 2).min(LOOK_EVERY) };
            let next = look.next.map(|next| (next - self.clock.now()).to_std().unwrap_or_default().max(GATHER));
            // No longer than it has looked ahead.
            let sleep = next.unwrap_or(ahead);
            // Where much is due, little of what is not due yet is read.
            ahead = if look.fired == 0 { LOOK_EVERY } else { GATHER };
            if wait(stop, if look.overtaken == 0 { sleep } else { sleep.min(again) }).await {
                return Ok(());
            }
        }
    }

    /// Logs everything that is due; `None` if told to stop before the end.
    async fn look_at_timers(
        &self,
        (from, now, ahead): (Timestamp, Timestamp, Duration),
        stop: &StopSignals,
    ) -> Result<Option<Look>, RoleError> {
        let until = crate::domain::plus(now, ahead);
        let mut look = Look::default();
        let mut after = DeadlinePosition { at: from, order_id: None };
        loop {
            let read = || self.timers.due(&after, until, self.rules.batch_max);
            let Some(page) = self.patiently("due_timers", stop, read).await? else { return Ok(None) };
            let Some((fired, overtaken)) = self.fire_page(&page, now, stop).await? else { return Ok(None) };
            look.fired += fired;
            look.overtaken += overtaken;
            look.unreadable = look.unreadable.or_else(|| page.unreadable.first().cloned());
            look.next = page.due.iter().map(|due| due.due_at).find(|at| *at > now);
            let Some(next) = page.next.filter(|_| look.next.is_none()) else { return Ok(Some(look)) };
            after = next;
        }
    }

    /// How many of a page were told of, and how many could not be.
    async fn fire_page(
        &self,
        page: &TimerPage,
        now: Timestamp,
        stop: &StopSignals,
    ) -> Result<Option<(usize, usize)>, RoleError> {
        let told_at = self.clock.now();
        let due = page.due.iter().filter(|due| due.due_at <= now);
        let events: Vec<LoggedEvent> = due.map(|due| due.request(told_at)).collect();
        if events.is_empty() {
            return Ok(Some((0, 0)));
        }
        let fire = || self.timers.fire(&events);
        let Some(written) = self.patiently("fire_timers", stop, fire).await? else { return Ok(None) };
        let fired = written.iter().filter(|written| **written == Written::Stored).count();
        (0..fired).for_each(|_| self.metrics.acted("notify"));
        Ok(Some((fired, written.len() - fired)))
    }
}
