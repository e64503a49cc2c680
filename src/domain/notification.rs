//! The notifications that an order may ask for: some time after its creation somebody is told where it
//! stands by then, and, where the policy says so, of its end. They move nothing, so they have no version of their
//! own: readers of the order's events do not see them.

use super::Timestamp;
use super::event::{EventData, EventType, LoggedEvent};
use super::ids::OrderId;
use super::order::{NewOrder, Order};
use super::policy::Policy;
use super::state::State;

/// A notification whose time has come, and what it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// The order.
    pub order_id: OrderId,
    /// When it was to be told of.
    pub due_at: Timestamp,
    /// Its version by now.
    pub version: u32,
    /// Its state by now.
    pub state: State,
    /// Its deadline by now.
    pub deadline_at: Timestamp,
}

impl Notification {
    /// The entry of the log that asks for it, at `now`.
    pub fn request(&self, now: Timestamp) -> LoggedEvent {
        LoggedEvent {
            order_id: self.order_id.clone(),
            version: self.version,
            kind: EventType::NotificationRequested,
            at: now,
            data: EventData::aside(self.state, self.deadline_at),
        }
    }
}

/// When an order that has just arrived is to be told of, if at all: where its number is none, there is nobody
/// to tell. A shop whose clock runs ahead does not put it off.
pub(super) fn due_at(new: &NewOrder, now: Timestamp, policy: &Policy) -> Option<Timestamp> {
    let is_wanted = new.notify && new.recipient.msisdn().is_some();
    is_wanted.then(|| super::plus(new.created_at.min(now), policy.notify_after))
}

/// The entry of the log that tells of the end of `order`, which it reaches at `now`; with it falls away what would have been
/// told later, and would say nothing new.
pub(super) fn of_end(order: &Order, now: Timestamp, policy: &Policy) -> Option<LoggedEvent> {
    let is_wanted = policy.notify_at_end && order.notify && order.recipient.msisdn().is_some();
    is_wanted.then(|| LoggedEvent {
        order_id: order.order_id.clone(),
        version: order.version,
        kind: EventType::EndNotificationRequested,
        at: now,
        data: EventData::aside(order.state, order.deadline_at),
    })
}
