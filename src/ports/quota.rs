//! A provider's quota, as permits with a time.

use std::time::Duration;

use async_trait::async_trait;

use crate::domain::{ProviderId, Timestamp};

use super::StoreError;

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
