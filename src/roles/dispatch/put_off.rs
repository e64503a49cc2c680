//! Commands that are put off: written once more, to come back when their time has come or when there is room for them, and done
//! then. In a task of its own, one batch at a time, so that a topic that takes nothing holds up nobody else; what it did not
//! take in time goes back to where it came from.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::ports::OutRecord;

use super::Lane;
use super::heap::Queued;

/// A topic takes a batch within this time, or the commands are looked at again.
const TAKEN_WITHIN: Duration = Duration::from_secs(5);

/// A command, and the record in which it comes back.
#[derive(Debug)]
pub(super) struct PutOff {
    pub(super) queued: Queued,
    pub(super) record: OutRecord,
}

/// What waits to be put off.
#[derive(Debug)]
pub(super) struct PuttingOff {
    waiting: Vec<PutOff>,
    under_way: usize,
    most: usize,
}

impl PuttingOff {
    pub(super) fn new(most: usize) -> Self {
        Self { waiting: Vec::new(), under_way: 0, most: most.max(1) }
    }

    /// How many more there may be.
    pub(super) fn room(&self) -> usize {
        self.most.saturating_sub(self.waiting.len() + self.under_way)
    }

    pub(super) fn push(&mut self, one: PutOff) {
        self.waiting.push(one);
    }

    /// The next batch, if none is under way.
    pub(super) fn batch(&mut self) -> Option<Vec<PutOff>> {
        if self.under_way > 0 || self.waiting.is_empty() {
            return None;
        }
        self.under_way = self.waiting.len();
        Some(std::mem::take(&mut self.waiting))
    }

    /// The batch has ended.
    pub(super) fn ended(&mut self) {
        self.under_way = 0;
    }
}

impl Lane {
    /// Writes a batch; returns what was not taken.
    pub(super) async fn put_off(&self, batch: Vec<PutOff>, abort: &CancellationToken) -> Vec<Queued> {
        let (queued, records): (Vec<Queued>, Vec<OutRecord>) =
            batch.into_iter().map(|one| (one.queued, one.record)).unzip();
        let written = tokio::select! {
            biased; // An answer that is there counts.
            written = tokio::time::timeout(TAKEN_WITHIN, self.publisher.publish(&records)) => written.unwrap_or_default(),
            () = abort.cancelled() => Vec::new(),
        };
        let mut written = written.into_iter();
        let mut left = Vec::new();
        for one in queued {
            match written.next() {
                Some(Ok(())) => one.ack.done(),
                Some(Err(_)) | None => left.push(one),
            }
        }
        if !left.is_empty() && !abort.is_cancelled() {
            warn!(lane = %self.provider.id(), commands = left.len(), "commands could not be put off: they are looked at again");
        }
        left
    }
}
