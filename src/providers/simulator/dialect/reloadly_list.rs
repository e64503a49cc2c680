//! Reloadly's report by date: `GET /topups/reports/transactions?startDate=&endDate=&page=&size=`.

use std::sync::Arc;

use axum::Json;
use axum::http::Uri;
use axum::response::{IntoResponse as _, Response};
use chrono::NaiveDateTime;
use serde_json::{Value, json};

use super::super::engine::{Engine, ListedRecharge, Span};
use super::listing::{listed, number_of, page, parameters};
use super::reloadly;

const FORM: &str = "%Y-%m-%d %H:%M:%S";

/// Whether a search is one by date.
pub(super) fn is_list(uri: &Uri) -> bool {
    parameters(uri).contains_key("startDate")
}

pub(super) async fn list(engine: &Arc<Engine>, is_known: bool, uri: &Uri) -> Response {
    listed(engine, is_known, || {
        let parameters = parameters(uri);
        let moment = |name| NaiveDateTime::parse_from_str(parameters.get(name)?, FORM).ok().map(|at| at.and_utc());
        let span = Span { from: moment("startDate")?, until: moment("endDate")? };
        let (number, size) = (number_of(&parameters, "page", 1)?, number_of(&parameters, "size", 200)?.min(200));
        let all = engine.listed(span);
        let (found, pages) = page(&all, number, size);
        let content: Vec<Value> = found.iter().map(transaction).collect();
        let answer = json!({
            "content": content, "totalElements": all.len(), "totalPages": pages, "size": size, "number": number,
            "last": number >= pages, "first": number == 1,
        });
        Some(Json(answer).into_response())
    })
    .await
}

fn transaction(recharge: &ListedRecharge) -> Value {
    let (status, delivered) = (reloadly::standing(recharge.life), reloadly::delivered(recharge.life));
    let mut body = reloadly::transaction(&recharge.client_ref, status, delivered);
    if let Some(fields) = body.as_object_mut() {
        fields.insert("transactionDate".to_owned(), Value::String(recharge.at.format(FORM).to_string()));
    }
    body
}
