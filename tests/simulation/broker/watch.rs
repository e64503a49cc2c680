//! Looks at each record when it is written and when it is acknowledged (I3, I7, I8).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use recharged::domain::inquiry::last_query;
use recharged::domain::{Command, CommandKind, Order, OrderId, State, Timestamp, plus};
use recharged::ports::OutRecord;
use serde_json::Value;

use crate::laws::{Findings, Law};
use crate::life::TrueTime;
use crate::store::MemStore;

/// A lane waits for a row at least so long.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(super) struct Watch {
    time: Arc<TrueTime>,
    store: Arc<MemStore>,
    pub(super) findings: Arc<Findings>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// When something with this very content was written.
    written: HashMap<Vec<u8>, Vec<Timestamp>>,
    /// What was asked for, and for when at the latest.
    asked: HashMap<(OrderId, u32), Option<Timestamp>>,
    /// Records with this very content that a lane has, less those that it let go of.
    copies: HashMap<Vec<u8>, i64>,
    /// When something with this very content was written to where it waits, or to the dead letters.
    put_off: HashMap<Vec<u8>, Vec<Timestamp>>,
    /// Offsets that were acknowledged, by topic and partition.
    acknowledged: HashMap<(String, usize), Vec<bool>>,
}

impl Watch {
    pub(super) fn new(time: Arc<TrueTime>, store: Arc<MemStore>, findings: Arc<Findings>) -> Self {
        Self { time, store, findings, seen: Mutex::default() }
    }

    /// A record was written, or lost after it was acknowledged.
    pub(super) fn written(&self, record: &OutRecord, now: Timestamp) {
        let Some(value) = &record.value else { return };
        self.trace(record, now, "written to");
        let mut seen = self.seen.lock().unwrap();
        seen.written.entry(value.to_vec()).or_default().push(now);
        if matches!(record.topic.as_ref(), "timers" | "dead") || record.topic.starts_with("delay.") {
            seen.put_off.entry(value.to_vec()).or_default().push(now);
        }
        if record.topic.as_ref() == "due" {
            *seen.copies.entry(value.to_vec()).or_default() += 1;
        }
        match record.topic.as_ref() {
            "events" => self.published(value),
            "orders" | "lifecycle" | "timers" | "dead" | "refunds" | "notifications" => {}
            _ => {
                if let Some(command) = command(record) {
                    let asked = seen.asked.entry((command.order_id.clone(), command.version)).or_default();
                    *asked = (*asked).max(command.wake_at);
                    self.store.note_hint(command.order_id, command.version);
                }
            }
        }
    }

    fn trace(&self, record: &OutRecord, now: Timestamp, what: &str) {
        if let Some(command) = command(record) {
            self.findings.trace(now, command.order_id.as_str(), || format!("{what} {}: {command:?}", record.topic));
        } else if let Some(id) = order_of(record) {
            let kind = kind_of(record).unwrap_or("created");
            self.findings.trace(now, id.as_str(), || format!("{what} {}: {kind}", record.topic));
        }
    }

    fn published(&self, value: &[u8]) {
        let body: Value = serde_json::from_slice(value).unwrap();
        let (id, version) = (body["order_id"].as_str().unwrap(), body["version"].as_u64().unwrap());
        let row = self.store.row(&OrderId::parse(id).unwrap());
        let is_committed = row.is_some_and(|row| u64::from(row.version) >= version);
        self.findings
            .hold(Law::Published, is_committed, || format!("{id}: version {version} was published uncommitted"));
    }

    /// A batch that was delayed is about to be written.
    pub(super) fn forwarded(&self, batch: &[OutRecord], now: Timestamp) {
        for record in batch.iter().filter(|record| record.topic.as_ref() == "due") {
            let Some(command) = command(record) else { continue };
            let is_due = command.wake_at.is_none_or(|due_at| now + self.time.precision() >= due_at);
            self.findings.hold(Law::NeverEarly, is_due, || {
                format!("{}: forwarded at {now}, due at {:?}", command.order_id, command.wake_at)
            });
        }
    }

    /// A record is said to be durable elsewhere.
    pub(super) fn acknowledged(
        &self,
        record: &OutRecord,
        (place, offset): (usize, usize),
        at: Timestamp,
        now: Timestamp,
    ) {
        {
            let mut seen = self.seen.lock().unwrap();
            let offsets = seen.acknowledged.entry((record.topic.to_string(), place)).or_default();
            offsets.resize(offsets.len().max(offset + 1), false);
            let is_first = !std::mem::replace(&mut offsets[offset], true);
            let copies = seen.copies.get_mut(record.value.as_deref().unwrap_or_default());
            if let Some(copies) = copies.filter(|_| is_first) {
                *copies -= 1;
            }
        }
        self.trace(record, now, "acknowledged in");
        match record.topic.as_ref() {
            "orders" | "lifecycle" | "timers" => self.event_taken(record, at),
            "requests" | "due" => {
                if let Some(command) = command(record) {
                    self.command_done(&command, record, at, now);
                }
            }
            topic if topic.starts_with("delay.") => {
                let value = record.value.as_deref().unwrap_or_default();
                let seen = self.seen.lock().unwrap();
                let written = seen.written.get(value).map(Vec::as_slice).unwrap_or_default();
                // Itself, and one more: it may have entered the same tier again.
                let is_forwarded = written.iter().filter(|when| **when >= at).count() > 1;
                self.findings.hold(Law::Offsets, is_forwarded, || format!("{topic}: acknowledged, and not forwarded"));
            }
            _ => {}
        }
    }

    /// An offset is committed: everything before it is done.
    pub(super) fn committed(&self, topic: &str, place: usize, position: usize) {
        let seen = self.seen.lock().unwrap();
        let offsets = seen.acknowledged.get(&(topic.to_owned(), place)).map(Vec::as_slice).unwrap_or_default();
        let missing = (0..position).find(|offset| offsets.get(*offset) != Some(&true));
        self.findings.hold(Law::Offsets, missing.is_none(), || {
            format!("{topic}: {position} was committed, and {missing:?} is not done")
        });
    }

    fn event_taken(&self, record: &OutRecord, at: Timestamp) {
        let value = record.value.as_deref().unwrap_or_default();
        let body: Value = serde_json::from_slice(value).unwrap();
        let id = order_of(record).unwrap();
        let row = self.store.row(&id);
        let waits = kind_of(record).is_some() && {
            let seen = self.seen.lock().unwrap();
            let written = seen.put_off.get(value).map(Vec::as_slice).unwrap_or_default();
            // Where it waits already, that is one of them.
            let itself = usize::from(record.topic.as_ref() == "timers");
            written.iter().filter(|when| **when >= at).count() > itself
        };
        let what = || format!("{id}: acknowledged in {}, neither stored nor put off", record.topic);
        self.findings.hold(Law::Offsets, row.is_some() || waits, what);
        // What asks for the recharge is the payment, which may stand in another record than the order.
        let pays = body["paid_at"].is_string();
        let Some(row) = row.filter(|row| pays && row.state == State::Queued && row.attempt.is_none()) else { return };
        let asked = self.seen.lock().unwrap().asked.contains_key(&(id.clone(), row.asked_version));
        self.findings.hold(Law::Offsets, asked, || format!("{id}: acknowledged, and nobody was asked to send it"));
    }

    /// A lane lets go of a command: its row asks for it no more, or for a later question.
    fn command_done(&self, command: &Command, record: &OutRecord, at: Timestamp, now: Timestamp) {
        let id = &command.order_id;
        let last = self.seen.lock().unwrap().asked.get(&(id.clone(), command.version)).copied().flatten();
        // Put off rather than dropped: it comes again.
        let comes_again = last > command.wake_at;
        let is_ahead = self.store.row(id).is_none_or(|row| row.asked_version < command.version);
        let is_late = command.deadline_at <= plus(now, self.time.precision());
        if is_ahead && !comes_again && !is_late && now < plus(at, PATIENCE) {
            self.store.note_dropped(id.clone(), command.version);
        }
        // A hint that was overtaken by another one of the same version may speak of a former attempt.
        let stands = |row: &Order| row.asked_version == command.version && row.attempt_number() == command.attempt;
        let Some(row) = self.store.row(id).filter(stands) else { return };
        let is_kept = match command.kind {
            // A lane that rests is full of them: what finds no room is put off.
            CommandKind::Submit => !matches!(row.state, State::Queued | State::RetryWait) || comes_again,
            CommandKind::Query => {
                let seen = self.seen.lock().unwrap();
                let others = seen.copies.get(record.value.as_deref().unwrap_or_default()).copied().unwrap_or_default();
                let is_kept = !row.asks() || comes_again || others > 0;
                is_kept || self.comes_back(&row, now) || self.is_forgotten(&row, now)
            }
            // Of a callback, and bound to no version.
            CommandKind::Confirm => true,
        };
        let what = || format!("{id}: {command:?} was dropped at {now} in {}", row.state);
        self.findings.hold(Law::Offsets, is_kept, what);
    }

    /// A late question may be let go: the deadline asks anew, and after it a case does.
    fn comes_back(&self, row: &Order, now: Timestamp) -> bool {
        let is_late = row.deadline_at <= plus(now, self.time.precision());
        is_late && (row.state == State::InFlight || self.store.is_asked_by_a_case(&row.order_id))
    }

    /// The provider is asked no more about it.
    fn is_forgotten(&self, row: &Order, now: Timestamp) -> bool {
        let attempt = row.attempt.as_ref().unwrap();
        now + Duration::from_secs(60) >= last_query(attempt.claimed_at, self.store.provider_terms())
    }
}

/// Whose an event of the shop is.
fn order_of(record: &OutRecord) -> Option<OrderId> {
    let body: Value = serde_json::from_slice(record.value.as_deref()?).ok()?;
    OrderId::parse(body["order_id"].as_str()?).ok()
}

/// Which event of the shop it is; none is an order.
fn kind_of(record: &OutRecord) -> Option<&str> {
    let (_, kind) = record.headers.iter().find(|(name, _)| name.as_ref() == b"ce_type")?;
    std::str::from_utf8(kind.as_deref()?).ok()
}

fn command(record: &OutRecord) -> Option<Command> {
    serde_json::from_slice(record.value.as_deref()?).ok()
}
