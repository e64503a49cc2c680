//! How many requests, and how many orders, each class of trouble has struck: counted where it
//! takes effect, not where it is planned.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use super::class::FaultClass;
use super::dice::Dice;

/// So many orders a class are told apart; more are not counted as orders any more.
const ORDERS_MAX: usize = 1_000_000;

/// What one class has struck since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Strike {
    /// Which.
    pub class: FaultClass,
    /// Requests, and what befell a recharge afterwards.
    pub requests: u64,
    /// Different orders among them, up to a million.
    pub orders: u64,
    /// Of these, the ones of which no script ever spoke: what the profile's rates did by themselves.
    pub by_chance: u64,
}

#[derive(Debug, Default)]
struct Tally {
    requests: u64,
    /// Hashes: eight bytes an order.
    orders: HashSet<u64>,
    by_chance: u64,
}

/// The counters.
#[derive(Debug)]
pub(super) struct Strikes {
    classes: Vec<(FaultClass, Mutex<Tally>)>,
    /// Hashes of the orders of which a script spoke; a script has a bounded number of steps.
    scripted: Mutex<HashSet<u64>>,
}

impl Default for Strikes {
    fn default() -> Self {
        let classes = FaultClass::ALL.iter().map(|class| (*class, Mutex::default())).collect();
        Self { classes, scripted: Mutex::default() }
    }
}

fn hash(reference: &str) -> u64 {
    Dice::new(0, "order", order_of(reference), 0).next()
}

impl Strikes {
    pub(super) fn count(&self, class: FaultClass, reference: &str) {
        let Some((_, tally)) = self.classes.iter().find(|(each, _)| *each == class) else { return };
        let order = hash(reference);
        let is_scripted = self.scripted.lock().unwrap_or_else(PoisonError::into_inner).contains(&order);
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.requests += 1;
        if tally.orders.len() < ORDERS_MAX && tally.orders.insert(order) {
            tally.by_chance += u64::from(!is_scripted);
        }
    }

    /// A script decides about this order: what strikes it from now on is not put down to chance.
    pub(super) fn is_scripted(&self, reference: &str) {
        self.scripted.lock().unwrap_or_else(PoisonError::into_inner).insert(hash(reference));
    }

    /// Every class, in the order of [`FaultClass::ALL`].
    pub(super) fn all(&self) -> Vec<Strike> {
        let strike = |(class, tally): &(FaultClass, Mutex<Tally>)| {
            let tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
            let orders = tally.orders.len() as u64;
            Strike { class: *class, requests: tally.requests, orders, by_chance: tally.by_chance }
        };
        self.classes.iter().map(strike).collect()
    }
}

/// The order of a reference in clear: what stands before its attempt.
pub(super) fn order_of(reference: &str) -> &str {
    match reference.rsplit_once('-') {
        Some((order, attempt)) if !attempt.is_empty() && attempt.bytes().all(|b| b.is_ascii_digit()) => order,
        Some(_) | None => reference,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_orders_are_counted_apart_and_so_are_chance_and_script() {
        let strikes = Strikes::default();
        strikes.is_scripted("order-8-1");
        for reference in ["order-7-1", "order-7-2", "order-8-1", "R0123"] {
            strikes.count(FaultClass::Never, reference);
        }
        let all = strikes.all();
        assert_eq!(all.len(), FaultClass::ALL.len());
        let never = all.iter().find(|strike| strike.class == FaultClass::Never);
        assert_eq!(never, Some(&Strike { class: FaultClass::Never, requests: 4, orders: 3, by_chance: 2 }));
        assert_eq!(all.iter().map(|strike| strike.requests).sum::<u64>(), 4);
    }
}
