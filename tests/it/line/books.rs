//! What every test of the line asks in the end: nothing lost, nothing double, nothing out of order.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use recharged::domain::{AttemptState, Order, State, Timestamp};
use recharged::ports::Clock as _;

use crate::harness::{Line, PATIENCE};

impl Line {
    /// Everything was delivered, once, and told in order.
    pub(super) async fn all_succeeded(&self, count: u64) {
        self.until_succeeded(count).await;
        self.books_balance(count).await;
    }

    /// Nothing lost, nothing double, whatever the states; every event was published in order.
    pub(super) async fn books_balance(&self, count: u64) {
        let report = self.audit().await;
        assert_eq!(report.orders, count, "orders in the store: {report:?}");
        assert!(report.audit.clean, "{report:?}");
        assert_eq!(self.events_in_order().await.len() as u64, count);
    }

    /// Everything came to an end but what a crash had caught in the middle of its call, whose
    /// outcome nobody knows: it is `in_flight`, its attempt is open, and it was claimed before the
    /// crash. Returns those.
    pub(super) async fn all_but_caught(&self, count: u64, crashed_at: Timestamp) -> Vec<Order> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let counts = self.counts().await;
            let known = |state| counts.get(&state).copied().unwrap_or(0);
            if known(State::Succeeded) + known(State::InFlight) == count {
                let caught: Vec<Order> =
                    self.rows().await.into_iter().filter(|row| row.state == State::InFlight).collect();
                if caught.iter().all(|row| row.attempt.as_ref().is_some_and(|a| a.claimed_at <= crashed_at)) {
                    let open = |row: &Order| row.attempt.as_ref().is_some_and(|a| a.state == AttemptState::Sent);
                    assert!(caught.iter().all(open), "{caught:?}");
                    return caught;
                }
            }
            assert!(Instant::now() < deadline, "not all {count} came to an end: {counts:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// How many of these orders were delivered; each at most once.
    pub(super) fn delivered_of(&self, orders: &[Order]) -> usize {
        let references: HashSet<String> =
            orders.iter().filter_map(|order| Some(order.attempt.as_ref()?.client_ref.to_string())).collect();
        let delivered: BTreeMap<String, u32> =
            self.delivered().into_iter().filter(|(reference, _)| references.contains(reference)).collect();
        assert!(delivered.values().all(|times| *times == 1), "{delivered:?}");
        delivered.len()
    }

    pub(super) async fn succeeded(&self) -> u64 {
        self.counts().await.get(&State::Succeeded).copied().unwrap_or(0)
    }

    /// Waits until this many have succeeded, of more.
    pub(super) async fn until_under_way(&self, count: u64) {
        let what = format!("{count} orders succeeded, of more");
        self.until_counts(&what, |counts| counts.get(&State::Succeeded).is_some_and(|n| *n >= count)).await;
    }
}

pub(super) fn now() -> Timestamp {
    recharged::clock::SystemClock::new().now()
}
