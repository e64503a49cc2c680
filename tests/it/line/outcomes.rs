//! What a provider may answer, through the real simulator.

use std::collections::HashMap;
use std::time::Duration;

use recharged::domain::event::EventType;
use recharged::domain::{AttemptState, LoggedEvent, Reason, Sla, State};
use recharged::ports::OutRecord;
use recharged::providers::simulator::{
    Ban, Declines, FaultClass, Faults, Latency, Profile, Queries, Rates, Script, Throttle, read_ledger,
};
use serde_json::{Value, json};

use super::support::{UNHURRIED, body, changed, events, header_of, timeline, types, until, until_logged};
use crate::harness::{Line, Wishes, is_held_up};

fn quick() -> Profile {
    Profile { reply: Latency::Fixed(Duration::from_millis(5)), ..Profile::default() }
}

const QUICK_RETRY: &str = "[retry]\nbackoff_first = \"200ms\"\nbackoff_max = \"1s\"\nmax_attempts = 6\n";
/// The last of more attempts would be held for the end of the order's time.
const TWO_TRIES: &str = "[retry]\nbackoff_first = \"200ms\"\nbackoff_max = \"1s\"\nmax_attempts = 2\n";

fn to_number(line: &Line, id: &str, phone: &str) -> OutRecord {
    line.record(id, &changed(id, &json!({ "phone": phone })))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_final_refusal_fails_the_order_and_asks_for_its_refund() {
    let profile = Profile { suffix_scenarios: true, ..quick() };
    let line =
        Line::set_up(Wishes { profile, send_window: UNHURRIED, toml: TWO_TRIES.to_owned(), ..Wishes::default() }).await;
    let _service = line.start("one", &[]).await;
    let cases = [
        ("invalid", "+8613800000802", Reason::InvalidPhone, 1),
        ("barred", "+8613800000803", Reason::RecipientBarred, 1),
        ("declined", "+8613800000806", Reason::ProviderDeclined, 1),
        // Told to try again, each time.
        ("exhausted", "+8613800000804", Reason::AttemptsExhausted, 2),
    ];
    let mut batch: Vec<_> = cases.iter().map(|(id, phone, ..)| to_number(&line, id, phone)).collect();
    batch.push(to_number(&line, "fine", "+8613800000811"));
    line.write(batch).await;
    line.until_order("fine", "succeeded", |order| order.state == State::Succeeded).await;
    for (id, _, reason, attempts) in cases {
        let row = line.until_order(id, "failed", |order| order.state == State::Failed).await;
        assert_eq!((row.reason, row.sla), (Some(reason), Some(Sla::Met)), "{id}");
        assert!(row.refund_requested && row.cases == 0, "{id}");
        let attempt = row.attempt.unwrap();
        assert_eq!((attempt.number, attempt.state), (attempts, AttemptState::Failed), "{id}");
    }
    let told = events(&line).await;
    let refunds = line.read("refunds", |records| records.len() >= cases.len()).await;
    for (id, _, reason, attempts) in cases {
        let last = body(told[id].last().unwrap());
        assert_eq!((&last["reason"], &last["sla"]), (&json!(reason.as_str()), &json!("met")), "{id}");
        let refund = refunds.iter().find(|record| record.key.as_deref() == Some(id.as_bytes())).unwrap();
        let wanted = json!({
            "order_id": id, "payment_id": format!("pay-{id}"), "amount_minor": 5000, "currency": "CNY",
            "reason": reason.as_str(), "attempts": attempts,
        });
        assert_eq!(body(refund), wanted);
        assert_eq!(header_of(refund, "ce_type"), "recharge.refund.requested.v1");
    }
    assert_eq!(line.delivered().len(), 1);
    let report = line.audit().await;
    assert!(report.audit.clean && report.refunds == 4, "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_for_now_is_tried_again_under_another_reference() {
    let declines = Declines { retryable: 1.0, retry_after: Duration::from_millis(1_500), ..Declines::default() };
    let profile = Profile { declines, ..quick() };
    let line =
        Line::set_up(Wishes { profile, send_window: UNHURRIED, toml: QUICK_RETRY.to_owned(), ..Wishes::default() })
            .await;
    let _service = line.start("one", &[]).await;
    line.send("later", 20).await;
    until("each order was declined once", || line.simulator.stats().refused >= 20).await;
    line.simulator.set_profile(quick()).unwrap();
    line.until_succeeded(20).await;
    let (told, delivered) = (events(&line).await, line.delivered());
    for row in line.rows().await {
        let id = row.order_id.as_str();
        let log = timeline(&line, id).await;
        let kinds: Vec<_> = log.iter().map(|event| event.kind).collect();
        let attempt = row.attempt.as_ref().unwrap();
        assert_eq!(row.declined, attempt.number - 1, "{id}");
        assert!(attempt.number >= 2, "{id}");
        assert!(kinds.contains(&EventType::RetryScheduled), "{id}: {kinds:?}");
        // The provider's advice is kept.
        let refused = |event: &LoggedEvent| event.kind == EventType::RetryScheduled && !is_held_up(event);
        let asked = log.iter().find(|event| refused(event)).unwrap();
        let claimed = |event: &LoggedEvent| event.kind == EventType::Submitted && event.version > asked.version;
        let again = log.iter().find(|event| claimed(event)).unwrap();
        assert!(again.at - asked.at >= chrono::Duration::milliseconds(1_490), "{id}");
        let steps = line.history(id).await.told(&told[id]);
        assert_eq!(types(&steps)[..3], ["queued", "submitted", "retry_scheduled"], "{id}");
        let shown = line.command(&["--json", "orders", "show", id]).output().unwrap();
        let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
        let references = shown["client_refs"].as_array().unwrap();
        assert_eq!(references.len(), usize::from(attempt.number), "{id}");
        assert_eq!(delivered.get(attempt.client_ref.as_str()), Some(&1), "the last reference was delivered");
        assert!(references[..references.len() - 1].iter().all(|r| !delivered.contains_key(r.as_str().unwrap())));
    }
    assert!(line.audit().await.audit.clean);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttled_order_waits_without_losing_an_attempt_and_the_whole_fleet_pauses() {
    let throttle = Throttle { permits_per_second: 0.125, burst: 1, tells_when: true, in_body: false };
    let profile = Profile { throttle: Some(throttle), ..quick() };
    let line =
        Line::set_up(Wishes { profile, send_window: UNHURRIED, toml: QUICK_RETRY.to_owned(), ..Wishes::default() })
            .await;
    let (_one, _two) = tokio::join!(line.start("one", &[]), line.start("two", &[]));
    // The first takes the only token, the second hears when there is another one.
    line.write(vec![line.order("first")]).await;
    line.until_succeeded(1).await;
    line.write(vec![line.order("second")]).await;
    // It may wait before that for a process that was held up, and not for long then.
    let refused = |event: &LoggedEvent| event.kind == EventType::RetryScheduled && !is_held_up(event);
    let heard = until_logged(&line, "second", "refused", refused).await;
    let waiting = line.load("second").await.unwrap();
    let (attempt, until_when) = (waiting.attempt.unwrap(), waiting.wake_at.unwrap());
    assert_eq!((attempt.number, attempt.state, waiting.declined), (1, AttemptState::Prepared, 0));
    assert_eq!((heard.data.cause.as_deref(), heard.data.wake_at), (Some("throttled"), Some(until_when)));
    assert!(until_when - heard.at > chrono::Duration::seconds(1), "the provider names the time");

    // New orders, in either process, wait as well: the provider has asked for a pause.
    line.simulator.set_profile(quick()).unwrap();
    line.send("others", 40).await;
    line.until_succeeded(42).await;
    for row in line.rows().await.iter().filter(|row| row.order_id.as_str() != "first") {
        let id = row.order_id.as_str();
        let log = timeline(&line, id).await;
        let sent = log.iter().rfind(|event| event.kind == EventType::Submitted).unwrap();
        assert!(sent.at >= until_when - chrono::Duration::milliseconds(250), "{id} left during the pause");
        assert_eq!((row.attempt_number(), row.declined), (1, 0), "{id}");
    }
    assert_eq!(line.load("second").await.unwrap().attempt.unwrap().client_ref, attempt.client_ref);
    assert_eq!(line.simulator.stats().submits, 43);
    assert!(line.audit().await.audit.clean);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ban_declines_no_order_and_the_lane_rests_until_it_is_over() {
    let ban = Ban { after: 1, within: Duration::from_secs(1), lasts: Duration::from_secs(6), tells_when: true };
    let profile = Profile { ban: Some(ban), ..quick() };
    let line =
        Line::set_up(Wishes { profile, send_window: UNHURRIED, toml: QUICK_RETRY.to_owned(), ..Wishes::default() })
            .await;
    let _service = line.start("one", &[]).await;
    line.simulator.script(&Script::for_orders([(vec!["banned".to_owned()], FaultClass::Ban)])).unwrap();
    line.write(vec![line.order("banned")]).await;
    let refused = |event: &LoggedEvent| event.kind == EventType::RetryScheduled && !is_held_up(event);
    let heard = until_logged(&line, "banned", "refused", refused).await;
    let until_when = heard.data.wake_at.unwrap();
    assert!(until_when - heard.at > chrono::Duration::seconds(1), "the provider names the time");

    line.send("others", 20).await;
    line.until_succeeded(21).await;
    for row in line.rows().await {
        let id = row.order_id.as_str();
        let log = timeline(&line, id).await;
        let sent = log.iter().rfind(|event| event.kind == EventType::Submitted).unwrap();
        assert!(sent.at >= until_when - chrono::Duration::milliseconds(250), "{id} left during the ban");
        assert_eq!((row.attempt_number(), row.declined), (1, 0), "{id}");
    }
    let stats = line.simulator.stats();
    assert_eq!((stats.banned, stats.submits), (1, 22), "nobody knocked meanwhile");
    assert!(line.audit().await.audit.clean);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_bans_who_asks_too_early_or_too_often_finds_nobody_to_ban() {
    let allowed = Some(Duration::from_secs(1));
    let queries = Queries { not_before: allowed, min_interval: allowed, ..Queries::default() };
    let lasts = Duration::from_mins(10);
    let ban = Ban { after: 1, within: lasts, lasts, tells_when: true };
    let completion = Latency::Fixed(Duration::from_secs(6));
    let profile = Profile { queries, ban: Some(ban), accepted_first: 1.0, completion, ..quick() };
    // The lane's terms are the provider's: a second each.
    let line = Line::set_up(Wishes { profile, send_window: "3s", ..Wishes::default() }).await;
    let (_one, _two) = tokio::join!(line.start("one", &[]), line.start("two", &[]));
    line.send("asked", 60).await;
    line.until_succeeded(60).await;
    let stats = line.simulator.stats();
    assert_eq!((stats.banned, stats.submits), (0, 60));
    assert!(line.audit().await.audit.clean);
}

/// Every fault that leaves it open whether the provider has delivered, both ways.
fn unknown_outcomes() -> Vec<(String, Faults)> {
    let (before, after) = (Rates { before: 1.0, after: 0.0 }, Rates { before: 0.0, after: 1.0 });
    let none = Faults::default();
    let mut faults = Vec::new();
    for (when, rates) in [("before", before), ("after", after)] {
        faults.push((format!("reset-{when}"), Faults { reset: rates, ..none }));
        faults.push((format!("hang-{when}"), Faults { hang: rates, ..none }));
        faults.push((format!("error-{when}"), Faults { error_500: rates, ..none }));
        faults.push((format!("truncated-{when}"), Faults { truncated: rates, ..none }));
        faults.push((format!("code-{when}"), Faults { unknown_code: rates, ..none }));
    }
    faults
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_provider_answers_about_an_unknown_outcome_settles_it() {
    let line = Line::set_up(Wishes {
        profile: quick(),
        send_window: UNHURRIED,
        toml: QUICK_RETRY.to_owned(),
        ..Wishes::default()
    })
    .await;
    let _service = line.start("one", &[]).await;
    let faults = unknown_outcomes();
    for (name, faults) in &faults {
        line.simulator.set_profile(Profile { faults: *faults, ..quick() }).unwrap();
        line.send(name, 3).await;
        for number in 0..3 {
            // Not yet asked about, or settled by now: it was sent under this profile.
            let sent = |order: &recharged::domain::Order| order.attempt_number() > 0 && order.version > 2;
            line.until_order(&format!("{name}-{number}"), "sent", sent).await;
        }
    }
    line.simulator.set_profile(quick()).unwrap();
    let orders = faults.len() as u64 * 3;
    line.until_succeeded(orders).await;

    let delivered = line.delivered();
    for row in line.rows().await {
        let id = row.order_id.as_str();
        let attempt = row.attempt.unwrap();
        if id.contains("-after") {
            assert_eq!(attempt.number, 1, "{id}: delivered by its first attempt");
        }
        assert_eq!(delivered.get(attempt.client_ref.as_str()), Some(&1), "{id}");
    }
    assert_eq!(delivered.len() as u64, orders, "no attempt but the last has delivered");
    let report = line.audit().await;
    assert!(report.audit.clean, "{report:?}");
    assert_eq!((report.open, report.refunds), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_outcome_is_never_failed_and_never_sent_again() {
    // Nobody may ask the provider while this lasts.
    let wishes = Wishes {
        profile: quick(),
        send_window: UNHURRIED,
        toml: QUICK_RETRY.to_owned(),
        query_not_before: "10m",
        ..Wishes::default()
    };
    let line = Line::set_up(wishes).await;
    let mut service = line.start("one", &[]).await;
    let faults = unknown_outcomes();
    for (name, faults) in &faults {
        line.simulator.set_profile(Profile { faults: *faults, ..quick() }).unwrap();
        line.send(name, 3).await;
        for number in 0..3 {
            let unknown = |order: &recharged::domain::Order| {
                order.attempt.as_ref().is_some_and(|attempt| attempt.state == AttemptState::Unknown)
            };
            line.until_order(&format!("{name}-{number}"), "of unknown outcome", unknown).await;
        }
    }
    // Accepted, and not completed as long as nobody looks.
    let completion = Latency::Fixed(Duration::from_secs(3_600));
    line.simulator.set_profile(Profile { accepted_first: 1.0, completion, ..quick() }).unwrap();
    line.send("accepted", 3).await;
    for number in 0..3 {
        let accepted = |order: &recharged::domain::Order| {
            order.attempt.as_ref().is_some_and(|attempt| attempt.state == AttemptState::Accepted)
        };
        line.until_order(&format!("accepted-{number}"), "accepted", accepted).await;
    }

    // Neither a restart, nor the same orders again, nor a cancellation sends or fails them.
    line.simulator.set_profile(quick()).unwrap();
    service.kill();
    let _service = line.start("again", &[]).await;
    let again: Vec<OutRecord> = faults
        .iter()
        .flat_map(|(name, _)| {
            [line.order(&format!("{name}-0")), super::support::cancelled(&line, &format!("{name}-1"))]
        })
        .collect();
    line.write(again).await;
    for (name, _) in &faults {
        let refused = |order: &recharged::domain::Order| order.cases != 0;
        line.until_order(&format!("{name}-1"), "refused its cancellation", refused).await;
    }
    line.send("good", 60).await;
    line.until_succeeded(60).await;

    let doubtful = 33;
    assert_eq!(faults.len() * 3 + 3, 33);
    assert_eq!(line.counts().await, [(State::InFlight, doubtful), (State::Succeeded, 60)].into());
    assert_eq!(line.simulator.stats().submits, doubtful + 60, "each was sent once");
    let (told, delivered) = (events(&line).await, line.delivered());
    for row in line.rows().await {
        let id = row.order_id.as_str();
        let attempt = row.attempt.unwrap();
        assert_eq!(attempt.number, 1, "{id}");
        let times = delivered.get(attempt.client_ref.as_str()).copied().unwrap_or(0);
        let wanted = u32::from(id.contains("-after") || id.starts_with("good"));
        assert_eq!(times, wanted, "{id}");
        if row.state == State::InFlight {
            let steps = line.history(id).await.told(&told[id]);
            assert_eq!(types(&steps)[..2], ["queued", "submitted"], "{id}");
        }
    }
    let report = line.audit().await;
    assert!(report.audit.clean, "{report:?}");
    assert_eq!((report.open, report.refunds), (doubtful, 0));
    let ledger = read_ledger(&line.folder.path().join("ledger.jsonl")).unwrap();
    let by_reference: HashMap<_, _> = ledger.iter().map(|delivery| (&delivery.client_ref, delivery)).collect();
    assert_eq!(by_reference.len(), ledger.len());
}
