//! Beside a tier that is full: the same paced run, in turns, with and without what waits.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use crate::common::lateness::median;
use crate::common::process::Service;
use crate::items::{Writer, now_ms_up};
use crate::paced::{self, Paced};
use crate::progress;
use crate::stage::{Load, Stage};

const TIER: &str = "30m";
const TIER_MS: i64 = 30 * 60 * 1000;
/// What the forwarder has in hand of what waits.
const HELD: &str = "recharge_delay_pending_records";
/// It has read all that it takes in hand when that has not changed for so long. Between two fetches
/// that bring something there is far less.
const STEADY: Duration = Duration::from_secs(2);

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Pending {
    pub(crate) records: usize,
    pub(crate) filled_seconds: f64,
    /// Medians.
    pub(crate) rss_empty_mib: f64,
    pub(crate) rss_full_mib: f64,
    pub(crate) p50_empty_ms: f64,
    pub(crate) p50_full_ms: f64,
    pub(crate) p99_empty_ms: f64,
    pub(crate) p99_full_ms: f64,
    pub(crate) empty: Vec<Paced>,
    pub(crate) full: Vec<Paced>,
}

pub(crate) async fn run(records: usize, rounds: usize, load: Load) -> Result<Pending> {
    let (empty, full) = (Stage::set().await?, Stage::set().await?);
    let measured = measure(&empty, &full, records, rounds, load).await;
    let struck = (empty.strike().await, full.strike().await);
    let pending = measured?;
    struck.0?;
    struck.1?;
    Ok(pending)
}

async fn measure(empty: &Stage, full: &Stage, records: usize, rounds: usize, load: Load) -> Result<Pending> {
    let began = Instant::now();
    let writer = Writer::open(&full.scratch)?;
    let due_ms = now_ms_up() + TIER_MS;
    for number in 0..records {
        writer.delay(TIER, number, due_ms)?;
    }
    writer.flush()?;
    drop(writer);
    let filled_seconds = began.elapsed().as_secs_f64();
    progress(&format!("{records} records wait, written in {filled_seconds:.0} s"));

    let (mut without, mut with) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        progress(&format!("round {round} of {rounds}, beside an empty tier and a full one"));
        without.push(paced::measure(empty, load).await?);
        let forwarder = Service::ready(&full.scratch, "delay", None)?;
        // The first record in hand says nothing of the others: it reads on for a while.
        forwarder.until_steady(HELD, STEADY, |held| held >= 1.0)?;
        with.push(paced::beside(full, load, &forwarder).await?);
        forwarder.stop()?;
    }
    let middle = |runs: &[Paced], read: fn(&Paced) -> f64| median(runs.iter().map(read).collect()).unwrap_or(f64::NAN);
    Ok(Pending {
        records,
        filled_seconds,
        rss_empty_mib: middle(&without, |run| run.rss_mib),
        rss_full_mib: middle(&with, |run| run.rss_mib),
        p50_empty_ms: middle(&without, |run| run.outcome.late.p50),
        p50_full_ms: middle(&with, |run| run.outcome.late.p50),
        p99_empty_ms: middle(&without, |run| run.outcome.late.p99),
        p99_full_ms: middle(&with, |run| run.outcome.late.p99),
        empty: without,
        full: with,
    })
}
