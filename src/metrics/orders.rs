//! Orders on their way in and out.

use std::time::Duration;

use metrics::{Counter, Histogram};

use super::Family;
use super::catalogue as names;
use crate::domain::inbound::DeadLetterReason;
use crate::domain::{Reason, Sla, State, Transition};
use crate::faults::{Bug, is_planted};

/// Why a paid order can fail on arrival; every reason of a dead letter refuses a record besides.
const FAILS_ON_ARRIVAL: [Reason; 4] =
    [Reason::InvalidPhone, Reason::AmountNotSupported, Reason::NoRoute, Reason::DeadlinePassed];
const STAGES: [&str; 3] = ["intake", "dispatch", "result"];
const EARLY: [&str; 2] = ["waits", "found"];

/// One input topic.
#[derive(Clone, Debug)]
pub struct IntakeMetrics {
    received: Counter,
    accepted: Counter,
    rejected: Family<Counter>,
    duplicate: Family<Counter>,
    early: Family<Counter>,
    delay: Histogram,
    future_paid_at: Counter,
}

impl IntakeMetrics {
    /// For `orders`, `lifecycle` or `timers`.
    pub fn new(source: &'static str) -> Self {
        let refusals: Vec<&'static str> = DeadLetterReason::ALL
            .iter()
            .map(|reason| reason.as_str())
            .chain(FAILS_ON_ARRIVAL.iter().map(|reason| reason.as_str()))
            .collect();
        Self {
            received: names::ORDERS_RECEIVED.counter(&[source]),
            accepted: names::ORDERS_ACCEPTED.counter(&[source]),
            rejected: Family::new(&refusals, |reason| names::ORDERS_REJECTED.counter(&[source, reason])),
            duplicate: Family::new(&STAGES, |stage| names::ORDERS_DUPLICATE.counter(&[source, stage])),
            early: Family::new(&EARLY, |result| names::EARLY_EVENTS.counter(&[source, result])),
            delay: names::INTAKE_DELAY.histogram(&[source]),
            future_paid_at: names::FUTURE_PAID_AT.counter(&[source]),
        }
    }

    /// Records read.
    pub fn received(&self, count: u64) {
        self.received.increment(count);
    }

    /// Valid, new, stored.
    pub fn accepted(&self, count: u64) {
        self.accepted.increment(count);
    }

    /// Dead letters, by their reason (`interface.md` section 6), or paid orders that failed on
    /// arrival, by theirs.
    pub fn rejected(&self, reason: &'static str, count: u64) {
        if let Some(counter) = self.rejected.get(reason) {
            counter.increment(count);
        }
    }

    /// Repetitions; noticed at `intake`, `dispatch` or `result`.
    pub fn duplicate(&self, stage: &'static str, count: u64) {
        if let Some(counter) = self.duplicate.get(stage) {
            counter.increment(count);
        }
    }

    /// Events whose order is not there and that wait for it; and those that came back and found it.
    pub fn early(&self, waits: u64, found: u64) {
        for (result, count) in EARLY.into_iter().zip([waits, found]) {
            if let Some(counter) = self.early.get(result).filter(|_| count > 0) {
                counter.increment(count);
            }
        }
    }

    /// From the event's own time until it was stored.
    pub fn delay(&self, delay: Duration) {
        self.delay.record(delay.as_secs_f64());
    }

    /// Orders paid in the future.
    pub fn future_paid_at(&self, count: u64) {
        self.future_paid_at.increment(count);
    }
}

#[derive(Clone, Debug)]
struct Closed {
    orders: Counter,
    resolution: Histogram,
    attempts: Histogram,
}

/// What became of orders.
#[derive(Clone, Debug)]
pub struct OutcomeMetrics {
    closed: Family<Closed>,
    met: Counter,
    missed: Counter,
}

impl OutcomeMetrics {
    /// For the whole process.
    pub fn new() -> Self {
        let outcomes = [State::Succeeded, State::Failed, State::Cancelled].map(State::as_str);
        Self {
            closed: Family::new(&outcomes, |outcome| Closed {
                orders: names::ORDERS_RESOLVED.counter(&[outcome]),
                resolution: names::ORDER_RESOLUTION.histogram(&[outcome]),
                attempts: names::ORDER_ATTEMPTS.histogram(&[outcome]),
            }),
            met: names::SLA_ORDERS.counter(&[Sla::Met.as_str()]),
            missed: names::SLA_ORDERS.counter(&[Sla::Missed.as_str()]),
        }
    }

    /// A transition was written: counts what it closed and decided. Only for the write that won.
    pub fn written(&self, transition: &Transition) {
        let order = &transition.after;
        if let Some(sla) = transition.sla.filter(|sla| *sla == Sla::Met || !is_planted(Bug::ForgetMissed)) {
            self.sla(sla);
            if is_planted(Bug::CountTwice) {
                self.sla(sla);
            }
        }
        if !order.state.is_closed() || order.closed_at != Some(transition.event.at) {
            return;
        }
        let since = order.paid_at.unwrap_or(order.created_at);
        let resolution = (transition.event.at - since).to_std().unwrap_or_default();
        self.closed(order.state, resolution, order.attempt_number());
    }

    /// An order was closed, so long after its payment (or creation, where it never was paid).
    /// Only for the one write that closed it.
    pub fn closed(&self, state: State, resolution: Duration, attempts: u16) {
        if !state.is_closed() {
            return;
        }
        if let Some(closed) = self.closed.get(state.as_str()) {
            closed.orders.increment(1);
            closed.resolution.record(resolution.as_secs_f64());
            closed.attempts.record(f64::from(attempts));
        }
    }

    /// An order was counted; only for the one write that set its `sla`.
    pub fn sla(&self, sla: Sla) {
        match sla {
            Sla::Met => self.met.increment(1),
            Sla::Missed => self.missed.increment(1),
        }
    }
}

impl Default for OutcomeMetrics {
    fn default() -> Self {
        Self::new()
    }
}
