//! A record on its way out of a tier: to its target, into a smaller tier, or to the dead letters.

use std::sync::Arc;

use crate::domain::Timestamp;
use crate::domain::inbound::{DeadLetterReason, Unfit};
use crate::ports::{InRecord, OutRecord, PublishError};
use crate::roles::dead_letter;
use crate::roles::delayed::{Waiting, original_headers};

use super::held::{Held, size};

/// A record, and where it goes next.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) held: Box<Held>,
    /// The tier that it enters, where it has a further way to go than to its target.
    pub(super) into: Option<Arc<str>>,
    /// How often it was tried in vain.
    pub(super) tries: u32,
}

impl Parcel {
    pub(super) fn new(held: Box<Held>, into: Option<Arc<str>>) -> Self {
        Self { held, into, tries: 0 }
    }

    pub(super) fn destination(&self) -> &Arc<str> {
        self.into.as_ref().unwrap_or(&self.held.waiting.target)
    }

    pub(super) fn is_live(&self) -> bool {
        self.held.record.ack.is_live()
    }

    /// The record as it is written now.
    pub(super) fn outgoing(&self, now: Timestamp) -> OutRecord {
        let record = &self.held.record;
        let bare = OutRecord {
            topic: Arc::clone(&self.held.waiting.target),
            key: record.key.clone(),
            value: record.value.clone(),
            headers: original_headers(&record.headers),
        };
        match &self.into {
            None => bare,
            Some(tier) => {
                let hops = self.held.waiting.hops.saturating_add(1);
                Waiting { hops, entered_at: now, ..self.held.waiting.clone() }.write(tier, bare)
            }
        }
    }
}

/// A record that becomes a dead letter.
#[derive(Debug)]
pub(super) struct Letter {
    content: Content,
    why: Unfit,
    first_seen: Timestamp,
}

#[derive(Debug)]
enum Content {
    /// It could never be read.
    Poison { record: Box<InRecord>, size: usize },
    /// Its destination did not take it.
    GivenUp(Box<Parcel>),
}

impl Letter {
    /// Of a record that cannot be read.
    pub(super) fn poison(record: InRecord, why: Unfit, first_seen: Timestamp) -> Self {
        let size = size(&record);
        Self { content: Content::Poison { record: Box::new(record), size }, why, first_seen }
    }

    /// Of a record that its destination did not take, in the words of its broker.
    pub(super) fn given_up(parcel: Parcel, error: &PublishError, first_seen: Timestamp) -> Self {
        let reason = match error {
            PublishError::NoSuchTopic(_) => DeadLetterReason::UnknownTarget,
            PublishError::Unacknowledged(_) | PublishError::Refused(_) => DeadLetterReason::Undeliverable,
        };
        let why = Unfit::new(reason, format!("the topic {} did not take it: {error}", parcel.destination()));
        Self { content: Content::GivenUp(Box::new(parcel)), why, first_seen }
    }

    pub(super) fn record(&self) -> &InRecord {
        match &self.content {
            Content::Poison { record, .. } => record,
            Content::GivenUp(parcel) => &parcel.held.record,
        }
    }

    pub(super) fn reason(&self) -> DeadLetterReason {
        self.why.reason
    }

    pub(super) fn size(&self) -> usize {
        match &self.content {
            Content::Poison { size, .. } => *size,
            Content::GivenUp(parcel) => parcel.held.size,
        }
    }

    pub(super) fn outgoing(&self, dead_letters: &Arc<str>) -> OutRecord {
        dead_letter::record(dead_letters, self.record(), &self.why, self.first_seen)
    }

    /// Says that the record is durable among the dead letters.
    pub(super) fn done(self) {
        match self.content {
            Content::Poison { record, .. } => record.ack.done(),
            Content::GivenUp(parcel) => parcel.held.record.ack.done(),
        }
    }

    /// The record that still has a destination to be tried again, with all its tries; without one it
    /// stays a letter.
    pub(super) fn back(self) -> Result<Parcel, Box<Self>> {
        match self.content {
            Content::GivenUp(parcel) => Ok(Parcel { tries: 0, ..*parcel }),
            Content::Poison { .. } => Err(Box::new(self)),
        }
    }
}
