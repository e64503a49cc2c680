//! The simulator's HTTP: routes by axum, connections by hyper, because a fault may have to
//! reset the connection under a request.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::arrivals::RequestKind;
use super::engine::{Engine, Order};
use super::fate::Refusal;
use super::reply::Reply;
use super::stats::count;
use crate::domain::{ClientRef, Currency, Money, Msisdn};

/// The most connections at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 4_096;
/// The longest request body, in bytes.
const BODY_MAX: usize = 16 * 1024;
/// The longest reference, in bytes.
const REFERENCE_MAX: usize = 64;
/// How long open requests may take to end when the simulator stops.
const DRAIN: Duration = Duration::from_secs(1);

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
        .with_state(engine)
}

async fn submit(State(engine): State<Arc<Engine>>, headers: HeaderMap, body: Bytes) -> Response {
    let parsed = serde_json::from_slice::<SubmitBody>(&body).ok();
    let client_ref = parsed.as_ref().map_or("", |body| body.client_ref.as_str());
    if let Some(reply) = engine.admit(client_ref, RequestKind::Submit, bearer(&headers)) {
        return respond(&engine, reply).await;
    }
    let reply = match parsed.filter(|body| (1..=REFERENCE_MAX).contains(&body.client_ref.len())) {
        None => {
            count(&engine.counts.malformed);
            Reply::malformed()
        }
        Some(body) => match order(&body) {
            Ok(order) => engine.submit(order).await,
            Err(refusal) => {
                count(&engine.counts.refused);
                Reply::refused(refusal)
            }
        },
    };
    respond(&engine, reply).await
}

async fn query(State(engine): State<Arc<Engine>>, Path(client_ref): Path<String>, headers: HeaderMap) -> Response {
    let reply = match engine.admit(&client_ref, RequestKind::Query, bearer(&headers)) {
        Some(reply) => reply,
        None => engine.query(&client_ref).await,
    };
    respond(&engine, reply).await
}

fn order(body: &SubmitBody) -> Result<Order, Refusal> {
    let refusal = |code| Refusal { code, retry_after: None, status: 422 };
    let phone = Msisdn::from_e164(&body.phone).ok_or(refusal("invalid_recipient"))?;
    if body.amount_minor <= 0 {
        return Err(refusal("amount_not_allowed"));
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

async fn respond(engine: &Engine, reply: Reply) -> Response {
    match reply {
        Reply::Answer { status, body, retry_after } => {
            let mut response = body.into_response();
            *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            if let Some(seconds) = retry_after {
                response.headers_mut().insert(RETRY_AFTER, seconds.into());
            }
            response
        }
        Reply::Hang => {
            // Ends when the caller gives up: its connection's task is then dropped.
            engine.stop.cancelled().await;
            (axum::Extension(ResetConnection), ()).into_response()
        }
        Reply::Reset => (axum::Extension(ResetConnection), ()).into_response(),
    }
}

/// Serves until the engine is stopped, then lets open requests end for a moment.
pub(super) async fn serve(listener: TcpListener, engine: Arc<Engine>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let router = TowerToHyperService::new(router(Arc::clone(&engine)));
    let mut connections = JoinSet::new();
    loop {
        // First the end, then room for what ended, then what is new.
        let accepted = tokio::select! {
            biased;
            () = engine.stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &slots) => accepted,
        };
        match accepted {
            Ok((stream, slot)) => {
                let (router, engine) = (router.clone(), Arc::clone(&engine));
                connections.spawn(async move {
                    serve_one(stream, router, engine).await;
                    drop(slot);
                });
            }
            Err(error) => {
                // Out of file descriptors, mostly: some will be given back.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::debug!(left = connections.len(), "dropping connections that did not end in time");
    }
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, slot))
}

async fn serve_one(tcp: TcpStream, router: TowerToHyperService<Router>, engine: Arc<Engine>) {
    let reset = Arc::new(AtomicBool::new(false));
    let stream = ResettableStream { tcp, reset: Arc::clone(&reset) };
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (answer, reset) = (router.call(request), Arc::clone(&reset));
        async move {
            let response: Response<Body> = answer.await.unwrap_or_else(|never: Infallible| match never {});
            if response.extensions().get::<ResetConnection>().is_some() {
                reset.store(true, Ordering::Relaxed);
                // An error of the service closes the connection without an answer.
                return Err(io::Error::from(io::ErrorKind::ConnectionReset));
            }
            Ok(response)
        }
    });
    let connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        // Requests first: they are what the connection is for.
        biased;
        ended = connection.as_mut() => ended,
        () = engine.stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::trace!(%error, "a connection broke");
    }
}

/// A stream that, where asked for, goes with a reset in place of an orderly end.
struct ResettableStream {
    tcp: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Drop for ResettableStream {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed)
            && let Err(error) = SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO))
        {
            tracing::debug!(%error, "a connection could not be reset");
        }
    }
}

impl AsyncRead for ResettableStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for ResettableStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().tcp).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        if stream.reset.load(Ordering::Relaxed) {
            // An orderly end here would reach the caller before the reset.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut stream.tcp).poll_shutdown(cx)
    }
}
