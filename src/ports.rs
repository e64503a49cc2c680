//! What the roles need from the outside, as traits. Adapters implement them; only `app` knows which.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::domain::{
    Capabilities, ClientRef, Command, LoggedEvent, Money, Msisdn, Order, OrderId, ProviderId, QueryOutcome, State,
    SubmitOutcome, Timestamp, Transition,
};

// ---------------------------------------------------------------------------------------- clock

/// Time. Deadlines are on the database's clock, so `now` is corrected by the measured skew.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The database's time, as well as this process knows it; whole microseconds.
    fn now(&self) -> Timestamp;

    /// A clock that only goes forward, also while the machine is suspended: for the send window.
    fn since_boot(&self) -> Duration;
}

// ---------------------------------------------------------------------------------------- store

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
}

/// What became of a fenced write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// Row, log entry, refund and cases are durable.
    Stored,
    /// The row has another version: load, decide again.
    Overtaken,
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
    async fn insert(&self, batch: &[Transition]) -> Result<Vec<Inserted>, StoreError>;

    /// Loads orders, in the order of the ids.
    async fn load(&self, ids: &[OrderId]) -> Result<Vec<Option<Order>>, StoreError>;

    /// Writes transitions, each fenced by its `from_version`; one order at most once in a batch.
    /// Answers in the order of the batch.
    async fn apply(&self, batch: &[Transition]) -> Result<Vec<Written>, StoreError>;

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

/// A position in the event log: writing transaction, then sequence. Reading in that order and
/// only below the oldest running transaction is what misses no batch under concurrent writers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogPosition {
    /// The writing transaction's id.
    pub xid: i64,
    /// The batch's sequence number.
    pub seq: i64,
}

/// Entries that were written together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogBatch {
    /// Where they stand.
    pub position: LogPosition,
    /// A line of JSON each (`domain::event`); an order stands in it once.
    pub entries: String,
}

impl LogBatch {
    /// The entries, as lines.
    pub fn lines(&self) -> std::str::Lines<'_> {
        self.entries.lines()
    }
}

/// The event log, as the relay and people read it.
#[async_trait]
pub trait EventLog: Send + Sync + std::fmt::Debug {
    /// Whole batches after `after`, in log order, until they hold `limit` entries; none that an
    /// older transaction could still precede.
    async fn read_log(&self, after: LogPosition, limit: usize) -> Result<Vec<LogBatch>, StoreError>;

    /// The relay's cursor: the last batch that is known to be published.
    async fn cursor(&self) -> Result<LogPosition, StoreError>;

    /// Moves the cursor, if it still stands at `from`; `false` if another relay moved it.
    async fn advance_cursor(&self, from: LogPosition, to: LogPosition) -> Result<bool, StoreError>;

    /// One order's entries, by version.
    async fn timeline(&self, order_id: &OrderId) -> Result<Vec<LoggedEvent>, StoreError>;
}

/// Which orders to read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OrderFilter {
    /// Only these; all, if empty. Unknown ids are left out.
    pub ids: Vec<OrderId>,
    /// In one of these states; all, if empty.
    pub states: Vec<State>,
    /// Created before this moment.
    pub created_before: Option<Timestamp>,
}

/// An order as people and exports see it.
#[derive(Debug, Clone, PartialEq)]
pub struct OrderView {
    /// The row.
    pub order: Order,
    /// Whether a case of it is open.
    pub case_open: bool,
}

/// A person's or an export's view of the orders; never on the hot path.
#[async_trait]
pub trait OrderBook: Send + Sync + std::fmt::Debug {
    /// Orders by id, after `after`, at most `limit`.
    async fn page(
        &self,
        filter: &OrderFilter,
        after: Option<&OrderId>,
        limit: usize,
    ) -> Result<Vec<OrderView>, StoreError>;

    /// How many orders are in each state; states without any are absent.
    async fn count_by_state(&self) -> Result<Vec<(State, u64)>, StoreError>;
}

/// Every trait that a store implements, for the composition root.
pub trait Store: OrderStore + EventLog + OrderBook + Quota {}
impl<T: OrderStore + EventLog + OrderBook + Quota> Store for T {}

// ---------------------------------------------------------------------------------------- quota

/// What a permit is for. Each class has its share of a provider's quota; shares are lent when idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PermitClass {
    /// First attempts.
    Fresh,
    /// Further attempts.
    Retry,
    /// Inquiries.
    Query,
}

impl PermitClass {
    /// Every class.
    pub const ALL: [Self; 3] = [Self::Fresh, Self::Retry, Self::Query];

    /// The class as text, for the store and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Retry => "retry",
            Self::Query => "query",
        }
    }
}

/// The terms of a provider's quota.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QuotaTerms {
    /// The time that one permit costs: one second over the permits per second.
    pub interval: Duration,
    /// How many may leave at once after a rest; at least 1.
    pub burst: u32,
    /// Guaranteed to queries, of 1.
    pub query_share: f64,
    /// Guaranteed to retries, of 1.
    pub retry_share: f64,
}

/// Permits that a process asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Reservation {
    /// At which provider.
    pub provider: ProviderId,
    /// For what.
    pub class: PermitClass,
    /// At most this many.
    pub wanted: u32,
    /// The provider's terms.
    pub terms: QuotaTerms,
}

/// Permits that were reserved. Each names the moment, on the store's clock, at which its request
/// may leave; one that is more than 200 ms late is not used
/// (the quota's promise allows 250 ms; the rest is for the wire).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Grant {
    /// Rising.
    pub send_at: Vec<Timestamp>,
    /// When asking again makes sense, if fewer came than were wanted.
    pub ask_again_at: Option<Timestamp>,
}

/// The one place where a provider's quota is counted, for all processes.
#[async_trait]
pub trait Quota: Send + Sync + std::fmt::Debug {
    /// Reserves permits whose send times lie at most max(one interval, 100 ms) ahead.
    async fn reserve(&self, reservation: &Reservation) -> Result<Grant, StoreError>;

    /// Lets nothing more leave for this provider until `until` (on the store's clock); never
    /// shortens a pause.
    async fn pause(&self, provider: &ProviderId, until: Timestamp) -> Result<(), StoreError>;
}

// ----------------------------------------------------------------------------------------- lines

/// One assignment of one partition to this process; it ends at a rebalance.
pub trait Assignment: Send + Sync + std::fmt::Debug {
    /// Whether this process still holds the partition.
    fn is_live(&self) -> bool;

    /// The record at `offset` is durable elsewhere; offsets are committed up to the first that is not.
    fn done(&self, offset: i64);
}

/// The duty to say when a record is durable. Dropped without a word, the record stays
/// uncommitted and comes again.
#[derive(Debug, Clone)]
pub struct Ack {
    assignment: Arc<dyn Assignment>,
    offset: i64,
}

impl Ack {
    /// For the record at `offset` of an assignment.
    pub fn new(assignment: Arc<dyn Assignment>, offset: i64) -> Self {
        Self { assignment, offset }
    }

    /// The record is durable elsewhere.
    pub fn done(self) {
        self.assignment.done(self.offset);
    }

    /// Whether this process still holds the record's partition.
    pub fn is_live(&self) -> bool {
        self.assignment.is_live()
    }
}

/// A record as it came.
#[derive(Debug, Clone)]
pub struct InRecord {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The record's timestamp, where it has one.
    pub timestamp: Option<Timestamp>,
    /// The key.
    pub key: Option<Bytes>,
    /// The value.
    pub value: Option<Bytes>,
    /// The headers: name and value as raw bytes, both possibly anything.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
    /// The duty to say when it is durable.
    pub ack: Ack,
}

/// No more records will come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// The subscription was closed, as asked.
    #[error("the subscription was closed")]
    Closed,
    /// It cannot go on: fenced by another process of the same name, not authorised, broken.
    #[error("the subscription failed: {0}")]
    Failed(String),
}

/// Records of one topic. Not calling `next` is the back-pressure: the partitions pause.
#[async_trait]
pub trait Subscription: Send + std::fmt::Debug {
    /// Waits for records, and returns at most `max` of them, at least one.
    async fn next(&mut self, max: usize) -> Result<Vec<InRecord>, Stopped>;
}

/// A record to write.
#[derive(Debug, Clone, PartialEq)]
pub struct OutRecord {
    /// The topic.
    pub topic: Arc<str>,
    /// The key, which chooses the partition.
    pub key: Option<Bytes>,
    /// The value.
    pub value: Option<Bytes>,
    /// The headers.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// Why a record was not written. It may have been, where a time-out says so: consumers
/// deduplicate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Not acknowledged in time, or the broker is away: try again.
    #[error("not acknowledged: {0}")]
    Unacknowledged(String),
    /// The broker will not take it: too large, no such topic, not authorised.
    #[error("refused: {0}")]
    Refused(String),
}

/// Writes records.
#[async_trait]
pub trait Publisher: Send + Sync + std::fmt::Debug {
    /// Writes a batch and waits until each record is acknowledged or has failed; answers in the
    /// order of the batch. Bounded in flight: a full queue makes the caller wait.
    async fn publish(&self, batch: &[OutRecord]) -> Vec<Result<(), PublishError>>;
}

// -------------------------------------------------------------------------------------- provider

/// One recharge, as a provider needs it.
#[derive(Debug, Clone)]
pub struct SubmitRequest {
    /// Our reference.
    pub client_ref: ClientRef,
    /// Whom to recharge.
    pub msisdn: Msisdn,
    /// How much.
    pub amount: Money,
    /// The carrier, as a hint.
    pub carrier: Option<String>,
    /// When this reference may first have been sent.
    pub first_sent_at: Timestamp,
    /// The end of the send window, on [`Clock::since_boot`]: no first byte after it.
    pub send_by: Duration,
}

/// What to ask about.
#[derive(Debug, Clone)]
pub struct QueryKey {
    /// Our reference.
    pub client_ref: ClientRef,
    /// The provider's, where known.
    pub provider_ref: Option<String>,
    /// When it was first sent: some providers want to be told.
    pub first_sent_at: Timestamp,
    /// The end of the send window, on [`Clock::since_boot`].
    pub send_by: Duration,
}

/// An outside provider of recharges. `submit` and `query` are infallible: every error of a call
/// is an outcome, and they end within the call time-out of the capabilities.
#[async_trait]
pub trait RechargeProvider: Send + Sync + std::fmt::Debug {
    /// Its name in the configuration.
    fn id(&self) -> &ProviderId;

    /// Its contract.
    fn capabilities(&self) -> &Capabilities;

    /// Makes sure that up to `wanted` connections stand ready, so that a claim is followed by
    /// its first byte at once; returns how many calls could start now. Zero: claim nothing.
    async fn connect(&self, wanted: usize) -> usize;

    /// Sends a recharge.
    async fn submit(&self, request: &SubmitRequest) -> SubmitOutcome;

    /// Asks what became of one.
    async fn query(&self, key: &QueryKey) -> QueryOutcome;
}

/// Where commands go: the topics of a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneTopics {
    /// Fresh orders.
    pub requests: Arc<str>,
    /// Retries and queries whose time has come.
    pub due: Arc<str>,
}

/// A command as a record for `topic`; the key is the phone number's keyed hash.
pub fn command_record(topic: &Arc<str>, key: Bytes, command: &Command) -> OutRecord {
    OutRecord {
        topic: Arc::clone(topic),
        key: Some(key),
        value: serde_json::to_vec(command).ok().map(Bytes::from),
        headers: Vec::new(),
    }
}
