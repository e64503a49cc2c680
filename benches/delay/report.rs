//! Runs everything and tells what was found.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;

use crate::arguments::{Arguments, Part};
use crate::burst::{self, Burst};
use crate::common::goal::{self, Goal};
use crate::common::machine::machine;
use crate::faults::{self, Fault, Faulted};
use crate::goals;
use crate::paced::{self, Paced};
use crate::pending::{self, Pending};
use crate::progress;
use crate::stage::{Load, Outcome};

/// The rate beside faults and beside a full tier.
const RATE: f64 = 500.0;
/// A run with a fault in it needs room for what happens.
const FAULT_SECONDS_MIN: f64 = 12.0;

/// Everything that was measured, every single run in its order.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Results {
    pub(crate) machine: BTreeMap<String, String>,
    pub(crate) paced: Vec<Paced>,
    pub(crate) bursts: Vec<Burst>,
    pub(crate) faults: Vec<Faulted>,
    pub(crate) pending: Option<Pending>,
    pub(crate) goals: Vec<Goal>,
}

impl Results {
    /// The rates of the paced runs, each once.
    pub(crate) fn rates(&self) -> Vec<f64> {
        let mut rates: Vec<f64> = self.paced.iter().map(|run| run.rate).collect();
        rates.sort_by(f64::total_cmp);
        rates.dedup();
        rates
    }

    fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        let beside = self.pending.iter().flat_map(|pending| pending.empty.iter().chain(&pending.full));
        let paced = self.paced.iter().chain(beside).map(|run| &run.outcome);
        paced.chain(self.faults.iter().map(|run| &run.outcome))
    }

    pub(crate) fn early(&self) -> u64 {
        self.outcomes().map(|outcome| outcome.early).sum::<u64>()
            + self.bursts.iter().map(|burst| burst.early).sum::<u64>()
    }

    pub(crate) fn lost(&self) -> u64 {
        self.outcomes().map(|outcome| outcome.lost).sum::<u64>()
            + self.bursts.iter().map(|burst| burst.lost as u64).sum::<u64>()
    }
}

/// The whole measurement.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(measure(arguments))
}

async fn measure(arguments: &Arguments) -> Result<()> {
    let mut results = Results { machine: machine().await?, ..Results::default() };
    if arguments.wants(Part::Paced) {
        for round in 1..=arguments.rounds {
            for &rate in &arguments.rate {
                progress(&format!("round {round} of {}: {rate} items/s for {} s", arguments.rounds, arguments.seconds));
                let run = paced::run(Load { rate, seconds: arguments.seconds }).await?;
                print_paced(&run);
                results.paced.push(run);
            }
        }
    }
    if arguments.wants(Part::Burst) {
        for round in 1..=arguments.rounds {
            progress(&format!("round {round} of {}: {} due at one instant", arguments.rounds, arguments.burst));
            let burst = burst::run(arguments.burst).await?;
            print_burst(&burst);
            results.bursts.push(burst);
        }
    }
    if arguments.wants(Part::Faults) {
        let load = Load { rate: RATE, seconds: arguments.seconds.max(FAULT_SECONDS_MIN) };
        for round in 1..=arguments.fault_rounds {
            for fault in Fault::ALL {
                progress(&format!("round {round} of {}: {}", arguments.fault_rounds, fault.as_str()));
                let run = faults::run(fault, load).await?;
                print_fault(&run);
                results.faults.push(run);
            }
        }
    }
    if arguments.wants(Part::Pending) {
        let load = Load { rate: RATE, seconds: arguments.seconds };
        let pending = pending::run(arguments.pending, arguments.rounds, load).await?;
        print_pending(&pending);
        results.pending = Some(pending);
    }
    results.goals = goals::judge(&results);
    for (name, value) in &results.machine {
        println!("{name}: {value}");
    }
    goal::print(&results.goals);
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_vec_pretty(&results)?)?;
    }
    goal::check(arguments.check, &results.goals)
}

fn print_outcome(outcome: &Outcome) {
    let (late, plain) = (outcome.late, outcome.plain);
    println!(
        "  late  p50 {:>7.2}  p99 {:>7.2}  p99.9 {:>7.2}  max {:>8.2} ms, least {:.2} ms\n  plain p50 {:>7.2}  p99 {:>7.2}  p99.9 {:>7.2}  max {:>8.2} ms\n  {} items: {} lost, {} early, {} repeated",
        late.p50,
        late.p99,
        late.p999,
        late.max,
        outcome.least_ms,
        plain.p50,
        plain.p99,
        plain.p999,
        plain.max,
        outcome.items,
        outcome.lost,
        outcome.early,
        outcome.repeated
    );
}

fn print_paced(run: &Paced) {
    println!(
        "{} items/s: above a plain trip p50 {:.2}, p99 {:.2} ms; CPU ms per item: broker {:.3}, forwarder {:.3}; {:.1} MiB",
        run.rate, run.above_p50_ms, run.above_p99_ms, run.broker_cpu_ms, run.forwarder_cpu_ms, run.rss_mib
    );
    print_outcome(&run.outcome);
}

fn print_burst(burst: &Burst) {
    println!(
        "{} due at one instant: the first after {:.1} ms, half after {:.1}, the last after {:.1} (at the broker {}); {} lost, {} early",
        burst.records, burst.first_ms, burst.half_ms, burst.last_ms, burst.last_appended_ms, burst.lost, burst.early
    );
}

fn print_fault(run: &Faulted) {
    println!("{}:", run.fault.as_str());
    if let (Some(ready), Some(caught_up)) = (run.ready_after_ms, run.caught_up_ms) {
        println!("  ready {ready:.0} ms after its start; the last that was overdue then came {caught_up:.0} ms later");
    }
    print_outcome(&run.outcome);
}

fn print_pending(pending: &Pending) {
    println!(
        "{} waiting (written in {:.0} s), medians empty and full: {:.1} and {:.1} MiB; p50 {:.2} and {:.2} ms; p99 {:.2} and {:.2} ms",
        pending.records,
        pending.filled_seconds,
        pending.rss_empty_mib,
        pending.rss_full_mib,
        pending.p50_empty_ms,
        pending.p50_full_ms,
        pending.p99_empty_ms,
        pending.p99_full_ms
    );
}
