//! What the service costs when nothing is to be done.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use crate::common::child::{Child, Subject};
use crate::common::meter::{self, Servers};
use crate::common::orders::Shop;
use crate::common::round::mib;
use crate::common::scratch::Scratch;
use crate::common::topics::Reader;
use crate::latency::warm_up;

/// After the warm-up, for what it set in motion.
const SETTLE: Duration = Duration::from_secs(3);

/// What was seen. CPU in percent of one core.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Idle {
    pub(crate) seconds: f64,
    pub(crate) rss_mib: f64,
    pub(crate) service_cpu_percent: f64,
    pub(crate) postgres_cpu_percent: f64,
    pub(crate) broker_cpu_percent: f64,
}

pub(crate) async fn run(seconds: f64) -> Result<Idle> {
    let scratch = Scratch::make().await?;
    let measured = measure(&scratch, seconds).await;
    let removed = scratch.remove().await;
    let idle = measured?;
    removed?;
    Ok(idle)
}

async fn measure(scratch: &Scratch, seconds: f64) -> Result<Idle> {
    let reader = Reader::of_events(scratch)?;
    let mut child = Child::start(Subject::service(Duration::ZERO), scratch)?;
    warm_up(&Shop::open(scratch)?, &reader, &mut child)?;
    let servers = Servers::find(scratch).await?;
    std::thread::sleep(SETTLE);
    let (began, cpu_began, own_began) = (Instant::now(), servers.cpu()?, meter::cpu(child.pid())?);
    std::thread::sleep(Duration::from_secs_f64(seconds));
    let (passed, cpu_ended, own_ended) = (began.elapsed(), servers.cpu()?, meter::cpu(child.pid())?);
    let (now, _) = meter::memory(child.pid())?;
    child.is_alive()?;
    child.stop()?;
    let percent =
        |ended: Duration, began: Duration| 100.0 * ended.saturating_sub(began).as_secs_f64() / passed.as_secs_f64();
    Ok(Idle {
        seconds: passed.as_secs_f64(),
        rss_mib: mib(now),
        service_cpu_percent: percent(own_ended, own_began),
        postgres_cpu_percent: percent(cpu_ended.postgres, cpu_began.postgres),
        broker_cpu_percent: percent(cpu_ended.broker, cpu_began.broker),
    })
}
