//! What goes wrong in a run: how often each kind of fault may strike, and when machines die, stop or
//! are cut off. All of it follows from the seed.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::life::{JUMP, PRECISION};

/// Every kind of fault. Each is counted where it strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub(crate) enum Fault {
    Crash,
    CrashAtAnOperation,
    Stall,
    StallAtAnOperation,
    CutOffFromTheStore,
    NobodyDispatches,
    Rebalance,
    Eviction,
    StaleCommit,
    SlowPartition,
    CommandLost,
    RecordTwice,
    PublishFailed,
    PublishedUnacknowledged,
    BrokerAway,
    StoreFailedBefore,
    StoreFailedAfter,
    StoreSlow,
    CommitSlow,
    StoreAway,
    CommitAfterDeath,
    CommitBehindDeadline,
    ClockStep,
    ClockJump,
    OrderTwice,
    OrderLate,
    OrderContradicted,
    OrderUnpaid,
    OrderPaidLater,
    OrderCancelled,
    EventBeforeItsOrder,
    EventOfNobody,
    RefundUnasked,
    RefundUnconfirmed,
    RefundConfirmedLate,
    RefundConfirmedTwice,
    RefundMadeTwice,
    ConnectionRefused,
    NotSent,
    Throttled,
    Declined,
    LostBeforeExecution,
    LostAfterExecution,
    LateBytes,
    AcceptedFirst,
    AcceptedThenFailed,
    QueryUnavailable,
    ProviderUnknown,
    ProviderSilent,
}

impl Fault {
    pub(crate) const ALL: [Self; 49] = [
        Self::Crash,
        Self::CrashAtAnOperation,
        Self::Stall,
        Self::StallAtAnOperation,
        Self::CutOffFromTheStore,
        Self::NobodyDispatches,
        Self::Rebalance,
        Self::Eviction,
        Self::StaleCommit,
        Self::SlowPartition,
        Self::CommandLost,
        Self::RecordTwice,
        Self::PublishFailed,
        Self::PublishedUnacknowledged,
        Self::BrokerAway,
        Self::StoreFailedBefore,
        Self::StoreFailedAfter,
        Self::StoreSlow,
        Self::CommitSlow,
        Self::StoreAway,
        Self::CommitAfterDeath,
        Self::CommitBehindDeadline,
        Self::ClockStep,
        Self::ClockJump,
        Self::OrderTwice,
        Self::OrderLate,
        Self::OrderContradicted,
        Self::OrderUnpaid,
        Self::OrderPaidLater,
        Self::OrderCancelled,
        Self::EventBeforeItsOrder,
        Self::EventOfNobody,
        Self::RefundUnasked,
        Self::RefundUnconfirmed,
        Self::RefundConfirmedLate,
        Self::RefundConfirmedTwice,
        Self::RefundMadeTwice,
        Self::ConnectionRefused,
        Self::NotSent,
        Self::Throttled,
        Self::Declined,
        Self::LostBeforeExecution,
        Self::LostAfterExecution,
        Self::LateBytes,
        Self::AcceptedFirst,
        Self::AcceptedThenFailed,
        Self::QueryUnavailable,
        Self::ProviderUnknown,
        Self::ProviderSilent,
    ];
}

/// How often each kind of fault has struck in a run; and whether they still may.
#[derive(Debug)]
pub(crate) struct Strikes {
    counts: [AtomicU64; Fault::ALL.len()],
    healed: AtomicBool,
    /// From when to when a process's watchdog was held up: by whatever struck it, or because it was not there.
    held_up: Mutex<Vec<(usize, Duration, Duration)>>,
}

impl Default for Strikes {
    fn default() -> Self {
        Self {
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            healed: AtomicBool::new(false),
            held_up: Mutex::default(),
        }
    }
}

impl Strikes {
    pub(crate) fn hit(&self, fault: Fault) {
        self.counts[fault as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn of(&self, fault: Fault) -> u64 {
        self.counts[fault as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn held_up(&self, slot: usize, from: Duration, to: Duration) {
        self.held_up.lock().unwrap().push((slot, from, to));
    }

    /// When the watchdog of a process was held up, in the order of its beginnings.
    pub(crate) fn hold_ups(&self, slot: usize) -> Vec<(Duration, Duration)> {
        let all = self.held_up.lock().unwrap();
        let mut mine: Vec<_> = all.iter().filter(|(of, ..)| *of == slot).map(|(_, from, to)| (*from, *to)).collect();
        mine.sort_unstable();
        mine
    }

    /// From now on nothing goes wrong any more.
    pub(crate) fn heal(&self) {
        self.healed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_healed(&self) -> bool {
        self.healed.load(Ordering::Relaxed)
    }
}

/// How often, of 1.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rates {
    /// Each operation of the store fails before it is done, and as often after.
    pub(crate) store: f64,
    /// An operation of the store takes seconds.
    pub(crate) store_slow: f64,
    /// A commit takes seconds.
    pub(crate) commit_slow: f64,
    /// The commit of an order that is stored just before its deadline ends just behind it.
    pub(crate) commit_behind: f64,
    /// A batch of records fails, half of the time although it was written.
    pub(crate) broker: f64,
    /// A command is lost after it was acknowledged; no order loses two.
    pub(crate) lost: f64,
    /// A record stands twice, the second one up to a minute later.
    pub(crate) twice: f64,
    /// Each of the ways in which a call can go wrong.
    pub(crate) provider: f64,
    /// A recharge is accepted first and completed later.
    pub(crate) accepted: f64,
    /// Orders of which the shop tells only when their deadline is about to pass.
    pub(crate) late: f64,
    /// Orders that the shop tells twice.
    pub(crate) repeats: f64,
    /// Of those, the ones that name another amount the second time.
    pub(crate) contradictions: f64,
    /// Orders that are not paid when they are created: later, or never.
    pub(crate) unpaid: f64,
    /// Orders that the shop cancels, paid or not.
    pub(crate) cancelled: f64,
    /// Orders of which it tells only after it has told of what became of them.
    pub(crate) early: f64,
    /// Of so many orders more it tells something, and never that they were created.
    pub(crate) orphans: f64,
    /// Each of the ways in which the payment side can do wrong.
    pub(crate) payments: f64,
}

/// What happens to machines.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Incident {
    /// `kill -9`, and back after a while, under its own name.
    Crash {
        slot: usize,
        away: Duration,
    },
    /// The same in the middle of the process's next operations.
    CrashAtAnOperation {
        slot: usize,
        in_operations: u64,
        away: Duration,
    },
    /// `SIGSTOP`, and `SIGCONT`.
    Stall {
        slot: usize,
        length: Duration,
    },
    /// The same in the middle of the process's next operations.
    StallAtAnOperation {
        slot: usize,
        in_operations: u64,
        length: Duration,
    },
    /// The store does not hear one process, nor that process the store.
    CutOffFromTheStore {
        slot: usize,
        length: Duration,
    },
    /// Partitions change hands though nobody is gone.
    Rebalance,
    /// Nobody hears of what is written to a partition.
    SlowPartition {
        partition: usize,
        length: Duration,
    },
    StoreAway {
        length: Duration,
    },
    BrokerAway {
        length: Duration,
    },
    /// The provider takes requests and answers none.
    ProviderSilent {
        length: Duration,
    },
    /// What a process believes the time to be moves, within the precision of its measurements.
    ClockStep {
        slot: usize,
    },
    /// The database's clock was set by a second, forth or back: a process is wrong by that until it measures it.
    ClockJump {
        slot: usize,
        forth: bool,
    },
}

/// Processes of one life at most.
pub(crate) const PROCESSES_MAX: usize = 3;

/// Of the quota, where nothing else is said.
const BURST: u32 = 10;

/// How much a process takes at once, and holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) intake_batch: usize,
    pub(crate) batch: usize,
    pub(crate) in_flight: usize,
    pub(crate) heap: usize,
    pub(crate) page: usize,
}

impl Sizes {
    /// So little that a hundred orders fill everything.
    pub(crate) const SMALL: Self = Self { intake_batch: 50, batch: 20, in_flight: 60, heap: 40, page: 40 };
    /// As in production.
    pub(crate) const LARGE: Self = Self { intake_batch: 500, batch: 500, in_flight: 2_000, heap: 4_000, page: 2_000 };
}

/// A run.
#[derive(Debug, Clone)]
pub(crate) struct Weather {
    pub(crate) orders: u32,
    pub(crate) processes: usize,
    pub(crate) permits_per_second: f64,
    pub(crate) burst: u32,
    pub(crate) sizes: Sizes,
    pub(crate) sla: Duration,
    /// Between two orders on the average.
    pub(crate) gap: Duration,
    pub(crate) rates: Rates,
    pub(crate) incidents: Vec<(Duration, Incident)>,
    /// Whether anybody dispatches.
    pub(crate) dispatches: bool,
    /// Whether all orders are for one number, whose commands share a partition.
    pub(crate) one_number: bool,
    /// Whoever inserts is cut off from the store for so long at the beginning.
    pub(crate) cut_off: Option<Duration>,
}

/// All incidents begin before this moment and end within [`LONGEST`].
const INCIDENTS_UNTIL: Duration = Duration::from_secs(70);
const LONGEST: Duration = Duration::from_secs(45);

impl Weather {
    /// Nothing goes wrong.
    pub(crate) fn calm() -> Self {
        Self {
            orders: 100,
            processes: 1,
            permits_per_second: 100.0,
            burst: BURST,
            sizes: Sizes::SMALL,
            sla: Duration::from_secs(60),
            gap: Duration::from_millis(20),
            rates: Rates { repeats: 0.1, contradictions: 0.5, ..Rates::default() },
            incidents: Vec::new(),
            dispatches: true,
            one_number: false,
            cut_off: None,
        }
    }

    /// Anything may go wrong; what does, and how badly, is a matter of the seed.
    pub(crate) fn of(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed ^ 0x57ea_7e12);
        let mut some = |worst: f64| if rng.random_bool(0.6) { rng.random_range(0.0..worst) } else { 0.0 };
        let rates = Rates {
            store: some(0.06),
            store_slow: some(0.004),
            commit_slow: some(0.05),
            commit_behind: some(0.6),
            broker: some(0.06),
            lost: some(0.1),
            twice: some(0.1),
            provider: some(0.12),
            accepted: some(0.6),
            late: some(0.2),
            repeats: 0.1,
            contradictions: 0.5,
            unpaid: some(0.4),
            cancelled: some(0.2),
            early: some(0.6),
            payments: some(0.3),
            // They are waited for, which makes a life three times as long.
            orphans: if rng.random_bool(0.1) { 0.03 } else { 0.0 },
        };
        let dispatches = rng.random_bool(0.85);
        let processes = rng.random_range(1..=PROCESSES_MAX);
        let incidents = (0..rng.random_range(0..9)).map(|_| incident(&mut rng, processes)).collect();
        Self {
            processes,
            permits_per_second: [10.0, 30.0, 100.0, 1_000.0][rng.random_range(0..4)],
            burst: BURST,
            sizes: Sizes::SMALL,
            sla: Duration::from_secs(if rng.random_bool(0.15) { 180 } else { 60 }),
            gap: Duration::from_millis([2, 20, 200][rng.random_range(0..3)]),
            rates,
            incidents,
            dispatches,
            ..Self::calm()
        }
    }

    /// As far as the clocks of processes may be wrong.
    pub(crate) fn precision(&self) -> Duration {
        let jumps = self.incidents.iter().any(|(_, incident)| matches!(incident, Incident::ClockJump { .. }));
        if jumps { JUMP + PRECISION } else { PRECISION }
    }

    /// When the last fault has ended.
    pub(crate) fn heals_at(&self) -> Duration {
        let last = self.incidents.iter().map(|(at, _)| *at + LONGEST).max();
        let sold = self.gap * self.orders * 2;
        (sold + Duration::from_secs(20)).max(last.unwrap_or_default())
    }
}

fn incident(rng: &mut SmallRng, processes: usize) -> (Duration, Incident) {
    let at = rng.random_range(Duration::ZERO..INCIDENTS_UNTIL);
    let at = if rng.random_bool(0.5) { at / 20 } else { at };
    let slot = rng.random_range(0..processes);
    let mut lasting = |least: u64, most: u64| Duration::from_millis(rng.random_range(least * 1_000..most * 1_000));
    let (short, long) = (lasting(0, 20), lasting(1, 40));
    let in_operations = rng.random_range(0..300);
    // As long as a permit is good, or a claim; or as long as others need to take over.
    let stop = if rng.random_bool(0.5) { long } else { short / 20 };
    let incident = match rng.random_range(0..16) {
        0 | 1 => Incident::Crash { slot, away: short },
        2..=4 => Incident::CrashAtAnOperation { slot, in_operations, away: short },
        5 => Incident::Stall { slot, length: long },
        6..=8 => Incident::StallAtAnOperation { slot, in_operations, length: stop },
        9 | 10 => Incident::CutOffFromTheStore { slot, length: short },
        11 => Incident::Rebalance,
        12 => Incident::SlowPartition { partition: rng.random_range(0..3), length: short },
        13 => Incident::StoreAway { length: short },
        14 => Incident::BrokerAway { length: short },
        _ if rng.random_bool(0.5) => Incident::ProviderSilent { length: long },
        _ if rng.random_bool(0.7) => Incident::ClockStep { slot },
        _ => Incident::ClockJump { slot, forth: rng.random_bool(0.5) },
    };
    (at, incident)
}
