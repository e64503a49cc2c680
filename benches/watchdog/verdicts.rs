//! How late verdicts are: from an order's deadline to the moment at which everybody can see what became of
//! it, in the event log, which is read every few milliseconds as the relay reads it: a figure may be too great
//! by that, never too small.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use recharged::clock::SystemClock;
use recharged::domain::Timestamp;
use serde::Serialize;
use sqlx::Row as _;

use crate::bare::{Bare, BareCommits};
use crate::common::lateness::{Lateness, Percentiles};
use crate::common::meter;
use crate::common::process::Service;
use crate::common::round::mib;
use crate::common::scratch::Scratch;
use crate::filling::open_id;

/// What the promise allows.
const LATE_US: i64 = 250_000;
const EVERY: Duration = Duration::from_millis(5);
/// After the last deadline, for a verdict that does not come.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Verdicts {
    pub(crate) closed: i64,
    pub(crate) open: usize,
    pub(crate) missing: usize,
    pub(crate) early: u64,
    /// To the moment at which others saw it.
    pub(crate) seen: Percentiles,
    /// To the moment that the verdict itself names.
    pub(crate) decided: Percentiles,
    pub(crate) least_ms: f64,
    pub(crate) later_than_250_ms: u64,
    /// Beside them.
    pub(crate) bare: BareCommits,
    pub(crate) cpu_percent: f64,
    pub(crate) rss_mib: f64,
    /// Of the looks of the process itself, in ms.
    pub(crate) look_mean_ms: f64,
}

pub(crate) async fn watch(
    scratch: &Scratch,
    watchdog: Service,
    closed: i64,
    deadlines: &[Timestamp],
    mut after: (i64, i64),
) -> Result<Verdicts> {
    let numbers: HashMap<String, usize> = (0..deadlines.len()).map(|number| (open_id(number), number)).collect();
    let last = deadlines.iter().max().context("open orders")?;
    let mut verdicts: HashMap<usize, (i64, i64)> = HashMap::new();
    let bare = Bare::begin(scratch).await?;
    let (began, cpu_began) = (Instant::now(), meter::cpu(watchdog.pid())?);
    while verdicts.len() < deadlines.len() {
        let overdue = SystemClock::local() - *last;
        if overdue.to_std().is_ok_and(|overdue| overdue > PATIENCE) {
            break;
        }
        let statement = format!(
            "select xid, seq, entries from order_event_batches where (xid, seq) > ({}, {}) \
             and xid < pg_snapshot_xmin(pg_current_snapshot())::text::bigint order by xid, seq",
            after.0, after.1
        );
        let rows = scratch.rows(&statement).await?;
        let seen_us = SystemClock::local().timestamp_micros();
        for row in &rows {
            after = (row.try_get(0)?, row.try_get(1)?);
            let entries: String = row.try_get(2)?;
            for line in entries.lines() {
                let entry: serde_json::Value = serde_json::from_str(line)?;
                let id = entry.get("id").and_then(serde_json::Value::as_str).unwrap_or_default();
                let at = entry.get("at").and_then(serde_json::Value::as_i64).unwrap_or_default();
                // Before that an order in flight may be adopted, since nobody waits for its answer any more:
                // that decides nothing.
                let state = entry.get("st").and_then(serde_json::Value::as_str).unwrap_or_default();
                let is_verdict = entry.get("sla").is_some() || matches!(state, "failed" | "cancelled");
                if let Some(number) = numbers.get(id).filter(|_| is_verdict) {
                    verdicts.entry(*number).or_insert((at, seen_us));
                }
            }
        }
        std::thread::sleep(EVERY);
    }
    let cpu = meter::cpu(watchdog.pid())?.saturating_sub(cpu_began);
    let (rss, _) = meter::memory(watchdog.pid())?;
    let looks = watchdog.metric("recharge_watchdog_scan_duration_seconds_count").unwrap_or(0.0);
    let spent = watchdog.metric("recharge_watchdog_scan_duration_seconds_sum").unwrap_or(0.0);
    let passed = began.elapsed();
    watchdog.stop()?;

    let (mut seen, mut decided, mut early, mut late) = (Lateness::new()?, Lateness::new()?, 0, Vec::new());
    for (number, (at, seen_us)) in &verdicts {
        let due = deadlines.get(*number).context("a deadline")?.timestamp_micros();
        early += u64::from(*at < due || *seen_us < due);
        seen.note(seen_us - due);
        decided.note(at - due);
        if seen_us - due > LATE_US {
            late.push((due, *seen_us));
        }
    }
    let bare = bare.end(&late).await?;
    ensure!(seen.len() > 0, "no verdict came");
    Ok(Verdicts {
        closed,
        open: deadlines.len(),
        missing: deadlines.len() - verdicts.len(),
        early,
        seen: seen.percentiles(),
        decided: decided.percentiles(),
        least_ms: decided.least(),
        later_than_250_ms: seen.above(250),
        bare,
        cpu_percent: 100.0 * cpu.as_secs_f64() / passed.as_secs_f64(),
        rss_mib: mib(rss),
        look_mean_ms: 1e3 * spent / looks.max(1.0),
    })
}

/// Where the log ends now.
pub(crate) async fn end_of_log(scratch: &Scratch) -> Result<(i64, i64)> {
    let rows = scratch.rows("select xid, seq from order_event_batches order by xid desc, seq desc limit 1").await?;
    rows.first().map_or(Ok((0, 0)), |row| Ok((row.try_get(0)?, row.try_get(1)?)))
}
