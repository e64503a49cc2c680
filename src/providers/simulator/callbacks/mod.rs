//! Callbacks: what the provider tells without being asked, once a recharge has come to its end.
//!
//! The engine says what is to be told ([`plan`] says what goes wrong with it); messages wait in the
//! [`outbox`] for their time, however many hours that is, and one task sends them.

mod address;
mod client;
mod outbox;
mod plan;
mod sender;

use std::time::Duration;

use tokio::sync::oneshot;

pub use self::address::{CallbackUrl, NoCallbackUrl};
pub(super) use self::outbox::Outbox;
pub(super) use self::plan::{End, Plan};
pub(super) use self::sender::send_all;
use super::class::FaultClass;
use super::dialect::{Letter, Telling};
use crate::domain::ClientRef;

/// Why a message is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It tells an end: it is sent until it is acknowledged.
    End,
    /// By decision from outside, or before the end: once.
    Once,
    Forged,
    Stale,
    Replayed,
    /// About a reference that nobody has.
    Unknown,
}

/// What is said.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// How a reference stands, signed when it is sent.
    Telling(Telling),
    /// What was said before, byte for byte.
    Again(Letter),
}

/// What is to be sent once another message has gone out for the first time.
#[derive(Debug)]
pub(super) enum Follower {
    /// The word that should have come first.
    Message(Box<Message>),
    /// The same again, so much later.
    Replay(Duration),
}

/// A message on its way.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) to: CallbackUrl,
    /// Whose recharge led to it, whoever it speaks of.
    pub(super) about: ClientRef,
    pub(super) content: Content,
    pub(super) kind: Kind,
    /// What strikes with its first sending.
    pub(super) strikes: Vec<FaultClass>,
    /// How often it was sent.
    pub(super) sent: usize,
    /// Hears what became of the first sending.
    pub(super) first: Option<oneshot::Sender<Answer>>,
    pub(super) followers: Vec<Follower>,
}

impl Message {
    pub(super) fn new(to: &CallbackUrl, about: &ClientRef, kind: Kind, content: Content) -> Self {
        let (to, about) = (to.clone(), about.clone());
        Self { to, about, content, kind, strikes: Vec::new(), sent: 0, first: None, followers: Vec::new() }
    }

    /// About whom it speaks.
    pub(super) fn telling(to: &CallbackUrl, kind: Kind, telling: Telling) -> Self {
        let about = telling.client_ref.clone();
        Self::new(to, &about, kind, Content::Telling(telling))
    }

    /// It is by this class of trouble that it is sent, or sent so.
    pub(super) fn struck_by(mut self, class: FaultClass) -> Self {
        self.strikes.push(class);
        self
    }
}

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    /// `None`: nothing in time.
    pub(super) status: Option<u16>,
    pub(super) is_acknowledged: bool,
}
