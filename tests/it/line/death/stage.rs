//! The line with its two providers and two processes, and the play on it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use recharged::clock::SystemClock;
use recharged::domain::{State, Timestamp};
use rustix::process::Signal;

use super::plan::{Death, Plan};
use super::sale::{Class, sell};
use crate::harness::{Line, PATIENCE, Provider, Service, Wishes};
use crate::line::storm::all_decided;

/// After the last deadline everything is decided within this, on any machine.
const AFTER_ALL: Duration = Duration::from_secs(30);

pub(super) struct Stage {
    line: Line,
    sick: Provider,
    healthy: Provider,
    processes: [Service; 2],
    trouble: Trouble,
}

/// When a provider was dead.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dead {
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
}

/// What the providers did, all their lives together.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    pub(super) submits: u64,
    pub(super) strikes: BTreeMap<String, u64>,
}

/// A play that is over: nobody works any more, and everything is told.
pub(super) struct Played {
    pub(super) line: Line,
    pub(super) sick: Provider,
    pub(super) healthy: Provider,
    /// When the death began, or would have.
    pub(super) dead: Dead,
    pub(super) is_disturbed: bool,
    pub(super) trouble: Trouble,
    /// What the processes said.
    pub(super) logs: String,
    pub(super) took: Duration,
}

impl Trouble {
    async fn note(&mut self, provider: &Provider) {
        self.submits += provider.submits().await;
        for (class, requests) in provider.strikes().await {
            *self.strikes.entry(class).or_default() += requests;
        }
    }

    /// How many of the calls failed in doubt.
    pub(super) fn faults(&self) -> u64 {
        self.strikes.iter().filter(|(class, _)| class.starts_with("faults.")).map(|(_, requests)| requests).sum()
    }
}

impl Stage {
    pub(super) async fn set(plan: &Plan) -> Self {
        let mut sick = Provider::new(plan.sick, &plan.profile(plan.sick));
        let mut healthy = Provider::new(plan.healthy, &plan.profile(plan.healthy));
        let [own, both, theirs] = [Class::Healthy, Class::Either, Class::Sick].map(Class::amount);
        let providers = [plan.configured(&sick, [theirs, both]), plan.configured(&healthy, [own, both])].concat();
        let toml = format!(
            "[[routes]]\nlanes = [{:?}, {:?}]\n[sla]\ndeadline = {:?}\n\
             [retry]\nbackoff_first = \"1s\"\nbackoff_max = \"10s\"\n",
            sick.name(),
            healthy.name(),
            humantime::format_duration(plan.deadline).to_string(),
        );
        let tiers = r#"["1s", "5s", "15s"]"#;
        let wishes = Wishes { providers: Some(providers), toml, tiers, alone: plan.alone, ..Wishes::default() };
        let line = Line::set_up(wishes).await;
        sick.live().await;
        healthy.live().await;
        let processes = ["one", "two"].map(|name| line.spawn(name, &[]));
        for process in &processes {
            process.until_ready().await;
        }
        Self { line, sick, healthy, processes, trouble: Trouble::default() }
    }

    /// Sells, lets the one die and live again meanwhile where that `is_disturbed`, waits until everything is decided,
    /// and ends.
    pub(super) async fn play(mut self, plan: &Plan, is_disturbed: bool) -> Played {
        let clock = Instant::now();
        let ((), from) = tokio::join!(sell(&self.line, plan), async {
            tokio::time::sleep(plan.dies_after).await;
            if is_disturbed { die(&mut self.sick, plan, &mut self.trouble).await } else { SystemClock::local() }
        });
        let dead = Dead { from, until: from + plan.dead_for };
        self.until_decided(plan).await;
        let took = clock.elapsed();
        let logs = self.processes.iter().map(Service::log_text).collect();
        for process in &mut self.processes {
            process.signal(Signal::TERM);
            process.until_ended(PATIENCE).await;
        }
        self.trouble.note(&self.sick).await;
        self.trouble.note(&self.healthy).await;
        let _relay = self.line.start_roles("teller", "relay", &[]).await;
        self.line.until_told().await;
        let Self { line, sick, healthy, trouble, .. } = self;
        Played { line, sick, healthy, dead, is_disturbed, trouble, logs, took }
    }

    async fn until_decided(&self, plan: &Plan) {
        let deadline = Instant::now() + plan.deadline + AFTER_ALL;
        loop {
            let counts: BTreeMap<State, u64> = self.line.counts().await;
            if all_decided(&counts, plan.orders) {
                return;
            }
            assert!(Instant::now() < deadline, "not everything was decided: {counts:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Returns when it died.
async fn die(sick: &mut Provider, plan: &Plan, trouble: &mut Trouble) -> Timestamp {
    match plan.death {
        Death::Killed => {
            // What it has counted goes with it.
            trouble.note(sick).await;
            let died = SystemClock::local();
            sick.kill();
            tokio::time::sleep(plan.dead_for).await;
            sick.live().await;
            died
        }
        Death::Refused => {
            let died = SystemClock::local();
            sick.refuse_for(plan.dead_for).await;
            died
        }
    }
}
