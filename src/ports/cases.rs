//! What people have to look at, and what must not be forgotten about it.

use async_trait::async_trait;

use crate::domain::{CaseKind, OrderId, Timestamp};

use super::StoreError;

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

    /// Marks open cases whose time has come as escalated, each once, and returns them.
    async fn escalate(&self, now: Timestamp, limit: usize) -> Result<Vec<Case>, StoreError>;
}
