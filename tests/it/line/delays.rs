//! The delay tiers on a real broker: `recharged run --roles delay`, records put into tiers by hand,
//! and the topic `timers` and a lane's, which nobody reads here, as targets.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use recharged::clock::SystemClock;
use recharged::ports::{InRecord, OutRecord};
use recharged::roles::dead_letter::DeadLetter;

use crate::harness::{Line, PATIENCE, Wishes};
use crate::pace::at_most;

const TIERS: &str = r#"["1s", "2s", "5s", "1m"]"#;

async fn line() -> Line {
    Line::set_up(Wishes { tiers: TIERS, ..Wishes::default() }).await
}

fn now_ms() -> i64 {
    SystemClock::local().timestamp_millis()
}

fn header(name: &str, value: impl Into<Vec<u8>>) -> (Bytes, Option<Bytes>) {
    (Bytes::from(name.to_owned()), Some(Bytes::from(value.into())))
}

/// A record in a tier that names its due time and its target; its value is the due time as well.
fn delayed(line: &Line, tier: &str, target: &str, due_ms: i64, key: &str) -> OutRecord {
    OutRecord {
        topic: line.topic(&format!("delay.{tier}")),
        key: Some(Bytes::from(key.to_owned())),
        value: Some(Bytes::from(due_ms.to_string())),
        headers: vec![
            header("kept", b"\xfe\x00".to_vec()),
            header("due-at", due_ms.to_string()),
            header("target-topic", line.topic(target).to_string()),
            header("hops", "0"),
        ],
    }
}

fn due_of(record: &InRecord) -> i64 {
    std::str::from_utf8(record.value.as_deref().unwrap()).unwrap().parse().unwrap()
}

/// How long after its due time each came; fails for one that came before.
fn lateness_ms(records: &[InRecord]) -> Vec<i64> {
    let late = |record: &InRecord| record.timestamp.unwrap().timestamp_millis() - due_of(record);
    let late: Vec<i64> = records.iter().map(late).collect();
    assert!(late.iter().all(|late| *late >= 0), "early: {late:?}");
    late
}

fn keys(records: &[InRecord]) -> HashMap<String, usize> {
    let mut keys = HashMap::new();
    for record in records {
        *keys.entry(String::from_utf8(record.key.as_deref().unwrap().to_vec()).unwrap()).or_default() += 1;
    }
    keys
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_reaches_its_target_when_it_is_due_with_its_bytes_and_never_before() {
    let line = line().await;
    let _service = line.start_roles("delay", "delay", &[]).await;
    let now = now_ms();
    // Straight out of its tier; with a rest below the smallest; over two tiers; over three.
    let ways = [("1s", 1_000), ("1s", 1_700), ("2s", 3_400), ("5s", 7_300), ("5s", 8_800), ("1m", 3_000)];
    let sent: Vec<OutRecord> = ways
        .iter()
        .map(|(tier, after)| delayed(&line, tier, "timers", now + after, &format!("{tier}+{after}")))
        .collect();
    line.write(sent).await;
    let came = line.read("timers", |came| came.len() >= ways.len()).await;
    let late = lateness_ms(&came);
    println!("late by ms: {late:?}");
    within_a_second(&late);
    assert_eq!(keys(&came).len(), ways.len());
    for record in &came {
        assert_eq!(record.headers, vec![header("kept", b"\xfe\x00".to_vec())]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_goes_to_the_dead_letters_and_holds_up_nobody() {
    let line = line().await;
    let service = line.start_roles("delay", "delay", &[]).await;
    let due = now_ms() + 1_000;
    let good = |key: &str| delayed(&line, "1s", "timers", due, key);
    let without = |name: &str| {
        let mut record = good(&format!("without {name}"));
        record.headers.retain(|(found, _)| found.as_ref() != name.as_bytes());
        record
    };
    let with = |name: &str, value: &[u8]| {
        let mut record = without(name);
        record.headers.push(header(name, value.to_vec()));
        record
    };
    let bad = [
        ("bad_due_time", without("due-at")),
        ("bad_due_time", with("due-at", b"tomorrow")),
        ("bad_due_time", with("due-at", b"9223372036854775807")),
        ("bad_due_time", with("due-at", (now_ms() + 8 * 86_400_000).to_string().as_bytes())),
        ("bad_due_time", with("due-at", (now_ms() / 1_000).to_string().as_bytes())),
        ("bad_headers", with("due-at", b"\xff\xfe")),
        ("unknown_target", without("target-topic")),
        ("unknown_target", with("target-topic", b"somebody-elses")),
        ("unknown_target", with("target-topic", line.topic("orders").as_bytes())),
        ("unknown_target", with("target-topic", line.topic("lifecycle").as_bytes())),
        ("bad_headers", with("target-topic", b"\xff\xfe")),
    ];
    let mut sent = vec![good("before")];
    sent.extend(bad.iter().map(|(_, record)| record.clone()));
    sent.push(good("after"));
    line.write(sent).await;
    let came = line.read("timers", |came| came.len() >= 2).await;
    lateness_ms(&came);
    let letters = line.read("dead-letters", |letters| letters.len() >= bad.len()).await;
    let mut reasons: Vec<String> = letters.iter().map(|letter| DeadLetter::read(letter).unwrap().reason).collect();
    let mut expected: Vec<String> = bad.iter().map(|(reason, _)| (*reason).to_owned()).collect();
    reasons.sort_unstable();
    expected.sort_unstable();
    assert_eq!(reasons, expected);
    for letter in &letters {
        let read = DeadLetter::read(letter).unwrap();
        assert!(bad.iter().any(|(_, record)| record.headers == read.headers && record.value == letter.value));
    }
    assert_eq!(service.metric("recharge_delay_early_total").await, Some(0.0));
}

/// More than a forwarder's hands hold.
const FAR: usize = 40_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_leaves_only_later_stays_at_the_broker_and_is_in_the_way_of_nothing() {
    let line = line().await;
    let service = line.start_roles("delay", "delay", &[]).await;
    // Of one key, so in one partition, and for a minute in its tier.
    let later = now_ms() + 600_000;
    line.write((0..FAR).map(|_| delayed(&line, "1m", "timers", later, "far")).collect()).await;
    let (mut in_hand, mut since, deadline) = (0.0, Instant::now(), Instant::now() + PATIENCE);
    while in_hand == 0.0 || since.elapsed() < Duration::from_secs(2) {
        assert!(Instant::now() < deadline, "nothing was read");
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = service.metric("recharge_delay_pending_records").await.unwrap();
        if now.total_cmp(&in_hand).is_ne() {
            (in_hand, since) = (now, Instant::now());
        }
    }
    println!("{in_hand} in hand");
    assert!(in_hand < 12_000.0, "{in_hand} in hand");
    let due = now_ms() + 500;
    line.write((0..40).map(|n| delayed(&line, "1m", "timers", due, &n.to_string())).collect()).await;
    let tier = line.read("delay.1m", |read| read.len() >= FAR + 40).await;
    let far = tier.iter().find(|record| record.key.as_deref() == Some(b"far")).unwrap().partition;
    let elsewhere = tier.iter().filter(|record| record.partition != far).count();
    assert!(elsewhere > 0);
    let came = line.read("timers", |came| came.len() >= elsewhere).await;
    within_a_second(&lateness_ms(&came));
    assert_eq!((came.len(), keys(&came).len()), (elsewhere, elsewhere));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forwarder_that_is_killed_loses_nothing_hastens_nothing_and_is_replaced() {
    let line = line().await;
    let mut first = line.start_roles("first", "delay", &[]).await;
    let (now, count) = (now_ms(), 3_000_i64);
    // Due over six seconds, in both of two tiers.
    let sent: Vec<OutRecord> = (0..count)
        .map(|n| {
            let (tier, due) = if n % 2 == 0 { ("1s", now + 1_000 + 2 * n) } else { ("2s", now + 2_000 + 2 * n) };
            delayed(&line, tier, "timers", due, &n.to_string())
        })
        .collect();
    line.write(sent).await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    first.kill();
    let second = line.start_roles("second", "delay", &[]).await;
    let came = line.read("timers", |came| keys(came).len() >= usize::try_from(count).unwrap()).await;
    lateness_ms(&came);
    let twice = came.len() - keys(&came).len();
    println!("{twice} of {count} came twice");
    assert_eq!(second.metric("recharge_delay_early_total").await, Some(0.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_cannot_be_written_gets_dead_letters_and_delays_no_other() {
    let line = line().await;
    let service = line.start_roles("delay", "delay", &[]).await;
    const GONE: &str = "requests.sim.due";
    line.delete_topic(GONE).await;
    let (now, count) = (now_ms(), 200_i64);
    let record = |n: i64, target: &str| delayed(&line, "1s", target, now + 1_000 + 10 * n, &format!("{target}-{n}"));
    let sent = (0..count).flat_map(|n| [record(n, GONE), record(n, "timers")]).collect();
    line.write(sent).await;
    let came = line.read("timers", |came| came.len() >= usize::try_from(count).unwrap()).await;
    let late = lateness_ms(&came);
    within_a_second(&late);
    let letters = line.read("dead-letters", |letters| letters.len() >= usize::try_from(count).unwrap()).await;
    for letter in &letters {
        let letter = DeadLetter::read(letter).unwrap();
        // At first the producer believes that the topic will come back.
        assert!(["undeliverable", "unknown_target"].contains(&letter.reason.as_str()), "{}", letter.reason);
        let words = letter.error.strip_prefix(&format!("the topic {} did not take it: ", line.topic(GONE)));
        assert!(words.is_some_and(|words| !words.is_empty()), "{}", letter.error);
    }
    // The tier has moved on: what was given up is committed.
    let ended = Instant::now() + PATIENCE;
    while service.metric("recharge_delay_pending_records").await != Some(0.0) {
        assert!(Instant::now() < ended, "records stayed in hand");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forwarder_told_to_end_leaves_what_is_not_due_to_the_next_one() {
    let line = line().await;
    let mut first = line.start_roles("first", "delay", &[]).await;
    let due = now_ms() + 5_000;
    line.write((0..100).map(|n| delayed(&line, "5s", "timers", due, &n.to_string())).collect()).await;
    let deadline = Instant::now() + PATIENCE;
    while first.metric("recharge_delay_pending_records").await != Some(100.0) {
        assert!(Instant::now() < deadline, "the records were not read");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    first.end_well(Duration::from_secs(10)).await;
    let _second = line.start_roles("second", "delay", &[]).await;
    let came = line.read("timers", |came| came.len() >= 100).await;
    lateness_ms(&came);
    assert_eq!((came.len(), keys(&came).len()), (100, 100));
}

/// Due one after another over this time, all of them read ahead.
const SPREAD_MS: i64 = 12_000;

async fn spread(line: &Line, count: i64) {
    let now = now_ms();
    let record = |n: i64| delayed(line, "5s", "timers", now + 5_000 + n * SPREAD_MS / count, &n.to_string());
    line.write((0..count).map(record).collect()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tiers_of_a_process_that_never_returns_are_forwarded_by_the_others_within_seconds() {
    let line = line().await;
    let (mut gone, other) =
        (line.start_roles("gone", "delay", &[]).await, line.start_roles("other", "delay", &[]).await);
    spread(&line, 1_200).await;
    let deadline = Instant::now() + PATIENCE;
    for process in [&gone, &other] {
        while process.metric("recharge_delay_pending_records").await.is_none_or(|pending| pending < 1.0) {
            assert!(Instant::now() < deadline, "one of two has nothing to forward");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    gone.kill();
    let came = line.read("timers", |came| keys(came).len() >= 1_200).await;
    let latest = lateness_ms(&came).into_iter().max().unwrap();
    println!("the latest came {latest} ms late");
    let latest = Duration::from_millis(latest.try_into().unwrap());
    at_most("what a process left behind", latest, Duration::from_secs(8), Duration::from_secs(30));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_named_forwarder_that_comes_back_goes_on_within_a_second() {
    let line = line().await;
    let named = [("RECHARGED__PROCESS__NAME", "delay-0")];
    let mut first = line.start_roles("first", "delay", &named).await;
    spread(&line, 1_200).await;
    line.read("timers", |came| came.len() >= 200).await;
    let killed_at = now_ms();
    first.kill();
    let _again = line.start_roles("again", "delay", &named).await;
    let came = line.read("timers", |came| keys(came).len() >= 1_200).await;
    lateness_ms(&came);
    // What was due while nobody was there comes at once; it takes the start of a process and the return to
    // the group.
    let first_after = came.iter().map(|record| record.timestamp.unwrap().timestamp_millis());
    let gap = first_after.filter(|at| *at > killed_at + 100).min().unwrap() - killed_at;
    println!("it forwarded again {gap} ms after the kill");
    let gap = Duration::from_millis(gap.try_into().unwrap());
    at_most("the return of a named forwarder", gap, Duration::from_secs(1), Duration::from_secs(20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tiers_that_are_changed_with_records_in_them_lose_and_hasten_nothing() {
    let line = line().await;
    let mut before = line.start_roles("before", "delay", &[]).await;
    let now = now_ms();
    let sent = |tier: &str, after: i64| {
        let record = |n: i64| delayed(&line, tier, "timers", now + after + 5 * n, &format!("{tier}-{n}"));
        (0..100).map(record).collect::<Vec<_>>()
    };
    line.write([sent("1s", 6_000), sent("2s", 7_000), sent("5s", 5_000), sent("1m", 8_000)].concat()).await;
    let deadline = Instant::now() + PATIENCE;
    while before.metric("recharge_delay_pending_records").await != Some(400.0) {
        assert!(Instant::now() < deadline, "the records were not read");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    before.end_well(Duration::from_secs(10)).await;

    let text = std::fs::read_to_string(&line.config).unwrap();
    assert!(text.contains(TIERS));
    std::fs::write(&line.config, text.replace(TIERS, r#"["1s", "3s"]"#)).unwrap();
    assert!(line.command(&["topics", "create"]).output().unwrap().status.success());
    let after = line.start_roles("after", "delay", &[]).await;
    let came = line.read("timers", |came| keys(came).len() >= 400).await;
    lateness_ms(&came);
    assert_eq!(keys(&came).len(), 400);
    assert_eq!(after.metric("recharge_delay_early_total").await, Some(0.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_s_topic_that_does_not_exist_is_told_as_such_in_the_broker_s_words() {
    let line = line().await;
    let _service = line.start_roles("delay", "delay", &[]).await;
    line.write(vec![delayed(&line, "1s", "requests.nobody.due", now_ms() + 1_000, "nobody")]).await;
    let letters = line.read("dead-letters", |letters| !letters.is_empty()).await;
    let letter = DeadLetter::read(&letters[0]).unwrap();
    assert_eq!(letter.reason, "unknown_target");
    assert!(letter.error.contains("no such topic: ") && letter.error.contains("nknown"), "{}", letter.error);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_tier_whose_topic_is_deleted_ends_quietly_and_the_process_goes_on() {
    let line = line().await;
    let text = std::fs::read_to_string(&line.config).unwrap();
    assert!(text.contains(TIERS));
    std::fs::write(&line.config, text.replace(TIERS, r#"["1s", "5s"]"#)).unwrap();
    let service = line.start_roles("after", "delay", &[]).await;
    line.write(vec![delayed(&line, "2s", "timers", now_ms() + 2_500, "former")]).await;
    line.read("timers", |came| came.len() == 1).await;
    line.delete_topic("delay.2s").await;
    let deadline = Instant::now() + PATIENCE;
    while !service.log_text().contains("the topic of this tier is gone") {
        assert!(Instant::now() < deadline, "it was not noticed: {}", service.log_text());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    line.write(vec![delayed(&line, "1s", "timers", now_ms() + 1_200, "other")]).await;
    let came = line.read("timers", |came| came.len() == 2).await;
    lateness_ms(&came);
    assert!(service.answers_ok("/readyz").await, "{}", service.log_text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_forwarder_that_joins_while_records_wait_takes_over_at_once_and_loses_and_hastens_nothing() {
    let line = line().await;
    let first = line.start_roles("first", "delay", &[]).await;
    spread(&line, 1_200).await;
    let deadline = Instant::now() + PATIENCE;
    while first.metric("recharge_delay_pending_records").await != Some(1_200.0) {
        assert!(Instant::now() < deadline, "the records were not read");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let second = line.start_roles("second", "delay", &[]).await;
    let came = line.read("timers", |came| keys(came).len() >= 1_200).await;
    lateness_ms(&came);
    assert_eq!((came.len(), keys(&came).len()), (1_200, 1_200), "what waits is nobody's twice");
    for process in [&first, &second] {
        assert!(process.metric("recharge_delay_forwarded_total").await.is_some_and(|forwarded| forwarded > 0.0));
        assert_eq!(process.metric("recharge_delay_early_total").await, Some(0.0));
    }
}

/// A second on a quiet machine; `benches/` tells what it is to the millisecond.
fn within_a_second(late: &[i64]) {
    let latest = Duration::from_millis(late.iter().copied().max().unwrap_or(0).try_into().unwrap());
    at_most("the latest", latest, Duration::from_secs(1), Duration::from_secs(20));
}
