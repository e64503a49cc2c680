//! DT One's list of transactions by date: `GET /transactions?from_date=&to_date=&page=&per_page=`, with its headers.

use std::sync::Arc;

use axum::Json;
use axum::http::{HeaderName, Uri};
use axum::response::{IntoResponse as _, Response};
use chrono::TimeDelta;
use serde_json::Value;

use super::super::engine::{Engine, ListedRecharge, Span};
use super::super::reply::Word;
use super::dtone;
use super::listing::{listed, number_of, page, parameters};
use crate::domain::Timestamp;

/// Whether a search is one by date.
pub(super) fn is_list(uri: &Uri) -> bool {
    parameters(uri).contains_key("from_date")
}

pub(super) async fn list(engine: &Arc<Engine>, is_known: bool, uri: &Uri) -> Response {
    listed(engine, is_known, || {
        let parameters = parameters(uri);
        let moment = |name| parameters.get(name)?.parse::<Timestamp>().ok();
        let span = Span { from: moment("from_date")?, until: moment("to_date")? };
        if span.until - span.from > TimeDelta::hours(24) {
            return None;
        }
        let (number, size) = (number_of(&parameters, "page", 1)?, number_of(&parameters, "per_page", 50)?.min(100));
        let all = engine.listed(span);
        let (found, pages) = page(&all, number, size);
        let body: Vec<Value> = found.iter().map(|one| transaction(engine, one)).collect();
        let next = if number < pages { (number + 1).to_string() } else { String::new() };
        let headers = [
            (HeaderName::from_static("x-total"), all.len().to_string()),
            (HeaderName::from_static("x-total-pages"), pages.to_string()),
            (HeaderName::from_static("x-page"), number.to_string()),
            (HeaderName::from_static("x-per-page"), size.to_string()),
            (HeaderName::from_static("x-next-page"), next),
        ];
        Some((headers, Json(body)).into_response())
    })
    .await
}

/// As a question about it is answered, with its date.
fn transaction(engine: &Engine, recharge: &ListedRecharge) -> Value {
    let word = Word::Stands { client_ref: recharge.client_ref.clone(), life: recharge.life, asked: true };
    let mut body: Value = serde_json::from_slice(&dtone::wire(&word, engine.now()).body).unwrap_or_default();
    if let Some(fields) = body.as_object_mut() {
        fields.insert("creation_date".to_owned(), Value::String(recharge.at.to_rfc3339()));
    }
    body
}
