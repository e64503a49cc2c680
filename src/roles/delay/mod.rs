//! Delay: one forwarder per tier. It reads ahead what leaves soon, wakes at the moment at which the
//! first record leaves, and writes it to its target or into a smaller tier; the
//! offset moves once that is acknowledged. Never early; a process that dies leaves everything
//! to the next one.

mod ahead;
mod destination;
mod held;
mod letters;
mod outgoing;
mod parcel;
mod pulse;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::domain::inbound::{DeadLetterReason, Unfit};
use crate::domain::{Timestamp, delay};
use crate::faults::{Bug, is_planted};
use crate::metrics::DelayMetrics;
use crate::ports::{Clock, InRecord, Publisher, Stopped, Subscription};

use super::delayed::{DelayTiers, Waiting};
use super::{RoleError, StopSignals};
use ahead::ReadAhead;
use held::{Held, InHand};
use outgoing::{Done, Outgoing, Sent};
use parcel::Parcel;

/// What a forwarder goes by.
#[derive(Debug)]
pub struct DelayRules {
    /// Its tier.
    pub tier: Duration,
    /// All tiers, for the rest of a longer way.
    pub tiers: DelayTiers,
    /// The topics to which records may be forwarded,
    pub targets: HashSet<Arc<str>>,
    /// and those whose name begins so: the lanes', of which another process may have one more.
    pub lanes: Arc<str>,
    /// Where unusable records go.
    pub dead_letters: Arc<str>,
    /// Records in hand at most.
    pub read_ahead: usize,
}

/// The role, for one tier.
#[derive(Debug)]
pub struct Delay {
    /// To targets, tiers and dead letters.
    pub publisher: Arc<dyn Publisher>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The rules.
    pub rules: DelayRules,
    /// The numbers.
    pub metrics: DelayMetrics,
}

/// Without anything to wait for, the loop still looks around this often.
const IDLE: Duration = Duration::from_secs(1);
/// Reading stops when the hands are full, and begins again when a part of this is free: a fetch
/// for each single place would cost more than it brings.
const READ_AGAIN: usize = 8;
/// What is in hand may take so much memory: twice what as many commands as may be in hand take. Only
/// records that are no commands are larger, up to a MiB each.
const BYTES_MAX: usize = 32 * 1024 * 1024;

struct Forwarder {
    role: Delay,
    in_hand: InHand,
    ahead: ReadAhead,
    outgoing: Outgoing,
    reading: bool,
    looked_at: Instant,
}

impl Delay {
    /// Works until told to stop or until the subscription ends.
    pub async fn run(self, mut input: Box<dyn Subscription>, stop: StopSignals) -> Result<(), RoleError> {
        let outgoing = Outgoing::new(
            Arc::clone(&self.publisher),
            Arc::clone(&self.clock),
            Arc::clone(&self.rules.dead_letters),
            self.rules.read_ahead,
        );
        let (in_hand, ahead) = (InHand::default(), ReadAhead::new(self.rules.read_ahead));
        let (reading, looked_at) = (true, Instant::now());
        let mut forwarder = Forwarder { role: self, in_hand, ahead, outgoing, reading, looked_at };
        forwarder.work(input.as_mut(), &stop).await?;
        forwarder.finish(&stop).await
    }
}

impl Forwarder {
    async fn work(&mut self, input: &mut dyn Subscription, stop: &StopSignals) -> Result<(), RoleError> {
        let mut revocations = input.revocations();
        loop {
            self.release();
            let again = self.outgoing.start();
            let wake_at = self.look_around(again, input);
            let room = self.room();
            tokio::select! {
                biased; // Stopping comes first; what is done makes room; what is due waits for nothing.
                () = stop.drain.cancelled() => return Ok(()),
                Ok(()) = revocations.changed() => self.drop_revoked(),
                ended = self.outgoing.ended() => self.sent(ended)?,
                () = tokio::time::sleep_until(wake_at) => {}
                records = input.next(room), if room > 0 => match records {
                    Ok(records) => {
                        self.take(records);
                        self.tell_what_is_wanted(input);
                    }
                    Err(Stopped::Gone) => {
                        self.rest(stop).await;
                        return Ok(());
                    }
                    Err(stopped) => return Err(stopped.into()),
                }
            }
        }
    }

    /// The tier has no topic any more, and so nothing waits in it.
    async fn rest(&mut self, stop: &StopSignals) {
        info!(tier = ?self.role.rules.tier, "the topic of this tier is gone: nothing is left to forward");
        self.in_hand = InHand::default();
        self.role.metrics.pending(self.outgoing.len());
        self.role.metrics.farthest_due(None);
        stop.drain.cancelled().await;
    }

    /// Finishes what is on its way; what is in hand stays uncommitted and comes again.
    async fn finish(&mut self, stop: &StopSignals) -> Result<(), RoleError> {
        while self.outgoing.is_under_way() {
            tokio::select! {
                biased; // Being told to drop everything comes first.
                () = stop.abort.cancelled() => {
                    let left = format!("{} delayed records were not acknowledged: they come again", self.outgoing.len());
                    return Err(RoleError::Left(left));
                }
                ended = self.outgoing.ended() => self.sent(ended)?,
            }
        }
        Ok(())
    }

    fn room(&mut self) -> usize {
        let free = |most: usize, held: usize| (most.saturating_sub(held), (most / READ_AGAIN).max(1));
        let most = self.role.rules.read_ahead;
        let (records, records_again) = free(most, self.in_hand.len() + self.outgoing.len());
        let (bytes, bytes_again) = free(BYTES_MAX, self.in_hand.bytes() + self.outgoing.bytes());
        self.reading =
            if self.reading { records > 0 && bytes > 0 } else { records >= records_again && bytes >= bytes_again };
        if self.reading { records } else { 0 }
    }

    /// Sends on what leaves now.
    fn release(&mut self) {
        let mut now = self.role.clock.now();
        if is_planted(Bug::ForwardTooEarly) {
            now += Duration::from_millis(100);
        }
        while let Some(held) = self.in_hand.pop_by(now) {
            // Another process holds its partition now, and has it as well.
            if !held.record.ack.is_live() {
                continue;
            }
            let due_at = held.waiting.due_at;
            if is_planted(Bug::AcknowledgeBeforeForwarded) {
                held.record.ack.clone().done();
            }
            if now >= due_at {
                self.outgoing.add(Parcel::new(held, None));
                continue;
            }
            let remaining = (due_at - now).to_std().unwrap_or_default();
            match self.role.rules.tiers.topic_for(remaining).cloned() {
                Some(tier) => self.outgoing.add(Parcel::new(held, Some(tier))),
                None => self.in_hand.put_back(held, due_at),
            }
        }
    }

    /// Counts, now and then, and lets go of what was revoked; returns when to wake.
    fn look_around(&mut self, again: Option<Instant>, input: &dyn Subscription) -> Instant {
        let now = Instant::now();
        if now >= self.looked_at + IDLE || self.ahead.has_news(input.assignments()) {
            self.looked_at = now;
            self.drop_revoked();
            self.tell_what_is_wanted(input);
            self.role.metrics.farthest_due(self.in_hand.farthest());
        }
        self.role.metrics.pending(self.in_hand.len() + self.outgoing.len());
        let next = self.in_hand.next_at().map(|at| now + (at - self.role.clock.now()).to_std().unwrap_or_default());
        [next, again].into_iter().flatten().min().unwrap_or(now + IDLE).min(now + IDLE)
    }

    /// Lets go of what belongs to partitions that were given back: their next holder has it, and whoever
    /// gives them back waits for what is still in hand.
    fn drop_revoked(&mut self) {
        self.in_hand.drop_revoked();
        self.outgoing.drop_revoked();
    }

    /// Of partitions of which enough is in hand no more is read for now.
    fn tell_what_is_wanted(&mut self, input: &dyn Subscription) {
        let assignments = input.assignments();
        if self.ahead.has_news(assignments) {
            // What one that came back has left in hand is not what was read of it now.
            self.in_hand.drop_revoked();
        }
        for (partition, wanted) in self.ahead.review(&self.in_hand, assignments, self.role.clock.now()) {
            input.want(partition, wanted);
        }
    }

    /// Takes records in hand; those that cannot be read go to the dead letters.
    fn take(&mut self, records: Vec<InRecord>) {
        let now = self.role.clock.now();
        for record in records {
            let rules = &self.role.rules;
            match read_waiting(&record, now, &rules.targets, &rules.lanes) {
                Ok(waiting) => {
                    let leaves_at = delay::leaves_at(waiting.entered_at, self.role.rules.tier, waiting.due_at);
                    self.in_hand.push(Held::new(record, waiting), leaves_at);
                }
                Err(unfit) => {
                    warn!(topic = %record.topic, partition = record.partition, offset = record.offset,
                        reason = %unfit.reason, "a record goes to the dead letters: {}", unfit.detail);
                    self.outgoing.bury(record, unfit, now);
                }
            }
        }
    }

    fn sent(&mut self, ended: Result<Sent, tokio::task::JoinError>) -> Result<(), RoleError> {
        let sent = ended.map_err(|error| RoleError::Task(error.to_string()))?;
        let (now, metrics) = (self.role.clock.now(), &self.role.metrics);
        for done in self.outgoing.take(sent) {
            match done {
                Done::Forwarded { held, into, sent_at } => {
                    match into {
                        None => metrics.forwarded(held.waiting.due_at, sent_at, now),
                        Some(_) => metrics.hopped(),
                    }
                    held.record.ack.done();
                }
                Done::Buried(letter) => {
                    crate::metrics::dead_letter(&letter.record().topic, letter.reason().as_str(), 1);
                    letter.done();
                }
            }
        }
        Ok(())
    }
}

/// Reads a record of a tier: when it leaves, and to which of `targets`, or to which topic whose name begins as those of
/// `lanes` do.
pub(crate) fn read_waiting(
    record: &InRecord,
    now: Timestamp,
    targets: &HashSet<Arc<str>>,
    lanes: &str,
) -> Result<Waiting, Unfit> {
    let waiting = Waiting::read(record, now)?;
    if let Some(known) = targets.get(&waiting.target) {
        // Thousands wait for the same one.
        return Ok(Waiting { target: Arc::clone(known), ..waiting });
    }
    if waiting.target.starts_with(lanes) {
        return Ok(waiting);
    }
    // Not its name: anything may stand there.
    Err(Unfit::new(DeadLetterReason::UnknownTarget, "target-topic names no topic of this service"))
}

#[cfg(test)]
mod tests;
