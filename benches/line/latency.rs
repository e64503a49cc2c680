//! The open-loop measurement: orders come at their intended times whatever becomes of them, and
//! an order's time counts from the moment at which it should have been sent.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use recharged::clock::SystemClock;
use recharged::domain::{Timestamp, to_micros};
use serde::Serialize;

use crate::common::child::{Child, Subject};
use crate::common::lateness::{Lateness, Percentiles, whole};
use crate::common::meter::{self, Servers};
use crate::common::orders::{Shop, number_of};
use crate::common::round::{EVENTS, count, mib, wait_for};
use crate::common::scratch::Scratch;
use crate::common::topics::Reader;

/// Orders sent before the measurement, so that connections and groups stand.
pub(crate) const WARM_UP: usize = 1_000;
/// And for so long at the rate itself, uncounted.
const RAMP: Duration = Duration::from_secs(3);
/// How often the shop looks at its clock.
const TICK: Duration = Duration::from_millis(1);

/// What one run found.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Open {
    pub(crate) rate: f64,
    pub(crate) seconds: f64,
    pub(crate) orders: usize,
    /// How late the shop itself was at the worst, in ms.
    pub(crate) shop_late_ms: f64,
    pub(crate) service_cpu_us: f64,
    pub(crate) postgres_cpu_us: f64,
    pub(crate) broker_cpu_us: f64,
    pub(crate) peak_rss_mib: f64,
    /// From the order's Kafka timestamp to the decision that closed it.
    pub(crate) closed: Percentiles,
    /// From the order's Kafka timestamp to the broker's own timestamp of its last status event.
    pub(crate) settled: Percentiles,
}

pub(crate) async fn run(rate: f64, seconds: f64) -> Result<Open> {
    let scratch = Scratch::make().await?;
    let measured = measure(&scratch, rate, seconds).await;
    let removed = scratch.remove().await;
    let open = measured?;
    removed?;
    Ok(open)
}

async fn measure(scratch: &Scratch, rate: f64, seconds: f64) -> Result<Open> {
    let shop = Shop::open(scratch)?;
    let reader = Reader::of_events(scratch)?;
    let mut child = Child::start(Subject::service(Duration::ZERO), scratch)?;
    warm_up(&shop, &reader, &mut child)?;
    scratch.checkpoint().await?;
    let servers = Servers::find(scratch).await?;

    let (cpu_began, own_began) = (servers.cpu()?, meter::cpu(child.pid())?);
    let ramp = whole(rate * RAMP.as_secs_f64());
    let orders = ramp + whole(rate * seconds);
    let (intended, shop_late) = sell(&shop, rate, orders)?;
    shop.flush()?;
    wait_for(&reader, &mut child, (WARM_UP + orders) as u64 * EVENTS)?;
    let (cpu_ended, own_ended) = (servers.cpu()?, meter::cpu(child.pid())?);
    let (_, peak) = meter::memory(child.pid())?;

    let counted = |id: &[u8]| {
        let number = number_of(id)?.checked_sub(WARM_UP)?;
        if number < ramp { None } else { intended.get(number).copied() }
    };
    let mut closed = Lateness::new()?;
    for (id, at) in scratch.closings().await? {
        if let Some(meant) = counted(id.as_bytes()) {
            closed.note(at.timestamp_micros() - meant.timestamp_micros());
        }
    }
    let mut settled = Lateness::new()?;
    reader.read_all(|key, kind, at_ms| {
        if kind == b"recharge.order.succeeded.v1"
            && let Some(meant) = counted(key)
        {
            settled.note(at_ms * 1000 - meant.timestamp_micros());
        }
    })?;
    let expected = (orders - ramp) as u64;
    ensure!(closed.len() == expected, "{} of {expected} orders are closed", closed.len());
    ensure!(settled.len() == expected, "{} of {expected} orders have their last event once", settled.len());
    child.stop()?;
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / count(orders);
    Ok(Open {
        rate,
        seconds,
        orders: orders - ramp,
        shop_late_ms: shop_late.as_secs_f64() * 1e3,
        service_cpu_us: micros(own_ended.saturating_sub(own_began)),
        postgres_cpu_us: micros(cpu_ended.postgres.saturating_sub(cpu_began.postgres)),
        broker_cpu_us: micros(cpu_ended.broker.saturating_sub(cpu_began.broker)),
        peak_rss_mib: mib(peak),
        closed: closed.percentiles(),
        settled: settled.percentiles(),
    })
}

/// A few orders, until all of them are done.
pub(crate) fn warm_up(shop: &Shop, reader: &Reader, child: &mut Child) -> Result<()> {
    let now = to_micros(SystemClock::local());
    for number in 0..WARM_UP {
        shop.send(number, now)?;
    }
    shop.flush()?;
    wait_for(reader, child, WARM_UP as u64 * EVENTS)
}

/// Sends every order at its time, or as soon after it as can be; returns the intended times.
fn sell(shop: &Shop, rate: f64, orders: usize) -> Result<(Vec<Timestamp>, Duration)> {
    let mut intended = Vec::with_capacity(orders);
    let (opened, began) = (to_micros(SystemClock::local()), Instant::now());
    let mut latest = Duration::ZERO;
    while intended.len() < orders {
        let due = whole(began.elapsed().as_secs_f64() * rate).min(orders);
        while intended.len() < due {
            let after = Duration::from_secs_f64(count(intended.len()) / rate);
            let at = to_micros(opened + after);
            shop.send(WARM_UP + intended.len(), at)?;
            latest = latest.max(began.elapsed().saturating_sub(after));
            intended.push(at);
        }
        std::thread::sleep(TICK);
    }
    Ok((intended, latest))
}
