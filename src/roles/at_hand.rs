//! Rows that intake has just stored, for the lane that claims them a moment later in the same
//! process: what it wrote it need not read. Only a guess at what the store holds: the fence of the
//! claim refuses a row that has moved, and then it is read. So losing a row, or never having it
//! (another process stored it), costs a read and nothing else. Rows that nobody took soon are let
//! go: another process claims them, and they hold what a person sent.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use foldhash::quality::RandomState;
use tokio::time::Instant;

use crate::domain::{Command, Order, OrderId};

/// A row is at hand for so long at most. A claim mostly follows in milliseconds.
const KEPT: Duration = Duration::from_secs(10);

/// Rows at hand, each handed out once. The oldest give way.
#[derive(Debug)]
pub struct RowsAtHand {
    capacity: usize,
    rows: Mutex<Rows>,
}

#[derive(Debug, Default)]
struct Rows {
    by_id: HashMap<OrderId, Order, RandomState>,
    /// Oldest first; may name rows that were taken.
    ages: VecDeque<(Instant, OrderId)>,
}

impl Rows {
    /// Lets go of what came before `since`, and of the oldest beyond `capacity`.
    fn prune(&mut self, since: Option<Instant>, capacity: usize) {
        while let Some((came_at, _)) = self.ages.front() {
            if self.ages.len() <= capacity && since.is_none_or(|since| *came_at >= since) {
                return;
            }
            if let Some((_, oldest)) = self.ages.pop_front() {
                self.by_id.remove(&oldest);
            }
        }
    }
}

impl RowsAtHand {
    /// Room for so many rows; none for a process without lanes.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, rows: Mutex::default() }
    }

    /// Keeps rows that are committed and whose commands are about to be published.
    pub fn put(&self, orders: impl IntoIterator<Item = Order>) {
        if self.capacity == 0 {
            return;
        }
        let now = Instant::now();
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        for order in orders {
            rows.ages.push_back((now, order.order_id.clone()));
            rows.by_id.insert(order.order_id.clone(), order);
        }
        rows.prune(now.checked_sub(KEPT), self.capacity);
    }

    /// The row of each command that was asked for by the very transition at hand.
    pub fn take<'a>(&self, commands: impl IntoIterator<Item = &'a Command>) -> Vec<Option<Order>> {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.prune(Instant::now().checked_sub(KEPT), self.capacity);
        let taken = commands.into_iter().map(|command| {
            let row = rows.by_id.remove(&command.order_id)?;
            (row.asked_version == command.version).then_some(row)
        });
        let taken = taken.collect();
        if rows.by_id.is_empty() {
            rows.ages.clear();
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::msisdn::Recipient;
    use crate::domain::{CommandKind, Currency, Money, State, Timestamp};

    fn order(id: &str, asked_version: u32) -> Order {
        let at = Timestamp::from_timestamp(1_800_000_000, 0).unwrap();
        Order {
            order_id: OrderId::parse(id).unwrap(),
            version: 1,
            state: State::Queued,
            asked_version,
            recipient: Recipient::read("+8613800000000", None),
            amount: Money { minor: 1_000, currency: Currency::parse("CNY").unwrap() },
            carrier: None,
            created_at: at,
            paid_at: Some(at),
            payment_id: None,
            notify: false,
            metadata: None,
            deadline_at: at,
            provider: None,
            attempt: None,
            declined: 0,
            wake_at: None,
            reason: None,
            sla: None,
            closed_at: None,
            refund_requested: false,
            refund_id: None,
            cases: 0,
        }
    }

    fn command(id: &str, version: u32) -> Command {
        let order = order(id, version);
        let (order_id, deadline_at) = (order.order_id, order.deadline_at);
        Command {
            kind: CommandKind::Submit,
            order_id,
            attempt: 0,
            version,
            deadline_at,
            wake_at: None,
            hastened: false,
            provider_ref: None,
            tries: 0,
        }
    }

    fn taken(at_hand: &RowsAtHand, id: &str, version: u32) -> bool {
        at_hand.take([&command(id, version)]).iter().any(Option::is_some)
    }

    #[test]
    fn a_row_is_handed_out_once_so_that_a_claim_that_lost_its_fence_reads_the_store() {
        let at_hand = RowsAtHand::new(2);
        at_hand.put([order("a", 1)]);
        assert!(taken(&at_hand, "a", 1));
        assert!(!taken(&at_hand, "a", 1));
    }

    #[test]
    fn a_row_of_another_version_than_the_command_asks_for_is_not_used() {
        let at_hand = RowsAtHand::new(2);
        at_hand.put([order("a", 1), order("b", 3)]);
        assert!(!taken(&at_hand, "a", 2));
        assert!(!taken(&at_hand, "b", 2));
    }

    #[test]
    fn the_oldest_rows_give_way() {
        let at_hand = RowsAtHand::new(2);
        at_hand.put([order("a", 1), order("b", 1), order("c", 1)]);
        assert!(!taken(&at_hand, "a", 1));
        assert!(taken(&at_hand, "b", 1) && taken(&at_hand, "c", 1));
        let none = RowsAtHand::new(0);
        none.put([order("a", 1)]);
        assert!(!taken(&none, "a", 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_row_that_nobody_took_is_let_go_after_a_while() {
        let at_hand = RowsAtHand::new(9);
        at_hand.put([order("a", 1)]);
        tokio::time::advance(KEPT).await;
        at_hand.put([order("b", 1)]);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!taken(&at_hand, "a", 1) && taken(&at_hand, "b", 1));
    }

    #[test]
    fn answers_stand_at_the_places_of_their_commands() {
        let at_hand = RowsAtHand::new(9);
        at_hand.put([order("a", 1), order("c", 1)]);
        let commands = [command("c", 1), command("b", 1), command("a", 1)];
        let taken = at_hand.take(&commands);
        let names: Vec<_> = taken.iter().map(|row| row.as_ref().map(|row| row.order_id.as_str())).collect();
        assert_eq!(names, [Some("c"), None, Some("a")]);
    }
}
