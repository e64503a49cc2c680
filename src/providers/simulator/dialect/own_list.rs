//! The list of the simulator's own protocol: `GET /recharges?from=&until=&after=&limit=`, by reference.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serde_json::json;

use super::super::engine::{Engine, Life, ListedRecharge, Span};
use super::listing::{listed, number_of, parameters};
use super::{number, own};
use crate::domain::{Currency, Money, Timestamp};

/// The longest page.
const PAGE_MAX: usize = 5_000;

/// A line of the list, and of a day file.
#[derive(Serialize)]
pub(in super::super) struct Line {
    pub(in super::super) client_ref: String,
    pub(in super::super) state: &'static str,
    pub(in super::super) amount_minor: Option<i64>,
    pub(in super::super) currency: Option<Currency>,
    pub(in super::super) at: Timestamp,
    pub(in super::super) provider_ref: String,
}

impl Line {
    pub(in super::super) fn of(recharge: &ListedRecharge) -> Self {
        let (state, amount): (_, Option<Money>) = match recharge.life {
            Life::Nothing | Life::InProgress => ("in_progress", None),
            Life::Delivered { amount, .. } => ("delivered", Some(amount)),
            Life::Reversed { amount, .. } => ("reversed", Some(amount)),
            Life::Refused(_) => ("failed", None),
        };
        Self {
            client_ref: recharge.client_ref.to_string(),
            state,
            amount_minor: amount.map(|amount| amount.minor),
            currency: amount.map(|amount| amount.currency),
            at: recharge.at,
            provider_ref: format!("S{:016x}", number(&recharge.client_ref)),
        }
    }
}

pub(super) async fn list(State(engine): State<Arc<Engine>>, headers: HeaderMap, uri: Uri) -> Response {
    let is_known = own::is_known(&engine, &headers);
    listed(&engine, is_known, || {
        let parameters = parameters(&uri);
        let moment = |name| parameters.get(name)?.parse::<Timestamp>().ok();
        let span = Span { from: moment("from")?, until: moment("until")? };
        let limit = number_of(&parameters, "limit", 1_000)?.min(PAGE_MAX);
        let after = parameters.get("after").map_or("", String::as_str);
        let mut all = engine.listed(span);
        all.retain(|recharge| recharge.client_ref.as_str() > after);
        let page: Vec<Line> = all.iter().take(limit).map(Line::of).collect();
        let next = page.last().filter(|_| all.len() > limit).map(|last| last.client_ref.clone());
        Some(Json(json!({ "recharges": page, "after": next })).into_response())
    })
    .await
}
