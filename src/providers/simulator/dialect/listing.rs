//! What the lists of all dialects share.

use std::collections::HashMap;
use std::sync::Arc;

use axum::http::Uri;
use axum::response::Response;

use super::super::engine::{Engine, ListedRecharge};
use super::super::reply::{Reply, Word};
use super::super::server::respond;

/// The parameters of a request's address.
pub(super) fn parameters(uri: &Uri) -> HashMap<String, String> {
    url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect()
}

/// A number among them.
pub(super) fn number_of(parameters: &HashMap<String, String>, name: &str, otherwise: usize) -> Option<usize> {
    parameters.get(name).map_or(Some(otherwise), |text| text.parse().ok().filter(|number| *number > 0))
}

/// One page, and how many there are.
pub(super) fn page(all: &[ListedRecharge], page: usize, size: usize) -> (&[ListedRecharge], usize) {
    let from = (page - 1).saturating_mul(size).min(all.len());
    let rest = all.get(from..).unwrap_or_default();
    (rest.get(..size).unwrap_or(rest), all.len().div_ceil(size))
}

/// A list goes through the door like a question; its answer is what `list` makes, or that it was asked wrongly.
pub(super) async fn listed(engine: &Arc<Engine>, is_known: bool, list: impl FnOnce() -> Option<Response>) -> Response {
    let admission = engine.admit_query("", is_known).await;
    let reply = match admission.reply {
        Some(reply) => reply,
        None => match list() {
            Some(response) => return response,
            None => Reply::Say(Word::Malformed),
        },
    };
    respond(engine, reply, admission.pacing, |_, wire| wire).await
}
