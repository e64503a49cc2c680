//! Two providers on one route: orders go on to the next lane where the first has definitely done nothing, and only then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use recharged::clock::SystemClock;
use recharged::domain::{EventType, State};
use recharged::providers::simulator::{Profile, Simulator, SimulatorHandle, SimulatorOptions};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::refusals::{Ended, ended};
use super::support::{changed, timeline, until};
use crate::harness::{Line, PATIENCE, Service, Wishes};

const SIM_IS_WELL: &str = "provider=\"sim\",state=\"closed\"";
const QUICK: &str = "reply = { fixed = \"5ms\" }\n";

/// A line whose route leads from `sim` on to `second`, a simulator of its own.
struct TwoLanes {
    line: Line,
    /// Where its ledger is.
    folder: TempDir,
    _second: SimulatorHandle,
}

impl TwoLanes {
    /// `breaker` is that of the first provider.
    async fn set_up(first: &str, breaker: &'static str, second: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let profile = Profile::from_toml(second).unwrap();
        let ledger = Some(folder.path().join("ledger.jsonl"));
        let options = SimulatorOptions { profile, ledger, seed: Some(11), ..SimulatorOptions::default() };
        let second = Simulator::start(options, Arc::new(SystemClock::new())).await.unwrap();
        let toml = format!(
            "[providers.second]\nkind = \"simulator\"\nbase_url = {:?}\ncall_timeout = \"5s\"\nexpected_service = \"500ms\"\n\
             quota = {{ permits_per_second = 2000 }}\ncapabilities = {{ not_found_grace = \"7s\" }}\n\
             [[routes]]\nlanes = [\"sim\", \"second\"]\n",
            second.base_url()
        );
        let profile = Profile::from_toml(first).unwrap();
        let line = Line::set_up(Wishes { profile, toml, breaker, ..Wishes::default() }).await;
        Self { line, folder, _second: second }
    }

    /// How many succeeded in each lane.
    async fn by_lane(&self) -> BTreeMap<String, usize> {
        let mut by_lane = BTreeMap::new();
        for row in self.line.rows().await.into_iter().filter(|row| row.state == State::Succeeded) {
            *by_lane.entry(row.provider.unwrap().to_string()).or_default() += 1;
        }
        by_lane
    }

    /// The ledgers of both, as `audit` takes them.
    fn ledgers(&self) -> [String; 4] {
        let path = |folder: &TempDir| folder.path().join("ledger.jsonl").display().to_string();
        let [sim, second] = [path(&self.line.folder), path(&self.folder)];
        ["--ledger".to_owned(), format!("sim={sim}"), "--ledger".to_owned(), format!("second={second}")]
    }

    async fn audit(&self, ledgers: &[String]) -> Ended {
        let ledgers = ledgers.iter().map(String::as_str);
        let arguments: Vec<&str> = ["--json", "audit"].into_iter().chain(ledgers).collect();
        ended(self.line.command(&arguments), PATIENCE).await
    }

    /// No order was recharged twice, at one provider or at both.
    async fn audited(&self) {
        let audited = self.audit(&self.ledgers()).await;
        assert_eq!(audited.code, Some(0), "{audited:?}");
    }

    fn lanes(&self, arguments: &[&str]) -> Value {
        let output = self.line.command(&[&["--json", "lanes"], arguments].concat()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        json!(rows)
    }
}

/// Administers a simulator.
async fn administer(simulator: &SimulatorHandle, method: &str, path: &str, body: &Value) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(simulator.addr()).await.unwrap();
    let body = body.to_string();
    let length = body.len();
    let request = format!(
        "{method} /_admin/{path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

async fn until_breaker(service: &Service, state: &str) {
    let deadline = Instant::now() + PATIENCE;
    let label = format!("provider=\"sim\",state=\"{state}\"");
    while service.metric_of("recharge_provider_breaker_state", &label).await != Some(1.0) {
        assert!(Instant::now() < deadline, "the breaker is not {state}:\n{}", service.log_text());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_first_provider_refuses_the_second_delivers() {
    let two = TwoLanes::set_up("reply = { fixed = \"5ms\" }\n[declines]\nretryable = 1.0\n", "{}", QUICK).await;
    let _service = two.line.start("one", &[]).await;
    two.line.send("on", 50).await;
    two.line.until_succeeded(50).await;
    assert_eq!(two.by_lane().await, BTreeMap::from([("second".to_owned(), 50)]));
    for row in two.line.rows().await {
        let log = timeline(&two.line, row.order_id.as_str()).await;
        let lanes: Vec<_> = log.iter().map(|event| event.data.provider.clone().unwrap().to_string()).collect();
        assert_eq!((lanes.first().unwrap().as_str(), lanes.last().unwrap().as_str()), ("sim", "second"));
        assert_eq!(log.iter().filter(|event| event.kind == EventType::Submitted).count(), 2);
    }
    two.audited().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_with_the_ledgers_of_both_finds_what_both_have_delivered_and_says_whose_it_wants() {
    let two = TwoLanes::set_up("reply = { fixed = \"5ms\" }\n[declines]\nretryable = 0.5\n", "{}", QUICK).await;
    let _service = two.line.start("one", &[]).await;
    two.line.send("on", 50).await;
    two.line.until_succeeded(50).await;
    two.audited().await;
    // One that the first has refused is delivered there all the same.
    let rows = two.line.rows().await;
    let order = rows.iter().find(|row| row.attempt_number() == 2).unwrap().order_id.to_string();
    let mut ledger: Vec<Value> = ledger_lines(&two.folder.path().join("ledger.jsonl"));
    let mut delivery = ledger.iter().find(|line| line["client_ref"] == format!("{order}-2")).unwrap().clone();
    ledger = ledger_lines(&two.line.folder.path().join("ledger.jsonl"));
    (delivery["client_ref"], delivery["seq"]) = (json!(format!("{order}-1")), json!(ledger.len() + 1));
    ledger.push(delivery);
    let doctored = two.line.folder.path().join("doctored.jsonl");
    let text: Vec<String> = ledger.iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(&doctored, text.concat()).unwrap();
    let [flag, sim, _, second] = two.ledgers();
    let of_sim = |path: &str| format!("sim={path}");
    let doctored = of_sim(doctored.to_str().unwrap());
    let found = two.audit(&[flag.clone(), doctored, flag.clone(), second.clone()]).await;
    let report: Value = serde_json::from_str(&found.stdout).unwrap();
    assert_eq!((found.code, &report["audit"]["double"]), (Some(1), &json!(1)), "{report}");
    // What was sent to the second lane counts as delivered by no other.
    let swapped = [sim.replace("sim=", "second="), second.replace("second=", "sim=")];
    let found = two.audit(&[flag.clone(), swapped[0].clone(), flag.clone(), swapped[1].clone()]).await;
    let report: Value = serde_json::from_str(&found.stdout).unwrap();
    assert_eq!((found.code, &report["audit"]["lost"]), (Some(1), &json!(50)), "{report}");
    assert_eq!(report["audit"]["unaccounted"], 50, "{report}");
    let unnamed = sim.trim_start_matches("sim=").to_owned();
    for (given, word) in [
        ([unnamed.clone(), second.clone()], "of several, each says whose it is"),
        ([sim.clone(), sim.clone()], "sim has one already"),
        (
            [of_sim(&unnamed).replace("sim=", "smi="), second],
            "there is no lane \"smi\"; the configuration has second, sim",
        ),
    ] {
        let refused = two.audit(&[flag.clone(), given[0].clone(), flag.clone(), given[1].clone()]).await;
        assert_eq!((refused.code, refused.said.len()), (Some(2), 1), "{refused:?}");
        assert!(refused.said[0].starts_with("--ledger ") && refused.said[0].contains(word), "{refused:?}");
    }
}

fn ledger_lines(path: &std::path::Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_is_away_costs_its_orders_nothing_while_another_is_there_and_gets_them_back() {
    let breaker = "{ in_a_row = 5, rest_first = \"500ms\", rest_max = \"1s\" }";
    let two = TwoLanes::set_up(QUICK, breaker, QUICK).await;
    let service = two.line.start("one", &[]).await;
    two.line.send("well", 20).await;
    two.line.until_succeeded(20).await;
    assert_eq!(two.by_lane().await, BTreeMap::from([("sim".to_owned(), 20)]));
    // Nobody listens there for some seconds.
    administer(&two.line.simulator, "POST", "outage", &json!({ "lasts": "8s" })).await;
    two.line.send("sick", 60).await;
    until_breaker(&service, "open").await;
    two.line.until_succeeded(80).await;
    assert_eq!(two.by_lane().await, BTreeMap::from([("sim".to_owned(), 20), ("second".to_owned(), 60)]));
    // Each rest ends with one order that is tried, as long as orders come.
    let (mut sold, began) = (80, Instant::now());
    while service.metric_of("recharge_provider_breaker_state", SIM_IS_WELL).await != Some(1.0) {
        assert!(began.elapsed() < PATIENCE, "it is not tried again");
        two.line.send(&format!("try-{sold}"), 1).await;
        sold += 1;
        two.line.until_succeeded(sold).await;
    }
    let before = two.by_lane().await["sim"];
    two.line.send("again", 20).await;
    two.line.until_succeeded(sold + 20).await;
    assert_eq!(two.by_lane().await["sim"], before + 20);
    two.audited().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_balance_rests_the_lane_until_it_is_filled_again() {
    let breaker = "{ rest_first = \"300ms\", rest_max = \"600ms\" }";
    let retry = "[retry]\nbackoff_first = \"500ms\"\nbackoff_max = \"1s\"\n";
    let line = {
        let profile = Profile::from_toml(QUICK).unwrap();
        Line::set_up(Wishes { profile, toml: retry.to_owned(), breaker, ..Wishes::default() }).await
    };
    administer(&line.simulator, "PUT", "balance", &json!({ "minor": 0 })).await;
    let service = line.start("one", &[]).await;
    line.send("poor", 100).await;
    until_breaker(&service, "open").await;
    assert!(service.log_text().contains("cause=\"account\"") || service.log_text().contains("\"cause\":\"account\""));
    // What was claimed before it opened leaves by the end of its send window.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = line.simulator.stats().submits;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let tried = line.simulator.stats().submits - before;
    assert!((1..=15).contains(&tried), "{tried} orders were tried in three seconds: one after each rest");
    administer(&line.simulator, "PUT", "balance", &json!({ "minor": null })).await;
    line.until_succeeded(100).await;
    until_breaker(&service, "closed").await;
    assert!(line.audit().await.audit.clean);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_that_is_paused_takes_no_order_in_any_process_until_it_is_resumed() {
    let two = TwoLanes::set_up(QUICK, "{}", QUICK).await;
    let _one = two.line.start("one", &[]).await;
    let _two = two.line.start("two", &[]).await;
    let paused = two.lanes(&["pause", "sim", "--by", "A. Duty", "--why", "their incident 4711"]);
    assert_eq!(paused[0]["paused"], true);
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let before = two.line.simulator.stats().submits;
    two.line.send("paused", 40).await;
    two.line.until_succeeded(40).await;
    assert_eq!(two.by_lane().await, BTreeMap::from([("second".to_owned(), 40)]));
    assert_eq!(two.line.simulator.stats().submits, before, "nothing was sent there");
    let listed = two.lanes(&["list"]);
    assert_eq!(
        (&listed[1]["lane"], &listed[1]["paused"], &listed[1]["by"]),
        (&json!("sim"), &json!(true), &json!("A. Duty"))
    );
    let misspelt = two.line.command(&["lanes", "pause", "smi", "--by", "A. Duty", "--why", "x"]).output().unwrap();
    assert_eq!(misspelt.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&misspelt.stderr).contains("there is no lane \"smi\"; the configuration has"));
    two.lanes(&["resume", "sim", "--by", "A. Duty", "--why", "they are back"]);
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    two.line.send("resumed", 40).await;
    two.line.until_succeeded(80).await;
    assert_eq!(two.by_lane().await.get("sim"), Some(&40));
    two.audited().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_orders_for_one_number_do_not_meet_at_a_provider_that_lets_it_cool_down() {
    let profile = Profile::from_toml("reply = { fixed = \"5ms\" }\ncooldown = \"3s\"\n").unwrap();
    let line = Line::set_up(Wishes { profile, ..Wishes::default() }).await;
    let cooldown = [("RECHARGED__PROVIDERS__SIM__CAPABILITIES__SAME_NUMBER_COOLDOWN", "3s")];
    let _one = line.start("one", &cooldown).await;
    let _two = line.start("two", &cooldown).await;
    let orders: Vec<_> = (0..4)
        .map(|nth| {
            let id = format!("same-{nth}");
            line.record(&id, &changed(&id, &json!({ "phone": "+8613800000017" })))
        })
        .collect();
    let began = Instant::now();
    line.write(orders).await;
    line.until_succeeded(4).await;
    assert!(began.elapsed() >= Duration::from_secs(9), "one after the other, 3 s apart: {:?}", began.elapsed());
    assert_eq!(line.simulator.stats().refused, 0, "no request met the cooldown");
    for row in line.rows().await {
        assert_eq!(row.attempt_number(), 1, "{}", row.order_id);
    }
    until("each was delivered once", || line.delivered().len() == 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_whose_number_cools_down_at_one_provider_beyond_its_deadline_is_served_by_the_next() {
    let two = TwoLanes::set_up("reply = { fixed = \"5ms\" }\ncooldown = \"10m\"\n", "{}", QUICK).await;
    let cooldown = [("RECHARGED__PROVIDERS__SIM__CAPABILITIES__SAME_NUMBER_COOLDOWN", "10m")];
    let _service = two.line.start("one", &cooldown).await;
    let same = |id: &str| two.line.record(id, &changed(id, &json!({ "phone": "+8613800000017" })));
    let began = Instant::now();
    two.line.write(vec![same("same-1"), same("same-2")]).await;
    two.line.until_succeeded(2).await;
    assert!(began.elapsed() < Duration::from_secs(30), "at once, and not at its deadline: {:?}", began.elapsed());
    assert_eq!(two.by_lane().await, BTreeMap::from([("sim".to_owned(), 1), ("second".to_owned(), 1)]));
    assert_eq!(two.line.simulator.stats().refused, 0, "no request met the cooldown");
    two.audited().await;
}
