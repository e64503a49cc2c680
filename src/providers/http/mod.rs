//! HTTP/1.1 for provider adapters, honest about what may have left.
//!
//! A call ends in one of three ways: an answer, *not sent* (no byte of the request left), or
//! *unknown* (a byte left, and no whole answer came). The adapter gives the answer its meaning.
//! No redirects are followed, and nothing is sent twice once a byte has left
//! (`docs/adr/0301-an-http-client-of-our-own.md`).

#[cfg(any(test, fuzzing))]
pub(crate) mod canned;
mod connection;
mod connector;
mod gate;
mod pool;
mod retry_after;
mod used_up;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{HOST, HeaderValue, USER_AGENT};
use hyper::{HeaderMap, Method, Request, StatusCode, Uri};
use tokio::time::{Instant, timeout_at};
use url::Url;

use self::connection::Broken;
use self::connector::Connector;
use self::pool::Pool;
pub use self::retry_after::{WAIT_MAX, retry_after};
use self::used_up::UsedUp;
use crate::domain::{NotSentCause, Timestamp, UnknownCause};
use crate::ports::Clock;

/// The longest answer about one recharge that is read, in bytes.
pub const BODY_MAX: usize = 64 * 1024;

/// How to reach a provider.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// Where its API begins; `http` or `https`.
    pub base_url: Url,
    /// How long one call may take, connecting included.
    pub call_timeout: Duration,
    /// How long opening one connection may take.
    pub connect_timeout: Duration,
    /// A connection that was idle for longer is not used again: the provider is about to close it.
    pub idle_limit: Duration,
    /// The most connections, and so the most calls at once; at least 1.
    pub connections_max: usize,
    /// Trust these roots (PEM) in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// The longest answer that is read, in bytes.
    pub body_max: usize,
}

impl HttpSettings {
    /// With the usual limits: 2 s to connect, 15 s idle.
    pub fn new(base_url: Url, call_timeout: Duration, connections_max: usize) -> Self {
        Self {
            base_url,
            call_timeout,
            connect_timeout: Duration::from_secs(2).min(call_timeout),
            idle_limit: Duration::from_secs(15),
            connections_max,
            ca_file: None,
            body_max: BODY_MAX,
        }
    }
}

/// Why a transport cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Neither `http` nor `https`.
    #[error("base_url: the scheme {0} is not supported, use https or http")]
    Scheme(String),
    /// The URL names no host that can be reached.
    #[error("base_url: it names no host and port")]
    NoHost,
    /// No connection is allowed.
    #[error("in_flight_max: at least one call must be allowed")]
    NoConnections,
    /// The roots could not be read.
    #[error("ca_file: {path} cannot be read as PEM certificates")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: tokio_rustls::rustls::pki_types::pem::Error,
    },
    /// Nobody to trust.
    #[error("no root certificates: the system has none, set ca_file")]
    NoRoots,
    /// The TLS library refused its own defaults.
    #[error("TLS cannot be set up")]
    Tls(#[source] tokio_rustls::rustls::Error),
}

/// A request, relative to the base URL.
#[derive(Clone)]
pub struct HttpRequest {
    /// The method.
    pub method: Method,
    /// What follows the base URL's path: begins with `/`, characters escaped ([`escaped`]).
    pub path: String,
    /// Headers beside `Host`, `User-Agent` and `Content-Length`.
    pub headers: HeaderMap,
    /// The body; empty for none.
    pub body: Bytes,
}

impl std::fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Neither headers (keys) nor body (phone numbers).
        f.debug_struct("HttpRequest").field("method", &self.method).field("path", &self.path).finish_non_exhaustive()
    }
}

/// A whole answer.
#[derive(Clone)]
pub struct HttpResponse {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, at most [`HttpSettings::body_max`] bytes.
    pub body: Bytes,
}

impl std::fmt::Debug for HttpResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpResponse")
            .field("status", &self.status)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// How a call ended.
#[derive(Debug, Clone)]
pub enum HttpResult {
    /// With a whole answer.
    Response(HttpResponse),
    /// No byte of the request left.
    NotSent(NotSentCause),
    /// A byte left, and no whole answer came.
    Unknown(UnknownCause),
}

/// Calls one provider.
#[derive(Debug)]
pub struct HttpTransport {
    clock: Arc<dyn Clock>,
    call_timeout: Duration,
    body_max: usize,
    /// The base URL's path without its last slash.
    base_path: String,
    host: HeaderValue,
    pool: Arc<Pool>,
    used_up: UsedUp,
}

impl HttpTransport {
    /// Opens nothing yet.
    pub fn new(settings: &HttpSettings, clock: Arc<dyn Clock>) -> Result<Self, SettingsError> {
        if settings.connections_max == 0 {
            return Err(SettingsError::NoConnections);
        }
        let connector = Connector::new(settings, Arc::clone(&clock))?;
        let url = &settings.base_url;
        let authority = match (url.host_str(), url.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (Some(host), None) => host.to_owned(),
            (None, _) => return Err(SettingsError::NoHost),
        };
        let host = HeaderValue::try_from(authority).map_err(|_| SettingsError::NoHost)?;
        let pool = Pool::new(
            connector,
            Arc::clone(&clock),
            settings.connections_max,
            settings.connect_timeout,
            settings.idle_limit,
        );
        Ok(Self {
            clock,
            call_timeout: settings.call_timeout,
            body_max: settings.body_max,
            base_path: url.path().trim_end_matches('/').to_owned(),
            host,
            pool,
            used_up: UsedUp::default(),
        })
    }

    /// Until when our limit there is used up, by the provider's own word.
    pub fn used_up_until(&self) -> Option<Timestamp> {
        self.used_up.until(self.clock.now())
    }

    /// Makes sure that up to `wanted` connections stand ready; returns how many do.
    pub async fn connect(&self, wanted: usize) -> usize {
        self.pool.prepare(wanted).await
    }

    /// Makes one call. Its first byte leaves by `send_by` (on [`Clock::since_boot`]) or not at
    /// all, and it ends within the call time-out.
    pub async fn call(&self, request: &HttpRequest, send_by: Duration) -> HttpResult {
        let deadline = Instant::now() + self.call_timeout;
        loop {
            let Some(left) = send_by.checked_sub(self.clock.since_boot()) else {
                return HttpResult::NotSent(NotSentCause::WindowClosed);
            };
            let window_end = deadline.min(Instant::now() + left.min(self.call_timeout));
            let Some(slot) = self.pool.slot(window_end).await else {
                return HttpResult::NotSent(NotSentCause::WindowClosed);
            };
            let (mut connection, is_fresh) = match self.pool.take() {
                Some(connection) => (connection, false),
                None => match timeout_at(window_end, self.pool.open()).await {
                    Ok(Ok(connection)) => (connection, true),
                    Ok(Err(_)) => return HttpResult::NotSent(NotSentCause::Connect),
                    Err(_) => return HttpResult::NotSent(NotSentCause::WindowClosed),
                },
            };
            let Ok(prepared) = self.prepared(request) else {
                return HttpResult::NotSent(NotSentCause::Unbuildable);
            };
            match connection.exchange(prepared, send_by, deadline, self.body_max).await {
                Ok(response) => {
                    self.pool.put_back(connection, slot);
                    self.used_up.note(&response.headers, self.clock.now());
                    return HttpResult::Response(response);
                }
                Err(broken) => {
                    // The connection goes before its slot, so that the bound holds.
                    drop(connection);
                    drop(slot);
                    match broken {
                        // The provider had closed it while it was idle: the next one, or a new one.
                        Broken::Stale if !is_fresh => {}
                        Broken::Stale | Broken::OutOfTime => return HttpResult::NotSent(NotSentCause::Connect),
                        Broken::Refused => return HttpResult::NotSent(NotSentCause::WindowClosed),
                        Broken::Unknown(cause) => return HttpResult::Unknown(cause),
                    }
                }
            }
        }
    }

    fn prepared(&self, request: &HttpRequest) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let uri = Uri::try_from(format!("{}{}", self.base_path, request.path))?;
        let mut built = Request::new(Full::new(request.body.clone()));
        *built.method_mut() = request.method.clone();
        *built.uri_mut() = uri;
        *built.headers_mut() = request.headers.clone();
        built.headers_mut().insert(HOST, self.host.clone());
        built
            .headers_mut()
            .entry(USER_AGENT)
            .or_insert(HeaderValue::from_static(concat!("recharged/", env!("CARGO_PKG_VERSION"))));
        Ok(built)
    }
}

/// A text as one segment of a path: all but unreserved characters become `%XX` (RFC 3986).
pub fn escaped(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            write!(out, "%{byte:02X}").unwrap_or_default();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_segment_is_escaped_where_it_must_be() {
        assert_eq!(escaped("order-7_a.b~-1"), "order-7_a.b~-1");
        assert_eq!(escaped("a/b?c d%é"), "a%2Fb%3Fc%20d%25%C3%A9");
    }

    #[test]
    fn neither_keys_nor_phone_numbers_show_in_debug() {
        let request = HttpRequest {
            method: Method::POST,
            path: "/recharges".to_owned(),
            headers: HeaderMap::from_iter([(HOST, HeaderValue::from_static("canary-key"))]),
            body: Bytes::from_static(b"canary-phone"),
        };
        let response =
            HttpResponse { status: StatusCode::OK, headers: request.headers.clone(), body: request.body.clone() };
        assert!(!format!("{request:?}{response:?}").contains("canary"));
    }
}
