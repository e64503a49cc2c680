//! What every test of the line asks in the end: nothing lost, nothing double, nothing out of order.

use recharged::domain::State;

use crate::harness::Line;

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

    /// Everything was delivered, also what a crash had caught in the middle of its call: the provider
    /// was asked, and what it did not know was sent again. Returns the ids of those.
    pub(super) async fn all_succeeded_after_a_crash(&self, count: u64) -> Vec<String> {
        self.until_succeeded(count).await;
        let mut caught = Vec::new();
        // Stored, claimed, asked about, and only then delivered.
        for row in self.rows().await.into_iter().filter(|row| row.version > 3) {
            let log = self.store.timeline(&row.order_id).await.unwrap();
            if log.iter().any(|event| event.data.cause.as_deref() == Some("caller_lost")) {
                caught.push(row.order_id.to_string());
            }
        }
        self.books_balance(count).await;
        caught
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
