//! What holds for lanes in the whole fleet: those that people have paused, and numbers that a provider does not take again
//! for a while.

use async_trait::async_trait;

use crate::domain::{OrderId, ProviderId, Timestamp};

use super::StoreError;

/// Somebody paused a lane, or let it go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneChange {
    /// Which lane.
    pub lane: ProviderId,
    /// Paused, or going on.
    pub is_paused: bool,
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
    /// When.
    pub at: Timestamp,
}

/// Which lanes people have paused.
#[async_trait]
pub trait LaneBook: Send + Sync + std::fmt::Debug {
    /// The last change of each lane that was ever changed, by its name.
    async fn lane_changes(&self) -> Result<Vec<LaneChange>, StoreError>;

    /// Notes a change; `false` if the lane is as it says already.
    async fn change_lane(&self, change: &LaneChange) -> Result<bool, StoreError>;
}

/// The wish to recharge a number at a provider that refuses one that was recharged a moment ago.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cooling {
    /// At which provider.
    pub provider: ProviderId,
    /// The keyed hash of the number.
    pub phone_hash: String,
    /// For which order: it may try again.
    pub order_id: OrderId,
    /// No other order's before.
    pub until: Timestamp,
}

/// Numbers that cool down, for the whole fleet.
#[async_trait]
pub trait Cooldowns: Send + Sync + std::fmt::Debug {
    /// Takes numbers that cool down for nobody else at `now`; `Some` says until when one does. Of two wishes for one
    /// number in a batch the first counts. Answers in the order of the batch.
    async fn cool(&self, batch: &[Cooling], now: Timestamp) -> Result<Vec<Option<Timestamp>>, StoreError>;

    /// Gives numbers back whose recharge had no effect; of another order's nothing changes.
    async fn give_back(&self, batch: &[Cooling]) -> Result<(), StoreError>;

    /// Removes what has cooled down before `before`, at most `limit`; says how many.
    async fn forget_cooled(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError>;
}
