//! A command asks dispatch to act on one order. It is small and holds no personal data.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::ids::OrderId;
use super::order::Order;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandKind {
    /// Send the recharge.
    Submit,
    /// Ask what became of it.
    Query,
    /// Ask about an attempt that nobody asks about any more, since a callback speaks of it. It acts whatever the row's
    /// `asked_version` is.
    Confirm,
}

/// A command as it travels on a lane's topic. It is a hint: it acts only if `version` is the
/// row's `asked_version`, its kind and attempt fit, and the row's `wake_at` has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// What is asked.
    pub kind: CommandKind,
    /// Of which order.
    pub order_id: OrderId,
    /// The attempt that was current when it was asked; 0 before the first.
    pub attempt: u16,
    /// The version of the transition that asked.
    pub version: u32,
    /// The order's deadline, so that a heap can be ordered without a look at the store.
    #[serde(with = "chrono::serde::ts_milliseconds")]
    pub deadline_at: Timestamp,
    /// Not before this time, where the command waits for one.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "chrono::serde::ts_milliseconds_option")]
    pub wake_at: Option<Timestamp>,
    /// The provider has news: what the row says of when to ask does not count, only its hold; of a
    /// [`CommandKind::Query`] alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hastened: bool,
    /// The provider's reference, where a callback told it; of a [`CommandKind::Confirm`] alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_ref: Option<String>,
    /// How often it was asked before; of a [`CommandKind::Confirm`] alone.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tries: u8,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(tries: &u8) -> bool {
    *tries == 0
}

/// A word that cannot be confirmed is asked about this long,
const CONFIRM_FIRST: Duration = Duration::from_secs(5);
const CONFIRM_MOST: Duration = Duration::from_hours(1);
/// and this often: for half a day.
const CONFIRMS: u8 = 20;

impl Command {
    /// The command that `order` asks for as it stands.
    pub fn of(kind: CommandKind, order: &Order) -> Self {
        Self {
            kind,
            order_id: order.order_id.clone(),
            attempt: order.attempt_number(),
            version: order.asked_version,
            deadline_at: order.deadline_at,
            wake_at: order.wake_at,
            hastened: false,
            provider_ref: None,
            tries: 0,
        }
    }

    /// Asks about attempt `attempt` of an order, whatever the row asks for.
    pub fn confirm(order: &Order, attempt: u16, provider_ref: Option<String>) -> Self {
        Self { attempt, wake_at: None, provider_ref, ..Self::of(CommandKind::Confirm, order) }
    }

    /// The same once more, each time after twice the wait; `None` once it was asked often enough.
    pub fn again(&self, now: Timestamp) -> Option<Self> {
        let wait = CONFIRM_FIRST.saturating_mul(1 << self.tries.min(15)).min(CONFIRM_MOST);
        let tries = self.tries + 1;
        (tries < CONFIRMS).then(|| Self { wake_at: Some(super::plus(now, wait)), tries, ..self.clone() })
    }
}
