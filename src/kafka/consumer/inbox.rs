//! The records of one topic between the consumer's thread and the role that reads them.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Notify, watch};

use crate::domain::Timestamp;
use crate::kafka::sync::lock;
use crate::ports::{ActedOn, InRecord, Stopped, Subscription};

use super::assignment::Held;

#[derive(Debug, Default)]
struct Contents {
    records: VecDeque<InRecord>,
    /// What keys, values and headers take.
    bytes: usize,
    stopped: Option<Stopped>,
}

impl Contents {
    fn recount(&mut self) {
        self.bytes = self.records.iter().map(size).sum();
    }
}

/// Bounded by the consumer, which pauses the topic's partitions at the high mark, of records or of bytes;
/// what was fetched by then still enters, so the bound is the high mark and one burst.
#[derive(Debug)]
pub(super) struct Inbox {
    high_mark: usize,
    contents: Mutex<Contents>,
    /// How often partitions came.
    assignments: AtomicU64,
    /// How often partitions went.
    revocations: watch::Sender<u64>,
    /// Partitions of which the reader wants no more for now.
    unwanted: Mutex<BTreeSet<i32>>,
    /// How old what is not acted on may be, by partition, and when that was so.
    ages: Mutex<Vec<(i32, Duration, Instant)>>,
    /// Wakes the reader.
    filled: Notify,
    /// Wakes the consumer's thread, when there is room again.
    drained: Condvar,
}

/// Records that must have been taken from a full inbox before its filling goes on.
const ROOM: usize = 128;
/// An inbox with so many bytes is full, however few its records are: some times what
/// as many records of ours take as may wait, a fraction of what as many of the largest would.
const HIGH_BYTES: usize = 16 * 1024 * 1024;

fn size(record: &InRecord) -> usize {
    let len = |bytes: Option<&Bytes>| bytes.map_or(0, Bytes::len);
    let headers = record.headers.iter().map(|(name, value)| name.len() + len(value.as_ref()));
    len(record.key.as_ref()) + len(record.value.as_ref()) + headers.sum::<usize>()
}

impl Inbox {
    pub(super) fn new(high_mark: usize) -> Self {
        Self {
            high_mark,
            contents: Mutex::default(),
            assignments: AtomicU64::new(0),
            revocations: watch::Sender::new(0),
            unwanted: Mutex::default(),
            ages: Mutex::default(),
            filled: Notify::new(),
            drained: Condvar::new(),
        }
    }

    /// A partition came; its reader wants it, until it has said otherwise of this time.
    pub(super) fn assigned(&self, partition: i32) {
        lock(&self.unwanted).remove(&partition);
        self.assignments.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn is_wanted(&self, partition: i32) -> bool {
        !lock(&self.unwanted).contains(&partition)
    }

    fn want(&self, partition: i32, wanted: bool) {
        let mut unwanted = lock(&self.unwanted);
        if wanted {
            unwanted.remove(&partition);
        } else {
            unwanted.insert(partition);
        }
    }

    pub(super) fn set_ages(&self, ages: Vec<(i32, Duration, Instant)>) {
        *lock(&self.ages) = ages;
    }

    /// Adds a record without waking the reader; `true` if it is full now.
    pub(super) fn push(&self, record: InRecord) -> bool {
        let mut contents = lock(&self.contents);
        if contents.stopped.is_none() {
            contents.bytes += size(&record);
            contents.records.push_back(record);
        }
        self.is_high(&contents)
    }

    fn is_high(&self, contents: &Contents) -> bool {
        contents.records.len() >= self.high_mark || contents.bytes >= HIGH_BYTES
    }

    pub(super) fn wake(&self) {
        self.filled.notify_one();
    }

    pub(super) fn len(&self) -> usize {
        lock(&self.contents).records.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.is_high(&lock(&self.contents))
    }

    pub(super) fn is_half_empty(&self) -> bool {
        let contents = lock(&self.contents);
        contents.records.len() <= self.high_mark / 2 && contents.bytes <= HIGH_BYTES / 2
    }

    /// Waits, at most `limit`, until the reader has made some room. It spares the pause (and the
    /// fetching again of what the client had read ahead) where the reader is merely a step behind.
    pub(super) fn wait_for_room(&self, limit: Duration) -> bool {
        let contents = lock(&self.contents);
        let waited = self.drained.wait_timeout_while(contents, limit, |contents| !self.has_room(contents));
        waited.is_ok_and(|(_, timeout)| !timeout.timed_out())
    }

    fn has_room(&self, contents: &Contents) -> bool {
        contents.records.len() <= self.high_mark - ROOM.min(self.high_mark.div_ceil(2)) && contents.bytes < HIGH_BYTES
    }

    /// Drops the records of a partition that is given back; nobody has claimed them. Its reader hears of it,
    /// for it may have some in hand.
    pub(super) fn purge(&self, held: &Held) {
        let mut contents = lock(&self.contents);
        contents.records.retain(|record| record.partition != held.partition || record.ack.is_live());
        contents.recount();
        drop(contents);
        self.revocations.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// No more records will come; the first reason stands.
    pub(super) fn stop(&self, reason: &Stopped) {
        let mut contents = lock(&self.contents);
        contents.records.clear();
        contents.bytes = 0;
        contents.stopped.get_or_insert_with(|| reason.clone());
        drop(contents);
        self.filled.notify_one();
    }

    pub(super) fn oldest(&self) -> Option<Timestamp> {
        lock(&self.contents).records.front().and_then(|record| record.timestamp)
    }

    fn take(&self, max: usize) -> Option<Result<Vec<InRecord>, Stopped>> {
        let mut contents = lock(&self.contents);
        if let Some(stopped) = &contents.stopped {
            return Some(Err(stopped.clone()));
        }
        if contents.records.is_empty() {
            return None;
        }
        let count = max.max(1).min(contents.records.len());
        let batch: Vec<InRecord> = contents.records.drain(..count).collect();
        contents.bytes -= batch.iter().map(size).sum::<usize>();
        if self.has_room(&contents) {
            self.drained.notify_one();
        }
        Some(Ok(batch))
    }
}

/// The reading end of one topic.
#[derive(Debug)]
pub struct TopicSubscription {
    topic: Arc<str>,
    inbox: Arc<Inbox>,
}

impl TopicSubscription {
    pub(super) fn new(topic: Arc<str>, inbox: Arc<Inbox>) -> Self {
        Self { topic, inbox }
    }

    /// The topic.
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }
}

#[async_trait]
impl Subscription for TopicSubscription {
    /// Dropping the future loses nothing: records are taken and returned in one step.
    async fn next(&mut self, max: usize) -> Result<Vec<InRecord>, Stopped> {
        loop {
            if let Some(taken) = self.inbox.take(max) {
                return taken;
            }
            self.inbox.filled.notified().await;
        }
    }

    fn want(&self, partition: i32, wanted: bool) {
        self.inbox.want(partition, wanted);
    }

    fn revocations(&self) -> watch::Receiver<u64> {
        self.inbox.revocations.subscribe()
    }

    fn assignments(&self) -> u64 {
        self.inbox.assignments.load(Ordering::Relaxed)
    }

    fn acted_on(&self) -> Vec<ActedOn> {
        let ages = lock(&self.inbox.ages);
        ages.iter().map(|(partition, age, at)| ActedOn { partition: *partition, age: *age + at.elapsed() }).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::ports::{Ack, Assignment};

    use super::*;

    fn record(held: &Arc<Held>, offset: i64) -> InRecord {
        held.deliver(offset);
        let assignment: Arc<dyn Assignment> = Arc::<Held>::clone(held);
        InRecord {
            topic: Arc::clone(&held.topic),
            partition: held.partition,
            offset,
            timestamp: None,
            key: None,
            value: None,
            headers: Vec::new(),
            ack: Ack::new(assignment, offset),
        }
    }

    fn held(partition: i32) -> Arc<Held> {
        Arc::new(Held::new(Arc::from("t"), partition, None))
    }

    #[tokio::test]
    async fn a_reader_gets_at_most_what_it_asks_for_and_at_least_one() {
        let (inbox, held) = (Arc::new(Inbox::new(10)), held(0));
        let mut reader = TopicSubscription::new(Arc::from("t"), Arc::clone(&inbox));
        for offset in 0..5 {
            inbox.push(record(&held, offset));
        }
        inbox.wake();
        assert_eq!(reader.next(3).await.unwrap().len(), 3);
        assert_eq!(reader.next(0).await.unwrap().len(), 1);
        assert_eq!(reader.next(100).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken_by_records_and_by_the_end() {
        let (inbox, held) = (Arc::new(Inbox::new(10)), held(0));
        let mut reader = TopicSubscription::new(Arc::from("t"), Arc::clone(&inbox));
        let reading = tokio::spawn(async move {
            let first = reader.next(10).await;
            (first.map(|records| records.len()), reader.next(10).await.map(|records| records.len()))
        });
        tokio::task::yield_now().await;
        inbox.push(record(&held, 0));
        inbox.wake();
        while inbox.len() > 0 {
            tokio::task::yield_now().await;
        }
        inbox.stop(&Stopped::Failed("fenced".to_owned()));
        inbox.stop(&Stopped::Closed);
        assert_eq!(reading.await.unwrap(), (Ok(1), Err(Stopped::Failed("fenced".to_owned()))));
    }

    #[test]
    fn only_the_records_of_the_partition_that_is_given_back_are_dropped() {
        let (inbox, gone, kept) = (Inbox::new(10), held(0), held(1));
        for offset in 0..4 {
            inbox.push(record(&gone, offset));
            inbox.push(record(&kept, offset));
        }
        let reader = TopicSubscription::new(Arc::from("t"), Arc::new(inbox));
        let (inbox, mut revocations) = (Arc::clone(&reader.inbox), reader.revocations());
        assert!(!revocations.has_changed().unwrap());
        gone.begin_draining();
        inbox.purge(&gone);
        assert_eq!(inbox.len(), 4);
        assert_eq!(Arc::strong_count(&gone), 1);
        assert!(revocations.has_changed().unwrap(), "whoever has some in hand was not told");
        revocations.mark_unchanged();
    }

    #[test]
    fn a_few_large_records_fill_an_inbox_and_half_of_them_is_room_again() {
        let (inbox, held) = (Inbox::new(100), held(0));
        let large = |offset| InRecord { value: Some(Bytes::from(vec![0; HIGH_BYTES / 4])), ..record(&held, offset) };
        assert!(!(0..3).any(|offset| inbox.push(large(offset))));
        assert!(inbox.push(large(3)) && inbox.is_full());
        assert!(!inbox.wait_for_room(Duration::from_millis(1)));
        inbox.take(1).unwrap().unwrap();
        assert!(!inbox.is_full() && !inbox.is_half_empty());
        inbox.take(1).unwrap().unwrap();
        assert!(inbox.is_half_empty());
        held.begin_draining();
        inbox.purge(&held);
        assert_eq!(lock(&inbox.contents).bytes, 0);
    }

    #[test]
    fn a_partition_that_comes_anew_is_wanted() {
        let inbox = Arc::new(Inbox::new(10));
        let reader = TopicSubscription::new(Arc::from("t"), Arc::clone(&inbox));
        reader.want(0, false);
        reader.want(1, false);
        assert_eq!([0, 1, 2].map(|partition| inbox.is_wanted(partition)), [false, false, true]);
        inbox.assigned(1);
        reader.want(2, true);
        assert_eq!([0, 1, 2].map(|partition| inbox.is_wanted(partition)), [false, true, true]);
        assert_eq!(reader.assignments(), 1);
    }

    #[test]
    fn the_consumer_s_thread_waits_only_until_there_is_room() {
        let (inbox, held) = (Arc::new(Inbox::new(4)), held(0));
        for offset in 0..4 {
            inbox.push(record(&held, offset));
        }
        assert!(inbox.is_full());
        assert!(!inbox.wait_for_room(Duration::from_millis(1)));
        let reader = Arc::clone(&inbox);
        let reading = std::thread::spawn(move || reader.take(2));
        assert!(inbox.wait_for_room(Duration::from_secs(10)));
        assert!(inbox.is_half_empty());
        assert_eq!(reading.join().unwrap().unwrap().unwrap().len(), 2);
    }
}
