//! A delay tier.

use std::sync::{Mutex, OnceLock, PoisonError};

use hdrhistogram::Histogram as Exact;
use metrics::{Counter, Gauge, Histogram};

use super::catalogue as names;
use super::exact_size;
use crate::domain::Timestamp;

/// How late this process forwarded what was due, where somebody asked to know it exactly; a
/// histogram for scrapes has buckets only.
static KEPT: OnceLock<Mutex<KeptLateness>> = OnceLock::new();

/// How late records reached their targets.
#[derive(Debug, Clone)]
pub struct KeptLateness {
    /// In microseconds.
    pub late: Exact<u64>,
    /// Records that came before their time: must stay 0.
    pub early: u64,
}

/// Keeps the exact lateness of every record from now on, in this process, starting from what is
/// in this histogram of microseconds.
pub fn keep_lateness(late: Exact<u64>) {
    // A second call has nothing to add.
    KEPT.get_or_init(|| Mutex::new(KeptLateness { late, early: 0 }));
}

/// What was kept, if anybody asked.
pub fn kept_lateness() -> Option<KeptLateness> {
    KEPT.get().map(|kept| kept.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

/// A forwarder of one tier.
#[derive(Clone)]
pub struct DelayMetrics {
    forwarded: Counter,
    early: Counter,
    lateness: Histogram,
    pending: Gauge,
    farthest: Gauge,
}

impl std::fmt::Debug for DelayMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DelayMetrics")
    }
}

impl DelayMetrics {
    /// For a tier by its name.
    pub fn new(tier: &str) -> Self {
        Self {
            forwarded: names::DELAY_FORWARDED.counter(&[tier]),
            early: names::DELAY_EARLY.counter(&[tier]),
            lateness: names::DELAY_LATENESS.histogram(&[tier]),
            pending: names::DELAY_PENDING.gauge(&[tier]),
            farthest: names::DELAY_FARTHEST.gauge(&[tier]),
        }
    }

    /// A record reached its target: due then, handed over then, acknowledged then. It came early if it was handed over
    /// before its time, whenever the acknowledgement came.
    pub fn forwarded(&self, due_at: Timestamp, sent_at: Timestamp, acknowledged_at: Timestamp) {
        self.forwarded.increment(1);
        // What is on time has not gone back meanwhile, whatever a clock that was corrected says.
        let late = (sent_at >= due_at).then(|| (acknowledged_at - due_at).to_std().unwrap_or_default());
        if let Some(kept) = KEPT.get() {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            match late {
                Some(late) => kept.late.saturating_record(u64::try_from(late.as_micros()).unwrap_or(u64::MAX)),
                None => kept.early += 1,
            }
        }
        match late {
            Some(late) => self.lateness.record(late.as_secs_f64()),
            None => self.early.increment(1),
        }
    }

    /// A record went on into a smaller tier.
    pub fn hopped(&self) {
        self.forwarded.increment(1);
    }

    /// Records in hand.
    pub fn pending(&self, count: usize) {
        self.pending.set(exact_size(count));
    }

    /// The latest due time of what waits in hand.
    pub fn farthest_due(&self, at: Option<Timestamp>) {
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970, exact for ages")]
        let seconds = at.map_or(0.0, |at| at.timestamp_millis() as f64 / 1000.0);
        self.farthest.set(seconds);
    }
}
