//! What stands in the service's own topics, where others can write too: records that wait, and commands.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::inbound::check_unfit;
use super::message::Message;
use super::world::now;
use crate::domain::inbound::{DeadLetterReason, Unfit};
use crate::domain::{Command, Timestamp, delay, minus, plus};
use crate::ports::{Ack, Assignment, InRecord, OutRecord, command_record};
use crate::roles::dead_letter::{self, DeadLetter};
use crate::roles::delayed::{DelayTiers, Waiting, original_headers};
use crate::roles::dispatch::{held_until, read_command};

#[derive(Debug)]
struct Always;

impl Assignment for Always {
    fn is_live(&self) -> bool {
        true
    }

    fn done(&self, _offset: i64) {}
}

type Header = (Bytes, Option<Bytes>);

fn record(value: Option<&[u8]>, headers: Vec<Header>) -> InRecord {
    InRecord {
        topic: Arc::from("recharge.delay.5s"),
        partition: 0,
        offset: 7,
        timestamp: Some(now()),
        key: None,
        value: value.map(Bytes::copy_from_slice),
        headers,
        ack: Ack::new(Arc::new(Always), 7),
    }
}

const LEAST: Duration = Duration::from_millis(1_000);

fn tiers() -> DelayTiers {
    let topic = |seconds: u64| (Duration::from_secs(seconds), Arc::from(format!("recharge.delay.{seconds}s")));
    DelayTiers::new([1, 5, 15, 30, 60, 300, 1_800].map(topic))
}

/// A record in a delay tier. It waits for a time that can be meant, never leaves before it, keeps what it had, and reads
/// the same in the next tier; as a dead letter it gives back what it was.
pub fn delayed(bytes: &[u8]) {
    let message = Message::read(bytes);
    let headers = message.raw_headers();
    let came = record(message.body, headers.clone());
    match Waiting::read(&came, now()) {
        Err(unfit) => {
            check_unfit(&unfit);
            check_letter(&came, &unfit);
        }
        Ok(waiting) => check_waiting(&waiting, &came),
    }
    if let Some(letter) = DeadLetter::read(&came) {
        assert_eq!(headers.len(), letter.headers.len() + dead_letter::HEADERS.len());
        assert!(headers.starts_with(&letter.headers));
    }
}

fn check_waiting(waiting: &Waiting, came: &InRecord) {
    assert!(!waiting.target.is_empty());
    assert!(waiting.due_at <= plus(now(), delay::LONGEST + Duration::from_hours(1)));
    assert!(waiting.due_at >= minus(now(), Duration::from_hours(24 * 30)));
    assert!(waiting.entered_at <= now());
    for tier in [LEAST, Duration::from_mins(30)] {
        assert!(delay::leaves_at(waiting.entered_at, tier, waiting.due_at) <= waiting.due_at);
    }
    let kept = original_headers(&came.headers);
    let bare = OutRecord {
        topic: Arc::clone(&waiting.target),
        key: came.key.clone(),
        value: came.value.clone(),
        headers: kept.clone(),
    };
    let next = Waiting { hops: waiting.hops.saturating_add(1), entered_at: now(), ..waiting.clone() };
    let written = next.write(&Arc::from("recharge.delay.1s"), bare.clone());
    let back = record(written.value.as_deref(), written.headers.clone());
    assert_eq!(Waiting::read(&back, now()), Ok(next), "in the next tier it reads the same");
    assert_eq!(original_headers(&written.headers), kept, "it keeps the headers that it had");
    let put_off = tiers().put_off(bare, waiting.due_at, now());
    let remaining = (waiting.due_at - now()).to_std().unwrap_or_default();
    assert_eq!(put_off.topic == waiting.target, remaining + delay::FITS_WITHIN < LEAST, "it waits in a tier");
}

fn check_letter(came: &InRecord, unfit: &Unfit) {
    let letter = dead_letter::record(&Arc::from("recharge.dead-letters"), came, unfit, now());
    assert_eq!((&letter.key, &letter.value), (&came.key, &came.value));
    let read = DeadLetter::read(&record(letter.value.as_deref(), letter.headers)).expect("a letter of ours");
    assert_eq!(DeadLetterReason::parse(&read.reason), Some(unfit.reason));
    assert_eq!((read.headers, read.error.as_str()), (came.headers.clone(), unfit.detail.as_str()));
}

/// A command. What is one is written and reads back the same; what is none is told without a word of it; and nothing is
/// held for a moment that does not come.
pub fn command(bytes: &[u8]) {
    match read_command(&record(Some(bytes), Vec::new()), now()) {
        Err(unfit) => check_unfit(&unfit),
        Ok(command) => {
            let topic = Arc::from("recharge.requests.one");
            let written = command_record(&topic, Bytes::new(), &command);
            let back = read_command(&record(written.value.as_deref(), Vec::new()), now());
            assert_eq!(back.as_ref(), Ok(&command), "it reads back the same");
            check_hold(&command);
        }
    }
}

fn check_hold(command: &Command) {
    let held: Option<Timestamp> = held_until(command, now());
    assert!(held.is_none_or(|until| until <= command.deadline_at.max(plus(now(), Duration::from_mins(1)))));
}
