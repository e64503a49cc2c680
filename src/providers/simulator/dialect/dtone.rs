//! DT One DVS: asynchronous transactions, in one step or in two, asked about by id or by `external_id`.
//!
//! A product is its amount in minor units of the simulator's currency; of one with a `destination`, that counts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use axum::routing::{get, post};
use base64::Engine as _;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::super::engine::{Engine, Life, Order};
use super::super::fate::Refusal;
use super::super::reply::{Reply, Word};
use super::super::server::respond;
use super::{Asked, Wire, authorization, dtone_list, questioned, small_number, submitted};
use crate::domain::{ClientRef, Currency, Money, Msisdn, Timestamp};
use crate::providers::decimal::{from_decimal, to_decimal};

/// Created and not confirmed, or cancelled since.
#[derive(Debug, Default)]
pub(in super::super) struct Created(Mutex<HashMap<String, Step>>);

#[derive(Debug, Clone)]
enum Step {
    Created(Order),
    Cancelled,
}

#[derive(Deserialize)]
struct NewTransaction {
    external_id: String,
    product_id: i64,
    #[serde(default)]
    auto_confirm: bool,
    credit_party_identifier: CreditParty,
    destination: Option<Destination>,
    callback_url: Option<String>,
}

#[derive(Deserialize)]
struct CreditParty {
    mobile_number: String,
}

#[derive(Deserialize)]
struct Destination {
    unit: String,
    amount: Box<RawValue>,
}

#[derive(Deserialize)]
struct Search {
    external_id: String,
}

pub(super) fn router() -> Router<Arc<Engine>> {
    Router::new()
        .route("/async/transactions", post(submit))
        .route("/async/transactions/{id}/confirm", post(confirm))
        .route("/transactions/{id}/cancel", post(cancel))
        .route("/transactions/{id}", get(by_id))
        .route("/transactions", get(search))
}

async fn submit(State(engine): State<Arc<Engine>>, headers: HeaderMap, body: Bytes) -> Response {
    let is_known = is_known(&engine, &headers);
    let Ok(new) = serde_json::from_slice::<NewTransaction>(&body) else {
        return submitted(&engine, is_known, Err(Reply::Say(Word::Malformed))).await;
    };
    let in_one_step = new.auto_confirm;
    let asked = asked(new, engine.currency);
    match asked {
        Ok(asked) if !in_one_step && is_known => {
            let Some(order) = asked.order() else { return engine_malformed(&engine).await };
            create(&engine, order).await
        }
        asked => submitted(&engine, is_known, asked).await,
    }
}

fn asked(new: NewTransaction, currency: Currency) -> Result<Asked, Reply> {
    let refused = |code| Err(Reply::Say(Word::Refused(Refusal::for_good(code, None))));
    let Some(phone) = Msisdn::from_e164(&new.credit_party_identifier.mobile_number) else {
        return refused("invalid_recipient");
    };
    let amount = match new.destination {
        None => Some(Money { minor: new.product_id, currency }),
        Some(wanted) => super::currency(&wanted.unit).and_then(|unit| from_decimal(wanted.amount.get(), unit)),
    };
    let Some(amount) = amount.filter(|amount| amount.minor > 0) else { return refused("amount_not_allowed") };
    Ok(Asked { client_ref: new.external_id, order: Some((phone, amount)), callback_url: new.callback_url })
}

async fn engine_malformed(engine: &Arc<Engine>) -> Response {
    respond(engine, engine.is_malformed(), None, |_, wire| wire).await
}

/// The first of two steps: nothing is executed, and nothing strikes it.
async fn create(engine: &Arc<Engine>, order: Order) -> Response {
    let name = order.client_ref.as_str().to_owned();
    let admission = engine.admit_submit(&name, true).await;
    let reply = match admission.reply {
        Some(reply) => reply,
        None if engine.created.is(&name) || engine.knows(&name) => Reply::Say(Word::Duplicate),
        None => {
            engine.note_number(&order.client_ref);
            let client_ref = order.client_ref.clone();
            engine.created.put(&name, Step::Created(order));
            Reply::sent(&client_ref, Life::InProgress)
        }
    };
    respond(engine, reply, admission.pacing, in_class("CREATED")).await
}

async fn confirm(State(engine): State<Arc<Engine>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let Some(client_ref) = by_number(&engine, &headers, &id) else {
        return respond(&engine, unknown(&engine, &headers), None, |_, wire| wire).await;
    };
    match engine.created.take(&client_ref) {
        Some(Step::Created(order)) => {
            let reply = engine.submit(order).await;
            respond(&engine, reply, None, accepted_now).await
        }
        Some(Step::Cancelled) => {
            engine.created.put(&client_ref, Step::Cancelled);
            respond(&engine, error(400, 1_007_004), None, |_, wire| wire).await
        }
        None => respond(&engine, error(400, 1_007_002), None, |_, wire| wire).await,
    }
}

async fn cancel(State(engine): State<Arc<Engine>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let Some(client_ref) = by_number(&engine, &headers, &id) else {
        return respond(&engine, unknown(&engine, &headers), None, |_, wire| wire).await;
    };
    let reply = match engine.created.take(&client_ref) {
        Some(Step::Created(_)) => {
            engine.created.put(&client_ref, Step::Cancelled);
            Reply::asked(&client_ref, Life::Refused(Refusal::for_good("cancelled", None)))
        }
        Some(Step::Cancelled) => {
            engine.created.put(&client_ref, Step::Cancelled);
            error(400, 1_007_005)
        }
        None => error(400, 1_007_007),
    };
    respond(&engine, reply, None, accepted_now).await
}

async fn by_id(State(engine): State<Arc<Engine>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    match by_number(&engine, &headers, &id) {
        Some(client_ref) => told(&engine, &headers, &client_ref, false).await,
        None => respond(&engine, unknown(&engine, &headers), None, |_, wire| wire).await,
    }
}

async fn search(State(engine): State<Arc<Engine>>, headers: HeaderMap, uri: Uri) -> Response {
    if dtone_list::is_list(&uri) {
        return dtone_list::list(&engine, is_known(&engine, &headers), &uri).await;
    }
    let Ok(Query(search)) = Query::<Search>::try_from_uri(&uri) else { return engine_malformed(&engine).await };
    told(&engine, &headers, &search.external_id, true).await
}

async fn told(engine: &Arc<Engine>, headers: &HeaderMap, client_ref: &str, in_list: bool) -> Response {
    let is_known = is_known(engine, headers);
    let Some(step) = engine.created.get(client_ref) else {
        let form: fn(&Word, Wire) -> Wire = if in_list { listed } else { |_, wire| wire };
        return questioned(engine, is_known, client_ref, form).await;
    };
    let admission = engine.admit_query(client_ref, is_known).await;
    let (life, class) = match step {
        Step::Created(_) => (Life::InProgress, "CREATED"),
        Step::Cancelled => (Life::Refused(Refusal::for_good("cancelled", None)), "CANCELLED"),
    };
    let reply = admission.reply.unwrap_or_else(|| Reply::asked(client_ref, life));
    respond(engine, reply, admission.pacing, move |word, wire| {
        let wire = in_class(class)(word, wire);
        if in_list { listed(word, wire) } else { wire }
    })
    .await
}

fn is_known(engine: &Engine, headers: &HeaderMap) -> bool {
    let shown = authorization(headers, "Basic").and_then(|basic| {
        let decoded = base64::engine::general_purpose::STANDARD.decode(basic).ok()?;
        let text = String::from_utf8(decoded).ok()?;
        text.split_once(':').map(|(account, key)| (account.to_owned(), key.to_owned()))
    });
    let (account, key) = shown.unwrap_or_default();
    engine.login.is(&account, &key)
}

/// The reference of a number of ours, for whoever is known here.
fn by_number(engine: &Engine, headers: &HeaderMap, id: &str) -> Option<String> {
    id.parse().ok().filter(|_| is_known(engine, headers)).and_then(|number| engine.by_number(number))
}

fn unknown(engine: &Engine, headers: &HeaderMap) -> Reply {
    if is_known(engine, headers) { error(404, 1_008_004) } else { Reply::Say(Word::Unauthorized) }
}

fn error(status: u16, code: u64) -> Reply {
    let Wire { status, body, .. } = errors(status, code);
    Reply::Raw { status, body }
}

fn errors(status: u16, code: u64) -> Wire {
    Wire::json(status, &json!({ "errors": [{ "code": code, "message": message(code) }] }))
}

fn message(code: u64) -> &'static str {
    match code {
        1_000_400 => "Bad Request",
        1_000_401 => "Unauthorized",
        1_000_429 => "Too many requests",
        1_003_002 => "Requested product amount is out of range",
        1_005_003 => "Credit party mobile number is invalid",
        1_006_001 => "Insufficient balance",
        1_007_001 => "Transaction external ID has already been used",
        1_007_002 => "Transaction has already been confirmed",
        1_007_004 => "Transaction can no longer be confirmed",
        1_007_005 => "Transaction has already been cancelled",
        1_007_007 => "Transaction can no longer be cancelled",
        1_008_004 => "Transaction not found",
        _ => "Unexpected error, please contact our support team",
    }
}

/// What a search answers.
fn listed(word: &Word, wire: Wire) -> Wire {
    if !matches!(word, Word::Stands { .. } | Word::Unclear(_)) {
        return wire;
    }
    let is_nothing = matches!(word, Word::Stands { life: Life::Nothing, .. });
    let list = if is_nothing { b"[]".to_vec() } else { [b"[", &wire.body[..], b"]"].concat() };
    Wire { status: 200, body: list.into(), retry_after: None }
}

/// A transaction in a class of its own, where it is in progress.
fn in_class(class: &'static str) -> impl Fn(&Word, Wire) -> Wire {
    move |word, wire| {
        let Word::Stands { client_ref, life: Life::InProgress, asked } = word else { return wire };
        transaction(if *asked { 200 } else { 201 }, client_ref, class, class, None)
    }
}

/// The second step, and a cancellation, are answered by 202.
fn accepted_now(word: &Word, wire: Wire) -> Wire {
    let is_good = matches!(word, Word::Stands { .. }) && (200..300).contains(&wire.status);
    if is_good { Wire { status: 202, ..wire } } else { wire }
}

pub(super) fn wire(word: &Word, _now: Timestamp) -> Wire {
    match word {
        Word::Stands { client_ref, life, asked } => stands(client_ref, *life, *asked),
        // It has no state for that.
        Word::Unclear(client_ref) => transaction(200, client_ref, "SUBMITTED", "SUBMITTED", None),
        Word::Refused(refusal) => refused_unseen(*refusal),
        Word::Duplicate => errors(400, 1_007_001),
        Word::Unauthorized => errors(401, 1_000_401),
        Word::Malformed => errors(400, 1_000_400),
        Word::UnknownCode => errors(400, 1_999_999),
        Word::NotNow { wait, .. } => errors(429, 1_000_429).come_back(Some(*wait)),
        Word::SystemError => errors(500, 1_009_001),
        Word::Throttled { in_body: true, .. } => errors(200, 1_000_429),
        Word::Throttled { wait, in_body: false } => errors(429, 1_000_429).come_back(*wait),
        Word::Banned { wait } => Wire { status: 403, body: Bytes::new(), retry_after: None }.come_back(*wait),
    }
}

fn stands(client_ref: &ClientRef, life: Life, asked: bool) -> Wire {
    let http = if asked { 200 } else { 201 };
    match life {
        Life::Nothing => errors(404, 1_008_004),
        Life::InProgress => transaction(http, client_ref, "CONFIRMED", "CONFIRMED", None),
        Life::Delivered { amount, .. } => transaction(http, client_ref, "COMPLETED", "COMPLETED", Some(amount)),
        Life::Reversed { amount, .. } => transaction(http, client_ref, "REVERSED", "REVERSED", Some(amount)),
        Life::Refused(refusal) => {
            let (class, message) = ended(refusal.code);
            let odd = if !asked && refusal.status != 422 { refusal.status } else { http };
            transaction(odd, client_ref, class, message, None)
        }
    }
}

/// Refused before anything was created.
fn refused_unseen(refusal: Refusal) -> Wire {
    match refusal.code {
        "invalid_recipient" => errors(400, 1_005_003),
        "insufficient_float" => errors(400, 1_006_001),
        _ => errors(400, 1_003_002),
    }
}

fn ended(code: &str) -> (&'static str, &'static str) {
    match code {
        "invalid_recipient" => ("DECLINED", "DECLINED-INVALID-CREDIT-PARTY"),
        "recipient_barred" => ("DECLINED", "DECLINED-BARRED-CREDIT-PARTY"),
        "amount_not_allowed" => ("REJECTED", "REJECTED-INELIGIBLE-CREDIT-PARTY"),
        "limit_reached" => ("REJECTED", "REJECTED-LIMITATIONS-ON-CREDIT-PARTY-AMOUNT"),
        "cooldown_active" => ("DECLINED", "DECLINED-DUPLICATED-TRANSACTION"),
        "operator_unavailable" => ("REJECTED", "REJECTED-OPERATOR-CURRENTLY-UNAVAILABLE"),
        "insufficient_float" => ("REJECTED", "REJECTED-INSUFFICIENT-BALANCE"),
        "cancelled" => ("CANCELLED", "CANCELLED"),
        _ => ("DECLINED", "DECLINED"),
    }
}

#[derive(Serialize)]
struct Transaction<'a> {
    id: u64,
    external_id: &'a str,
    status: Status<'a>,
    operator_reference: Option<&'a str>,
    requested_values: Option<()>,
    adjusted_values: Option<()>,
    benefits: Option<[Benefit<'a>; 1]>,
}

#[derive(Serialize)]
struct Status<'a> {
    id: u32,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<Box<Status<'a>>>,
}

#[derive(Serialize)]
struct Benefit<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    unit_type: &'a str,
    unit: &'a str,
    amount: BenefitAmount,
    additional_information: Option<()>,
}

#[derive(Serialize)]
struct BenefitAmount {
    base: Box<RawValue>,
    promotion_bonus: u32,
}

fn transaction(http: u16, client_ref: &ClientRef, class: &str, message: &str, delivered: Option<Money>) -> Wire {
    let benefits = delivered.as_ref().and_then(|amount| {
        let base = RawValue::from_string(to_decimal(*amount)).ok()?;
        let amount_told = BenefitAmount { base, promotion_bonus: 0 };
        let (kind, unit_type, unit) = ("CREDITS", "CURRENCY", amount.currency.as_str());
        Some([Benefit { kind, unit_type, unit, amount: amount_told, additional_information: None }])
    });
    let body = Transaction {
        id: small_number(client_ref),
        external_id: client_ref.as_str(),
        // The specification gives no ids of its states.
        status: Status { id: 0, message, class: Some(Box::new(Status { id: 0, message: class, class: None })) },
        operator_reference: None,
        requested_values: None,
        adjusted_values: None,
        benefits,
    };
    Wire::json(http, &body)
}

impl Created {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Step>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is(&self, client_ref: &str) -> bool {
        self.lock().contains_key(client_ref)
    }

    fn get(&self, client_ref: &str) -> Option<Step> {
        self.lock().get(client_ref).cloned()
    }

    fn put(&self, client_ref: &str, step: Step) {
        self.lock().insert(client_ref.to_owned(), step);
    }

    fn take(&self, client_ref: &str) -> Option<Step> {
        self.lock().remove(client_ref)
    }
}
