//! A live scrape against the catalogue and its documentation.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use recharged::domain::{ProviderId, Sla, State};
use recharged::metrics::{self, Kind, Metric, ProcessInfo, catalogue};
use recharged::ports::{Became, PermitClass, StoreErrorKind};
use recharged::probes::{self, Health};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

/// Makes every handle there is, and uses some.
fn use_everything() {
    let topics: Vec<Arc<str>> = vec![Arc::from("recharge.orders")];
    for source in ["orders", "lifecycle", "timers"] {
        let intake = metrics::IntakeMetrics::new(source);
        intake.received(2);
        intake.accepted(1);
        intake.rejected("malformed", 1);
        intake.duplicate("intake", 1);
        intake.early(1, 0);
        intake.delay(Duration::from_millis(5));
        intake.future_paid_at(0);
    }
    let outcome = metrics::OutcomeMetrics::new();
    outcome.closed(State::Succeeded, Duration::from_secs(4), 1);
    outcome.sla(Sla::Met);
    metrics::ProviderMetrics::new(&ProviderId::new("primary")).undocumented();
    let lane = metrics::LaneMetrics::new(&ProviderId::new("primary"));
    lane.slack(true, Duration::from_secs(170));
    lane.request("submit", "ok", Duration::from_millis(40));
    lane.in_flight(3);
    lane.permits("granted", 1);
    lane.permit_wait(Duration::ZERO);
    lane.quota(50.0);
    lane.backlog(PermitClass::Fresh, 7);
    lane.breaker("open");
    metrics::lane_paused(&ProviderId::new("primary"), true);
    let callbacks = metrics::CallbackMetrics::new(&[ProviderId::new("primary")]);
    callbacks.taken(&ProviderId::new("primary"), Became::Settled);
    callbacks.not_now(&ProviderId::new("primary"));
    callbacks.turned_away(None, "unknown");
    let delay = metrics::DelayMetrics::new("5s");
    let due_at = recharged::domain::Timestamp::default();
    delay.forwarded(due_at, due_at, due_at + Duration::from_millis(3));
    delay.pending(2);
    delay.farthest_due(None);
    let watchdog = metrics::WatchdogMetrics::new();
    watchdog.acted("expire");
    watchdog.scanned(Duration::from_millis(3), recharged::domain::Timestamp::default());
    let relay = metrics::RelayMetrics::new(&topics);
    relay.published("recharge.orders", true, 1);
    relay.pending(0, Duration::ZERO);
    metrics::preset_dead_letters(&topics);
    metrics::dead_letter("recharge.orders", "malformed", 1);
    let kafka = metrics::KafkaMetrics::new(&topics, &topics);
    kafka.consumed("recharge.orders", 1);
    kafka.produced("recharge.orders", true, 1);
    kafka.lag_records("recharge.orders", 3, 12);
    kafka.lag_seconds("recharge.orders", Duration::ZERO);
    kafka.assigned("recharge.orders", 1);
    kafka.rebalance("recharge.orders", "assigned");
    kafka.commit_failure("recharge.orders");
    kafka.poll_age("recharge.orders", Duration::ZERO);
    let store = metrics::StoreMetrics::new();
    store.query("insert", Duration::from_millis(2));
    store.error("apply", StoreErrorKind::Contention);
    store.pool(1, 2, 10);
    metrics::clock_skew("database", 0.001);
}

struct Answer {
    status: u16,
    body: String,
}

async fn get(address: std::net::SocketAddr, path: &str) -> Answer {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: probes\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, body: body.to_owned() }
}

/// What a scrape says of one metric.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    kind: String,
    help: String,
    labels: BTreeSet<String>,
    samples: usize,
}

fn parse(scrape: &str) -> BTreeMap<String, Seen> {
    let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
    for line in scrape.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            help.clone_into(&mut seen.entry(name.to_owned()).or_default().help);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            kind.clone_into(&mut seen.entry(name.to_owned()).or_default().kind);
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            value.parse::<f64>().unwrap_or_else(|error| panic!("{line}: {error}"));
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let labels = labels.trim_end_matches('}').split("\",").filter(|label| !label.is_empty());
            let names = labels.map(|label| label.split('=').next().unwrap().to_owned()).filter(|name| name != "le");
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| {
                name.strip_suffix(end).filter(|base| seen.get(*base).is_some_and(|seen| seen.kind == "histogram"))
            });
            let entry = seen.entry(base.unwrap_or(name).to_owned()).or_default();
            entry.labels.extend(names);
            entry.samples += 1;
        }
    }
    seen
}

async fn scrape() -> String {
    let info = ProcessInfo { config_hash: "0123456789ab".to_owned(), sla_deadline: Duration::from_mins(3) };
    let exporter = metrics::install(&info).unwrap();
    use_everything();
    let listener = probes::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let server = tokio::spawn(probes::serve(listener, Health::new(), exporter, stop.clone()));
    let answer = get(address, "/metrics").await;
    stop.cancel();
    server.await.unwrap().unwrap();
    assert_eq!(answer.status, 200);
    answer.body
}

#[tokio::test]
async fn a_live_scrape_has_exactly_the_metrics_of_the_catalogue() {
    let seen = parse(&scrape().await);
    let known: BTreeMap<&str, &Metric> = catalogue().map(|metric| (metric.name, metric)).collect();
    for name in seen.keys() {
        assert!(known.contains_key(name.as_str()), "{name} is scraped and in no catalogue");
    }
    for (name, metric) in known {
        let seen = seen.get(name).unwrap_or_else(|| panic!("{name} is in the catalogue and was not scraped"));
        assert_eq!(seen.kind, metric.kind.as_str(), "{name}");
        assert_eq!(seen.help, metric.help, "{name}");
        let labels: BTreeSet<String> = metric.labels.iter().map(|label| (*label).to_owned()).collect();
        assert_eq!(seen.labels, labels, "{name}");
        assert!(seen.samples > 0, "{name} has help and no sample");
    }
}

#[tokio::test]
async fn every_combination_of_labels_is_there_from_the_start() {
    let text = scrape().await;
    for series in [
        "recharge_sla_orders_total{result=\"missed\"}",
        "recharge_provider_requests_total{provider=\"primary\",operation=\"query\",result=\"in_doubt\"}",
        "recharge_orders_rejected_total{source=\"orders\",reason=\"orphan\"}",
        "recharge_order_resolution_seconds_bucket{outcome=\"failed\",le=\"180\"}",
        "recharge_dead_letter_messages_total{topic=\"recharge.orders\",reason=\"undeliverable\"}",
        "recharge_db_errors_total{operation=\"reserve\",kind=\"unreachable\"}",
        "recharge_kafka_rebalances_total{topic=\"recharge.orders\",event=\"lost\"}",
    ] {
        assert!(text.contains(&format!("{series} 0")), "{series} is not there as 0");
    }
}

#[tokio::test]
async fn promtool_finds_nothing_wrong_with_a_scrape() {
    let text = scrape().await;
    let Ok(mut promtool) = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    else {
        // Past the test harness, which would keep the line to itself.
        let said = b"\nSKIPPED: promtool is not installed (Debian package prometheus); the scrape was not linted\n";
        return std::io::stderr().write_all(said).unwrap();
    };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
}

#[test]
fn the_documentation_lists_every_metric_as_it_is() {
    let mut rows = vec!["| metric | type | labels | meaning |".to_owned(), "|---|---|---|---|".to_owned()];
    for Metric { name, kind, labels, help, .. } in catalogue() {
        let labels = if labels.is_empty() { "–".to_owned() } else { format!("`{}`", labels.join("`, `")) };
        rows.push(format!("| `{name}` | {} | {labels} | {help} |", kind.as_str()));
    }
    super::docs::holds("docs/METRICS.md", "metrics", &rows.join("\n"));
}

#[test]
fn every_histogram_has_buckets_and_every_counter_says_total() {
    for metric in catalogue() {
        assert_eq!(metric.kind == Kind::Histogram, !metric.buckets.is_empty(), "{}", metric.name);
        assert!(metric.buckets.is_sorted(), "{}", metric.name);
        assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
    }
}

#[tokio::test]
async fn probes_answer_by_what_the_process_knows_and_everything_else_is_404() {
    let info = ProcessInfo { config_hash: "0123456789ab".to_owned(), sla_deadline: Duration::from_mins(3) };
    let exporter = metrics::install(&info).unwrap();
    let health = Health::new();
    health.expect(&["kafka", "store"]);
    let listener = probes::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let taken = probes::bind(address).await.unwrap_err().to_string();
    assert!(taken.starts_with(&format!("http.listen: cannot listen on {address}")), "{taken}");
    let stop = CancellationToken::new();
    let server = tokio::spawn(probes::serve(listener, health.clone(), exporter, stop.clone()));

    assert_eq!(get(address, "/livez").await.status, 200);
    assert_eq!(get(address, "/startupz").await.status, 503);
    let unready = get(address, "/readyz").await;
    assert_eq!(unready.status, 503);
    assert_eq!(unready.body, r#"{"status":"failing","failing":["kafka: not yet","store: not yet"]}"#);

    health.set("kafka", Ok(()));
    health.set("store", Ok(()));
    assert_eq!(get(address, "/readyz").await.body, r#"{"status":"ok"}"#);
    health.set("store", Err("not reachable".to_owned()));
    assert_eq!(get(address, "/readyz").await.status, 503);
    assert_eq!(get(address, "/startupz").await.status, 200);

    for path in ["/", "/metrics/", "/debug", "/livez/x"] {
        assert_eq!(get(address, path).await.status, 404, "{path}");
    }
    let _pulse = health.watch("intake", Duration::ZERO);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    while get(address, "/livez").await.status != 503 {
        assert!(tokio::time::Instant::now() < deadline, "a loop that stands still was not noticed");
    }
    stop.cancel();
    server.await.unwrap().unwrap();
}
