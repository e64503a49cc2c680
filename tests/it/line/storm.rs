//! A provider on its worst day, and processes that die all the time: every order is decided, no
//! recharge is made twice, each refund is asked for once, and every event is told.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use recharged::domain::{DuplicateSemantics, EventType, OrderId, State};
use recharged::ports::InRecord;
use recharged::providers::simulator::{FaultClass, Profile, Script};
use rustix::process::Signal;

use super::support::{body, header_of};
use crate::harness::{Line, PATIENCE, Service, Wishes};

/// A process lives so long on average; then another one dies.
const LIFE: Duration = Duration::from_secs(5);
/// So many die after the last order was sent, while the rest is worked off.
const DEATHS_AFTERWARDS: u64 = 3;
const RULES: &str = "[sla]\ndeadline = \"45s\"\nunpaid_timeout = \"1m\"\nnotify_after = \"30s\"\n\
                     [retry]\nbackoff_first = \"1s\"\nbackoff_max = \"10s\"\n";

struct Storm {
    line: Line,
    processes: [Service; 2],
    kills: usize,
}

impl Storm {
    async fn begin(permits_per_second: f64, duplicates: DuplicateSemantics) -> Self {
        let wishes = Wishes {
            profile: Profile { duplicates, ..Profile::storm() },
            call_timeout: "4s",
            permits_per_second,
            tiers: r#"["1s", "5s", "15s"]"#,
            toml: RULES.to_owned(),
            ..Wishes::default()
        };
        let line = Line::set_up(wishes).await;
        line.simulator.script(&each_class_for_certain()).unwrap();
        let processes = [born(&line, 0), born(&line, 1)];
        for process in &processes {
            process.until_ready().await;
        }
        Self { line, processes, kills: 0 }
    }

    /// One dies as it stands, and comes back at once: mostly under its own name, every fourth as somebody
    /// else, whose partitions the other one has to find abandoned.
    fn strike(&mut self) {
        let turn = self.kills % 2;
        self.processes[turn].kill();
        self.kills += 1;
        let name = if self.kills.is_multiple_of(4) { self.kills } else { turn };
        self.processes[turn] = born(&self.line, name);
    }

    /// Sends `orders` over `rounds`, a death in each, and lets some more die afterwards; then waits until
    /// every order is decided.
    async fn rage(&mut self, orders: u64, rounds: u64) {
        for round in 0..rounds {
            self.line.send(&format!("r{round}"), orders / rounds).await;
            tokio::time::sleep(LIFE).await;
            self.strike();
        }
        for _ in 0..DEATHS_AFTERWARDS {
            tokio::time::sleep(LIFE).await;
            self.strike();
        }
        self.line.until_counts("every order is decided", |counts| all_decided(counts, orders)).await;
    }

    /// Ends both, since orders in doubt move on for as long as somebody asks about them; the rest is told by a
    /// relay alone.
    async fn calm(mut self) -> (Line, Service) {
        for process in &mut self.processes {
            process.signal(Signal::TERM);
            process.until_ended(PATIENCE).await;
        }
        let relay = self.line.start_roles("teller", "relay", &[]).await;
        self.line.until_told().await;
        (self.line, relay)
    }

    async fn reckon(self, orders: u64) {
        let kills = self.kills;
        let (line, _relay) = self.calm().await;
        let report = line.audit().await;
        assert_eq!(report.orders, orders);
        assert!(report.audit.clean, "{report:?}");
        let (twice, _) = line.sent_twice();
        if !line.simulator.profile().duplicates.resend_is_safe() {
            assert!(twice.is_empty(), "sent again, where that is executed again: {twice:?}");
        }
        // No event without its state, and none missing.
        let told = line.events_in_order().await;
        let rows = line.rows().await;
        for row in &rows {
            assert_eq!(told.get(row.order_id.as_str()), Some(&u64::from(row.version)), "{}", row.order_id);
        }
        // A refund for each that failed, and for none else.
        let refunded = refunded(&line.read_all("refunds").await);
        let failed: HashMap<String, usize> =
            rows.iter().filter(|row| row.state == State::Failed).map(|row| (row.order_id.to_string(), 1)).collect();
        assert_eq!(refunded, failed);
        let count = |state| rows.iter().filter(|row| row.state == state).count();
        let [succeeded, in_doubt] = [State::Succeeded, State::InDoubt].map(count);
        let happened = Happened::to(&line, &rows.iter().map(|row| row.order_id.clone()).collect::<Vec<_>>()).await;
        println!(
            "{kills} kills: {succeeded} succeeded, {} failed and were refunded once, {in_doubt} in doubt; {happened:?}; \
             {report:?}",
            failed.len(),
        );
        // It was a storm, the line worked in it, and none of this was idle.
        assert!(succeeded > rows.len() / 4, "{succeeded} of {} succeeded", rows.len());
        assert!(happened.retries > 0 && happened.adoptions > 0 && happened.doubts > 0, "{happened:?}");
        let struck: HashSet<FaultClass> =
            line.simulator.strikes().iter().filter(|strike| strike.orders > 0).map(|strike| strike.class).collect();
        let idle: Vec<FaultClass> =
            Profile::storm().classes().into_iter().filter(|class| !struck.contains(class)).collect();
        assert!(idle.is_empty(), "these struck nobody: {idle:?}");
    }
}

/// A process with a lasting name, as in production.
fn born(line: &Line, number: usize) -> Service {
    let name = format!("storm-{number}");
    line.spawn(&name, &[("RECHARGED__PROCESS__NAME", &name)])
}

/// What the log tells of the way there.
#[derive(Debug, Default)]
struct Happened {
    retries: usize,
    /// Sends whose caller had died, and that another process asked about.
    adoptions: usize,
    doubts: usize,
}

impl Happened {
    async fn to(line: &Line, orders: &[OrderId]) -> Self {
        let mut happened = Self::default();
        for page in orders.chunks(2_000) {
            for event in line.store.timelines(page).await.unwrap().into_iter().flatten() {
                happened.retries += usize::from(event.kind == EventType::RetryScheduled);
                happened.doubts += usize::from(event.kind == EventType::InDoubt);
                happened.adoptions += usize::from(event.data.cause.as_deref() == Some("caller_lost"));
            }
        }
        happened
    }
}

/// Each class of the profile meets one of ten orders of the first round that have a chance of being the
/// one: those that it strikes by itself may be few, and a process may die with them.
fn each_class_for_certain() -> Script {
    let mut classes = Profile::storm().classes();
    // Last, since it can swallow what comes beside it.
    classes.sort_by_key(|class| *class == FaultClass::Outage);
    let count = classes.len();
    let orders = |place: usize| (0..10).map(|turn| format!("r0-{}", place + turn * count)).collect();
    Script::for_orders(classes.into_iter().enumerate().map(|(place, class)| (orders(place), class)))
}

pub(super) fn all_decided(counts: &BTreeMap<State, u64>, orders: u64) -> bool {
    let open = [State::Queued, State::InFlight, State::RetryWait];
    counts.values().sum::<u64>() == orders && open.iter().all(|state| !counts.contains_key(state))
}

/// Refund requests by order; a request that was told twice has one event id.
pub(super) fn refunded(records: &[InRecord]) -> HashMap<String, usize> {
    let mut ids: HashMap<String, HashSet<String>> = HashMap::new();
    for record in records {
        let order = body(record)["order_id"].as_str().unwrap().to_owned();
        ids.entry(order).or_default().insert(header_of(record, "ce_id").to_owned());
    }
    ids.into_iter().map(|(order, ids)| (order, ids.len())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_storm_with_processes_that_die_every_order_ends_honestly() {
    let began = Instant::now();
    let mut storm = Storm::begin(200.0, DuplicateSemantics::RejectsAlways).await;
    storm.rage(1_000, 4).await;
    println!("decided after {:?}", began.elapsed());
    storm.reckon(1_000).await;
}

/// Nothing absorbs what is sent twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_storm_at_a_provider_that_executes_all_it_gets_no_reference_is_sent_twice() {
    let mut storm = Storm::begin(200.0, DuplicateSemantics::NotDeduplicated).await;
    storm.rage(1_000, 4).await;
    storm.reckon(1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "twenty thousand orders, minutes: scripts/campaign storm"]
async fn campaign_of_twenty_thousand_orders() {
    let began = Instant::now();
    let mut storm = Storm::begin(1_000.0, DuplicateSemantics::RejectsAlways).await;
    storm.rage(20_000, 40).await;
    println!("decided after {:?}", began.elapsed());
    storm.reckon(20_000).await;
}
