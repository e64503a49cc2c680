//! The listener for providers' callbacks: `POST /callbacks/{provider}` and `/callbacks/{provider}/{token}`.
//!
//! It is meant for the open internet behind an ingress that ends TLS. What a caller can make it hold is bounded before
//! anything is read: connections, the time for headers and body, the size of a body. Whatever is wrong with a callback,
//! the answer is the same: 404, without a body.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::ports::{CallbackAnswer, CallbackDoor, RawCallback};

/// The most connections at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 1_024;
/// How long a request's headers may take, and a connection may be idle.
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
/// How long its body may take behind them.
const BODY_WITHIN: Duration = Duration::from_secs(5);
/// The largest body, in bytes.
pub const BODY_MAX: usize = 64 * 1024;
/// The largest head of a request, in bytes.
const HEAD_MAX: usize = 16 * 1024;
/// How long open requests may take to end when the process stops.
const DRAIN: Duration = Duration::from_secs(2);
/// After a failure to accept, such as for want of file descriptors.
const BREATH: Duration = Duration::from_millis(50);
/// When a provider that can be told is to come again.
const COME_AGAIN: HeaderValue = HeaderValue::from_static("2");
/// Where the way to a callback begins.
const ROOT: &str = "/callbacks/";

/// Why callbacks are not served.
#[derive(Debug, thiserror::Error)]
#[error("callback.listen: cannot listen on {address} ({source}): free the port or give another address")]
pub struct BindError {
    /// Where.
    address: SocketAddr,
    /// Why.
    source: io::Error,
}

/// The listener, ready to serve.
#[derive(Debug)]
pub struct Listener {
    inner: TcpListener,
    proxies: Vec<IpNet>,
}

impl Listener {
    /// Opens the port. What comes through `proxies` is from whomever these name in `X-Forwarded-For`.
    pub async fn bind(address: SocketAddr, proxies: Vec<IpNet>) -> Result<Self, BindError> {
        let inner = TcpListener::bind(address).await.map_err(|source| BindError { address, source })?;
        Ok(Self { inner, proxies })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    /// Serves until `stop`, then lets open requests end for a moment.
    pub async fn serve(self, door: Arc<dyn CallbackDoor>, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let proxies: Arc<[IpNet]> = self.proxies.into();
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased; // Stopping comes before more work.
                () = stop.cancelled() => break,
                Some(_ended) = connections.join_next() => continue,
                accepted = accept(&self.inner, &places) => accepted,
            };
            match accepted {
                Ok((stream, peer, place)) => {
                    let caller = Caller { door: Arc::clone(&door), proxies: Arc::clone(&proxies), peer };
                    let stop = stop.clone();
                    connections.spawn(async move {
                        let _place = place;
                        caller.serve(stream, stop).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a callback's connection could not be accepted");
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
        let ending = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, ending).await.is_err() {
            connections.abort_all();
        }
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, IpAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, peer.ip(), place))
}

/// Serves one connection that is open already.
#[cfg(any(test, fuzzing))]
pub(crate) async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    door: Arc<dyn CallbackDoor>,
    proxies: Vec<IpNet>,
    peer: IpAddr,
) {
    Caller { door, proxies: proxies.into(), peer }.serve(stream, CancellationToken::new()).await;
}

/// One connection.
struct Caller {
    door: Arc<dyn CallbackDoor>,
    proxies: Arc<[IpNet]>,
    peer: IpAddr,
}

impl Caller {
    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin, stop: CancellationToken) {
        let service = service_fn(|request| async { Ok::<_, Infallible>(self.answer(request).await) });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS_WITHIN)
            .max_buf_size(HEAD_MAX)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a callback's connection broke");
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let Some((provider, token)) = addressed(request.method(), request.uri().path()) else {
            return status(StatusCode::NOT_FOUND);
        };
        let (head, body) = request.into_parts();
        let body = Limited::new(body, BODY_MAX).collect();
        let body = match tokio::time::timeout(BODY_WITHIN, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                return closing(StatusCode::PAYLOAD_TOO_LARGE);
            }
            Ok(Err(_)) => return closing(StatusCode::BAD_REQUEST),
            Err(_) => return closing(StatusCode::REQUEST_TIMEOUT),
        };
        let from = self.from(&head.headers);
        let callback = RawCallback { provider, token, headers: texts(&head.headers), body, from };
        match self.door.take(callback).await {
            CallbackAnswer::Taken(ack) => {
                let mut response = Response::new(Full::new(Bytes::from_static(ack.body.as_bytes())));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(ack.content_type));
                response
            }
            CallbackAnswer::Refused => status(StatusCode::NOT_FOUND),
            CallbackAnswer::NotNow => {
                let mut response = status(StatusCode::SERVICE_UNAVAILABLE);
                response.headers_mut().insert(RETRY_AFTER, COME_AGAIN);
                response
            }
        }
    }

    /// Who calls: the peer, or whomever it speaks for. Of a chain of proxies the last one that is none of ours counts,
    /// since whatever stands before it anybody can have written.
    fn from(&self, headers: &HeaderMap) -> IpAddr {
        let is_proxy = |address: IpAddr| self.proxies.iter().any(|network| network.contains(&address.to_canonical()));
        if !is_proxy(self.peer) {
            return self.peer;
        }
        let told = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
        let chain: Vec<&str> = told.flat_map(|value| value.split(',')).map(str::trim).collect();
        let mut from = self.peer;
        for address in chain.into_iter().rev() {
            let Ok(address) = address.parse() else { break };
            from = address;
            if !is_proxy(from) {
                break;
            }
        }
        from
    }
}

/// The provider and the token of an address, if it is one of ours.
fn addressed(method: &Method, path: &str) -> Option<(String, Option<String>)> {
    if method != Method::POST {
        return None;
    }
    // An ingress may leave its own prefix in front.
    let (_, rest) = path.split_once(ROOT)?;
    let (provider, token) = match rest.split_once('/') {
        Some((provider, token)) => (provider, Some(token.to_owned())),
        None => (rest, None),
    };
    (!provider.is_empty()).then(|| (provider.to_owned(), token))
}

/// Names are in lower case already.
fn texts(headers: &HeaderMap) -> Vec<(String, String)> {
    let texts =
        headers.iter().filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())));
    texts.collect()
}

fn status(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

/// What is left of the request is not read.
fn closing(code: StatusCode) -> Response<Full<Bytes>> {
    let mut response = status(code);
    response.headers_mut().insert(hyper::header::CONNECTION, HeaderValue::from_static("close"));
    response
}
