//! What the store and the simulator's ledger know.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use recharged::audit::{self, Ledger, Ledgers, Report};
use recharged::domain::{Money, Order, OrderId, State};
use recharged::ports::OrderFilter;
use recharged::providers::simulator::{Delivery, read_ledger};

use super::{Line, PATIENCE};

impl Line {
    pub(crate) async fn load(&self, id: &str) -> Option<Order> {
        self.store.load(&[OrderId::parse(id).unwrap()]).await.unwrap().remove(0).order()
    }

    /// Waits until an order satisfies a condition.
    pub(crate) async fn until_order(&self, id: &str, what: &str, holds: impl Fn(&Order) -> bool) -> Order {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let order = self.load(id).await;
            if let Some(order) = order.clone().filter(|order| holds(order)) {
                return order;
            }
            assert!(Instant::now() < deadline, "{id} did not become {what}: {order:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// How many orders are in each state; states without any are absent. A store that is away is
    /// waited for.
    pub(crate) async fn counts(&self) -> BTreeMap<State, u64> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.store.count_by_state().await {
                Ok(counts) => return counts.into_iter().collect(),
                Err(error) => assert!(Instant::now() < deadline, "the store stays away: {error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until the counts satisfy a condition; a store that is away counts as "not yet".
    pub(crate) async fn until_counts(&self, what: &str, holds: impl Fn(&BTreeMap<State, u64>) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut last = None;
        while Instant::now() < deadline {
            if let Ok(counts) = self.store.count_by_state().await {
                let counts = counts.into_iter().collect();
                if holds(&counts) {
                    return;
                }
                last = Some(counts);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{what}: it did not come to that, but to {last:?}");
    }

    pub(crate) async fn until_succeeded(&self, count: u64) {
        let what = format!("{count} orders succeeded");
        self.until_counts(&what, |counts| counts.get(&State::Succeeded) == Some(&count)).await;
    }

    /// What the provider truly delivered, by reference.
    pub(crate) fn delivered(&self) -> HashMap<String, u32> {
        let mut times = HashMap::new();
        for delivery in self.ledger().into_iter().filter(|delivery| delivery.reverses.is_none()) {
            *times.entry(delivery.client_ref.to_string()).or_default() += 1;
        }
        times
    }

    fn ledger(&self) -> Vec<Delivery> {
        read_ledger(&self.folder.path().join("ledger.jsonl")).unwrap()
    }

    /// The references that reached the provider more than once, and the orders of which more than one did.
    pub(crate) fn sent_twice(&self) -> (Vec<String>, Vec<String>) {
        let references = self.simulator.references("", usize::MAX);
        let (mut twice, mut orders) = (Vec::new(), BTreeMap::<String, u32>::new());
        for reference in references {
            let order = reference.client_ref.rsplit_once('-').map_or("", |(order, _)| order).to_owned();
            *orders.entry(order).or_default() += reference.submits;
            if reference.submits > 1 {
                twice.push(reference.client_ref);
            }
        }
        (twice, orders.into_iter().filter(|(_, submits)| *submits > 1).map(|(order, _)| order).collect())
    }

    /// The books against the ledger.
    pub(crate) async fn audit(&self) -> Report {
        // A test that restarts the database leaves connections behind that are found dead one at a time, by
        // use: the store's first question after that may be told so.
        if self.store.now().await.is_err() {
            self.store.now().await.unwrap();
        }
        let mut ledger = Ledger::default();
        for delivery in self.ledger() {
            let amount = Money { minor: delivery.amount_minor, currency: delivery.currency };
            match delivery.reverses {
                None => ledger.delivered(delivery.client_ref.to_string(), delivery.phone, amount),
                Some(_) => ledger.took_back(delivery.client_ref.as_str()),
            }
        }
        audit::reckon(self.store.as_ref(), &Ledgers::Anyones(ledger), None, |_| ()).await.unwrap()
    }

    /// Every row, in the order of ids.
    pub(crate) async fn rows(&self) -> Vec<Order> {
        let mut rows = Vec::new();
        let mut after: Option<OrderId> = None;
        loop {
            let page = self.store.page(&OrderFilter::default(), after.as_ref(), 5_000).await.unwrap();
            rows.extend(page.orders.into_iter().map(|view| view.order));
            after = page.next;
            if after.is_none() {
                return rows;
            }
        }
    }
}
