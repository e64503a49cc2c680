//! The life of a process: it works, it may stand still, and it dies between any two steps. Every
//! operation on the outside passes here when it begins and when it ends, so a process that stands
//! still neither sends nor hears, and one that died in the middle of an operation has done it, or not.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use recharged::domain::Timestamp;
use recharged::ports::Clock;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::weather::{Fault, Strikes};

/// Tokio's paused time as the store's clock.
#[derive(Debug)]
pub(crate) struct TrueTime {
    start: Instant,
    /// As far as a process's clock may be wrong in this life.
    precision: Duration,
}

/// When a life begins.
pub(crate) const EPOCH: Timestamp = Timestamp::from_timestamp(1_800_000_000, 0).unwrap();

impl TrueTime {
    pub(crate) fn new(precision: Duration) -> Self {
        Self { start: Instant::now(), precision }
    }

    pub(crate) fn precision(&self) -> Duration {
        self.precision
    }
}

impl Clock for TrueTime {
    fn now(&self) -> Timestamp {
        recharged::domain::plus(EPOCH, self.since_boot())
    }
    fn since_boot(&self) -> Duration {
        self.start.elapsed()
    }
}

/// As far as a process's clock may be wrong mostly: what measuring it over the wire leaves.
pub(crate) const PRECISION: Duration = Duration::from_millis(20);
/// As far as it is wrong where the database's clock was set, until it is measured again.
pub(crate) const JUMP: Duration = Duration::from_secs(1);
/// It is measured this often, and that may take a moment.
pub(crate) const MEASURED_EVERY: Duration = Duration::from_millis(1_100);

/// Whoever tried in vain waits so long at most before it tries again.
pub(crate) const TRIED_AGAIN: Duration = Duration::from_secs(2);

/// What happens to a process in the middle of something.
#[derive(Debug, Clone, Copy)]
pub(crate) enum News {
    Died(usize),
    Stopped(usize, Duration),
}

#[derive(Debug)]
pub(crate) struct Life {
    /// Its place among the processes; who comes back has the same.
    pub(crate) slot: usize,
    time: Arc<TrueTime>,
    skew_us: AtomicI64,
    is_dead: AtomicBool,
    stands_until: Mutex<Option<Instant>>,
    operations: AtomicU64,
    dies_at: AtomicU64,
    stops_at: Mutex<Option<(u64, Duration)>>,
    unheard_until: Mutex<Option<Instant>>,
    /// Operations of what watches the deadlines that began then, and have not succeeded yet.
    under_way: Mutex<HashMap<&'static str, Duration>>,
    news: mpsc::Sender<News>,
    strikes: Arc<Strikes>,
}

impl Life {
    pub(crate) fn new(
        slot: usize,
        time: Arc<TrueTime>,
        skew_us: i64,
        news: mpsc::Sender<News>,
        strikes: Arc<Strikes>,
    ) -> Arc<Self> {
        Arc::new(Self {
            slot,
            time,
            skew_us: AtomicI64::new(skew_us),
            is_dead: AtomicBool::new(false),
            stands_until: Mutex::default(),
            operations: AtomicU64::new(0),
            dies_at: AtomicU64::new(u64::MAX),
            stops_at: Mutex::default(),
            unheard_until: Mutex::default(),
            under_way: Mutex::default(),
            news,
            strikes,
        })
    }

    /// Goes on only while the process lives, and not while it stands still.
    pub(crate) async fn pass(&self) {
        let operation = self.operations.fetch_add(1, Ordering::Relaxed);
        if operation >= self.dies_at.load(Ordering::Relaxed) && !self.is_dead() {
            self.is_dead.store(true, Ordering::Relaxed);
            self.strikes.hit(Fault::CrashAtAnOperation);
            self.news.try_send(News::Died(self.slot)).unwrap();
        }
        let stops = self.stops_at.lock().unwrap().take_if(|(at, _)| operation >= *at);
        if let Some((_, length)) = stops {
            self.strikes.hit(Fault::StallAtAnOperation);
            self.stand_still(length);
            self.news.try_send(News::Stopped(self.slot, length)).unwrap();
        }
        loop {
            if self.is_dead() {
                std::future::pending::<()>().await;
            }
            match self.stands_until().filter(|until| *until > Instant::now()) {
                Some(until) => tokio::time::sleep_until(until).await,
                None => return,
            }
        }
    }

    /// An operation of what watches the deadlines begins.
    pub(crate) fn begins(&self, operation: &'static str) -> Duration {
        let now = self.time.since_boot();
        self.under_way.lock().unwrap().entry(operation).or_insert(now);
        now
    }

    /// It has succeeded, which began then. What held it up, once or while it was tried again and again, is no fault of
    /// the watchdog's.
    pub(crate) fn succeeds(&self, operation: &'static str, began: Duration) {
        let since = self.under_way.lock().unwrap().remove(operation).map_or(began, |since| since.min(began));
        // Where it was tried in vain before, another part of the watchdog that did so too may still wait.
        let waits = if since < began { TRIED_AGAIN } else { Duration::ZERO };
        self.was_held_up(since, waits);
    }

    /// It has failed, which began then, and is tried again. Another part of the watchdog may succeed in the same meanwhile.
    pub(crate) fn fails(&self, began: Duration) {
        self.was_held_up(began, TRIED_AGAIN);
    }

    fn was_held_up(&self, since: Duration, waits: Duration) {
        const USUAL: Duration = Duration::from_millis(20);
        let now = self.time.since_boot();
        if now.saturating_sub(since) > USUAL {
            self.strikes.held_up(self.slot, since, now + waits);
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::Relaxed)
    }

    pub(crate) fn kill(&self) {
        self.is_dead.store(true, Ordering::Relaxed);
        // What it was at when it died, it had not done.
        self.under_way.lock().unwrap().drain().for_each(|(_, since)| self.was_held_up(since, Duration::ZERO));
    }

    pub(crate) fn kill_in(&self, operations: u64) {
        self.dies_at.store(self.operations.load(Ordering::Relaxed) + operations, Ordering::Relaxed);
    }

    pub(crate) fn stop_in(&self, operations: u64, length: Duration) {
        *self.stops_at.lock().unwrap() = Some((self.operations.load(Ordering::Relaxed) + operations, length));
    }

    /// Whoever was to die or to stop in the middle of something may live on.
    pub(crate) fn spare(&self) {
        self.dies_at.store(u64::MAX, Ordering::Relaxed);
        *self.stops_at.lock().unwrap() = None;
    }

    pub(crate) fn cut_off(&self, length: Duration) {
        *self.unheard_until.lock().unwrap() = Some(Instant::now() + length);
    }

    /// Whether the store hears it, and it the store.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.unheard_until.lock().unwrap().is_some_and(|until| until > Instant::now())
    }

    pub(crate) fn stand_still(&self, length: Duration) {
        *self.stands_until.lock().unwrap() = Some(Instant::now() + length);
    }

    pub(crate) fn stands_until(&self) -> Option<Instant> {
        *self.stands_until.lock().unwrap()
    }

    pub(crate) fn stands_still(&self) -> bool {
        self.stands_until().is_some_and(|until| until > Instant::now())
    }

    pub(crate) fn set_skew(&self, skew_us: i64) {
        self.skew_us.store(skew_us, Ordering::Relaxed);
    }
}

impl Clock for Life {
    fn now(&self) -> Timestamp {
        self.time.now() + chrono::TimeDelta::microseconds(self.skew_us.load(Ordering::Relaxed))
    }
    fn since_boot(&self) -> Duration {
        self.time.since_boot()
    }
}
