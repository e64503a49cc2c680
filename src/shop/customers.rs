//! Customers who order first and then pay, or do not, or change their minds: what a shop tells of orders that are
//! not paid when they are created. Each is drawn from the seed and the order's number alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::pace::{self, Parcel, Sold};
use super::{after, event, in_words};
use crate::domain::{Reason, State, Timestamp};
use crate::ports::{Clock, Publisher};

/// What follows an order is told twice this often, of 1.
const REPEATED: f64 = 0.1;
/// What comes after something else comes so much later at least, and so much more at most.
const A_WHILE: Duration = Duration::from_millis(1_500);

/// What a customer does about an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Customer {
    /// Pays in time.
    Pays,
    /// Pays, and the payment is told before the order.
    PaysAhead,
    /// Does nothing more.
    Forgets,
    /// Cancels before paying.
    Cancels,
    /// Cancels, and pays all the same.
    CancelsAndPays,
    /// Pays when the time to pay is over.
    PaysTooLate,
    /// Pays, and cancels then.
    PaysAndCancels,
}

impl Customer {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Pays,
        Self::PaysAhead,
        Self::Forgets,
        Self::Cancels,
        Self::CancelsAndPays,
        Self::PaysTooLate,
        Self::PaysAndCancels,
    ];

    /// Of a hundred orders.
    fn share(self) -> u32 {
        match self {
            Self::Pays => 40,
            Self::Forgets => 24,
            Self::Cancels => 10,
            Self::PaysAhead => 8,
            Self::CancelsAndPays | Self::PaysTooLate | Self::PaysAndCancels => 6,
        }
    }

    /// How the order of such a customer ends at a provider that delivers; and whether there is money to give back.
    pub fn end(self) -> (State, Option<Reason>, bool) {
        match self {
            Self::Pays | Self::PaysAhead | Self::PaysAndCancels => (State::Succeeded, None, false),
            Self::Forgets => (State::Cancelled, Some(Reason::Unpaid), false),
            Self::Cancels => (State::Cancelled, Some(Reason::CancelledUpstream), false),
            Self::CancelsAndPays => (State::Cancelled, Some(Reason::CancelledUpstream), true),
            Self::PaysTooLate => (State::Cancelled, Some(Reason::Unpaid), true),
        }
    }

    /// For people.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Pays => "pay in time",
            Self::PaysAhead => "pay before the order is told",
            Self::Forgets => "never pay",
            Self::Cancels => "cancel",
            Self::CancelsAndPays => "cancel, and pay all the same",
            Self::PaysTooLate => "pay too late",
            Self::PaysAndCancels => "pay, and cancel then",
        }
    }
}

/// Orders of such customers, at a pace.
#[derive(Debug, Clone)]
pub struct Customers {
    /// Orders per second.
    pub rate: f64,
    /// How many in all.
    pub orders: u64,
    /// Begins every order id.
    pub prefix: String,
    /// For everything that is drawn.
    pub seed: u64,
    /// From an order to the end of the time to pay.
    pub unpaid_timeout: Duration,
    /// Where orders are told.
    pub orders_topic: Arc<str>,
    /// Where payments and cancellations are told.
    pub lifecycle_topic: Arc<str>,
}

impl Customers {
    /// Sells all, and tells what follows; as [`pace::send`] sends.
    pub async fn come(
        &self,
        publisher: Arc<dyn Publisher>,
        clock: &dyn Clock,
        room: &(impl Fn() -> u64 + Sync),
        on_sold: &(impl Fn(u64) + Sync),
        stop: &CancellationToken,
    ) -> Sold {
        pace::send(self.parcels(clock.now()), publisher, clock, room, on_sold, stop).await
    }

    /// Who has ordered this. The first orders are of one of each, so that a short run has them all.
    pub fn customer(&self, number: u64) -> Customer {
        let first = usize::try_from(number).ok().and_then(|number| Customer::ALL.get(number));
        if let Some(customer) = first {
            return *customer;
        }
        let mut left = self.dice(number).random_range(0..100_u32);
        for customer in Customer::ALL {
            let Some(rest) = left.checked_sub(customer.share()) else { return customer };
            left = rest;
        }
        Customer::Pays
    }

    /// Who has ordered the order of this id, if it is one of these.
    pub fn customer_of(&self, order_id: &str) -> Option<Customer> {
        let number = order_id.strip_prefix(self.prefix.as_str())?.strip_prefix('-')?.parse().ok()?;
        (number < self.orders).then(|| self.customer(number))
    }

    fn dice(&self, number: u64) -> StdRng {
        StdRng::seed_from_u64(self.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// Everything that is told, in the order of its time. Holds what is to follow the orders of one time to pay.
    fn parcels(&self, opened: Timestamp) -> impl Iterator<Item = Parcel> {
        let mut number = 0;
        // By time, then in the order in which they were made.
        let mut waiting: BTreeMap<(Duration, u64, usize), Parcel> = BTreeMap::new();
        std::iter::from_fn(move || {
            // Nothing of a later order comes before that order's own time.
            while number < self.orders
                && waiting.first_key_value().is_none_or(|((first, ..), _)| *first >= after(number, self.rate))
            {
                let story = self.story(number, opened).into_iter().enumerate();
                waiting.extend(story.map(|(place, parcel)| ((parcel.after, number, place), parcel)));
                number += 1;
            }
            waiting.pop_first().map(|(_, parcel)| parcel)
        })
    }

    /// All that is told of one order.
    fn story(&self, number: u64, opened: Timestamp) -> Vec<Parcel> {
        let mut dice = self.dice(number.wrapping_add(1 << 32));
        let begin = after(number, self.rate);
        let in_time = begin + self.unpaid_timeout.mul_f64(dice.random_range(0.05..0.7));
        let then = |at: Duration, dice: &mut StdRng| at + A_WHILE.mul_f64(dice.random_range(1.0..2.0));
        let order_id = format!("{}-{number}", self.prefix);
        let told = |what: &str, at: Duration, topic: &Arc<str>, body: &serde_json::Value, times: usize| Parcel {
            after: at,
            records: vec![event(topic, &order_id, what, body); times],
            is_order: what == "created",
        };
        let times = |dice: &mut StdRng| if dice.random_bool(REPEATED) { 2 } else { 1 };
        let created = |at: Duration, dice: &mut StdRng| {
            let body = json!({
                "order_id": order_id, "phone": format!("+86138000{:05}", dice.random_range(0..100_000)),
                "amount_minor": 1_000 * dice.random_range(1..=10), "currency": "CNY",
                "created_at": in_words(opened + begin), "notify": true,
            });
            told("created", at, &self.orders_topic, &body, times(dice))
        };
        let paid = |at: Duration, dice: &mut StdRng| {
            let body = json!({
                "order_id": order_id, "paid_at": in_words(opened + at), "payment_id": format!("pay-{number}"),
            });
            told("paid", at, &self.lifecycle_topic, &body, times(dice))
        };
        let cancelled = |at: Duration, dice: &mut StdRng| {
            let body = json!({ "order_id": order_id, "reason": "changed my mind" });
            told("cancelled", at, &self.lifecycle_topic, &body, times(dice))
        };
        let dice = &mut dice;
        match self.customer(number) {
            Customer::Pays => vec![created(begin, dice), paid(in_time, dice)],
            Customer::PaysAhead => vec![paid(begin, dice), created(then(begin, dice), dice)],
            Customer::Forgets => vec![created(begin, dice)],
            Customer::Cancels => vec![created(begin, dice), cancelled(in_time, dice)],
            Customer::CancelsAndPays => {
                vec![created(begin, dice), cancelled(in_time, dice), paid(then(in_time, dice), dice)]
            }
            Customer::PaysTooLate => vec![created(begin, dice), paid(then(begin + self.unpaid_timeout, dice), dice)],
            Customer::PaysAndCancels => {
                vec![created(begin, dice), paid(in_time, dice), cancelled(then(in_time, dice), dice)]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    fn customers() -> Customers {
        Customers {
            rate: 50.0,
            orders: 2_000,
            prefix: "unpaid".to_owned(),
            seed: 7,
            unpaid_timeout: Duration::from_secs(20),
            orders_topic: "orders".into(),
            lifecycle_topic: "lifecycle".into(),
        }
    }

    #[test]
    fn all_kinds_of_customers_come_and_each_order_tells_whose_it_is() {
        let all = customers();
        let mut counts: HashMap<Customer, u32> = HashMap::new();
        for number in 0..all.orders {
            *counts.entry(all.customer(number)).or_default() += 1;
            assert_eq!(all.customer_of(&format!("unpaid-{number}")), Some(all.customer(number)));
        }
        for customer in Customer::ALL {
            let (share, count) = (customer.share() * 20, counts[&customer]);
            assert!(count > share / 2 && count < share * 2, "{customer:?}: {count} of about {share}");
        }
        assert_eq!(Customer::ALL.iter().map(|customer| customer.share()).sum::<u32>(), 100);
        let first: HashSet<_> = (0..7).map(|number| all.customer(number)).collect();
        assert_eq!(first.len(), 7, "a short run has them all");
        assert_eq!((all.customer_of("unpaid-2000"), all.customer_of("other-1")), (None, None));
    }

    #[test]
    fn what_is_told_comes_in_the_order_of_its_time_and_again_with_the_same_seed() {
        let all = customers();
        let parcels: Vec<Parcel> = all.parcels(Timestamp::UNIX_EPOCH).collect();
        assert!(parcels.is_sorted_by_key(|parcel| parcel.after));
        assert_eq!(parcels.iter().filter(|parcel| parcel.is_order).count(), 2_000);
        assert_eq!(parcels, all.parcels(Timestamp::UNIX_EPOCH).collect::<Vec<_>>());
        // Created, and what each kind does besides.
        let besides = |customer| match customer {
            Customer::Forgets => 0,
            Customer::CancelsAndPays | Customer::PaysAndCancels => 2,
            Customer::Pays | Customer::PaysAhead | Customer::Cancels | Customer::PaysTooLate => 1,
        };
        let expected: usize = (0..all.orders).map(|number| 1 + besides(all.customer(number))).sum();
        assert_eq!(parcels.len(), expected);
        assert!(parcels.iter().any(|parcel| parcel.records.len() == 2), "some is told twice");
    }
}
