//! The audit: our books against the ledgers of what was truly delivered. Whatever a role believes
//! of itself, this is what counts.

mod events;
mod ledgers;
mod sent;
mod tally;

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::domain::{Order, OrderId};
use crate::ports::{Case, CaseFilter, OrderFilter, Store, StoreError};

pub use events::{EventTrail, Events, ToldEvent};
pub use ledgers::{Delivered, Ledger, Ledgers};
pub use sent::references_of;
use tally::Tally;

/// Orders read from the store at once.
const PAGE: usize = 2_000;
/// An order is decided so soon after its deadline, whoever has died: one that is not was forgotten.
pub const DECIDED_WITHIN: Duration = Duration::from_secs(8);

/// What the audit found, and the figures of the run (`interface.md` section 1).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Orders in the store.
    pub orders: u64,
    /// Delivered.
    pub succeeded: u64,
    /// Failed, refund requested.
    pub failed: u64,
    /// Cancelled before payment.
    pub cancelled: u64,
    /// Openly in doubt, with a case.
    pub in_doubt: u64,
    /// Everything else that is not closed.
    pub open: u64,
    /// Refunds requested.
    pub refunds: u64,
    /// Decided by the deadline or not, of those that are decided or past it.
    pub sla: SlaCount,
    /// From the first payment to the last end.
    pub orders_per_second: Option<f64>,
    /// From payment to the end, ms.
    pub resolution_ms: Percentiles,
    /// From due to forwarded, ms; empty as long as there are no delay tiers.
    pub delay_lateness_ms: Percentiles,
    /// Delayed records that were forwarded early.
    pub early: u64,
    /// Deliveries that the provider took back.
    pub reversals: u64,
    /// Orders that have or had a case.
    pub cases: u64,
    /// Books against ledgers.
    pub audit: Audit,
    /// Published events against the books, where they were read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<Events>,
}

impl Report {
    /// Whether all is well.
    pub fn is_clean(&self) -> bool {
        self.audit.clean && self.events.is_none_or(|events| events.is_clean())
    }
}

/// How many orders were decided in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct SlaCount {
    /// By the deadline.
    pub met: u64,
    /// Not by the deadline.
    pub missed: u64,
}

/// Percentiles in milliseconds; `None` where nothing was measured.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Percentiles {
    /// Half are at most this.
    pub p50: Option<f64>,
    /// 99 % are at most this.
    pub p99: Option<f64>,
    /// 99.9 % are at most this.
    pub p999: Option<f64>,
    /// All are at most this.
    pub max: Option<f64>,
}

/// Books against ledgers. Each number but `clean` should be 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Audit {
    /// Whether all is well.
    pub clean: bool,
    /// Orders that succeeded by our books and were never delivered, or that were sold and are
    /// not in the store.
    pub lost: u64,
    /// Orders that were delivered more than once, by one provider or by several; what was taken back does not count.
    pub double: u64,
    /// Orders that failed or were cancelled although they were delivered, without a case of that.
    pub wrongly_failed: u64,
    /// Orders that succeeded by our books although their delivery was taken back, without a case of that.
    pub taken_back: u64,
    /// Deliveries that belong to no order of ours, or to one that was never sent to that provider.
    pub unaccounted: u64,
    /// Orders that succeeded and were delivered to another number or with another amount, without a
    /// case of that.
    pub misdelivered: u64,
    /// Orders that were paid and failed or were cancelled, whose refund was never requested.
    pub unrefunded: u64,
    /// Orders of which a refund was requested although they neither failed nor were cancelled nor
    /// are in doubt; where one succeeded late, its case excuses it.
    pub wrongly_refunded: u64,
    /// Orders in doubt without an open case of that.
    pub untold: u64,
    /// Orders that nobody decided at their deadline ([`DECIDED_WITHIN`]).
    pub overdue: u64,
}

/// Compares the store with what providers delivered. `sold` is how many orders
/// were sold, where that is known; `on_progress` hears how many orders were read.
pub async fn reckon(
    store: &dyn Store,
    ledgers: &Ledgers,
    sold: Option<u64>,
    on_progress: impl Fn(u64),
) -> Result<Report, StoreError> {
    // Before the first row is read: what is undecided in a row that is read later was so for longer.
    let mut tally = Tally::new(ledgers, store.now().await? - DECIDED_WITHIN);
    let mut after: Option<OrderId> = None;
    loop {
        let page = store.page(&OrderFilter::default(), after.as_ref(), PAGE).await?;
        let sends = sent::sends_of(store, page.orders.iter().map(|view| &view.order), ledgers.are_named()).await?;
        for (view, sent) in page.orders.iter().zip(sends) {
            let cases =
                if tally.depends_on_cases(view, &sent) { cases_of(store, &view.order).await? } else { Vec::new() };
            tally.count(view, &sent, &cases);
        }
        on_progress(tally.report.orders);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    Ok(tally.close(sold))
}

/// Every case of an order, also those that are settled; one of a kind at most.
async fn cases_of(store: &dyn Store, order: &Order) -> Result<Vec<Case>, StoreError> {
    let filter = CaseFilter { order_id: Some(order.order_id.clone()), with_resolved: true, ..CaseFilter::default() };
    store.cases(&filter, None, PAGE).await
}

/// A histogram of microseconds up to a day; what is longer counts as a day.
///
/// # Panics
///
/// Never: the bounds are valid.
pub fn micros_histogram() -> Histogram<u64> {
    #[expect(clippy::expect_used, reason = "valid bounds, checked by every run of the audit")]
    let histogram = Histogram::new_with_bounds(1, 86_400_000_000, 3).expect("a histogram of a day");
    histogram
}

/// From a histogram in microseconds.
pub fn percentiles(histogram: &Histogram<u64>) -> Percentiles {
    if histogram.is_empty() {
        return Percentiles::default();
    }
    #[expect(clippy::cast_precision_loss, reason = "milliseconds for people")]
    let millis = |micros: u64| Some(micros as f64 / 1e3);
    Percentiles {
        p50: millis(histogram.value_at_quantile(0.5)),
        p99: millis(histogram.value_at_quantile(0.99)),
        p999: millis(histogram.value_at_quantile(0.999)),
        max: millis(histogram.max()),
    }
}
