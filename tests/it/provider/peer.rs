//! A server that misbehaves as told, below HTTP where it must.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What it does with every connection.
#[derive(Debug, Clone)]
pub(crate) enum Script {
    /// Closes it before reading.
    CloseAtOnce,
    /// Reads a request, then resets.
    ResetAfterRequest,
    /// Reads, and never answers.
    Hang,
    /// Answers every request with these bytes.
    Answer(Vec<u8>),
    /// Answers the first request, then closes, though it said nothing of the kind.
    AnswerOnceThenClose(Vec<u8>),
    /// Answers with half of these bytes, then closes.
    HalfAnAnswer(Vec<u8>),
    /// Sends one byte at a time.
    Drip(Vec<u8>, Duration),
    /// Answers after a while.
    Slow(Vec<u8>, Duration),
    /// Answers the first of these whose text stands in the request's first line; others are not answered.
    ByLine(Vec<(String, Vec<u8>)>),
}

#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) accepted: AtomicUsize,
    pub(super) open: AtomicUsize,
    pub(super) open_max: AtomicUsize,
    pub(super) closed: AtomicUsize,
    /// Closed by the caller with a reset.
    pub(super) reset: AtomicUsize,
    pub(super) bytes: AtomicUsize,
    pub(super) requests: AtomicUsize,
    /// Every request as it came.
    pub(super) texts: Mutex<Vec<String>>,
}

#[derive(Debug)]
pub(crate) struct Peer {
    pub(super) addr: SocketAddr,
    pub(super) seen: Arc<Seen>,
    task: JoinHandle<()>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Peer {
    pub(crate) async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let shared = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                shared.accepted.fetch_add(1, SeqCst);
                let open = shared.open.fetch_add(1, SeqCst) + 1;
                shared.open_max.fetch_max(open, SeqCst);
                let (seen, script) = (Arc::clone(&shared), script.clone());
                tokio::spawn(async move {
                    play(stream, script, &seen).await;
                    seen.open.fetch_sub(1, SeqCst);
                    seen.closed.fetch_add(1, SeqCst);
                });
            }
        });
        Self { addr, seen, task }
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/api/", self.addr)
    }

    pub(super) fn bytes(&self) -> usize {
        self.seen.bytes.load(SeqCst)
    }

    pub(super) fn requests(&self) -> usize {
        self.seen.requests.load(SeqCst)
    }

    /// Every request as it came.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.seen.texts.lock().unwrap().clone()
    }
}

async fn play(mut stream: TcpStream, script: Script, seen: &Seen) {
    if matches!(script, Script::CloseAtOnce) {
        return;
    }
    while let Some(request) = read_request(&mut stream, seen).await {
        match &script {
            Script::CloseAtOnce => return,
            Script::ResetAfterRequest => {
                SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                return;
            }
            Script::Hang => {
                let mut rest = Vec::new();
                if stream.read_to_end(&mut rest).await.is_err() {
                    seen.reset.fetch_add(1, SeqCst);
                }
                seen.bytes.fetch_add(rest.len(), SeqCst);
                return;
            }
            Script::Answer(bytes) => drop(stream.write_all(bytes).await),
            Script::AnswerOnceThenClose(bytes) => {
                drop(stream.write_all(bytes).await);
                return;
            }
            Script::HalfAnAnswer(bytes) => {
                drop(stream.write_all(&bytes[..bytes.len() - 5]).await);
                return;
            }
            Script::Drip(bytes, pause) => {
                for byte in bytes {
                    if stream.write_all(&[*byte]).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(*pause).await;
                }
            }
            Script::ByLine(answers) => {
                let line = request.lines().next().unwrap_or_default();
                let Some((_, bytes)) = answers.iter().find(|(text, _)| line.contains(text.as_str())) else { return };
                drop(stream.write_all(bytes).await);
            }
            Script::Slow(bytes, pause) => {
                tokio::time::sleep(*pause).await;
                drop(stream.write_all(bytes).await);
            }
        }
    }
}

/// `None` at the end of the stream.
async fn read_request(stream: &mut TcpStream, seen: &Seen) -> Option<String> {
    let mut request = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        if let Some(head) = request.windows(4).position(|w| w == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&request[..head]).to_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if request.len() >= head + 4 + length.unwrap_or(0) {
                let text = String::from_utf8_lossy(&request).into_owned();
                seen.texts.lock().unwrap().push(text.clone());
                seen.requests.fetch_add(1, SeqCst);
                return Some(text);
            }
        }
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return None,
            Ok(n) => {
                seen.bytes.fetch_add(n, SeqCst);
                request.extend_from_slice(&chunk[..n]);
            }
        }
    }
}

/// An HTTP/1.1 answer.
pub(crate) fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len()).into_bytes()
}

pub(super) fn success() -> Vec<u8> {
    answer("200 OK", "Content-Type: application/json\r\n", r#"{"status":"succeeded","provider_ref":"S1"}"#)
}
