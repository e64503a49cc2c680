//! What goes to the dead letters. It counts as in hand until it is acknowledged there.
//!
//! Where not even the dead letters are taken, the broker as a whole is ill, and nothing is the fault
//! of one topic: what was given up goes back to its destination with all its tries, and until
//! something is acknowledged again only one letter at a time asks how the broker is. Likewise where nothing was
//! answered promptly of late: one letter goes first, and if it has to wait, the others go back.

use std::collections::VecDeque;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::ports::PublishError;

use super::destination::{BATCH_MAX, pause};
use super::parcel::{Letter, Parcel};

/// The letters that wait, and how the broker is.
#[derive(Debug, Default)]
pub(super) struct Letters {
    waiting: VecDeque<Letter>,
    is_under_way: bool,
    failures: u32,
    not_before: Option<Instant>,
    /// Not even letters are taken.
    is_broker_ill: bool,
    /// When something was taken again. What began before tells nothing of a topic.
    well_since: Option<Instant>,
}

impl Letters {
    pub(super) fn add(&mut self, letter: Letter) {
        self.waiting.push_back(letter);
    }

    pub(super) fn is_broker_ill(&self) -> bool {
        self.is_broker_ill
    }

    /// Whether a failure of a batch that began then says something of its destination.
    pub(super) fn tells(&self, began_at: Instant) -> bool {
        self.well_since.is_none_or(|since| began_at >= since)
    }

    /// Whether one that is given up now is the one that asks how the broker is.
    pub(super) fn may_ask(&self) -> bool {
        !self.is_broker_ill || self.waiting.is_empty() && !self.is_under_way
    }

    /// What is to be written now, or when to look again; `answers` says that the broker has answered something of late.
    pub(super) fn take(&mut self, answers: bool, now: Instant) -> Result<Vec<Letter>, Option<Instant>> {
        match self.not_before {
            _ if self.waiting.is_empty() || self.is_under_way => Err(None),
            Some(until) if until > now => Err(Some(until)),
            Some(_) | None => {
                let most = if self.is_broker_ill || !answers { 1 } else { BATCH_MAX };
                self.is_under_way = true;
                Ok(self.waiting.drain(..self.waiting.len().min(most)).collect())
            }
        }
    }

    /// Letters that were written have come back; those that failed are in `failed`. Returns what has
    /// a destination to go back to.
    pub(super) fn came_back(
        &mut self,
        failed: Vec<(Letter, PublishError)>,
        promptly: bool,
        now: Instant,
    ) -> Vec<Parcel> {
        self.is_under_way = false;
        let Some((_, error)) = failed.first() else {
            (self.failures, self.not_before) = (0, None);
            // The broker itself stood still.
            return if promptly { Vec::new() } else { self.give_back(Vec::new()) };
        };
        if !self.is_broker_ill {
            let waiting = self.waiting.len() + failed.len();
            warn!(records = waiting, %error, "dead letters cannot be written; trying again");
        }
        self.is_broker_ill = true;
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + pause(self.failures));
        self.give_back(failed)
    }

    /// What waits here and has a destination goes back to it; what could not be written, first.
    fn give_back(&mut self, failed: Vec<(Letter, PublishError)>) -> Vec<Parcel> {
        let mut back = Vec::new();
        for letter in failed.into_iter().map(|(letter, _)| letter).chain(std::mem::take(&mut self.waiting)) {
            match letter.back() {
                Ok(parcel) => back.push(parcel),
                Err(letter) => self.waiting.push_back(*letter),
            }
        }
        back
    }

    /// Something was acknowledged; returns whether the broker was ill before.
    pub(super) fn acknowledged(&mut self, now: Instant) -> bool {
        if !self.is_broker_ill {
            return false;
        }
        info!("the broker takes records again");
        self.is_broker_ill = false;
        self.well_since = Some(now);
        true
    }

    /// Lets go of what waits and was revoked; returns how many records and bytes these were.
    pub(super) fn drop_revoked(&mut self) -> (usize, usize) {
        let (mut count, mut bytes) = (0, 0);
        self.waiting.retain(|letter| {
            let is_live = letter.record().ack.is_live();
            if !is_live {
                count += 1;
                bytes += letter.size();
            }
            is_live
        });
        (count, bytes)
    }
}
