//! The audit: our books against the ledger of what was truly delivered. Whatever a role believes
//! of itself, this is what counts.

mod events;

use std::collections::HashMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::domain::{CaseKind, LoggedEvent, Money, Msisdn, Order, OrderId, Sla, State};
use crate::ports::{OrderFilter, OrderView, Store, StoreError};

pub use events::{EventTrail, Events, ToldEvent};

/// Orders read from the store at once.
const PAGE: usize = 2_000;

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
    /// Books against ledger.
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

/// Books against ledger. Each number but `clean` should be 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Audit {
    /// Whether all is well.
    pub clean: bool,
    /// Orders that succeeded by our books and were never delivered, or that were sold and are
    /// not in the store.
    pub lost: u64,
    /// Orders that were delivered more than once; what was taken back does not count.
    pub double: u64,
    /// Orders that failed or were cancelled although they were delivered, without a case of that.
    pub wrongly_failed: u64,
    /// Orders that succeeded by our books although their delivery was taken back, without a case of that.
    pub taken_back: u64,
    /// Deliveries that belong to no order of ours.
    pub unaccounted: u64,
    /// Orders that succeeded and were delivered to another number or with another amount, without a
    /// case of that.
    pub misdelivered: u64,
    /// Orders that were paid and failed or were cancelled, whose refund was never requested.
    pub unrefunded: u64,
    /// Orders of which a refund was requested although they neither failed nor were cancelled nor
    /// are in doubt; where one succeeded late, its case excuses it.
    pub wrongly_refunded: u64,
    /// Orders in doubt that nobody has a case of.
    pub untold: u64,
}

/// The cases of an order that failed which tell of its delivery, or that it was never ruled out.
const TELL_OF_A_DELIVERY: [CaseKind; 4] =
    [CaseKind::FailedUnproven, CaseKind::LateSuccess, CaseKind::DoubleSuccess, CaseKind::ProviderFlipped];
/// Those of one that succeeded which tell of another amount, or of a second delivery.
const TELL_OF_AN_AMOUNT: [CaseKind; 2] = [CaseKind::AmountMismatch, CaseKind::DoubleSuccess];
/// Those which tell that nothing of its delivery may stand.
const TELL_OF_A_REVERSAL: [CaseKind; 2] = [CaseKind::ReversedAfterSuccess, CaseKind::Conflict];

/// Whether an order ever had one of these. A case of another matter, settled long ago perhaps, does
/// not tell anybody of this.
fn is_told(order: &Order, kinds: &[CaseKind]) -> bool {
    kinds.iter().any(|kind| order.cases & kind.bit() != 0)
}

/// What was delivered under a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    /// How often.
    pub times: u32,
    /// How many of these were taken back.
    pub reversed: u32,
    /// To whom, the first time.
    pub phone: Msisdn,
    /// How much, the first time.
    pub amount: Money,
}

/// What was delivered, by reference.
pub type Deliveries = HashMap<String, Delivered>;

/// Counts one delivery.
pub fn count_delivery(into: &mut Deliveries, reference: String, phone: Msisdn, amount: Money) {
    into.entry(reference).or_insert(Delivered { times: 0, reversed: 0, phone, amount }).times += 1;
}

/// Counts that a delivery was taken back. One that was never counted is left alone.
pub fn count_reversal(into: &mut Deliveries, reference: &str) {
    if let Some(delivered) = into.get_mut(reference) {
        delivered.reversed += 1;
    }
}

/// Compares the store with what was delivered under each reference. `sold` is how many orders
/// were sold, where that is known; `on_progress` hears how many orders were read.
pub async fn reckon(
    store: &dyn Store,
    delivered: &Deliveries,
    sold: Option<u64>,
    on_progress: impl Fn(u64),
) -> Result<Report, StoreError> {
    let mut tally = Tally::new(delivered);
    let mut after: Option<OrderId> = None;
    loop {
        let page = store.page(&OrderFilter::default(), after.as_ref(), PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.order.order_id.clone());
        for view in &page {
            let references = references_of(store, &view.order).await?;
            tally.count(view, &references);
        }
        on_progress(tally.report.orders);
    }
    Ok(tally.close(sold))
}

/// Every reference under which an order was, or may have been, sent. The row has the current
/// attempt's; those of older attempts stand in the log.
pub async fn references_of(store: &dyn Store, order: &Order) -> Result<Vec<String>, StoreError> {
    let Some(attempt) = &order.attempt else { return Ok(Vec::new()) };
    if attempt.number == 1 {
        return Ok(vec![attempt.client_ref.to_string()]);
    }
    let timeline = store.timeline(&order.order_id).await?;
    let mut references: Vec<String> =
        timeline.iter().filter_map(LoggedEvent::client_ref).map(|reference| reference.to_string()).collect();
    // An attempt that was sent again has a claim, and an entry, for each time.
    references.dedup();
    Ok(references)
}

struct Tally<'a> {
    delivered: &'a Deliveries,
    deliveries_found: u64,
    report: Report,
    resolution: Histogram<u64>,
    first_paid: Option<i64>,
    last_closed: Option<i64>,
}

impl<'a> Tally<'a> {
    fn new(delivered: &'a Deliveries) -> Self {
        Self {
            delivered,
            deliveries_found: 0,
            report: Report {
                orders: 0,
                succeeded: 0,
                failed: 0,
                cancelled: 0,
                in_doubt: 0,
                open: 0,
                refunds: 0,
                sla: SlaCount::default(),
                orders_per_second: None,
                resolution_ms: Percentiles::default(),
                delay_lateness_ms: Percentiles::default(),
                early: 0,
                reversals: 0,
                cases: 0,
                audit: Audit::default(),
                events: None,
            },
            resolution: micros_histogram(),
            first_paid: None,
            last_closed: None,
        }
    }

    fn count(&mut self, view: &OrderView, references: &[String]) {
        let order = &view.order;
        let delivered = || references.iter().filter_map(|reference| self.delivered.get(reference));
        let times: u64 = delivered().map(|delivered| u64::from(delivered.times)).sum();
        let is_right = |delivered: &Delivered| {
            order.recipient.msisdn() == Some(delivered.phone) && order.amount == delivered.amount
        };
        let all_right = delivered().all(is_right);
        let reversed: u64 = delivered().map(|delivered| u64::from(delivered.reversed)).sum();
        // What the recipient has.
        let stand = times.saturating_sub(reversed);
        self.deliveries_found += times;
        let report = &mut self.report;
        report.orders += 1;
        report.refunds += u64::from(order.refund_requested);
        report.reversals += reversed;
        report.cases += u64::from(order.has_cases());
        match order.sla {
            Some(Sla::Met) => report.sla.met += 1,
            Some(Sla::Missed) => report.sla.missed += 1,
            None => {}
        }
        report.audit.double += u64::from(stand > 1);
        match order.state {
            State::Succeeded => {
                report.succeeded += 1;
                report.audit.lost += u64::from(times == 0);
                let is_taken_back = times > 0 && stand == 0;
                report.audit.taken_back += u64::from(is_taken_back && !is_told(order, &TELL_OF_A_REVERSAL));
                report.audit.misdelivered += u64::from(!all_right && !is_told(order, &TELL_OF_AN_AMOUNT));
                let is_refunded = order.refund_requested && !is_told(order, &[CaseKind::LateSuccess]);
                report.audit.wrongly_refunded += u64::from(is_refunded);
            }
            State::Failed | State::Cancelled => {
                let is_failed = order.state == State::Failed;
                report.failed += u64::from(is_failed);
                report.cancelled += u64::from(!is_failed);
                report.audit.wrongly_failed += u64::from(stand > 0 && !is_told(order, &TELL_OF_A_DELIVERY));
                report.audit.unrefunded += u64::from(order.paid_at.is_some() && !order.refund_requested);
            }
            State::InDoubt => {
                report.in_doubt += 1;
                report.audit.untold += u64::from(!view.case_open || !is_told(order, &[CaseKind::InDoubt]));
            }
            // Of what was delivered the line may yet hear.
            State::AwaitingPayment | State::Queued | State::InFlight | State::RetryWait => {
                report.open += 1;
                report.audit.wrongly_refunded += u64::from(order.refund_requested);
            }
        }
        self.time(order);
    }

    fn time(&mut self, order: &Order) {
        let Some(paid) = order.paid_at.map(|at| at.timestamp_micros()) else { return };
        self.first_paid = Some(self.first_paid.map_or(paid, |first| first.min(paid)));
        let Some(closed) = order.closed_at.map(|at| at.timestamp_micros()) else { return };
        self.last_closed = Some(self.last_closed.map_or(closed, |last| last.max(closed)));
        self.resolution.saturating_record(u64::try_from(closed - paid).unwrap_or(0));
    }

    fn close(mut self, sold: Option<u64>) -> Report {
        let all: u64 = self.delivered.values().map(|delivered| u64::from(delivered.times)).sum();
        let audit = &mut self.report.audit;
        audit.unaccounted = all.saturating_sub(self.deliveries_found);
        audit.lost += sold.map_or(0, |sold| sold.saturating_sub(self.report.orders));
        let of_the_ledger = audit.lost
            + audit.double
            + audit.wrongly_failed
            + audit.taken_back
            + audit.unaccounted
            + audit.misdelivered;
        let of_the_books = audit.unrefunded + audit.wrongly_refunded + audit.untold;
        audit.clean = of_the_ledger + of_the_books == 0;
        self.report.resolution_ms = percentiles(&self.resolution);
        if let (Some(first), Some(last)) = (self.first_paid, self.last_closed) {
            let closed = self.report.succeeded + self.report.failed;
            #[expect(clippy::cast_precision_loss, reason = "figures for people")]
            let rate = closed as f64 / ((last - first).max(1) as f64 / 1e6);
            self.report.orders_per_second = Some(rate);
        }
        self.report
    }
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
