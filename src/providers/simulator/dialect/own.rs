//! The simulator's own protocol; its requests and answers stand in the module of the simulator.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{get, post};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::engine::{Engine, Life};
use super::super::fate::Refusal;
use super::super::reply::{Reply, Word};
use super::{Asked, Wire, authorization, number, own_list, questioned, submitted};
use crate::domain::{ClientRef, Currency, Money, Msisdn, Timestamp};

#[derive(Deserialize)]
struct SubmitBody {
    client_ref: String,
    phone: String,
    amount_minor: i64,
    currency: Currency,
    callback_url: Option<String>,
}

pub(super) fn router() -> Router<Arc<Engine>> {
    Router::new().route("/recharges", post(submit).get(own_list::list)).route("/recharges/{client_ref}", get(query))
}

async fn submit(State(engine): State<Arc<Engine>>, headers: HeaderMap, body: Bytes) -> Response {
    let asked = match serde_json::from_slice::<SubmitBody>(&body) {
        Ok(body) => asked(body),
        Err(_) => Err(Reply::Say(Word::Malformed)),
    };
    submitted(&engine, is_known(&engine, &headers), asked).await
}

async fn query(State(engine): State<Arc<Engine>>, Path(client_ref): Path<String>, headers: HeaderMap) -> Response {
    questioned(&engine, is_known(&engine, &headers), &client_ref, |_, wire| wire).await
}

pub(super) fn is_known(engine: &Engine, headers: &HeaderMap) -> bool {
    engine.login.has_key(authorization(headers, "Bearer").unwrap_or_default())
}

fn asked(body: SubmitBody) -> Result<Asked, Reply> {
    let refused = |code| Err(Reply::Say(Word::Refused(Refusal::for_good(code, None))));
    let Some(phone) = Msisdn::from_e164(&body.phone) else { return refused("invalid_recipient") };
    if body.amount_minor <= 0 {
        return refused("amount_not_allowed");
    }
    let amount = Money { minor: body.amount_minor, currency: body.currency };
    Ok(Asked { client_ref: body.client_ref, order: Some((phone, amount)), callback_url: body.callback_url })
}

#[derive(Serialize, Default)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider_ref: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retryable: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    amount_minor: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<Currency>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivered_at: Option<Timestamp>,
}

pub(super) fn wire(word: &Word) -> Wire {
    let code = |status, code| Wire::json(status, &Body { code: Some(code), ..Body::default() });
    match word {
        Word::Stands { client_ref, life, asked } => stands(client_ref, *life, *asked),
        Word::Unclear(client_ref) => standing(200, "unknown", client_ref, None),
        Word::Refused(refusal) => refused(*refusal, refusal.status),
        Word::Duplicate => code(409, "duplicate"),
        Word::Unauthorized => code(401, "unauthorized"),
        Word::Malformed => code(400, "malformed"),
        Word::UnknownCode => {
            Wire::json(422, &Body { status: Some("rejected"), code: Some("E-9917"), ..Body::default() })
        }
        Word::NotNow { code, wait } => come_back(403, code, Some(*wait)),
        Word::SystemError => code(200, "system_error"),
        // With the wait, where it is told, in the header, in whole seconds rounded up, and exactly in the body.
        Word::Throttled { wait, in_body: true } => come_back(200, "throttled", *wait),
        Word::Throttled { wait, in_body: false } => come_back(429, "throttled", *wait).come_back(*wait),
        Word::Banned { wait } => come_back(403, "banned", *wait).come_back(*wait),
    }
}

fn stands(client_ref: &ClientRef, life: Life, asked: bool) -> Wire {
    match life {
        Life::Nothing => Wire::json(404, &Body { code: Some("not_found"), ..Body::default() }),
        Life::InProgress => standing(202, "accepted", client_ref, None),
        // In an answer to a query, a refusal is a plain fact and no odd status.
        Life::Refused(refusal) => refused(refusal, if asked { 200 } else { refusal.status }),
        Life::Delivered { amount, at } => standing(200, "succeeded", client_ref, Some((amount, at))),
        Life::Reversed { amount, at } => standing(200, "reversed", client_ref, Some((amount, at))),
    }
}

fn standing(http: u16, status: &'static str, client_ref: &ClientRef, got: Option<(Money, Timestamp)>) -> Wire {
    let body = Body {
        status: Some(status),
        provider_ref: Some(format!("S{:016x}", number(client_ref))),
        amount_minor: got.map(|(amount, _)| amount.minor),
        currency: got.map(|(amount, _)| amount.currency),
        delivered_at: got.map(|(_, at)| at),
        ..Body::default()
    };
    Wire::json(http, &body)
}

fn refused(refusal: Refusal, http: u16) -> Wire {
    let body = Body {
        status: Some("rejected"),
        code: Some(refusal.code),
        retryable: Some(refusal.retry_after.is_some()),
        retry_after_ms: refusal.retry_after.map(millis),
        ..Body::default()
    };
    Wire::json(http, &body)
}

fn come_back(http: u16, code: &str, wait: Option<Duration>) -> Wire {
    let retry_after_ms = wait.map(|wait| millis(wait).max(1));
    Wire::json(http, &Body { code: Some(code), retry_after_ms, ..Body::default() })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
