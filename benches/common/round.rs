//! One closed-loop measurement: orders wait in the topic, a child works them off.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use chrono::SubsecRound as _;
use recharged::clock::SystemClock;
use recharged::domain::Timestamp;
use serde::Serialize;

use crate::common::calibration::{self, Calibration};
use crate::common::child::{Child, Subject};
use crate::common::meter::{self, Servers};
use crate::common::orders::Shop;
use crate::common::profile::Profile;
use crate::common::scratch::{Counts, Scratch};
use crate::common::topics::Reader;

/// Without progress for this long, a child is stuck.
const STUCK: Duration = Duration::from_mins(1);
/// How often the topic is looked at, far from the end and near to it.
const FAR: Duration = Duration::from_millis(100);
const NEAR: Duration = Duration::from_millis(10);
/// An order has three status events.
pub(crate) const EVENTS: u64 = 3;

/// What one measurement found. CPU is of the child's whole life up to the last event, its start
/// included.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
    pub(crate) subject: &'static str,
    pub(crate) answer_after_ms: u64,
    pub(crate) watchdog: bool,
    pub(crate) orders: usize,
    pub(crate) seconds: f64,
    pub(crate) orders_per_second: f64,
    pub(crate) service_cpu_us: f64,
    pub(crate) postgres_cpu_us: f64,
    pub(crate) broker_cpu_us: f64,
    pub(crate) cpu_us: f64,
    pub(crate) wal_bytes: f64,
    pub(crate) hot_share: f64,
    pub(crate) peak_rss_mib: f64,
    pub(crate) calibration_cpu_ms: f64,
    pub(crate) calibration_wall_ms: f64,
    /// `cpu_us`, had the calibration taken as long as on the machine of reference.
    pub(crate) scaled_cpu_us: f64,
}

/// Runs `subject` over `orders` orders.
pub(crate) async fn run(subject: Subject, orders: usize, profile: Option<&Profile>) -> Result<Sample> {
    let scratch = Scratch::make().await?;
    let measured = measure(&scratch, subject, orders, profile).await;
    let removed = scratch.remove().await;
    let sample = measured?;
    removed?;
    Ok(sample)
}

async fn measure(scratch: &Scratch, subject: Subject, orders: usize, profile: Option<&Profile>) -> Result<Sample> {
    preload(scratch, orders)?;
    scratch.checkpoint().await?;
    let servers = Servers::find(scratch).await?;
    let reader = Reader::of_events(scratch)?;
    let before = calibration::measure();
    let (cpu_began, wal_began) = (servers.cpu()?, scratch.wal_bytes().await?);

    let mut child = Child::start(subject, scratch)?;
    let profiling = profile.map(|profile| profile.attach(child.pid(), servers)).transpose()?;
    wait_for(&reader, &mut child, orders as u64 * EVENTS)?;
    let mut ended = SystemClock::local();
    let cpu_ended = servers.cpu()?;
    let child_cpu = meter::cpu(child.pid())?;
    let wal_ended = scratch.wal_bytes().await?;
    let calibration = slower(before, calibration::measure());
    // Repeated events could have hidden missing ones: the database has the last word.
    let late = verify(scratch, &mut child, orders).await?;
    if let Some(late) = late {
        ended = late;
    }
    let (_, peak) = meter::memory(child.pid())?;
    let began = scratch.first_entry_at().await?;
    if let Some(profiling) = profiling {
        profiling.finish()?;
    }
    let status = child.stop()?;
    ensure!(status.success(), "the {} ended with {status}", subject.role.as_str());

    let per_order = |total: f64| total / count(orders);
    let micros = |time: Duration| per_order(time.as_secs_f64() * 1e6);
    let service = micros(child_cpu);
    let postgres = micros(cpu_ended.postgres.saturating_sub(cpu_began.postgres));
    let broker = micros(cpu_ended.broker.saturating_sub(cpu_began.broker));
    let seconds = (ended - began).as_seconds_f64();
    let cpu = service + postgres + broker;
    #[expect(clippy::cast_precision_loss, reason = "bytes of a run stay far below 2^53")]
    let wal = (wal_ended - wal_began) as f64;
    Ok(Sample {
        subject: subject.role.as_str(),
        answer_after_ms: u64::try_from(subject.answer_after.as_millis())?,
        watchdog: subject.watchdog,
        orders,
        seconds,
        orders_per_second: count(orders) / seconds,
        service_cpu_us: service,
        postgres_cpu_us: postgres,
        broker_cpu_us: broker,
        cpu_us: cpu,
        wal_bytes: per_order(wal),
        hot_share: scratch.hot_share().await?,
        peak_rss_mib: mib(peak),
        calibration_cpu_ms: calibration.cpu.as_secs_f64() * 1e3,
        calibration_wall_ms: calibration.wall.as_secs_f64() * 1e3,
        scaled_cpu_us: cpu * calibration.scale(),
    })
}

fn preload(scratch: &Scratch, orders: usize) -> Result<()> {
    let shop = Shop::open(scratch)?;
    // Whole milliseconds, which is what a command's deadline has: the ceiling, which does not read
    // the row, must not change the indexed column.
    let at = SystemClock::local().trunc_subsecs(3);
    for number in 0..orders {
        shop.send(number, at)?;
    }
    shop.flush()
}

/// Waits until the topic of status events holds `events`.
pub(crate) fn wait_for(reader: &Reader, child: &mut Child, events: u64) -> Result<()> {
    let (mut seen, mut since) = (0, Instant::now());
    loop {
        let count = reader.count()?;
        if count >= events {
            return Ok(());
        }
        if count > seen {
            (seen, since) = (count, Instant::now());
        }
        child.is_alive()?;
        if since.elapsed() > STUCK {
            bail!("no further event for {STUCK:?}, {count} of {events} are there");
        }
        std::thread::sleep(if count * 10 < events * 9 { FAR } else { NEAR });
    }
}

/// Makes sure that every order has succeeded and is published; returns when that was, if it was
/// not so at once.
async fn verify(scratch: &Scratch, child: &mut Child, orders: usize) -> Result<Option<Timestamp>> {
    let began = Instant::now();
    let mut late = None;
    loop {
        let Counts { orders: stored, succeeded, all_published } = scratch.counts().await?;
        ensure!(usize::try_from(stored)? <= orders, "{stored} orders are stored, {orders} were sent");
        if usize::try_from(succeeded)? == orders && all_published {
            return Ok(late);
        }
        child.is_alive()?;
        ensure!(
            began.elapsed() < STUCK,
            "{succeeded} of {orders} orders have succeeded, all published: {all_published}"
        );
        std::thread::sleep(NEAR);
        // The cursor moves a moment after the acknowledgement, which is what counts.
        late = (usize::try_from(succeeded)? < orders).then(SystemClock::local);
    }
}

fn slower(a: Calibration, b: Calibration) -> Calibration {
    if a.cpu > b.cpu { a } else { b }
}

/// Bytes as people read them.
#[expect(clippy::cast_precision_loss, reason = "the memory of a process stays far below 2^53")]
pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// A number of orders, to divide by.
pub(crate) fn count(orders: usize) -> f64 {
    f64::from(u32::try_from(orders).unwrap_or(u32::MAX))
}
