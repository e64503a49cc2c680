//! Whole roles under simulated time: intake, dispatch and relay run over a store, a broker and a
//! provider that fail as the seed says. Time is tokio's paused clock, so minutes take
//! milliseconds, and a failing seed fails again.

#![allow(
    clippy::cast_precision_loss,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test"
)]

mod broker;
mod provider;
mod store;
mod world;

use world::{Faults, World};

/// How many seeds each test runs; `SIM_SEEDS` and `SIM_FIRST_SEED` widen or aim it.
fn seeds(default: u64) -> impl Iterator<Item = u64> {
    let read = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first = read("SIM_FIRST_SEED").unwrap_or(1);
    first..first + read("SIM_SEEDS").unwrap_or(default)
}

fn simulate(seed: u64, faults: Faults) -> world::Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    // Printed only when the test fails: the seed to run again.
    eprintln!("seed {seed}");
    runtime.block_on(async { World::new(seed, faults).run().await })
}

#[test]
fn without_faults_every_order_is_delivered_once_and_its_events_are_published_in_order() {
    let mut claims_overtaken = 0;
    for seed in seeds(20) {
        let report = simulate(seed, Faults::none());
        report.check();
        assert_eq!(report.succeeded, report.orders, "seed {seed}: {report:?}");
        claims_overtaken += report.claims_overtaken;
    }
    assert!(claims_overtaken > 0, "no claim met a row that had moved: its fence was not tried");
}

#[test]
fn with_declines_throttling_and_unknown_outcomes_no_order_is_recharged_twice_or_wrongly_failed() {
    for seed in seeds(60) {
        simulate(seed, Faults::provider()).check();
    }
}

#[test]
fn with_a_store_and_a_broker_that_fail_nothing_is_lost_or_doubled() {
    for seed in seeds(60) {
        simulate(seed, Faults::infrastructure()).check();
    }
}

#[test]
fn with_crashes_pauses_and_every_other_fault_nothing_is_lost_or_doubled() {
    for seed in seeds(120) {
        simulate(seed, Faults::everything()).check();
    }
}

#[test]
fn a_crash_costs_a_calls_time_out_and_not_the_deadline() {
    let mut adopted = Vec::new();
    for seed in seeds(30) {
        let report = simulate(seed, Faults { crashes: 3, ..Faults::none() });
        report.check();
        adopted.extend(report.adoptions());
    }
    assert!(adopted.len() > 30, "only {} sends lost their caller: nothing was tried", adopted.len());
    let longest = adopted.iter().max().unwrap();
    // Send window, call time-out and margin (18 s) from the last of three crashes on; the machine
    // stands still for up to 5 s at each.
    assert!(longest.num_seconds() <= 18 + 15 + 5, "a send that nobody waited for was asked about after {longest}");
}

#[test]
fn what_a_broker_has_lost_is_asked_for_again_before_the_deadline() {
    let mut lost = 0;
    for seed in seeds(10) {
        let report = simulate(seed, Faults { lost: 0.2, repeats: 0.0, ..Faults::none() });
        report.check();
        assert_eq!(report.succeeded, report.orders, "seed {seed}: lost {} commands", report.lost);
        lost += report.lost;
    }
    assert!(lost > 100, "only {lost} commands were lost: nothing was tried");
}

#[test]
fn with_lost_commands_and_every_other_fault_every_order_is_decided() {
    for seed in seeds(30) {
        simulate(seed, Faults { lost: 0.1, ..Faults::everything() }).check();
    }
}

#[test]
fn an_order_that_was_stored_behind_its_deadline_is_decided_all_the_same() {
    for seed in seeds(5) {
        let length = std::time::Duration::from_secs(600);
        let report = simulate(seed, Faults { orders: 50, cut_off: Some(length), ..Faults::none() });
        assert_eq!(report.undecided(), 0, "seed {seed}: behind the low-water mark nobody looks");
    }
}

#[test]
fn what_the_provider_sees_never_exceeds_its_quota() {
    for seed in seeds(30) {
        let report = simulate(seed, Faults { orders: 400, permits_per_second: 20.0, ..Faults::everything() });
        report.check();
    }
}
