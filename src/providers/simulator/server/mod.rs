//! The simulator's HTTP: routes by axum, connections by hyper, because a fault may have to
//! reset the connection under a request.

mod admin;
mod connection;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::stream;
use serde::Deserialize;

pub(super) use self::connection::{Door, serve};
use super::arrivals::RequestKind;
use super::engine::{Engine, Order};
use super::fate::Refusal;
use super::reply::Reply;
use super::setup::Pacing;
use super::stats::count;
use crate::domain::{ClientRef, Currency, Money, Msisdn};

/// The longest request body, in bytes.
const BODY_MAX: usize = 16 * 1024;
/// The longest reference, in bytes.
const REFERENCE_MAX: usize = 64;
/// Between two bytes of an answer that drips.
const DRIP: Duration = Duration::from_secs(1);
const RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");

#[derive(Deserialize)]
struct SubmitBody {
    client_ref: String,
    phone: String,
    amount_minor: i64,
    currency: Currency,
}

fn router(engine: Arc<Engine>) -> Router {
    Router::new()
        .route("/recharges", post(submit))
        .route("/recharges/{client_ref}", get(query))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .merge(admin::router(&engine))
        .with_state(engine)
}

async fn submit(State(engine): State<Arc<Engine>>, headers: HeaderMap, body: Bytes) -> Response {
    let parsed = serde_json::from_slice::<SubmitBody>(&body).ok();
    let client_ref = parsed.as_ref().map_or("", |body| body.client_ref.as_str());
    let admission = engine.admit(client_ref, RequestKind::Submit, bearer(&headers)).await;
    let reply = match (admission.reply, parsed.filter(|body| (1..=REFERENCE_MAX).contains(&body.client_ref.len()))) {
        (Some(reply), _) => reply,
        (None, None) => {
            count(&engine.counts.malformed);
            Reply::malformed()
        }
        (None, Some(body)) => match order(&body) {
            Ok(order) => engine.submit(order).await,
            Err(refusal) => {
                count(&engine.counts.refused);
                Reply::refused(refusal)
            }
        },
    };
    respond(&engine, reply, admission.pacing).await
}

async fn query(State(engine): State<Arc<Engine>>, Path(client_ref): Path<String>, headers: HeaderMap) -> Response {
    let admission = engine.admit(&client_ref, RequestKind::Query, bearer(&headers)).await;
    let reply = match admission.reply {
        Some(reply) => reply,
        None => engine.query(&client_ref).await,
    };
    respond(&engine, reply, admission.pacing).await
}

fn order(body: &SubmitBody) -> Result<Order, Refusal> {
    let phone = Msisdn::from_e164(&body.phone).ok_or(Refusal::for_good("invalid_recipient", None))?;
    if body.amount_minor <= 0 {
        return Err(Refusal::for_good("amount_not_allowed", None));
    }
    Ok(Order {
        client_ref: ClientRef::from_stored(&body.client_ref),
        phone,
        amount: Money { minor: body.amount_minor, currency: body.currency },
    })
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

/// Marks a response in whose place the connection is reset.
#[derive(Debug, Clone, Copy)]
struct ResetConnection;

async fn respond(engine: &Engine, reply: Reply, pacing: Option<Pacing>) -> Response {
    let (status, body, retry_after, drips) = match reply {
        Reply::Answer { status, body, retry_after } => (status, body, retry_after, false),
        Reply::Drip { status, body } => (status, body, None, true),
        Reply::Hang => {
            // Ends when the caller gives up: its connection's task is then dropped.
            engine.stop.cancelled().await;
            return (axum::Extension(ResetConnection), ()).into_response();
        }
        Reply::Reset => return (axum::Extension(ResetConnection), ()).into_response(),
    };
    let kind = if body.starts_with(b"<") { "text/html" } else { "application/json" };
    let mut response = if drips { dripping(engine, body).into_response() } else { body.into_response() };
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(seconds) = retry_after {
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
