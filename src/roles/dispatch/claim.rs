//! Claims: intent before effect. A batch of commands becomes a batch of rows that say
//! `in_flight`, committed before the first byte of any request leaves.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::domain::{
    ClaimId, Command, Decision, Input, Order, OrderId, State, Timestamp, Transition, decide, decide::Why,
};
use crate::faults::{self, Bug, is_planted};
use crate::ports::{Loaded, PermitClass, StoreError, Written};
use crate::roles::patience;

use super::Lane;
use super::breaker::Sign;
use super::heap::Queued;
use super::put_off::PutOff;
use super::question::Question;
use super::slots::Slot;

/// A command that is ahead of its row is looked at again: soon, since its row is mostly being
/// written, then every second, at most 30 times.
const CATCH_UP_FIRST: Duration = Duration::from_millis(30);
const CATCH_UP: Duration = Duration::from_secs(1);
const CATCH_UPS: u8 = 30;
/// With no connection to be had, the next look.
const RECONNECT: Duration = Duration::from_millis(200);
/// An order whose row somebody holds is claimed after this long: each try costs its batch the wait for the lock.
const LOCKED_FOR: Duration = Duration::from_secs(10);
/// A command that could not be acted on for another reason than a known time.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A command with its permit and its place among the calls in flight.
#[derive(Debug)]
pub(super) struct Picked {
    pub(super) queued: Queued,
    pub(super) class: PermitClass,
    /// When its request may leave; `None` for an order that can only be failed.
    pub(super) permit: Option<Timestamp>,
    pub(super) slot: Option<Slot>,
}

/// A claimed order, to be called now.
#[derive(Debug)]
pub(super) struct Claimed {
    pub(super) order: Order,
    pub(super) claim_id: ClaimId,
    /// The first byte leaves before this moment (since boot), or never.
    pub(super) send_by: Duration,
    pub(super) class: PermitClass,
    pub(super) permit: Timestamp,
    pub(super) slot: Slot,
}

/// What a batch of claims left over.
#[derive(Debug, Default)]
pub(super) struct Leftover {
    /// Orders to call.
    pub(super) claimed: Vec<Claimed>,
    /// Questions to ask.
    pub(super) questions: Vec<Question>,
    /// Permits that were not used.
    pub(super) permits: Vec<(PermitClass, Timestamp)>,
    /// Commands to be written once more, for later.
    pub(super) later: Vec<PutOff>,
    /// Commands to look at again, and when.
    pub(super) again: Vec<(Queued, PermitClass, Timestamp)>,
    /// Orders whose numbers the provider takes again only when it is too late for them, and when that is.
    pub(super) too_cool: Vec<(Queued, PermitClass, Timestamp)>,
}

/// How a command and its row fit together.
pub(super) enum Fit {
    Acts,
    Dead,
    Ahead,
    Early(Timestamp),
}

impl Lane {
    /// Claims a batch. An error means that the store refuses for good, or that the role was told
    /// to drop everything; nothing was acknowledged then.
    pub(super) async fn claim(&self, batch: Vec<Picked>, abort: &CancellationToken) -> Result<Leftover, StoreError> {
        let mut leftover = Leftover::default();
        let mut picked = self.with_connections(batch, &mut leftover).await;
        // The send window begins before the claim is written: however long the commit takes, a
        // first byte never leaves more than the window after this moment.
        let window = if is_planted(Bug::ZombieSends) { Duration::from_hours(1) } else { self.rules.send_window };
        let send_by = self.clock.since_boot() + window;
        let policy = self.policy();
        while !picked.is_empty() {
            let rows = self.rows(&picked, abort).await?;
            let now = self.clock.now();
            let (mut transitions, mut writing) = (Vec::with_capacity(picked.len()), Vec::with_capacity(picked.len()));
            for (one, row) in picked.into_iter().zip(rows) {
                let Some(row) = order_of(&one.queued.command, row) else {
                    leftover.drop_command(one);
                    continue;
                };
                match self.judge(&one.queued.command, &row, now) {
                    Fit::Acts => match Self::decide_claim(&row, one.permit.is_some(), now, &policy) {
                        Ok((transition, claim_id)) => {
                            transitions.push(transition);
                            writing.push((one, claim_id));
                        }
                        Err(Why::TooEarly) => {
                            let until = row.wake_at.unwrap_or(now).max(now + LOOK_AGAIN);
                            leftover.put_back(one, until);
                        }
                        Err(Why::Known | Why::Overtaken | Why::NotApplicable | Why::NoNews) => {
                            leftover.drop_command(one);
                        }
                    },
                    Fit::Dead => leftover.drop_command(one),
                    Fit::Ahead => leftover.not_yet(one, now),
                    Fit::Early(until) => leftover.put_back(one, until),
                }
            }
            let (transitions, writing) = self.with_numbers(transitions, writing, now, &mut leftover, abort).await?;
            picked = self.write_claims(transitions, writing, send_by, &mut leftover, abort).await?;
        }
        if !leftover.claimed.is_empty() {
            faults::point("dispatch::claimed");
        }
        Ok(leftover)
    }

    /// Keeps those whose numbers their provider takes now. The others come back when it does; those for which that is too
    /// late may go on in another lane.
    async fn with_numbers(
        &self,
        transitions: Vec<Transition>,
        writing: Vec<(Picked, ClaimId)>,
        now: Timestamp,
        leftover: &mut Leftover,
        abort: &CancellationToken,
    ) -> Result<(Vec<Transition>, Vec<(Picked, ClaimId)>), StoreError> {
        let held = self.cool(&transitions, now, abort).await?;
        if held.iter().all(Option::is_none) {
            return Ok((transitions, writing));
        }
        let mut kept = (Vec::new(), Vec::new());
        for ((transition, (picked, claim_id)), held) in transitions.into_iter().zip(writing).zip(held) {
            let Some(until) = held else {
                kept.0.push(transition);
                kept.1.push((picked, claim_id));
                continue;
            };
            let (order, until) = (&transition.after, until.max(now + LOOK_AGAIN));
            debug!(order_id = %order.order_id, %until, "its number was recharged a moment ago");
            if self.is_in_time(order, until) {
                let command = Command { wake_at: Some(until), ..picked.queued.command.clone() };
                let record = self.command_record(&command, order);
                leftover.put_off(picked, record);
            } else if self.leads_on {
                leftover.permits.extend(picked.permit.map(|permit| (picked.class, permit)));
                leftover.too_cool.push((picked.queued, picked.class, until));
            } else {
                leftover.put_back(picked, until.min(order.deadline_at));
            }
        }
        Ok(kept)
    }

    /// Keeps as many as could be sent at once; the others go back, with their permits. Orders
    /// that are only to be failed need no connection.
    pub(super) async fn with_connections(&self, batch: Vec<Picked>, leftover: &mut Leftover) -> Vec<Picked> {
        let wanted = batch.iter().filter(|picked| picked.permit.is_some()).count();
        if wanted == 0 {
            return batch;
        }
        let began = self.clock.since_boot();
        let mut can_start = self.provider.connect(wanted).await;
        if can_start == 0 {
            // No call is made, so none tells of it.
            self.note_sign(Sign::Ill, began);
        }
        let now = self.clock.now();
        let mut kept = Vec::with_capacity(batch.len());
        for picked in batch {
            if picked.permit.is_none() {
                kept.push(picked);
            } else if can_start > 0 {
                can_start -= 1;
                kept.push(picked);
            } else {
                leftover.put_back(picked, now + RECONNECT);
            }
        }
        kept
    }

    /// The row of each command: as intake left it in this process, where it did so lately, else as
    /// the store holds it now.
    async fn rows(&self, picked: &[Picked], abort: &CancellationToken) -> Result<Vec<Loaded>, StoreError> {
        let at_hand = self.at_hand.take(picked.iter().map(|one| &one.queued.command));
        let missing = picked.iter().zip(&at_hand).filter(|(_, row)| row.is_none());
        let ids: Vec<OrderId> = missing.map(|(one, _)| one.queued.command.order_id.clone()).collect();
        let mut loaded = Vec::new().into_iter();
        if !ids.is_empty() {
            loaded = patience::stored_unless("load", abort, || self.store.load(&ids)).await?.into_iter();
        }
        let row = |row: Option<Order>| row.map_or_else(|| loaded.next().unwrap_or(Loaded::Absent), Loaded::Order);
        Ok(at_hand.into_iter().map(row).collect())
    }

    pub(super) fn judge(&self, command: &Command, row: &Order, now: Timestamp) -> Fit {
        if command.version > row.asked_version {
            return if is_planted(Bug::DropTheAhead) { Fit::Dead } else { Fit::Ahead };
        }
        let matches = command.version == row.asked_version
            && command.attempt == row.attempt_number()
            && row.provider.as_ref() == Some(self.provider.id());
        if !matches {
            return Fit::Dead;
        }
        match row.wake_at {
            Some(until) if until > now && !command.hastened => Fit::Early(until),
            _ => Fit::Acts,
        }
    }

    /// Without a permit only the end of an order may be written, never a send.
    fn decide_claim(
        row: &Order,
        has_permit: bool,
        now: Timestamp,
        policy: &crate::domain::Policy,
    ) -> Result<(Transition, ClaimId), Why> {
        let claim_id = ClaimId::random();
        match decide(Some(row), &Input::Claim { claim_id }, now, policy) {
            Decision::Apply(transition) if has_permit || transition.after.state.is_closed() => {
                Ok((*transition, claim_id))
            }
            Decision::Apply(_) => Err(Why::TooEarly),
            Decision::Keep(why) => Err(why),
        }
    }

    /// Writes claims; returns those that must be looked at again because the row had moved.
    async fn write_claims(
        &self,
        transitions: Vec<Transition>,
        writing: Vec<(Picked, ClaimId)>,
        send_by: Duration,
        leftover: &mut Leftover,
        abort: &CancellationToken,
    ) -> Result<Vec<Picked>, StoreError> {
        if transitions.is_empty() {
            return Ok(Vec::new());
        }
        // Counted before it is known: without an answer, each may say `in_flight`.
        let claims = transitions.iter().filter(|transition| transition.after.state == State::InFlight).count();
        self.unsettled.fetch_add(claims, Ordering::Relaxed);
        let written = patience::applied("claim", self.store.as_ref(), &transitions, abort).await?;
        self.unsettled.fetch_sub(claims, Ordering::Relaxed);
        let (mut lost, now) = (Vec::new(), self.clock.now());
        for ((transition, (picked, claim_id)), written) in transitions.into_iter().zip(writing).zip(written) {
            match written {
                Written::Stored => {
                    self.outcomes.written(&transition);
                    self.claimed(transition.after, picked, claim_id, (now, send_by), leftover);
                }
                Written::Overtaken if is_planted(Bug::SendTheOvertaken) => {
                    self.claimed(transition.after, picked, claim_id, (now, send_by), leftover);
                }
                Written::Overtaken => lost.push((picked, claim_id)),
                Written::Locked => leftover.put_back(picked, now + LOCKED_FOR),
                // At its deadline the watchdog tells of it again.
                Written::Refused => leftover.drop_command(picked),
            }
        }
        if lost.is_empty() {
            return Ok(Vec::new());
        }
        self.sort_lost(lost, send_by, leftover, abort).await
    }

    /// A claim that lost its fence may have lost it to itself: its commit went through and the
    /// answer was lost. Then the row carries our claim, and the send window decides.
    async fn sort_lost(
        &self,
        lost: Vec<(Picked, ClaimId)>,
        send_by: Duration,
        leftover: &mut Leftover,
        abort: &CancellationToken,
    ) -> Result<Vec<Picked>, StoreError> {
        let ids: Vec<OrderId> = lost.iter().map(|(picked, _)| picked.queued.command.order_id.clone()).collect();
        let rows = patience::stored_unless("load", abort, || self.store.load(&ids)).await?;
        let (mut again, now) = (Vec::new(), self.clock.now());
        for ((picked, claim_id), row) in lost.into_iter().zip(rows) {
            let ours = row.order().filter(|row| {
                row.state == State::InFlight && row.attempt.as_ref().is_some_and(|attempt| attempt.claim_id == claim_id)
            });
            match ours {
                Some(row) => self.claimed(row, picked, claim_id, (now, send_by), leftover),
                None => again.push(picked),
            }
        }
        Ok(again)
    }

    fn claimed(
        &self,
        order: Order,
        picked: Picked,
        claim_id: ClaimId,
        (now, send_by): (Timestamp, Duration),
        leftover: &mut Leftover,
    ) {
        match (order.state, picked.permit, picked.slot) {
            (State::InFlight, Some(permit), Some(slot)) => {
                picked.queued.ack.done();
                let slack = (order.deadline_at - now).to_std().unwrap_or_default();
                self.metrics.slack(order.attempt_number() <= 1, slack);
                self.unsettled.fetch_add(1, Ordering::Relaxed);
                leftover.claimed.push(Claimed { order, claim_id, send_by, class: picked.class, permit, slot });
            }
            (_, permit, _) => {
                debug!(order_id = %order.order_id, state = %order.state, "decided without a call");
                picked.queued.ack.done();
                leftover.permits.extend(permit.map(|permit| (picked.class, permit)));
            }
        }
    }
}

/// The order of a command, if there is one to act on.
pub(super) fn order_of(command: &Command, row: Loaded) -> Option<Order> {
    match row {
        Loaded::Order(order) => return Some(order),
        Loaded::Absent => warn!(order_id = %command.order_id, "a command for an order that is not stored"),
        Loaded::Unreadable(why) => patience::unreadable(&command.order_id, &why),
    }
    None
}

impl Leftover {
    /// The command has nothing to do any more: the row has moved on.
    pub(super) fn drop_command(&mut self, picked: Picked) {
        self.permits.extend(picked.permit.map(|permit| (picked.class, permit)));
        picked.queued.ack.done();
    }

    pub(super) fn put_back(&mut self, picked: Picked, until: Timestamp) {
        self.permits.extend(picked.permit.map(|permit| (picked.class, permit)));
        self.again.push((picked.queued, picked.class, until));
    }

    /// The command came before its row's commit. If the row never catches up, the commit was
    /// lost and with it the reason for the command.
    pub(super) fn not_yet(&mut self, mut picked: Picked, now: Timestamp) {
        if picked.queued.put_back >= CATCH_UPS {
            self.drop_command(picked);
            return;
        }
        let wait = (CATCH_UP_FIRST * (1 << picked.queued.put_back.min(10))).min(CATCH_UP);
        picked.queued.put_back += 1;
        self.put_back(picked, now + wait);
    }
}
