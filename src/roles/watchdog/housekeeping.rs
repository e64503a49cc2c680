//! What nobody needs any more is removed, a little at a time.

use std::time::Duration;

use crate::domain::minus;
use crate::roles::{RoleError, StopSignals};

use super::{Watchdog, wait};

/// It is looked for this often,
const EVERY: Duration = Duration::from_mins(1);
/// when it is this old: an hour's numbers help to explain an order.
const KEPT: Duration = Duration::from_hours(1);
/// Between two batches.
const BREATH: Duration = Duration::from_millis(200);

impl Watchdog {
    /// Removes numbers that have cooled down.
    pub(super) async fn keep_house(&self, stop: &StopSignals) -> Result<(), RoleError> {
        loop {
            let before = minus(self.clock.now(), KEPT);
            let forget = || self.cooldowns.forget_cooled(before, self.rules.batch_max);
            let Some(removed) = self.patiently("forget_cooled", stop, forget).await? else { return Ok(()) };
            let pause = if removed < self.rules.batch_max { EVERY } else { BREATH };
            if wait(stop, pause).await {
                return Ok(());
            }
        }
    }
}
