//! The send window, where it can be kept: between the HTTP client and the socket.
//!
//! A process that was stopped after its claim wakes up in the middle of a call. A timer around
//! the call does not help it: the call is polled before its timer, and the bytes are gone. So
//! the socket itself asks, before the first byte of each request, whether the window is still
//! open. Under TLS the gate stands below the encryption, so what it counts is what left.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::ports::Clock;

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Being set up (TLS): bytes pass, none belongs to a request.
    SetUp,
    /// No request is under way: no byte passes.
    Shut,
    /// A request is under way and none of its bytes has left.
    Armed {
        /// The end of its window, on [`Clock::since_boot`].
        send_by: Duration,
    },
    /// At least one byte of the request has left.
    Flowing,
    /// The window had closed before the first byte.
    Refused,
    /// The peer had closed, or spoken out of turn, before the first byte.
    Stale,
}

/// How far the bytes of a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// None left; the connection is to blame.
    Nothing,
    /// None left; the window had closed.
    Refused,
    /// One left, or more.
    Something,
}

/// Opens and shuts one connection; shared between its stream and the call that uses it.
#[derive(Debug)]
pub(super) struct Gate {
    clock: Arc<dyn Clock>,
    phase: Mutex<Phase>,
}

impl Gate {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { clock, phase: Mutex::new(Phase::SetUp) })
    }

    /// The set-up, or an exchange, is over.
    pub(super) fn shut(&self) {
        *self.phase() = Phase::Shut;
    }

    /// A request follows; its first byte must leave by `send_by`.
    pub(super) fn arm(&self, send_by: Duration) {
        *self.phase() = Phase::Armed { send_by };
    }

    /// What has left since [`Gate::arm`].
    pub(super) fn sent(&self) -> Sent {
        match *self.phase() {
            Phase::Flowing => Sent::Something,
            Phase::Refused => Sent::Refused,
            Phase::SetUp | Phase::Shut | Phase::Armed { .. } | Phase::Stale => Sent::Nothing,
        }
    }

    /// Whether an exchange is under way, so that closing the connection breaks it off.
    fn is_mid_exchange(&self) -> bool {
        !matches!(*self.phase(), Phase::SetUp | Phase::Shut)
    }

    /// Asked before every write. The clock is read after everything that could take time.
    pub(super) fn admit(&self, is_stale: impl FnOnce() -> bool) -> io::Result<()> {
        let mut phase = self.phase();
        match *phase {
            Phase::SetUp | Phase::Flowing => Ok(()),
            Phase::Armed { send_by } => {
                if is_stale() {
                    *phase = Phase::Stale;
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
                if self.clock.since_boot() > send_by {
                    *phase = Phase::Refused;
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Ok(())
            }
            Phase::Shut | Phase::Refused | Phase::Stale => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    pub(super) fn wrote(&self) {
        let mut phase = self.phase();
        if matches!(*phase, Phase::Armed { .. }) {
            *phase = Phase::Flowing;
        }
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket behind a [`Gate`].
#[derive(Debug)]
pub(super) struct GatedStream {
    tcp: TcpStream,
    gate: Arc<Gate>,
    encrypted: bool,
}

impl GatedStream {
    pub(super) fn new(tcp: TcpStream, gate: Arc<Gate>, encrypted: bool) -> Self {
        Self { tcp, gate, encrypted }
    }
}

/// Asks the kernel, not the runtime: the runtime may not have heard yet that the peer closed,
/// above all just after the process was stopped. On a quiet HTTP/1.1 connection nothing may lie
/// unread; under TLS it may (session tickets), and only the end of the stream counts.
fn is_stale(tcp: &TcpStream, encrypted: bool) -> bool {
    let suspicious = if encrypted { PollFlags::RDHUP } else { PollFlags::RDHUP | PollFlags::IN };
    let mut sockets = [PollFd::new(tcp, suspicious)];
    // Errors and hang-ups are always told. If the look itself fails, the write will tell.
    poll(&mut sockets, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|events| events > 0)
}

impl AsyncRead for GatedStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_read(cx, buf)
    }
}

/// Not vectored, so that the HTTP client hands over head and body as one buffer.
impl AsyncWrite for GatedStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Self { tcp, gate, encrypted } = self.get_mut();
        gate.admit(|| is_stale(tcp, *encrypted))?;
        let written = Pin::new(tcp).poll_write(cx, buf);
        if matches!(written, Poll::Ready(Ok(n)) if n > 0) {
            gate.wrote();
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}

impl Drop for GatedStream {
    /// A call that is broken off must leave nothing in the send buffer that could still reach
    /// the provider later: with a linger of zero, closing discards it and resets the connection.
    fn drop(&mut self) {
        if self.gate.is_mid_exchange()
            && let Err(error) = SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO))
        {
            tracing::debug!(%error, "a broken call's connection is closed without a reset");
        }
    }
}
