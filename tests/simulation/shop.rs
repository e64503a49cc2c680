//! The shop: what it sells, and in which words and disorder it tells of that.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;
use rand::rngs::StdRng;
use recharged::domain::{OrderId, Timestamp};
use recharged::ports::OutRecord;
use serde_json::{Value, json};

use crate::payments::confirmation;
use crate::weather::{Fault, Strikes, Weather};

/// An order that was not paid so long after it was created is cancelled.
pub(crate) const UNPAID_TIMEOUT: Duration = Duration::from_secs(30);

/// So long after its creation somebody is told of an order, where the shop wants that.
pub(crate) const NOTIFY_AFTER: Duration = Duration::from_secs(10);

const AMOUNT: u32 = 5_000;
const ANOTHER_AMOUNT: u32 = 6_000;

/// Whether it wants somebody told of an order.
pub(crate) fn wants_notice(number: u32) -> bool {
    number.is_multiple_of(3)
}

/// What it says of one order.
#[derive(Debug, Clone)]
pub(crate) struct Saying {
    id: OrderId,
    /// Whom it is for.
    recipient: u32,
    what: What,
    /// It happened so long before it is told.
    old: Duration,
    /// Where it is told.
    topic: &'static str,
    number: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Created {
        amount: u32,
        is_paid: bool,
    },
    Paid,
    Cancelled,
    /// The payment side made one that nobody asked for.
    Refunded,
}

impl Saying {
    /// As it is told.
    pub(crate) fn record(&self, now: Timestamp) -> OutRecord {
        let id = &self.id;
        let at = (now - self.old).to_rfc3339();
        let payment_id = format!("p-{}", self.number);
        let (kind, value) = match self.what {
            What::Created { amount, is_paid } => {
                let value = json!({
                    "order_id": id.as_str(), "phone": format!("+86138000{:05}", self.recipient), "amount_minor": amount,
                    "currency": "CNY", "created_at": at, "paid_at": is_paid.then_some(&at),
                    "payment_id": is_paid.then_some(payment_id), "notify": wants_notice(self.number),
                });
                (None, value)
            }
            What::Paid => {
                let value = json!({ "order_id": id.as_str(), "paid_at": at, "payment_id": payment_id });
                (Some("recharge.order.paid.v1"), value)
            }
            What::Cancelled => (Some("recharge.order.cancelled.v1"), json!({ "order_id": id.as_str() })),
            What::Refunded => return confirmation(self.topic, id, &format!("unasked-{id}"), now),
        };
        record(self.topic, id, kind, &value)
    }
}

/// A record of one of the shop's topics.
pub(crate) fn record(topic: &'static str, id: &OrderId, kind: Option<&'static str>, value: &Value) -> OutRecord {
    let header = |name: &'static str, value: &'static str| {
        (Bytes::from_static(name.as_bytes()), Some(Bytes::from_static(value.as_bytes())))
    };
    OutRecord {
        topic: topic.into(),
        key: Some(Bytes::from(id.to_string())),
        value: Some(Bytes::from(value.to_string())),
        headers: kind.map_or_else(Vec::new, |kind| vec![header("ce_specversion", "1.0"), header("ce_type", kind)]),
    }
}

pub(crate) fn order_id(number: u32) -> OrderId {
    OrderId::parse(&format!("o-{number}")).unwrap()
}

/// Everything that the shop says in a run.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// And when.
    pub(crate) sayings: Vec<(Duration, Saying)>,
    /// The orders that are paid sooner or later.
    pub(crate) paid: HashSet<OrderId>,
    /// Those that it cancels.
    pub(crate) cancelled: HashSet<OrderId>,
    /// Those whose money goes back unasked.
    pub(crate) unasked: HashSet<OrderId>,
    /// Those of which something is told, and never that they were created.
    pub(crate) nobodys: BTreeSet<OrderId>,
    one_number: bool,
}

impl Plan {
    pub(crate) fn new(weather: &Weather, strikes: &Strikes, rng: &mut StdRng) -> Self {
        let mut plan = Self { one_number: weather.one_number, ..Self::default() };
        let mut at = Duration::from_secs(1);
        for number in 0..weather.orders {
            at += weather.gap.mul_f64(rng.random_range(0.0..2.0));
            let first = at;
            // What is told of it otherwise may come before.
            let comes_late = weather.rates.early > 0.0 && rng.random_bool(weather.rates.early);
            let at = if comes_late { at + soon(rng) } else { at };
            if rng.random_bool(weather.rates.unpaid) {
                strikes.hit(Fault::OrderUnpaid);
                plan.sell_unpaid(number, (first, at), weather, strikes, rng);
            } else {
                plan.sell_paid(number, at, weather, strikes, rng);
            }
            if rng.random_bool(weather.rates.cancelled) {
                strikes.hit(Fault::OrderCancelled);
                plan.cancelled.insert(order_id(number));
                plan.say_somewhere(first + soon(rng), at, number, What::Cancelled, (strikes, rng));
            }
            if weather.rates.payments > 0.0 && rng.random_bool(weather.rates.payments / 4.0) {
                strikes.hit(Fault::RefundUnasked);
                plan.unasked.insert(order_id(number));
                plan.say_somewhere(first + soon(rng), at, number, What::Refunded, (strikes, rng));
            }
            if weather.rates.orphans > 0.0 && rng.random_bool(weather.rates.orphans) {
                strikes.hit(Fault::EventOfNobody);
                let what = [What::Paid, What::Cancelled, What::Refunded][rng.random_range(0..3)];
                let id = OrderId::parse(&format!("nobody-{number}")).unwrap();
                plan.nobodys.insert(id.clone());
                plan.sayings.push((
                    first,
                    Saying { id, recipient: number, what, old: Duration::ZERO, topic: somewhere(rng), number },
                ));
            }
        }
        plan
    }

    fn sell_paid(&mut self, number: u32, at: Duration, weather: &Weather, strikes: &Strikes, rng: &mut StdRng) {
        let late = rng.random_bool(weather.rates.late);
        // About to pass, or just past.
        let old = if late { weather.sla.mul_f64(rng.random_range(0.9..1.02)) } else { Duration::ZERO };
        if late {
            strikes.hit(Fault::OrderLate);
        }
        self.paid.insert(order_id(number));
        self.say(at, number, What::Created { amount: AMOUNT, is_paid: true }, old);
        if let Some((later, amount)) = repeat(weather, strikes, rng) {
            self.say(at + later, number, What::Created { amount, is_paid: true }, old + later);
        }
    }

    fn sell_unpaid(
        &mut self,
        number: u32,
        (first, at): (Duration, Duration),
        weather: &Weather,
        strikes: &Strikes,
        rng: &mut StdRng,
    ) {
        self.say(at, number, What::Created { amount: AMOUNT, is_paid: false }, Duration::ZERO);
        if let Some((later, amount)) = repeat(weather, strikes, rng) {
            self.say(at + later, number, What::Created { amount, is_paid: false }, later);
        }
        if rng.random_bool(0.7) {
            strikes.hit(Fault::OrderPaidLater);
            self.paid.insert(order_id(number));
            let later = soon(rng);
            // As an event of its own, or the same order again, now paid.
            if rng.random_bool(0.7) {
                self.say_somewhere(first + later, at, number, What::Paid, (strikes, rng));
            } else {
                self.say(at + later, number, What::Created { amount: AMOUNT, is_paid: true }, Duration::ZERO);
            }
        }
    }

    fn say(&mut self, at: Duration, number: u32, what: What, old: Duration) {
        let recipient = if self.one_number { 0 } else { number };
        self.sayings.push((at, Saying { id: order_id(number), recipient, what, old, topic: "orders", number }));
    }

    /// On either topic, and perhaps before the order itself.
    fn say_somewhere(
        &mut self,
        at: Duration,
        created: Duration,
        number: u32,
        what: What,
        (strikes, rng): (&Strikes, &mut StdRng),
    ) {
        if at < created {
            strikes.hit(Fault::EventBeforeItsOrder);
        }
        let (id, topic) = (order_id(number), somewhere(rng));
        self.sayings.push((at, Saying { id, recipient: number, what, old: Duration::ZERO, topic, number }));
    }
}

fn somewhere(rng: &mut StdRng) -> &'static str {
    if rng.random_bool(0.5) { "lifecycle" } else { "orders" }
}

/// At once, within the time in which the order itself is stored, or around the time at which it is cancelled.
fn soon(rng: &mut StdRng) -> Duration {
    let most = [1, 30, 5_000, 1_100 * UNPAID_TIMEOUT.as_secs()][rng.random_range(0..4)];
    Duration::from_millis(rng.random_range(0..most))
}

/// When an order is told again, and with which amount.
fn repeat(weather: &Weather, strikes: &Strikes, rng: &mut StdRng) -> Option<(Duration, u32)> {
    if !rng.random_bool(weather.rates.repeats) {
        return None;
    }
    let contradicts = rng.random_bool(weather.rates.contradictions);
    strikes.hit(if contradicts { Fault::OrderContradicted } else { Fault::OrderTwice });
    let later = Duration::from_millis([0, 20, 5_000][rng.random_range(0..3)]);
    Some((later, if contradicts { ANOTHER_AMOUNT } else { AMOUNT }))
}
