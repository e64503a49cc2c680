//! Commands that are put off: written once more, to come back when their time has come or when there is room for them, and done
//! then. In a task of its own, one batch at a time, so that a topic that takes nothing holds up nobody else; what it did not
//! take in time goes back to where it came from.

use std::collections::HashMap;
use std::time::Duration;

use foldhash::quality::RandomState;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::domain::{Command, OrderId};
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
        let (copies, records): (Vec<Vec<Queued>>, Vec<OutRecord>) = merged(batch).into_iter().unzip();
        let written = tokio::select! {
            biased; // An answer that is there counts.
            written = tokio::time::timeout(TAKEN_WITHIN, self.publisher.publish(&records)) => written.unwrap_or_default(),
            () = abort.cancelled() => Vec::new(),
        };
        let mut written = written.into_iter();
        let mut left = Vec::new();
        for copies in copies {
            match written.next() {
                Some(Ok(())) => copies.into_iter().for_each(|one| one.ack.done()),
                Some(Err(_)) | None => left.extend(copies),
            }
        }
        if !left.is_empty() && !abort.is_cancelled() {
            warn!(lane = %self.provider.id(), commands = left.len(), "commands could not be put off: they are looked at again");
        }
        left
    }
}

/// Of several copies of a command one comes back, which is written for all of them. Where there is no room for a while,
/// each that is read twice would otherwise come back twice, and so on, until copies take all the room there is.
fn merged(batch: Vec<PutOff>) -> Vec<(Vec<Queued>, OutRecord)> {
    let bare = |command: &Command| Command { wake_at: None, ..command.clone() };
    let mut all: Vec<(Vec<Queued>, OutRecord)> = Vec::with_capacity(batch.len());
    let mut places: HashMap<OrderId, Vec<(Command, usize)>, RandomState> = HashMap::default();
    for PutOff { queued, record } in batch {
        let asks = bare(&queued.command);
        let known = places.entry(asks.order_id.clone()).or_default();
        let place = known.iter().find(|(command, _)| *command == asks).map(|(_, place)| *place);
        if let Some((copies, _)) = place.and_then(|place| all.get_mut(place)) {
            copies.push(queued);
        } else {
            known.push((asks, all.len()));
            all.push((vec![queued], record));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::domain::{CommandKind, Timestamp};
    use crate::ports::{Ack, Assignment};

    #[derive(Debug)]
    struct Nobody;
    impl Assignment for Nobody {
        fn is_live(&self) -> bool {
            true
        }
        fn done(&self, _offset: i64) {}
    }

    fn put_off(order: &str, version: u32, hastened: bool, wakes: i64) -> PutOff {
        let at = |seconds| Timestamp::from_timestamp(1_800_000_000 + seconds, 0).unwrap();
        let command = Command {
            kind: CommandKind::Query,
            order_id: OrderId::parse(order).unwrap(),
            attempt: 1,
            version,
            deadline_at: at(60),
            wake_at: Some(at(wakes)),
            hastened,
            provider_ref: None,
            tries: 0,
        };
        let value = Some(Bytes::from(format!("{order} {version} {hastened} {wakes}")));
        let record = OutRecord { topic: Arc::from("delay.1s"), key: None, value, headers: Vec::new() };
        PutOff { queued: Queued { command, ack: Ack::new(Arc::new(Nobody), 0), put_back: 0 }, record }
    }

    #[test]
    fn copies_of_a_command_come_back_as_one_and_what_asks_for_something_else_by_itself() {
        let batch = vec![
            put_off("a", 3, false, 5),
            put_off("b", 3, false, 5),
            put_off("a", 3, false, 6),
            put_off("a", 4, false, 5),
            put_off("a", 3, true, 5),
            put_off("a", 3, false, 5),
        ];
        let merged = merged(batch);
        let told: Vec<(usize, &[u8])> =
            merged.iter().map(|(copies, record)| (copies.len(), record.value.as_deref().unwrap())).collect();
        let expected: [(usize, &[u8]); 4] =
            [(3, b"a 3 false 5"), (1, b"b 3 false 5"), (1, b"a 4 false 5"), (1, b"a 3 true 5")];
        assert_eq!(told, expected);
    }
}
