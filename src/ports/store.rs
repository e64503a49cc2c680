//! The orders, durable; and what every part of a store can answer.

use async_trait::async_trait;

use crate::domain::{Order, OrderId, Timestamp, Transition};

use super::{
    CallbackBook, CaseBook, Cooldowns, DayLog, DeadlineBook, EventLog, LaneBook, LetterMarks, OrderBook, Questions,
    Quota, ReadMarks, RefundBook, Timers,
};

/// Why the store did not do it. A write that failed in transit may have been done: callers
/// repeat it (every write is fenced) or read back.
#[derive(Debug, thiserror::Error)]
#[error("store: {operation} failed")]
pub struct StoreError {
    /// Which operation.
    pub operation: &'static str,
    /// What to do about it.
    pub kind: StoreErrorKind,
    /// The driver's own error.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// What to do about a [`StoreError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// Not reachable, restarting, out of connections, or timed out: try again.
    Unreachable,
    /// Serialisation failure or deadlock: try again at once.
    Contention,
    /// What the batch holds cannot be stored (a value out of range, a broken constraint): trying
    /// the same batch again does not help, a part of it may pass.
    BadData,
    /// A defect, a missing right or a wrong schema: trying again does not help.
    Broken,
}

impl StoreError {
    /// Whether trying again can help.
    pub fn is_transient(&self) -> bool {
        match self.kind {
            StoreErrorKind::Unreachable | StoreErrorKind::Contention => true,
            StoreErrorKind::BadData | StoreErrorKind::Broken => false,
        }
    }

    /// Whether the batch itself is at fault.
    pub fn is_about_data(&self) -> bool {
        self.kind == StoreErrorKind::BadData
    }
}

/// What became of an insert.
#[derive(Debug, Clone, PartialEq)]
pub enum Inserted {
    /// The row is new.
    Stored,
    /// The order was there already, as this.
    Exists(Box<Order>),
    /// It was there already, in a row that makes no order ([`Loaded::Unreadable`]).
    Unreadable(String),
}

/// What stands under an id.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "it is nearly always an order")]
pub enum Loaded {
    /// An order.
    Order(Order),
    /// Nothing.
    Absent,
    /// A row that makes no order: another version's, or somebody's hand. With what is wrong; nobody may act on it.
    Unreadable(String),
}

impl Loaded {
    /// The order, if it is one.
    pub fn order(self) -> Option<Order> {
        match self {
            Self::Order(order) => Some(order),
            Self::Absent | Self::Unreadable(_) => None,
        }
    }
}

/// What became of a fenced write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// Row, log entry, refund and cases are durable.
    Stored,
    /// The row has another version: load, decide again.
    Overtaken,
    /// Another session holds the row and does not let go of it. Nothing was written; the others of the batch
    /// did not wait for it.
    Locked,
    /// The store cannot hold what is to be written. It refuses a whole batch for that: who wrote in parts knows which
    /// it was.
    Refused,
}

/// The orders, in batches. Every write is one statement in a transaction of its own; row, log
/// entry, refund and cases are written together or not at all.
///
/// The futures may be dropped by a caller; an adapter must not leave a transaction half open
/// when that happens.
#[async_trait]
pub trait OrderStore: Send + Sync + std::fmt::Debug {
    /// Inserts new orders (transitions from version 0); ids may repeat within the batch (the
    /// first stands). Answers in the order of the batch.
    ///
    /// An order that is open behind its deadline, by the store's own clock, is not stored: the watchdog may have
    /// passed that moment. The insert fails as contended then, and the order has to be decided anew.
    async fn insert(&self, batch: &[Transition]) -> Result<Vec<Inserted>, StoreError>;

    /// Loads orders, in the order of the ids.
    async fn load(&self, ids: &[OrderId]) -> Result<Vec<Loaded>, StoreError>;

    /// Writes transitions, each fenced by its `from_version`. Where an order stands in the batch
    /// several times the first counts, and the others are overtaken. One that gives an open order a new
    /// deadline which has passed by now is overtaken, too. One whose row another session holds for long is locked.
    /// Answers in the order of the batch.
    async fn apply(&self, batch: &[Transition]) -> Result<Vec<Written>, StoreError>;

    /// The same for whoever is waited for: a row that another session holds is locked after a fraction of a second. Where no
    /// single row can be held there is no difference.
    async fn apply_promptly(&self, batch: &[Transition]) -> Result<Vec<Written>, StoreError> {
        self.apply(batch).await
    }

    /// The store's clock.
    async fn now(&self) -> Result<Timestamp, StoreError>;

    /// `Ok` if the store is reachable and has the schema that this build needs.
    async fn check(&self) -> Result<(), SchemaError>;
}

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// It is not reachable.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It was never migrated, or to another version.
    #[error("the store's schema is at version {found}, this build needs {needed}: {}", remedy(*found, *needed))]
    Version {
        /// What the store has; 0 for none.
        found: i64,
        /// What this build needs.
        needed: i64,
    },
}

fn remedy(found: i64, needed: i64) -> &'static str {
    if found > needed { "run the build that migrated it, or a newer one" } else { "run `recharged migrate`" }
}

/// Every trait that a store implements, for the composition root.
pub trait Store:
    OrderStore
    + EventLog
    + OrderBook
    + Quota
    + DeadlineBook
    + Questions
    + CaseBook
    + ReadMarks
    + Timers
    + RefundBook
    + CallbackBook
    + LaneBook
    + Cooldowns
    + DayLog
    + LetterMarks
{
}
impl<T> Store for T where
    T: OrderStore
        + EventLog
        + OrderBook
        + Quota
        + DeadlineBook
        + Questions
        + CaseBook
        + ReadMarks
        + Timers
        + RefundBook
        + CallbackBook
        + LaneBook
        + Cooldowns
        + DayLog
        + LetterMarks
{
}
