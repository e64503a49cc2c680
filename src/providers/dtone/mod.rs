//! DT One Digital Value Services (`kind = "dtone"`), by its specification 1.14.0 and 1.23.0.
//!
//! A transaction is created, and confirmed with it (`auto_confirm`) or by a second call (`two_step`). Until it is
//! confirmed nothing can be delivered and it can be cancelled, so that a lost reply to the first call is harmless.
//! Its states are matched by their class, as the specification asks; errors are read from the body before the status.
//! Callbacks are not signed: they only say that it is time to ask.

mod list;
mod table;
mod wire;

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use bytes::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Method};
use serde_json::value::RawValue;

pub(super) use self::list::DtoneList;
use self::wire::{CreditParty, Destination, Errors, NewTransaction, Transaction};
use super::answers::{self, Object, Undocumented};
use super::decimal::to_decimal;
use super::http::{HttpRequest, HttpResponse, HttpResult, HttpTransport, escaped, retry_after};
use super::{BuildError, ProviderSettings};
use crate::domain::route::ProductTable;
use crate::domain::{
    Capabilities, ClientRef, Failure, FailureClass, NotSentCause, ProviderId, QueryOutcome, RetryAdvice, SubmitOutcome,
    Timestamp, UnknownCause,
};
use crate::ports::{CallbackNews, CallbackRefusal, Clock, QueryKey, RawCallback, RechargeProvider, SubmitRequest};

/// Speaks DT One's DVS API.
#[derive(Debug)]
pub(super) struct Dtone {
    id: ProviderId,
    capabilities: Capabilities,
    transport: HttpTransport,
    clock: Arc<dyn Clock>,
    headers: HeaderMap,
    products: ProductTable,
    two_step: bool,
    undocumented: Undocumented,
}

/// What an answer says.
enum Said {
    Transaction(Box<Transaction>),
    /// A list of them, from a search.
    Found(Vec<Transaction>),
    /// The codes of its errors; at least one.
    Errors(Vec<u64>),
    Broken,
}

/// Where a transaction stands.
enum Standing {
    /// Not at the operator yet: it can be confirmed, or cancelled.
    Created,
    AtOperator,
    Completed,
    Reversed,
    Ended(Failure),
    Undocumented,
}

impl Dtone {
    /// Opens nothing yet.
    pub(super) fn new(id: ProviderId, settings: &ProviderSettings, clock: Arc<dyn Clock>) -> Result<Self, BuildError> {
        let transport = super::transport(&id, settings, &clock)?;
        let headers = headers(&id, settings)?;
        Ok(Self {
            capabilities: settings.capabilities(),
            transport,
            clock,
            headers,
            products: settings.products.clone(),
            two_step: settings.two_step,
            undocumented: Undocumented::new(id.clone()),
            id,
        })
    }

    async fn call(&self, method: Method, path: String, body: Bytes, send_by: std::time::Duration) -> HttpResult {
        self.transport.call(&HttpRequest { method, path, headers: self.headers.clone(), body }, send_by).await
    }

    /// The body of a submit; `None` where it cannot be written.
    fn new_transaction(&self, request: &SubmitRequest, product: &crate::domain::route::Product) -> Option<Bytes> {
        let destination = if product.is_ranged {
            let amount = RawValue::from_string(to_decimal(request.amount)).ok()?;
            Some(Destination { unit_type: "CURRENCY", unit: request.amount.currency.as_str(), amount })
        } else {
            None
        };
        let body = NewTransaction {
            external_id: request.client_ref.as_str(),
            product_id: product.code.parse().ok()?,
            auto_confirm: !self.two_step,
            credit_party_identifier: CreditParty { mobile_number: request.msisdn.expose() },
            callback_url: request.callback_url.clone(),
            calculation_mode: destination.is_some().then_some("DESTINATION_AMOUNT"),
            destination,
        };
        serde_json::to_vec(&body).ok().map(Bytes::from)
    }

    /// What a transaction that was just created says. `None` where it is another one's, or contradicts its status.
    fn submitted(&self, response: &HttpResponse, transaction: &Transaction, reference: &str) -> SubmitOutcome {
        let provider_ref = Some(transaction.reference());
        let unknown = |cause| SubmitOutcome::Unknown(answers::unknown_by_status(response.status, cause));
        if !response.status.is_success() || transaction.external_id != reference {
            return unknown(UnknownCause::BrokenBody);
        }
        match self.standing(transaction) {
            Standing::Created | Standing::AtOperator => SubmitOutcome::Accepted { provider_ref },
            Standing::Completed => SubmitOutcome::Succeeded(transaction.receipt()),
            Standing::Ended(failure) => SubmitOutcome::Rejected(failure),
            // Nothing that was just created has been taken back already.
            Standing::Reversed | Standing::Undocumented => unknown(UnknownCause::UnmappedCode),
        }
    }

    fn standing(&self, transaction: &Transaction) -> Standing {
        let message = transaction.status.message.as_str();
        match transaction.status.class.message.as_str() {
            "CREATED" => Standing::Created,
            "CONFIRMED" | "SUBMITTED" => Standing::AtOperator,
            "COMPLETED" => Standing::Completed,
            "REVERSED" => Standing::Reversed,
            "REJECTED" | "DECLINED" | "CANCELLED" => {
                let (failure, is_known) = table::ended(message);
                if !is_known {
                    self.undocumented.note(message);
                }
                Standing::Ended(failure)
            }
            class => {
                self.undocumented.note(class);
                Standing::Undocumented
            }
        }
    }

    /// What the errors of a submit mean, where they say it.
    fn refused(&self, codes: &[u64], response: &HttpResponse, now: Timestamp) -> SubmitOutcome {
        // Several at once: the one that may have been executed counts most.
        if codes.contains(&table::DUPLICATE) {
            return SubmitOutcome::Duplicate;
        }
        if codes.iter().any(|code| table::THEIR_ERRORS.contains(code)) {
            return SubmitOutcome::Unknown(UnknownCause::ServerError);
        }
        if codes.contains(&table::TOO_MANY_REQUESTS) {
            return SubmitOutcome::Throttled { retry_after: retry_after(&response.headers, now) };
        }
        if let Some(failure) = codes.iter().find_map(|code| table::refused(*code)) {
            return SubmitOutcome::Rejected(failure);
        }
        self.note(codes);
        answers::by_status(response, now, UnknownCause::UnmappedCode)
    }

    fn note(&self, codes: &[u64]) {
        for code in codes {
            self.undocumented.note(&code.to_string());
        }
    }

    /// Confirms what was created, so that it goes to the operator. Whatever the answer, the transaction is known:
    /// a second confirmation is refused and changes nothing, and one that cannot be made shows when it is asked about.
    async fn confirm(&self, transaction: &Transaction, send_by: std::time::Duration) {
        let path = format!("/async/transactions/{}/confirm", transaction.id);
        let _told_by_the_next_question = self.call(Method::POST, path, Bytes::new(), send_by).await;
    }

    /// Cancels what was created and is not to be delivered any more; true where it is cancelled for good.
    async fn cancel(&self, transaction: &Transaction, send_by: std::time::Duration) -> bool {
        let path = format!("/transactions/{}/cancel", transaction.id);
        let HttpResult::Response(response) = self.call(Method::POST, path, Bytes::new(), send_by).await else {
            return false;
        };
        match said(&response.body) {
            Said::Transaction(after) => {
                response.status.is_success() && after.id == transaction.id && after.status.class.message == "CANCELLED"
            }
            Said::Errors(codes) => codes.contains(&table::ALREADY_CANCELLED),
            Said::Found(_) | Said::Broken => false,
        }
    }

    async fn told(&self, transaction: &Transaction, key: &QueryKey) -> QueryOutcome {
        let standing = self.standing(transaction);
        if matches!(standing, Standing::Created) {
            if key.give_up && self.cancel(transaction, key.send_by).await {
                return cancelled();
            }
            if self.two_step && !key.give_up {
                self.confirm(transaction, key.send_by).await;
            }
        }
        outcome(standing, transaction)
    }

    /// Callbacks are not signed.
    fn called_back(&self, body: &[u8]) -> CallbackNews {
        let Said::Transaction(transaction) = said(body) else { return answers::unreadable_callback(false) };
        CallbackNews {
            client_ref: Some(ClientRef::from_stored(&transaction.external_id)),
            provider_ref: Some(transaction.reference()),
            said: outcome(self.standing(&transaction), &transaction),
            is_proven: false,
        }
    }
}

fn outcome(standing: Standing, transaction: &Transaction) -> QueryOutcome {
    match standing {
        Standing::Created | Standing::AtOperator => QueryOutcome::InProgress,
        Standing::Completed => QueryOutcome::Succeeded(transaction.receipt()),
        Standing::Reversed => QueryOutcome::Reversed(transaction.receipt()),
        Standing::Ended(failure) => QueryOutcome::Failed(failure),
        Standing::Undocumented => QueryOutcome::Unavailable { retry_after: None },
    }
}

/// Those of every call, with the login.
fn headers(id: &ProviderId, settings: &ProviderSettings) -> Result<HeaderMap, BuildError> {
    let (account, key) = super::login(id, settings)?;
    let login = base64::engine::general_purpose::STANDARD.encode(format!("{account}:{}", key.expose()));
    let mut basic =
        HeaderValue::try_from(format!("Basic {login}")).map_err(|_| BuildError::Key { provider: id.clone() })?;
    basic.set_sensitive(true);
    Ok(HeaderMap::from_iter([
        (AUTHORIZATION, basic),
        (ACCEPT, HeaderValue::from_static("application/json")),
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
    ]))
}

#[async_trait]
impl RechargeProvider for Dtone {
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
        let product = self.products.find(request.msisdn, request.carrier.as_deref(), request.amount);
        let Some(product) = product else { return answers::not_sold() };
        let Some(body) = self.new_transaction(request, product) else {
            return SubmitOutcome::NotSent(NotSentCause::Unbuildable);
        };
        let path = "/async/transactions".to_owned();
        let response = match self.call(Method::POST, path, body, request.send_by).await {
            HttpResult::Response(response) => response,
            HttpResult::NotSent(cause) => return SubmitOutcome::NotSent(cause),
            HttpResult::Unknown(cause) => return SubmitOutcome::Unknown(cause),
        };
        let now = self.clock.now();
        match said(&response.body) {
            Said::Transaction(transaction) => {
                let outcome = self.submitted(&response, &transaction, request.client_ref.as_str());
                let is_created = transaction.status.class.message == "CREATED";
                if self.two_step && is_created && matches!(outcome, SubmitOutcome::Accepted { .. }) {
                    self.confirm(&transaction, request.send_by).await;
                }
                outcome
            }
            Said::Errors(codes) => self.refused(&codes, &response, now),
            Said::Found(_) | Said::Broken => answers::by_status(&response, now, UnknownCause::BrokenBody),
        }
    }

    async fn query(&self, key: &QueryKey) -> QueryOutcome {
        let path = match &key.provider_ref {
            Some(id) => format!("/transactions/{}", escaped(id)),
            None => format!("/transactions?external_id={}", escaped(key.client_ref.as_str())),
        };
        let response = match self.call(Method::GET, path, Bytes::new(), key.send_by).await {
            HttpResult::Response(response) => response,
            HttpResult::NotSent(cause) => return answers::query_unanswered(Some(cause)),
            HttpResult::Unknown(_) => return answers::query_unanswered(None),
        };
        let now = self.clock.now();
        let is_ours = |transaction: &Transaction| transaction.external_id == key.client_ref.as_str();
        match said(&response.body) {
            Said::Transaction(transaction) if response.status.is_success() && is_ours(&transaction) => {
                self.told(&transaction, key).await
            }
            Said::Found(found) if response.status.is_success() => match latest(found, is_ours) {
                Found::Nothing => QueryOutcome::NotFound,
                Found::Ours(transaction) => self.told(&transaction, key).await,
                Found::Others => QueryOutcome::Unavailable { retry_after: None },
            },
            Said::Errors(codes) if codes.contains(&table::TOO_MANY_REQUESTS) => {
                QueryOutcome::Throttled { retry_after: retry_after(&response.headers, now) }
            }
            Said::Errors(codes) if codes == [table::NOT_FOUND] => QueryOutcome::NotFound,
            Said::Errors(_) | Said::Transaction(_) | Said::Found(_) | Said::Broken => {
                answers::query_by_status(&response, now)
            }
        }
    }

    fn used_up_until(&self) -> Option<Timestamp> {
        self.transport.used_up_until()
    }

    fn read_callback(&self, callback: &RawCallback, _now: Timestamp) -> Result<CallbackNews, CallbackRefusal> {
        Ok(self.called_back(&callback.body))
    }
}

/// What a search has found.
enum Found {
    Nothing,
    Ours(Box<Transaction>),
    /// Something, and not what was asked for: the search does not work as documented.
    Others,
}

/// The transaction of a reference, of which there is one. Were there several, the delivered one would count.
fn latest(found: Vec<Transaction>, is_ours: impl Fn(&Transaction) -> bool) -> Found {
    let is_empty = found.is_empty();
    let mut ours: Vec<Transaction> = found.into_iter().filter(|one| is_ours(one)).collect();
    let delivered = ours.iter().position(|one| one.status.class.message == "COMPLETED").unwrap_or(0);
    match (ours.is_empty(), is_empty) {
        (false, _) => Found::Ours(Box::new(ours.swap_remove(delivered))),
        (true, true) => Found::Nothing,
        (true, false) => Found::Others,
    }
}

fn cancelled() -> QueryOutcome {
    QueryOutcome::Failed(Failure {
        class: FailureClass::Cancelled,
        code: "CANCELLED".to_owned(),
        advice: RetryAdvice::Never,
    })
}

fn said(body: &[u8]) -> Said {
    if let Some(transaction) = answers::read(body) {
        return Said::Transaction(Box::new(transaction));
    }
    if let Ok(found) = serde_json::from_slice::<Vec<Object<Transaction>>>(body) {
        return Said::Found(found.into_iter().map(|Object(transaction)| transaction).collect());
    }
    match answers::read(body) {
        Some(Errors { errors }) if !errors.is_empty() => {
            Said::Errors(errors.into_iter().map(|error| error.code).collect())
        }
        Some(_) | None => Said::Broken,
    }
}
