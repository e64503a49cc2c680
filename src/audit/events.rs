//! The published events against the store: whether the world was told each step of each order,
//! once each and in order, and nothing that never happened.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::domain::{OrderId, Sla, State, Timestamp};
use crate::ports::{OrderFilter, Store, StoreError};

use super::PAGE;

/// What was found of the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Events {
    /// Read.
    pub read: u64,
    /// Told again, which the contract allows.
    pub repeated: u64,
    /// Whose version does not follow the one before of its order.
    pub out_of_order: u64,
    /// Records that tell nothing: no value, or no order event.
    pub unreadable: u64,
    /// Orders whose last step was not told.
    pub missing: u64,
    /// Orders of which more was told than is stored.
    pub phantom: u64,
}

impl Events {
    /// Whether all is well.
    pub fn is_clean(&self) -> bool {
        self.out_of_order + self.unreadable + self.missing + self.phantom == 0
    }
}

/// An order event, as far as it matters here.
#[derive(Debug, Clone, Deserialize)]
pub struct ToldEvent {
    /// Whose.
    pub order_id: String,
    /// The order's version after it.
    pub version: u32,
    /// The state after it.
    pub state: State,
    /// When.
    pub at: Timestamp,
    /// The deadline after it.
    pub deadline_at: Timestamp,
    /// Decided in time or not.
    pub sla: Option<Sla>,
}

/// The last step of each order that was told. Costs some 100 bytes an order.
#[derive(Debug, Clone, Default)]
pub struct EventTrail {
    last: HashMap<String, (u32, State)>,
    seen: Events,
}

impl EventTrail {
    /// Takes the next record of the topic, and counts it as what it is; returns its event with the
    /// state before it, unless it was told already or is none.
    pub fn take(&mut self, value: &[u8]) -> Option<(ToldEvent, Option<State>)> {
        self.seen.read += 1;
        let Ok(event) = serde_json::from_slice::<ToldEvent>(value) else {
            self.seen.unreadable += 1;
            return None;
        };
        let before = self.last.get(&event.order_id).copied();
        let known = before.map_or(0, |(version, _)| version);
        if event.version <= known {
            self.seen.repeated += 1;
            return None;
        }
        self.seen.out_of_order += u64::from(event.version != known + 1);
        self.last.insert(event.order_id.clone(), (event.version, event.state));
        Some((event, before.map(|(_, state)| state)))
    }

    /// What was seen so far; orders are not compared with the store yet.
    pub fn seen(&self) -> Events {
        self.seen
    }

    /// Compares with the store as it is now. The events must have been read after the last write
    /// that counts, and the relay must have been through.
    pub async fn against(&self, store: &dyn Store) -> Result<Events, StoreError> {
        let mut found = Events { phantom: self.last.len() as u64, ..self.seen };
        let mut after: Option<OrderId> = None;
        loop {
            let page = store.page(&OrderFilter::default(), after.as_ref(), PAGE).await?;
            for order in page.orders.iter().map(|view| &view.order) {
                let told = self.last.get(order.order_id.as_str());
                let stored = (order.version, order.state);
                found.phantom -= u64::from(told.is_some_and(|(version, _)| *version <= stored.0));
                found.missing += u64::from(told.is_none_or(|told| told.0 <= stored.0 && *told != stored));
            }
            after = page.next;
            if after.is_none() {
                return Ok(found);
            }
        }
    }
}
