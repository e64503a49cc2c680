//! `GET /recharges?from=&until=&after=&limit=`: what the simulator has on its list, by reference.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::SecondsFormat;
use hyper::HeaderMap;
use serde::Deserialize;

use super::login;
use crate::domain::{ClientRef, Currency, Money, ProviderId, Timestamp};
use crate::ports::{Clock, ListPermits, Listed, ListedState, Statement, StatementError};
use crate::providers::answers::{Object, plain_reference, read};
use crate::providers::http::{HttpResponse, escaped};
use crate::providers::lister::{BodySays, ListSpan, Lister};
use crate::providers::{BuildError, ProviderSettings};

const PER_PAGE: u32 = 1_000;

/// The list of a time.
#[derive(Debug)]
pub(in crate::providers) struct SimulatedList {
    lister: Lister,
    headers: HeaderMap,
    span: ListSpan,
    after: String,
    ended: bool,
    place: u64,
}

#[derive(Deserialize)]
struct Page {
    recharges: Vec<Object<Recharge>>,
    /// Behind which the next page begins, where there is one.
    after: Option<String>,
}

#[derive(Deserialize)]
struct Recharge {
    client_ref: String,
    state: String,
    amount_minor: Option<i64>,
    currency: Option<Currency>,
    at: Timestamp,
    #[serde(default, deserialize_with = "plain_reference")]
    provider_ref: Option<String>,
}

#[derive(Deserialize)]
struct Refusal {
    code: String,
    retry_after_ms: Option<u64>,
}

impl SimulatedList {
    /// Asks for nothing yet.
    pub(in crate::providers) fn new(
        id: ProviderId,
        settings: &ProviderSettings,
        clock: Arc<dyn Clock>,
        permits: Arc<dyn ListPermits>,
        span: ListSpan,
    ) -> Result<Self, BuildError> {
        let headers = login(&id, settings)?;
        let lister = Lister::new(id, settings, clock, permits, span.pace)?;
        Ok(Self { lister, headers, span, after: String::new(), ended: false, place: 0 })
    }

    fn listed(&mut self, recharge: Recharge) -> Result<Listed, StatementError> {
        self.place += 1;
        let state = ListedState::parse(&recharge.state)
            .ok_or_else(|| self.lister.unusable(format_args!("entry {}: an unknown state", self.place)))?;
        let amount = recharge.amount_minor.zip(recharge.currency).map(|(minor, currency)| Money { minor, currency });
        Ok(Listed {
            client_ref: ClientRef::from_stored(&recharge.client_ref),
            state,
            amount,
            at: Some(recharge.at),
            provider_ref: recharge.provider_ref,
            place: self.place,
        })
    }
}

#[async_trait]
impl Statement for SimulatedList {
    async fn next_page(&mut self) -> Result<Option<Vec<Listed>>, StatementError> {
        if self.ended {
            return Ok(None);
        }
        let moment = |at: Timestamp| escaped(&at.to_rfc3339_opts(SecondsFormat::Micros, true));
        let path = format!(
            "/recharges?from={}&until={}&after={}&limit={PER_PAGE}",
            moment(self.span.from),
            moment(self.span.until),
            escaped(&self.after)
        );
        let response = self.lister.get(&path, &self.headers, too_fast).await?;
        if [401, 403].contains(&response.status.as_u16()) {
            return Err(self.lister.refused(response.status));
        }
        let page = read::<Page>(&response.body).filter(|_| response.status.is_success());
        let Some(Page { recharges, after }) = page else {
            let status = response.status.as_u16();
            return Err(self
                .lister
                .unusable(format_args!("no list came (status {status}): is base_url a simulator's?")));
        };
        self.ended = after.is_none();
        self.after = after.unwrap_or_default();
        recharges.into_iter().map(|Object(recharge)| self.listed(recharge)).collect::<Result<_, _>>().map(Some)
    }
}

/// It refuses for pace, and bans, with any status.
fn too_fast(response: &HttpResponse) -> BodySays {
    match read::<Refusal>(&response.body) {
        Some(Refusal { code, retry_after_ms }) if code == "throttled" => {
            BodySays::TooFast(retry_after_ms.map(Duration::from_millis))
        }
        Some(Refusal { code, retry_after_ms }) if code == "banned" => {
            BodySays::Banned(retry_after_ms.map(Duration::from_millis))
        }
        Some(_) | None => BodySays::Nothing,
    }
}
