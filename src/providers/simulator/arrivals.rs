//! When requests arrived, by the receiver's clock: what a rate limit is judged by.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ports::Clock;

/// How many arrivals are kept in memory; the oldest go first.
const KEPT_MAX: usize = 1 << 20;

/// What a request wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestKind {
    /// A recharge.
    Submit,
    /// An inquiry.
    Query,
}

/// One line of the request log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// Microseconds since the machine was started: also right across restarts of the simulator.
    pub at_us: u64,
    /// The caller's reference.
    pub client_ref: String,
    /// What it wanted.
    pub kind: RequestKind,
}

/// Records arrivals, in memory and, where asked for, in a file.
#[derive(Debug)]
pub(super) struct Arrivals {
    clock: Arc<dyn Clock>,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    times: VecDeque<(u64, RequestKind)>,
    file: Option<File>,
}

impl Arrivals {
    pub(super) fn open(path: Option<&Path>, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let file = match path {
            Some(path) => Some(OpenOptions::new().create(true).append(true).open(path)?),
            None => None,
        };
        Ok(Self { clock, kept: Mutex::new(Kept { times: VecDeque::new(), file }) })
    }

    pub(super) fn record(&self, client_ref: &str, kind: RequestKind) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock, so that times rise.
        let at_us = u64::try_from(self.clock.since_boot().as_micros()).unwrap_or(u64::MAX);
        if kept.times.len() == KEPT_MAX {
            kept.times.pop_front();
        }
        kept.times.push_back((at_us, kind));
        if let Some(file) = &mut kept.file {
            // One write a line and no buffer: nothing is lost when the process is killed.
            let arrival = Arrival { at_us, client_ref: client_ref.to_owned(), kind };
            let line = serde_json::to_vec(&arrival).map_err(io::Error::from).and_then(|mut line| {
                line.push(b'\n');
                file.write_all(&line)
            });
            if let Err(error) = line {
                tracing::error!(%error, "the request log cannot be written; it ends here");
                kept.file = None;
            }
        }
    }

    /// Rising, in microseconds since the machine was started.
    pub(super) fn times(&self) -> Vec<(u64, RequestKind)> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).times.iter().copied().collect()
    }
}

/// Reads a request log; a torn last line is left out.
pub fn read_arrivals(path: &Path) -> io::Result<Vec<Arrival>> {
    let mut arrivals = Vec::new();
    let mut input = BufReader::new(File::open(path)?);
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
        arrivals.push(serde_json::from_slice(&line)?);
        line.clear();
    }
    Ok(arrivals)
}

/// The greatest number of arrivals (rising, in microseconds) in any window of this length.
pub fn max_over_window(arrivals_us: &[u64], window: Duration) -> usize {
    let window = u64::try_from(window.as_micros()).unwrap_or(u64::MAX);
    let mut first = arrivals_us.iter().enumerate().peekable();
    let mut most = 0;
    for (last, at) in arrivals_us.iter().enumerate() {
        while first.next_if(|(_, from)| at.saturating_sub(**from) > window).is_some() {}
        let begin = first.peek().map_or(last, |(index, _)| *index);
        most = most.max(last + 1 - begin);
    }
    most
}

/// A window in which more arrived than was allowed.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{count} requests within {window:?} from {from_us} us, allowed are {allowed:.1}")]
pub struct QuotaExceeded {
    /// Where the window begins, in the arrivals' microseconds.
    pub from_us: u64,
    /// How long it is.
    pub window: Duration,
    /// How many arrived.
    pub count: u64,
    /// How many were allowed.
    pub allowed: f64,
}

/// The slack that every window has, in seconds: what lies between sending and receiving.
const WINDOW_SLACK_SECONDS: f64 = 0.25;

/// Checks that in *every* window w at most `rate × (w + 0.25 s) + burst` requests arrived, and
/// shows the worst window where not. `arrivals_us` rises. One pass: the arrivals i to j keep the
/// rule if (j − rate·t(j)) − (i − rate·t(i)) + 1 does, so the least of the second term suffices.
#[expect(clippy::cast_precision_loss, reason = "counts and times of a test run are far below 2^52")]
pub fn check_quota(arrivals_us: &[u64], permits_per_second: f64, burst: u32) -> Result<(), QuotaExceeded> {
    let origin = arrivals_us.first().copied().unwrap_or(0);
    let allowance = permits_per_second * WINDOW_SLACK_SECONDS + f64::from(burst);
    let mut least: Option<(f64, usize, u64)> = None;
    let mut worst: Option<(f64, QuotaExceeded)> = None;
    for (index, at) in arrivals_us.iter().copied().enumerate() {
        let level = index as f64 - permits_per_second * (at.saturating_sub(origin)) as f64 / 1e6;
        let (low, from, from_us) = match least {
            // Of windows that are equally bad the shortest is shown.
            Some(known) if known.0 < level - 1e-6 => known,
            Some(_) | None => {
                least = Some((level, index, at));
                (level, index, at)
            }
        };
        let excess = level - low + 1.0 - allowance;
        // Rounding at the size of these numbers stays far below a thousandth of a request.
        if excess > 1e-3 && worst.is_none_or(|(known, _)| excess > known) {
            let window = Duration::from_micros(at - from_us);
            let allowed = permits_per_second * window.as_secs_f64() + allowance;
            let count = (index - from + 1) as u64;
            worst = Some((excess, QuotaExceeded { from_us, window, count, allowed }));
        }
    }
    worst.map_or(Ok(()), |(_, exceeded)| Err(exceeded))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steady(per_second: u64, count: u64) -> Vec<u64> {
        (0..count).map(|n| 5_000_000 + n * 1_000_000 / per_second).collect()
    }

    #[test]
    fn the_fullest_window_is_found() {
        assert_eq!(max_over_window(&[], Duration::from_secs(1)), 0);
        assert_eq!(max_over_window(&[7], Duration::ZERO), 1);
        assert_eq!(max_over_window(&steady(10, 100), Duration::from_millis(999)), 10);
        assert_eq!(max_over_window(&[0, 100, 150, 160, 900], Duration::from_micros(60)), 3);
    }

    #[test]
    fn a_steady_stream_with_its_burst_keeps_the_quota() {
        let mut arrivals = vec![5_000_000; 20];
        arrivals.extend(steady(50, 500));
        check_quota(&arrivals, 50.0, 20).unwrap();
        check_quota(&[], 50.0, 1).unwrap();
    }

    #[test]
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    fn a_planted_violation_is_found_where_it_is() {
        // 50/s with burst 5: a window may hold 12.5 + 5 at once; 40 within 100 ms may not.
        let mut arrivals = steady(50, 500);
        arrivals.extend((0..40).map(|n| 9_000_000 + n * 2_500));
        arrivals.sort_unstable();
        let exceeded = check_quota(&arrivals, 50.0, 5).unwrap_err();
        assert_eq!((exceeded.from_us, exceeded.window), (9_000_000, Duration::from_millis(100)));
        assert!(exceeded.count as f64 > exceeded.allowed, "{exceeded}");
    }

    #[test]
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    fn the_quick_check_agrees_with_looking_at_every_window() {
        for round in 0..300 {
            let mut dice = super::super::dice::Dice::new(11, "quota", "test", round);
            let mut at = 0;
            let arrivals: Vec<u64> = (0..60)
                .map(|_| {
                    at += dice.next() % 60_000;
                    at
                })
                .collect();
            let (rate, burst) = (30.0, 1 + round % 9);
            let by_hand = (0..60).any(|i| {
                (i..60).any(|j| {
                    let window = (arrivals[j] - arrivals[i]) as f64 / 1e6;
                    (j - i + 1) as f64 > rate * (window + 0.25) + f64::from(burst) + 1e-3
                })
            });
            assert_eq!(check_quota(&arrivals, rate, burst).is_err(), by_hand, "round {round}");
        }
    }
}
