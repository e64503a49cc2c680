//! An outside provider of recharges, and what it is told and asked.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{Acknowledgement, CallbackNews, CallbackRefusal, RawCallback};
use crate::domain::{Capabilities, ClientRef, Money, Msisdn, ProviderId, QueryOutcome, SubmitOutcome, Timestamp};

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
    pub carrier: Option<Arc<str>>,
    /// Where the provider is to tell the outcome, if it takes an address with each request.
    pub callback_url: Option<String>,
    /// When it was claimed. Some providers file it under this time, and want to be told when asked about it.
    pub sent_at: Timestamp,
    /// The end of the send window, on [`Clock::since_boot`](super::Clock::since_boot): no first byte after it.
    pub send_by: Duration,
}

/// What to ask about.
#[derive(Debug, Clone)]
pub struct QueryKey {
    /// Our reference.
    pub client_ref: ClientRef,
    /// The provider's, where known.
    pub provider_ref: Option<String>,
    /// When it was last claimed, as [`SubmitRequest::sent_at`] said.
    pub sent_at: Timestamp,
    /// The order's deadline has passed: what can still be called back is not to be delivered any more.
    pub give_up: bool,
    /// The end of the send window, on [`Clock::since_boot`](super::Clock::since_boot).
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

    /// Until when our limit there is used up, if the provider has said so: nothing more is to be sent before.
    fn used_up_until(&self) -> Option<Timestamp> {
        None
    }

    /// Reads a callback, its signature first and in constant time. One of a provider that signs nothing is read as
    /// far as it can be; whoever sent it must have had an address of ours.
    fn read_callback(&self, callback: &RawCallback, now: Timestamp) -> Result<CallbackNews, CallbackRefusal>;

    /// What this provider takes for an acknowledgement.
    fn acknowledgement(&self) -> Acknowledgement {
        Acknowledgement::PLAIN
    }
}
