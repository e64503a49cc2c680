//! mf178, the purchasing API for merchants (`kind = "mf178"`).
//!
//! Every request is a signed POST. An order is filed under our reference *and the second of its submit*: both are
//! needed to ask about one whose reply was lost, and not before 60 s after it, so that a lost reply cannot be resolved
//! inside a promise of three minutes as surely as elsewhere. State 41 means that they do not know themselves.

pub(in crate::providers) mod sign;
mod table;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Method};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use self::table::State;
use super::answers::{self, Object, Undocumented};
use super::http::{HttpRequest, HttpResponse, HttpResult, HttpTransport, retry_after};
use super::{BuildError, ProviderSettings, Secret};
use crate::domain::route::ProductTable;
use crate::domain::{
    Capabilities, ClientRef, Failure, FailureClass, Msisdn, ProviderId, QueryOutcome, Receipt, RetryAdvice,
    SubmitOutcome, Timestamp, UnknownCause,
};
use crate::ports::{
    Acknowledgement, CallbackNews, CallbackRefusal, Clock, QueryKey, RawCallback, RechargeProvider, SubmitRequest,
};

/// They sell for mainland China alone, and write its numbers without the calling code.
const CALLING_CODE: &str = "+86";

/// Speaks mf178's API.
#[derive(Debug)]
pub(super) struct Mf178 {
    id: ProviderId,
    capabilities: Capabilities,
    transport: HttpTransport,
    clock: Arc<dyn Clock>,
    app_key: String,
    secret: Secret,
    products: ProductTable,
    undocumented: Undocumented,
}

/// What every answer has.
#[derive(Deserialize)]
struct Answer {
    code: i64,
    data: Option<Object<Order>>,
}

/// An order, as far as we look at it.
#[derive(Deserialize)]
#[expect(clippy::struct_field_names, reason = "the names of the JSON")]
struct Order {
    #[serde(default, deserialize_with = "answers::plain_reference")]
    order_id: Option<String>,
    third_id: Option<String>,
    state: i64,
}

impl Mf178 {
    /// Opens nothing yet.
    pub(super) fn new(id: ProviderId, settings: &ProviderSettings, clock: Arc<dyn Clock>) -> Result<Self, BuildError> {
        let transport = super::transport(&id, settings, &clock)?;
        let (app_key, secret) = super::login(&id, settings)?;
        Ok(Self {
            capabilities: settings.capabilities(),
            transport,
            clock,
            app_key: app_key.to_owned(),
            secret: secret.clone(),
            products: settings.products.clone(),
            undocumented: Undocumented::new(id.clone()),
            id,
        })
    }

    /// The parameters of a request, signed, as JSON.
    fn signed(&self, mut parameters: Map<String, Value>, at: Timestamp) -> Bytes {
        parameters.insert("app_key".to_owned(), json!(self.app_key));
        parameters.insert("timestamp".to_owned(), json!(at.timestamp()));
        let texts: Vec<(&str, String)> = parameters.iter().map(|(name, value)| (name.as_str(), text(value))).collect();
        let signature = sign::sign(texts.iter().map(|(name, value)| (*name, value.as_str())), &self.secret);
        parameters.insert("sign".to_owned(), Value::String(signature));
        Bytes::from(Value::Object(parameters).to_string())
    }

    async fn call(&self, path: &str, body: Bytes, send_by: Duration) -> HttpResult {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        let request = HttpRequest { method: Method::POST, path: path.to_owned(), headers, body };
        self.transport.call(&request, send_by).await
    }

    fn submitted(&self, response: &HttpResponse, reference: &str, now: Timestamp) -> SubmitOutcome {
        let unknown = |cause| SubmitOutcome::Unknown(answers::unknown_by_status(response.status, cause));
        let Some(answer) = answers::read::<Answer>(&response.body) else {
            return answers::by_status(response, now, UnknownCause::BrokenBody);
        };
        match (answer.code, answer.data) {
            (table::OK, Some(Object(order))) if response.status.is_success() && order.is(reference) => {
                match self.state(&order) {
                    // They have it, and look into it by hand.
                    State::InProgress | State::UnknownToThem => {
                        SubmitOutcome::Accepted { provider_ref: order.order_id }
                    }
                    State::Succeeded => SubmitOutcome::Succeeded(order.receipt()),
                    State::Failed(failure) => SubmitOutcome::Rejected(failure),
                    State::Undocumented => unknown(UnknownCause::UnmappedCode),
                }
            }
            (table::OK, _) => unknown(UnknownCause::BrokenBody),
            (table::DUPLICATE, _) => SubmitOutcome::Duplicate,
            (table::FAULT, _) => SubmitOutcome::Unknown(UnknownCause::ServerError),
            (table::TOO_FREQUENT, _) => SubmitOutcome::Throttled { retry_after: retry_after(&response.headers, now) },
            (code, _) => table::refused(code).map_or_else(
                || {
                    self.undocumented.note(&code.to_string());
                    answers::by_status(response, now, UnknownCause::UnmappedCode)
                },
                SubmitOutcome::Rejected,
            ),
        }
    }

    fn told(&self, response: &HttpResponse, key: &QueryKey) -> QueryOutcome {
        let now = self.clock.now();
        let nothing = || answers::query_by_status(response, now);
        let Some(answer) = answers::read::<Answer>(&response.body) else { return nothing() };
        match (answer.code, answer.data) {
            (table::OK, Some(Object(order))) if response.status.is_success() && order.is(key.client_ref.as_str()) => {
                match self.state(&order) {
                    State::InProgress => QueryOutcome::InProgress,
                    State::Succeeded => QueryOutcome::Succeeded(order.receipt()),
                    State::Failed(failure) => QueryOutcome::Failed(failure),
                    State::UnknownToThem => QueryOutcome::ProviderUnknown,
                    State::Undocumented => nothing(),
                }
            }
            (table::NOT_FOUND, _) => QueryOutcome::NotFound,
            (table::TOO_FREQUENT, _) => QueryOutcome::Throttled { retry_after: retry_after(&response.headers, now) },
            // Ours to mend, or theirs: it says nothing about the order.
            (code, _) => {
                if ![table::OK, table::DUPLICATE, table::FAULT].contains(&code) && table::refused(code).is_none() {
                    self.undocumented.note(&code.to_string());
                }
                nothing()
            }
        }
    }

    /// A form. Which fields a callback about a phone has is not published, so that its signature cannot be checked: it
    /// only says that it is time to ask.
    fn called_back(&self, body: &[u8]) -> CallbackNews {
        let field = |wanted: &str| {
            let mut fields = url::form_urlencoded::parse(body);
            fields.find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned())
        };
        let state = field("state").and_then(|state| state.parse().ok());
        let order = Order {
            order_id: field("order_id").and_then(answers::plain),
            third_id: field("third_id"),
            state: state.unwrap_or(0),
        };
        let client_ref = order.third_id.as_deref().map(ClientRef::from_stored);
        let provider_ref = order.order_id.clone();
        let said = match state.map(|_| self.state(&order)) {
            Some(State::InProgress) => QueryOutcome::InProgress,
            Some(State::Succeeded) => QueryOutcome::Succeeded(order.receipt()),
            Some(State::Failed(failure)) => QueryOutcome::Failed(failure),
            Some(State::UnknownToThem) => QueryOutcome::ProviderUnknown,
            Some(State::Undocumented) | None => QueryOutcome::Unavailable { retry_after: None },
        };
        CallbackNews { client_ref, provider_ref, said, is_proven: false }
    }

    fn state(&self, order: &Order) -> State {
        let state = table::state(order.state);
        if state == State::Undocumented {
            self.undocumented.note(&format!("state_{}", order.state));
        }
        state
    }
}

impl Order {
    /// Whether it is the order of a reference. One that does not say is taken for the one that was asked about.
    fn is(&self, reference: &str) -> bool {
        self.third_id.as_deref().is_none_or(|third_id| third_id == reference)
    }

    /// The amount that reached the phone is not told: what they call `cost` is our price.
    fn receipt(self) -> Receipt {
        Receipt { provider_ref: self.order_id, delivered: None, delivered_at: None }
    }
}

/// A number as their API writes it; `None` for those of other countries.
fn target(msisdn: Msisdn) -> Option<String> {
    msisdn.expose().strip_prefix(CALLING_CODE).map(str::to_owned)
}

/// A value as it is signed.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[async_trait]
impl RechargeProvider for Mf178 {
    fn id(&self) -> &ProviderId {
        &self.id
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn connect(&self, wanted: usize) -> usize {
        self.transport.connect(wanted).await
    }

    async fn submit(&self, request: &SubmitRequest) -> SubmitOutcome {
        let Some(target) = target(request.msisdn) else {
            let (class, code) = (FailureClass::InvalidRecipient, "not_of_mainland_china".to_owned());
            return SubmitOutcome::Rejected(Failure { class, code, advice: RetryAdvice::Never });
        };
        let product = self.products.find(request.msisdn, request.carrier.as_deref(), request.amount);
        let Some(product) = product else { return answers::not_sold() };
        // A number where theirs is one; it is signed alike.
        let miniunit = product.code.parse::<u64>().map_or_else(|_| json!(product.code), |number| json!(number));
        let mut parameters = Map::from_iter([
            ("miniunit_id".to_owned(), miniunit),
            ("third_id".to_owned(), json!(request.client_ref.as_str())),
            ("datas".to_owned(), json!({ "target": target })),
        ]);
        if let Some(url) = &request.callback_url {
            parameters.insert("call_back_url".to_owned(), json!(url));
        }
        // The moment of the claim: it is at most a send window old, and what the order is filed under.
        let body = self.signed(parameters, request.sent_at);
        match self.call("/api/merchant/upload_order", body, request.send_by).await {
            HttpResult::Response(response) => self.submitted(&response, request.client_ref.as_str(), self.clock.now()),
            HttpResult::NotSent(cause) => SubmitOutcome::NotSent(cause),
            HttpResult::Unknown(cause) => SubmitOutcome::Unknown(cause),
        }
    }

    async fn query(&self, key: &QueryKey) -> QueryOutcome {
        let parameters = match &key.provider_ref {
            Some(order_id) => Map::from_iter([("order_id".to_owned(), json!(order_id))]),
            None => Map::from_iter([
                ("third_id".to_owned(), json!(key.client_ref.as_str())),
                ("time".to_owned(), json!(key.sent_at.timestamp())),
            ]),
        };
        let body = self.signed(parameters, self.clock.now());
        match self.call("/api/merchant/order_info", body, key.send_by).await {
            HttpResult::Response(response) => self.told(&response, key),
            HttpResult::NotSent(cause) => answers::query_unanswered(Some(cause)),
            HttpResult::Unknown(_) => answers::query_unanswered(None),
        }
    }

    fn used_up_until(&self) -> Option<Timestamp> {
        self.transport.used_up_until()
    }

    fn read_callback(&self, callback: &RawCallback, _now: Timestamp) -> Result<CallbackNews, CallbackRefusal> {
        Ok(self.called_back(&callback.body))
    }

    fn acknowledgement(&self) -> Acknowledgement {
        Acknowledgement { content_type: "text/plain; charset=utf-8", body: "SUCCESS" }
    }
}
