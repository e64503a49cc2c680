//! Reloadly Airtime (`kind = "reloadly"`).
//!
//! All calls share one OAuth 2 token, which is at hand before an order is claimed. A top-up is asked for
//! asynchronously: the reply brings no more than Reloadly's number of it. What failed there may be tried again after
//! 30 minutes only, so an order gets one attempt. Callbacks are signed, but integrators disagree about where in them
//! the state stands: they only say that it is time to ask.

mod callback;
mod list;
mod table;
mod token;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub(super) use self::list::ReloadlyList;
use self::table::Standing;
use self::token::{Token, TokenSource};
use super::answers::{self, Object, Undocumented};
use super::decimal::{from_decimal, to_decimal};
use super::http::{HttpRequest, HttpResponse, HttpResult, HttpTransport, escaped};
use super::{BuildError, ProviderSettings, Secret};
use crate::domain::route::{ProductTable, country_of};
use crate::domain::{
    Capabilities, Currency, NotSentCause, ProviderId, QueryOutcome, Receipt, SubmitOutcome, Timestamp, UnknownCause,
};
use crate::ports::{CallbackNews, CallbackRefusal, Clock, QueryKey, RawCallback, RechargeProvider, SubmitRequest};

const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/com.reloadly.topups-v1+json");

/// Speaks Reloadly's airtime API.
#[derive(Debug)]
pub(super) struct Reloadly {
    id: ProviderId,
    capabilities: Capabilities,
    transport: HttpTransport,
    tokens: TokenSource,
    clock: Arc<dyn Clock>,
    products: ProductTable,
    callback_keys: Vec<Secret>,
    undocumented: Undocumented,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TopUp<'a> {
    operator_id: u64,
    amount: Box<RawValue>,
    /// The amount is in the recipient's currency: what the customer gets.
    use_local_amount: bool,
    custom_identifier: &'a str,
    recipient_phone: Phone<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Phone<'a> {
    country_code: &'a str,
    number: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Taken {
    transaction_id: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ApiError {
    error_code: String,
}

/// `GET /topups/{id}/status`.
#[derive(Deserialize)]
struct StatusAnswer {
    status: String,
    transaction: Option<Object<Transaction>>,
}

/// `GET /topups/reports/transactions`.
#[derive(Deserialize)]
struct Report {
    content: Vec<Object<Transaction>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "the names of the JSON")]
struct Transaction {
    transaction_id: Option<u64>,
    status: Option<String>,
    custom_identifier: Option<String>,
    delivered_amount: Option<Box<RawValue>>,
    delivered_amount_currency_code: Option<String>,
    /// Under this it is filed; only a report has it.
    transaction_date: Option<String>,
}

impl Transaction {
    /// Whether it is the one that was asked about by its number, as far as it says.
    fn is(&self, key: &QueryKey) -> bool {
        let (reference, number) = (self.custom_identifier.as_deref(), self.transaction_id.map(|id| id.to_string()));
        reference.is_none_or(|reference| reference == key.client_ref.as_str())
            && (number.is_none() || number == key.provider_ref)
    }

    fn receipt(&self) -> Receipt {
        let currency = self.delivered_amount_currency_code.as_deref().and_then(|code| Currency::parse(code).ok());
        let delivered = match (&self.delivered_amount, currency) {
            (Some(amount), Some(currency)) => from_decimal(amount.get(), currency),
            (Some(_), None) | (None, _) => None,
        };
        Receipt { provider_ref: self.transaction_id.map(|id| id.to_string()), delivered, delivered_at: None }
    }
}

impl Reloadly {
    /// Opens nothing yet.
    pub(super) fn new(id: ProviderId, settings: &ProviderSettings, clock: Arc<dyn Clock>) -> Result<Self, BuildError> {
        let transport = super::transport(&id, settings, &clock)?;
        let tokens = tokens(&id, settings, &clock)?;
        Ok(Self {
            capabilities: settings.capabilities(),
            transport,
            tokens,
            clock,
            products: settings.products.clone(),
            callback_keys: settings.callback_keys.clone(),
            undocumented: Undocumented::new(id.clone()),
            id,
        })
    }

    /// Makes a call with the token at hand. One that is refused was not looked at: the call is made once more with a
    /// new token, if that is had inside the send window.
    async fn call(&self, method: Method, path: String, body: Bytes, send_by: Duration) -> HttpResult {
        let mut last = None;
        for _ in 0..2 {
            let Some(token) = self.token(send_by).await else {
                return last.unwrap_or(HttpResult::NotSent(NotSentCause::Connect));
            };
            let headers = HeaderMap::from_iter([
                (AUTHORIZATION, token.bearer.clone()),
                (ACCEPT, MEDIA_TYPE),
                (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            ]);
            let request = HttpRequest { method: method.clone(), path: path.clone(), headers, body: body.clone() };
            let result = self.transport.call(&request, send_by).await;
            let is_refused = matches!(&result, HttpResult::Response(response) if is_about_the_token(response));
            if !is_refused {
                // The first was refused for its token, and this one never left: nothing was.
                return result;
            }
            self.tokens.refused(&token);
            last = Some(result);
        }
        last.unwrap_or(HttpResult::NotSent(NotSentCause::Connect))
    }

    async fn token(&self, send_by: Duration) -> Option<Token> {
        let left = send_by.saturating_sub(self.clock.since_boot());
        tokio::time::timeout(left, self.tokens.get()).await.ok().flatten()
    }

    fn body(request: &SubmitRequest, operator: &str) -> Option<Bytes> {
        let country = country_of(request.msisdn)?;
        let body = TopUp {
            operator_id: operator.parse().ok()?,
            amount: RawValue::from_string(to_decimal(request.amount)).ok()?,
            use_local_amount: true,
            custom_identifier: request.client_ref.as_str(),
            recipient_phone: Phone { country_code: country.as_str(), number: request.msisdn.expose() },
        };
        serde_json::to_vec(&body).ok().map(Bytes::from)
    }

    fn submitted(&self, response: &HttpResponse) -> SubmitOutcome {
        let now = self.clock.now();
        if let Some(taken) = answers::read::<Taken>(&response.body) {
            if response.status.is_success() {
                return SubmitOutcome::Accepted { provider_ref: Some(taken.transaction_id.to_string()) };
            }
            return SubmitOutcome::Unknown(answers::unknown_by_status(response.status, UnknownCause::BrokenBody));
        }
        let Some(error) = answers::read::<ApiError>(&response.body) else {
            return answers::by_status(response, now, UnknownCause::BrokenBody);
        };
        if error.error_code == table::DUPLICATE {
            return SubmitOutcome::Duplicate;
        }
        if let Some(failure) = table::refused(&error.error_code) {
            return SubmitOutcome::Rejected(failure);
        }
        self.undocumented.note(&error.error_code);
        answers::by_status(response, now, UnknownCause::UnmappedCode)
    }

    fn told(&self, status: &str, receipt: Receipt) -> QueryOutcome {
        match table::standing(status) {
            Standing::InProgress => QueryOutcome::InProgress,
            Standing::Succeeded => QueryOutcome::Succeeded(receipt),
            Standing::Failed(failure) => QueryOutcome::Failed(failure),
            Standing::Undocumented => {
                self.undocumented.note(status);
                QueryOutcome::Unavailable { retry_after: None }
            }
        }
    }

    /// What a report says of a reference: `NotFound` where it holds nothing, and nothing where it holds others.
    fn reported(&self, report: &Report, reference: &str) -> Option<QueryOutcome> {
        if report.content.is_empty() {
            return Some(QueryOutcome::NotFound);
        }
        let ours = report.content.iter().find(|one| one.custom_identifier.as_deref() == Some(reference))?;
        Some(self.told(ours.status.as_deref()?, ours.receipt()))
    }
}

/// Where tokens are had.
fn tokens(id: &ProviderId, settings: &ProviderSettings, clock: &Arc<dyn Clock>) -> Result<TokenSource, BuildError> {
    let login = super::login(id, settings)?;
    let auth_url = settings.auth_url.clone().unwrap_or_else(|| settings.base_url.clone());
    let auth = ProviderSettings { base_url: auth_url, in_flight_max: 1, ..settings.clone() };
    let auth = super::transport(id, &auth, clock)?;
    Ok(TokenSource::new(id.clone(), auth, login, settings.base_url.as_str(), Arc::clone(clock)))
}

/// Whether an answer says no more than that the token has ended.
fn is_about_the_token(response: &HttpResponse) -> bool {
    let expired =
        || answers::read::<ApiError>(&response.body).is_some_and(|error| error.error_code == table::TOKEN_EXPIRED);
    response.status == StatusCode::UNAUTHORIZED && expired()
}

#[async_trait]
impl RechargeProvider for Reloadly {
    fn id(&self) -> &ProviderId {
        &self.id
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Without a token no call could be made.
    async fn connect(&self, wanted: usize) -> usize {
        match self.tokens.get().await {
            Some(_) => self.transport.connect(wanted).await,
            None => 0,
        }
    }

    async fn submit(&self, request: &SubmitRequest) -> SubmitOutcome {
        let product = self.products.find(request.msisdn, request.carrier.as_deref(), request.amount);
        let Some(product) = product else { return answers::not_sold() };
        let Some(body) = Self::body(request, &product.code) else {
            return SubmitOutcome::NotSent(NotSentCause::Unbuildable);
        };
        match self.call(Method::POST, "/topups-async".to_owned(), body, request.send_by).await {
            HttpResult::Response(response) => self.submitted(&response),
            HttpResult::NotSent(cause) => SubmitOutcome::NotSent(cause),
            HttpResult::Unknown(cause) => SubmitOutcome::Unknown(cause),
        }
    }

    async fn query(&self, key: &QueryKey) -> QueryOutcome {
        let path = match &key.provider_ref {
            Some(id) => format!("/topups/{}/status", escaped(id)),
            None => format!("/topups/reports/transactions?customIdentifier={}", escaped(key.client_ref.as_str())),
        };
        let response = match self.call(Method::GET, path, Bytes::new(), key.send_by).await {
            HttpResult::Response(response) => response,
            HttpResult::NotSent(cause) => return answers::query_unanswered(Some(cause)),
            HttpResult::Unknown(_) => return answers::query_unanswered(None),
        };
        let answer = || answers::query_by_status(&response, self.clock.now());
        if !response.status.is_success() {
            return answer();
        }
        if key.provider_ref.is_none() {
            let report = answers::read::<Report>(&response.body);
            return report.and_then(|report| self.reported(&report, key.client_ref.as_str())).unwrap_or_else(answer);
        }
        let Some(told) = answers::read::<StatusAnswer>(&response.body) else { return answer() };
        match told.transaction {
            Some(transaction) if !transaction.is(key) => answer(),
            transaction => self.told(&told.status, transaction.map(|one| one.receipt()).unwrap_or_default()),
        }
    }

    fn used_up_until(&self) -> Option<Timestamp> {
        self.transport.used_up_until()
    }

    fn read_callback(&self, callback: &RawCallback, now: Timestamp) -> Result<CallbackNews, CallbackRefusal> {
        let is_proven = callback::verify(&self.callback_keys, callback, now)?;
        let Some(told) = callback::read(&callback.body) else { return Ok(answers::unreadable_callback(is_proven)) };
        let said = match told.status() {
            Some(status) => self.told(status, Receipt::default()),
            None => QueryOutcome::Unavailable { retry_after: None },
        };
        Ok(CallbackNews { client_ref: told.client_ref(), provider_ref: told.provider_ref(), said, is_proven })
    }
}
