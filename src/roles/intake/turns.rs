//! Who acts first. Batches are written side by side, but not where they speak of the same order: its
//! payment, read in a batch of its own, waits until the order is stored, and of two orders with one id the first
//! one stands.

use std::collections::HashSet;

use foldhash::quality::RandomState;
use futures_util::FutureExt as _;
use futures_util::future::Shared;
use tokio::sync::oneshot;

use crate::domain::OrderId;
use crate::faults::{Bug, is_planted};

/// The orders of a batch.
pub(super) type OrderIds = HashSet<OrderId, RandomState>;

/// Gives each batch its turn, in the order in which they were read.
#[derive(Debug, Default)]
pub(super) struct Turns {
    under_way: Vec<Earlier>,
}

#[derive(Debug)]
struct Earlier {
    orders: OrderIds,
    written: Written,
}

/// Comes when a batch is written; an error where it was left.
type Written = Shared<oneshot::Receiver<()>>;

/// The place of one batch.
#[derive(Debug)]
pub(super) struct Turn {
    /// The batches before it that speak of one of its orders.
    earlier: Vec<Written>,
    written: oneshot::Sender<()>,
}

impl Turns {
    /// That of the batch which was read last.
    pub(super) fn next(&mut self, orders: OrderIds) -> Turn {
        self.under_way.retain(|earlier| earlier.written.clone().now_or_never() != Some(Ok(())));
        let shares = |earlier: &&Earlier| !earlier.orders.is_disjoint(&orders) && !is_planted(Bug::PayBeforeStored);
        let earlier = self.under_way.iter().filter(shares).map(|earlier| earlier.written.clone()).collect();
        let (written, is_written) = oneshot::channel();
        self.under_way.push(Earlier { orders, written: is_written.shared() });
        Turn { earlier, written }
    }
}

impl Turn {
    /// Waits until what was said before of these orders is written; `false` if some of it was left.
    pub(super) async fn comes(&self) -> bool {
        for earlier in &self.earlier {
            if earlier.clone().await.is_err() {
                return false;
            }
        }
        true
    }

    /// This batch is written.
    pub(super) fn ends(self) {
        // Perhaps nobody waits for it.
        let _waiting = self.written.send(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders(ids: &[&str]) -> OrderIds {
        ids.iter().map(|id| OrderId::parse(id).unwrap()).collect()
    }

    #[tokio::test]
    async fn a_batch_waits_for_those_before_it_that_speak_of_its_orders_and_for_no_other() {
        let mut turns = Turns::default();
        let (first, second) = (turns.next(orders(&["a", "b"])), turns.next(orders(&["b", "c"])));
        let (third, fourth) = (turns.next(orders(&["c", "a"])), turns.next(orders(&["d"])));
        assert_eq!(fourth.comes().now_or_never(), Some(true));
        second.ends();
        assert_eq!(third.comes().now_or_never(), None);
        first.ends();
        assert_eq!(third.comes().now_or_never(), Some(true));
        third.ends();
        fourth.ends();
        turns.next(orders(&["e"]));
        assert_eq!(turns.under_way.len(), 1, "what is written is forgotten");
    }

    #[tokio::test]
    async fn after_a_batch_that_was_left_nobody_acts_on_its_orders() {
        let mut turns = Turns::default();
        let (first, second) = (turns.next(orders(&["a"])), turns.next(orders(&["a"])));
        drop(first);
        assert!(!second.comes().await);
    }
}
