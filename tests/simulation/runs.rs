//! Seeds: each is one life, run to its end; a broken law prints the command that repeats it.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::laws::Law;
use crate::oracle::Report;
use crate::recorder::Counting;
use crate::weather::Weather;
use crate::world::World;

/// Lives one life, alone on this thread. One that panics says how to see it again.
pub(crate) fn live(seed: u64, weather: Weather) -> Report {
    let lived = std::panic::catch_unwind(AssertUnwindSafe(|| live_on(seed, weather)));
    lived.unwrap_or_else(|panic| {
        eprintln!("seed {seed} panics\n{}", again(seed));
        std::panic::resume_unwind(panic)
    })
}

fn live_on(seed: u64, weather: Weather) -> Report {
    let counted = Arc::new(AtomicU64::new(0));
    let recorder = Counting::new(Arc::clone(&counted));
    metrics::with_local_recorder(&recorder, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let mut report = runtime.block_on(async { World::new(seed, weather).run().await });
        report.counted(counted.load(Ordering::Relaxed));
        report
    })
}

impl Report {
    /// Panics where a law is broken, and says how to see it again.
    pub(crate) fn check(&self, seed: u64) {
        assert!(
            self.violations.is_empty(),
            "seed {seed} breaks {:#?}\n{}\n{:?}",
            self.violations,
            again(seed),
            self.weather
        );
    }

    pub(crate) fn breaks(&self, laws: &[Law]) -> bool {
        self.violations.iter().any(|violation| laws.contains(&violation.law))
    }
}

/// The command that lives this life again: the test, by whose name its thread goes, and the seed.
pub(crate) fn again(seed: u64) -> String {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("in_any_weather");
    format!(
        "again: SIM_FIRST_SEED={seed} SIM_SEEDS=1 scripts/optimised simulation {test}    (and SIM_TRACE=o-12: one order's life)"
    )
}

fn read(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Whether a run looks at one life, or a few: then nothing is said of all lives together.
pub(crate) fn is_aimed() -> bool {
    read("SIM_SEEDS").or(read("SIM_FIRST_SEED")).is_some()
}

/// The seeds of a test; `SIM_SEEDS` and `SIM_FIRST_SEED` widen or aim it.
pub(crate) fn seeds(default: u64) -> std::ops::Range<u64> {
    let first = read("SIM_FIRST_SEED").unwrap_or(1);
    first..first + read("SIM_SEEDS").unwrap_or(default)
}

/// Does something with each seed, on every processor; in no order. A seed that fails does not end the others:
/// the first of them tell more together than one alone.
pub(crate) fn in_parallel(seeds: std::ops::Range<u64>, each: impl Fn(u64) + Sync) {
    const FAILURES_MAX: usize = 20;
    let next = AtomicU64::new(seeds.start);
    let failed: Mutex<Vec<u64>> = Mutex::default();
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    // Each goes by the name of the test, which is what a life is lived again by.
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let worker = std::thread::Builder::new().name(test.clone());
            let work = || {
                while failed.lock().unwrap().len() < FAILURES_MAX {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    // The panic itself was printed where it arose.
                    if std::panic::catch_unwind(AssertUnwindSafe(|| each(seed))).is_err() {
                        failed.lock().unwrap().push(seed);
                    }
                }
            };
            worker.spawn_scoped(scope, work).unwrap();
        }
    });
    let mut failed = failed.into_inner().unwrap();
    failed.sort_unstable();
    assert!(failed.is_empty(), "these failed: {failed:?}");
}
