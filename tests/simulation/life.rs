//! The life of a process: it works, it may stand still, and it dies between any two steps. Every
//! operation on the outside passes here when it begins and when it ends, so a process that stands
//! still neither sends nor hears, and one that died in the middle of an operation has done it, or not.

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
}

const EPOCH: i64 = 1_800_000_000;

impl TrueTime {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for TrueTime {
    fn now(&self) -> Timestamp {
        let passed = i64::try_from(self.since_boot().as_micros()).unwrap();
        Timestamp::from_timestamp_micros(EPOCH * 1_000_000 + passed).unwrap()
    }
    fn since_boot(&self) -> Duration {
        self.start.elapsed()
    }
}

/// As far as a process's clock may be wrong: what measuring it over the wire leaves.
pub(crate) const PRECISION: Duration = Duration::from_millis(20);

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

    pub(crate) fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::Relaxed)
    }

    pub(crate) fn kill(&self) {
        self.is_dead.store(true, Ordering::Relaxed);
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
