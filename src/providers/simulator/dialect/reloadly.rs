//! Reloadly Airtime: tokens, asynchronous top-ups, their status, and the report that finds them by our reference.
//!
//! An amount is in the simulator's currency, whatever its operator.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, http::StatusCode};
use bytes::Bytes;
use rand::Rng as _;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::super::engine::{Engine, Life};
use super::super::fate::Refusal;
use super::super::reply::{Reply, Word};
use super::super::server::respond;
use super::{Asked, Wire, authorization, nobody, questioned, reloadly_list, small_number, submitted};
use crate::domain::{ClientRef, Money, Msisdn, Timestamp};
use crate::providers::decimal::{from_decimal, to_decimal};

/// A token is good for so long, in seconds.
const EXPIRES_IN: u64 = 86_400;

/// The tokens that were given out.
#[derive(Debug, Default)]
pub(in super::super) struct Tokens(Mutex<HashSet<String>>);

#[derive(Deserialize)]
struct LoginBody {
    client_id: String,
    client_secret: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TopUp {
    amount: Box<RawValue>,
    custom_identifier: String,
    recipient_phone: Phone,
}

#[derive(Deserialize)]
struct Phone {
    number: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Search {
    custom_identifier: String,
}

pub(super) fn router() -> Router<Arc<Engine>> {
    Router::new()
        .route("/oauth/token", post(token))
        .route("/topups-async", post(submit))
        .route("/topups/{id}/status", get(status))
        .route("/topups/reports/transactions", get(report))
}

async fn token(State(engine): State<Arc<Engine>>, body: Bytes) -> Response {
    let login = serde_json::from_slice::<LoginBody>(&body);
    match login {
        Ok(login) if engine.login.is(&login.client_id, &login.client_secret) => {
            let token = format!("{:032x}", rand::rng().random::<u128>());
            engine.tokens.0.lock().unwrap_or_else(PoisonError::into_inner).insert(token.clone());
            Json(json!({ "access_token": token, "expires_in": EXPIRES_IN, "token_type": "Bearer" })).into_response()
        }
        Ok(_) | Err(_) => {
            let refused = Json(json!({ "errorCode": "INVALID_CREDENTIALS", "message": "Access Denied" }));
            (StatusCode::UNAUTHORIZED, refused).into_response()
        }
    }
}

async fn submit(State(engine): State<Arc<Engine>>, headers: HeaderMap, body: Bytes) -> Response {
    let asked = match serde_json::from_slice::<TopUp>(&body) {
        Ok(body) => asked(&engine, body),
        Err(_) => Err(Reply::Say(Word::Malformed)),
    };
    submitted(&engine, is_known(&engine, &headers), asked).await
}

fn asked(engine: &Engine, body: TopUp) -> Result<Asked, Reply> {
    let refused = |code| Err(Reply::Say(Word::Refused(Refusal::for_good(code, None))));
    let Some(phone) = Msisdn::from_e164(&body.recipient_phone.number) else { return refused("invalid_recipient") };
    let amount = from_decimal(body.amount.get(), engine.currency).filter(|amount| amount.minor > 0);
    let Some(amount) = amount else { return refused("amount_not_allowed") };
    // Theirs is set up with the account.
    Ok(Asked { client_ref: body.custom_identifier, order: Some((phone, amount)), callback_url: None })
}

async fn status(State(engine): State<Arc<Engine>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let is_known = is_known(&engine, &headers);
    match id.parse().ok().and_then(|number| engine.by_number(number)) {
        Some(client_ref) => questioned(&engine, is_known, &client_ref, |_, wire| wire).await,
        None => nobody(&engine, is_known).await,
    }
}

async fn report(State(engine): State<Arc<Engine>>, headers: HeaderMap, uri: Uri) -> Response {
    if reloadly_list::is_list(&uri) {
        return reloadly_list::list(&engine, is_known(&engine, &headers), &uri).await;
    }
    let Ok(Query(search)) = Query::<Search>::try_from_uri(&uri) else {
        return respond(&engine, engine.is_malformed(), None, |_, wire| wire).await;
    };
    questioned(&engine, is_known(&engine, &headers), &search.custom_identifier, reported).await
}

fn is_known(engine: &Engine, headers: &HeaderMap) -> bool {
    let token = authorization(headers, "Bearer").unwrap_or_default();
    engine.tokens.0.lock().unwrap_or_else(PoisonError::into_inner).contains(token)
}

/// What a report answers.
fn reported(word: &Word, wire: Wire) -> Wire {
    let content = if let Word::Unclear(client_ref) = word {
        vec![transaction(client_ref, "PROCESSING", None)]
    } else if let Word::Stands { client_ref, life, .. } = word {
        let found = (*life != Life::Nothing).then(|| told(client_ref, *life));
        found.into_iter().collect()
    } else {
        return wire;
    };
    Wire::json(200, &json!({ "totalElements": content.len(), "content": content }))
}

pub(super) fn wire(word: &Word, now: Timestamp) -> Wire {
    let error = |http: u16, code: &str| {
        let at = now.format("%Y-%m-%d %H:%M:%S").to_string();
        Wire::json(http, &json!({ "timeStamp": at, "message": code, "errorCode": code, "details": [] }))
    };
    match word {
        Word::Stands { life: Life::Nothing, .. } => error(404, "TRANSACTION_NOT_FOUND"),
        Word::Stands { client_ref, life, asked: true } => {
            let transaction = told(client_ref, *life);
            Wire::json(200, &json!({ "code": null, "status": standing(*life), "transaction": transaction }))
        }
        Word::Stands { life: Life::Refused(refusal), .. } => {
            error(if refusal.status == 422 { 400 } else { refusal.status }, refused(refusal.code))
        }
        Word::Stands { client_ref, .. } => Wire::json(200, &json!({ "transactionId": small_number(client_ref) })),
        Word::Unclear(_) => Wire::json(200, &json!({ "code": null, "status": "PROCESSING", "transaction": null })),
        Word::Refused(refusal) => error(400, refused(refusal.code)),
        Word::Duplicate => error(400, "CUSTOM_IDENTIFIER_ALREADY_USED"),
        Word::Unauthorized => error(401, "TOKEN_EXPIRED"),
        Word::Malformed => error(400, "MALFORMED_REQUEST"),
        Word::UnknownCode => error(400, "A_NEW_ONE"),
        Word::NotNow { wait, .. } => error(429, "TOO_MANY_REQUESTS").come_back(Some(*wait)),
        Word::SystemError => error(500, "INTERNAL_SERVER_ERROR"),
        Word::Throttled { in_body: true, .. } => error(429, "TOO_MANY_REQUESTS"),
        Word::Throttled { wait, in_body: false } => error(429, "TOO_MANY_REQUESTS").come_back(*wait),
        Word::Banned { wait } => error(403, "ACCOUNT_SUSPENDED").come_back(*wait),
    }
}

fn refused(code: &str) -> &'static str {
    match code {
        "invalid_recipient" | "recipient_barred" => "INVALID_RECIPIENT_PHONE",
        "amount_not_allowed" => "INVALID_AMOUNT_FOR_OPERATOR",
        "limit_reached" => "MAX_DAILY_TRANSACTION_AMOUNT_REACHED",
        "cooldown_active" => "PHONE_RECENTLY_RECHARGED",
        "operator_unavailable" => "OPERATOR_UNAVAILABLE_OR_CURRENTLY_INACTIVE",
        "insufficient_float" => "INSUFFICIENT_BALANCE",
        _ => "TRANSACTION_CANNOT_BE_PROCESSED_AT_THE_MOMENT",
    }
}

pub(super) fn standing(life: Life) -> &'static str {
    match life {
        Life::Nothing | Life::InProgress => "PROCESSING",
        Life::Delivered { .. } => "SUCCESSFUL",
        Life::Reversed { .. } => "REFUNDED",
        Life::Refused(_) => "FAILED",
    }
}

pub(super) fn delivered(life: Life) -> Option<Money> {
    match life {
        Life::Delivered { amount, .. } => Some(amount),
        Life::Nothing | Life::InProgress | Life::Reversed { .. } | Life::Refused(_) => None,
    }
}

/// A transaction as its callback tells it.
pub(super) fn told(client_ref: &ClientRef, life: Life) -> Value {
    transaction(client_ref, standing(life), delivered(life))
}

pub(super) fn transaction(client_ref: &ClientRef, status: &str, delivered: Option<Money>) -> Value {
    json!({
        "transactionId": small_number(client_ref), "status": status, "customIdentifier": client_ref.as_str(),
        // As a text: some versions of the API do, and it keeps every digit.
        "deliveredAmount": delivered.map(to_decimal),
        "deliveredAmountCurrencyCode": delivered.map(|amount| amount.currency.to_string()),
    })
}
