//! A provider on its worst day, and processes that die all the time: every order is decided, no
//! recharge is made twice, each refund is asked for once, and every event is told.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use recharged::domain::{Order, State};
use recharged::providers::simulator::Profile;

use super::support::body;
use crate::harness::{Line, Service, Wishes};

/// A process lives so long on average; then another one dies.
const LIFE: Duration = Duration::from_secs(5);
const RULES: &str = "[sla]\ndeadline = \"45s\"\nunpaid_timeout = \"1m\"\nnotify_after = \"30s\"\n\
                     [retry]\nbackoff_first = \"1s\"\nbackoff_max = \"10s\"\n";

struct Storm {
    line: Line,
    processes: [Service; 2],
    kills: u32,
}

impl Storm {
    async fn begin(permits_per_second: f64) -> Self {
        let wishes = Wishes {
            profile: Profile::storm(),
            call_timeout: "4s",
            permits_per_second,
            tiers: r#"["1s", "5s", "15s"]"#,
            toml: RULES.to_owned(),
            ..Wishes::default()
        };
        let line = Line::set_up(wishes).await;
        let processes = [line.start("one", &[]).await, line.start("two", &[]).await];
        Self { line, processes, kills: 0 }
    }

    /// One dies as it stands, and comes back at once under another name.
    fn strike(&mut self) {
        let turn = usize::try_from(self.kills % 2).unwrap();
        self.processes[turn].kill();
        self.kills += 1;
        self.processes[turn] = self.line.spawn(&format!("life-{}", self.kills), &[]);
    }

    /// Sends `orders` over `rounds`, a death in each; then waits until every order is decided.
    async fn rage(&mut self, orders: u64, rounds: u64) {
        for round in 0..rounds {
            self.line.send(&format!("r{round}-"), orders / rounds).await;
            tokio::time::sleep(LIFE).await;
            self.strike();
        }
        self.line.until_counts("every order is decided", |counts| all_decided(counts, orders)).await;
    }

    async fn reckon(self, orders: u64) {
        let report = self.line.audit().await;
        println!("{} kills; {report:?}", self.kills);
        assert_eq!(report.orders, orders);
        assert!(report.audit.clean, "{report:?}");
        // No event without its state, and none missing.
        let told = self.line.events_in_order().await;
        let rows = self.line.rows().await;
        for row in &rows {
            assert_eq!(told.get(row.order_id.as_str()), Some(&u64::from(row.version)), "{}", row.order_id);
        }
        let failed: Vec<&Order> = rows.iter().filter(|row| row.state == State::Failed).collect();
        let refunds = self.line.read("refunds", |records| refunded(records).len() >= failed.len()).await;
        let refunded = refunded(&refunds);
        assert!(failed.iter().all(|row| refunded.get(row.order_id.as_str()) == Some(&1)), "{refunded:?}");
        assert_eq!(refunded.len(), failed.len(), "a refund for each that failed, and for none else");
        let late = rows.iter().filter(|row| row.state == State::InDoubt).count();
        println!("{} failed and were refunded once, {late} in doubt", failed.len());
    }
}

fn all_decided(counts: &BTreeMap<State, u64>, orders: u64) -> bool {
    let open = [State::Queued, State::InFlight, State::RetryWait];
    counts.values().sum::<u64>() == orders && open.iter().all(|state| !counts.contains_key(state))
}

/// Refund requests by order; a request that was told twice has one event id.
fn refunded(records: &[recharged::ports::InRecord]) -> HashMap<String, usize> {
    let mut ids: HashMap<String, std::collections::HashSet<String>> = HashMap::new();
    for record in records {
        let order = body(record)["order_id"].as_str().unwrap().to_owned();
        ids.entry(order).or_default().insert(super::support::header_of(record, "ce_id").to_owned());
    }
    ids.into_iter().map(|(order, ids)| (order, ids.len())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_storm_with_processes_that_die_every_order_ends_honestly() {
    let began = Instant::now();
    let mut storm = Storm::begin(200.0).await;
    storm.rage(1_000, 4).await;
    println!("decided after {:?}", began.elapsed());
    storm.reckon(1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "twenty thousand orders, minutes: scripts/campaign storm"]
async fn campaign_of_twenty_thousand_orders() {
    let mut storm = Storm::begin(1_000.0).await;
    storm.rage(20_000, 40).await;
    storm.reckon(20_000).await;
}
