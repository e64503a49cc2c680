//! Whoever takes callbacks: a server that answers as told, and keeps what came, byte for byte.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use md5::{Digest as _, Md5};
use recharged::providers::simulator::Dialect;
use serde_json::Value;
use sha2::Sha256;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// What it does with a callback.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    /// The status, headers each with a line end, and the body.
    Say(&'static str, &'static str, &'static str),
    /// Nothing, ever.
    Silence,
}

/// Good for every dialect.
pub(super) const THANKS: Answer = Answer::Say("200 OK", "", "SUCCESS");
/// What no dialect takes for an acknowledgement.
pub(super) const TROUBLE: Answer = Answer::Say("500 Internal Server Error", "", "");

/// A callback as it came.
#[derive(Debug, Clone)]
pub(super) struct Got {
    pub(super) at: Instant,
    /// All of it.
    pub(super) raw: Vec<u8>,
    pub(super) method: String,
    pub(super) path: String,
    /// By lowercase names.
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

type Judge = Arc<dyn Fn(&Got) -> Answer + Send + Sync>;

pub(super) struct Receiver {
    pub(super) addr: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
    /// Answered but one connection at a time: callbacks without an answer yet.
    open_max: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    /// Gives these answers in turn, and the last one ever after.
    pub(super) async fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        let answers: Mutex<VecDeque<Answer>> = Mutex::new(answers.into_iter().collect());
        Self::judging(move |_| {
            let mut answers = answers.lock().unwrap();
            if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0].clone() }
        })
        .await
    }

    pub(super) async fn judging(judge: impl Fn(&Got) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (got, open_max) = (Arc::<Mutex<Vec<Got>>>::default(), Arc::<AtomicUsize>::default());
        let (kept, most, judge): (_, _, Judge) = (Arc::clone(&got), Arc::clone(&open_max), Arc::new(judge));
        let open = Arc::<AtomicUsize>::default();
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (kept, most, open, judge) =
                    (Arc::clone(&kept), Arc::clone(&most), Arc::clone(&open), Arc::clone(&judge));
                tokio::spawn(async move {
                    most.fetch_max(open.fetch_add(1, SeqCst) + 1, SeqCst);
                    serve(&mut stream, &kept, &judge).await;
                    open.fetch_sub(1, SeqCst);
                });
            }
        });
        Self { addr, got, open_max, task }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// Everything that came, in its order.
    pub(super) fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    pub(super) fn count(&self) -> usize {
        self.got.lock().unwrap().len()
    }

    /// The most connections at once.
    pub(super) fn open_max(&self) -> usize {
        self.open_max.load(SeqCst)
    }
}

async fn serve(stream: &mut TcpStream, kept: &Mutex<Vec<Got>>, judge: &Judge) {
    while let Some(raw) = read(stream).await {
        let got = Got::of(raw);
        let answer = judge(&got);
        kept.lock().unwrap().push(got);
        match answer {
            Answer::Say(status, headers, body) => {
                let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
                let whole = [head.as_bytes(), body.as_bytes()].concat();
                if stream.write_all(&whole).await.is_err() {
                    return;
                }
            }
            // Until the other side gives up.
            Answer::Silence => drop(stream.read(&mut [0]).await),
        }
    }
}

/// One request; `None` at the end of the stream.
async fn read(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut request = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        if let Some(head) = request.windows(4).position(|window| window == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&request[..head]).to_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if request.len() >= head + 4 + length.unwrap_or(0) {
                return Some(request);
            }
        }
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return None,
            Ok(n) => request.extend_from_slice(&chunk[..n]),
        }
    }
}

impl Got {
    fn of(raw: Vec<u8>) -> Self {
        let head = raw.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let text = String::from_utf8(raw[..head].to_vec()).unwrap();
        let mut lines = text.lines();
        let mut first = lines.next().unwrap().split(' ').map(str::to_owned);
        let headers = lines.map(|line| line.split_once(": ").unwrap());
        let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        let (method, path) = (first.next().unwrap(), first.next().unwrap());
        let body = raw[head + 4..].to_vec();
        Self { at: Instant::now(), raw, method, path, headers, body }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(super) fn form(&self) -> Vec<(String, String)> {
        url::form_urlencoded::parse(&self.body).into_owned().collect()
    }

    /// Whether it is signed with this secret, as the dialect's documents say.
    pub(super) fn is_signed(&self, dialect: Dialect, secret: &str) -> bool {
        match dialect {
            Dialect::Own => {
                let (Some(id), Some(at)) = (self.header("webhook-id"), self.header("webhook-timestamp")) else {
                    return false;
                };
                let signed = [id.as_bytes(), b".", at.as_bytes(), b".", &self.body].concat();
                let expected = format!("v1,{}", STANDARD.encode(hmac(secret, &signed)));
                self.header("webhook-signature") == Some(expected.as_str())
            }
            Dialect::Dtone => false,
            Dialect::Mf178 => {
                let mut form = self.form();
                form.sort();
                let (signs, signed): (Vec<_>, Vec<_>) = form.into_iter().partition(|(name, _)| name == "sign");
                let text: String = signed.into_iter().map(|(name, value)| name + &value).collect();
                signs == [("sign".to_owned(), hex(&Md5::digest(text + secret)))]
            }
            Dialect::Reloadly => {
                let Some(at) = self.header("x-reloadly-request-timestamp") else { return false };
                let signed = [&self.body, b":".as_slice(), at.as_bytes()].concat();
                self.header("x-reloadly-signature") == Some(hex(&hmac(secret, &signed)).as_str())
            }
        }
    }

    /// When it says that it was signed.
    pub(super) fn timestamp(&self, dialect: Dialect) -> Option<i64> {
        match dialect {
            Dialect::Own => self.header("webhook-timestamp")?.parse().ok(),
            Dialect::Dtone => None,
            Dialect::Mf178 => self.form().into_iter().find(|(name, _)| name == "timestamp")?.1.parse().ok(),
            Dialect::Reloadly => self.header("x-reloadly-request-timestamp")?.parse().ok(),
        }
    }

    /// The reference that it is about, and how that stands.
    pub(super) fn says(&self, dialect: Dialect) -> (String, String) {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        match dialect {
            Dialect::Own => (text(&self.json()["client_ref"]), text(&self.json()["status"])),
            Dialect::Dtone => (text(&self.json()["external_id"]), text(&self.json()["status"]["class"]["message"])),
            Dialect::Mf178 => {
                let field = |wanted: &str| self.form().into_iter().find(|(name, _)| name == wanted).unwrap().1;
                (field("third_id"), field("state"))
            }
            Dialect::Reloadly => {
                assert_eq!(self.json()["type"], "airtime_transaction.status");
                let data = &self.json()["data"];
                (text(&data["customIdentifier"]), text(&data["status"]))
            }
        }
    }
}

fn hmac(secret: &str, text: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
