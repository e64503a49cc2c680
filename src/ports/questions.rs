//! Questions to a provider: claimed before they are asked, so that several processes that hold
//! the same command never ask together, nor sooner than the provider allows.

use async_trait::async_trait;

use crate::domain::inquiry::Hastened;
use crate::domain::{OrderId, Timestamp};

use super::StoreError;

/// The wish to be the only one who asks about an order until a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// About which order.
    pub order_id: OrderId,
    /// The version of the transition that asked for the question; a row that was asked for
    /// something else since is not held.
    pub asked_version: u32,
    /// A hold of one's own that this one replaces, though it is not over.
    pub replaces: Option<Timestamp>,
    /// Nobody else asks before.
    pub until: Timestamp,
}

/// What became of a wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Granted.
    Granted,
    /// Another holds the order.
    Taken {
        /// Until then, where that is known by now.
        until: Option<Timestamp>,
        /// For the question that this version asked for.
        asked_version: Option<u32>,
    },
}

/// The wish that an order is asked about sooner, since its provider has news.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Haste {
    /// About which order.
    pub order_id: OrderId,
    /// The version of the transition that asked for the question.
    pub asked_version: u32,
    /// When, by what the provider allows.
    pub to: Hastened,
}

/// What became of that wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hurried {
    /// The order may be asked about from then on.
    From(Timestamp),
    /// Something else was asked for since.
    Overtaken,
    /// Another session holds the row and does not let go of it; the others of the batch did not wait for it.
    Locked,
}

/// Holds on orders, for those who ask. A hold is no transition: it moves no version and is in no
/// log, and what it is lost with is one question more.
#[async_trait]
pub trait Questions: Send + Sync + std::fmt::Debug {
    /// Holds orders that nobody holds at `now`, or whose hold is replaced by its owner. An order
    /// stands at most once in a batch. Answers in the order of the batch.
    async fn hold(&self, batch: &[Hold], now: Timestamp) -> Result<Vec<Held>, StoreError>;

    /// Brings forward the ends of holds, and says from when each order may be asked about. An order stands at most once in a
    /// batch. Answers in the order of the batch, and promptly: whoever brings the news is waited for.
    async fn hasten(&self, batch: &[Haste]) -> Result<Vec<Hurried>, StoreError>;
}
