//! When a request can have arrived. The simulator is a part of the test's process and notes a
//! request when it gets to it; where the machine holds that process up, requests queue meanwhile
//! and are noted together, though each came in its time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::now_us;

const TICK: Duration = Duration::from_millis(10);
/// Two ticks as far apart as this had no stall between them.
const CALM_US: u64 = 50_000;
/// What lies between sending and receiving, in every window: as `check_quota` has it.
const SLACK_SECONDS: f64 = 0.25;

/// Looks at the clock all the time, on the runtime of the simulator: what holds that up holds this
/// up, too.
pub(super) struct Ticker {
    ticks_us: Arc<Mutex<Vec<u64>>>,
    ticking: JoinHandle<()>,
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.ticking.abort();
    }
}

impl Ticker {
    pub(super) fn start() -> Self {
        let ticks_us = Arc::new(Mutex::new(vec![now_us()]));
        let ticking = tokio::spawn({
            let ticks_us = Arc::clone(&ticks_us);
            async move {
                loop {
                    tokio::time::sleep(TICK).await;
                    ticks_us.lock().unwrap().push(now_us());
                }
            }
        });
        Self { ticks_us, ticking }
    }

    /// For each arrival the earliest moment at which it can have arrived.
    pub(super) fn earliest(&self, arrivals_us: &[u64]) -> Vec<u64> {
        earliest(&self.ticks_us.lock().unwrap(), arrivals_us)
    }
}

fn earliest(ticks_us: &[u64], arrivals_us: &[u64]) -> Vec<u64> {
    let of = |at: &u64| {
        let behind = ticks_us.partition_point(|tick| tick <= at);
        // What waited during a stall is noted beside the first ticks after it.
        let stalls = (behind.saturating_sub(3)..=behind).filter_map(|next| {
            let before = *ticks_us.get(next.checked_sub(1)?)?;
            let after = ticks_us.get(next).copied().unwrap_or(*at);
            (after.saturating_sub(before) > CALM_US).then_some(before)
        });
        stalls.min().unwrap_or(*at).min(*at)
    };
    arrivals_us.iter().map(of).collect()
}

/// By how many requests any window holds more than rate × (window + slack) + burst, wherever each
/// request arrived between its earliest moment and the one at which it was noted. Above nothing,
/// the quota was exceeded: no stall of this process explains it.
pub(super) fn surely_above(earliest_us: &[u64], noted_us: &[u64], rate: f64, burst: u32) -> f64 {
    let origin = earliest_us.first().copied().unwrap_or(0);
    let level = |index: usize, at: u64| index as f64 - rate * (at - origin) as f64 / 1e6;
    let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
    for (index, (earliest, noted)) in earliest_us.iter().zip(noted_us).enumerate() {
        least = least.min(level(index, *earliest));
        most = most.max(level(index, *noted) - least + 1.0);
    }
    most - rate * SLACK_SECONDS - f64::from(burst)
}

/// 200 a second with a burst of 20: 70 may come at once.
fn above(ticks_us: &[u64], noted_us: &[u64]) -> f64 {
    surely_above(&earliest(ticks_us, noted_us), noted_us, 200.0, 20)
}

/// A tick each 10 ms, but for some time.
fn ticks_without(stall: std::ops::Range<u64>) -> Vec<u64> {
    (0..=500).map(|n| n * 10_000).filter(|tick| !stall.contains(tick)).collect()
}

#[test]
fn requests_that_a_stall_has_gathered_are_no_violation() {
    // One each 5 ms, and those of half a second at its end.
    let noted: Vec<u64> = (1..900)
        .map(|n| n * 5_000)
        .map(|at| if (2_000_001..2_500_000).contains(&at) { 2_503_000 } else { at })
        .collect();
    assert!(above(&ticks_without(1..1), &noted) > 0.0, "without a stall it is one");
    assert!(above(&ticks_without(2_000_001..2_500_000), &noted) <= 0.0);
}

#[test]
fn too_many_requests_are_a_violation_beside_a_stall_and_in_it() {
    let stall = 2_000_001..2_500_000;
    let steady = (1..900).map(|n| n * 5_000);
    // 80 more at once, a second after the stall.
    let mut beside: Vec<u64> = steady.clone().chain([3_500_000; 80]).collect();
    beside.sort_unstable();
    assert!(above(&ticks_without(stall.clone()), &beside) > 0.0);
    // Within the stall three times what may come in that time.
    let gathered = steady.filter(|at| !stall.contains(at)).chain([2_503_000; 300]);
    let mut within: Vec<u64> = gathered.collect();
    within.sort_unstable();
    assert!(above(&ticks_without(stall), &within) > 0.0);
}

#[test]
fn without_a_stall_it_says_what_the_simulators_own_check_says() {
    use recharged::providers::simulator::check_quota;
    for more in [0, 40, 49, 50, 51, 60, 100] {
        let mut noted: Vec<u64> = (1..900).map(|n| n * 5_000).chain(vec![2_500_000; more]).collect();
        noted.sort_unstable();
        let checked = check_quota(&noted, 200.0, 20);
        assert_eq!(above(&ticks_without(1..1), &noted) > 1e-3, checked.is_err(), "{more}: {checked:?}");
    }
}
