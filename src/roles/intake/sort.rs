//! The first look at a batch: what is usable, what is a dead letter, and what each order gets.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use foldhash::quality::RandomState;

use crate::domain::inbound::{self, DeadLetterReason, Inbound, Unfit};
use crate::domain::{Decision, Input, NewOrder, OrderId, Timestamp, Transition, decide};
use crate::ports::InRecord;

use super::early::Taken;
use super::turns::OrderIds;
use super::{Intake, Source};

/// A later event may lie ahead of our clock by this much before it counts as wrong.
const FUTURE_TOLERANCE: chrono::Duration = chrono::Duration::seconds(5);

/// One event that acts on an order that is, or will be, stored.
pub(super) struct Pending {
    /// The record it came in, by its place in the batch.
    pub(super) record: usize,
    /// Whom it concerns.
    pub(super) order_id: OrderId,
    /// What it says.
    pub(super) input: Input,
}

/// A batch after the first look.
#[derive(Default)]
pub(super) struct Sorted {
    /// New orders, one per id.
    pub(super) arrivals: Vec<Transition>,
    /// What the arrivals said, to compare with a row that turns out to exist.
    pub(super) said: Vec<Pending>,
    /// Further events, in the order of the batch.
    pub(super) later: Vec<Pending>,
    /// Unusable records, by their place in the batch.
    pub(super) unfit: Vec<(usize, Unfit)>,
}

impl Sorted {
    /// The orders of which it speaks.
    pub(super) fn orders(&self) -> OrderIds {
        self.said.iter().chain(&self.later).map(|event| event.order_id.clone()).collect()
    }
}

impl Intake {
    /// Looks at a batch without touching anything outside.
    pub(super) fn sort(&self, records: &[Taken], now: Timestamp) -> Sorted {
        let count = records.len();
        let (arrivals, said) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let mut sorted = Sorted { arrivals, said, ..Sorted::default() };
        let mut seen = HashSet::with_capacity_and_hasher(count, RandomState::default());
        let plain_is_order = self.source == Source::Orders;
        for (place, Taken { record, .. }) in records.iter().enumerate() {
            let (value, headers) = (record.value.as_deref(), &record.headers);
            let read = inbound::read(value, headers, plain_is_order, &self.rules.commands.phone_key);
            match read.and_then(|event| self.input_of(event, record, now)) {
                Err(unfit) => sorted.unfit.push((place, unfit)),
                Ok((order_id, input)) => {
                    self.place(&mut sorted, &mut seen, Pending { record: place, order_id, input }, now);
                }
            }
        }
        sorted
    }

    fn place(&self, sorted: &mut Sorted, seen: &mut HashSet<OrderId, RandomState>, pending: Pending, now: Timestamp) {
        let is_first = matches!(pending.input, Input::Arrived { .. }) && seen.insert(pending.order_id.clone());
        if !is_first {
            sorted.later.push(pending);
            return;
        }
        match decide(None, &pending.input, now, &self.rules.policy) {
            Decision::Apply(transition) => {
                sorted.arrivals.push(*transition);
                sorted.said.push(pending);
            }
            Decision::Keep(_) => sorted.later.push(pending),
        }
    }

    fn input_of(&self, event: Inbound, record: &InRecord, now: Timestamp) -> Result<(OrderId, Input), Unfit> {
        match event {
            Inbound::Created(mut new) => {
                new.created_at = not_ahead(new.created_at, record, now);
                new.paid_at = new.paid_at.map(|at| self.paid_not_ahead(at, record, now));
                refuse_too_old(&new, now, self.rules.retention)?;
                let verdict = (self.rules.route)(&new);
                Ok((new.order_id.clone(), Input::Arrived { new, verdict }))
            }
            Inbound::Paid { order_id, paid_at, payment_id } => {
                let paid_at = self.paid_not_ahead(paid_at, record, now);
                // The lane is chosen once the row, and with it the number, is known.
                let verdict = Err(crate::domain::Reason::NoRoute);
                Ok((order_id, Input::Paid { paid_at, payment_id, verdict }))
            }
            Inbound::Cancelled { order_id } => Ok((order_id, Input::CancelRequested)),
            Inbound::RefundConfirmed { order_id, refund_id, at } => {
                Ok((order_id, Input::RefundConfirmed { refund_id, at: not_ahead(at, record, now) }))
            }
        }
    }

    fn paid_not_ahead(&self, at: Timestamp, record: &InRecord, now: Timestamp) -> Timestamp {
        if at > now + FUTURE_TOLERANCE {
            self.metrics.future_paid_at(1);
        }
        not_ahead(at, record, now)
    }
}

/// An order older than the retention of closed orders may have been recharged or refunded,
/// and deleted since. Its money needs a person, not a second refund.
pub(crate) fn refuse_too_old(new: &NewOrder, now: Timestamp, retention: Duration) -> Result<(), Unfit> {
    let at = new.paid_at.unwrap_or(new.created_at);
    if now - at <= chrono::Duration::from_std(retention).unwrap_or(chrono::Duration::MAX) {
        return Ok(());
    }
    let detail = "older than closed orders are kept: it may have been handled and forgotten";
    Err(Unfit::new(DeadLetterReason::TooOld, detail))
}

/// A time that lies ahead of ours is wrong: the record's own timestamp counts instead.
fn not_ahead(at: Timestamp, record: &InRecord, now: Timestamp) -> Timestamp {
    if at <= now + FUTURE_TOLERANCE {
        return at;
    }
    record.timestamp.filter(|stamp| *stamp <= now + FUTURE_TOLERANCE).unwrap_or(now)
}

/// Splits events into rounds: in each round an order has at most one, and they stay in order.
pub(super) fn into_rounds(events: Vec<Pending>) -> Vec<Vec<Pending>> {
    let mut rounds: Vec<Vec<Pending>> = Vec::new();
    let mut next_round: HashMap<OrderId, usize> = HashMap::new();
    for event in events {
        let round = next_round.entry(event.order_id.clone()).or_default();
        if rounds.len() <= *round {
            rounds.resize_with(*round + 1, Vec::new);
        }
        if let Some(slot) = rounds.get_mut(*round) {
            slot.push(event);
        }
        *round += 1;
    }
    rounds
}
