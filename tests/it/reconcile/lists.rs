//! Every list that an adapter has, against the simulator that keeps one in its words, and against a peer that answers as
//! is documented, or not at all.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;

use recharged::clock::SystemClock;
use recharged::domain::{Currency, ProviderId, Timestamp};
use recharged::ports::{Clock as _, ListPermits, Listed, ListedState, StatementError, StatementTrouble};
use recharged::providers::simulator::{
    Dialect, Latency, Outcomes, Profile, Script, Simulator, SimulatorHandle, SimulatorOptions, Spell, Step, Throttle,
};
use recharged::providers::{ListSpan, ProviderKind, ProviderSettings, Secret, build, list};

use crate::provider::peer::{Peer, Script as Answers, answer};
use crate::provider::{products_of_5000, submit_of};

const KEY: &str = "canary-secret";

struct Stage {
    dialect: Dialect,
    simulator: SimulatorHandle,
    began: Timestamp,
}

fn now() -> Timestamp {
    SystemClock::new().now()
}

impl Stage {
    async fn set(dialect: Dialect, profile: Profile) -> Self {
        let options = SimulatorOptions {
            profile,
            dialect,
            account: Some("us".to_owned()),
            key: Some(Secret::new(KEY)),
            seed: Some(7),
            ..SimulatorOptions::default()
        };
        let simulator = Simulator::start(options, Arc::new(SystemClock::new())).await.unwrap();
        Self { dialect, simulator, began: now() }
    }

    fn settings(&self) -> ProviderSettings {
        let kind = ProviderKind::parse(self.dialect.as_str()).unwrap();
        settings(kind, &self.simulator.base_url())
    }

    /// Submits these, each with what it meets, and waits until they have their ends.
    async fn submit(&self, orders: &[(&str, &str)]) {
        let provider = build(&ProviderId::new("p"), &self.settings(), Arc::new(SystemClock::new())).unwrap();
        provider.connect(1).await;
        for (reference, then) in orders {
            let step = Step { next: Some(1), then: Some((*then).to_owned()), ..Step::default() };
            self.simulator.script(&Script { steps: vec![step] }).unwrap();
            provider.submit(&submit_of(reference)).await;
        }
    }

    async fn listed(&self, settings: &ProviderSettings, pace: Duration) -> Result<Vec<Listed>, StatementError> {
        // Whole seconds, which Reloadly's times are.
        let span = ListSpan { from: self.began - Duration::from_secs(2), until: now() + Duration::from_secs(2), pace };
        read(settings, span).await
    }
}

fn settings(kind: ProviderKind, base_url: &str) -> ProviderSettings {
    let mut settings = ProviderSettings::new(kind, base_url.parse().unwrap());
    (settings.account, settings.key) = (Some("us".to_owned()), Some(Secret::new(KEY)));
    settings.products = products_of_5000();
    settings
}

/// As many as are wanted.
#[derive(Debug, Default)]
struct Permits {
    taken: AtomicUsize,
    rests: Mutex<Vec<Duration>>,
}

#[async_trait]
impl ListPermits for Permits {
    async fn wait(&self) -> Result<(), StatementError> {
        self.taken.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
    async fn rest(&self, rest: Duration) -> Result<(), StatementError> {
        self.rests.lock().unwrap().push(rest);
        Ok(())
    }
}

async fn read(settings: &ProviderSettings, span: ListSpan) -> Result<Vec<Listed>, StatementError> {
    read_with(&Arc::default(), settings, span).await
}

async fn read_with(
    permits: &Arc<Permits>,
    settings: &ProviderSettings,
    span: ListSpan,
) -> Result<Vec<Listed>, StatementError> {
    let (clock, permits) = (Arc::new(SystemClock::new()), Arc::<Permits>::clone(permits));
    let mut statement = list(&ProviderId::new("p"), settings, clock, permits, span).unwrap().unwrap();
    let mut all = Vec::new();
    while let Some(page) = statement.next_page().await? {
        all.extend(page);
    }
    Ok(all)
}

fn quick() -> Profile {
    let outcomes = Outcomes { reversed: Spell::fixed(0.0, Duration::ZERO), ..Outcomes::default() };
    let soon = Latency::Fixed(Duration::from_millis(1));
    Profile { reply: soon, completion: soon, outcomes, ..Profile::default() }
}

const WITH_LISTS: [Dialect; 3] = [Dialect::Own, Dialect::Dtone, Dialect::Reloadly];

#[tokio::test]
async fn a_list_tells_what_truly_became_of_each_recharge() {
    for dialect in WITH_LISTS {
        let stage = Stage::set(dialect, quick()).await;
        let orders = [
            ("R0000000000A", "deliver"),
            ("R0000000000B", "declines.fatal"),
            ("R0000000000C", "outcomes.reversed"),
            ("R0000000000D", "outcomes.never"),
            ("R0000000000E", "outcomes.wrong_amount"),
            ("R0000000000F", "faults.reset.after"),
            ("R0000000000G", "faults.reset.before"),
        ];
        stage.submit(&orders).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let listed = stage.listed(&stage.settings(), Duration::ZERO).await.unwrap();
        let told: BTreeMap<&str, (ListedState, Option<i64>)> = listed
            .iter()
            .map(|one| (one.client_ref.as_str(), (one.state, one.amount.map(|amount| amount.minor))))
            .collect();
        // Reloadly's word for what was taken back is the one for what was never delivered.
        let back = if dialect == Dialect::Reloadly {
            (ListedState::Failed, None)
        } else {
            (ListedState::Reversed, Some(5_000))
        };
        let expected = BTreeMap::from([
            ("R0000000000A", (ListedState::Delivered, Some(5_000))),
            ("R0000000000B", (ListedState::Failed, None)),
            ("R0000000000C", back),
            ("R0000000000D", (ListedState::InProgress, None)),
            ("R0000000000E", (ListedState::Delivered, Some(2_500))),
            ("R0000000000F", (ListedState::Delivered, Some(5_000))),
        ]);
        assert_eq!(told, expected, "{dialect:?}");
        for one in &listed {
            let at = one.at.unwrap();
            assert!(at >= stage.began - Duration::from_secs(1) && at <= now(), "{dialect:?}: {one:?}");
            assert!(one.provider_ref.is_some(), "{dialect:?}: {one:?}");
        }
        // Of another time there is nothing.
        let until = stage.began - Duration::from_secs(5);
        let span = ListSpan { from: until - Duration::from_hours(30), until, pace: Duration::ZERO };
        assert_eq!(read(&stage.settings(), span).await.unwrap(), [], "{dialect:?}");
    }
}

#[tokio::test]
async fn a_long_list_comes_in_pages_at_the_pace_that_is_allowed() {
    for (dialect, count) in [(Dialect::Own, 2_100), (Dialect::Dtone, 210), (Dialect::Reloadly, 410)] {
        let stage = Stage::set(dialect, quick()).await;
        let provider = build(&ProviderId::new("p"), &stage.settings(), Arc::new(SystemClock::new())).unwrap();
        provider.connect(8).await;
        let names: Vec<String> = (0..count).map(|number| format!("R{number:011}")).collect();
        for batch in names.chunks(100) {
            futures_util::future::join_all(batch.iter().map(|name| {
                let provider = Arc::clone(&provider);
                async move { provider.submit(&submit_of(name)).await }
            }))
            .await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let pace = Duration::from_millis(150);
        let began = Instant::now();
        let listed = stage.listed(&stage.settings(), pace).await.unwrap();
        let told: Vec<&str> = listed.iter().map(|one| one.client_ref.as_str()).collect();
        assert_eq!(told, names, "{dialect:?}");
        assert!(listed.iter().all(|one| one.state == ListedState::Delivered), "{dialect:?}");
        assert!(began.elapsed() >= pace * 2, "{dialect:?}: three pages in {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_refusal_for_pace_is_waited_for_and_a_wrong_key_is_told() {
    for dialect in WITH_LISTS {
        for in_body in [false, true] {
            let throttle = Throttle { permits_per_second: 4.0, burst: 1, tells_when: !in_body, in_body };
            let stage = Stage::set(dialect, Profile { query_throttle: Some(throttle), ..quick() }).await;
            stage.submit(&[("R0000000000A", "deliver")]).await;
            for _ in 0..3 {
                let listed = stage.listed(&stage.settings(), Duration::ZERO).await.unwrap();
                assert_eq!(listed.len(), 1, "{dialect:?}, {in_body}");
            }
            assert!(stage.simulator.stats().throttled > 0, "{dialect:?}");
        }
        let stage = Stage::set(dialect, quick()).await;
        let wrong = ProviderSettings { key: Some(Secret::new("another")), ..stage.settings() };
        let error = stage.listed(&wrong, Duration::ZERO).await.unwrap_err();
        assert!(error.to_string().contains("check account and key_file"), "{dialect:?}: {error}");
        assert!(!error.to_string().contains("another"));
    }
}

#[tokio::test]
async fn a_provider_that_does_not_answer_is_told_so_and_a_moment_of_it_is_borne() {
    let stage = Stage::set(Dialect::Own, quick()).await;
    stage.submit(&[("R0000000000A", "deliver")]).await;
    let url = format!("{}/outage", stage.simulator.admin_url());
    post(&stage.simulator, &url, "{\"lasts\": \"700ms\"}").await;
    assert_eq!(stage.listed(&stage.settings(), Duration::ZERO).await.unwrap().len(), 1);
    let settings = stage.settings();
    stage.simulator.shutdown().await;
    let span = ListSpan { from: now() - Duration::from_secs(9), until: now(), pace: Duration::ZERO };
    let error = read(&settings, span).await.unwrap_err();
    assert_eq!(error.trouble, StatementTrouble::Away, "{error}");
    assert!(error.to_string().starts_with("providers.p: its list: base_url does not answer"), "{error}");
}

/// A request to the administration.
async fn post(simulator: &SimulatorHandle, url: &str, body: &str) -> String {
    request(simulator, "POST", url, body).await
}

/// The body of what the administration answers.
pub(crate) async fn get(simulator: &SimulatorHandle, url: &str) -> String {
    request(simulator, "GET", url, "").await
}

async fn request(simulator: &SimulatorHandle, method: &str, url: &str, body: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let path = url.strip_prefix(&simulator.base_url()).unwrap();
    let mut stream = tokio::net::TcpStream::connect(simulator.addr()).await.unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: s\r\nconnection: close\r\nauthorization: Bearer {KEY}\r\n");
    stream.write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// As the specification has a transaction, with more in it than we look at.
const DTONE: &str = r#"{"id":2188600123,"external_id":"R01","creation_date":"2026-01-05T08:00:00.000000Z",
    "confirmation_date":"2026-01-05T08:00:00Z","status":{"id":70000,"message":"COMPLETED","class":{"id":7,"message":"COMPLETED"}},
    "product":{"id":4001,"name":"5 SGD"},"prices":{"wholesale":{"unit_type":"CURRENCY","unit":"USD","amount":4.75,"fee":0}},
    "benefits":[{"type":"CREDITS","unit_type":"CURRENCY","unit":"SGD","amount":{"base":5.00,"promotion_bonus":0}}]}"#;

fn span() -> ListSpan {
    let from = "2026-01-05T00:00:00Z".parse::<Timestamp>().unwrap();
    ListSpan { from, until: from + Duration::from_hours(12), pace: Duration::ZERO }
}

#[tokio::test]
async fn dtone_is_asked_as_documented_and_its_headers_tell_the_end() {
    let headers = "X-Total: 2\r\nX-Total-Pages: 2\r\nX-Per-Page: 1\r\n";
    let second =
        DTONE.replace("\"R01\"", "\"R02\"").replace("COMPLETED", "REJECTED").replace("2188600123", "2188600124");
    let one = |body: &str| answer("200 OK", headers, &format!("[{body}]"));
    let pages = vec![("page=1&".to_owned(), one(DTONE)), ("page=2&".to_owned(), one(&second))];
    let peer = Peer::start(Answers::ByLine(pages)).await;
    let listed = read(&settings(ProviderKind::Dtone, &peer.base_url()), span()).await.unwrap();
    let [first, last] = listed.as_slice() else { panic!("{listed:?}") };
    assert_eq!((first.state, last.state), (ListedState::Delivered, ListedState::Failed));
    let amount = first.amount.unwrap();
    assert_eq!((amount.minor, amount.currency), (500, Currency::parse("SGD").unwrap()));
    assert_eq!(first.at, "2026-01-05T08:00:00Z".parse().ok());
    assert_eq!(first.provider_ref.as_deref(), Some("2188600123"));
    let asked = peer.texts().remove(0);
    let line = asked.lines().next().unwrap();
    let wanted = "GET /api/transactions?from_date=2026-01-05T00%3A00%3A00.000000Z&to_date=2026-01-05T12%3A00%3A00.000000Z\
                  &page=1&per_page=100 HTTP/1.1";
    assert_eq!(line, wanted);
}

#[tokio::test]
async fn what_somebody_made_in_the_providers_portal_makes_no_list_unusable() {
    let by_hand = DTONE.replace(r#""external_id":"R01","#, "").replace("2188600123", "77");
    let without = DTONE.replace(r#""R01""#, "null").replace("2188600123", "78");
    let body = format!("[{DTONE},{by_hand},{without}]");
    let peer = Peer::start(Answers::Answer(answer("200 OK", "X-Total-Pages: 1\r\n", &body))).await;
    let listed = read(&settings(ProviderKind::Dtone, &peer.base_url()), span()).await.unwrap();
    let references: Vec<&str> = listed.iter().map(|one| one.client_ref.as_str()).collect();
    assert_eq!(references, ["R01", "#77", "#78"]);
}

#[tokio::test]
async fn every_call_of_a_list_takes_a_permit_and_a_ban_lets_the_whole_account_rest() {
    let headers = "X-Total: 2\r\nX-Total-Pages: 2\r\n";
    let second = DTONE.replace("2188600123", "77");
    let one = |body: &str| answer("200 OK", headers, &format!("[{body}]"));
    let pages = vec![("page=1&".to_owned(), one(DTONE)), ("page=2&".to_owned(), one(&second))];
    let peer = Peer::start(Answers::ByLine(pages)).await;
    let permits = Arc::new(Permits::default());
    let dtone = |peer: &Peer| settings(ProviderKind::Dtone, &peer.base_url());
    read_with(&permits, &dtone(&peer), span()).await.unwrap();
    assert_eq!(permits.taken.load(Ordering::Relaxed), 2);
    assert!(permits.rests.lock().unwrap().is_empty());

    // What it wants for longer than anybody waits is told at once, and asked for once.
    for (status, is_ban) in [("429 Too Many Requests", false), ("403 Forbidden", true)] {
        let peer = Peer::start(Answers::Answer(answer(status, "Retry-After: 1800\r\n", "{}"))).await;
        let permits = Arc::new(Permits::default());
        let error = read_with(&permits, &dtone(&peer), span()).await.unwrap_err();
        assert_eq!(error.trouble, StatementTrouble::Away, "{error}");
        assert!(error.to_string().contains("it takes no calls of ours for 30 min"), "{error}");
        assert_eq!(peer.texts().len(), 1, "{status}");
        let half_an_hour = Duration::from_mins(30);
        assert_eq!(*permits.rests.lock().unwrap(), if is_ban { vec![half_an_hour] } else { vec![] });
    }
}

#[tokio::test]
async fn a_list_whose_pages_are_all_the_same_is_not_read_for_ever() {
    let top_up = r#"{"transactionId":1,"status":"SUCCESSFUL","customIdentifier":"R01"}"#;
    for (kind, body) in
        [(ProviderKind::Dtone, format!("[{DTONE}]")), (ProviderKind::Reloadly, format!("{{\"content\":[{top_up}]}}"))]
    {
        let token = answer("200 OK", "", r#"{"access_token":"t","expires_in":600}"#);
        let pages = vec![("/oauth/token".to_owned(), token), (String::new(), answer("200 OK", "", &body))];
        let peer = Peer::start(Answers::ByLine(pages)).await;
        let mut settings = settings(kind, &peer.base_url());
        settings.auth_url = peer.base_url().parse().ok();
        let error = tokio::time::timeout(Duration::from_secs(20), read(&settings, span())).await.unwrap().unwrap_err();
        assert_eq!(error.trouble, StatementTrouble::Unusable, "{kind:?}: {error}");
        assert!(error.to_string().contains("the same as the one before it"), "{kind:?}: {error}");
    }
}

#[tokio::test]
async fn a_list_that_changed_while_it_was_read_or_is_none_is_not_taken_for_whole() {
    let found_nothing = r#"{"errors":[{"code":1008004,"message":"Transaction not found"}]}"#;
    let of = async |kind, status: &str, headers: &str, body: &str| {
        let token = answer("200 OK", "", r#"{"access_token":"t","expires_in":600}"#);
        let pages = vec![("/oauth/token".to_owned(), token), (String::new(), answer(status, headers, body))];
        let peer = Peer::start(Answers::ByLine(pages)).await;
        read(&settings(kind, &peer.base_url()), span()).await.map(|listed| listed.len())
    };
    use ProviderKind::{Dtone, Reloadly, Simulator};
    assert_eq!(of(Dtone, "404 Not Found", "", found_nothing).await.unwrap(), 0);
    let short = of(Dtone, "200 OK", "X-Total: 5\r\nX-Total-Pages: 1\r\n", &format!("[{DTONE}]")).await.unwrap_err();
    assert!(short.to_string().contains("it ended after 1 of 5 transactions"), "{short}");
    let top_up = r#"{"transactionId":1,"status":"SUCCESSFUL","customIdentifier":null,"deliveredAmount":4.99,
        "deliveredAmountCurrencyCode":"GBP","transactionDate":"2026-01-05 08:13:39"}"#;
    let report = |more: &str| format!(r#"{{"content":[{top_up}]{more}}}"#);
    assert_eq!(of(Reloadly, "200 OK", "", &report(r#","last":true"#)).await.unwrap(), 1);
    assert_eq!(of(Reloadly, "200 OK", "", &report(r#","totalPages":1,"totalElements":1"#)).await.unwrap(), 1);
    let short = of(Reloadly, "200 OK", "", &report(r#","last":true,"totalElements":9"#)).await.unwrap_err();
    assert!(short.to_string().contains("it ended after 1 of 9 top-ups"), "{short}");
    for kind in [Dtone, Reloadly, Simulator] {
        for (status, body) in [("200 OK", "<html>"), ("400 Bad Request", "{}"), ("200 OK", "")] {
            let error = of(kind, status, "", body).await.unwrap_err();
            assert_eq!(error.trouble, StatementTrouble::Unusable, "{kind:?}, {status}: {error}");
            assert!(error.to_string().starts_with("providers.p: its list: "), "{error}");
        }
    }
}

#[tokio::test]
async fn a_day_file_holds_what_the_list_does() {
    let stage = Stage::set(Dialect::Own, quick()).await;
    stage
        .submit(&[
            ("a-1", "deliver"),
            ("b-1", "declines.fatal"),
            ("c-1", "outcomes.reversed"),
            ("d-1", "outcomes.never"),
        ])
        .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let listed = stage.listed(&stage.settings(), Duration::ZERO).await.unwrap();
    for format in ["csv", "jsonl"] {
        use recharged::providers::day_file::{Columns, DayFile, Format, States, Terms};
        let url = format!("{}/day-file?format={format}", stage.simulator.admin_url());
        let text = get(&stage.simulator, &url).await;
        let terms = Terms {
            format: if format == "csv" { Format::Csv } else { Format::JsonLines },
            columns: Columns::default(),
            states: States::default(),
            currency: None,
            offset: chrono::FixedOffset::east_opt(0).unwrap(),
        };
        let mut file = DayFile::new(format, Box::new(std::io::Cursor::new(text)), terms);
        let read = recharged::ports::Statement::next_page(&mut file).await.unwrap().unwrap();
        let told = |one: &Listed| (one.client_ref.clone(), one.state, one.amount, one.provider_ref.clone());
        assert!(read.iter().map(told).eq(listed.iter().map(told)), "{read:?} {listed:?}");
    }
    let url = format!("{}/day-file?day=2020-01-31", stage.simulator.admin_url());
    assert_eq!(get(&stage.simulator, &url).await, "client_ref,state,amount_minor,currency,at,provider_ref\n");
}
