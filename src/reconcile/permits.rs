//! Permits for the calls of a list, out of the quota that recharges and questions share: to the provider they are calls of the
//! same account. They are of the share of questions, so that no list costs a recharge its permit.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::again;
use crate::domain::{ProviderId, Timestamp, plus};
use crate::ports::{
    ListPermits, OrderStore, PermitClass, Quota, QuotaTerms, Reservation, StatementError, Store, StoreError,
};

/// A permit that is further away than this is not waited for.
const PATIENCE: Duration = Duration::from_mins(15);
/// A permit that is later than this is not used: the quota's promise is about when calls leave.
const STALE_AFTER: Duration = Duration::from_millis(200);
/// Where the store does not say when asking again makes sense.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The permits of one provider.
#[derive(Debug)]
pub struct QuotaPermits {
    quota: Arc<dyn Quota>,
    orders: Arc<dyn OrderStore>,
    reservation: Reservation,
}

impl QuotaPermits {
    /// Permits of a provider's quota, by its terms.
    pub fn new(store: &Arc<dyn Store>, provider: ProviderId, terms: QuotaTerms) -> Self {
        let reservation = Reservation { provider, class: PermitClass::Query, wanted: 1, terms };
        Self { quota: store.clone(), orders: store.clone(), reservation }
    }

    /// By the store's own clock, on which permits have their moments.
    async fn now(&self) -> Result<Timestamp, StatementError> {
        again(|| self.orders.now()).await.map_err(|error| silent(&error))
    }
}

#[async_trait]
impl ListPermits for QuotaPermits {
    async fn wait(&self) -> Result<(), StatementError> {
        let give_up_at = plus(self.now().await?, PATIENCE);
        loop {
            let grant = again(|| self.quota.reserve(&self.reservation)).await.map_err(|error| silent(&error))?;
            let now = self.now().await?;
            match grant.send_at.first() {
                Some(send_at) if plus(*send_at, STALE_AFTER) >= now => {
                    tokio::time::sleep((*send_at - now).to_std().unwrap_or_default()).await;
                    return Ok(());
                }
                Some(_) if now < give_up_at => {}
                None if grant.ask_again_at.unwrap_or(now).max(now) < give_up_at => {
                    let wait = grant.ask_again_at.map_or(ASK_AGAIN, |at| (at - now).to_std().unwrap_or_default());
                    tokio::time::sleep(wait).await;
                }
                Some(_) | None => return Err(self.none_left(grant.ask_again_at)),
            }
        }
    }

    async fn rest(&self, rest: Duration) -> Result<(), StatementError> {
        let until = plus(self.now().await?, rest);
        again(|| self.quota.pause(&self.reservation.provider, until)).await.map_err(|error| silent(&error))
    }
}

impl QuotaPermits {
    fn none_left(&self, again_at: Option<Timestamp>) -> StatementError {
        let provider = &self.reservation.provider;
        let until = again_at.map(|at| format!(" before {}", at.format("%H:%M:%S UTC"))).unwrap_or_default();
        StatementError::away(format!(
            "providers.{provider}.quota: it has no permit for the list{until}: try again then, or give its day file with --file"
        ))
    }
}

fn silent(error: &StoreError) -> StatementError {
    StatementError::away(format!("store.url: no permit for a call of the list could be had ({error})"))
}
