//! A downstream consumer of the order events, as any team may have one: what the demo shows is
//! what such a consumer sees.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use hdrhistogram::Histogram;
use serde::Deserialize;

use crate::audit::{Percentiles, micros_histogram, percentiles};
use crate::cli::output::CliError;
use crate::config::Config;
use crate::domain::{Sla, State, Timestamp};
use crate::kafka::{Consumer, ConsumerHandle, ConsumerOptions, KafkaOptions, TopicInbox};
use crate::ports::{InRecord, OrderFilter, Store, StoreError, Subscription as _};

/// Orders read from the store at once.
const PAGE: usize = 2_000;

/// What was seen so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// Events.
    pub(super) read: u64,
    /// Orders.
    pub(super) orders: u64,
    /// Orders by state, in the order of [`State::ALL`].
    pub(super) by_state: [u64; State::ALL.len()],
    /// Orders decided by their deadline.
    pub(super) met: u64,
    /// Orders not decided by their deadline.
    pub(super) missed: u64,
    /// Events whose version does not follow the one before.
    pub(super) out_of_order: u64,
    /// From payment to the end, of those that succeeded.
    pub(super) resolution: Percentiles,
}

impl Seen {
    pub(super) fn of(&self, state: State) -> u64 {
        let place = State::ALL.iter().position(|each| *each == state);
        place.and_then(|place| self.by_state.get(place)).copied().unwrap_or(0)
    }

    pub(super) fn closed(&self) -> u64 {
        State::ALL.iter().filter(|state| state.is_closed()).map(|state| self.of(*state)).sum()
    }

    pub(super) fn open(&self) -> u64 {
        self.orders.saturating_sub(self.closed())
    }
}

struct Books {
    orders: HashMap<String, (u32, State)>,
    seen: Seen,
    resolution: Histogram<u64>,
}

/// The consumer.
pub(super) struct Tap {
    books: Arc<Mutex<Books>>,
    consumer: ConsumerHandle,
}

#[derive(Deserialize)]
struct Event {
    order_id: String,
    version: u32,
    state: State,
    at: Timestamp,
    deadline_at: Timestamp,
    sla: Option<Sla>,
}

impl Tap {
    pub(super) fn start(kafka: &KafkaOptions, config: &Config, embedded: bool) -> Result<Self, CliError> {
        let topic = config.topics().order_events;
        let group = format!("{}demo-tap", config.kafka.group_prefix);
        let mut options = ConsumerOptions::new(group, vec![TopicInbox { topic, high_mark: 10_000 }]);
        options.begins_at_zero = embedded;
        let (consumer, subscriptions) =
            Consumer::start(kafka, options).map_err(|error| CliError::failed(error.to_string()))?;
        let resolution = micros_histogram();
        let books = Arc::new(Mutex::new(Books { orders: HashMap::new(), seen: Seen::default(), resolution }));
        let sla = config.sla.deadline.get();
        for mut subscription in subscriptions {
            let books = Arc::clone(&books);
            tokio::spawn(async move {
                while let Ok(records) = subscription.next(1_000).await {
                    let mut books = books.lock().unwrap_or_else(PoisonError::into_inner);
                    for record in records {
                        books.take(&record, sla);
                        record.ack.done();
                    }
                }
            });
        }
        Ok(Self { books, consumer })
    }

    pub(super) async fn close(self) {
        // Nothing depends on its offsets.
        drop(self.consumer.close(std::time::Duration::from_secs(3)).await);
    }

    pub(super) fn seen(&self) -> Seen {
        let books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        Seen { resolution: percentiles(&books.resolution), ..books.seen.clone() }
    }

    /// Whether every order of the store was seen.
    pub(super) async fn is_even(&self, store: &dyn Store) -> bool {
        self.missing(store).await.is_ok_and(|missing| missing == 0)
    }

    /// How many orders have a version in the store that no event told.
    pub(super) async fn missing(&self, store: &dyn Store) -> Result<u64, StoreError> {
        let mut missing = 0;
        let mut after = None;
        loop {
            let page = store.page(&OrderFilter::default(), after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { return Ok(missing) };
            after = Some(last.order.order_id.clone());
            let books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
            for view in &page {
                let told = books.orders.get(view.order.order_id.as_str());
                missing += u64::from(told != Some(&(view.order.version, view.order.state)));
            }
        }
    }
}

impl Books {
    fn take(&mut self, record: &InRecord, sla: std::time::Duration) {
        let Some(event) = record.value.as_deref().and_then(|value| serde_json::from_slice::<Event>(value).ok()) else {
            self.seen.out_of_order += 1;
            return;
        };
        self.seen.read += 1;
        let before = self.orders.get(&event.order_id).copied();
        let known = before.map_or(0, |(version, _)| version);
        if event.version <= known {
            return; // Published twice, which the contract allows.
        }
        self.seen.out_of_order += u64::from(event.version != known + 1);
        match before {
            None => self.seen.orders += 1,
            Some((_, state)) => self.count(state, -1),
        }
        self.count(event.state, 1);
        let was_closed = before.is_some_and(|(_, state)| state.is_closed());
        if event.state.is_closed() && !was_closed {
            self.close(&event, sla);
        }
        self.orders.insert(event.order_id, (event.version, event.state));
    }

    fn close(&mut self, event: &Event, sla: std::time::Duration) {
        match event.sla {
            Some(Sla::Met) => self.seen.met += 1,
            Some(Sla::Missed) => self.seen.missed += 1,
            None => {}
        }
        if event.state == State::Succeeded {
            let took = event.at - (event.deadline_at - sla);
            self.resolution.saturating_record(u64::try_from(took.num_microseconds().unwrap_or(0)).unwrap_or(0));
        }
    }

    fn count(&mut self, state: State, by: i64) {
        let place = State::ALL.iter().position(|each| *each == state);
        if let Some(count) = place.and_then(|place| self.seen.by_state.get_mut(place)) {
            *count = count.saturating_add_signed(by);
        }
    }
}
