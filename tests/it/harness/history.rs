//! What happened to an order, without what the machine's speed decides.

use recharged::domain::{EventType, LoggedEvent, OrderId};
use recharged::ports::InRecord;
use serde_json::Value;

use super::Line;

/// Why a claim sent nothing, where a process was held up between its permit and the first byte.
const HELD_UP: [&str; 3] = ["no_permit", "window_closed", "connect"];

/// An order's log, as what was meant to happen and what a held-up machine added to it.
pub(crate) struct History {
    /// Every entry, in the order of versions.
    pub(crate) log: Vec<LoggedEvent>,
    /// The versions of each claim that sent nothing and of its retry, and where others took it over in between of
    /// that as well: entries more that are right, each time.
    pub(crate) held_up: Vec<u32>,
}

impl History {
    /// How many entries there are that no machine's speed explains.
    pub(crate) fn steps(&self) -> usize {
        self.log.len() - self.held_up.len()
    }

    /// The types of those.
    pub(crate) fn kinds(&self) -> Vec<EventType> {
        self.log.iter().filter(|event| !self.held_up.contains(&event.version)).map(|event| event.kind).collect()
    }

    /// Of an order's public events those, in their order.
    pub(crate) fn told(&self, events: &[InRecord]) -> Vec<InRecord> {
        let held_up = |record: &InRecord| {
            let event: Value = serde_json::from_slice(record.value.as_deref().unwrap()).unwrap();
            self.held_up.iter().any(|version| event["version"] == *version)
        };
        events.iter().filter(|record| !held_up(record)).cloned().collect()
    }
}

/// Whether a claim sent nothing, only because something was too slow.
pub(crate) fn is_held_up(event: &LoggedEvent) -> bool {
    let cause = event.data.cause.as_deref();
    event.kind == EventType::RetryScheduled && cause.is_some_and(|cause| HELD_UP.contains(&cause))
}

impl Line {
    /// An order's history; fails unless its row's version and its log say the same.
    pub(crate) async fn history(&self, id: &str) -> History {
        let log = self.store.timeline(&OrderId::parse(id).unwrap()).await.unwrap();
        assert!(log.iter().map(|event| event.version).eq(1..=log.len() as u32), "{id}: {log:?}");
        let mut held_up = Vec::new();
        for (index, event) in log.iter().enumerate().filter(|(_, event)| is_held_up(event)) {
            let claim = log[..index].iter().rposition(|event| event.kind == EventType::Submitted);
            let claim = claim.unwrap_or_else(|| panic!("{id} was never claimed: {log:?}"));
            held_up.extend([log[claim].version, event.version]);
            // Whoever is held up for so long may be taken for dead meanwhile.
            let taken_over =
                log[claim..index].iter().filter(|event| event.data.cause.as_deref() == Some("caller_lost"));
            held_up.extend(taken_over.map(|event| event.version));
        }
        let row = self.load(id).await.unwrap();
        assert_eq!(row.version as usize, log.len(), "{id}: {log:?}");
        History { log, held_up }
    }
}
