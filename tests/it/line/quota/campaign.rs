//! The quota at rates from 1 to 5,000 permits a second, for `scripts/campaign quota`: minutes of
//! load in a release build, with nothing else on the machine.
//!
//! A run is one unbroken time, cut into phases: three processes at rest, a fourth joins, four at
//! rest, it leaves, three at rest, one is killed and started again, three at rest. A phase at rest
//! is three stretches, one right after the other.
//!
//! Asserted is, by the simulator's own record of arrivals:
//! - over the whole run, changes included, no window holds more than rate × (window + 0.25 s) + burst;
//! - in each phase at rest the *median* stretch used 98 % of the quota or more. One stretch in three
//!   may be worse, as when a neighbour takes the machine; a loss that comes back in every stretch
//!   or every other one may not hide;
//! - there was work all the time.
//!
//! Printed and not asserted are each stretch, the worst of them, the phases in which the fleet
//! changed, and the whole run from end to end.
//!
//! What others left over may be used later, up to the burst: at a burst of a tenth of a second,
//! that is 1 % of a stretch of 10 s at most, once.

use std::time::Duration;

use recharged::domain::State;
use recharged::providers::simulator::max_over_window;

use super::{ENOUGH, Fleet, Stretch, now_us};

const STRETCHES: usize = 3;
/// A change counts until this long after its process was ready or gone.
const AFTERMATH: Duration = Duration::from_secs(5);

/// A run under way: its phases so far, in microseconds since boot.
struct Run {
    fleet: Fleet,
    length: Duration,
    quiet: Vec<Vec<Stretch>>,
    changes: Vec<Stretch>,
}

impl Run {
    async fn quiet(&mut self, what: &'static str) {
        let mut phase = Vec::new();
        let mut from_us = now_us();
        for _ in 0..STRETCHES {
            tokio::time::sleep(self.length).await;
            let to_us = now_us();
            phase.push(Stretch { what, from_us, to_us });
            from_us = to_us;
        }
        self.quiet.push(phase);
    }

    /// Ends a change that began at `from_us`.
    async fn changed(&mut self, what: &'static str, from_us: u64) {
        tokio::time::sleep(AFTERMATH).await;
        self.changes.push(Stretch { what, from_us, to_us: now_us() });
    }
}

/// How much of the quota was used, of 1: from the first arrival in the stretch to the first behind
/// it. So that, at one a second, it does not matter where between two arrivals the stretch begins.
fn used(arrivals: &[u64], rate: f64, stretch: &Stretch) -> f64 {
    let first = arrivals.partition_point(|at| *at < stretch.from_us);
    let behind = arrivals.partition_point(|at| *at < stretch.to_us);
    assert!(behind < arrivals.len(), "{}: nothing came any more", stretch.what);
    (behind - first) as f64 / (rate * (arrivals[behind] - arrivals[first]) as f64 / 1e6)
}

/// By how much any window holds more than rate × window.
fn most_above(arrivals: &[u64], rate: f64) -> f64 {
    let (mut least, mut most) = (f64::INFINITY, 0.0_f64);
    for (index, at) in arrivals.iter().enumerate() {
        let level = index as f64 - rate * (at - arrivals[0]) as f64 / 1e6;
        least = least.min(level);
        most = most.max(level - least + 1.0);
    }
    most
}

async fn prove(rate: f64, burst: u32, orders: u64, length: Duration) {
    prove_of(Fleet::of_three(rate, burst, orders).await, length).await;
}

async fn prove_of(fleet: Fleet, length: Duration) {
    let rate = fleet.rate;
    fleet.line.until_under_way(rate as u64).await;
    let mut run = Run { fleet, length, quiet: Vec::new(), changes: Vec::new() };
    let began_us = now_us();
    run.quiet("three processes").await;

    let from_us = now_us();
    let mut fourth = run.fleet.line.start("four", &[]).await;
    run.changed("a fourth joins", from_us).await;
    run.quiet("four processes").await;

    let from_us = now_us();
    fourth.end_well(Duration::from_secs(12)).await;
    run.changed("it leaves", from_us).await;
    run.quiet("three again").await;

    // What the one to be killed has counted goes with it.
    run.fleet.tell_permits().await;
    let from_us = now_us();
    run.fleet.running[0].kill();
    run.fleet.running[0] = run.fleet.line.start("one again", &[]).await;
    run.changed("one is killed and comes back", from_us).await;
    run.quiet("three after the kill").await;

    let whole = Stretch { what: "the whole, changes included", from_us: began_us, to_us: now_us() };
    let queued = run.fleet.line.counts().await.get(&State::Queued).copied().unwrap_or(0);
    run.judge(&whole, queued).await;
}

impl Run {
    async fn judge(&self, whole: &Stretch, queued: u64) {
        let (rate, burst) = (self.fleet.rate, self.fleet.burst);
        // So that an arrival lies behind the last stretch.
        tokio::time::sleep(Duration::from_secs_f64((2.5 / rate).max(0.5))).await;
        let arrivals = self.fleet.line.simulator.arrivals_us();
        assert!(arrivals.len() < 1_000_000, "the simulator remembers no more than the last million");
        self.fleet.tell_permits().await;

        println!("quota {rate}/s, burst {burst}: percent used");
        let mut medians = Vec::new();
        for phase in &self.quiet {
            let each: Vec<f64> = phase.iter().map(|stretch| used(&arrivals, rate, stretch)).collect();
            let mut sorted = each.clone();
            sorted.sort_by(f64::total_cmp);
            let median = sorted[sorted.len() / 2];
            let shown: Vec<String> = each.iter().map(|used| format!("{:.2}", 100.0 * used)).collect();
            println!("  {}: {} (median {:.2})", phase[0].what, shown.join(", "), 100.0 * median);
            medians.push(median);
        }
        for stretch in self.changes.iter().chain([whole]) {
            println!("  {}: {:.2} in {:.1} s", stretch.what, 100.0 * used(&arrivals, rate, stretch), stretch.seconds());
        }
        println!(
            "  worst window: {:.1} above rate x window, allowed are {:.1}; most in a second {}, allowed are {:.1}",
            most_above(&arrivals, rate),
            rate * 0.25 + f64::from(burst),
            max_over_window(&arrivals, Duration::from_secs(1)),
            rate * 1.25 + f64::from(burst),
        );
        self.fleet.within_quota();
        assert!(queued as f64 > 3.0 * rate, "only {queued} orders are left: more are needed");
        assert!(medians.iter().all(|median| *median >= ENOUGH), "of {rate}/s, by phase: {medians:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes of load, and meant for a release build: scripts/campaign quota"]
async fn one_a_second_is_used_and_never_exceeded() {
    prove(1.0, 1, 400, Duration::from_secs(15)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes of load, and meant for a release build: scripts/campaign quota"]
async fn two_hundred_a_second_are_used_and_never_exceeded() {
    prove(200.0, 20, 40_000, Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes of load, and meant for a release build: scripts/campaign quota"]
async fn a_thousand_a_second_are_used_and_never_exceeded() {
    prove(1_000.0, 100, 190_000, Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes of load, and meant for a release build: scripts/campaign quota"]
async fn two_thousand_a_second_are_used_and_never_exceeded() {
    prove(2_000.0, 200, 400_000, Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes of load, and meant for a release build: scripts/campaign quota"]
async fn five_thousand_a_second_are_used_and_never_exceeded() {
    prove(5_000.0, 500, 500_000, Duration::from_secs(4)).await;
}

/// Where only one of the processes has work, all of the quota is its.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes of load, and meant for a release build: scripts/campaign quota"]
async fn with_all_of_the_backlog_in_one_partition_a_thousand_a_second_are_used_and_never_exceeded() {
    prove_of(Fleet::of_three_at(1, 1_000.0, 100, 190_000).await, Duration::from_secs(10)).await;
}
