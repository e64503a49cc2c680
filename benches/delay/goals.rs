//! The promises that the figures are held against.

use crate::common::goal::Goal;
use crate::common::lateness::median;
use crate::paced::Paced;
use crate::report::Results;

const ABOVE_P50_MAX_MS: f64 = 3.0;
const ABOVE_P99_MAX_MS: f64 = 10.0;
const BROKER_CPU_MAX_MS: f64 = 1.5;
const BROKER_CPU_RATE: f64 = 500.0;
const BURST_MAX_MS: f64 = 150.0;
const CAUGHT_UP_MAX_MS: f64 = 1_000.0;
const MEMORY_MAX_MIB: f64 = 16.0;

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
    if let Some(last) = median(results.bursts.iter().map(|burst| burst.last_ms).collect()) {
        goals.push(Goal::at_most("all that was due at one instant is at its target after", last, BURST_MAX_MS, "ms"));
    }
    let caught_up = results
        .faults
        .iter()
        .filter_map(|run| run.caught_up_ms)
        .fold(None, |worst: Option<f64>, found| Some(worst.map_or(found, |worst| worst.max(found))));
    if let Some(worst) = caught_up {
        let name = "killed and back: from readiness to the last overdue one, worst";
        goals.push(Goal::at_most(name, worst, CAUGHT_UP_MAX_MS, "ms"));
    }
    if let Some(pending) = &results.pending {
        let more = pending.rss_full_mib - pending.rss_empty_mib;
        goals.push(Goal::at_most("memory for what waits in a tier", more, MEMORY_MAX_MIB, "MiB"));
        // "No later": than the worst round without, which is what the machine does anyway.
        let (found, limit) = (pending.p99_full_ms, pending.worst_p99_empty_ms);
        goals.push(Goal::at_most("p99 beside a full tier (the worst without)", found, limit, "ms"));
        let (found, limit) = (pending.p50_full_ms, pending.worst_p50_empty_ms);
        goals.push(Goal::at_most("p50 beside a full tier (the worst without)", found, limit, "ms"));
    }
    goals.push(Goal::never("records before their time, in any run", results.early()));
    goals.push(Goal::never("records lost, in any run", results.lost()));
    goals
}
