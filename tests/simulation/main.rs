//! Whole processes under simulated time: one to three of them run every role over a store, a broker and
//! a provider that fail as the seed says, die in the middle of things, stand still and come back. Time is
//! tokio's paused clock, so minutes take milliseconds, and a failing seed fails again. `docs/PROOF.md`.

#![allow(
    clippy::cast_precision_loss,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test"
)]

mod broker;
mod bugs;
mod conformance;
mod laws;
mod life;
mod oracle;
#[allow(dead_code, reason = "the suite of the stores needs a part of it")]
#[path = "../it/pace.rs"]
mod pace;
mod payments;
mod process;
mod provider;
mod recorder;
mod runs;
mod shop;
mod store;
mod weather;
mod world;

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use recharged::domain::State;
use runs::{in_parallel, is_aimed, live, seeds};
use weather::{Fault, Incident, Rates, Sizes, Weather};

#[test]
fn in_any_weather_no_order_is_lost_doubled_or_wrongly_ended() {
    let strikes: Mutex<HashMap<Fault, u64>> = Mutex::default();
    let missed: Mutex<[usize; 2]> = Mutex::default();
    let seeds = seeds(2_000);
    in_parallel(seeds.clone(), |seed| {
        let report = live(seed, Weather::of(seed));
        report.check(seed);
        let mut missed = missed.lock().unwrap();
        *missed = [missed[0] + report.missed[0], missed[1] + report.missed[1]];
        let mut strikes = strikes.lock().unwrap();
        for fault in Fault::ALL {
            *strikes.entry(fault).or_default() += report.strikes.of(fault);
        }
    });
    let strikes = strikes.into_inner().unwrap();
    eprintln!("{} seeds, {strikes:#?}", seeds.end - seeds.start);
    if seeds.end - seeds.start >= 200 {
        let idle: Vec<_> = Fault::ALL.iter().filter(|fault| strikes[fault] == 0).collect();
        assert!(idle.is_empty(), "these never struck: {idle:?}");
        let [missed, strictly] = missed.into_inner().unwrap();
        eprintln!("{missed} orders missed their deadline, {strictly} of them were held to a third of a second");
        assert!(strictly * 2 > missed, "most are excused: {strictly} of {missed} were held to the shortest bound");
    }
}

#[test]
fn the_same_seed_lives_the_same_life() {
    for seed in seeds(12) {
        let lives = [live(seed, Weather::of(seed)), live(seed, Weather::of(seed))];
        assert_eq!(lives[0].fingerprint, lives[1].fingerprint, "seed {seed}");
    }
}

#[test]
fn without_faults_every_order_is_delivered_once_in_time_and_all_of_it_is_told() {
    let mut claims_overtaken = 0;
    for seed in seeds(20) {
        let processes = usize::try_from(seed % 3).unwrap() + 1;
        let report = live(seed, Weather { processes, ..Weather::calm() });
        report.check(seed);
        assert_eq!(report.of(State::Succeeded), 100, "seed {seed}: {:?}", report.states);
        claims_overtaken += report.claims_overtaken;
    }
    assert!(claims_overtaken > 0 || is_aimed(), "no claim met a row that had moved: its fence was not tried");
}

#[test]
fn without_faults_what_is_paid_in_time_is_recharged_and_what_is_not_is_cancelled() {
    let (mut cancelled, mut recharged) = (0, 0);
    for seed in seeds(20) {
        let processes = usize::try_from(seed % 3).unwrap() + 1;
        let rates = Rates { unpaid: 0.8, cancelled: 0.2, ..Weather::calm().rates };
        let report = live(seed, Weather { processes, rates, ..Weather::calm() });
        report.check(seed);
        let ended = [State::Succeeded, State::Cancelled].map(|state| report.of(state));
        assert_eq!(ended.iter().sum::<usize>(), 100, "seed {seed}: {:?}", report.states);
        recharged += ended[0];
        cancelled += ended[1];
    }
    assert!(is_aimed() || cancelled > 400 && recharged > 400, "{cancelled} were cancelled, {recharged} recharged");
}

#[test]
fn a_crash_costs_a_calls_time_out_and_not_the_deadline() {
    let mut adopted = Vec::new();
    for seed in seeds(60) {
        let crash = |at| {
            let crash = Incident::Crash { slot: 0, away: Duration::from_secs(2) };
            (Duration::from_millis(at), crash)
        };
        let incidents = vec![crash(700), crash(20_000)];
        let report = live(seed, Weather { incidents, gap: Duration::from_millis(250), ..Weather::calm() });
        report.check(seed);
        adopted.extend(report.adoptions());
    }
    assert!(is_aimed() || adopted.len() > 30, "only {} sends lost their caller: nothing was tried", adopted.len());
    let longest = adopted.iter().max().copied().unwrap_or_default();
    // Away for 2 s; then its partitions come within 1 s; send window, call time-out and margin (11 s).
    assert!(longest.num_seconds() <= 15, "a send that nobody waited for was asked about after {longest}");
}

#[test]
fn what_a_broker_has_lost_is_asked_for_again_before_the_deadline() {
    let mut lost = 0;
    for seed in seeds(10) {
        let rates = Rates { lost: 0.2, ..Rates::default() };
        let report = live(seed, Weather { rates, ..Weather::calm() });
        report.check(seed);
        assert_eq!(report.of(State::Succeeded), 100, "seed {seed}: lost {} commands", report.lost);
        lost += report.lost;
    }
    assert!(is_aimed() || lost > 100, "only {lost} commands were lost: nothing was tried");
}

#[test]
fn an_order_that_was_stored_behind_its_deadline_is_decided_all_the_same() {
    for seed in seeds(5) {
        let cut_off = Some(Duration::from_secs(600));
        let report = live(seed, Weather { orders: 50, cut_off, dispatches: false, ..Weather::calm() });
        let undecided = [State::Queued, State::RetryWait, State::InFlight].map(|state| report.of(state));
        assert_eq!(undecided, [0; 3], "seed {seed}: behind the low-water mark nobody looks");
        report.check(seed);
        assert_eq!(report.of(State::Failed), 50, "seed {seed}: {:?}", report.states);
    }
}

/// One permit a second over three processes, of which one leaves the group for a moment and one dies; all commands in
/// one partition, or spread.
#[test]
fn a_quota_of_one_a_second_is_used_while_there_is_work_and_never_exceeded() {
    let mut least: f64 = 1.0;
    for seed in seeds(12) {
        let crash = Incident::Crash { slot: 1, away: Duration::from_secs(5) };
        let incidents = vec![(Duration::from_secs(90), Incident::Rebalance), (Duration::from_secs(180), crash)];
        let weather = Weather {
            orders: 500,
            processes: 3,
            permits_per_second: 1.0,
            // More than the quota allows, from the beginning to the end.
            gap: Duration::from_millis(500),
            sla: Duration::from_secs(3_600),
            one_number: seed % 2 == 0,
            incidents,
            rates: Rates::default(),
            ..Weather::calm()
        };
        let report = live(seed, weather);
        report.check(seed);
        assert_eq!(report.of(State::Succeeded), 500, "seed {seed}: {:?}", report.states);
        let (first, end) = (report.arrivals[0], report.arrivals[report.arrivals.len() - 1]);
        let allowed = (end - first).as_seconds_f64() + 10.0;
        let used = report.arrivals.len() as f64 / allowed;
        eprintln!("seed {seed}: {} of {allowed:.1} permits were used", report.arrivals.len());
        least = least.min(used);
    }
    assert!(least >= 0.995, "{:.2} % of the quota were used", 100.0 * least);
}

/// Five thousand a second over three processes: here no machine is too slow for it. `scripts/campaign quota` has the
/// same on a real broker and a real database.
#[test]
fn a_quota_of_five_thousand_a_second_is_used_while_there_is_work_and_never_exceeded() {
    for seed in seeds(2) {
        let weather = Weather {
            orders: 25_000,
            processes: 3,
            permits_per_second: 5_000.0,
            burst: 500,
            sizes: Sizes::LARGE,
            gap: Duration::from_micros(120),
            one_number: seed % 2 == 0,
            rates: Rates::default(),
            ..Weather::calm()
        };
        let report = live(seed, weather);
        report.check(seed);
        assert_eq!(report.of(State::Succeeded), 25_000, "seed {seed}: {:?}", report.states);
        // Without the beginning, when there is little to do, and the end.
        let (first, end) = (report.arrivals[5_000], report.arrivals[22_500]);
        let used = 17_500.0 / ((end - first).as_seconds_f64() * 5_000.0);
        eprintln!("seed {seed}: {:.2} % of the permits were used", 100.0 * used);
        assert!(used >= 0.995, "seed {seed}: {:.2} % of the quota were used", 100.0 * used);
    }
}
