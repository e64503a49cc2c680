//! Orders of a lane that takes none for now, or not theirs in time: into the next lane of their route, where there is one and
//! nothing of them is open here. The others wait.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::domain::{CommandKind, Decision, Input, Order, OrderId, Timestamp, Transition, decide};
use crate::ports::{OutRecord, PermitClass, StoreError, Written};
use crate::roles::patience;

use super::Lane;
use super::breaker::{Sign, Turn};
use super::claim::{Fit, order_of};
use super::heap::Queued;
use super::lane::{Event, Scheduler};

/// What can go nowhere else is looked at again after this long, or when the lane is open again.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// A command, and in which queue it is.
type Placed = (Queued, PermitClass);

/// Commands that stay, and until when where that is known.
pub(super) type Staying = Vec<(Placed, Option<Timestamp>)>;

impl Lane {
    /// How many recharges may begin now, as far as the lane is concerned.
    pub(super) fn room(&self) -> usize {
        if self.board.is_paused(self.provider.id()) { 0 } else { self.breaker.room(self.clock.since_boot()) }
    }

    /// A call has told something of its provider.
    pub(super) fn note_sign(&self, sign: Sign, began: Duration) {
        let provider = self.provider.id();
        match self.breaker.note(sign, began, self.clock.since_boot()) {
            Some(Turn::Opened(cause, rest)) => {
                self.metrics.breaker("open");
                warn!(%provider, cause = cause.as_str(), rest_ms = rest.as_millis(),
                    "the lane rests: its provider takes no orders of ours; one is tried after that");
            }
            Some(Turn::Closed) => {
                self.metrics.breaker("closed");
                info!(%provider, "the lane goes on: its provider is well again");
            }
            None => {}
        }
    }

    /// Moves orders on, each for its reason; returns the commands that stay. An error means that the store refuses for good,
    /// or that the role was told to drop everything.
    pub(super) async fn reroute(
        &self,
        batch: Vec<(Placed, Input)>,
        abort: &CancellationToken,
    ) -> Result<Staying, StoreError> {
        let (mut stay, mut moving, mut transitions) = (Staying::new(), Vec::new(), Vec::new());
        let ids: Vec<OrderId> = batch.iter().map(|((queued, _), _)| queued.command.order_id.clone()).collect();
        let rows = patience::stored_unless("load", abort, || self.store.load(&ids)).await?;
        let (now, policy) = (self.clock.now(), self.policy());
        for (((queued, class), why), row) in batch.into_iter().zip(rows) {
            let Some(row) = order_of(&queued.command, row) else {
                queued.ack.done();
                continue;
            };
            match self.judge(&queued.command, &row, now) {
                Fit::Dead => queued.ack.done(),
                Fit::Ahead | Fit::Early(_) => stay.push(((queued, class), None)),
                Fit::Acts => match decide(Some(&row), &why, now, &policy) {
                    Decision::Apply(transition) => {
                        transitions.push(*transition);
                        moving.push((queued, class));
                    }
                    Decision::Keep(_) => stay.push(((queued, class), until(&why, &row))),
                },
            }
        }
        let hints: Vec<OutRecord> =
            transitions.iter().filter_map(|transition| self.hint_elsewhere(transition)).collect();
        if hints.len() < transitions.len()
            || !patience::published("orders of a lane that rests", self.publisher.as_ref(), hints, abort).await
        {
            // A lane that is not configured here, or told to drop everything.
            stay.extend(moving.into_iter().map(|placed| (placed, None)));
            return Ok(stay);
        }
        if transitions.is_empty() {
            return Ok(stay);
        }
        let written = patience::applied("reroute", self.store.as_ref(), &transitions, abort).await?;
        let mut moved = 0;
        for ((queued, class), written) in moving.into_iter().zip(written) {
            match written {
                Written::Stored => {
                    moved += 1;
                    queued.ack.done();
                }
                Written::Overtaken | Written::Locked | Written::Refused => stay.push(((queued, class), None)),
            }
        }
        info!(lane = %self.provider.id(), orders = moved, "orders go to the next lane of their route");
        Ok(stay)
    }

    /// What asks the next lane. One that was never sent is as fresh there as here.
    fn hint_elsewhere(&self, transition: &Transition) -> Option<OutRecord> {
        let follow_up = transition.follow_up.as_ref()?;
        if transition.after.attempt.is_some() {
            return self.follow_up_record(transition);
        }
        let topics = self.rules.lanes.get(&follow_up.lane)?;
        Some(self.rules.commands.fresh(topics, &follow_up.command, &transition.after.recipient))
    }
}

/// What waits for its number in vain has its end here as soon as that is sure.
fn until(why: &Input, row: &Order) -> Option<Timestamp> {
    if let Input::NumberCools { until } = why { Some((*until).min(row.deadline_at)) } else { None }
}

impl Scheduler {
    /// Tells whoever chooses lanes whether this one takes orders. When its rest is over it does again, or no order would
    /// come that could be tried.
    pub(super) fn tell_board(&mut self) {
        let is_sick = self.lane.breaker.room(self.lane.clock.since_boot()) == 0;
        if is_sick != self.is_sick {
            self.is_sick = is_sick;
            self.lane.board.set_sick(self.lane.provider.id(), is_sick);
        }
    }

    /// Moves on what may be served elsewhere while the lane takes no orders; a batch at a time.
    pub(super) fn start_rerouting(&mut self) {
        if self.rerouting || !self.lane.leads_on || self.lane.room() > 0 {
            return;
        }
        let mut batch = Vec::new();
        for class in [PermitClass::Retry, PermitClass::Fresh] {
            while batch.len() < self.lane.rules.batch_max
                && let Some(queued) = self.queues.of(class).heap.pop()
            {
                debug_assert_eq!(queued.command.kind, CommandKind::Submit);
                batch.push(((queued, class), Input::LaneShut));
            }
        }
        if batch.is_empty() {
            return;
        }
        self.rerouting = true;
        let (lane, abort) = (Arc::clone(&self.lane), self.stop.abort.clone());
        self.under_way.spawn(async move { Event::Rerouted(lane.reroute(batch, &abort).await) });
    }

    /// Moves on what would wait for its number beyond its deadline. In a task of its own, since the claims beside it have no
    /// time to wait for a broker; and a batch at a time: what comes meanwhile is looked at again.
    pub(super) fn pass_on(&mut self, too_cool: Vec<(Queued, PermitClass, Timestamp)>) {
        if too_cool.is_empty() {
            return;
        }
        if self.passing_on {
            self.take_staying(too_cool.into_iter().map(|(queued, class, _)| ((queued, class), None)).collect());
            return;
        }
        self.passing_on = true;
        let place = |(queued, class, until)| ((queued, class), Input::NumberCools { until });
        let batch = too_cool.into_iter().map(place).collect();
        let (lane, abort) = (Arc::clone(&self.lane), self.stop.abort.clone());
        self.under_way.spawn(async move { Event::PassedOn(lane.reroute(batch, &abort).await) });
    }

    /// Keeps what stays until there is a reason to look again.
    pub(super) fn take_staying(&mut self, stay: Staying) {
        let now = self.lane.clock.now();
        let soon = crate::domain::plus(now, self.opens_in().unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN));
        for ((queued, class), until) in stay {
            self.queues.of(class).heap.push(queued, Some(until.unwrap_or(soon)), now);
        }
    }

    /// When the breaker lets a call begin again, if none may now.
    pub(super) fn opens_in(&self) -> Option<Duration> {
        let since_boot = self.lane.clock.since_boot();
        Some(self.lane.breaker.opens_at(since_boot)?.saturating_sub(since_boot))
    }
}
