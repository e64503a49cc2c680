//! Refunds that the payment side has not confirmed in time: each gets a case, so that a person asks where the money is.
//! From the database alone, like everything that watches.

use std::time::Duration;

use tracing::{error, warn};

use crate::domain::{Decision, Input, OrderId, Timestamp, Transition, decide};
use crate::ports::{DeadlinePosition, Loaded, RefundPage, UnreadableRow, Written};
use crate::roles::{RoleError, StopSignals, patience};

use super::{CASES_EVERY, Watchdog, wait};

/// What is wrong with rows is said again after this long.
const SAID_AGAIN: Duration = Duration::from_mins(1);

impl Watchdog {
    /// Works until told to stop.
    pub(super) async fn follow_refunds(&self, stop: &StopSignals) -> Result<(), RoleError> {
        let mut wrong_at = Duration::ZERO;
        while !wait(stop, CASES_EVERY).await {
            let Some(wrong) = self.look_at_refunds(self.clock.now(), stop).await? else { return Ok(()) };
            let since_boot = self.clock.since_boot();
            if let Some(row) = wrong.first().filter(|_| since_boot >= wrong_at) {
                error!(
                    order_id = row.order_id,
                    why = row.why,
                    rows = wrong.len(),
                    "a refund was not confirmed in time, and the case of that cannot be opened: mend the row"
                );
                self.metrics.acted("stuck");
                wrong_at = since_boot + SAID_AGAIN;
            }
        }
        Ok(())
    }

    /// Opens the case of every refund that is overdue; returns the rows of which that was not possible, or `None` if
    /// told to stop before the end.
    async fn look_at_refunds(
        &self,
        now: Timestamp,
        stop: &StopSignals,
    ) -> Result<Option<Vec<UnreadableRow>>, RoleError> {
        let mut wrong = Vec::new();
        let mut after = DeadlinePosition { at: Timestamp::UNIX_EPOCH, order_id: None };
        loop {
            let read = || self.refunds.unconfirmed(&after, now, self.rules.batch_max);
            let Some(page) = self.patiently("unconfirmed_refunds", stop, read).await? else { return Ok(None) };
            if !self.open_refund_cases(&page, &mut wrong, stop).await? {
                return Ok(None);
            }
            wrong.extend(page.unreadable);
            let Some(next) = page.next else { return Ok(Some(wrong)) };
            after = next;
        }
    }

    /// `false` if told to stop meanwhile.
    async fn open_refund_cases(
        &self,
        page: &RefundPage,
        wrong: &mut Vec<UnreadableRow>,
        stop: &StopSignals,
    ) -> Result<bool, RoleError> {
        if page.overdue.is_empty() {
            return Ok(true);
        }
        let Some(rows) = self.patiently("load", stop, || self.store.load(&page.overdue)).await? else {
            return Ok(false);
        };
        let (mut transitions, mut settled): (Vec<Transition>, Vec<OrderId>) = (Vec::new(), Vec::new());
        for (id, row) in page.overdue.iter().zip(rows) {
            let order = match row {
                Loaded::Order(order) => Some(order),
                Loaded::Absent => None,
                Loaded::Unreadable(why) => {
                    wrong.push(UnreadableRow { order_id: id.as_str().to_owned(), why });
                    continue;
                }
            };
            match decide(order.as_ref(), &Input::RefundOverdue, self.clock.now(), &self.rules.policy) {
                Decision::Apply(transition) => transitions.push(*transition),
                Decision::Keep(_) => settled.push(id.clone()),
            }
        }
        if !settled.is_empty()
            && self.patiently("unfollow_refunds", stop, || self.refunds.unfollow(&settled)).await?.is_none()
        {
            return Ok(false);
        }
        let written = match patience::applied("refunds", self.store.as_ref(), &transitions, &stop.drain).await {
            Ok(written) => written,
            Err(_) if stop.drain.is_cancelled() => return Ok(false),
            Err(trouble) => return Err(trouble.into()),
        };
        for (transition, written) in transitions.iter().zip(written) {
            let order_id = &transition.after.order_id;
            match written {
                Written::Stored => {
                    warn!(%order_id, "the payment side has not confirmed a refund in time: a person must look");
                    self.metrics.acted("refund_overdue");
                }
                // Confirmed at this very moment, or moved: the next look tells.
                Written::Overtaken => {}
                Written::Locked | Written::Refused => {
                    let why = "its row is held, or refuses the case".to_owned();
                    wrong.push(UnreadableRow { order_id: order_id.as_str().to_owned(), why });
                }
            }
        }
        Ok(true)
    }
}
