//! The ports, with their numbers taken on the way: what is read, written, and asked of the store.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{Notify, watch};

use crate::domain::{LoggedEvent, OrderId, ProviderId, Recipient, State, Timestamp, Transition};
use crate::metrics::{KafkaMetrics, StoreMetrics};
use crate::ports::{
    ActedOn, CallbackBook, Case, CaseBook, CaseFilter, CaseNote, Census, Clock, Cooldowns, Cooling, DayLog,
    DeadlineBook, DeadlinePage, DeadlinePosition, EventLog, Grant, Haste, Held, Hold, Horizon, Hurried, InRecord,
    Inserted, LaneBook, LaneChange, Loaded, LogBatch, LogPosition, Mentions, NotedCallback, OrderBook, OrderFilter, OrderPage,
    OrderStore, OutRecord, OverdueQuestion, PublishError, Publisher, QuestionTime, Questions, Quota, ReadMark,
    ReadMarks, RefundBook, RefundPage, Reservation, SchemaError, Stopped, Store, StoreError, Subscription, TimerPage,
    Timers, Waits, Written,
};

/// A subscription that counts what is read.
#[derive(Debug)]
pub(super) struct MeasuredSubscription<S> {
    pub(super) inner: S,
    pub(super) topic: Arc<str>,
    pub(super) metrics: Arc<KafkaMetrics>,
}

#[async_trait]
impl<S: Subscription> Subscription for MeasuredSubscription<S> {
    async fn next(&mut self, max: usize) -> Result<Vec<InRecord>, Stopped> {
        let records = self.inner.next(max).await?;
        self.metrics.consumed(&self.topic, records.len() as u64);
        Ok(records)
    }

    fn want(&self, partition: i32, wanted: bool) {
        self.inner.want(partition, wanted);
    }

    fn revocations(&self) -> watch::Receiver<u64> {
        self.inner.revocations()
    }

    fn assignments(&self) -> u64 {
        self.inner.assignments()
    }

    fn acted_on(&self) -> Vec<ActedOn> {
        self.inner.acted_on()
    }
}

/// A publisher that counts what was acknowledged and what was not.
#[derive(Debug)]
pub(super) struct MeasuredPublisher<P> {
    pub(super) inner: Arc<P>,
    pub(super) metrics: Arc<KafkaMetrics>,
}

#[async_trait]
impl<P: Publisher> Publisher for MeasuredPublisher<P> {
    async fn publish(&self, batch: &[OutRecord]) -> Vec<Result<(), PublishError>> {
        let results = self.inner.publish(batch).await;
        let mut answered = batch.iter().map(|record| &record.topic).zip(&results).peekable();
        // Batches go to one or two topics: runs of the same topic and result are counted at once.
        while let Some((topic, result)) = answered.next() {
            let mut count = 1;
            while answered.next_if(|(next, also)| *next == topic && also.is_ok() == result.is_ok()).is_some() {
                count += 1;
            }
            self.metrics.produced(topic, result.is_ok(), count);
        }
        results
    }
}

/// A store whose operations are timed.
#[derive(Debug)]
pub(super) struct MeasuredStore {
    pub(super) inner: Arc<dyn Store>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: StoreMetrics,
    /// Told after each write, for the relay of this process.
    pub(super) written: Arc<Notify>,
}

impl MeasuredStore {
    async fn timed<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let began = self.clock.since_boot();
        let done = work.await;
        self.metrics.query(operation, self.clock.since_boot().saturating_sub(began));
        if let Err(error) = &done {
            self.metrics.error(operation, error.kind);
        }
        done
    }
}

#[async_trait]
impl OrderStore for MeasuredStore {
    async fn insert(&self, batch: &[Transition]) -> Result<Vec<Inserted>, StoreError> {
        let done = self.timed("insert", self.inner.insert(batch)).await;
        self.written.notify_one();
        done
    }
    async fn load(&self, ids: &[OrderId]) -> Result<Vec<Loaded>, StoreError> {
        self.timed("load", self.inner.load(ids)).await
    }
    async fn apply(&self, batch: &[Transition]) -> Result<Vec<Written>, StoreError> {
        let done = self.timed("apply", self.inner.apply(batch)).await;
        self.written.notify_one();
        done
    }
    async fn apply_promptly(&self, batch: &[Transition]) -> Result<Vec<Written>, StoreError> {
        let done = self.timed("apply", self.inner.apply_promptly(batch)).await;
        self.written.notify_one();
        done
    }
    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.timed("now", self.inner.now()).await
    }
    async fn check(&self) -> Result<(), SchemaError> {
        self.inner.check().await
    }
}

#[async_trait]
impl EventLog for MeasuredStore {
    async fn read_log(&self, after: LogPosition, limit: usize) -> Result<Vec<LogBatch>, StoreError> {
        self.timed("read_log", self.inner.read_log(after, limit)).await
    }
    async fn has_more(&self, after: LogPosition) -> Result<bool, StoreError> {
        self.timed("has_more", self.inner.has_more(after)).await
    }
    async fn cursor(&self) -> Result<LogPosition, StoreError> {
        self.timed("cursor", self.inner.cursor()).await
    }
    async fn advance_cursor(&self, from: LogPosition, to: LogPosition) -> Result<bool, StoreError> {
        self.timed("advance_cursor", self.inner.advance_cursor(from, to)).await
    }
    async fn timelines(&self, ids: &[OrderId]) -> Result<Vec<Vec<LoggedEvent>>, StoreError> {
        self.timed("timelines", self.inner.timelines(ids)).await
    }
    async fn recipients(&self, ids: &[OrderId]) -> Result<Vec<Option<Recipient>>, StoreError> {
        self.timed("recipients", self.inner.recipients(ids)).await
    }
}

#[async_trait]
impl DayLog for MeasuredStore {
    async fn written(
        &self,
        from: Timestamp,
        until: Timestamp,
        after: LogPosition,
        limit: usize,
    ) -> Result<Vec<LogBatch>, StoreError> {
        // No role asks for it.
        self.inner.written(from, until, after, limit).await
    }
    async fn mentions(
        &self,
        from: Timestamp,
        until: Timestamp,
        after: LogPosition,
        marks: &[String],
    ) -> Result<Mentions, StoreError> {
        self.inner.mentions(from, until, after, marks).await
    }
}

#[async_trait]
impl Timers for MeasuredStore {
    async fn due(&self, after: &DeadlinePosition, until: Timestamp, limit: usize) -> Result<TimerPage, StoreError> {
        self.timed("due_timers", self.inner.due(after, until, limit)).await
    }
    async fn fire(&self, batch: &[LoggedEvent]) -> Result<Vec<Written>, StoreError> {
        let done = self.timed("fire_timers", self.inner.fire(batch)).await;
        self.written.notify_one();
        done
    }
}

#[async_trait]
impl RefundBook for MeasuredStore {
    async fn unconfirmed(
        &self,
        after: &DeadlinePosition,
        until: Timestamp,
        limit: usize,
    ) -> Result<RefundPage, StoreError> {
        self.timed("unconfirmed_refunds", self.inner.unconfirmed(after, until, limit)).await
    }
    async fn unfollow(&self, ids: &[OrderId]) -> Result<(), StoreError> {
        self.timed("unfollow_refunds", self.inner.unfollow(ids)).await
    }
}

#[async_trait]
impl OrderBook for MeasuredStore {
    async fn page(&self, filter: &OrderFilter, after: Option<&OrderId>, limit: usize) -> Result<OrderPage, StoreError> {
        self.timed("page", self.inner.page(filter, after, limit)).await
    }
    async fn waits(&self, order_id: &OrderId) -> Result<Waits, StoreError> {
        // No role asks for it.
        self.inner.waits(order_id).await
    }
    async fn count_by_state(&self) -> Result<Vec<(State, u64)>, StoreError> {
        self.timed("count_by_state", self.inner.count_by_state()).await
    }
}

#[async_trait]
impl DeadlineBook for MeasuredStore {
    async fn low_water(&self) -> Result<Timestamp, StoreError> {
        self.timed("low_water", self.inner.low_water()).await
    }
    async fn move_low_water(&self, from: Timestamp, to: Timestamp) -> Result<bool, StoreError> {
        self.timed("move_low_water", self.inner.move_low_water(from, to)).await
    }
    async fn set_aside(&self, from: Timestamp, to: Timestamp) -> Result<bool, StoreError> {
        self.timed("set_aside", self.inner.set_aside(from, to)).await
    }
    async fn aside(&self, after: &DeadlinePosition, limit: usize) -> Result<DeadlinePage, StoreError> {
        self.timed("aside", self.inner.aside(after, limit)).await
    }
    async fn horizon(&self) -> Result<Horizon, StoreError> {
        self.timed("horizon", self.inner.horizon()).await
    }
    async fn undecided(
        &self,
        after: &DeadlinePosition,
        until: Timestamp,
        limit: usize,
    ) -> Result<DeadlinePage, StoreError> {
        self.timed("undecided", self.inner.undecided(after, until, limit)).await
    }
    async fn census(&self, low_water: Timestamp, now: Timestamp) -> Result<Census, StoreError> {
        self.timed("census", self.inner.census(low_water, now)).await
    }
    async fn unanswered(
        &self,
        provider: &ProviderId,
        claimed_before: Timestamp,
        after: &DeadlinePosition,
        until: Timestamp,
        limit: usize,
    ) -> Result<DeadlinePage, StoreError> {
        self.timed("unanswered", self.inner.unanswered(provider, claimed_before, after, until, limit)).await
    }
}

#[async_trait]
impl Questions for MeasuredStore {
    async fn hold(&self, batch: &[Hold], now: Timestamp) -> Result<Vec<Held>, StoreError> {
        self.timed("hold", self.inner.hold(batch, now)).await
    }
    async fn hasten(&self, batch: &[Haste]) -> Result<Vec<Hurried>, StoreError> {
        self.timed("hasten", self.inner.hasten(batch)).await
    }
}

#[async_trait]
impl LaneBook for MeasuredStore {
    async fn lane_changes(&self) -> Result<Vec<LaneChange>, StoreError> {
        self.timed("lane_changes", self.inner.lane_changes()).await
    }
    async fn change_lane(&self, change: &LaneChange) -> Result<bool, StoreError> {
        self.timed("change_lane", self.inner.change_lane(change)).await
    }
}

#[async_trait]
impl Cooldowns for MeasuredStore {
    async fn cool(&self, batch: &[Cooling], now: Timestamp) -> Result<Vec<Option<Timestamp>>, StoreError> {
        self.timed("cool", self.inner.cool(batch, now)).await
    }
    async fn give_back(&self, batch: &[Cooling]) -> Result<(), StoreError> {
        self.timed("give_back", self.inner.give_back(batch)).await
    }
    async fn forget_cooled(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.timed("forget_cooled", self.inner.forget_cooled(before, limit)).await
    }
}

#[async_trait]
impl CallbackBook for MeasuredStore {
    async fn were_noted(&self, batch: &[NotedCallback]) -> Result<Vec<bool>, StoreError> {
        self.timed("were_noted", self.inner.were_noted(batch)).await
    }
    async fn note_callbacks(&self, batch: &[NotedCallback]) -> Result<(), StoreError> {
        self.timed("note_callbacks", self.inner.note_callbacks(batch)).await
    }
    async fn callbacks_of(&self, order_id: &OrderId) -> Result<Vec<NotedCallback>, StoreError> {
        self.timed("callbacks_of", self.inner.callbacks_of(order_id)).await
    }
}

#[async_trait]
impl CaseBook for MeasuredStore {
    async fn cases(&self, filter: &CaseFilter, after: Option<&Case>, limit: usize) -> Result<Vec<Case>, StoreError> {
        self.timed("cases", self.inner.cases(filter, after, limit)).await
    }
    async fn overdue_questions(&self, due_by: Timestamp, limit: usize) -> Result<Vec<OverdueQuestion>, StoreError> {
        self.timed("overdue_questions", self.inner.overdue_questions(due_by, limit)).await
    }
    async fn set_questions(&self, batch: &[QuestionTime]) -> Result<(), StoreError> {
        self.timed("set_questions", self.inner.set_questions(batch)).await
    }
    async fn note(&self, note: &CaseNote) -> Result<Written, StoreError> {
        self.timed("note", self.inner.note(note)).await
    }
    async fn escalate(&self, now: Timestamp, limit: usize) -> Result<Vec<Case>, StoreError> {
        self.timed("escalate", self.inner.escalate(now, limit)).await
    }
}

#[async_trait]
impl ReadMarks for MeasuredStore {
    async fn note_read(&self, topic: &str, marks: &[ReadMark]) -> Result<(), StoreError> {
        self.timed("note_read", self.inner.note_read(topic, marks)).await
    }
    async fn read_up_to(&self, topic: &str, partitions: usize) -> Result<Option<Timestamp>, StoreError> {
        self.timed("read_up_to", self.inner.read_up_to(topic, partitions)).await
    }
}

#[async_trait]
impl Quota for MeasuredStore {
    async fn reserve(&self, reservation: &Reservation) -> Result<Grant, StoreError> {
        self.timed("reserve", self.inner.reserve(reservation)).await
    }
    async fn pause(&self, provider: &ProviderId, until: Timestamp) -> Result<(), StoreError> {
        self.timed("pause", self.inner.pause(provider, until)).await
    }
}
