//! What people have to look at, and what must not be forgotten about it.

use async_trait::async_trait;

use crate::domain::{CaseKind, LoggedEvent, OrderId, Timestamp};

use super::{StoreError, Written};

/// Which case: an order has at most one of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseKey {
    /// Of which order.
    pub order_id: OrderId,
    /// What it is about.
    pub kind: CaseKind,
}

/// A case as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Which.
    pub key: CaseKey,
    /// Since when there is something to look at.
    pub opened_at: Timestamp,
    /// When a person must look at the latest.
    pub escalate_at: Timestamp,
    /// Whether that moment has come and was told.
    pub escalated: bool,
    /// When the provider is asked next, where it still is.
    pub next_query_at: Option<Timestamp>,
    /// What was known when it was opened.
    pub evidence: String,
    /// Who looks after it.
    pub owner: Option<String>,
    /// How it ended.
    pub resolution: Option<Resolution>,
}

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// When.
    pub at: Timestamp,
    /// Who: a name, or `provider` where its word settled it.
    pub by: String,
    /// On what evidence.
    pub evidence: String,
}

/// Which cases to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CaseFilter {
    /// Of this order only.
    pub order_id: Option<OrderId>,
    /// Of these kinds; of all, if empty.
    pub kinds: Vec<CaseKind>,
    /// Also those that are resolved.
    pub with_resolved: bool,
    /// Only those that were escalated.
    pub only_escalated: bool,
    /// Opened before this moment.
    pub opened_before: Option<Timestamp>,
    /// Only those that this person looks after.
    pub owner: Option<String>,
    /// Only those that nobody looks after.
    pub only_unowned: bool,
}

impl CaseFilter {
    /// Whether a case passes; what the statements of the adapters say in SQL.
    pub fn keeps(&self, case: &Case) -> bool {
        self.order_id.as_ref().is_none_or(|id| *id == case.key.order_id)
            && (self.kinds.is_empty() || self.kinds.contains(&case.key.kind))
            && (self.with_resolved || case.resolution.is_none())
            && (!self.only_escalated || case.escalated)
            && self.opened_before.is_none_or(|before| case.opened_at < before)
            && self.owner.as_ref().is_none_or(|owner| case.owner.as_ref() == Some(owner))
            && (!self.only_unowned || case.owner.is_none())
    }
}

/// What a person does about an open case without resolving it.
#[derive(Debug, Clone, PartialEq)]
pub struct CaseNote {
    /// Which case.
    pub key: CaseKey,
    /// Who looked after it so far; the note is overtaken where that is somebody else by now.
    pub was: Option<String>,
    /// Who looks after it from now on.
    pub owner: Option<String>,
    /// The entry of the log that tells of it, with the person's name.
    pub entry: LoggedEvent,
}

/// A question to a provider that should have been asked by now, as far as its case knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverdueQuestion {
    /// The case that it stands in.
    pub key: CaseKey,
    /// When the case says that it is due.
    pub next_query_at: Timestamp,
    /// Until when the order was last held for a question ([`super::Hold`]), and for the one that
    /// which version asked for.
    pub held: Option<(Timestamp, u32)>,
}

/// When a case's question is due from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuestionTime {
    /// Which case.
    pub key: CaseKey,
    /// What it said so far; one that says something else by now is left alone.
    pub was: Timestamp,
    /// When; never, if none.
    pub next: Option<Timestamp>,
}

/// The cases. They are opened and resolved by transitions of their orders; here they are read,
/// and given their times.
#[async_trait]
pub trait CaseBook: Send + Sync + std::fmt::Debug {
    /// The oldest first, behind `after`, at most `limit`.
    async fn cases(&self, filter: &CaseFilter, after: Option<&Case>, limit: usize) -> Result<Vec<Case>, StoreError>;

    /// Open cases whose question was due at `due_by` or before, the longest overdue first.
    async fn overdue_questions(&self, due_by: Timestamp, limit: usize) -> Result<Vec<OverdueQuestion>, StoreError>;

    /// Sets when questions are due.
    async fn set_questions(&self, batch: &[QuestionTime]) -> Result<(), StoreError>;

    /// Writes who looks after an open case, and the entry that says so, together. Overtaken where the case is resolved by now, or looked after
    /// by somebody else.
    async fn note(&self, note: &CaseNote) -> Result<Written, StoreError>;

    /// Marks open cases whose time has come as escalated, each once, and returns them.
    async fn escalate(&self, now: Timestamp, limit: usize) -> Result<Vec<Case>, StoreError>;
}
