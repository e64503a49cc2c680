//! The listener for callbacks: whatever comes over its wire.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::world::{silently, wait};
use crate::callbacks::{BODY_MAX, serve_connection};
use crate::ports::{Acknowledgement, CallbackAnswer, CallbackDoor, RawCallback};

/// Longer than anybody may keep a connection: many requests, each as slow as it may be.
const IN_THE_END: Duration = Duration::from_hours(1);

/// Hears what gets through, and answers as its first byte says.
#[derive(Debug, Default)]
struct Noting(Mutex<Vec<RawCallback>>);

#[async_trait]
impl CallbackDoor for Noting {
    async fn take(&self, callback: RawCallback) -> CallbackAnswer {
        let answer = match callback.body.first() {
            Some(b'n') => CallbackAnswer::NotNow,
            Some(b'r') => CallbackAnswer::Refused,
            _ => CallbackAnswer::Taken(Acknowledgement::PLAIN),
        };
        self.0.lock().unwrap().push(callback);
        answer
    }
}

/// A caller who sends these bytes, and then waits.
struct Wire<'a> {
    left: &'a [u8],
    heard: Rc<RefCell<Vec<u8>>>,
}

impl AsyncRead for Wire<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.left.is_empty() {
            return Poll::Pending;
        }
        let (now, later) = self.left.split_at(self.left.len().min(buf.remaining()));
        buf.put_slice(now);
        self.left = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.heard.borrow_mut().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Everything that a peer can send to the listener. It ends, answers in one of a few ways, and hands on nothing but a
/// POST to an address of ours, with a body no longer than may be.
pub fn listener(bytes: &[u8]) {
    let (heard, door) = (Rc::new(RefCell::new(Vec::new())), Arc::new(Noting::default()));
    let wire = Wire { left: bytes, heard: Rc::clone(&heard) };
    let proxy = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    let proxies = vec!["10.0.0.0/8".parse().unwrap()];
    let served = serve_connection(wire, Arc::clone(&door) as Arc<dyn CallbackDoor>, proxies, proxy);
    silently(|| wait(async { tokio::time::timeout(IN_THE_END, served).await })).expect("a connection that never ends");
    let handed_on = door.0.lock().unwrap();
    for callback in handed_on.iter() {
        assert!(!callback.provider.is_empty() && !callback.provider.contains('/'), "no provider was named");
        assert!(callback.body.len() <= BODY_MAX, "a body that is too long");
        assert!(callback.headers.iter().all(|(name, _)| *name == name.to_ascii_lowercase()), "names in lower case");
        let is_alone = |name: &str| callback.header(name).is_none_or(|_| count(callback, name) == 1);
        assert!(callback.headers.iter().all(|(name, _)| is_alone(name)), "a header that stands twice counts");
        assert_eq!(format!("{callback:?}"), format!("RawCallback({} bytes)", callback.body.len()));
    }
    check_answers(&heard.borrow(), handed_on.len());
}

fn count(callback: &RawCallback, name: &str) -> usize {
    callback.headers.iter().filter(|(other, _)| other == name).count()
}

/// Answers are short, and hold nothing of what was asked.
fn check_answers(heard: &[u8], handed_on: usize) {
    const KNOWN: [&str; 8] = ["100", "200", "400", "404", "408", "413", "431", "503"];
    let text = std::str::from_utf8(heard).expect("answers are plain text");
    let mut answered = 0;
    for line in text.split("\r\n") {
        // The body of an answer is followed by the next one at once.
        let Some((_, line)) = line.split_once("HTTP/1.1 ").or_else(|| line.split_once("HTTP/1.0 ")) else { continue };
        let status = line.get(..3).unwrap_or_default();
        assert!(KNOWN.contains(&status), "an answer of another kind");
        answered += usize::from(status == "200" || status == "503");
    }
    assert!(answered <= handed_on, "it was taken, and nobody has heard of it");
    let names = ["content-length", "content-type", "date", "retry-after", "connection"];
    for line in text.split("\r\n").filter(|line| !line.contains("HTTP/1.") && line.contains(": ")) {
        let name = line.split_once(": ").unwrap_or_default().0;
        assert!(names.contains(&name.trim_start_matches("ok")), "a header of another kind");
    }
}
