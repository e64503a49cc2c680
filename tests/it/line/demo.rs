//! The demo, as somebody runs it who has just built it.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use recharged::providers::simulator::{Profile, read_ledger};
use serde_json::Value;

use super::refusals::{Ended, ended};
use crate::harness::{PATIENCE, variable};
use crate::pace::at_most;
use crate::store::place::Scratch;

fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_recharged"));
    command.args(["demo", "--orders", "300", "--rate", "200", "--listen", "127.0.0.1:0", "--json"]);
    command.args(arguments).env("NO_COLOR", "1");
    command
}

fn assert_clean(ended: &Ended, orders: u64) -> Value {
    let report = ended.object();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.said.is_empty(), "{ended:?}");
    assert_eq!(report["orders"], orders, "{report}");
    for counter in [
        "lost",
        "double",
        "wrongly_failed",
        "taken_back",
        "unaccounted",
        "misdelivered",
        "unrefunded",
        "wrongly_refunded",
        "untold",
        "overdue",
    ] {
        assert_eq!(report["audit"][counter], 0, "{counter}: {report}");
    }
    assert_eq!(report["audit"]["clean"], true);
    assert_eq!(report["open"], 0, "{report}");
    assert_eq!((&report["records_dropped"], &report["events"]["out_of_order"]), (&0.into(), &0.into()), "{report}");
    let sum: u64 = ["succeeded", "failed", "cancelled", "in_doubt", "open"]
        .iter()
        .map(|state| report[*state].as_u64().unwrap())
        .sum();
    assert_eq!(sum, orders, "{report}");
    assert_eq!(report["refunds"], report["failed"]);
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demo_without_faults_delivers_everything_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.json");
    let ended = ended(demo(&["--faults", "none", "--report", file.to_str().unwrap()]), PATIENCE).await;
    let report = assert_clean(&ended, 300);
    assert_eq!(
        (&report["succeeded"], &report["sla"]["met"], &report["sla"]["missed"]),
        (&300.into(), &300.into(), &0.into())
    );
    assert!(report["orders_per_second"].as_f64().unwrap() > 1.0, "{report}");
    assert!(report["resolution_ms"]["p50"].as_f64().unwrap() > 0.0);
    let written: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(written, report);
}

/// Each class that the profile rates has struck an order, and what came of it is told.
fn assert_struck(report: &Value, profile: &Profile) {
    assert_eq!(report["untouched"], Value::Array(Vec::new()), "{report}");
    let faults = report["faults"].as_array().unwrap();
    for class in profile.classes() {
        let strike = faults.iter().find(|strike| strike["class"] == class.as_str());
        let orders = strike.and_then(|strike| strike["orders"].as_u64()).unwrap_or(0);
        assert!(orders > 0 && orders <= 300, "{class}: {orders} orders; {report}");
    }
    let count = |name: &str| report[name].as_u64().unwrap();
    assert!(count("retries") > 0 && count("failed") > 0, "{report}");
    assert!(count("doubts") > 0 && count("in_doubt") > 0, "one was accepted and never completed: {report}");
    assert!(count("cases") > count("in_doubt"), "another amount is a case of an order that succeeded: {report}");
    assert!(count("reversals") > 0, "{report}");
    assert_eq!(report["early"], 0, "{report}");
    let late = |part: &str| report["delay_lateness_ms"][part].as_f64().unwrap();
    assert!(late("p50") <= late("p99") && late("p99") <= late("max"), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demo_with_some_faults_meets_every_class_and_ends_with_a_clean_audit() {
    let (begun, sla) = (Instant::now(), Duration::from_secs(30));
    let report = assert_clean(&ended(demo(&["--faults", "some", "--seed", "11", "--sla", "30s"]), PATIENCE).await, 300);
    assert_struck(&report, &Profile::some_faults());
    assert!(report["succeeded"].as_u64().unwrap() > 200, "{report}");
    at_most("the demo", begun.elapsed(), sla + Duration::from_secs(30), PATIENCE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demo_in_a_storm_meets_every_class_and_ends_with_a_clean_audit() {
    let report =
        assert_clean(&ended(demo(&["--faults", "storm", "--seed", "12", "--sla", "30s"]), PATIENCE).await, 300);
    assert_struck(&report, &Profile::storm());
    assert!(report["succeeded"].as_u64().unwrap() > 50, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn for_people_the_demo_tells_how_many_orders_each_fault_touched() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_recharged"));
    command.args(["demo", "--orders", "150", "--rate", "150", "--listen", "127.0.0.1:0", "--faults", "some"]);
    command.args(["--seed", "5", "--sla", "25s"]).env("NO_COLOR", "1");
    let ended = ended(command, PATIENCE).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for words in
        ["what the provider did, and to how many orders", "  outcomes.never  ", "orders were in doubt", "with a case"]
    {
        assert!(ended.stdout.contains(words), "{words}: {}", ended.stdout);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demo_of_orders_that_are_not_paid_yet_ends_each_as_its_customer_has_it() {
    let scratch = Scratch::empty().await;
    let brokers = variable("KAFKA_BROKERS");
    // A real broker, a real database, and a real ten seconds.
    let mut command =
        demo(&["--scenario", "unpaid", "--unpaid-timeout", "10s", "--notify-after", "3s", "--seed", "21"]);
    command.args(["--database", &scratch.url, "--kafka", &brokers]);
    let ended = ended(command, PATIENCE).await;
    let report = ended.object();
    assert_eq!((ended.code, ended.said.len()), (Some(0), 0), "{ended:?}");
    assert_eq!((&report["orders"], &report["open"], &report["audit"]["clean"]), (&300.into(), &0.into(), &true.into()));
    let unpaid = &report["unpaid"];
    let count = |of: &Value| of.as_u64().unwrap();
    let by_customer = |name: &str| count(&unpaid["customers"][name]);
    let paid = by_customer("pays") + by_customer("pays_ahead") + by_customer("pays_and_cancels");
    assert_eq!((count(&report["succeeded"]), count(&report["cancelled"])), (paid, 300 - paid), "{report}");
    assert_eq!(count(&report["refunds"]), by_customer("cancels_and_pays") + by_customer("pays_too_late"), "{report}");
    assert_eq!((count(&unpaid["notified"]), count(&unpaid["refunded"])), (300, count(&report["refunds"])), "{report}");
    for wrong in ["unexpected", "cancelled_early", "notified_early", "not_notified_once", "not_refunded_once"] {
        assert_eq!(unpaid[wrong], 0, "{wrong}: {report}");
    }
    let late = |what: &str| Duration::from_secs_f64(unpaid[what]["max"].as_f64().unwrap() / 1e3);
    at_most("the latest cancellation", late("cancelled_late_ms"), Duration::from_secs(1), PATIENCE);
    at_most("the latest notification", late("notified_late_ms"), Duration::from_secs(1), PATIENCE);
}

/// What was sold, by id: what a run with the same seed must sell again.
async fn sold(seed: &str) -> BTreeMap<String, (i64, String)> {
    let scratch = Scratch::empty().await;
    let brokers = variable("KAFKA_BROKERS");
    let real = ["--faults", "none", "--seed", seed, "--database", &scratch.url, "--kafka", &brokers];
    assert_clean(&ended(demo(&real), PATIENCE).await, 300);
    let store = recharged::store::open(&scratch.url, &recharged::store::StoreOptions::default()).await.unwrap();
    let page = store.page(&recharged::ports::OrderFilter::default(), None, 1_000).await.unwrap();
    let told = |order: recharged::domain::Order| {
        let number = order.recipient.msisdn().map(|number| number.expose().clone()).unwrap_or_default();
        (order.order_id.to_string(), (order.amount.minor, number))
    };
    page.orders.into_iter().map(|view| told(view.order)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_seed_sells_the_same_orders_also_on_a_real_broker_and_database() {
    let (first, again, other) = (sold("42").await, sold("42").await, sold("43").await);
    assert_eq!(first.len(), 300);
    assert_eq!(first, again);
    assert_ne!(first.values().collect::<Vec<_>>(), other.values().collect::<Vec<_>>());
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_in_the_middle_ends_soon_with_a_report() {
    let folder = tempfile::tempdir().unwrap();
    let (out, err) = (folder.path().join("out"), folder.path().join("err"));
    let listen = crate::harness::free_address();
    let mut command = Command::new(env!("CARGO_BIN_EXE_recharged"));
    command.args(["demo", "--orders", "100000", "--rate", "200", "--faults", "some", "--json"]);
    command.args(["--listen", &listen.to_string()]).stdin(Stdio::null()).env("TMPDIR", folder.path());
    command.stdout(std::fs::File::create(&out).unwrap()).stderr(std::fs::File::create(&err).unwrap());
    let mut running = Running(command.spawn().unwrap());
    // In the middle: some hundred deliveries were made.
    let begun = Instant::now();
    loop {
        let folders = std::fs::read_dir(folder.path()).unwrap().filter_map(|entry| Some(entry.ok()?.path()));
        let ledgers: Vec<_> = folders.map(|path| path.join("ledger.jsonl")).filter(|path| path.exists()).collect();
        if ledgers.iter().any(|path| read_ledger(path).is_ok_and(|ledger| ledger.len() > 300)) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{:?}", std::fs::read_to_string(&err));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let pid = rustix::process::Pid::from_child(&running.0);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let told = Instant::now();
    let status = loop {
        if let Some(status) = running.0.try_wait().unwrap() {
            break status;
        }
        assert!(told.elapsed() < PATIENCE, "{:?}", std::fs::read_to_string(&err));
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    at_most("the end", told.elapsed(), Duration::from_secs(15), PATIENCE);
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&out).unwrap()).unwrap();
    assert_eq!(status.code(), Some(0), "{report}");
    assert_eq!(report["audit"]["clean"], true, "{report}");
    assert!(report["orders"].as_u64().unwrap() > 300, "{report}");
    let left =
        std::fs::read_dir(folder.path()).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir()).count();
    assert_eq!(left, 0, "its folder goes with it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_demo_cannot_use_is_refused() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let scratch = Scratch::empty().await;
    let kept = ["--faults", "none", "--orders", "1", "--database", &scratch.url];
    assert_clean(&ended(demo_of(&kept), PATIENCE).await, 1);
    let cases: [(&[&str], i32, &str); 11] = [
        (&["--listen", &taken], 78, &taken),
        (&["--kafka", "127.0.0.1:1"], 69, "127.0.0.1:1"),
        (&["--database", "postgres://nobody@127.0.0.1:1/none"], 69, "start the database"),
        (&["--database", &scratch.url], 78, "1 orders already"),
        (&["--report", "/nowhere/at/all/report.json"], 78, "--report /nowhere/at/all/report.json"),
        (&["--sla", "9s"], 78, "--sla: 9s"),
        (&["--orders", "20"], 78, "--orders: with 20 there are too few for --faults some"),
        (&["--orders", "20", "--faults", "storm"], 78, "or --faults none"),
        (&["--scenario", "unpaid", "--faults", "some"], 78, "--faults: in the scenario unpaid"),
        (&["--scenario", "unpaid", "--unpaid-timeout", "1s"], 78, "--unpaid-timeout: 1s is too short"),
        (&["--notify-after", "3s"], 78, "--notify-after: in this scenario"),
    ];
    for (arguments, code, word) in cases {
        let ended = ended(demo_of(arguments), PATIENCE).await;
        assert_eq!((ended.code, ended.said.len()), (Some(code), 1), "{arguments:?}: {ended:?}");
        assert!(ended.said[0].contains(word), "{arguments:?}: {:?}", ended.said);
        assert_eq!(ended.stdout, "", "{arguments:?}");
    }
}

/// A demo of its own choice of everything.
fn demo_of(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_recharged"));
    command.args(["demo", "--json"]).env("NO_COLOR", "1");
    if !arguments.contains(&"--orders") {
        command.args(["--orders", "200"]);
    }
    if !arguments.contains(&"--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    command.args(arguments);
    command
}
