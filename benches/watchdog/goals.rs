//! The promises that the figures are held against.

use crate::common::goal::Goal;
use crate::report::Results;

const P999_MAX_MS: f64 = 250.0;
/// A look in the full store, of the same look with a tenth in it: more would be growth.
const GROWTH_MAX: f64 = 1.5;
/// So much of a look is the machine's noise: a look of 0.14 ms may take 0.31 ms in the full store, not 1 ms.
const NOISE_MS: f64 = 0.1;
const COST_MAX_PERCENT: f64 = 8.0;

/// Every goal whose figures were measured.
pub(crate) fn judge(results: &Results) -> Vec<Goal> {
    let mut goals = Vec::new();
    if let Some(verdicts) = &results.verdicts {
        let name = format!("p99.9 of a verdict, {} closed and {} open", verdicts.closed, verdicts.open);
        goals.push(Goal::at_most(name, verdicts.seen.p999, P999_MAX_MS, "ms"));
        goals.push(Goal::never("verdicts before the deadline", verdicts.early));
        goals.push(Goal::never("orders without a verdict", verdicts.missing as u64));
    }
    if let [few, .., many] = results.quiet.as_slice() {
        for (a, b) in few.looks.iter().zip(&many.looks) {
            let of = |what: &str| format!("{}: {what}, full to a tenth", a.what);
            goals.push(Goal::at_most(of("buffers"), b.buffers / a.buffers.max(1.0), GROWTH_MAX, "times"));
            let growth = (b.millis - NOISE_MS).max(0.0) / a.millis.max(f64::EPSILON);
            goals.push(Goal::at_most(of("time"), growth, GROWTH_MAX, "times"));
        }
    }
    if let Some(presence) = &results.presence {
        let name = "orders/s that its presence costs the line";
        goals.push(Goal::at_most(name, presence.cost_percent, COST_MAX_PERCENT, "%"));
    }
    goals
}
