//! mf178: signed requests, numeric states; asked about by its own number, or by ours and the second of the submit.
//!
//! A miniunit is its amount in minor units of the simulator's currency.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::super::engine::{Engine, Life};
use super::super::reply::{Reply, Word};
use super::{Asked, Wire, nobody, questioned, small_number, submitted};
use crate::domain::{ClientRef, Money, Msisdn};
use crate::providers::Secret;
use crate::providers::mf178::sign;

/// By how much a caller's clock may differ.
const SKEW_MAX: i64 = 30;

/// Under which second each order was filed.
#[derive(Debug, Default)]
pub(in super::super) struct Filed(Mutex<HashMap<String, i64>>);

pub(super) fn router() -> Router<Arc<Engine>> {
    Router::new()
        .route("/api/merchant/upload_order", post(upload_order))
        .route("/api/merchant/order_info", post(order_info))
}

async fn upload_order(State(engine): State<Arc<Engine>>, body: Bytes) -> Response {
    let Some(parameters) = read(&body) else {
        return submitted(&engine, true, Err(Reply::Say(Word::Malformed))).await;
    };
    let is_known = is_known(&engine, &parameters);
    let Some((asked, at)) = asked(&engine, &parameters) else {
        return submitted(&engine, is_known, Err(Reply::Say(Word::Malformed))).await;
    };
    if is_known {
        engine.filed.file(&asked.client_ref, at);
    }
    submitted(&engine, is_known, Ok(asked)).await
}

async fn order_info(State(engine): State<Arc<Engine>>, body: Bytes) -> Response {
    let parameters = read(&body).unwrap_or_default();
    let is_known = is_known(&engine, &parameters);
    let by_number = || engine.by_number(parameters.get("order_id")?.as_str()?.parse().ok()?);
    let by_reference = || {
        let third_id = parameters.get("third_id")?.as_str()?;
        let at = parameters.get("time")?.as_i64()?;
        // The second of what only the ledger remembers is not known any more: any is right.
        let is_filed = engine.filed.second(third_id).map_or_else(|| engine.knows(third_id), |second| second == at);
        is_filed.then(|| third_id.to_owned())
    };
    match by_number().or_else(by_reference) {
        Some(client_ref) => questioned(&engine, is_known, &client_ref, |_, wire| wire).await,
        None => nobody(&engine, is_known).await,
    }
}

fn read(body: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice(body).ok()
}

fn is_known(engine: &Engine, parameters: &Map<String, Value>) -> bool {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let texts: Vec<(&str, String)> = parameters.iter().map(|(name, value)| (name.as_str(), text(value))).collect();
    let secret = Secret::new(engine.login.secret());
    let expected = sign::sign(texts.iter().map(|(name, value)| (*name, value.as_str())), &secret);
    let told = |name: &str| parameters.get(name).map(text).unwrap_or_default();
    let skew = told("timestamp").parse::<i64>().map_or(i64::MAX, |at| (engine.now().timestamp() - at).abs());
    // Without a key of ours nothing was agreed upon, so nothing is checked.
    let has_key = engine.login.secret().is_empty() || told("sign") == expected;
    engine.login.is(&told("app_key"), engine.login.secret()) && has_key && skew <= SKEW_MAX
}

fn asked(engine: &Engine, parameters: &Map<String, Value>) -> Option<(Asked, i64)> {
    let client_ref = parameters.get("third_id")?.as_str()?.to_owned();
    let at = parameters.get("timestamp")?.as_i64()?;
    let target = parameters.get("datas")?.get("target")?.as_str()?;
    let miniunit = parameters.get("miniunit_id")?;
    let minor = miniunit.as_i64().or_else(|| miniunit.as_str()?.parse().ok()).filter(|minor| *minor > 0)?;
    let phone = Msisdn::from_e164(&format!("+86{target}"))?;
    let callback_url = parameters.get("call_back_url").and_then(Value::as_str).map(str::to_owned);
    Some((Asked { client_ref, order: Some((phone, Money { minor, currency: engine.currency })), callback_url }, at))
}

pub(super) fn wire(word: &Word) -> Wire {
    let coded = |code: i64| Wire::json(200, &json!({ "code": code, "message": "see the code table", "data": null }));
    match word {
        Word::Stands { client_ref, life, asked } => stands(client_ref, *life, *asked),
        Word::Unclear(client_ref) => order(client_ref, 41),
        Word::Refused(refusal) => coded(refused(refusal.code).unwrap_or(10_001)),
        Word::Duplicate => coded(10_010),
        Word::Unauthorized => coded(10_002),
        Word::Malformed => coded(10_001),
        Word::UnknownCode => coded(10_999),
        Word::NotNow { .. } | Word::Throttled { in_body: true, .. } => coded(10_016),
        Word::SystemError => coded(10_013),
        Word::Throttled { wait, in_body: false } => Wire { status: 429, ..coded(10_016) }.come_back(*wait),
        Word::Banned { .. } => coded(10_006),
    }
}

/// Refused before it was taken.
fn refused(code: &str) -> Option<i64> {
    match code {
        "insufficient_float" => Some(10_011),
        "operator_unavailable" => Some(10_012),
        "invalid_recipient" => Some(10_014),
        _ => None,
    }
}

fn stands(client_ref: &ClientRef, life: Life, asked: bool) -> Wire {
    match life {
        Life::Nothing => Wire::json(200, &json!({ "code": 10_015, "message": "not found", "data": null })),
        Life::InProgress if !asked => order(client_ref, 1),
        Life::InProgress | Life::Delivered { .. } | Life::Reversed { .. } => order(client_ref, state(life)),
        Life::Refused(refusal) => match refused(refusal.code).filter(|_| !asked) {
            Some(code) => {
                let http = if refusal.status == 500 { 500 } else { 200 };
                Wire::json(http, &json!({ "code": code, "message": "refused", "data": null }))
            }
            None => order(client_ref, state(life)),
        },
    }
}

/// How an order stands, to whoever asks, or is called back.
pub(super) fn state(life: Life) -> i64 {
    match life {
        Life::Nothing | Life::InProgress => 11,
        Life::Delivered { .. } => 3,
        // The price is back in our balance.
        Life::Reversed { .. } => 6,
        Life::Refused(_) => 4,
    }
}

fn order(client_ref: &ClientRef, state: i64) -> Wire {
    let body = json!({
        "code": 0, "message": "ok",
        "data": { "order_id": small_number(client_ref).to_string(), "third_id": client_ref.as_str(), "state": state,
                  "cost": "0.00", "voucher": null, "rsp_info": "" },
    });
    Wire::json(200, &body)
}

impl Filed {
    /// The first time counts.
    fn file(&self, third_id: &str, at: i64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(third_id.to_owned()).or_insert(at);
    }

    /// When an order was filed.
    pub(super) fn second(&self, third_id: &str) -> Option<i64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(third_id).copied()
    }
}
