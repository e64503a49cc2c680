//! Runs everything and tells what was found.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::arguments::{Arguments, Part};
use crate::common::goal::{self, Goal};
use crate::common::lateness::Percentiles;
use crate::common::machine::machine;
use crate::common::process::Service;
use crate::common::scratch::{Scratch, load};
use crate::filling::Filling;
use crate::presence::{self, Presence};
use crate::scan::{self, Quiet};
use crate::verdicts::{self, Verdicts};
use crate::{goals, progress};

/// From the last open order in the store to the first deadline: a watchdog that has started waits two seconds.
const FIRST_IN: Duration = Duration::from_secs(20);

/// Everything that was measured.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Results {
    pub(crate) machine: BTreeMap<String, String>,
    /// With a tenth of the closed orders, then with all.
    pub(crate) quiet: Vec<Quiet>,
    pub(crate) verdicts: Option<Verdicts>,
    pub(crate) presence: Option<Presence>,
    pub(crate) goals: Vec<Goal>,
}

/// The whole measurement.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(measure(arguments))
}

async fn measure(arguments: &Arguments) -> Result<()> {
    let mut results = Results { machine: machine().await?, ..Results::default() };
    if arguments.wants(Part::Full) {
        let scratch = Scratch::make().await?;
        let measured = full(arguments, &scratch, &mut results).await;
        let removed = scratch.remove().await;
        measured?;
        removed?;
    }
    if arguments.wants(Part::Presence) {
        let presence = presence::run(arguments.orders, arguments.rounds).await?;
        print_presence(&presence);
        results.presence = Some(presence);
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

async fn full(arguments: &Arguments, scratch: &Scratch, results: &mut Results) -> Result<()> {
    let config = load(&scratch.config_path)?;
    let mut filling = Filling::begin(scratch, &config).await?;
    for closed in [arguments.closed / 10, arguments.closed] {
        progress(&format!("filling the store up to {closed} closed orders"));
        let took = filling.fill(closed).await?;
        progress(&format!("filled and vacuumed in {:.0} s", took.as_secs_f64()));
        let quiet = scan::look(scratch, filling.filled(), arguments.looks, took).await?;
        print_quiet(&quiet);
        results.quiet.push(quiet);
    }
    progress(&format!("{} open orders, whose deadlines come within {} s", arguments.open, arguments.within));
    let deadlines = filling.open(arguments.open, FIRST_IN, Duration::from_secs_f64(arguments.within)).await?;
    filling.set_mark().await?;
    let end = verdicts::end_of_log(scratch).await?;
    let watchdog = Service::ready(scratch, "watchdog", None)?;
    let verdicts = verdicts::watch(scratch, watchdog, filling.filled(), &deadlines, end).await?;
    print_verdicts(&verdicts);
    results.verdicts = Some(verdicts);
    Ok(())
}

fn print_quiet(quiet: &Quiet) {
    println!(
        "{} closed orders, {:.0} MiB with its indexes, {:.0} bytes an order, filled in {:.0} s; a look when nothing is due:",
        quiet.closed, quiet.table_mib, quiet.bytes_per_order, quiet.fill_seconds
    );
    for look in &quiet.looks {
        println!(
            "  {:<36} {:>8.2} ms, {:>7.0} buffers ({:.0} not in memory), {:.0} closed orders passed over ({})",
            look.what, look.millis, look.buffers, look.read, look.passed_over, look.plan
        );
    }
}

fn print_verdicts(verdicts: &Verdicts) {
    println!(
        "{} open among {} closed: {} without a verdict, {} early, {} later than 250 ms; the least {:.2} ms after its deadline",
        verdicts.open, verdicts.closed, verdicts.missing, verdicts.early, verdicts.later_than_250_ms, verdicts.least_ms
    );
    let line = |what: &str, at: Percentiles| {
        println!(
            "  {what:<24} p50 {:>7.1}  p99 {:>7.1}  p99.9 {:>7.1}  max {:>7.1} ms",
            at.p50, at.p99, at.p999, at.max
        );
    };
    line("decided", verdicts.decided);
    line("there for all to see", verdicts.seen);
    line("a bare commit beside it", verdicts.bare.took);
    println!(
        "  {} bare commits took 100 ms and more; {} of the late verdicts came while one of them was under way",
        verdicts.bare.stalls, verdicts.bare.late_beside_a_stall
    );
    println!(
        "  the process: {:.1} % of a core, {:.1} MiB; {:.2} ms a look",
        verdicts.cpu_percent, verdicts.rss_mib, verdicts.look_mean_ms
    );
}

fn print_presence(presence: &Presence) {
    let costs: Vec<String> = presence.costs_percent.iter().map(|cost| format!("{cost:.1}")).collect();
    println!(
        "the line: {:.0} orders/s with its watchdog, {:.0} without; it costs {:.1} % (rounds: {})",
        presence.with_per_second,
        presence.without_per_second,
        presence.cost_percent,
        costs.join(", ")
    );
}
