//! The watchdog.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};

use super::Family;
use super::catalogue as names;
use crate::domain::Timestamp;

const ACTIONS: [&str; 4] = ["expire", "reconcile", "escalate", "requeue"];

/// The watchdog.
#[derive(Debug, Clone)]
pub struct WatchdogMetrics {
    actions: Family<Counter>,
    scan: Histogram,
    last_success: Gauge,
}

impl Default for WatchdogMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl WatchdogMetrics {
    /// For this process.
    pub fn new() -> Self {
        Self {
            actions: Family::new(&ACTIONS, |action| names::WATCHDOG_ACTIONS.counter(&[action])),
            scan: names::WATCHDOG_SCAN.histogram(&[]),
            last_success: names::WATCHDOG_LAST_SUCCESS.gauge(&[]),
        }
    }

    /// It did something: `expire`, `reconcile`, `escalate` or `requeue`.
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
}
