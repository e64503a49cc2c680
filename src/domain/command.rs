//! A command asks dispatch to act on one order. It is small and holds no personal data.

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
}

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
        }
    }
}
