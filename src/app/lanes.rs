//! What people have said of lanes, read for the whole process.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::domain::ProviderId;
use crate::lifecycle::Lifecycle;
use crate::metrics;
use crate::ports::{LaneChange, Store};
use crate::roles::LaneBoard;

/// A pause is known everywhere within twice of this.
const EVERY: Duration = Duration::from_secs(1);
/// A store that has not answered after this long is asked again later; what was known last stands.
const WITHIN: Duration = Duration::from_secs(2);

/// What is written on the board before a role begins; what cannot be read is read later.
pub(super) async fn learn(store: &dyn Store, board: &LaneBoard, lanes: &[ProviderId]) {
    if let Ok(Ok(changes)) = tokio::time::timeout(WITHIN, store.lane_changes()).await {
        note(&changes, board, lanes);
    }
}

/// Keeps the board up to date.
pub(super) fn add(lifecycle: &mut Lifecycle, store: Arc<dyn Store>, board: Arc<LaneBoard>, lanes: Vec<ProviderId>) {
    lifecycle.add("lanes", Duration::from_secs(1), |stop: CancellationToken| async move {
        loop {
            tokio::select! {
                biased; // Stopping comes before another look.
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(EVERY) => {}
            }
            let changes = tokio::select! {
                biased; // Stopping comes before an answer.
                () = stop.cancelled() => return Ok(()),
                changes = tokio::time::timeout(WITHIN, store.lane_changes()) => changes,
            };
            match changes {
                Ok(Ok(changes)) => note(&changes, &board, &lanes),
                Ok(Err(error)) => debug!(error = ?error, "which lanes are paused is read the next time"),
                Err(_) => debug!("which lanes are paused is read the next time"),
            }
        }
    });
}

fn note(changes: &[LaneChange], board: &LaneBoard, lanes: &[ProviderId]) {
    for change in changes.iter().filter(|change| change.is_paused != board.is_paused(&change.lane)) {
        let LaneChange { lane, by, why, .. } = change;
        if change.is_paused {
            info!(%lane, by, why, "the lane is paused: it takes no orders");
        } else {
            info!(%lane, by, why, "the lane is not paused any more");
        }
    }
    let paused: Vec<ProviderId> =
        changes.iter().filter(|change| change.is_paused).map(|change| change.lane.clone()).collect();
    board.set_paused(&paused);
    for lane in lanes {
        metrics::lane_paused(lane, paused.contains(lane));
    }
}
