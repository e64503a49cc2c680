//! One batch: store, publish, and only then acknowledge. Idempotent as a whole, so a crash
//! anywhere in it is mended by the redelivery: a row that is still `queued` without an attempt
//! gets its command again, naming the version that the row remembers.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::domain::inbound::{DeadLetterReason, Unfit};
use crate::domain::{Decision, Input, NewOrder, Order, OrderId, Timestamp, Transition, decide};
use crate::faults::{self, Bug, is_planted};
use crate::ports::{Inserted, Loaded, StoreError, Written};
use crate::roles::{RoleError, patience};

use super::Intake;
use super::early::Taken;
use super::out::{Commands, Left};
use super::sort::{Pending, Sorted, into_rounds};
use super::turns::Turn;

/// A row that somebody holds is tried again after this long.
const LOCKED_FOR: Duration = Duration::from_secs(1);
const REFUSED: &str = "the store refuses to hold what this makes of its order";
const REFUSED_BEFORE: &str = "the store refused to hold the order of this id when it came first";

impl Intake {
    /// Takes a batch to its end; returns how many records it left. It leaves them all, without an
    /// acknowledgement, only when told to drop everything; the store may refuse for good.
    pub(super) async fn take(
        self,
        records: Vec<Taken>,
        sorted: Sorted,
        turn: Turn,
        abort: &CancellationToken,
    ) -> Result<usize, RoleError> {
        let count = records.len();
        match self.take_all(records, sorted, turn, abort).await {
            Ok(true) => Ok(0),
            Ok(false) => Ok(count),
            Err(RoleError::Store(error)) if error.is_transient() && abort.is_cancelled() => Ok(count),
            Err(error) => Err(error),
        }
    }

    async fn take_all(
        self,
        records: Vec<Taken>,
        sorted: Sorted,
        turn: Turn,
        abort: &CancellationToken,
    ) -> Result<bool, RoleError> {
        if !turn.comes().await {
            return Ok(false);
        }
        let mut commands = Commands::default();
        let mut unfit = sorted.unfit;
        if is_planted(Bug::AcknowledgeBeforeStored) {
            for taken in &records {
                taken.record.ack.clone().done();
            }
        }

        let mut arrivals = sorted.arrivals;
        let inserted = loop {
            if let Some(inserted) = self.insert(&arrivals, abort).await? {
                break inserted;
            }
            arrivals = arrivals.iter().map(|arrival| self.decided_anew(arrival)).collect();
        };
        let (mut later, mut stored) = (Vec::new(), Vec::with_capacity(inserted.len()));
        for ((mut transition, said), outcome) in arrivals.into_iter().zip(sorted.said).zip(inserted) {
            match outcome {
                Outcome::Is(Inserted::Stored) => {
                    self.note_stored(&transition);
                    if let Some(follow_up) = transition.follow_up.take() {
                        commands.follow(Some(follow_up), &transition.after.recipient);
                        stored.push(transition.after);
                    }
                }
                Outcome::Is(Inserted::Exists(row)) => {
                    commands.again(&row);
                    later.push(said);
                }
                Outcome::Is(Inserted::Unreadable(why)) => unfit.push((said.record, unreadable(&said.order_id, &why))),
                Outcome::Refused(why) => unfit.push((said.record, why)),
            }
        }
        self.at_hand.put(stored);
        later.extend(sorted.later);
        let mut left = Left { unfit, early: Vec::new() };
        for round in into_rounds(later) {
            self.act(round, &mut commands, &mut left, abort).await?;
        }
        turn.ends();

        faults::point("intake::stored");
        if !self.publish(commands, &records, left, abort).await {
            return Ok(false);
        }
        for taken in records {
            taken.record.ack.done();
        }
        Ok(true)
    }

    fn note_stored(&self, transition: &Transition) {
        let order = &transition.after;
        self.metrics.accepted(1);
        let since = order.paid_at.unwrap_or(order.created_at);
        self.metrics.delay((transition.event.at - since).to_std().unwrap_or_default());
        self.outcomes.written(transition);
    }

    /// Inserts, and where the store refuses a batch for what is in it, finds the culprit by
    /// halves: one impossible value must not hold up its neighbours. `None` where the store was away
    /// for so long that they must be decided anew.
    async fn insert(
        &self,
        arrivals: &[Transition],
        abort: &CancellationToken,
    ) -> Result<Option<Vec<Outcome>>, RoleError> {
        if arrivals.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let new = deadlines_of(arrivals.iter());
        let write =
            || async { if self.are_late(&new) { Ok(None) } else { self.store.insert(arrivals).await.map(Some) } };
        match patience::stored_unless("insert", abort, write).await {
            Ok(None) => Ok(None),
            Ok(Some(inserted)) => Ok(Some(inserted.into_iter().map(Outcome::Is).collect())),
            Err(refusal) if !refusal.is_about_data() => Err(refusal.into()),
            Err(refusal) if arrivals.len() == 1 => Ok(Some(vec![Outcome::Refused(refused(&refusal))])),
            Err(_) => {
                let (left, right) = arrivals.split_at(arrivals.len() / 2);
                let left = Box::pin(self.insert(left, abort)).await?;
                let right = Box::pin(self.insert(right, abort)).await?;
                // What is stored already is found there the next time.
                Ok(left.zip(right).map(|(left, right)| [left, right].concat()))
            }
        }
    }

    /// Whether a new deadline has passed while the store was away. An open order that gets one in
    /// the past may lie behind the watchdog's low-water mark, where nobody looks for it. One that has
    /// had it for long is decided already, or about to be.
    fn are_late(&self, new: &[Timestamp]) -> bool {
        let now = self.clock.now();
        new.iter().any(|deadline| *deadline <= now)
    }

    /// An arrival as it is decided now.
    fn decided_anew(&self, arrival: &Transition) -> Transition {
        let order = &arrival.after;
        let new = NewOrder {
            order_id: order.order_id.clone(),
            recipient: order.recipient.clone(),
            amount: order.amount,
            carrier: order.carrier.clone(),
            created_at: order.created_at,
            paid_at: order.paid_at,
            payment_id: order.payment_id.clone(),
            notify: order.notify,
            metadata: order.metadata.clone(),
            phone_hash: arrival.event.data.facts.as_ref().and_then(|facts| facts.phone_hash.clone()),
        };
        let verdict = (self.rules.route)(&new);
        match decide(None, &Input::Arrived { new: Box::new(new), verdict }, self.clock.now(), &self.rules.policy) {
            Decision::Apply(transition) => *transition,
            Decision::Keep(_) => arrival.clone(),
        }
    }

    /// Acts on orders that are stored: the same order again, its payment, its cancellation. Each
    /// order has one event in a round. `left` gets the events that there is nothing to act on.
    async fn act(
        &self,
        mut round: Vec<Pending>,
        commands: &mut Commands,
        left: &mut Left,
        abort: &CancellationToken,
    ) -> Result<(), RoleError> {
        while !round.is_empty() {
            let ids: Vec<OrderId> = round.iter().map(|event| event.order_id.clone()).collect();
            let rows = patience::stored_unless("load", abort, || self.store.load(&ids)).await?;
            let (mut transitions, mut events) = (Vec::new(), Vec::new());
            for (event, row) in round.into_iter().zip(rows) {
                let row = match row {
                    Loaded::Order(row) => row,
                    Loaded::Absent if matches!(event.input, Input::Arrived { .. }) => {
                        let why = Unfit::new(DeadLetterReason::Undeliverable, REFUSED_BEFORE);
                        left.unfit.push((event.record, why));
                        continue;
                    }
                    Loaded::Absent => {
                        if !is_planted(Bug::ForgetTheEarly) {
                            left.early.push(event.record);
                        }
                        continue;
                    }
                    Loaded::Unreadable(why) => {
                        left.unfit.push((event.record, unreadable(&event.order_id, &why)));
                        continue;
                    }
                };
                commands.again(&row);
                let input = self.with_lane(&event.input, &row);
                match decide(Some(&row), &input, self.clock.now(), &self.rules.policy) {
                    Decision::Apply(transition) => {
                        transitions.push(*transition);
                        events.push(event);
                    }
                    Decision::Keep(why) => {
                        // Whether the first came in this batch or in another one.
                        self.metrics.duplicate("intake", 1);
                        debug!(order_id = %row.order_id, ?why, "an event changes nothing");
                    }
                }
            }
            round = self.write(&transitions, events, commands, left, abort).await?;
        }
        Ok(())
    }

    /// Writes one round; returns the events that lost the fence, to be decided again.
    async fn write(
        &self,
        transitions: &[Transition],
        events: Vec<Pending>,
        commands: &mut Commands,
        left: &mut Left,
        abort: &CancellationToken,
    ) -> Result<Vec<Pending>, RoleError> {
        if transitions.is_empty() {
            return Ok(Vec::new());
        }
        // A new deadline that has passed while the store was away is overtaken.
        let written = patience::applied("apply", self.store.as_ref(), transitions, abort).await?;
        let (mut lost, mut is_locked) = (Vec::new(), false);
        for ((transition, event), written) in transitions.iter().zip(events).zip(written) {
            match written {
                Written::Stored => {
                    self.outcomes.written(transition);
                    commands.follow(transition.follow_up.clone(), &transition.after.recipient);
                }
                Written::Overtaken => lost.push(event),
                // The batch waits for it: only when it is written may it be acknowledged.
                Written::Locked => {
                    is_locked = true;
                    lost.push(event);
                }
                Written::Refused => {
                    left.unfit.push((event.record, Unfit::new(DeadLetterReason::Undeliverable, REFUSED)));
                }
            }
        }
        if is_locked {
            tokio::select! {
                biased; // Being told to stop comes before another try.
                () = abort.cancelled() => {}
                () = tokio::time::sleep(LOCKED_FOR) => {}
            }
        }
        Ok(lost)
    }

    /// A payment says nothing of the number or the amount: the lane is found from the row.
    fn with_lane(&self, input: &Input, row: &Order) -> Input {
        let Input::Paid { paid_at, payment_id, .. } = input else { return input.clone() };
        let new = NewOrder {
            order_id: row.order_id.clone(),
            recipient: row.recipient.clone(),
            amount: row.amount,
            carrier: row.carrier.clone(),
            created_at: row.created_at,
            paid_at: Some(*paid_at),
            payment_id: payment_id.clone(),
            notify: row.notify,
            metadata: None,
            phone_hash: None,
        };
        Input::Paid { paid_at: *paid_at, payment_id: payment_id.clone(), verdict: (self.rules.route)(&new) }
    }
}

#[derive(Clone)]
enum Outcome {
    Is(Inserted),
    Refused(Unfit),
}

/// Those of orders that stay open.
fn deadlines_of<'a>(transitions: impl IntoIterator<Item = &'a Transition>) -> Vec<Timestamp> {
    let open = transitions.into_iter().filter(|transition| !transition.after.state.is_closed());
    open.map(|transition| transition.after.deadline_at).collect()
}

fn unreadable(id: &OrderId, why: &str) -> Unfit {
    patience::unreadable(id, why);
    Unfit::new(DeadLetterReason::Undeliverable, format!("the order of this id cannot be read: {why}"))
}

fn refused(refusal: &StoreError) -> Unfit {
    // Not the driver's text: it quotes values.
    Unfit::new(DeadLetterReason::Undeliverable, format!("the store refuses to hold this order: {refusal}"))
}
