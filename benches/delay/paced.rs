//! At a rate: how late, beside plain trips, and what it costs.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::common::meter::{self, Servers};
use crate::common::process::Service;
use crate::common::round::{count, mib};
use crate::stage::{Load, Outcome, Stage, judge};

/// One paced run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Paced {
    pub(crate) rate: f64,
    /// How much later than a plain trip, at the median and at the 99th percentile.
    pub(crate) above_p50_ms: f64,
    pub(crate) above_p99_ms: f64,
    /// Of everything that the broker did meanwhile, by item.
    pub(crate) broker_cpu_ms: f64,
    pub(crate) forwarder_cpu_ms: f64,
    pub(crate) rss_mib: f64,
    pub(crate) outcome: Outcome,
}

pub(crate) async fn run(load: Load) -> Result<Paced> {
    let stage = Stage::set().await?;
    let measured = measure(&stage, load).await;
    let struck = stage.strike().await;
    let paced = measured?;
    struck?;
    Ok(paced)
}

/// A forwarder of its own, and a paced run beside whatever the stage holds.
pub(crate) async fn measure(stage: &Stage, load: Load) -> Result<Paced> {
    let forwarder = Service::ready(&stage.scratch, "delay", None)?;
    let paced = beside(stage, load, &forwarder).await?;
    forwarder.stop()?;
    Ok(paced)
}

pub(crate) async fn beside(stage: &Stage, load: Load, forwarder: &Service) -> Result<Paced> {
    let servers = Servers::find(&stage.scratch).await?;
    let (broker_began, own_began) = (servers.cpu()?.broker, meter::cpu(forwarder.pid())?);
    let (arrivals, ()) = stage.play(load, || Ok(()))?;
    let (broker_ended, own_ended) = (servers.cpu()?.broker, meter::cpu(forwarder.pid())?);
    let (rss, _) = meter::memory(forwarder.pid())?;
    let outcome = judge(load, &arrivals, |_| 0)?;
    let per_item =
        |ended: Duration, began: Duration| ended.saturating_sub(began).as_secs_f64() * 1e3 / count(load.items());
    Ok(Paced {
        rate: load.rate,
        above_p50_ms: outcome.late.p50 - outcome.plain.p50,
        above_p99_ms: outcome.late.p99 - outcome.plain.p99,
        broker_cpu_ms: per_item(broker_ended, broker_began),
        forwarder_cpu_ms: per_item(own_ended, own_began),
        rss_mib: mib(rss),
        outcome,
    })
}
