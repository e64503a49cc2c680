//! What must not make a record early, nor lose one: a process that is killed and comes back, one that joins
//! and leaves, and a clock that steps.
//!
//! The clock: the service goes by the database's time, carried on by the time since the machine began
//! (`src/clock.rs`), and a process's own wall clock cannot be stepped here without stepping everybody's. So it is
//! the database's clock that steps, for this database alone: its `clock_timestamp()` is shadowed. Back, nothing may come
//! before its time; forth, nothing before its time on the clock that stepped.

use std::time::Duration;

use anyhow::Result;
use recharged::clock::SystemClock;
use serde::Serialize;

use crate::burst::millis;
use crate::common::process::Service;
use crate::items::Kind;
use crate::stage::{Load, Outcome, Stage, judge};
use crate::target::Arrival;

/// From the kill to the next start.
const AWAY: Duration = Duration::from_secs(3);
const STEP_MS: i64 = 1_000;
const SKEW: &str = "recharge_clock_skew_seconds";

/// Which fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fault {
    Killed,
    Joined,
    StepBack,
    StepForth,
}

impl Fault {
    pub(crate) const ALL: [Self; 4] = [Self::Killed, Self::Joined, Self::StepBack, Self::StepForth];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Killed => "killed, back after 3 s",
            Self::Joined => "a second joins and leaves",
            Self::StepBack => "the clock steps back 1 s",
            Self::StepForth => "the clock steps forth 1 s",
        }
    }
}

/// What became of a run with a fault in it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Faulted {
    pub(crate) fault: Fault,
    pub(crate) outcome: Outcome,
    /// Of a process that came back: its start to its readiness, and from there to the last record that was
    /// overdue then.
    pub(crate) ready_after_ms: Option<f64>,
    pub(crate) caught_up_ms: Option<f64>,
}

pub(crate) async fn run(fault: Fault, load: Load) -> Result<Faulted> {
    let stage = Stage::set().await?;
    let measured = measure(&stage, fault, load).await;
    let struck = stage.strike().await;
    let faulted = measured?;
    struck?;
    Ok(faulted)
}

async fn measure(stage: &Stage, fault: Fault, load: Load) -> Result<Faulted> {
    match fault {
        Fault::Killed => killed(stage, load),
        Fault::Joined => joined(stage, load),
        Fault::StepBack => stepped(stage, load, fault, -STEP_MS).await,
        Fault::StepForth => stepped(stage, load, fault, STEP_MS).await,
    }
}

fn third(load: Load) -> Duration {
    Duration::from_secs_f64(load.seconds / 3.0)
}

/// A named process, as in a deployment whose processes come back: its partitions wait for it.
fn killed(stage: &Stage, load: Load) -> Result<Faulted> {
    let first = Service::ready(&stage.scratch, "delay", Some("delay-0"))?;
    let (arrivals, (started_us, ready_us, again)) = stage.play(load, || {
        std::thread::sleep(third(load) + Duration::from_secs(5));
        first.kill()?;
        std::thread::sleep(AWAY);
        let started_us = now_us();
        let again = Service::ready(&stage.scratch, "delay", Some("delay-0"))?;
        Ok((started_us, now_us(), again))
    })?;
    again.stop()?;
    // Overdue at its readiness, and not there yet when it came back.
    let overdue = |arrival: &&Arrival| {
        arrival.kind == Kind::Delayed && arrival.meant_us <= ready_us && arrival.arrived_us > started_us
    };
    let last = arrivals.iter().filter(overdue).map(|arrival| arrival.arrived_us).max();
    Ok(Faulted {
        fault: Fault::Killed,
        outcome: judge(load, &arrivals, |_| 0)?,
        ready_after_ms: Some(millis(ready_us - started_us)),
        caught_up_ms: Some(millis(last.map_or(0, |last| (last - ready_us).max(0)))),
    })
}

fn joined(stage: &Stage, load: Load) -> Result<Faulted> {
    let first = Service::ready(&stage.scratch, "delay", None)?;
    let (arrivals, ()) = stage.play(load, || {
        std::thread::sleep(third(load));
        let second = Service::ready(&stage.scratch, "delay", None)?;
        std::thread::sleep(third(load));
        second.stop()
    })?;
    first.stop()?;
    let outcome = judge(load, &arrivals, |_| 0)?;
    Ok(Faulted { fault: Fault::Joined, outcome, ready_after_ms: None, caught_up_ms: None })
}

async fn stepped(stage: &Stage, load: Load, fault: Fault, by_ms: i64) -> Result<Faulted> {
    shadow_clock(stage).await?;
    let forwarder = Service::ready(&stage.scratch, "delay", None)?;
    let runtime = tokio::runtime::Handle::current();
    let (arrivals, stepped_us) = stage.play(load, || {
        std::thread::sleep(third(load) + Duration::from_secs(5));
        let before_us = now_us();
        let step = format!("update stepped.step set by = interval '{by_ms} milliseconds'");
        std::thread::scope(|scope| scope.spawn(|| runtime.block_on(stage.scratch.run(&step))).join())
            .map_err(|_| anyhow::anyhow!("the step panicked"))??;
        // The process goes by it from its next look on.
        forwarder.until(SKEW, |skew| (skew * 1e3 - f64::from(i32::try_from(by_ms).unwrap_or(0))).abs() < 100.0)?;
        Ok(before_us)
    })?;
    forwarder.stop()?;
    let ahead = |arrival: &Arrival| if arrival.arrived_us >= stepped_us { by_ms.max(0) } else { 0 };
    Ok(Faulted { fault, outcome: judge(load, &arrivals, ahead)?, ready_after_ms: None, caught_up_ms: None })
}

/// A `clock_timestamp()` of this database's own, found before the server's by those who connect from now on.
async fn shadow_clock(stage: &Stage) -> Result<()> {
    let statements = [
        "create schema stepped",
        "create table stepped.step (by interval not null)",
        "insert into stepped.step values (interval '0')",
        "create function stepped.clock_timestamp() returns timestamptz language sql volatile \
         as $$ select pg_catalog.clock_timestamp() + (select by from stepped.step) $$",
    ];
    for statement in statements {
        stage.scratch.run(statement).await?;
    }
    let database = stage.scratch.database();
    stage.scratch.run(&format!("alter database {database} set search_path = stepped, pg_catalog, public")).await
}

fn now_us() -> i64 {
    SystemClock::local().timestamp_micros()
}
