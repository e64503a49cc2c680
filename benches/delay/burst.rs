//! Many records that are due at one instant.

use std::collections::HashSet;

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::common::process::Service;
use crate::items::{Kind, Writer, now_ms_up};
use crate::stage::Stage;

/// A tier that leaves time to write them all, and for the forwarder to read them ahead.
const TIER: &str = "15s";
const AHEAD_MS: i64 = 8_000;

/// What became of it. Milliseconds after the instant.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Burst {
    pub(crate) records: usize,
    /// Whether all were written while a second was left; if not, the run says nothing of the forwarder.
    pub(crate) written_ahead_ms: i64,
    pub(crate) first_ms: f64,
    pub(crate) half_ms: f64,
    /// The last, in the hands of the reader of the target.
    pub(crate) last_ms: f64,
    /// The last, at the broker.
    pub(crate) last_appended_ms: i64,
    pub(crate) lost: usize,
    pub(crate) early: u64,
}

pub(crate) async fn run(records: usize) -> Result<Burst> {
    let stage = Stage::set().await?;
    let measured = measure(&stage, records);
    let struck = stage.strike().await;
    let burst = measured?;
    struck?;
    Ok(burst)
}

fn measure(stage: &Stage, records: usize) -> Result<Burst> {
    let forwarder = Service::ready(&stage.scratch, "delay", None)?;
    // Producer, forwarder and reader know the target by then, as they do in a service that works.
    let writer = Writer::open(&stage.scratch)?;
    writer.delay("1s", records, now_ms_up() + 1_000)?;
    writer.plain(0)?;
    stage.wait_for(0, 1, 1)?;
    let before = stage.count();

    let due_ms = now_ms_up() + AHEAD_MS;
    for number in 0..records {
        writer.delay(TIER, number, due_ms)?;
    }
    writer.flush()?;
    let written_ahead_ms = due_ms - now_ms_up();
    ensure!(written_ahead_ms > 1_000, "the records were written too late: {written_ahead_ms} ms before their time");
    stage.wait_for(before, records, 0)?;
    forwarder.stop()?;

    let arrivals = stage.arrivals_since(before);
    let delayed: Vec<_> = arrivals.iter().filter(|arrival| arrival.kind == Kind::Delayed).collect();
    let mut after: Vec<i64> = delayed.iter().map(|arrival| arrival.arrived_us - due_ms * 1000).collect();
    after.sort_unstable();
    let at = |index: usize| after.get(index).map_or(f64::NAN, |micros| millis(*micros));
    let distinct: HashSet<usize> = delayed.iter().map(|arrival| arrival.number).collect();
    Ok(Burst {
        records,
        written_ahead_ms,
        first_ms: at(0),
        half_ms: at(after.len() / 2),
        last_ms: at(after.len().saturating_sub(1)),
        last_appended_ms: delayed.iter().map(|arrival| arrival.appended_ms - due_ms).max().unwrap_or(0),
        lost: records - distinct.len(),
        early: delayed.iter().filter(|arrival| arrival.appended_ms < due_ms).count() as u64,
    })
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of a run")]
pub(crate) fn millis(micros: i64) -> f64 {
    micros as f64 / 1e3
}
