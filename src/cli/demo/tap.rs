//! A downstream consumer of the order events, as any team may have one: what the demo shows is
//! what such a consumer sees.

use std::sync::{Arc, Mutex, PoisonError};

use hdrhistogram::Histogram;

use crate::audit::{EventTrail, Events, Percentiles, ToldEvent, micros_histogram, percentiles};
use crate::cli::output::CliError;
use crate::config::Config;
use crate::domain::{Sla, State};
use crate::kafka::{Consumer, ConsumerHandle, ConsumerOptions, KafkaOptions, TopicInbox};
use crate::ports::{Store, StoreError, Subscription as _};

/// What was seen so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// Events.
    pub(super) read: u64,
    /// Orders.
    pub(super) orders: u64,
    /// Orders by state, in the order of [`State::ALL`].
    pub(super) by_state: [u64; State::ALL.len()],
    /// Attempts that were put off to be made again.
    pub(super) retries: u64,
    /// Orders that ever were in doubt.
    pub(super) doubts: u64,
    /// Orders decided by their deadline.
    pub(super) met: u64,
    /// Orders not decided by their deadline.
    pub(super) missed: u64,
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
    trail: EventTrail,
    seen: Seen,
    resolution: Histogram<u64>,
}

/// The consumer.
pub(super) struct Tap {
    books: Arc<Mutex<Books>>,
    consumer: ConsumerHandle,
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
        let books = Arc::new(Mutex::new(Books { trail: EventTrail::default(), seen: Seen::default(), resolution }));
        let sla = config.sla.deadline.get();
        for mut subscription in subscriptions {
            let books = Arc::clone(&books);
            tokio::spawn(async move {
                while let Ok(records) = subscription.next(1_000).await {
                    let mut books = books.lock().unwrap_or_else(PoisonError::into_inner);
                    for record in records {
                        books.take(record.value.as_deref().unwrap_or_default(), sla);
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

    /// Whether the last step of every order of the store was seen.
    pub(super) async fn is_even(&self, store: &dyn Store) -> bool {
        self.against(store).await.is_ok_and(|events| events.missing == 0)
    }

    /// What was told, against the store.
    pub(super) async fn against(&self, store: &dyn Store) -> Result<Events, StoreError> {
        // A copy, so that reading goes on meanwhile.
        let trail = self.books.lock().unwrap_or_else(PoisonError::into_inner).trail.clone();
        trail.against(store).await
    }
}

impl Books {
    fn take(&mut self, value: &[u8], sla: std::time::Duration) {
        self.seen.read += 1;
        let Some((event, before)) = self.trail.take(value) else { return };
        match before {
            None => self.seen.orders += 1,
            Some(state) => self.count(state, -1),
        }
        self.count(event.state, 1);
        self.seen.retries += u64::from(event.state == State::RetryWait && before != Some(State::RetryWait));
        self.seen.doubts += u64::from(event.state == State::InDoubt && before != Some(State::InDoubt));
        if event.state.is_closed() && !before.is_some_and(State::is_closed) {
            self.close(&event, sla);
        }
    }

    fn close(&mut self, event: &ToldEvent, sla: std::time::Duration) {
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
