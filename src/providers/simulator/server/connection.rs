//! Connections: taken while there is no outage, and reset where a fault asks for it.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use futures_util::FutureExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::super::engine::Engine;
use super::ResetConnection;

/// The most connections at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 4_096;
/// A queue that takes the opening of a whole pool at once; the usual one of 128 does not.
const QUEUE: u32 = 4_096;
/// How long open requests may take to end when the simulator stops.
const DRAIN: Duration = Duration::from_secs(1);

/// An address of ours: it stays ours while nothing listens there.
#[derive(Debug)]
pub(in super::super) struct Door {
    address: SocketAddr,
    listener: Option<TcpListener>,
    /// Bound, and never listening: connections are refused, and nobody else can take the port.
    _holder: TcpSocket,
}

impl Door {
    pub(in super::super) fn open(address: SocketAddr) -> io::Result<Self> {
        let holder = bound(address)?;
        let address = holder.local_addr()?;
        let listener = Some(bound(address)?.listen(QUEUE)?);
        Ok(Self { address, listener, _holder: holder })
    }

    pub(in super::super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who comes next; nobody while it is shut.
    async fn accept(&self, slots: &Arc<Semaphore>) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
        let Some(listener) = &self.listener else { return std::future::pending().await };
        let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        Ok((stream, slot))
    }

    /// Nobody listens from here on. Those who had come before are still let in: a listener that
    /// goes resets whoever waits at it, with a request sent that nobody has seen.
    fn shut(&mut self, slots: &Arc<Semaphore>) -> Vec<(TcpStream, OwnedSemaphorePermit)> {
        let Some(listener) = self.listener.take() else { return Vec::new() };
        let mut waiting = Vec::new();
        while let Ok(slot) = Arc::clone(slots).try_acquire_owned()
            && let Some(Ok((stream, _))) = listener.accept().now_or_never()
        {
            waiting.push((stream, slot));
        }
        waiting
    }

    fn reopen(&mut self) {
        match bound(self.address).and_then(|socket| socket.listen(QUEUE)) {
            Ok(listener) => self.listener = Some(listener),
            Err(error) => tracing::error!(%error, "the simulator cannot listen again; it tries on"),
        }
    }
}

fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Serves until the engine is stopped, then lets open requests end for a moment.
pub(in super::super) async fn serve(mut door: Door, engine: Arc<Engine>) {
    /// A listener that could not be had again is asked for so soon.
    const AGAIN: Duration = Duration::from_millis(100);
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let router = TowerToHyperService::new(super::router(Arc::clone(&engine)));
    let mut connections = JoinSet::new();
    let mut outages = engine.windows.outages();
    let mut again_at: Option<Instant> = None;
    loop {
        // First the end, then outages, then room for what ended, then what is new.
        let accepted = tokio::select! {
            biased;
            () = engine.stop.cancelled() => break,
            Ok(()) = outages.changed() => {
                again_at = *outages.borrow_and_update();
                if again_at.is_some() {
                    for (stream, slot) in door.shut(&slots) {
                        connections.spawn(serve_one(stream, router.clone(), Arc::clone(&engine), slot));
                    }
                }
                continue;
            }
            () = at(again_at) => {
                door.reopen();
                again_at = if door.listener.is_some() { None } else { Some(Instant::now() + AGAIN) };
                continue;
            }
            Some(_) = connections.join_next() => continue,
            accepted = door.accept(&slots) => accepted,
        };
        match accepted {
            Ok((stream, slot)) => {
                connections.spawn(serve_one(stream, router.clone(), Arc::clone(&engine), slot));
            }
            Err(error) => {
                // Out of file descriptors, mostly: some will be given back.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    drop(door);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::debug!(left = connections.len(), "dropping connections that did not end in time");
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

async fn serve_one(
    tcp: TcpStream,
    router: TowerToHyperService<Router>,
    engine: Arc<Engine>,
    _slot: OwnedSemaphorePermit,
) {
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
    let mut outages = engine.windows.outages();
    outages.mark_unchanged();
    let ended = tokio::select! {
        // Requests first: they are what the connection is for.
        biased;
        ended = connection.as_mut() => ended,
        // Ends once the request that is under way has been answered, and at once if none is.
        () = async { tokio::select! { () = engine.stop.cancelled() => {}, _ = outages.changed() => {} } } => {
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
