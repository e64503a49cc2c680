//! The relay publishes the event log: order events, refund requests. It reads pages in log
//! order, publishes them with a producer of its own, and moves its cursor once everything is
//! acknowledged; an event may be published twice, never out of order, and its id is the same.

mod render;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tracing::{info, warn};

use crate::domain::{LoggedEvent, Timestamp};
use crate::faults;
use crate::metrics::RelayMetrics;
use crate::ports::{Clock, EventLog, LogPosition, Publisher};

use super::{RoleError, StopSignals, patience};

/// What the relay writes to.
#[derive(Debug, Clone)]
pub struct RelayTopics {
    /// One event per transition.
    pub order_events: Arc<str>,
    /// Refund requests.
    pub refunds: Arc<str>,
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

type Page = Vec<(LogPosition, LoggedEvent)>;

impl Relay {
    /// Works until told to stop. Pages are read ahead while the former one is on its way.
    pub async fn run(self, stop: StopSignals) -> Result<(), RoleError> {
        let mut told_at: Option<Timestamp> = None;
        'cursor: loop {
            let Some(mut cursor) = self.patiently(&stop, "cursor", || self.log.cursor()).await? else { return Ok(()) };
            let Some(mut page) = self.next_page(cursor, &stop).await? else { return Ok(()) };
            loop {
                let last = page.last().map_or(cursor, |(position, _)| *position);
                let (published, next) = tokio::join!(self.publish(&page, &stop), self.read(last, &stop));
                if !published {
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
                        page = self.read(cursor, &stop).await?.unwrap_or_default();
                    }
                    let is_ours = page.first().is_some_and(|(_, event)| event.at <= told_at);
                    if !is_ours || self.clock.now() > told_at + LAST_WORDS {
                        return Ok(());
                    }
                    continue;
                }
                if page.len() < self.page_max / 4 {
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
                    return Ok(self.read(after, stop).await?.filter(|page| !page.is_empty()));
                }
                () = self.written.notified() => {}
                () = tokio::time::sleep(wait) => wait = (wait * 2).min(LONGEST_LOOK),
            }
        }
    }

    async fn read(&self, after: LogPosition, stop: &StopSignals) -> Result<Option<Page>, RoleError> {
        let page = self.patiently(stop, "read log", || self.log.read_log(after, self.page_max)).await?;
        if let Some((_, first)) = page.as_ref().and_then(|page| page.first()) {
            let age = (self.clock.now() - first.at).to_std().unwrap_or_default();
            self.metrics.pending(page.as_ref().map_or(0, Vec::len) as u64, age);
        }
        Ok(page)
    }

    async fn publish(&self, page: &Page, stop: &StopSignals) -> bool {
        let mut records = Vec::with_capacity(page.len());
        for (_, event) in page {
            render::records(event, &self.topics, &mut records);
        }
        let refunds = records.iter().filter(|record| record.topic == self.topics.refunds).count();
        let count = records.len();
        if !patience::published("events", self.publisher.as_ref(), records, &stop.abort).await {
            return false;
        }
        self.metrics.published(&self.topics.order_events, true, (count - refunds) as u64);
        self.metrics.published(&self.topics.refunds, true, refunds as u64);
        true
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
