//! Where callbacks come in. Who sent one is not told why it was refused, nor by how long that took: a forged one and one
//! about nothing of ours are turned away before anything is looked up.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info};

use crate::domain::{ClientRef, OrderId, ProviderId, Timestamp};
use crate::ports::{CallbackAnswer, CallbackDoor, CallbackNews, CallbackRefusal, RawCallback};

use super::{Callbacks, Caller, Told, WITHIN};

/// Takes callbacks, and hands them to the role.
#[derive(Debug)]
pub struct Door {
    role: Arc<Callbacks>,
    told: mpsc::Sender<Told>,
}

/// Why one is turned away; also as the metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TurnedAway {
    /// The address names nobody who may call.
    Unknown,
    /// It comes from elsewhere.
    Network,
    Forged,
    Stale,
    /// It is about a reference that is none of ours, or not the address's.
    Reference,
}

impl TurnedAway {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Network => "network",
            Self::Forged => "forged",
            Self::Stale => "stale",
            Self::Reference => "reference",
        }
    }
}

impl Door {
    pub(super) fn new(role: Arc<Callbacks>, told: mpsc::Sender<Told>) -> Self {
        Self { role, told }
    }
}

/// Whom it is from, whose attempt it is about, and what it says.
pub(crate) fn read<'c>(
    callers: &'c HashMap<ProviderId, Caller>,
    callback: &RawCallback,
    now: Timestamp,
) -> Result<(&'c Caller, OrderId, u16, CallbackNews), TurnedAway> {
    let caller = callers.get(callback.provider.as_str()).ok_or(TurnedAway::Unknown)?;
    if !caller.may_call_from(callback.from) {
        return Err(TurnedAway::Network);
    }
    let addressed = match &callback.token {
        Some(token) => {
            let links = caller.links.as_ref().ok_or(TurnedAway::Forged)?;
            Some(links.open(token).ok_or(TurnedAway::Forged)?)
        }
        None => None,
    };
    let news = caller.provider.read_callback(callback, now).map_err(|refusal| match refusal {
        CallbackRefusal::Forged => TurnedAway::Forged,
        CallbackRefusal::Stale => TurnedAway::Stale,
    })?;
    // Without a signature it is the address that shows who was asked to call.
    if addressed.is_none() && !news.is_proven {
        return Err(TurnedAway::Forged);
    }
    let format = caller.provider.capabilities().client_ref;
    let named = match (&addressed, &news.client_ref) {
        (Some((order_id, attempt)), Some(said)) => {
            let is_same = ClientRef::for_attempt(order_id, *attempt, format) == *said;
            return if is_same { Ok((caller, order_id.clone(), *attempt, news)) } else { Err(TurnedAway::Reference) };
        }
        (Some((order_id, attempt)), None) => Some((order_id.clone(), *attempt)),
        (None, Some(said)) => said.attempt(format),
        (None, None) => None,
    };
    let (order_id, attempt) = named.ok_or(TurnedAway::Reference)?;
    Ok((caller, order_id, attempt, news))
}

#[async_trait]
impl CallbackDoor for Door {
    async fn take(&self, callback: RawCallback) -> CallbackAnswer {
        let (caller, order_id, attempt, news) = match read(&self.role.rules.callers, &callback, self.role.clock.now()) {
            Ok(read) => read,
            Err(why) => {
                // A name that anybody may write is no label.
                let provider = self.role.rules.callers.get_key_value(callback.provider.as_str());
                let provider = provider.map(|(id, _)| id);
                self.role.metrics.turned_away(provider, why.as_str());
                debug!(provider = ?provider, why = why.as_str(), "a callback is turned away");
                return CallbackAnswer::Refused;
            }
        };
        let provider: ProviderId = caller.provider.id().clone();
        let (done, dealt) = oneshot::channel();
        let told =
            Told { provider: provider.clone(), order_id: order_id.clone(), attempt, news, done, twins: Vec::new() };
        let handed_in = async {
            self.told.send(told).await.ok()?;
            dealt.await.ok()
        };
        if let Ok(Some(())) = tokio::time::timeout(WITHIN, handed_in).await {
            return CallbackAnswer::Taken(caller.provider.acknowledgement());
        }
        self.role.metrics.not_now(&provider);
        info!(%provider, %order_id, attempt, "a callback could not be dealt with now: it is to be sent again");
        CallbackAnswer::NotNow
    }
}
