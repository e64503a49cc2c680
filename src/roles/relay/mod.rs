//! The relay publishes the event log: order events, refund requests, notifications. It reads pages in log
//! order, publishes them with a producer of its own, and moves its cursor once everything is
//! acknowledged; an event may be published twice, never out of order, and its id is the same.

mod render;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tracing::{error, info, warn};

use crate::domain::{Announcement, OrderId, Timestamp};
use crate::faults::{self, Bug, is_planted};
use crate::metrics::RelayMetrics;
use crate::ports::{Clock, EventLog, LogBatch, LogPosition, OutRecord, Publisher, StoreError, StoreErrorKind};

use super::{RoleError, StopSignals, patience};
use render::Rendering;

/// What the relay writes to.
#[derive(Debug, Clone)]
pub struct RelayTopics {
    /// One event per transition.
    pub order_events: Arc<str>,
    /// Refund requests.
    pub refunds: Arc<str>,
    /// Requests to tell somebody where an order stands.
    pub notifications: Arc<str>,
}

impl RelayTopics {
    /// Each of them.
    pub fn all(&self) -> [Arc<str>; 3] {
        [&self.order_events, &self.refunds, &self.notifications].map(Arc::clone)
    }
}

/// The role.
#[derive(Debug)]
pub struct Relay {
    /// The log.
    pub log: Arc<dyn EventLog>,
    /// A producer without a message time-out: with one, a later version could overtake.
    pub publisher: Arc<dyn Publisher>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where to.
    pub topics: RelayTopics,
    /// Woken when this process has written something: other processes' writes are found by looking.
    pub written: Arc<Notify>,
    /// Events in one page at most.
    pub page_max: usize,
    /// The numbers.
    pub metrics: RelayMetrics,
}

/// The look at an empty log is repeated after this, doubled up to the longest. A quiet process
/// costs next to nothing; one that writes wakes its own relay at once.
const FIRST_LOOK: Duration = Duration::from_millis(10);
const LONGEST_LOOK: Duration = Duration::from_millis(300);
/// A page that is not worth a round trip waits this long for more.
const LINGER: Duration = Duration::from_millis(15);
/// Told to end, the relay goes on at most this long.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Another relay moved the cursor: stand by this long before looking whether it still does.
const STAND_BY: Duration = Duration::from_secs(3);

/// What was read of the log, and when its first entry was written.
#[derive(Debug, Default)]
struct Page {
    batches: Vec<LogBatch>,
    entries: usize,
    first_at: Option<Timestamp>,
}

impl Page {
    fn of(batches: Vec<LogBatch>) -> Result<Self, StoreError> {
        let entries = batches.iter().map(|batch| batch.lines().count()).sum();
        let first = batches.iter().flat_map(LogBatch::lines).next();
        let first_at = first.map(announcement).transpose()?.map(|first| first.at);
        Ok(Self { batches, entries, first_at })
    }

    fn last(&self) -> Option<LogPosition> {
        self.batches.last().map(|batch| batch.position)
    }

    fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }
}

fn announcement(line: &str) -> Result<Announcement<'_>, StoreError> {
    Announcement::from_line(line).map_err(|bad| StoreError {
        operation: "read_log",
        kind: StoreErrorKind::Broken,
        source: Box::new(bad),
    })
}

impl Relay {
    /// Works until told to stop. Pages are read ahead while the former one is on its way.
    pub async fn run(self, stop: StopSignals) -> Result<(), RoleError> {
        let mut told_at: Option<Timestamp> = None;
        'cursor: loop {
            let Some(mut cursor) = self.patiently(&stop, "cursor", || self.log.cursor()).await? else { return Ok(()) };
            let Some(mut page) = self.next_page(cursor, &stop).await? else { return Ok(()) };
            loop {
                let last = page.last().unwrap_or(cursor);
                if is_planted(Bug::CursorBeforeEvents) {
                    self.patiently(&stop, "advance", || self.log.advance_cursor(cursor, last)).await?;
                }
                // The next page is read while this one is on its way.
                let (published, next) = tokio::join!(self.publish(&page, &stop), self.read(last, &stop));
                if !published? {
                    return Ok(());
                }
                faults::point("relay::published");
                let moved = self.patiently(&stop, "advance", || self.log.advance_cursor(cursor, last)).await?;
                match moved {
                    None => return Ok(()),
                    Some(true) => cursor = last,
                    // Its own move whose answer was lost, or another relay's: the cursor tells.
                    Some(false) => {
                        self.stand_by(last, &stop).await?;
                        continue 'cursor;
                    }
                }
                let Some(read) = next? else { return Ok(()) };
                page = read;
                if stop.drain.is_cancelled() {
                    // What this process wrote before it was told to end is told as well; what
                    // others write from now on is theirs to tell.
                    let told_at = *told_at.get_or_insert_with(|| self.clock.now());
                    if page.is_empty() {
                        page = self.last_page(cursor, told_at, &stop).await?;
                    }
                    let is_ours = page.first_at.is_some_and(|at| at <= told_at);
                    if !is_ours || self.clock.now() > told_at + LAST_WORDS {
                        return Ok(());
                    }
                    continue;
                }
                if page.entries < self.page_max / 4 {
                    tokio::time::sleep(LINGER).await;
                    let Some(more) = self.next_page(cursor, &stop).await? else { return Ok(()) };
                    page = more;
                }
            }
        }
    }

    /// Waits for entries; `None` when told to stop.
    async fn next_page(&self, after: LogPosition, stop: &StopSignals) -> Result<Option<Page>, RoleError> {
        let mut wait = FIRST_LOOK;
        loop {
            let Some(page) = self.read(after, stop).await? else { return Ok(None) };
            if !page.is_empty() {
                return Ok(Some(page));
            }
            self.metrics.pending(0, Duration::ZERO);
            tokio::select! {
                biased; // Stopping comes before another look.
                // What was written since the last look is told as well.
                () = stop.drain.cancelled() => {
                    let last = self.last_page(after, self.clock.now(), stop).await?;
                    return Ok((!last.is_empty()).then_some(last));
                }
                () = self.written.notified() => {}
                () = tokio::time::sleep(wait) => wait = (wait * 2).min(LONGEST_LOOK),
            }
        }
    }

    /// What is left to tell of before the end. An older transaction, of whomever, may hold it back for a while.
    async fn last_page(&self, after: LogPosition, told_at: Timestamp, stop: &StopSignals) -> Result<Page, RoleError> {
        loop {
            let page = self.read(after, stop).await?.unwrap_or_default();
            if !page.is_empty() || self.clock.now() > told_at + LAST_WORDS {
                return Ok(page);
            }
            if self.patiently(stop, "has more", || self.log.has_more(after)).await? != Some(true) {
                return Ok(page);
            }
            tokio::time::sleep(FIRST_LOOK).await;
        }
    }

    async fn read(&self, after: LogPosition, stop: &StopSignals) -> Result<Option<Page>, RoleError> {
        let read = self.patiently(stop, "read log", || self.log.read_log(after, self.page_max)).await?;
        let Some(page) = read.map(Page::of).transpose()? else { return Ok(None) };
        if let Some(first_at) = page.first_at {
            let age = (self.clock.now() - first_at).to_std().unwrap_or_default();
            self.metrics.pending(page.entries as u64, age);
        }
        Ok(Some(page))
    }

    async fn publish(&self, page: &Page, stop: &StopSignals) -> Result<bool, RoleError> {
        let Some(records) = self.render(page, stop).await? else { return Ok(false) };
        let topics = self.topics.all();
        let counts = topics.each_ref().map(|topic| records.iter().filter(|record| record.topic == *topic).count());
        if !patience::published("events", self.publisher.as_ref(), records, &stop.abort).await {
            return Ok(false);
        }
        for (topic, count) in topics.iter().zip(counts) {
            self.metrics.published(topic, true, count as u64);
        }
        Ok(true)
    }

    /// `None` if told to stop meanwhile.
    async fn render(&self, page: &Page, stop: &StopSignals) -> Result<Option<Vec<OutRecord>>, RoleError> {
        let mut rendering = Rendering::new(&self.topics, page.entries);
        let mut notifications = Vec::new();
        for line in page.batches.iter().flat_map(LogBatch::lines) {
            let event = announcement(line)?;
            if !event.kind.is_published() {
                continue;
            }
            if event.kind.is_aside() {
                notifications.push(event);
            } else {
                rendering.add(&event).map_err(RoleError::Render)?;
            }
        }
        if !notifications.is_empty() {
            // Together, so that no number can meet another order's event.
            let (ids, events): (Vec<OrderId>, Vec<Announcement<'_>>) = notifications
                .into_iter()
                .filter_map(|event| Some((OrderId::parse(&event.order_id).ok()?, event)))
                .unzip();
            let read = || self.log.recipients(&ids);
            let Some(recipients) = self.patiently(stop, "recipients", read).await? else { return Ok(None) };
            for (event, recipient) in events.iter().zip(recipients) {
                let Some(number) = recipient.and_then(|recipient| recipient.msisdn()) else {
                    error!(order_id = %event.order_id, "nobody can be told of this order: its number is gone");
                    continue;
                };
                rendering.notify(event, number).map_err(RoleError::Render)?;
            }
        }
        Ok(Some(rendering.finish()))
    }

    async fn stand_by(&self, expected: LogPosition, stop: &StopSignals) -> Result<(), RoleError> {
        let found = self.patiently(stop, "cursor", || self.log.cursor()).await?;
        if found == Some(expected) {
            return Ok(());
        }
        info!("another relay is at work; standing by");
        let mut seen = found;
        loop {
            tokio::select! {
                biased; // Stopping comes first.
                () = stop.drain.cancelled() => return Ok(()),
                () = tokio::time::sleep(STAND_BY) => {}
            }
            let now = self.patiently(stop, "cursor", || self.log.cursor()).await?;
            if now == seen {
                warn!("the other relay does not move; taking over");
                return Ok(());
            }
            seen = now;
        }
    }

    /// `None` when told to stop meanwhile.
    async fn patiently<T, F, Fut>(
        &self,
        stop: &StopSignals,
        what: &'static str,
        attempt: F,
    ) -> Result<Option<T>, RoleError>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, crate::ports::StoreError>>,
    {
        // An unpublished page comes again, so a relay need not outlive its drain signal for it.
        match patience::stored(what, &stop.drain, attempt).await {
            Ok(done) => Ok(Some(done)),
            Err(_) if stop.drain.is_cancelled() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
