//! What the machine itself does to a commit: one row, written again every few milliseconds beside everything
//! else. Where not even that goes through, no verdict does, and it is the disk that stood still.

use std::time::Duration;

use anyhow::Result;
use recharged::clock::SystemClock;
use serde::Serialize;
use sqlx::postgres::PgConnection;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::common::lateness::{Lateness, Percentiles};
use crate::common::scratch::Scratch;

const EVERY: Duration = Duration::from_millis(20);
/// A commit that takes so long stood still.
const STALL_US: i64 = 100_000;

/// Commits of one row, until it is told to end.
#[derive(Debug)]
pub(crate) struct Bare {
    task: JoinHandle<Result<Vec<Commit>>>,
    stop: CancellationToken,
}

#[derive(Debug, Clone, Copy)]
struct Commit {
    began_us: i64,
    ended_us: i64,
}

/// What became of them.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct BareCommits {
    pub(crate) took: Percentiles,
    /// Commits of a tenth of a second and more.
    pub(crate) stalls: usize,
    /// Verdicts that came too late while such a commit was under way.
    pub(crate) late_beside_a_stall: usize,
}

impl Bare {
    pub(crate) async fn begin(scratch: &Scratch) -> Result<Self> {
        let mut connection = scratch.connect().await?;
        run(&mut connection, "create table bare_commits (n bigint not null)").await?;
        run(&mut connection, "insert into bare_commits values (0)").await?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(write(connection, stop.clone()));
        Ok(Self { task, stop })
    }

    /// Ends it. `late` says from when to when each verdict that came too late was waited for.
    pub(crate) async fn end(self, late: &[(i64, i64)]) -> Result<BareCommits> {
        self.stop.cancel();
        let commits = self.task.await??;
        let mut took = Lateness::new()?;
        for commit in &commits {
            took.note(commit.ended_us - commit.began_us);
        }
        let stalls: Vec<&Commit> =
            commits.iter().filter(|commit| commit.ended_us - commit.began_us >= STALL_US).collect();
        let beside =
            |(due, seen): &&(i64, i64)| stalls.iter().any(|stall| stall.began_us < *seen && stall.ended_us > *due);
        Ok(BareCommits {
            took: took.percentiles(),
            stalls: stalls.len(),
            late_beside_a_stall: late.iter().filter(beside).count(),
        })
    }
}

async fn write(mut connection: PgConnection, stop: CancellationToken) -> Result<Vec<Commit>> {
    let mut commits = Vec::new();
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !stop.is_cancelled() {
        ticks.tick().await;
        let began_us = SystemClock::local().timestamp_micros();
        run(&mut connection, "update bare_commits set n = n + 1").await?;
        commits.push(Commit { began_us, ended_us: SystemClock::local().timestamp_micros() });
    }
    Ok(commits)
}

async fn run(on: &mut PgConnection, statement: &'static str) -> Result<()> {
    #[expect(clippy::disallowed_methods, reason = "statements of the measurement")]
    sqlx::query(statement).execute(on).await?;
    Ok(())
}
