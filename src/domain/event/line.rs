//! An entry as the log holds it: one line of JSON. Reading it whole is for people and replays;
//! the relay, which reads every entry there ever was, borrows what it publishes.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{EventType, LoggedEvent, RefundMade, RefundNote};
use crate::domain::Timestamp;
use crate::domain::ids::OrderId;
use crate::domain::state::{Reason, Sla, State};

/// A stored line is not one of ours: another version's, or someone else's hand.
#[derive(Debug, thiserror::Error)]
#[error("an entry of the event log holds what this build does not know, at column {column}")]
pub struct BadLine {
    /// Where; the text itself is not quoted.
    column: usize,
}

impl From<serde_json::Error> for BadLine {
    fn from(error: serde_json::Error) -> Self {
        Self { column: error.column() }
    }
}

/// Longer than most lines, so that they are written in one piece.
const LINE_LEN: usize = 320;

/// What stands before the data; their names do not meet.
#[derive(Serialize)]
struct Head<'a> {
    id: &'a OrderId,
    v: u32,
    k: EventType,
    #[serde(with = "chrono::serde::ts_microseconds")]
    at: Timestamp,
}

/// A [`Head`] read back.
#[derive(Deserialize)]
struct Key {
    id: OrderId,
    v: u32,
    k: EventType,
    #[serde(with = "chrono::serde::ts_microseconds")]
    at: Timestamp,
}

impl LoggedEvent {
    /// The entry as a line of JSON, without the line's end (JSON escapes those within texts).
    pub fn to_line(&self) -> String {
        let head = Head { id: &self.order_id, v: self.version, k: self.kind, at: self.at };
        let mut line = Vec::with_capacity(LINE_LEN);
        // Serialising these plain structures to memory cannot fail; an empty line would not read back.
        write_as_one(&mut line, &head, &self.data).ok().and_then(|()| String::from_utf8(line).ok()).unwrap_or_default()
    }

    /// Reads a line back.
    pub fn from_line(line: &str) -> Result<Self, BadLine> {
        let key: Key = serde_json::from_str(line)?;
        let data = serde_json::from_str(line)?;
        Ok(Self { order_id: key.id, version: key.v, kind: key.k, at: key.at, data })
    }
}

/// Two objects as one. (`serde(flatten)` would make a map of every field.)
fn write_as_one(line: &mut Vec<u8>, head: &impl Serialize, rest: &impl Serialize) -> serde_json::Result<()> {
    serde_json::to_writer(&mut *line, head)?;
    line.pop();
    let seam = line.len();
    serde_json::to_writer(&mut *line, rest)?;
    if let Some(brace) = line.get_mut(seam) {
        *brace = b',';
    }
    Ok(())
}

/// A text that is copied only where JSON had to escape something in it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// What the world is told of an entry, borrowed from its line.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Announcement<'a> {
    /// Whose.
    #[serde(rename = "id", borrow)]
    pub order_id: Cow<'a, str>,
    /// The order's version after it.
    #[serde(rename = "v")]
    pub version: u32,
    /// What happened.
    #[serde(rename = "k")]
    pub kind: EventType,
    /// When, on the database's clock.
    #[serde(with = "chrono::serde::ts_microseconds")]
    pub at: Timestamp,
    /// The state after it.
    #[serde(rename = "st")]
    pub state: State,
    /// The deadline after it.
    #[serde(rename = "dl", with = "chrono::serde::ts_microseconds")]
    pub deadline_at: Timestamp,
    /// The attempt after it; 0 before the first.
    #[serde(rename = "a", default)]
    pub attempt: u16,
    /// The lane after it.
    #[serde(rename = "p", default, borrow)]
    pub provider: Option<Text<'a>>,
    /// Why, where the order is closed.
    #[serde(rename = "r", default)]
    pub reason: Option<Reason>,
    /// Decided in time or not, once that is known.
    #[serde(default)]
    pub sla: Option<Sla>,
    /// The shop's own JSON.
    #[serde(rename = "m", default, borrow)]
    pub metadata: Option<Text<'a>>,
    /// A refund that was requested with it.
    #[serde(rename = "ref", default)]
    pub refund: Option<Box<RefundNote>>,
    /// A refund that the payment side says it has made.
    #[serde(rename = "rc", default)]
    pub refund_made: Option<Box<RefundMade>>,
}

impl<'a> Announcement<'a> {
    /// Reads a line of the log.
    pub fn from_line(line: &'a str) -> Result<Self, BadLine> {
        Ok(serde_json::from_str(line)?)
    }
}

/// What stands in every claim's line and in few others.
const CLAIM_MARK: &str = "\"cl\":\"";

/// A claim of an attempt, borrowed from its line: what a reader of a whole day's log needs of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Claimed<'a> {
    /// Whose.
    pub order_id: Cow<'a, str>,
    /// When, on the database's clock.
    pub at: Timestamp,
    /// At which provider.
    pub provider: Text<'a>,
    /// Which attempt.
    pub attempt: u16,
    /// Its reference, where it is not the readable form of order and number.
    pub client_ref: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct ClaimLine<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(with = "chrono::serde::ts_microseconds")]
    at: Timestamp,
    #[serde(default)]
    a: u16,
    #[serde(default, borrow)]
    p: Option<Text<'a>>,
    #[serde(default, borrow)]
    n: Option<ClaimNews<'a>>,
}

#[derive(Deserialize)]
struct ClaimNews<'a> {
    #[serde(default, borrow)]
    cl: Option<Text<'a>>,
    #[serde(default, borrow)]
    cr: Option<Text<'a>>,
}

impl<'a> Claimed<'a> {
    /// Reads a line of the log, if it is a claim.
    pub fn from_line(line: &'a str) -> Result<Option<Self>, BadLine> {
        if !line.contains(CLAIM_MARK) {
            return Ok(None);
        }
        let ClaimLine { id, at, a, p, n } = serde_json::from_str(line)?;
        let news = n.filter(|news| news.cl.is_some());
        Ok(news.zip(p).map(|(news, provider)| Self { order_id: id, at, provider, attempt: a, client_ref: news.cr }))
    }
}
