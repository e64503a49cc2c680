//! One HTTP/1.1 connection, and one exchange over it.
//!
//! The connection is driven by the call that uses it, not by a task of its own: no hop between
//! threads, nothing to clean up, and dropping the call drops the socket.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::HttpResponse;
use super::gate::{Gate, Sent};
use super::pool::OpenCount;
use crate::domain::UnknownCause;

/// A socket with or without TLS.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

type Driver = http1::Connection<TokioIo<Box<dyn Wire>>, Full<Bytes>>;

/// Why an exchange brought no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// No byte left: the connection was no good.
    Stale,
    /// No byte left: the window had closed.
    Refused,
    /// No byte left, and the call's time is over.
    OutOfTime,
    /// A byte left.
    Unknown(UnknownCause),
}

/// An open connection. It carries one request at a time.
pub(super) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    /// `None` once it has ended.
    driver: Option<Driver>,
    gate: Arc<Gate>,
    /// When it was last of use, on `Clock::since_boot`.
    pub(super) idle_since: Duration,
    _counted: OpenCount,
}

impl Connection {
    /// Over an open socket whose gate is still in its set-up phase.
    pub(super) async fn start(
        wire: Box<dyn Wire>,
        gate: Arc<Gate>,
        counted: OpenCount,
        now: Duration,
    ) -> hyper::Result<Self> {
        let (sender, driver) = http1::Builder::new().writev(false).handshake(TokioIo::new(wire)).await?;
        gate.shut();
        let mut connection = Self { sender, driver: Some(driver), gate, idle_since: now, _counted: counted };
        connection.is_ready();
        Ok(connection)
    }

    /// Whether it can take a request, as far as one look tells.
    pub(super) fn is_ready(&mut self) -> bool {
        step(&mut self.driver, &mut Context::from_waker(Waker::noop()));
        self.driver.is_some() && self.sender.is_ready()
    }

    /// Sends a request and reads the whole answer, all before `deadline`, up to `body_max` bytes. After an
    /// error the connection must be dropped.
    pub(super) async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        send_by: Duration,
        deadline: Instant,
        body_max: usize,
    ) -> Result<HttpResponse, Broken> {
        self.gate.arm(send_by);
        let answer = tokio::time::timeout_at(deadline, self.answer(request, body_max)).await;
        match (answer, self.gate.sent()) {
            (Ok(Ok(response)), _) => {
                self.gate.shut();
                Ok(response)
            }
            (_, Sent::Refused) => Err(Broken::Refused),
            (Ok(Err(_)), Sent::Nothing) => Err(Broken::Stale),
            (Err(_), Sent::Nothing) => Err(Broken::OutOfTime),
            (Ok(Err(cause)), Sent::Something) => Err(Broken::Unknown(cause)),
            (Err(_), Sent::Something) => Err(Broken::Unknown(UnknownCause::Timeout)),
        }
    }

    async fn answer(&mut self, request: Request<Full<Bytes>>, body_max: usize) -> Result<HttpResponse, UnknownCause> {
        let sending = self.sender.send_request(request);
        let response = drive(&mut self.driver, sending).await.map_err(|error| cause_of(&error))?;
        let (head, body) = response.into_parts();
        let body = drive(&mut self.driver, read_to_end(body, body_max)).await?;
        Ok(HttpResponse { status: head.status, headers: head.headers, body })
    }
}

/// The whole body, or the refusal of one that is longer than any documented answer.
async fn read_to_end(mut body: Incoming, body_max: usize) -> Result<Bytes, UnknownCause> {
    if body.size_hint().lower() > body_max as u64 {
        return Err(UnknownCause::BrokenBody);
    }
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| cause_of(&error))?;
        if let Some(data) = frame.data_ref() {
            if whole.len() + data.len() > body_max {
                return Err(UnknownCause::BrokenBody);
            }
            whole.extend_from_slice(data);
        }
    }
    Ok(whole.freeze())
}

/// Runs a future that waits for the connection, and the connection with it.
async fn drive<F: Future>(driver: &mut Option<Driver>, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|cx| {
        step(driver, cx);
        future.as_mut().poll(cx)
    })
    .await
}

/// One step of the connection. How it ended is of no interest: the request's own future tells.
fn step(driver: &mut Option<Driver>, cx: &mut Context<'_>) {
    if let Some(connection) = driver
        && Pin::new(connection).poll(cx).is_ready()
    {
        *driver = None;
    }
}

fn cause_of(error: &hyper::Error) -> UnknownCause {
    if error.is_parse() { UnknownCause::BrokenBody } else { UnknownCause::Reset }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("gate", &self.gate).finish_non_exhaustive()
    }
}
