//! A provider's own list of what it did in a time: what it would bill.

use std::time::Duration;

use async_trait::async_trait;

use crate::domain::{ClientRef, Money, Timestamp};

/// A recharge as a provider lists it.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// Our reference, as the provider has it.
    pub client_ref: ClientRef,
    /// What it says became of it.
    pub state: ListedState,
    /// What was delivered, or was to be, where it tells.
    pub amount: Option<Money>,
    /// The moment under which the provider files it, where it tells.
    pub at: Option<Timestamp>,
    /// The provider's own reference, where it tells.
    pub provider_ref: Option<String>,
    /// Where it stands: the line of a file, or its number in the list, from 1.
    pub place: u64,
}

/// What a list says became of a recharge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListedState {
    /// Delivered.
    Delivered,
    /// Not delivered, and never will be.
    Failed,
    /// Delivered, and taken back.
    Reversed,
    /// It has no end yet.
    InProgress,
    /// The provider does not know itself.
    Unknown,
}

impl ListedState {
    /// Each of them.
    pub const ALL: [Self; 5] = [Self::Delivered, Self::Failed, Self::Reversed, Self::InProgress, Self::Unknown];

    /// Its one word, in files and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Reversed => "reversed",
            Self::InProgress => "in_progress",
            Self::Unknown => "unknown",
        }
    }

    /// Reads the word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// What kind of trouble a list makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatementTrouble {
    /// It cannot be had now: asked again later, it may come.
    Away,
    /// It can be had, and cannot be used as it is.
    Unusable,
}

/// Why a list cannot be read to its end. The message says where it stands, what is wrong, and the remedy; it holds
/// no phone number and no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StatementError {
    /// What kind.
    pub trouble: StatementTrouble,
    /// In words.
    pub message: String,
}

impl StatementError {
    /// It cannot be had now.
    pub fn away(message: impl Into<String>) -> Self {
        Self { trouble: StatementTrouble::Away, message: message.into() }
    }

    /// It cannot be used as it is.
    pub fn unusable(message: impl Into<String>) -> Self {
        Self { trouble: StatementTrouble::Unusable, message: message.into() }
    }
}

/// A provider's list, read once from its beginning, a page at a time. A reference may come again with the same words
/// (pages of a list that grows overlap).
#[async_trait]
pub trait Statement: Send + std::fmt::Debug {
    /// The next page: empty pages are none, and `None` is the end of a list that was read whole. After an error
    /// there is nothing more.
    async fn next_page(&mut self) -> Result<Option<Vec<Listed>>, StatementError>;
}

/// Lets the calls for a list leave, one after the other: to the provider they are calls like any other, so their permits come
/// out of its quota.
#[async_trait]
pub trait ListPermits: Send + Sync + std::fmt::Debug {
    /// Waits until one call may leave.
    async fn wait(&self) -> Result<(), StatementError>;

    /// The provider wants nothing of ours for so long: nobody's calls leave until then.
    async fn rest(&self, rest: Duration) -> Result<(), StatementError>;
}
