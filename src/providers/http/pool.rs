//! Connections that stand ready, and the bound on how many there are.
//!
//! A slot is the right to hold one connection outside the idle ones, be it for a call or while it is
//! being opened. There are `connections_max` slots, a connection is opened only by the holder of
//! one, and by a call only when none is idle: so the idle ones and the slots together never
//! hold more than the bound.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::connection::Connection;
use super::connector::Connector;
use crate::ports::Clock;

/// How many connections are opened at once to stand ready.
const OPENING_MAX: usize = 8;
/// After a connection could not be opened, the next one is tried this much later.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(100);
/// How long a caller that could start something waits for further connections.
const PATIENCE: Duration = Duration::from_millis(25);

/// Counts one open connection for as long as it lives.
#[derive(Debug)]
pub(super) struct OpenCount(Arc<AtomicUsize>);

impl Drop for OpenCount {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The connections to one provider.
#[derive(Debug)]
pub(super) struct Pool {
    connector: Connector,
    clock: Arc<dyn Clock>,
    connections_max: usize,
    connect_timeout: Duration,
    idle_limit: Duration,
    slots: Arc<Semaphore>,
    opening: Arc<Semaphore>,
    open: Arc<AtomicUsize>,
    /// The most recently used last: it is taken first, so that the others grow old and go.
    idle: Mutex<Vec<Connection>>,
    failed_at: Mutex<Option<Instant>>,
    failing: AtomicBool,
    changed: Notify,
}

impl Pool {
    pub(super) fn new(
        connector: Connector,
        clock: Arc<dyn Clock>,
        connections_max: usize,
        connect_timeout: Duration,
        idle_limit: Duration,
    ) -> Arc<Self> {
        Arc::new(Self {
            connector,
            clock,
            connections_max,
            connect_timeout,
            idle_limit,
            slots: Arc::new(Semaphore::new(connections_max)),
            opening: Arc::new(Semaphore::new(OPENING_MAX)),
            open: Arc::new(AtomicUsize::new(0)),
            idle: Mutex::new(Vec::new()),
            failed_at: Mutex::new(None),
            failing: AtomicBool::new(false),
            changed: Notify::new(),
        })
    }

    /// Waits for the right to hold a connection; `None` after `until`.
    pub(super) async fn slot(&self, until: Instant) -> Option<OwnedSemaphorePermit> {
        timeout_at(until, Arc::clone(&self.slots).acquire_owned()).await.ok()?.ok()
    }

    /// A connection that stands ready, if there is one.
    pub(super) fn take(&self) -> Option<Connection> {
        let mut idle = self.idle();
        self.discard_old(&mut idle);
        while let Some(mut connection) = idle.pop() {
            if connection.is_ready() {
                return Some(connection);
            }
        }
        None
    }

    /// Takes a connection back after a whole exchange. The slot goes with it, afterwards.
    pub(super) fn put_back(&self, mut connection: Connection, slot: OwnedSemaphorePermit) {
        if connection.is_ready() {
            connection.idle_since = self.clock.since_boot();
            self.idle().push(connection);
        } else {
            drop(connection);
        }
        drop(slot);
        self.changed.notify_waiters();
    }

    /// Opens a connection. The caller holds a slot and found none idle.
    pub(super) async fn open(&self) -> io::Result<Connection> {
        match self.count_one() {
            Some(counted) => self.open_counted(counted).await,
            None => Err(io::Error::other("more connections than slots")),
        }
    }

    async fn open_counted(&self, counted: OpenCount) -> io::Result<Connection> {
        let opened = self.connector.open(counted).await;
        match &opened {
            Ok(_) => {
                *lock(&self.failed_at) = None;
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!(connector = ?self.connector, "the provider can be reached again");
                }
            }
            Err(error) => {
                *lock(&self.failed_at) = Some(Instant::now());
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(connector = ?self.connector, %error, "the provider cannot be reached");
                }
            }
        }
        opened
    }

    /// Makes `wanted` connections stand ready, as far as that goes, and says how many do.
    ///
    /// Waits for the first as long as a connection may take; once one stands ready, only a
    /// moment for the others, which go on opening by themselves. After a failure it holds the
    /// caller back a little, so that a caller in a loop does not hammer a dead provider.
    pub(super) async fn prepare(self: &Arc<Self>, wanted: usize) -> usize {
        let wanted = wanted.min(self.connections_max);
        let start = Instant::now();
        let mut ready = self.ready();
        let failed_at = *lock(&self.failed_at);
        if let (0, 1.., Some(failed_at)) = (ready, wanted, failed_at) {
            sleep_until(failed_at + PAUSE_AFTER_FAILURE).await;
        }
        while ready < wanted {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Registered before the state is looked at, so that no change is missed.
            changed.as_mut().enable();
            ready = self.ready();
            let failed = (*lock(&self.failed_at)).is_some_and(|at| at >= start);
            if ready >= wanted || failed {
                break;
            }
            let opening = self.open_in_background(wanted - ready);
            if opening == 0 {
                break;
            }
            let patience = if ready == 0 { self.connect_timeout } else { PATIENCE };
            if timeout_at(start + patience, changed).await.is_err() {
                break;
            }
        }
        self.ready().min(wanted)
    }

    /// Starts to open connections until `missing` are under way; returns how many are.
    fn open_in_background(self: &Arc<Self>, missing: usize) -> usize {
        let under_way = OPENING_MAX - self.opening.available_permits();
        let mut started = 0;
        while under_way + started < missing {
            let Ok(turn) = Arc::clone(&self.opening).try_acquire_owned() else { break };
            let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else { break };
            let Some(counted) = self.count_one() else { break };
            let pool = Arc::clone(self);
            tokio::spawn(async move {
                let opened = pool.open_counted(counted).await;
                // Before the notification, so that whoever it wakes may open the next.
                drop(turn);
                if let Ok(connection) = opened {
                    pool.put_back(connection, slot);
                } else {
                    drop(slot);
                    pool.changed.notify_waiters();
                }
            });
            started += 1;
        }
        under_way + started
    }

    /// How many stand ready, by a look at each.
    fn ready(&self) -> usize {
        let mut idle = self.idle();
        self.discard_old(&mut idle);
        idle.retain_mut(Connection::is_ready);
        idle.len()
    }

    /// The oldest lie first.
    fn discard_old(&self, idle: &mut Vec<Connection>) {
        let now = self.clock.since_boot();
        let old = idle.iter().take_while(|c| now.saturating_sub(c.idle_since) > self.idle_limit).count();
        idle.drain(..old);
    }

    fn count_one(&self) -> Option<OpenCount> {
        let one_more = |open: usize| (open < self.connections_max).then_some(open + 1);
        self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).ok()?;
        Some(OpenCount(Arc::clone(&self.open)))
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        lock(&self.idle)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
