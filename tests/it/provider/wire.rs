//! The simulator's answers as they are on the wire, without any client's opinion of them.

use std::time::Duration;

use recharged::providers::simulator::{FaultClass, Profile, Script, Step};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::simulator::Run;

/// So long a caller waits for an answer that never comes.
pub(super) const PATIENT: Duration = Duration::from_millis(1_500);

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wire {
    /// Nobody listens.
    Refused,
    /// The connection was reset.
    Reset,
    /// No byte within [`PATIENT`].
    Silence,
    /// A beginning, and no end within [`PATIENT`].
    Unfinished(String),
    /// The whole of it: status, head and body.
    Answer(u16, String, String),
}

impl Wire {
    pub(super) fn status(&self) -> u16 {
        match self {
            Self::Answer(status, ..) => *status,
            other => panic!("{other:?} is no answer"),
        }
    }

    pub(super) fn body(&self) -> &str {
        match self {
            Self::Answer(_, _, body) => body,
            other => panic!("{other:?} is no answer"),
        }
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(self.body()).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A header, by its lowercase name.
    pub(super) fn header(&self, name: &str) -> Option<String> {
        let Self::Answer(_, head, _) = self else { panic!("{self:?} is no answer") };
        let line =
            head.lines().find_map(|line| line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)));
        line.map(|(_, value)| value.to_owned())
    }
}

impl Run {
    /// One request on a connection of its own.
    pub(super) async fn wire(&self, method: &str, path: &str, body: &str) -> Wire {
        let Ok(mut stream) = TcpStream::connect(self.simulator.addr()).await else { return Wire::Refused };
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: s\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        let read = tokio::time::timeout(PATIENT, stream.read_to_end(&mut bytes)).await;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        match (read, text.split_once("\r\n\r\n")) {
            (Ok(Err(_)), _) => Wire::Reset,
            (Err(_), _) if text.is_empty() => Wire::Silence,
            (Err(_), _) => Wire::Unfinished(text),
            (Ok(Ok(_)), Some((head, body))) => {
                let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                Wire::Answer(status, head.to_owned(), body.to_owned())
            }
            (Ok(Ok(_)), None) => panic!("no answer: {text:?}"),
        }
    }

    pub(super) async fn post(&self, reference: &str) -> Wire {
        self.post_to(reference, "+8613800000042").await
    }

    pub(super) async fn post_to(&self, reference: &str, phone: &str) -> Wire {
        let order = json!({ "client_ref": reference, "phone": phone, "amount_minor": 5_000, "currency": "CNY" });
        self.wire("POST", "/recharges", &order.to_string()).await
    }

    pub(super) async fn get(&self, reference: &str) -> Wire {
        self.wire("GET", &format!("/recharges/{reference}"), "").await
    }

    /// What the next submit meets.
    pub(super) fn next(&self, then: impl ToString) {
        let step = Step { next: Some(1), then: Some(then.to_string()), ..Step::default() };
        self.simulator.script(&Script { steps: vec![step] }).unwrap();
    }

    /// How many requests and orders a class has struck.
    pub(super) fn struck(&self, class: FaultClass) -> (u64, u64) {
        let strikes = self.simulator.strikes();
        let strike = strikes.iter().find(|strike| strike.class == class).unwrap();
        (strike.requests, strike.orders)
    }

    /// How many orders it has struck of which no script spoke.
    pub(super) fn by_chance(&self, class: FaultClass) -> u64 {
        self.simulator.strikes().iter().find(|strike| strike.class == class).unwrap().by_chance
    }

    pub(super) fn set(&self, profile: Profile) {
        self.simulator.set_profile(profile).unwrap();
    }
}
