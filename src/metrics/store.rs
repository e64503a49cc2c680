//! The store.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};

use super::catalogue as names;
use super::{Family, exact};
use crate::ports::StoreErrorKind;

const OTHER: &str = "other";
/// Operations of the store's ports.
const OPERATIONS: [&str; 41] = [
    "insert",
    "load",
    "apply",
    "now",
    "check",
    "read_log",
    "cursor",
    "advance_cursor",
    "timeline",
    "page",
    "count_by_state",
    "reserve",
    "pause",
    "low_water",
    "move_low_water",
    "horizon",
    "undecided",
    "census",
    "hold",
    "hasten",
    "were_noted",
    "note_callbacks",
    "callbacks_of",
    "lane_changes",
    "change_lane",
    "cool",
    "give_back",
    "forget_cooled",
    "unanswered",
    "cases",
    "overdue_questions",
    "set_questions",
    "escalate",
    "note_read",
    "read_up_to",
    "recipients",
    "due_timers",
    "fire_timers",
    "unconfirmed_refunds",
    "unfollow_refunds",
    OTHER,
];

fn known(operation: &'static str) -> &'static str {
    if OPERATIONS.contains(&operation) { operation } else { OTHER }
}
const KINDS: [&str; 4] = ["unreachable", "contention", "bad_data", "broken"];

#[derive(Clone, Debug)]
struct Operation {
    duration: Histogram,
    errors: Family<Counter>,
}

/// The store, as one process sees it.
#[derive(Clone, Debug)]
pub struct StoreMetrics {
    operations: Family<Operation>,
    idle: Gauge,
    used: Gauge,
    max: Gauge,
}

impl StoreMetrics {
    /// For the whole process.
    pub fn new() -> Self {
        Self {
            operations: Family::new(&OPERATIONS, |operation| Operation {
                duration: names::DB_QUERY_DURATION.histogram(&[operation]),
                errors: Family::new(&KINDS, |kind| names::DB_ERRORS.counter(&[operation, kind])),
            }),
            idle: names::DB_POOL.gauge(&["idle"]),
            used: names::DB_POOL.gauge(&["used"]),
            max: names::DB_POOL_MAX.gauge(&[]),
        }
    }

    /// An operation ended, well or not. The operation is the name of the port's method; any other
    /// is recorded as `other`.
    pub fn query(&self, operation: &'static str, duration: Duration) {
        if let Some(operation) = self.operations.get(known(operation)) {
            operation.duration.record(duration.as_secs_f64());
        }
    }

    /// An operation failed.
    pub fn error(&self, operation: &'static str, kind: StoreErrorKind) {
        let kind = match kind {
            StoreErrorKind::Unreachable => "unreachable",
            StoreErrorKind::Contention => "contention",
            StoreErrorKind::BadData => "bad_data",
            StoreErrorKind::Broken => "broken",
        };
        if let Some(counter) = self.operations.get(known(operation)).and_then(|operation| operation.errors.get(kind)) {
            counter.increment(1);
        }
    }

    /// Connections now, and the most that there may be.
    pub fn pool(&self, idle: u32, used: u32, max: u32) {
        self.idle.set(exact(idle.into()));
        self.used.set(exact(used.into()));
        self.max.set(exact(max.into()));
    }
}

impl Default for StoreMetrics {
    fn default() -> Self {
        Self::new()
    }
}
