//! Replies that lie ready in place of a provider, for the fuzz targets: all that a thread's calls meet is what it has put
//! here. The whole client works on them, its gate included; only the socket is none.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::Wire;
use super::gate::Gate;

thread_local! {
    static READY: RefCell<Option<Ready>> = const { RefCell::new(None) };
}

type Answer = Box<dyn FnMut(&[u8]) -> Option<Bytes>>;

struct Ready {
    answer: Answer,
    requests: Vec<Vec<u8>>,
}

/// While it lives, this thread's calls are answered by it: with the bytes of a whole reply, or not at all; the
/// connection is closed then before anything leaves.
#[derive(Debug)]
pub(crate) struct Canned(());

impl Canned {
    /// `answer` is shown the beginning of a request.
    pub(crate) fn new(answer: impl FnMut(&[u8]) -> Option<Bytes> + 'static) -> Self {
        READY.with_borrow_mut(|slot| *slot = Some(Ready { answer: Box::new(answer), requests: Vec::new() }));
        Self(())
    }

    /// What was sent so far: a request each.
    #[expect(clippy::unused_self, reason = "there are requests for as long as it lives")]
    pub(crate) fn requests(&self) -> Vec<Vec<u8>> {
        READY.with_borrow(|slot| slot.as_ref().map(|ready| ready.requests.clone()).unwrap_or_default())
    }
}

impl Drop for Canned {
    fn drop(&mut self) {
        READY.with_borrow_mut(|slot| *slot = None);
    }
}

/// A connection to what lies ready, if anything does.
pub(super) fn wire(gate: &Arc<Gate>) -> Option<Box<dyn Wire>> {
    let is_ready = READY.with_borrow(Option::is_some);
    is_ready.then(|| Box::new(CannedWire { gate: Arc::clone(gate), reply: None, reader: None }) as Box<dyn Wire>)
}

/// It is closed behind one exchange.
struct CannedWire {
    gate: Arc<Gate>,
    reply: Option<Bytes>,
    reader: Option<Waker>,
}

impl AsyncRead for CannedWire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(reply) = &mut self.reply else {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        };
        let count = reply.len().min(buf.remaining());
        buf.put_slice(&reply.copy_to_bytes(count));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for CannedWire {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.gate.admit(|| false)?;
        let is_begun = self.reply.is_some();
        let reply = READY.with_borrow_mut(|slot| {
            let ready = slot.as_mut()?;
            let reply = if is_begun { None } else { Some((ready.answer)(bytes)?) };
            match ready.requests.last_mut().filter(|_| is_begun) {
                Some(request) => request.extend_from_slice(bytes),
                None => ready.requests.push(bytes.to_vec()),
            }
            reply
        });
        if !is_begun {
            self.reply = Some(reply.ok_or(io::ErrorKind::ConnectionReset)?);
        }
        self.gate.wrote();
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
