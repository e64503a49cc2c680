//! What the simulator tells without being asked, once a recharge has come to its end.

use std::time::Duration;

use recharged::domain::SubmitOutcome;
use recharged::ports::{Clock as _, SubmitRequest};
use recharged::providers::Secret;
use recharged::providers::simulator::{
    CallbackUrl, Callbacks, Dialect, Latency, Profile, Script, SimulatorOptions, Step,
};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::dialects::{ACCOUNT, KEY, Stage, question};
use super::receiver::{Answer, Got, Receiver, THANKS, TROUBLE};
use super::simulator::Run;
use super::wire::Wire;
use super::{RealClock, provider, quick, submit_of, until};

/// What the tests' addresses end in.
pub(super) const PATH: &str = "/callbacks/sim/order-1.1.token-of-the-order";

/// Callbacks that go out at once, and again soon.
pub(super) fn prompt() -> Callbacks {
    Callbacks {
        enabled: true,
        after: Latency::Fixed(Duration::ZERO),
        resend: vec![Duration::from_millis(20); 3],
        patience: Duration::from_secs(30),
        ..Callbacks::default()
    }
}

pub(super) fn told(callbacks: Callbacks) -> Profile {
    Profile { callbacks, ..quick() }
}

pub(super) fn options(profile: Profile, receiver: &Receiver) -> SimulatorOptions {
    let callback_url = Some(CallbackUrl::parse(&receiver.url(PATH)).unwrap());
    SimulatorOptions { profile, callback_url, callback_key: Some(Secret::new(KEY)), ..SimulatorOptions::default() }
}

/// A simulator whose callbacks come here.
pub(super) async fn calling(receiver: &Receiver, profile: Profile) -> Run {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Some(dir.path().join("ledger.jsonl"));
    let simulator = super::simulator(SimulatorOptions { ledger, ..options(profile, receiver) }).await;
    println!("seed {}", simulator.seed());
    Run { dir, simulator }
}

/// A simulator of a real provider, likewise, signing with what callers show.
pub(super) async fn staged(dialect: Dialect, receiver: &Receiver, profile: Profile) -> Stage {
    let dir = tempfile::tempdir().unwrap();
    let simulator = super::simulator(SimulatorOptions {
        dialect,
        account: Some(ACCOUNT.to_owned()),
        key: Some(Secret::new(KEY)),
        callback_key: None,
        ledger: Some(dir.path().join("ledger.jsonl")),
        ..options(profile, receiver)
    })
    .await;
    println!("{dialect:?}: seed {}", simulator.seed());
    Stage { dir, dialect, simulator }
}

/// What the next submit meets.
pub(super) fn next(stage: &Stage, then: &str) {
    let step = Step { next: Some(1), then: Some(then.to_owned()), ..Step::default() };
    stage.simulator.script(&Script { steps: vec![step] }).unwrap();
}

/// The words of a dialect for: delivered, refused, taken back.
pub(super) const fn words(dialect: Dialect) -> [&'static str; 3] {
    match dialect {
        Dialect::Own => ["succeeded", "rejected", "reversed"],
        Dialect::Dtone => ["COMPLETED", "DECLINED", "REVERSED"],
        Dialect::Mf178 => ["3", "4", "6"],
        Dialect::Reloadly => ["SUCCESSFUL", "FAILED", "REFUNDED"],
    }
}

/// Everything that is to come has come.
pub(super) async fn quiet(run: &recharged::providers::simulator::SimulatorHandle) {
    until("nothing waits or is under way", || run.callbacks_open() == 0).await;
    let counts = run.stats().callbacks;
    let refused = counts.refused_2xx + counts.refused_3xx + counts.refused_4xx + counts.refused_5xx;
    assert_eq!(counts.sent, counts.acknowledged + refused + counts.unanswered, "{counts:?}");
}

/// The body of an answer to a request of a dialect's own.
async fn asked(stage: &Stage, path: &str, authorization: &str) -> Vec<u8> {
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: s\r\nconnection: close\r\nauthorization: {authorization}\r\n\r\n");
    let mut stream = TcpStream::connect(stage.simulator.addr()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    answer.split_off(head + 4)
}

#[tokio::test]
async fn every_dialect_calls_back_at_the_end_rightly_signed_and_with_what_the_ledger_says() {
    for dialect in Dialect::ALL {
        let receiver = Receiver::start([THANKS]).await;
        let completion = Latency::Fixed(Duration::from_millis(50));
        let stage = staged(dialect, &receiver, Profile { completion, ..told(prompt()) }).await;
        let provider = stage.provider();
        let [delivered, refused, _] = words(dialect);
        for (n, (then, word)) in
            [("accept", delivered), ("outcomes.accepted_then_failed", refused), ("deliver", delivered)]
                .into_iter()
                .enumerate()
        {
            let reference = format!("R0000000000{n}");
            next(&stage, then);
            let path = format!("/of/its/own/{reference}");
            let sent = SubmitRequest { callback_url: Some(receiver.url(&path)), ..submit_of(&reference) };
            let outcome = provider.submit(&sent).await;
            until("it has been told", || receiver.count() > n).await;
            let got = receiver.got().pop().unwrap();
            let case = format!("{dialect:?}, {then}: {got:?}");
            assert_eq!(got.says(dialect), (reference.clone(), word.to_owned()), "{case}");
            assert_eq!(stage.delivered().contains_key(&reference), word == delivered, "{case}");
            assert_eq!(got.is_signed(dialect, KEY), dialect != Dialect::Dtone, "{case}");
            assert!(!got.is_signed(dialect, "another") && got.method == "POST", "{case}");
            let skew = got.timestamp(dialect).map(|at| (RealClock.now().timestamp() - at).abs());
            assert!(skew.is_none_or(|skew| skew < 60), "{case}");
            // Reloadly's address is set up with the account.
            assert_eq!(got.path, if dialect == Dialect::Reloadly { PATH } else { path.as_str() }, "{case}");
            let told = provider.query(&question(&sent, &outcome)).await;
            let text = format!("{told:?}");
            assert!(text.starts_with(if word == delivered { "Succeeded" } else { "Failed" }), "{case}: {text}");
        }
        quiet(&stage.simulator).await;
        let counts = stage.simulator.stats().callbacks;
        assert_eq!((counts.sent, counts.acknowledged, counts.given_up), (3, 3, 0), "{dialect:?}");
    }
}

#[tokio::test]
async fn a_callback_says_what_the_answer_to_a_question_says() {
    use base64::Engine as _;

    let login = base64::engine::general_purpose::STANDARD.encode(format!("{ACCOUNT}:{KEY}"));
    for (dialect, login) in [(Dialect::Own, format!("Bearer {KEY}")), (Dialect::Dtone, format!("Basic {login}"))] {
        let receiver = Receiver::start([THANKS]).await;
        let stage = staged(dialect, &receiver, told(prompt())).await;
        stage.provider().submit(&submit_of("R00000000001")).await;
        until("it has been told", || receiver.count() == 1).await;
        let got = receiver.got().remove(0);
        assert_eq!(got.header("content-type"), Some("application/json"));
        if dialect == Dialect::Own {
            let mut answer: serde_json::Value =
                serde_json::from_slice(&asked(&stage, "/recharges/R00000000001", &login).await).unwrap();
            answer["client_ref"] = "R00000000001".into();
            assert_eq!(got.json(), answer);
        } else {
            let id = got.json()["id"].as_u64().unwrap();
            assert_eq!(got.body, asked(&stage, &format!("/transactions/{id}"), &login).await, "byte for byte");
        }
    }
}

#[tokio::test]
async fn a_callback_is_sent_again_until_it_is_acknowledged_and_stays_the_same_message() {
    let elsewhere = Answer::Say("302 Found", "location: /elsewhere\r\n", "");
    let receiver = Receiver::start([TROUBLE, elsewhere, Answer::Say("404 Not Found", "", ""), THANKS]).await;
    let run = calling(&receiver, told(prompt())).await;
    assert_eq!(run.post("order-1-1").await.status(), 200);
    until("it was acknowledged", || run.simulator.stats().callbacks.acknowledged == 1).await;
    quiet(&run.simulator).await;
    let got = receiver.got();
    assert_eq!(got.len(), 4);
    for again in &got {
        assert_eq!((again.header("webhook-id"), &again.body), (got[0].header("webhook-id"), &got[0].body));
        assert!(again.is_signed(Dialect::Own, KEY) && again.path == PATH, "no redirect is followed: {again:?}");
    }
    let counts = run.simulator.stats().callbacks;
    assert_eq!((counts.sent, counts.refused_5xx, counts.refused_3xx, counts.refused_4xx), (4, 1, 1, 1));
    assert_eq!((counts.given_up, counts.unanswered), (0, 0));
    assert_eq!(run.post("order-2-1").await.status(), 200);
    until("the next one came", || receiver.count() == 5).await;
    assert_ne!(receiver.got()[4].header("webhook-id"), got[0].header("webhook-id"));
}

#[tokio::test]
async fn only_their_own_word_acknowledges_a_callback_of_mf178() {
    let receiver = Receiver::start([
        Answer::Say("200 OK", "", "success"),
        Answer::Say("204 No Content", "", ""),
        Answer::Say("201 Created", "", "SUCCESS"),
        THANKS,
    ])
    .await;
    let stage = staged(Dialect::Mf178, &receiver, told(prompt())).await;
    stage.provider().submit(&submit_of("R00000000001")).await;
    until("it was acknowledged", || stage.simulator.stats().callbacks.acknowledged == 1).await;
    let counts = stage.simulator.stats().callbacks;
    assert_eq!((receiver.count(), counts.sent, counts.refused_2xx), (4, 4, 3));
    let names: Vec<_> = receiver.got()[0].form().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["order_id", "third_id", "state", "time", "timestamp", "sign"]);
    assert_eq!(receiver.got()[0].header("content-type"), Some("application/x-www-form-urlencoded"));
}

#[tokio::test]
async fn an_answer_that_does_not_come_in_time_is_none_and_after_the_last_resend_it_is_given_up() {
    let receiver = Receiver::start([Answer::Silence]).await;
    let callbacks = Callbacks { patience: Duration::from_millis(100), ..prompt() };
    let run = calling(&receiver, told(callbacks)).await;
    assert_eq!(run.post("order-1-1").await.status(), 200);
    until("it was given up", || run.simulator.stats().callbacks.given_up == 1).await;
    let counts = run.simulator.stats().callbacks;
    assert_eq!((counts.sent, counts.unanswered, counts.acknowledged, receiver.count()), (4, 4, 0, 4));

    let receiver = Receiver::start([THANKS]).await;
    let nobody = CallbackUrl::parse(&receiver.url(PATH)).unwrap();
    drop(receiver);
    let options = SimulatorOptions { profile: told(prompt()), callback_url: Some(nobody), ..Default::default() };
    let run = Run { dir: tempfile::tempdir().unwrap(), simulator: super::simulator(options).await };
    assert_eq!(run.post("order-1-1").await.status(), 200);
    until("it was given up", || run.simulator.stats().callbacks.given_up == 1).await;
    assert_eq!(run.simulator.stats().callbacks.unanswered, 4, "and where nobody listens there is no answer either");
}

/// A submit that names its own address.
async fn post_with(run: &Run, reference: &str, url: &str) -> Wire {
    let order = json!({ "client_ref": reference, "phone": "+8613800000042", "amount_minor": 5_000, "currency": "CNY",
                        "callback_url": url });
    run.wire("POST", "/recharges", &order.to_string()).await
}

#[tokio::test]
async fn nothing_is_told_unless_the_profile_says_so_and_nowhere_but_where_it_can_be() {
    let receiver = Receiver::start([THANKS]).await;
    let run = calling(&receiver, quick()).await;
    assert_eq!(post_with(&run, "order-1-1", &receiver.url("/own")).await.status(), 200);
    run.set(told(prompt()));
    // The address given with a submit goes before the other one, even where it cannot be used.
    for (n, url) in ["https://127.0.0.1/own", "nonsense"].iter().enumerate() {
        assert_eq!(post_with(&run, &format!("order-2-{n}"), url).await.status(), 200);
    }
    assert_eq!(run.simulator.stats().callbacks.unaddressed, 2);
    assert_eq!(post_with(&run, "order-3-1", &receiver.url("/own?a=b")).await.status(), 200);
    until("the last one was told", || receiver.count() == 1).await;
    quiet(&run.simulator).await;
    let got = receiver.got();
    assert_eq!((got.len(), got[0].path.as_str(), got[0].says(Dialect::Own).0.as_str()), (1, "/own?a=b", "order-3-1"));
}

#[tokio::test]
async fn what_the_reply_told_need_not_be_told_again_but_what_it_did_not_is() {
    let receiver = Receiver::start([THANKS]).await;
    let completion = Latency::Fixed(Duration::from_millis(20));
    let callbacks = Callbacks { repeats_reply: false, ..prompt() };
    let run = calling(&receiver, Profile { completion, ..told(callbacks) }).await;
    let told: Vec<String> = ["deliver", "declines.fatal", "faults.reset.after", "accept"]
        .into_iter()
        .enumerate()
        .map(|(n, then)| {
            run.next(then);
            format!("order-{n}-1")
        })
        .collect();
    for reference in &told {
        run.post(reference).await;
    }
    until("both were told", || receiver.count() == 2).await;
    quiet(&run.simulator).await;
    let mut got: Vec<_> = receiver.got().iter().map(|got| got.says(Dialect::Own)).collect();
    got.sort();
    let succeeded = |reference: &str| (reference.to_owned(), "succeeded".to_owned());
    assert_eq!(got, [succeeded("order-2-1"), succeeded("order-3-1")], "a reply that was lost told nothing");
}

#[tokio::test]
async fn a_callback_is_sent_by_hand_and_its_answer_told() {
    let refuses = Answer::Say("401 Unauthorized", "", "");
    let judge = move |got: &Got| if got.is_signed(Dialect::Own, KEY) { THANKS } else { refuses.clone() };
    let receiver = Receiver::judging(judge).await;
    // Callbacks are off: only by hand is anything sent.
    let run = calling(&receiver, quick()).await;
    assert_eq!(post_with(&run, "order-1-1", &receiver.url("/own")).await.status(), 200);
    let ask = async |body: serde_json::Value| run.wire("POST", "/_admin/callbacks", &body.to_string()).await;
    let thanked = json!({ "status": 200, "acknowledged": true });
    assert_eq!(ask(json!({ "client_ref": "order-1-1" })).await.json(), thanked);
    let elsewhere = json!({ "client_ref": "order-1-1", "url": receiver.url("/elsewhere"), "stale": true });
    assert_eq!(ask(elsewhere).await.json(), thanked);
    let forged = json!({ "client_ref": "order-1-1", "forged": true });
    assert_eq!(ask(forged).await.json(), json!({ "status": 401, "acknowledged": false }));
    let got = receiver.got();
    let paths: Vec<_> = got.iter().map(|got| (got.path.as_str(), got.says(Dialect::Own).1)).collect();
    let word = |path, word: &str| (path, word.to_owned());
    assert_eq!(paths, [word("/own", "succeeded"), word("/elsewhere", "succeeded"), word("/own", "rejected")]);
    assert!(got[0].timestamp(Dialect::Own).unwrap() - got[1].timestamp(Dialect::Own).unwrap() > 3_000);
    assert_eq!(ask(json!({ "client_ref": "order-9-1" })).await.status(), 404);
    let nowhere = json!({ "client_ref": "order-1-1", "url": "https://h/" });
    assert_eq!(ask(nowhere).await.status(), 422);
    assert_eq!(ask(json!({ "client_ref": "order-1-1", "forge": true })).await.status(), 422);
    let counts = run.wire("GET", "/_admin/stats", "").await.json()["callbacks"].clone();
    let wanted = json!([3, 2, 1, 1, 0, 1, 1]);
    let names = ["sent", "acknowledged", "refused_4xx", "forged_sent", "forged_acknowledged", "stale_sent"];
    let told: Vec<_> = names.into_iter().chain(["stale_acknowledged"]).map(|name| counts[name].clone()).collect();
    assert_eq!(json!(told), wanted);
}

#[tokio::test]
async fn while_it_is_frozen_nothing_is_told() {
    let receiver = Receiver::start([THANKS]).await;
    let completion = Latency::Fixed(Duration::from_secs(1));
    let run = calling(&receiver, Profile { accepted_first: 1.0, completion, ..told(prompt()) }).await;
    assert_eq!(run.post("order-1-1").await.status(), 202);
    assert_eq!(run.wire("PUT", "/_admin/freeze", "").await.status(), 200);
    until("it is delivered", || run.delivered() == ["order-1-1"]).await;
    until("it is to be told", || run.simulator.callbacks_open() == 1).await;
    assert_eq!((receiver.count(), run.simulator.stats().callbacks.sent), (0, 0));
    assert_eq!(run.wire("DELETE", "/_admin/freeze", "").await.status(), 200);
    until("it is told", || receiver.count() == 1).await;
}

#[tokio::test]
async fn a_simulator_that_stops_waits_neither_for_callbacks_nor_for_their_answers() {
    let receiver = Receiver::start([Answer::Silence]).await;
    let run = calling(&receiver, told(prompt())).await;
    run.post("order-1-1").await;
    until("one is under way", || receiver.count() == 1).await;
    run.set(told(Callbacks { after: Latency::Fixed(Duration::from_hours(1)), ..prompt() }));
    run.post("order-2-1").await;
    until("another one waits", || run.simulator.callbacks_open() == 2).await;
    let stopped = tokio::time::timeout(Duration::from_secs(20), run.simulator.shutdown()).await;
    assert!(stopped.is_ok(), "it waits for an hour, or for half a minute");
    assert_eq!(receiver.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_than_256_callbacks_are_under_way_at_once() {
    let receiver = Receiver::start([Answer::Silence]).await;
    let run = calling(&receiver, told(prompt())).await;
    let provider = provider(&run.simulator.base_url());
    for n in 0..300 {
        let outcome = provider.submit(&submit_of(&format!("order-{n}-1"))).await;
        assert!(matches!(outcome, SubmitOutcome::Succeeded(_)), "{outcome:?}");
    }
    until("as many are under way as may be", || receiver.count() >= 256).await;
    assert_eq!((receiver.count(), receiver.open_max(), run.simulator.callbacks_open()), (256, 256, 300));
}

#[test]
fn the_profiles_in_the_documentation_are_profiles() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/SIMULATOR.md");
    let text = std::fs::read_to_string(path).unwrap();
    let blocks = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let profiles: Vec<Profile> =
        blocks.filter(|block| !block.contains("[[step]]")).map(|block| Profile::from_toml(block).unwrap()).collect();
    assert_eq!(profiles.len(), 2);
    assert!(profiles[1].callbacks.rates().iter().all(|(_, rate)| *rate > 0.0), "every class is in the example");
}
