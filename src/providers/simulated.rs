//! The adapter for our provider simulator (`kind = "simulator"`).
//!
//! Body before status: providers send final refusals as 500 and errors as 200, so a body that
//! the protocol documents decides, and the status only where there is none. A success is the
//! exception: it counts only with a 2xx.

mod list;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Method, StatusCode};
use serde::{Deserialize, Serialize};

pub(super) use self::list::SimulatedList;
use super::answers::Undocumented;
use super::http::{HttpRequest, HttpResponse, HttpResult, HttpTransport, WAIT_MAX, escaped, retry_after};
use super::{BuildError, ProviderSettings, Secret, answers, signature};
use crate::domain::{
    Capabilities, ClientRef, Currency, Failure, FailureClass, Money, NotSentCause, ProviderId, QueryOutcome, Receipt,
    RetryAdvice, SubmitOutcome, Timestamp, UnknownCause,
};
use crate::ports::{CallbackNews, CallbackRefusal, Clock, QueryKey, RawCallback, RechargeProvider, SubmitRequest};

/// A retryable refusal that does not say when: not before this long.
const RETRY_AFTER_REFUSAL: Duration = Duration::from_secs(1);

/// Speaks the simulator's JSON protocol.
#[derive(Debug)]
pub struct SimulatedProvider {
    id: ProviderId,
    capabilities: Capabilities,
    transport: HttpTransport,
    clock: Arc<dyn Clock>,
    submit_headers: HeaderMap,
    query_headers: HeaderMap,
    callback_keys: Vec<Secret>,
    undocumented: Undocumented,
}

impl SimulatedProvider {
    /// Opens nothing yet.
    pub fn new(id: ProviderId, settings: &ProviderSettings, clock: Arc<dyn Clock>) -> Result<Self, BuildError> {
        let transport = super::transport(&id, settings, &clock)?;
        let query_headers = login(&id, settings)?;
        let mut submit_headers = query_headers.clone();
        submit_headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let capabilities = settings.capabilities();
        let undocumented = Undocumented::new(id.clone());
        let callback_keys = settings.callback_keys.clone();
        Ok(Self { id, capabilities, transport, clock, submit_headers, query_headers, callback_keys, undocumented })
    }

    /// What an answer says, and how long to wait.
    fn said(&self, response: &HttpResponse) -> (Said, Option<Duration>) {
        let (said, wait) = said(response);
        if let Said::Unmapped(code) = &said {
            self.undocumented.note(code);
        }
        (said, wait)
    }
}

/// The key, where there is one.
fn login(id: &ProviderId, settings: &ProviderSettings) -> Result<HeaderMap, BuildError> {
    let mut headers = HeaderMap::new();
    if let Some(key) = &settings.key {
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", key.expose()))
            .map_err(|_| BuildError::Key { provider: id.clone() })?;
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
    }
    Ok(headers)
}

#[async_trait]
impl RechargeProvider for SimulatedProvider {
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
        let body = SubmitBody {
            client_ref: request.client_ref.as_str(),
            phone: &request.msisdn.expose(),
            amount_minor: request.amount.minor,
            currency: request.amount.currency.as_str(),
            callback_url: request.callback_url.as_deref(),
        };
        let Ok(body) = serde_json::to_vec(&body) else {
            return SubmitOutcome::NotSent(NotSentCause::Unbuildable);
        };
        let call = HttpRequest {
            method: Method::POST,
            path: "/recharges".to_owned(),
            headers: self.submit_headers.clone(),
            body: Bytes::from(body),
        };
        match self.transport.call(&call, request.send_by).await {
            HttpResult::Response(response) => submit_outcome(self.said(&response), &response, self.clock.now()),
            HttpResult::NotSent(cause) => SubmitOutcome::NotSent(cause),
            HttpResult::Unknown(cause) => SubmitOutcome::Unknown(cause),
        }
    }

    async fn query(&self, key: &QueryKey) -> QueryOutcome {
        let call = HttpRequest {
            method: Method::GET,
            path: format!("/recharges/{}", escaped(key.client_ref.as_str())),
            headers: self.query_headers.clone(),
            body: Bytes::new(),
        };
        match self.transport.call(&call, key.send_by).await {
            HttpResult::Response(response) => query_outcome(self.said(&response), &response, self.clock.now()),
            HttpResult::NotSent(cause) => answers::query_unanswered(Some(cause)),
            HttpResult::Unknown(_) => answers::query_unanswered(None),
        }
    }

    fn used_up_until(&self) -> Option<Timestamp> {
        self.transport.used_up_until()
    }

    fn read_callback(&self, callback: &RawCallback, now: Timestamp) -> Result<CallbackNews, CallbackRefusal> {
        let is_proven = signature::standard(&self.callback_keys, callback, now)?;
        let Some(Told { client_ref, answer }) = answers::read::<Told>(&callback.body) else {
            return Ok(answers::unreadable_callback(is_proven));
        };
        let provider_ref = answer.provider_ref.clone();
        let (said, _) = word(answer);
        if let Said::Unmapped(code) = &said {
            self.undocumented.note(code);
        }
        let said = match said {
            Said::Succeeded(receipt) => QueryOutcome::Succeeded(receipt),
            Said::Accepted(_) => QueryOutcome::InProgress,
            Said::Reversed(receipt) => QueryOutcome::Reversed(receipt),
            Said::Rejected(failure) => QueryOutcome::Failed(failure),
            Said::ProviderUnknown => QueryOutcome::ProviderUnknown,
            Said::Duplicate
            | Said::Throttled
            | Said::Banned
            | Said::NotFound
            | Said::SystemError
            | Said::NotNow
            | Said::Unmapped(_)
            | Said::Broken => QueryOutcome::Unavailable { retry_after: None },
        };
        let client_ref = client_ref.map(|text| ClientRef::from_stored(&text));
        Ok(CallbackNews { client_ref, provider_ref, said, is_proven })
    }
}

/// A callback: the answer to a query, and whose it is.
#[derive(Deserialize)]
struct Told {
    client_ref: Option<String>,
    #[serde(flatten)]
    answer: Answer,
}

#[derive(Serialize)]
struct SubmitBody<'a> {
    client_ref: &'a str,
    phone: &'a str,
    amount_minor: i64,
    currency: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    callback_url: Option<&'a str>,
}

/// Every field of every documented answer. Fields that we do not know are no error: providers
/// add them without notice.
#[derive(Deserialize, Default)]
struct Answer {
    status: Option<String>,
    code: Option<String>,
    #[serde(default, deserialize_with = "answers::plain_reference")]
    provider_ref: Option<String>,
    retryable: Option<bool>,
    retry_after_ms: Option<u64>,
    amount_minor: Option<i64>,
    currency: Option<Currency>,
    delivered_at: Option<Timestamp>,
}

impl Answer {
    fn receipt(self) -> Receipt {
        let delivered = match (self.amount_minor, self.currency) {
            (Some(minor), Some(currency)) => Some(Money { minor, currency }),
            (Some(_), None) | (None, _) => None,
        };
        Receipt { provider_ref: self.provider_ref, delivered, delivered_at: self.delivered_at }
    }

    /// The refusal, if its code is documented.
    fn failure(&self) -> Option<Failure> {
        let code = self.code.as_deref()?;
        let class = match code {
            "invalid_recipient" => FailureClass::InvalidRecipient,
            "recipient_barred" => FailureClass::RecipientBarred,
            "amount_not_allowed" => FailureClass::AmountNotAllowed,
            "limit_reached" => FailureClass::LimitReached,
            "cooldown_active" => FailureClass::CooldownActive,
            "operator_unavailable" => FailureClass::OperatorUnavailable,
            "insufficient_float" => FailureClass::InsufficientFloat,
            "unauthorized" => FailureClass::AuthOrConfig,
            "declined" => FailureClass::ProviderDeclared,
            "cancelled" => FailureClass::Cancelled,
            _ => return None,
        };
        let advice = match (class, self.retryable) {
            (FailureClass::InsufficientFloat | FailureClass::AuthOrConfig, _) => RetryAdvice::AfterOperatorAction,
            (_, Some(true)) => RetryAdvice::NewAttempt { after: self.wait().unwrap_or(RETRY_AFTER_REFUSAL) },
            (_, Some(false) | None) => RetryAdvice::Never,
        };
        Some(Failure { class, code: code.to_owned(), advice })
    }

    fn unmapped(&self) -> Said {
        let words = [self.status.as_deref(), self.code.as_deref()];
        Said::Unmapped(words.into_iter().flatten().collect::<Vec<_>>().join(" "))
    }

    fn wait(&self) -> Option<Duration> {
        self.retry_after_ms.map(|ms| Duration::from_millis(ms).min(WAIT_MAX))
    }
}

/// What an answer says, by the closed set of the protocol. The same words serve both calls.
enum Said {
    Succeeded(Receipt),
    Accepted(Option<String>),
    Rejected(Failure),
    Reversed(Receipt),
    ProviderUnknown,
    Duplicate,
    /// Not now, for the sake of pace.
    Throttled,
    /// Nothing of ours for a while.
    Banned,
    NotFound,
    /// Documented as: ask, do not take it for a failure.
    SystemError,
    /// The question came too early, or too often.
    NotNow,
    /// The words that no document has.
    Unmapped(String),
    /// No JSON of the protocol.
    Broken,
}

fn said(response: &HttpResponse) -> (Said, Option<Duration>) {
    answers::read::<Answer>(&response.body).map_or((Said::Broken, None), word)
}

fn word(answer: Answer) -> (Said, Option<Duration>) {
    let wait = answer.wait();
    let said = match (answer.status.as_deref(), answer.code.as_deref()) {
        (Some("succeeded"), _) => Said::Succeeded(answer.receipt()),
        (Some("accepted"), _) => Said::Accepted(answer.provider_ref),
        (Some("reversed"), _) => Said::Reversed(answer.receipt()),
        (Some("unknown"), _) => Said::ProviderUnknown,
        (Some("rejected"), _) => answer.failure().map_or_else(|| answer.unmapped(), Said::Rejected),
        (None, Some("duplicate")) => Said::Duplicate,
        // A ban is a pace that we did not keep: nothing is executed, no order is at fault, and the
        // lane has to rest for as long as it lasts. A new attempt each time would only prolong it.
        (None, Some("banned")) => Said::Banned,
        (None, Some("throttled")) => Said::Throttled,
        (None, Some("not_found")) => Said::NotFound,
        (None, Some("system_error")) => Said::SystemError,
        (None, Some("too_early" | "too_often")) => Said::NotNow,
        (Some(_) | None, _) => answer.unmapped(),
    };
    (said, wait)
}

fn submit_outcome((said, wait): (Said, Option<Duration>), response: &HttpResponse, now: Timestamp) -> SubmitOutcome {
    let status = response.status;
    match said {
        Said::Succeeded(receipt) if status.is_success() => SubmitOutcome::Succeeded(receipt),
        Said::Accepted(provider_ref) if status.is_success() => SubmitOutcome::Accepted { provider_ref },
        Said::Rejected(failure) => SubmitOutcome::Rejected(failure),
        Said::Duplicate => SubmitOutcome::Duplicate,
        Said::Throttled | Said::Banned => {
            SubmitOutcome::Throttled { retry_after: wait.or_else(|| retry_after(&response.headers, now)) }
        }
        // Whatever the status: the word itself says that nobody knows.
        Said::SystemError => SubmitOutcome::Unknown(UnknownCause::ServerError),
        Said::Broken => answers::by_status(response, now, UnknownCause::BrokenBody),
        Said::Unmapped(_) => answers::by_status(response, now, UnknownCause::UnmappedCode),
        // Body and status contradict each other, or the answer is to another question.
        Said::Succeeded(_)
        | Said::Accepted(_)
        | Said::Reversed(_)
        | Said::ProviderUnknown
        | Said::NotFound
        | Said::NotNow => SubmitOutcome::Unknown(answers::unknown_by_status(status, UnknownCause::UnmappedCode)),
    }
}

/// "Not found" needs the protocol's own word: a 404 of a proxy or a wrong URL proves nothing. So does a ban;
/// a throttle is told by its word or by the status alone. Every other failure speaks of this one reference,
/// whatever wait it names: an error page of the query endpoint is no reason to let anything else rest.
fn query_outcome((said, wait): (Said, Option<Duration>), response: &HttpResponse, now: Timestamp) -> QueryOutcome {
    let status = response.status;
    let retry_after = wait.or_else(|| retry_after(&response.headers, now));
    match said {
        Said::Succeeded(receipt) if status.is_success() => QueryOutcome::Succeeded(receipt),
        Said::Accepted(_) if status.is_success() => QueryOutcome::InProgress,
        Said::Reversed(receipt) if status.is_success() => QueryOutcome::Reversed(receipt),
        Said::ProviderUnknown if status.is_success() => QueryOutcome::ProviderUnknown,
        Said::Rejected(failure) if status.is_success() => QueryOutcome::Failed(failure),
        Said::NotFound if status == StatusCode::NOT_FOUND => QueryOutcome::NotFound,
        Said::Banned => QueryOutcome::Banned { retry_after },
        Said::Throttled => QueryOutcome::Throttled { retry_after },
        Said::Unmapped(_) | Said::Broken if status == StatusCode::TOO_MANY_REQUESTS => {
            QueryOutcome::Throttled { retry_after }
        }
        Said::Succeeded(_)
        | Said::Accepted(_)
        | Said::Rejected(_)
        | Said::Reversed(_)
        | Said::ProviderUnknown
        | Said::Duplicate
        | Said::NotFound
        | Said::SystemError
        | Said::NotNow
        | Said::Unmapped(_)
        | Said::Broken => QueryOutcome::Unavailable { retry_after },
    }
}
