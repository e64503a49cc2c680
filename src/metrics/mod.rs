//! Every metric: its name, its labels, its help, and what records it. No other module names one.
//!
//! Each part of the service holds a struct of handles that were resolved once, so that recording
//! costs an atomic operation. Every combination of labels is written as 0 when its handles are
//! made: without that, `rate()` misses the first event. `docs/METRICS.md` is the catalogue for
//! people, and a test holds it against a live scrape.

mod callbacks;
mod catalogue;
mod delay;
mod exporter;
mod kafka;
mod lane;
mod orders;
mod relay;
mod store;
mod watchdog;

pub use callbacks::CallbackMetrics;
pub use catalogue::{Kind, Metric, catalogue};
pub use delay::{DelayMetrics, KeptLateness, keep_lateness, kept_lateness};
pub use exporter::{Exporter, InstallError, ProcessInfo, install};
pub use kafka::KafkaMetrics;
pub use lane::{LaneMetrics, ProviderMetrics};
pub use orders::{IntakeMetrics, OutcomeMetrics};
pub use relay::{RelayMetrics, dead_letter, preset_dead_letters};
pub use store::StoreMetrics;
pub use watchdog::WatchdogMetrics;

/// Handles of one metric, by the value of one label whose values are few and known.
#[derive(Clone)]
struct Family<T>(Vec<(&'static str, T)>);

impl<T> Family<T> {
    fn new(values: &[&'static str], make: impl Fn(&'static str) -> T) -> Self {
        Self(values.iter().map(|value| (*value, make(value))).collect())
    }

    /// The handle of a value. One that is not known is not recorded: a new series of its own
    /// would be a series that no rule reads.
    fn get(&self, value: &str) -> Option<&T> {
        let found = self.0.iter().find(|(known, _)| *known == value).map(|(_, handle)| handle);
        debug_assert!(found.is_some(), "{value:?} is no value of this label");
        found
    }
}

impl<T> std::fmt::Debug for Family<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(value, _)| value)).finish()
    }
}

/// How far another clock is ahead of ours, in seconds. Peers are `database` and `broker`.
pub fn clock_skew(peer: &'static str, seconds: f64) {
    catalogue::CLOCK_SKEW.gauge(&[peer]).set(seconds);
}

/// Whether people have paused a lane.
pub fn lane_paused(lane: &crate::domain::ProviderId, is_paused: bool) {
    catalogue::LANE_PAUSED.gauge(&[lane.as_str()]).set(f64::from(u8::from(is_paused)));
}

/// A count as a gauge holds it.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53, far above any count here")]
fn exact(count: u64) -> f64 {
    count as f64
}

fn exact_size(count: usize) -> f64 {
    exact(u64::try_from(count).unwrap_or(u64::MAX))
}
