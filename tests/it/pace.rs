//! Times that are promised: held to the letter on a quiet machine, where `scripts/campaign times`
//! looks; beside other work a machine of few cores holds anything up, and only what no load
//! explains fails.

use std::time::Duration;

/// Set where nothing else runs.
const QUIET: &str = "RECHARGED_QUIET_MACHINE";

/// Prints what was taken, and fails if it is more than was promised, or than is bearable beside
/// other work.
#[track_caller]
pub(crate) fn at_most(what: &str, taken: Duration, promised: Duration, bearable: Duration) {
    println!("{what} took {taken:?}; {promised:?} are promised");
    let limit = if is_quiet() { promised } else { bearable };
    assert!(taken < limit, "{what} took {taken:?}, {limit:?} at most");
}

/// The same for a count that must at least be reached.
#[track_caller]
pub(crate) fn at_least(what: &str, reached: usize, promised: f64, bearable: f64) {
    println!("{what}: {reached}; {promised} are promised");
    let limit = if is_quiet() { promised } else { bearable };
    assert!(reached as f64 >= limit, "{what}: {reached}, at least {limit}");
}

/// Whether this run has the machine for itself.
pub(crate) fn is_quiet() -> bool {
    std::env::var_os(QUIET).is_some()
}
