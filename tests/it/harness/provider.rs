//! A provider as a process of its own, which can be killed: its simulator, in a dialect, with a ledger that outlives it.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use recharged::providers::simulator::{Dialect, Profile};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::PATIENCE;

const ACCOUNT: &str = "us";
const KEY: &str = "a key of both sides";

pub(crate) struct Provider {
    dialect: Dialect,
    address: SocketAddr,
    folder: tempfile::TempDir,
    child: Option<Child>,
    /// Bound, and never listening: nobody else takes the port while the provider is dead.
    _holder: TcpSocket,
}

impl Provider {
    /// One that does not live yet.
    pub(crate) fn new(dialect: Dialect, profile: &Profile) -> Self {
        let holder = TcpSocket::new_v4().unwrap();
        holder.set_reuseaddr(true).unwrap();
        holder.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("profile.toml"), toml::to_string(profile).unwrap()).unwrap();
        std::fs::write(folder.path().join("key"), KEY).unwrap();
        Self { dialect, address: holder.local_addr().unwrap(), folder, child: None, _holder: holder }
    }

    pub(crate) fn dialect(&self) -> Dialect {
        self.dialect
    }

    pub(crate) fn name(&self) -> &'static str {
        self.dialect.as_str()
    }

    pub(crate) fn ledger(&self) -> PathBuf {
        self.folder.path().join("ledger.jsonl")
    }

    /// What every configuration of it begins with.
    pub(crate) fn toml(&self) -> String {
        format!(
            "[providers.{name}]\nkind = {name:?}\nbase_url = \"http://{}\"\naccount = {ACCOUNT:?}\nkey_file = {:?}\n",
            self.address,
            self.folder.path().join("key"),
            name = self.name(),
        )
    }

    /// Begins to live, or lives again: what it has delivered it knows from its ledger.
    pub(crate) async fn live(&mut self) {
        let file = |name: &str| self.folder.path().join(name);
        let log = File::options().create(true).append(true).open(file("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_recharged"))
            .args(["simulate", "--dialect", self.name(), "--listen", &self.address.to_string()])
            .args(["--account", ACCOUNT, "--seed", "7", "--currency", "CNY", "--key-file"])
            .arg(file("key"))
            .arg("--profile")
            .arg(file("profile.toml"))
            .arg("--ledger")
            .arg(self.ledger())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        self.child = Some(child.unwrap());
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.address).await.is_err() {
            let log = std::fs::read_to_string(file("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "{} does not listen: {log}", self.name());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Nobody listens there for so long; what it has in hand goes on.
    pub(crate) async fn refuse_for(&self, lasts: Duration) {
        let body = format!("{{\"lasts\":\"{}ms\"}}", lasts.as_millis());
        self.administer("POST", "outage", &body).await;
    }

    /// How many requests each class of trouble has struck since it began to live, by the class's name.
    pub(crate) async fn strikes(&self) -> BTreeMap<String, u64> {
        let strikes: Vec<Value> = serde_json::from_str(&self.administer("GET", "strikes", "").await).unwrap();
        let count = |strike: Value| Some((strike["class"].as_str()?.to_owned(), strike["requests"].as_u64()?));
        strikes.into_iter().filter_map(count).collect()
    }

    /// How many recharges it was asked for since then.
    pub(crate) async fn submits(&self) -> u64 {
        let stats: Value = serde_json::from_str(&self.administer("GET", "stats", "").await).unwrap();
        stats["submits"].as_u64().unwrap()
    }

    async fn administer(&self, method: &str, what: &str, body: &str) -> String {
        let request = format!(
            "{method} /_admin/{what} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nAuthorization: Bearer {KEY}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{what}: {answer}");
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.kill();
    }
}
