//! What each order adds to the report.

use hdrhistogram::Histogram;

use crate::domain::{CaseKind, Order, Sla, State, Timestamp};
use crate::ports::{Case, OrderView};

use super::sent::Sent;
use super::{Audit, Delivered, Ledgers, Percentiles, Report, SlaCount, micros_histogram, percentiles};

/// The cases of an order that failed which tell of its delivery, or that it was never ruled out.
const TELL_OF_A_DELIVERY: [CaseKind; 3] = [CaseKind::FailedUnproven, CaseKind::LateSuccess, CaseKind::Unconfirmed];
/// Those of one that succeeded which tell of another amount, or of a second delivery.
const TELL_OF_AN_AMOUNT: [CaseKind; 2] = [CaseKind::AmountMismatch, CaseKind::DoubleSuccess];
/// Those which tell that nothing of its delivery may stand.
const TELL_OF_A_REVERSAL: [CaseKind; 3] = [CaseKind::ReversedAfterSuccess, CaseKind::Conflict, CaseKind::Unconfirmed];
/// Whose word settles a case where no person does.
const THE_PROVIDER: &str = "provider";

/// Whether an order ever had one of these. Each is opened by the very news that it tells of, so whoever closed
/// it knew. A case of another matter does not tell anybody of this.
fn is_told(order: &Order, kinds: &[CaseKind]) -> bool {
    kinds.iter().any(|kind| order.cases & kind.bit() != 0)
}

/// Whether a case still says that an order which failed may have been delivered, or a person has looked at
/// it. What the provider's own "not found" has closed tells nobody of a delivery that came after it.
fn is_open_or_seen(cases: &[Case], kinds: &[CaseKind]) -> bool {
    let is_settled = |case: &Case| case.resolution.as_ref().is_some_and(|resolution| resolution.by == THE_PROVIDER);
    cases.iter().any(|case| kinds.contains(&case.key.kind) && !is_settled(case))
}

/// Whether an order in doubt has its case, and that one is open.
fn is_doubt_open(view: &OrderView, cases: &[Case]) -> bool {
    let doubt = CaseKind::InDoubt;
    if view.order.cases == doubt.bit() {
        return view.case_open;
    }
    cases.iter().any(|case| case.key.kind == doubt && case.resolution.is_none())
}

/// Whether nobody has decided yet what becomes of an order.
fn is_undecided(order: &Order) -> bool {
    match order.state {
        State::Succeeded | State::Failed | State::Cancelled => false,
        // What came into doubt early is judged by its deadline all the same.
        State::InDoubt => order.sla.is_none(),
        State::AwaitingPayment | State::Queued | State::InFlight | State::RetryWait => true,
    }
}

pub(super) struct Tally<'a> {
    ledgers: &'a Ledgers,
    /// Deadlines before this moment must have been decided.
    decided_before: Timestamp,
    deliveries_found: u64,
    pub(super) report: Report,
    resolution: Histogram<u64>,
    first_paid: Option<i64>,
    last_closed: Option<i64>,
}

impl<'a> Tally<'a> {
    pub(super) fn new(ledgers: &'a Ledgers, decided_before: Timestamp) -> Self {
        Self {
            ledgers,
            decided_before,
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

    fn delivered<'s>(&self, sent: &'s [Sent]) -> impl Iterator<Item = &'a Delivered> + use<'a, 's> {
        let ledgers = self.ledgers;
        sent.iter().filter_map(move |sent| ledgers.find(sent))
    }

    /// Whether what is found of an order depends on which of its cases are open: of few, and asking costs a
    /// statement each.
    pub(super) fn depends_on_cases(&self, view: &OrderView, sent: &[Sent]) -> bool {
        let order = &view.order;
        match order.state {
            State::Failed | State::Cancelled => {
                is_told(order, &TELL_OF_A_DELIVERY) && self.delivered(sent).any(|delivered| delivered.stand() > 0)
            }
            State::InDoubt => order.cases != CaseKind::InDoubt.bit(),
            State::Succeeded | State::AwaitingPayment | State::Queued | State::InFlight | State::RetryWait => false,
        }
    }

    /// `cases` are all of the order, where [`Self::depends_on_cases`].
    pub(super) fn count(&mut self, view: &OrderView, sent: &[Sent], cases: &[Case]) {
        let order = &view.order;
        let found: Vec<&Delivered> = self.delivered(sent).collect();
        let times: u64 = found.iter().map(|delivered| u64::from(delivered.times)).sum();
        let is_right = |delivered: &&Delivered| order.recipient.msisdn() == Some(delivered.phone);
        let is_enough = |delivered: &&Delivered| order.amount == delivered.amount;
        let (to_all_right, all_enough) = (found.iter().all(is_right), found.iter().all(is_enough));
        let reversed: u64 = found.iter().map(|delivered| u64::from(delivered.reversed)).sum();
        // What the recipient has.
        let stand: u64 = found.iter().map(|delivered| delivered.stand()).sum();
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
        report.audit.overdue += u64::from(is_undecided(order) && order.deadline_at < self.decided_before);
        match order.state {
            State::Succeeded => {
                report.succeeded += 1;
                report.audit.lost += u64::from(times == 0);
                let is_taken_back = times > 0 && stand == 0;
                report.audit.taken_back += u64::from(is_taken_back && !is_told(order, &TELL_OF_A_REVERSAL));
                let is_said = all_enough || is_told(order, &TELL_OF_AN_AMOUNT);
                report.audit.misdelivered += u64::from(!to_all_right || !is_said);
                let is_refunded = order.refund_requested && !is_told(order, &[CaseKind::LateSuccess]);
                report.audit.wrongly_refunded += u64::from(is_refunded);
            }
            State::Failed | State::Cancelled => {
                let is_failed = order.state == State::Failed;
                report.failed += u64::from(is_failed);
                report.cancelled += u64::from(!is_failed);
                let is_said = is_open_or_seen(cases, &TELL_OF_A_DELIVERY);
                report.audit.wrongly_failed += u64::from(stand > 0 && !is_said);
                report.audit.unrefunded += u64::from(order.paid_at.is_some() && !order.refund_requested);
            }
            State::InDoubt => {
                report.in_doubt += 1;
                report.audit.untold += u64::from(!is_doubt_open(view, cases));
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

    pub(super) fn close(mut self, sold: Option<u64>) -> Report {
        let audit = &mut self.report.audit;
        audit.unaccounted = self.ledgers.deliveries().saturating_sub(self.deliveries_found);
        audit.lost += sold.map_or(0, |sold| sold.saturating_sub(self.report.orders));
        let of_the_ledger = audit.lost
            + audit.double
            + audit.wrongly_failed
            + audit.taken_back
            + audit.unaccounted
            + audit.misdelivered;
        let of_the_books = audit.unrefunded + audit.wrongly_refunded + audit.untold + audit.overdue;
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

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
