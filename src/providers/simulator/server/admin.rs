//! The administration: the provider changed and looked at from outside while it runs.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use super::super::class::FaultClass;
use super::super::engine::{ByHand, ByHandError, Engine, Resolution, ResolveError};
use super::super::profile::{Ban, Profile};
use super::super::script::Script;
use super::super::text::duration_text;

/// The longest script or profile, in bytes.
const BODY_MAX: usize = 4 * 1024 * 1024;
/// The most references told at once.
const PAGE_MAX: usize = 1_000;

/// What is wrong with a request, as it is told.
pub(super) type Refused = (StatusCode, Json<serde_json::Value>);

pub(super) fn refused(status: StatusCode, problem: impl std::fmt::Display) -> Refused {
    (status, Json(json!({ "code": "refused", "problem": problem.to_string() })))
}

pub(super) fn router(engine: &Arc<Engine>) -> Router<Arc<Engine>> {
    Router::new()
        .route("/_admin/profile", get(profile).put(set_profile))
        .route("/_admin/script", get(waiting).post(add_script).delete(clear_script))
        .route("/_admin/day-file", get(super::day_file::day_file))
        .route("/_admin/references", get(references))
        .route("/_admin/references/{client_ref}/resolve", post(resolve))
        .route("/_admin/balance", get(balance).put(set_balance))
        .route("/_admin/freeze", put(freeze).delete(unfreeze))
        .route("/_admin/outage", post(outage))
        .route("/_admin/ban", post(ban).delete(lift_ban))
        .route("/_admin/callbacks", post(call_back))
        .route("/_admin/stats", get(stats))
        .route("/_admin/strikes", get(strikes))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn_with_state(Arc::clone(engine), keyed))
}

async fn keyed(State(engine): State<Arc<Engine>>, request: Request, next: Next) -> Response {
    let bearer = request.headers().get(AUTHORIZATION).and_then(|shown| shown.to_str().ok()?.strip_prefix("Bearer "));
    if engine.login.has_key(bearer.unwrap_or_default()) {
        next.run(request).await
    } else {
        refused(StatusCode::UNAUTHORIZED, "show the key that callers show").into_response()
    }
}

/// TOML, or JSON where it begins like that.
fn is_json(body: &str) -> bool {
    body.trim_start().starts_with('{')
}

async fn profile(State(engine): State<Arc<Engine>>) -> Json<Profile> {
    Json(engine.profile())
}

async fn set_profile(State(engine): State<Arc<Engine>>, body: String) -> Result<Json<Profile>, Refused> {
    let wrong = |error: &dyn std::fmt::Display| refused(StatusCode::UNPROCESSABLE_ENTITY, error);
    let profile = if is_json(&body) {
        let profile: Profile = serde_json::from_str(&body).map_err(|error| wrong(&error))?;
        profile.check().map_err(|error| wrong(&error))?;
        profile
    } else {
        Profile::from_toml(&body).map_err(|error| wrong(&error))?
    };
    engine.set_profile(profile);
    Ok(Json(engine.profile()))
}

async fn waiting(State(engine): State<Arc<Engine>>) -> Json<serde_json::Value> {
    let classes: Vec<FaultClass> = FaultClass::ALL.iter().copied().filter(|class| !class.is_limit()).collect();
    Json(json!({ "waiting": engine.scripted.waiting(), "classes": classes }))
}

async fn add_script(State(engine): State<Arc<Engine>>, body: String) -> Result<Json<serde_json::Value>, Refused> {
    let script = if is_json(&body) { Script::from_json(&body) } else { Script::from_toml(&body) };
    let added = script.and_then(|script| engine.scripted.add(&script));
    added.map_err(|error| refused(StatusCode::UNPROCESSABLE_ENTITY, error))?;
    Ok(Json(json!({ "waiting": engine.scripted.waiting() })))
}

async fn clear_script(State(engine): State<Arc<Engine>>) -> Json<serde_json::Value> {
    engine.scripted.clear();
    Json(json!({ "waiting": 0 }))
}

/// `?after=REFERENCE&limit=N`.
async fn references(State(engine): State<Arc<Engine>>, uri: Uri) -> Result<Json<serde_json::Value>, Refused> {
    let (mut after, mut limit) = (String::new(), 100);
    for (name, value) in url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        match (name.as_ref(), value.parse::<usize>()) {
            ("after", _) => after = value.into_owned(),
            ("limit", Ok(wanted)) => limit = wanted.clamp(1, PAGE_MAX),
            (_, _) => {
                let problem = format!("{name}={value}: give after=REFERENCE and limit=1 to {PAGE_MAX}");
                return Err(refused(StatusCode::BAD_REQUEST, problem));
            }
        }
    }
    let references = engine.references(&after, limit);
    let after = references.last().filter(|_| references.len() == limit).map(|last| last.client_ref.clone());
    Ok(Json(json!({ "references": references, "after": after })))
}

/// A body of JSON, or what would be one.
fn read<'a, T: Deserialize<'a>>(body: &'a str, example: &str) -> Result<T, Refused> {
    serde_json::from_str(body)
        .map_err(|error| refused(StatusCode::UNPROCESSABLE_ENTITY, format!("{error}: send {example}")))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resolve {
    r#as: Resolution,
}

async fn resolve(
    State(engine): State<Arc<Engine>>,
    Path(client_ref): Path<String>,
    body: String,
) -> Result<Json<super::super::ReferenceView>, Refused> {
    let resolve: Resolve = read(&body, r#"{"as": "delivered"} or {"as": "failed"}"#)?;
    engine.resolve(&client_ref, resolve.r#as).await.map(Json).map_err(|error| {
        let status = match error {
            ResolveError::Unknown => StatusCode::NOT_FOUND,
            ResolveError::NotOpen => StatusCode::CONFLICT,
            ResolveError::Ledger => StatusCode::INTERNAL_SERVER_ERROR,
        };
        refused(status, error)
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Balance {
    minor: Option<i64>,
}

async fn balance(State(engine): State<Arc<Engine>>) -> Json<serde_json::Value> {
    Json(json!({ "minor": engine.windows.balance() }))
}

async fn set_balance(State(engine): State<Arc<Engine>>, body: String) -> Result<Json<serde_json::Value>, Refused> {
    let wanted: Balance = read(&body, r#"{"minor": 500000}, or {"minor": null} for one without end"#)?;
    engine.windows.set_balance(wanted.minor);
    Ok(balance(State(engine)).await)
}

async fn freeze(State(engine): State<Arc<Engine>>) -> Json<serde_json::Value> {
    engine.windows.freeze(true);
    Json(json!({ "frozen": true }))
}

async fn unfreeze(State(engine): State<Arc<Engine>>) -> Json<serde_json::Value> {
    engine.windows.freeze(false);
    Json(json!({ "frozen": false }))
}

/// What begins with the request, and how long it lasts.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lasting {
    #[serde(with = "duration_text")]
    lasts: Duration,
}

async fn outage(State(engine): State<Arc<Engine>>, body: String) -> Result<Json<serde_json::Value>, Refused> {
    let Lasting { lasts } = read(&body, r#"{"lasts": "5s"}"#)?;
    engine.windows.open_outage(lasts);
    Ok(Json(json!({ "lasts": humantime::format_duration(lasts).to_string() })))
}

async fn ban(State(engine): State<Arc<Engine>>, body: String) -> Result<Json<serde_json::Value>, Refused> {
    let Lasting { lasts } = read(&body, r#"{"lasts": "30s"}"#)?;
    Ban::check_time("lasts", lasts).map_err(|error| refused(StatusCode::UNPROCESSABLE_ENTITY, error))?;
    engine.windows.ban(lasts);
    Ok(Json(json!({ "lasts": humantime::format_duration(lasts).to_string() })))
}

async fn lift_ban(State(engine): State<Arc<Engine>>) -> Json<serde_json::Value> {
    engine.windows.lift_ban();
    Json(json!({ "lasts": null }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CallBack {
    client_ref: String,
    url: Option<String>,
    #[serde(default)]
    forged: bool,
    #[serde(default)]
    stale: bool,
}

/// Returns once it is answered, or nobody has answered in time.
async fn call_back(State(engine): State<Arc<Engine>>, body: String) -> Result<Json<serde_json::Value>, Refused> {
    let wanted: CallBack =
        read(&body, r#"{"client_ref": "order-7-1"}, and if you like "url", "forged": true and "stale": true"#)?;
    let by_hand = ByHand { url: wanted.url.as_deref(), is_forged: wanted.forged, is_stale: wanted.stale };
    let answer = engine.tell_by_hand(&wanted.client_ref, by_hand).await.map_err(|error| {
        let status = match error {
            ByHandError::Unknown => StatusCode::NOT_FOUND,
            ByHandError::Unaddressed => StatusCode::UNPROCESSABLE_ENTITY,
            ByHandError::NotSent => StatusCode::SERVICE_UNAVAILABLE,
        };
        refused(status, error)
    })?;
    Ok(Json(json!({ "status": answer.status, "acknowledged": answer.is_acknowledged })))
}

async fn stats(State(engine): State<Arc<Engine>>) -> Json<super::super::Stats> {
    Json(engine.counts.stats())
}

async fn strikes(State(engine): State<Arc<Engine>>) -> Json<Vec<super::super::Strike>> {
    Json(engine.strikes.all())
}
