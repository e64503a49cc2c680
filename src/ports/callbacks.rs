//! Callbacks: what a provider tells of its own accord.

use std::net::IpAddr;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::domain::{ClientRef, OrderId, ProviderId, QueryOutcome, Timestamp};

use super::StoreError;

/// A callback as it came in. Nothing of it is believed before its provider's adapter has read it.
#[derive(Clone)]
pub struct RawCallback {
    /// The provider that the address names; anybody can have written it.
    pub provider: String,
    /// What follows in the address, if anything does.
    pub token: Option<String>,
    /// By name, in lower case; values that are no text are left out.
    pub headers: Vec<(String, String)>,
    /// The bytes that a signature covers.
    pub body: Bytes,
    /// Who sent it.
    pub from: IpAddr,
}

/// A body holds phone numbers, and an address is as good as a password.
impl std::fmt::Debug for RawCallback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RawCallback({} bytes)", self.body.len())
    }
}

impl RawCallback {
    /// A header by its lower-case name. One that stands twice proves nothing, and counts as missing.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(other, _)| other == name);
        match (found.next(), found.next()) {
            (Some((_, value)), None) => Some(value),
            (Some(_), Some(_)) | (None, _) => None,
        }
    }
}

/// What a callback says, once it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct CallbackNews {
    /// Our reference, if it names it.
    pub client_ref: Option<ClientRef>,
    /// The provider's.
    pub provider_ref: Option<String>,
    /// What it says of it. [`QueryOutcome::Unavailable`] where that cannot be read: something has happened.
    pub said: QueryOutcome,
    /// Its signature is the provider's, and it is no old one.
    pub is_proven: bool,
}

/// Why a callback is not taken. Whoever sent it is not told which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallbackRefusal {
    /// Its signature is missing or wrong.
    #[error("the signature is missing or wrong")]
    Forged,
    /// It was signed too long ago, or in the future.
    #[error("it was signed too long ago, or in the future")]
    Stale,
}

/// What a provider wants to hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The media type of the body.
    pub content_type: &'static str,
    /// The body.
    pub body: &'static str,
}

impl Acknowledgement {
    /// For providers that look at the status alone.
    pub const PLAIN: Self = Self { content_type: "text/plain; charset=utf-8", body: "ok" };
}

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallbackAnswer {
    /// It is dealt with: the provider need not send it again.
    Taken(Acknowledgement),
    /// Forged, stale, of an unknown provider, about a reference that is none of ours.
    Refused,
    /// It is genuine, and could not be dealt with now: the provider is to send it again.
    NotNow,
}

/// Takes callbacks.
#[async_trait]
pub trait CallbackDoor: Send + Sync + std::fmt::Debug {
    /// Deals with one, within the time that providers wait for their acknowledgement.
    async fn take(&self, callback: RawCallback) -> CallbackAnswer;
}

crate::domain::text_enum! {
    /// What became of a callback.
    Became {
        /// Its word was proven, and was decided on.
        Settled = "settled",
        /// The question about the attempt was brought forward.
        Asked = "asked",
        /// Somebody was told to ask about an attempt that nobody asks about any more.
        Confirming = "confirming",
        /// It told nothing new.
        Known = "known",
    }
}

/// A callback that was dealt with. The first four make it one with its repetitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotedCallback {
    /// About which order.
    pub order_id: OrderId,
    /// About which attempt of it.
    pub attempt: u16,
    /// From whom.
    pub provider: ProviderId,
    /// What it said, in words of ours: never the provider's text.
    pub said: String,
    /// What became of it.
    pub became: Became,
    /// When it was dealt with.
    pub at: Timestamp,
}

/// Remembers callbacks, so that each is dealt with once and people see what was said.
#[async_trait]
pub trait CallbackBook: Send + Sync + std::fmt::Debug {
    /// Which of these were noted before (`became` and `at` do not count); in the order of the batch.
    async fn were_noted(&self, batch: &[NotedCallback]) -> Result<Vec<bool>, StoreError>;

    /// Notes them; of one that is noted already nothing changes.
    async fn note_callbacks(&self, batch: &[NotedCallback]) -> Result<(), StoreError>;

    /// The callbacks about an order, in the order in which they came.
    async fn callbacks_of(&self, order_id: &OrderId) -> Result<Vec<NotedCallback>, StoreError>;
}
