//! One request to whoever takes callbacks, and its answer.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::super::dialect::Letter;
use super::CallbackUrl;

/// The longest answer that is read, in bytes.
const ANSWER_MAX: usize = 64 * 1024;
/// The most connections that rest.
const IDLE_MAX: usize = 256;
/// A connection that can be used again shows it so soon; the answer has been read already.
const READY_MAX: Duration = Duration::from_millis(20);
/// One that has rested longer may be closed at the other end already.
const REST_MAX: Duration = Duration::from_secs(2);

type Connection = SendRequest<Full<Bytes>>;

/// Why there is no answer: of no interest, since all of it is tried again.
#[derive(Debug, thiserror::Error)]
#[error("no answer to a callback")]
pub(super) struct NoAnswer;

/// Connections that can be used again.
#[derive(Debug, Default)]
pub(super) struct Client {
    idle: Mutex<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    to: CallbackUrl,
    connection: Connection,
    since: Instant,
}

impl Client {
    /// The status and the body. A redirect is an answer like any other.
    pub(super) async fn post(&self, to: &CallbackUrl, letter: &Letter) -> Result<(u16, Bytes), NoAnswer> {
        let (mut connection, was_idle) = match self.rested(to) {
            Some(connection) => (connection, true),
            None => (connect(to).await?, false),
        };
        let response = match connection.send_request(request(to, letter)?).await {
            // It was closed while it rested: nobody has seen the request.
            Err(error) if was_idle && error.is_canceled() => {
                connection = connect(to).await?;
                connection.send_request(request(to, letter)?).await
            }
            other => other,
        };
        let (head, body) = response.map_err(|_| NoAnswer)?.into_parts();
        let body = Limited::new(body, ANSWER_MAX).collect().await.map_err(|_| NoAnswer)?.to_bytes();
        if let Ok(Ok(())) = timeout(READY_MAX, connection.ready()).await {
            self.rests(to, connection);
        }
        Ok((head.status.as_u16(), body))
    }

    fn rested(&self, to: &CallbackUrl) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|idle| idle.connection.is_ready() && idle.since.elapsed() < REST_MAX);
        let place = idle.iter().rposition(|idle| idle.to.authority() == to.authority())?;
        Some(idle.swap_remove(place).connection)
    }

    fn rests(&self, to: &CallbackUrl, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(Idle { to: to.clone(), connection, since: Instant::now() });
        }
    }
}

/// The connection is driven by a task, which ends with it.
async fn connect(to: &CallbackUrl) -> Result<Connection, NoAnswer> {
    let stream = TcpStream::connect((to.host(), to.port())).await.map_err(|_| NoAnswer)?;
    stream.set_nodelay(true).map_err(|_| NoAnswer)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|_| NoAnswer)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::trace!(%error, "a connection for callbacks broke");
        }
    });
    Ok(sender)
}

fn request(to: &CallbackUrl, letter: &Letter) -> Result<Request<Full<Bytes>>, NoAnswer> {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(to.path())
        .header(HOST, to.authority())
        .header(CONTENT_TYPE, letter.content_type);
    for (name, value) in &letter.headers {
        request = request.header(*name, value);
    }
    request.body(Full::new(letter.body.clone())).map_err(|_| NoAnswer)
}
