//! What is open, counted now and then for the gauges: never for each scrape.

use std::time::Duration;

use crate::roles::{RoleError, StopSignals};

use super::{Watchdog, wait};

/// It is counted this often,
const EVERY: Duration = Duration::from_secs(15);
/// and for no more than this part of the time, however much is open.
const SHARE: u32 = 50;

impl Watchdog {
    pub(super) async fn take_census(&self, stop: &StopSignals) -> Result<(), RoleError> {
        loop {
            let began = self.clock.since_boot();
            let Some(low) = self.patiently("low_water", stop, || self.deadlines.low_water()).await? else {
                return Ok(());
            };
            let now = self.clock.now();
            let count = || self.deadlines.census(low, now);
            let Some(census) = self.patiently("census", stop, count).await? else { return Ok(()) };
            self.metrics.counted(&census, now);
            let took = self.clock.since_boot().saturating_sub(began);
            if wait(stop, EVERY.max(took * SHARE)).await {
                return Ok(());
            }
        }
    }
}
