//! The simulator's HTTP: routes by axum (each dialect's own), connections by hyper, because a fault may have to
//! reset the connection under a request.

mod admin;
mod connection;
mod day_file;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;

pub(super) use self::connection::{Door, serve};
use super::dialect::Wire;
use super::engine::Engine;
use super::reply::{Reply, Word};
use super::setup::Pacing;

/// The longest request body, in bytes.
const BODY_MAX: usize = 16 * 1024;
/// Between two bytes of an answer that drips.
const DRIP: Duration = Duration::from_secs(1);
const RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");

fn router(engine: Arc<Engine>) -> Router {
    engine.dialect.router().layer(DefaultBodyLimit::max(BODY_MAX)).merge(admin::router(&engine)).with_state(engine)
}

/// Marks a response in whose place the connection is reset.
#[derive(Debug, Clone, Copy)]
struct ResetConnection;

/// Puts a reply on the wire, in the words of the engine's dialect; `form` is what the request makes different.
pub(super) async fn respond(
    engine: &Engine,
    reply: Reply,
    pacing: Option<Pacing>,
    form: impl Fn(&Word, Wire) -> Wire,
) -> Response {
    let plain = |reply: &Reply| match reply {
        Reply::Say(word) => Some(form(word, engine.dialect.wire(word, engine.now()))),
        Reply::Raw { status, body } => Some(Wire { status: *status, body: body.clone(), retry_after: None }),
        Reply::Half(_) | Reply::Drip(_) | Reply::Reset | Reply::Hang => None,
    };
    let (wire, drips) = match &reply {
        Reply::Hang => {
            // Ends when the caller gives up: its connection's task is then dropped.
            engine.stop.cancelled().await;
            (None, false)
        }
        Reply::Reset => (None, false),
        Reply::Half(whole) => {
            (plain(whole).map(|wire| Wire { body: wire.body.slice(..wire.body.len() / 2), ..wire }), false)
        }
        Reply::Drip(whole) => (plain(whole), true),
        Reply::Say(_) | Reply::Raw { .. } => (plain(&reply), false),
    };
    let Some(Wire { status, body, retry_after }) = wire else {
        return (axum::Extension(ResetConnection), ()).into_response();
    };
    let kind = if body.starts_with(b"<") { "text/html" } else { "application/json" };
    let mut response = if drips { dripping(engine, body).into_response() } else { body.into_response() };
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(seconds) = retry_after.filter(|_| !drips) {
        headers.insert(RETRY_AFTER, seconds.into());
    }
    if let Some(pacing) = pacing {
        headers.insert(RATELIMIT_LIMIT, pacing.limit.into());
        headers.insert(RATELIMIT_REMAINING, pacing.remaining.into());
    }
    response
}

/// A byte a second, and never the last one: a caller must not take it for an answer in the end.
fn dripping(engine: &Engine, body: Bytes) -> Body {
    let (stop, last) = (engine.stop.clone(), body.len().saturating_sub(1));
    Body::from_stream(stream::unfold(0, move |at| {
        let (stop, byte) = (stop.clone(), body.slice(at..(at + 1).min(last).max(at)));
        async move {
            if at == last {
                stop.cancelled().await;
            }
            let stopped = tokio::time::timeout(if at == 0 { Duration::ZERO } else { DRIP }, stop.cancelled()).await;
            stopped.is_err().then_some((Ok::<_, Infallible>(byte), at + 1))
        }
    }))
}
