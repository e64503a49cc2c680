//! Callbacks, sent by hand to a process that has the role `callback` and no other.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use recharged::clock::SystemClock;
use recharged::domain::{AttemptState, CallbackKey, CallbackLinks, CaseKind, Order, OrderId, ProviderId, State};
use recharged::ports::Became;
use recharged::providers::simulator::Profile;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{Line, PATIENCE, Service, Wishes, free_address};

const OLD_KEY: &str = "what its callbacks were signed with";
const KEY: &str = "what its callbacks are signed with now";
const TOKEN_KEY: &str = "what the addresses are signed with";

/// A provider that takes everything and is done after a long time, and is not asked for as long.
fn patient() -> Profile {
    Profile::from_toml("accepted_first = 1.0\ncompletion = { fixed = \"10m\" }\n").unwrap()
}

/// The line, with the process that takes callbacks and the one that does everything else.
struct Called {
    line: Line,
    address: SocketAddr,
    callback: Service,
    _worker: Service,
    _keys: tempfile::TempDir,
}

impl Called {
    /// `is_signed`: whether its callbacks' signatures are known.
    async fn set_up(wishes: Wishes, is_signed: bool) -> Self {
        let keys = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = keys.path().join(name);
            std::fs::write(&path, format!("{text}\n")).unwrap();
            format!("{path:?}")
        };
        let signed = format!("callback_key_files = [{}, {}]\n", file("key", KEY), file("old", OLD_KEY));
        let toml = format!(
            "{}\n{}[callback]\npublic_url = \"https://shop.example/recharge\"\ntoken_key_files = [{}]\n",
            wishes.toml,
            if is_signed { signed.as_str() } else { "" },
            file("token", TOKEN_KEY),
        );
        let line = Line::set_up(Wishes { toml, ..wishes }).await;
        let address = free_address();
        let listen = address.to_string();
        let callback = line.start_roles("callback", "callback", &[("RECHARGED__CALLBACK__LISTEN", &listen)]).await;
        let worker = line.start_roles("worker", "intake,dispatch,delay,watchdog,relay", &[]).await;
        Self { line, address, callback, _worker: worker, _keys: keys }
    }

    async fn row(&self, id: &str) -> Option<Order> {
        let id = OrderId::parse(id).unwrap();
        self.line.store.load(&[id]).await.unwrap().remove(0).order()
    }

    async fn until(&self, id: &str, what: &str, holds: impl Fn(&Order) -> bool) -> Order {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let row = self.row(id).await;
            if let Some(row) = row.as_ref().filter(|row| holds(row)) {
                return row.clone();
            }
            assert!(Instant::now() < deadline, "{id} is not {what}: {row:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn sell(&self, id: &str) {
        self.line.write(vec![self.line.order(id)]).await;
    }

    /// Sells an order and waits until its provider has taken it.
    async fn accepted(&self, id: &str) -> Order {
        self.sell(id).await;
        self.until(id, "accepted", |row| attempt_state(row) == Some(AttemptState::Accepted)).await
    }

    /// Sends a callback; returns its status and its body.
    async fn post(&self, path: &str, headers: &[(String, String)], body: &str) -> (u16, String) {
        post(self.address, path, headers, body.as_bytes()).await
    }

    async fn became(&self, id: &str) -> Vec<(u16, String, Became)> {
        let noted = self.line.store.callbacks_of(&OrderId::parse(id).unwrap()).await.unwrap();
        noted.into_iter().map(|one| (one.attempt, one.said, one.became)).collect()
    }
}

fn attempt_state(row: &Order) -> Option<AttemptState> {
    row.attempt.as_ref().map(|attempt| attempt.state)
}

async fn post(address: SocketAddr, path: &str, headers: &[(String, String)], body: &[u8]) -> (u16, String) {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut head =
        format!("POST {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let sent = async {
        stream.write_all(format!("{head}\r\n").as_bytes()).await?;
        stream.write_all(body).await
    };
    // What is refused by its head alone may not be read to its end.
    sent.await.unwrap_or_default();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap_or_default();
    let answer = String::from_utf8(answer).unwrap();
    let status = answer.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_default(), answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

/// Signed with a key, at a moment, in the form of Standard Webhooks.
fn signed(key: &str, seconds_ago: i64, body: &str) -> Vec<(String, String)> {
    let at = (SystemClock::local().timestamp() - seconds_ago).to_string();
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(format!("m-1.{at}.{body}").as_bytes());
    let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    let headers = [("webhook-id", "m-1"), ("webhook-timestamp", &at), ("webhook-signature", &signature)];
    headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn told(client_ref: &str, status: &str) -> Value {
    json!({ "client_ref": client_ref, "status": status, "provider_ref": "p-1" })
}

/// The way to the callback of an attempt.
fn path_of(id: &str, attempt: u16) -> String {
    let keys = vec![CallbackKey::new(TOKEN_KEY.as_bytes()).unwrap()];
    let links = CallbackLinks::new(ProviderId::new("sim"), "https://shop.example/recharge", keys);
    let url = links.link(&OrderId::parse(id).unwrap(), attempt).unwrap();
    url.strip_prefix("https://shop.example").unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_callback_settles_its_order_in_a_process_that_never_called_and_its_repetitions_do_nothing() {
    let called = Called::set_up(Wishes { profile: patient(), query_not_before: "2m", ..Wishes::default() }, true).await;
    for (nth, key) in [KEY, OLD_KEY].into_iter().enumerate() {
        let id = format!("signed-{nth}");
        called.accepted(&id).await;
        let body = told(&format!("{id}-1"), "succeeded").to_string();
        for _ in 0..3 {
            let answer = called.post("/callbacks/sim", &signed(key, 0, &body), &body).await;
            assert_eq!(answer, (200, "ok".to_owned()));
        }
        let row = called.row(&id).await.unwrap();
        assert_eq!(
            (row.state, row.sla.is_some()),
            (State::Succeeded, true),
            "it was settled before it was acknowledged"
        );
        assert_eq!(called.became(&id).await, [(1, "succeeded".to_owned(), Became::Settled)]);
    }
    // Taken back afterwards: the order stands, and a person hears of it.
    let body = told("signed-0-1", "reversed").to_string();
    assert_eq!(called.post("/callbacks/sim", &signed(KEY, 0, &body), &body).await.0, 200);
    let row = called.row("signed-0").await.unwrap();
    assert_eq!((row.state, row.cases & CaseKind::ReversedAfterSuccess.bit() != 0), (State::Succeeded, true));
    let count = async |result: &str| called.callback.metric_of("recharge_callbacks_total", result).await.unwrap();
    assert_eq!((count("\"settled\"").await, count("\"known\"").await), (3.0, 4.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_refusal_is_tried_again_like_one_that_was_asked_for() {
    let wishes = Wishes { profile: patient(), query_not_before: "2m", ..Wishes::default() };
    let called = Called::set_up(wishes, true).await;
    called.accepted("again").await;
    let mut body = told("again-1", "rejected");
    body["code"] = "operator_unavailable".into();
    body["retryable"] = true.into();
    let body = body.to_string();
    assert_eq!(called.post("/callbacks/sim", &signed(KEY, 0, &body), &body).await.0, 200);
    let row = called.until("again", "sent a second time", |row| row.attempt_number() == 2).await;
    assert_eq!((row.state, row.declined), (State::InFlight, 1));
    // The first attempt was delivered after all: a provider that takes back its word.
    let body = told("again-1", "succeeded").to_string();
    assert_eq!(called.post("/callbacks/sim", &signed(KEY, 0, &body), &body).await.0, 200);
    let row = called.row("again").await.unwrap();
    assert_eq!((row.state, row.cases & CaseKind::ProviderFlipped.bit() != 0), (State::Succeeded, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_wrong_with_a_callback_its_sender_learns_nothing_and_nothing_changes() {
    let wishes = Wishes { profile: patient(), query_not_before: "2m", ..Wishes::default() };
    let called = Called::set_up(wishes, true).await;
    called.accepted("mine").await;
    let before = called.row("mine").await;
    let body = told("mine-1", "succeeded").to_string();
    let good = signed(KEY, 0, &body);
    let without = |name: &str| good.iter().filter(|(of, _)| of != name).cloned().collect::<Vec<_>>();
    let hash = "R0123456789ABCDEFGHJKMNPQRSTVWX";
    let of_nobody = told(hash, "succeeded").to_string();
    let token = path_of("mine", 1);
    let mut bent = token.clone();
    let last = if bent.ends_with('A') { "B" } else { "A" };
    bent.replace_range(bent.len() - 3..bent.len() - 2, last);
    let other = path_of("other", 1);
    let cases = vec![
        ("no signature", "/callbacks/sim".to_owned(), Vec::new(), body.clone()),
        ("another key", "/callbacks/sim".into(), signed("somebody else's key", 0, &body), body.clone()),
        ("another body", "/callbacks/sim".into(), good.clone(), told("mine-1", "rejected").to_string()),
        ("no time", "/callbacks/sim".into(), without("webhook-timestamp"), body.clone()),
        ("stale", "/callbacks/sim".into(), signed(KEY, 3_600, &body), body.clone()),
        ("from the future", "/callbacks/sim".into(), signed(KEY, -3_600, &body), body.clone()),
        ("a reference of nobody", "/callbacks/sim".into(), signed(KEY, 0, &of_nobody), of_nobody.clone()),
        ("no reference", "/callbacks/sim".into(), signed(KEY, 0, "{}"), "{}".to_owned()),
        ("a provider of nobody", "/callbacks/nobody".into(), good.clone(), body.clone()),
        ("a bent address", bent, good.clone(), body.clone()),
        ("another order's address", other, good.clone(), body.clone()),
        ("elsewhere", "/elsewhere".into(), good.clone(), body.clone()),
    ];
    for (what, path, headers, body) in cases {
        assert_eq!(called.post(&path, &headers, &body).await, (404, String::new()), "{what}");
    }
    let huge = "x".repeat(70_000);
    assert_eq!(called.post("/callbacks/sim", &signed(KEY, 0, &huge), &huge).await.0, 413);
    assert_eq!(called.row("mine").await, before);
    assert_eq!(called.became("mine").await, []);
    // It is well all the same.
    assert_eq!(called.post(&token, &good, &body).await.0, 200);
    assert_eq!(called.row("mine").await.unwrap().state, State::Succeeded);
    let log = called.callback.log_text();
    assert!(!log.contains(KEY) && !log.contains(TOKEN_KEY), "a key stands in the log");
    super::support::assert_no_numbers(&log, "the log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callback_that_nobody_signed_only_brings_the_question_forward() {
    // It is done soon, and asked about in half a minute.
    let profile = Profile::from_toml("accepted_first = 1.0\ncompletion = { fixed = \"300ms\" }\n").unwrap();
    let toml = String::new();
    let wishes = Wishes { profile, query_not_before: "60s", toml, ..Wishes::default() };
    let called = Called::set_up(wishes, false).await;
    let row = called.accepted("unsigned").await;
    let (before, deadline) = (row.wake_at.unwrap(), Instant::now() + PATIENCE);
    while called.line.delivered().is_empty() {
        assert!(Instant::now() < deadline, "the simulator never delivered it");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    called.line.doctor("update orders set claimed_at = claimed_at - interval '2 minutes'").await;
    // A lie: it is asked, and the truth counts.
    let body = told("unsigned-1", "rejected").to_string();
    assert_eq!(called.post(&path_of("unsigned", 1), &[], &body).await.0, 200);
    assert_eq!(called.became("unsigned").await, [(1, "unreadable".to_owned(), Became::Asked)]);
    let row = called.until("unsigned", "settled", |row| row.state.is_closed()).await;
    assert_eq!(row.state, State::Succeeded);
    assert!(SystemClock::local() < before, "it was asked when it was told, not when its turn was");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callback_brings_forward_also_the_question_after_one_that_was_answered() {
    let profile = Profile::from_toml("accepted_first = 1.0\ncompletion = { fixed = \"300ms\" }\n").unwrap();
    let called = Called::set_up(Wishes { profile, query_not_before: "2m", ..Wishes::default() }, false).await;
    called.accepted("asked").await;
    // As after an answer that was no news: the row's time has passed, and the next question stands in the hold.
    called
        .line
        .doctor(
            "update orders set claimed_at = claimed_at - interval '3 minutes', wake_at = now() - interval '1 second',
             held_until = now() + interval '70 seconds', held_version = asked_version",
        )
        .await;
    let began = Instant::now();
    let body = told("asked-1", "succeeded").to_string();
    assert_eq!(called.post(&path_of("asked", 1), &[], &body).await.0, 200);
    assert_eq!(called.became("asked").await, [(1, "succeeded".to_owned(), Became::Asked)]);
    let row = called.until("asked", "settled", |row| row.state.is_closed()).await;
    assert_eq!(row.state, State::Succeeded);
    assert!(began.elapsed() < Duration::from_secs(60), "it was asked when the provider may be asked again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_success_that_is_told_of_a_failed_order_is_asked_about_before_a_person_hears_of_it() {
    let profile = "suffix_scenarios = true\n[outcomes]\nlate_success = { rate = 0.0, lasts = { fixed = \"300ms\" } }\n";
    let profile = Profile::from_toml(profile).unwrap();
    let called = Called::set_up(Wishes { profile, query_not_before: "1s", ..Wishes::default() }, false).await;
    // By the end of its number: refused at first, delivered afterwards.
    let order = super::support::changed("late", &json!({ "phone": "+8613800000082" }));
    called.line.write(vec![called.line.record("late", &order)]).await;
    let row = called.until("late", "failed", |row| row.state == State::Failed).await;
    assert!(row.refund_requested);
    let deadline = Instant::now() + PATIENCE;
    while called.line.delivered().is_empty() {
        assert!(Instant::now() < deadline, "the simulator never delivered it");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let body = told("late-1", "succeeded").to_string();
    assert_eq!(called.post(&path_of("late", 1), &[], &body).await.0, 200);
    assert_eq!(called.became("late").await, [(1, "succeeded".to_owned(), Became::Confirming)]);
    let row = called.until("late", "a case", Order::has_cases).await;
    assert_eq!((row.state, row.cases & CaseKind::LateSuccess.bit() != 0), (State::Failed, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_genuine_callback_that_cannot_be_written_is_to_be_sent_again() {
    let wishes = Wishes { profile: patient(), query_not_before: "2m", ..Wishes::default() };
    let called = Called::set_up(wishes, true).await;
    called.accepted("held").await;
    let body = told("held-1", "succeeded").to_string();
    // Of an order that is not there: of a store that went back in time.
    let lost = told("never-1", "succeeded").to_string();
    assert_eq!(called.post("/callbacks/sim", &signed(KEY, 0, &lost), &lost).await.0, 503);
    let mut other = called.line.connect().await;
    sqlx::raw_sql("begin; select 1 from orders where order_id = 'held' for update").execute(&mut other).await.unwrap();
    assert_eq!(called.post("/callbacks/sim", &signed(KEY, 0, &body), &body).await.0, 503);
    assert_eq!(called.became("held").await, []);
    sqlx::raw_sql("rollback").execute(&mut other).await.unwrap();
    assert_eq!(called.post("/callbacks/sim", &signed(KEY, 0, &body), &body).await.0, 200);
    assert_eq!(called.row("held").await.unwrap().state, State::Succeeded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_somebody_holds_costs_its_own_callback_and_none_that_came_with_it() {
    for is_signed in [true, false] {
        let wishes = Wishes { profile: patient(), query_not_before: "2m", ..Wishes::default() };
        let called = Called::set_up(wishes, is_signed).await;
        let ids: Vec<String> = (0..20).map(|nth| format!("with-{nth}")).collect();
        for id in &ids {
            called.sell(id).await;
        }
        for id in &ids {
            called.until(id, "accepted", |row| attempt_state(row) == Some(AttemptState::Accepted)).await;
        }
        // As after a question that was answered: the hold is what a word of no proof moves.
        called
            .line
            .doctor(
                "update orders set claimed_at = claimed_at - interval '3 minutes', wake_at = now() - interval '1 second',
                 held_until = now() + interval '5 minutes', held_version = asked_version",
            )
            .await;
        let mut other = called.line.connect().await;
        let hold = "begin; select 1 from orders where order_id = 'with-7' for update";
        sqlx::raw_sql(hold).execute(&mut other).await.unwrap();
        let post_all = async |ids: &[String]| {
            let posts = ids.iter().map(|id| {
                let called = &called;
                async move {
                    let body = told(&format!("{id}-1"), "succeeded").to_string();
                    let path = if is_signed { "/callbacks/sim".to_owned() } else { path_of(id, 1) };
                    (id.clone(), called.post(&path, &signed(KEY, 0, &body), &body).await.0)
                }
            });
            futures_util::future::join_all(posts).await
        };
        let began = Instant::now();
        for (id, status) in post_all(&ids).await {
            let expected = if id == "with-7" { 503 } else { 200 };
            assert_eq!(status, expected, "{id}, signed: {is_signed}");
        }
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        assert_eq!(called.became("with-7").await, []);
        sqlx::raw_sql("rollback").execute(&mut other).await.unwrap();
        assert_eq!(post_all(&ids[7..8]).await[0].1, 200);
        let became = if is_signed { Became::Settled } else { Became::Asked };
        for id in &ids {
            assert_eq!(called.became(id).await, [(1, "succeeded".to_owned(), became)], "{id}");
        }
    }
}

/// A provider that calls back in every way, and whose submits fail in some.
const BUSY: &str = "
accepted_first = 0.6
reply = { fixed = \"5ms\" }
completion = { uniform = { min = \"50ms\", max = \"1s\" } }
[declines]
retryable = 0.05
fatal = 0.02
[faults.reset]
after = 0.02
[callbacks]
enabled = true
after = { fixed = \"5ms\" }
lost = 0.05
duplicated = 0.1
early = 0.05
forged = 0.1
stale = 0.05
replayed = 0.1
unknown_reference = 0.05
in_progress = 0.1
resend = [\"1s\", \"1s\", \"2s\"]
";

/// Sells so many orders at it, and looks at what was made of its callbacks.
async fn called_about(orders: u64) {
    let address = free_address();
    let keys = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = keys.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (key, token) = (file("key", KEY), file("token", TOKEN_KEY));
    let toml = format!(
        "callback_key_files = [{key:?}]\n[callback]\nlisten = \"{address}\"\npublic_url = \"http://{address}\"\ntoken_key_files = [{token:?}]\n"
    );
    let profile = Profile::from_toml(BUSY).unwrap();
    let wishes = Wishes { profile, toml, callback_key: Some(KEY), query_not_before: "2s", ..Wishes::default() };
    let line = Line::set_up(wishes).await;
    let callback = line.start_roles("callback", "callback", &[]).await;
    let _worker = line.start_roles("worker", "intake,dispatch,delay,watchdog,relay", &[]).await;
    let resident = async || callback.metric("process_resident_memory_bytes").await.unwrap() / 1_048_576.0;
    let before = resident().await;
    line.send("called", orders).await;
    let deadline = Instant::now() + PATIENCE * 10;
    loop {
        let counts: std::collections::HashMap<State, u64> =
            line.store.count_by_state().await.unwrap().into_iter().collect();
        let closed: u64 = [State::Succeeded, State::Failed].iter().filter_map(|state| counts.get(state)).sum();
        if closed == orders && line.simulator.callbacks_open() == 0 {
            break;
        }
        let open = line.simulator.callbacks_open();
        assert!(Instant::now() < deadline, "{counts:?}, {open} callbacks are open:\n{}", callback.log_text());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let callbacks = line.simulator.stats().callbacks;
    println!("{callbacks:?}");
    let (after, count) = (resident().await, async |of: &str| callback.metric_of("recharge_callbacks_total", of).await);
    println!(
        "{before:.0} MiB before, {after:.0} MiB after; settled {:?}, known {:?}",
        count("\"settled\"").await,
        count("\"known\"").await
    );
    assert!(callbacks.forged_sent > 0 && callbacks.stale_sent > 0 && callbacks.unknown_sent > 0, "{callbacks:?}");
    let wrong = callbacks.forged_acknowledged + callbacks.stale_acknowledged + callbacks.unknown_acknowledged;
    assert_eq!(wrong, 0, "{callbacks:?}");
    assert_eq!(
        callbacks.replayed_acknowledged, callbacks.replayed_sent,
        "a recording of what is known is acknowledged"
    );
    assert!(count("\"settled\"").await > Some(0.0) && count("\"forged\"").await > Some(0.0));
    assert!(after < before + 64.0, "memory has grown from {before:.0} to {after:.0} MiB");
    let report = line.audit().await;
    assert!(report.audit.clean, "{report:?}");
    super::support::assert_no_numbers(&callback.log_text(), "the log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callbacks_of_every_kind_settle_each_order_once_and_no_forgery_is_acknowledged() {
    called_about(300).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes: scripts/campaign callbacks"]
async fn campaign_of_a_hundred_thousand_callbacks() {
    called_about(60_000).await;
}
