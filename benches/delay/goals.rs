//! The promises that the figures are held against.

use crate::common::goal::Goal;
use crate::common::lateness::median;
use crate::paced::Paced;
use crate::pending::Pending;
use crate::report::Results;

const ABOVE_P50_MAX_MS: f64 = 3.0;
const ABOVE_P99_MAX_MS: f64 = 10.0;
const BROKER_CPU_MAX_MS: f64 = 1.5;
const BROKER_CPU_RATE: f64 = 500.0;
const BURST_MAX_MS: f64 = 150.0;
const CAUGHT_UP_MAX_MS: f64 = 1_000.0;
const MEMORY_MAX_MIB: f64 = 16.0;
/// "No later than without" compares the medians of rounds that take turns, and such medians differ
/// by themselves. Of ten measured rounds (p50 from 1.0 to 1.6 ms, p99 from 2.6 to 16), drawn again
/// by chance, two medians of five differ by up to 0.2 and 2.1 ms in 95 of 100 cases: less than
/// this tells nothing of the tier. At the median there is room for a busier machine.
const BESIDE_P50_MORE_MS: f64 = 1.0;
const BESIDE_P99_MORE_MS: f64 = 2.0;
/// On a slower machine the noise grows with the figure.
const BESIDE_P99_MORE_SHARE: f64 = 0.25;

/// Every goal whose figures were measured.
pub(crate) fn judge(results: &Results) -> Vec<Goal> {
    let mut goals = Vec::new();
    for rate in results.rates() {
        let runs: Vec<&Paced> = results.paced.iter().filter(|run| (run.rate - rate).abs() < 0.5).collect();
        let middle = |read: fn(&Paced) -> f64| median(runs.iter().map(|run| read(run)).collect()).unwrap_or(f64::NAN);
        let (p50, p99) = (middle(|run| run.above_p50_ms), middle(|run| run.above_p99_ms));
        goals.push(Goal::at_most(format!("p50 above a plain trip, {rate}/s"), p50, ABOVE_P50_MAX_MS, "ms"));
        goals.push(Goal::at_most(format!("p99 above a plain trip, {rate}/s"), p99, ABOVE_P99_MAX_MS, "ms"));
        if (rate - BROKER_CPU_RATE).abs() < 0.5 {
            let cost = middle(|run| run.broker_cpu_ms);
            goals.push(Goal::at_most(format!("broker CPU per item, {rate}/s"), cost, BROKER_CPU_MAX_MS, "ms"));
        }
    }
    // Promised of all of them, so the worst burst counts.
    if let Some(last) = worst(results.bursts.iter().map(|burst| burst.last_ms)) {
        let name = "all that was due at one instant is at its target after, worst";
        goals.push(Goal::at_most(name, last, BURST_MAX_MS, "ms"));
    }
    if let Some(worst) = worst(results.faults.iter().filter_map(|run| run.caught_up_ms)) {
        let name = "killed and back: from readiness to the last overdue one, worst";
        goals.push(Goal::at_most(name, worst, CAUGHT_UP_MAX_MS, "ms"));
    }
    if let Some(pending) = &results.pending {
        let more = pending.rss_full_mib - pending.rss_empty_mib;
        goals.push(Goal::at_most("memory for what waits in a tier", more, MEMORY_MAX_MIB, "MiB"));
        goals.extend(no_later(pending));
    }
    goals.push(Goal::never("records before their time, in any run", results.early()));
    goals.push(Goal::never("records lost, in any run", results.lost()));
    goals
}

fn no_later(pending: &Pending) -> [Goal; 2] {
    let p50_more = pending.p50_full_ms - pending.p50_empty_ms;
    let p99_more = pending.p99_full_ms - pending.p99_empty_ms;
    let p99_more_max = BESIDE_P99_MORE_MS.max(pending.p99_empty_ms * BESIDE_P99_MORE_SHARE);
    [
        Goal::at_most("p50 beside a full tier, above that of an empty one", p50_more, BESIDE_P50_MORE_MS, "ms"),
        Goal::at_most("p99 beside a full tier, above that of an empty one", p99_more, p99_more_max, "ms"),
    ]
}

/// The greatest, and one that is no number before all others: a burst of which nothing came.
fn worst(found: impl Iterator<Item = f64>) -> Option<f64> {
    found.max_by(f64::total_cmp)
}
