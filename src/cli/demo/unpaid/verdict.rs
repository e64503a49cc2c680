//! Whether each order ended as its customer's doings say that it must, and at its time; each notification and each refund
//! once.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::aftermath::{Aftermath, Asked, Requests};
use crate::audit::{Percentiles, micros_histogram, percentiles};
use crate::cli::audit::Shown;
use crate::domain::{Order, OrderId, Reason, State, Timestamp};
use crate::ports::{OrderFilter, Store, StoreError};
use crate::shop::customers::{Customer, Customers};

/// Orders read from the store at once.
const PAGE: usize = 2_000;
/// So many unexpected ends are told one by one.
const TOLD: usize = 10;

/// What was found.
#[derive(Debug, Clone, Default, Serialize)]
pub(in crate::cli::demo) struct Verdict {
    /// How many orders there were of each kind of customer.
    customers: BTreeMap<Customer, u64>,
    /// Orders that did not end as they must.
    unexpected: u64,
    /// The first of them.
    examples: Vec<Unexpected>,
    /// From the end of the time to pay to the cancellation.
    cancelled_late_ms: Percentiles,
    /// Orders that were cancelled as unpaid before their time to pay was over.
    cancelled_early: u64,
    /// Orders whose notification was asked for, once.
    notified: u64,
    /// Orders whose notification was asked for never, or more than once.
    not_notified_once: u64,
    /// From the time of a notification to its request.
    notified_late_ms: Percentiles,
    /// Notifications that were asked for before their time.
    notified_early: u64,
    /// Orders whose refund was asked for, once, and confirmed.
    refunded: u64,
    /// Orders whose refund was asked for too often, wrongly or never, or is not confirmed.
    not_refunded_once: u64,
}

/// An order that ended otherwise.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Unexpected {
    order_id: String,
    customer: Option<Customer>,
    state: State,
    reason: Option<Reason>,
    refund_requested: bool,
}

/// Whether something is still to come that nobody has decided to leave out: a notification, or the confirmation of a refund.
pub(in crate::cli::demo) async fn left_to_come(
    store: &dyn Store,
    aftermath: &Aftermath,
    sold: u64,
) -> Result<bool, StoreError> {
    if (aftermath.notified() as u64) < sold {
        return Ok(true);
    }
    let mut left = false;
    let is_unconfirmed = |order: &Order| order.refund_requested && order.refund_id.is_none();
    each(store, |order| left |= is_unconfirmed(order)).await?;
    Ok(left)
}

async fn each(store: &dyn Store, mut look: impl FnMut(&Order)) -> Result<(), StoreError> {
    let mut after: Option<OrderId> = None;
    loop {
        let page = store.page(&OrderFilter::default(), after.as_ref(), PAGE).await?;
        for view in &page.orders {
            look(&view.order);
        }
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

impl Verdict {
    /// Reads the store to its end.
    pub(in crate::cli::demo) async fn find(
        store: &dyn Store,
        customers: &Customers,
        aftermath: &Aftermath,
        notify_after: Duration,
    ) -> Result<Self, StoreError> {
        let requests = aftermath.requests();
        let mut verdict = Self::default();
        let (mut cancelled, mut notified) = (micros_histogram(), micros_histogram());
        each(store, |order| {
            verdict.judge(order, customers, &requests);
            if order.reason == Some(Reason::Unpaid) {
                let late = order.closed_at.map_or(0, |at| micros(order.deadline_at, at));
                verdict.cancelled_early += u64::from(late < 0);
                cancelled.saturating_record(u64::try_from(late).unwrap_or(0));
            }
            let first = requests.notifications.get(order.order_id.as_str()).and_then(|asked| asked.first_at);
            if let Some(first) = first {
                let late = micros(order.created_at + notify_after, first);
                verdict.notified_early += u64::from(late < 0);
                notified.saturating_record(u64::try_from(late).unwrap_or(0));
            }
        })
        .await?;
        (verdict.cancelled_late_ms, verdict.notified_late_ms) = (percentiles(&cancelled), percentiles(&notified));
        Ok(verdict)
    }

    fn judge(&mut self, order: &Order, customers: &Customers, requests: &Requests) {
        let id = order.order_id.as_str();
        let customer = customers.customer_of(id);
        let expected = customer.map(Customer::end);
        if let Some(customer) = customer {
            *self.customers.entry(customer).or_default() += 1;
        }
        if expected != Some((order.state, order.reason, order.refund_requested)) {
            self.unexpected += 1;
            if self.examples.len() < TOLD {
                self.examples.push(Unexpected {
                    order_id: id.to_owned(),
                    customer,
                    state: order.state,
                    reason: order.reason,
                    refund_requested: order.refund_requested,
                });
            }
        }
        let times = |asked: Option<&Asked>| asked.map_or(0, |asked| asked.ids.len());
        let told = times(requests.notifications.get(id));
        self.notified += u64::from(told == 1);
        self.not_notified_once += u64::from(told != 1);
        let refunds = times(requests.refunds.get(id));
        let is_due = expected.is_some_and(|(_, _, is_due)| is_due);
        let is_right = refunds == usize::from(is_due) && order.refund_id.is_some() == is_due;
        self.refunded += u64::from(is_due && is_right);
        self.not_refunded_once += u64::from(!is_right);
    }

    pub(in crate::cli::demo) fn is_clean(&self) -> bool {
        self.unexpected + self.cancelled_early + self.notified_early + self.not_notified_once + self.not_refunded_once
            == 0
    }
}

/// From one moment to the other, in microseconds.
fn micros(from: Timestamp, to: Timestamp) -> i64 {
    to.timestamp_micros().saturating_sub(from.timestamp_micros())
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "what the customers did, and how their orders must end")?;
        for (customer, orders) in &self.customers {
            let (state, reason, is_refunded) = customer.end();
            let why = reason.map(|reason| format!(", {}", reason.as_str())).unwrap_or_default();
            let refund = if is_refunded { ", money back" } else { "" };
            writeln!(f, "  {:<34} {orders:>7}   {}{why}{refund}", customer.in_words(), state.as_str())?;
        }
        writeln!(f, "otherwise     {:>10}", self.unexpected)?;
        for other in &self.examples {
            let why = other.reason.map(|reason| format!(", {}", reason.as_str())).unwrap_or_default();
            let refund = if other.refund_requested { ", refund requested" } else { "" };
            writeln!(f, "  {}: {}{why}{refund}", other.order_id, other.state.as_str())?;
        }
        writeln!(
            f,
            "unpaid        cancelled after the time to pay: {}, early {}",
            Shown(self.cancelled_late_ms),
            self.cancelled_early
        )?;
        writeln!(
            f,
            "notified      {:>10}   once each, {} not; after its time: {}, early {}",
            self.notified,
            self.not_notified_once,
            Shown(self.notified_late_ms),
            self.notified_early
        )?;
        write!(f, "money back    {:>10}   once each and confirmed, {} not", self.refunded, self.not_refunded_once)
    }
}
