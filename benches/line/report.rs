//! Runs everything and tells what was found.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::arguments::{Arguments, Part};
use crate::common::child::Subject;
use crate::common::goal::{self, Goal};
use crate::common::lateness::median;
use crate::common::machine::machine;
use crate::common::profile::Profile;
use crate::common::round::{self, Sample};
use crate::goals;
use crate::idle::{self, Idle};
use crate::latency::{self, Open};
use crate::progress;

/// The slow provider of the second kind of round.
const SLOW: Duration = Duration::from_millis(50);
/// The open-loop rate that the goals name.
const GOAL_RATE: f64 = 5_000.0;

/// Everything that was measured; medians where there are rounds.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Results {
    pub(crate) machine: BTreeMap<String, String>,
    /// Of the service with a provider that answers at once, by the ceiling that ran before it.
    pub(crate) ratio: Option<f64>,
    /// The same with the slow provider.
    pub(crate) slow_ratio: Option<f64>,
    pub(crate) ceiling: Option<Sample>,
    pub(crate) service: Option<Sample>,
    pub(crate) service_slow: Option<Sample>,
    pub(crate) open: Vec<Open>,
    pub(crate) idle: Option<Idle>,
    pub(crate) goals: Vec<Goal>,
    /// Every single run, in its order.
    pub(crate) samples: Vec<Sample>,
}

/// The whole measurement.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(arguments))
}

async fn measure(arguments: &Arguments) -> Result<()> {
    if arguments.profile || arguments.profile_postgres {
        let profile = Profile::new(arguments.profile_postgres)?;
        let subject = arguments.child.subject();
        let sample = round::run(subject, arguments.orders, Some(&profile)).await?;
        print_samples(std::slice::from_ref(&sample));
        return Ok(());
    }
    let mut results = Results { machine: machine().await?, ..Results::default() };
    if arguments.wants(Part::Rounds) {
        rounds(arguments, &mut results).await?;
    }
    if arguments.wants(Part::Latency) {
        for rate in rates(arguments, &results) {
            progress(&format!("open loop, {rate:.0} orders/s for {} s", arguments.seconds));
            results.open.push(latency::run(rate, arguments.seconds).await?);
        }
    }
    if arguments.wants(Part::Idle) {
        progress(&format!("idle for {} s", arguments.idle_seconds));
        results.idle = Some(idle::run(arguments.idle_seconds).await?);
    }
    results.goals = goals::judge(&results);
    print(&results);
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_vec_pretty(&results)?)?;
    }
    goal::check(arguments.check, &results.goals)
}

/// Interleaved, so that what the machine does meanwhile meets all alike.
async fn rounds(arguments: &Arguments, results: &mut Results) -> Result<()> {
    let ceiling = Subject::ceiling();
    let (at_once, slow) = (Subject::service(Duration::ZERO), Subject::service(SLOW));
    progress("warming up the servers");
    round::run(ceiling, arguments.orders.min(50_000), None).await?;
    let (mut ratios, mut slow_ratios) = (Vec::new(), Vec::new());
    for number in 1..=arguments.rounds {
        for (subject, ratios) in [(at_once, &mut ratios), (slow, &mut slow_ratios)] {
            progress(&format!("round {number} of {}: {} orders", arguments.rounds, arguments.orders));
            let bare = round::run(ceiling, arguments.orders, None).await?;
            let real = round::run(subject, arguments.orders, None).await?;
            let ratio = real.orders_per_second / bare.orders_per_second;
            progress(&format!(
                "ceiling {:.0}/s, service {:.0}/s: {:.1} %",
                bare.orders_per_second,
                real.orders_per_second,
                ratio * 100.0
            ));
            ratios.push(ratio);
            results.samples.extend([bare, real]);
        }
    }
    results.ratio = median(ratios);
    results.slow_ratio = median(slow_ratios);
    results.ceiling = middle(&results.samples, ceiling);
    results.service = middle(&results.samples, at_once);
    results.service_slow = middle(&results.samples, slow);
    Ok(())
}

fn rates(arguments: &Arguments, results: &Results) -> Vec<f64> {
    if !arguments.rate.is_empty() {
        return arguments.rate.clone();
    }
    let half = results.service.as_ref().map(|service| (service.orders_per_second / 2.0).round());
    half.into_iter().chain([GOAL_RATE]).collect()
}

/// The median of each figure, over the samples of one subject.
fn middle(samples: &[Sample], subject: Subject) -> Option<Sample> {
    let of: Vec<&Sample> = samples.iter().filter(|sample| is_of(sample, subject)).collect();
    let figure = |read: fn(&Sample) -> f64| median(of.iter().map(|sample| read(sample)).collect());
    Some(Sample {
        seconds: figure(|s| s.seconds)?,
        orders_per_second: figure(|s| s.orders_per_second)?,
        service_cpu_us: figure(|s| s.service_cpu_us)?,
        postgres_cpu_us: figure(|s| s.postgres_cpu_us)?,
        broker_cpu_us: figure(|s| s.broker_cpu_us)?,
        cpu_us: figure(|s| s.cpu_us)?,
        wal_bytes: figure(|s| s.wal_bytes)?,
        hot_share: figure(|s| s.hot_share)?,
        peak_rss_mib: figure(|s| s.peak_rss_mib)?,
        calibration_cpu_ms: figure(|s| s.calibration_cpu_ms)?,
        calibration_wall_ms: figure(|s| s.calibration_wall_ms)?,
        scaled_cpu_us: figure(|s| s.scaled_cpu_us)?,
        ..(*of.first()?).clone()
    })
}

fn is_of(sample: &Sample, subject: Subject) -> bool {
    sample.subject == subject.role.as_str() && u128::from(sample.answer_after_ms) == subject.answer_after.as_millis()
}

fn print(results: &Results) {
    println!();
    for (name, value) in &results.machine {
        println!("{name}: {value}");
    }
    println!("\nevery run:");
    print_samples(&results.samples);
    let medians: Vec<Sample> =
        [&results.ceiling, &results.service, &results.service_slow].into_iter().flatten().cloned().collect();
    if !medians.is_empty() {
        println!("\nmedians (and the least and greatest orders/s):");
        print_samples(&medians);
        for sample in &medians {
            let same =
                |other: &&Sample| (other.subject, other.answer_after_ms) == (sample.subject, sample.answer_after_ms);
            let rates = results.samples.iter().filter(same).map(|other| other.orders_per_second);
            let (least, greatest) = rates.fold((f64::MAX, 0.0_f64), |(a, b), rate| (a.min(rate), b.max(rate)));
            println!("  {}: {least:.0} to {greatest:.0}", name(sample));
        }
    }
    print_open(&results.open);
    if let Some(idle) = &results.idle {
        println!(
            "\nidle for {:.0} s: {:.1} MiB resident; {:.2} % of a core in the service, {:.2} % in Postgres, {:.2} % in the broker",
            idle.seconds, idle.rss_mib, idle.service_cpu_percent, idle.postgres_cpu_percent, idle.broker_cpu_percent
        );
    }
    goal::print(&results.goals);
}

fn name(sample: &Sample) -> String {
    match sample.answer_after_ms {
        0 => sample.subject.to_owned(),
        wait => format!("{}, {wait} ms", sample.subject),
    }
}

fn print_samples(samples: &[Sample]) {
    println!(
        "  {:<16} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7} {:>8} {:>12}",
        "", "orders/s", "service", "Postgres", "broker", "CPU µs", "scaled", "WAL B", "HOT %", "RSS MiB", "calib. ms"
    );
    for sample in samples {
        println!(
            "  {:<16} {:>9.0} {:>9.1} {:>9.1} {:>9.1} {:>9.1} {:>9.1} {:>9.0} {:>7.1} {:>8.1} {:>5.1}/{:>5.1}",
            name(sample),
            sample.orders_per_second,
            sample.service_cpu_us,
            sample.postgres_cpu_us,
            sample.broker_cpu_us,
            sample.cpu_us,
            sample.scaled_cpu_us,
            sample.wal_bytes,
            sample.hot_share * 100.0,
            sample.peak_rss_mib,
            sample.calibration_cpu_ms,
            sample.calibration_wall_ms
        );
    }
}

fn print_open(open: &[Open]) {
    for run in open {
        println!(
            "\nopen loop, {:.0} orders/s for {:.0} s ({} orders); the shop was {:.1} ms late at the worst",
            run.rate, run.seconds, run.orders, run.shop_late_ms
        );
        println!(
            "  CPU µs per order: service {:.1}, Postgres {:.1}, broker {:.1}; {:.1} MiB at the peak",
            run.service_cpu_us, run.postgres_cpu_us, run.broker_cpu_us, run.peak_rss_mib
        );
        for (what, at) in [("closed in the database", run.closed), ("status event at the broker", run.settled)] {
            println!(
                "  {what:<28} p50 {:>8.1}  p99 {:>8.1}  p99.9 {:>8.1}  max {:>8.1} ms",
                at.p50, at.p99, at.p999, at.max
            );
        }
    }
}
