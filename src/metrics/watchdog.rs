//! The watchdog.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};

use super::catalogue as names;
use super::{Family, exact};
use crate::domain::{CaseKind, State, Timestamp};
use crate::ports::Census;

const ACTIONS: [&str; 7] = ["expire", "reconcile", "escalate", "requeue", "notify", "refund_overdue", "stuck"];

const OPEN: [&str; 5] = [
    State::AwaitingPayment.as_str(),
    State::Queued.as_str(),
    State::InFlight.as_str(),
    State::RetryWait.as_str(),
    State::InDoubt.as_str(),
];

/// The watchdog.
#[derive(Debug, Clone)]
pub struct WatchdogMetrics {
    actions: Family<Counter>,
    scan: Histogram,
    last_success: Gauge,
    open: Family<Gauge>,
    overdue: Gauge,
    oldest: Gauge,
    cases: Family<(Gauge, Gauge)>,
}

impl Default for WatchdogMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl WatchdogMetrics {
    /// For this process.
    pub fn new() -> Self {
        let kinds: Vec<&'static str> = CaseKind::ALL.iter().map(|kind| kind.as_str()).collect();
        Self {
            actions: Family::new(&ACTIONS, |action| names::WATCHDOG_ACTIONS.counter(&[action])),
            scan: names::WATCHDOG_SCAN.histogram(&[]),
            last_success: names::WATCHDOG_LAST_SUCCESS.gauge(&[]),
            open: Family::new(&OPEN, |state| names::PENDING_ORDERS.gauge(&[state])),
            overdue: names::OVERDUE_ORDERS.gauge(&[]),
            oldest: names::OLDEST_PENDING.gauge(&[]),
            cases: Family::new(&kinds, |kind| {
                (names::OPEN_CASES.gauge(&[kind]), names::ESCALATED_CASES.gauge(&[kind]))
            }),
        }
    }

    /// It did something: `expire`, `reconcile`, `escalate`, `requeue`, `notify` or `refund_overdue`; or could not: `stuck`.
    pub fn acted(&self, action: &'static str) {
        if let Some(counter) = self.actions.get(action) {
            counter.increment(1);
        }
    }

    /// It looked at everything that was due at `at`.
    pub fn scanned(&self, took: Duration, at: Timestamp) {
        self.scan.record(took.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970, exact for ages")]
        self.last_success.set(at.timestamp_millis() as f64 / 1000.0);
    }

    /// What is open, at `now`.
    pub fn counted(&self, census: &Census, now: Timestamp) {
        for state in OPEN {
            let orders = census.open.iter().find(|(of, _)| of.as_str() == state).map_or(0, |(_, orders)| *orders);
            if let Some(gauge) = self.open.get(state) {
                gauge.set(exact(orders));
            }
        }
        self.overdue.set(exact(census.overdue));
        let oldest = census.oldest_paid_at.map_or(Duration::ZERO, |at| (now - at).to_std().unwrap_or_default());
        self.oldest.set(oldest.as_secs_f64());
        for kind in CaseKind::ALL {
            let of_kind = census.cases.iter().find(|(of, ..)| of == kind);
            if let Some((open, escalated)) = self.cases.get(kind.as_str()) {
                open.set(exact(of_kind.map_or(0, |(_, open, _)| *open)));
                escalated.set(exact(of_kind.map_or(0, |(.., escalated)| *escalated)));
            }
        }
    }
}
