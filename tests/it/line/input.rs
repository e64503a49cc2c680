//! Bad input: each such record is a dead letter with its reason and its bytes, and what stands
//! around it is not held up.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use recharged::clock::SystemClock;
use recharged::domain::State;
use recharged::ports::OutRecord;
use recharged::roles::dead_letter::Header;
use serde_json::{Value, json};

use super::support::{ago, assert_no_numbers, binary, changed, header, letters, until_metric};
use crate::harness::{Line, Wishes, order_json};
use crate::kafka::wire;

const CREATED: &str = "recharge.order.created.v1";
const STRUCTURED: &str = "application/cloudevents+json";

/// A record that cannot be used, and the reason that it must get.
struct Bad {
    reason: &'static str,
    topic: &'static str,
    value: Option<Bytes>,
    headers: Vec<Header>,
}

fn bad(reason: &'static str, value: impl Into<Bytes>, headers: Vec<Header>) -> Bad {
    Bad { reason, topic: "orders", value: Some(value.into()), headers }
}

fn wrong_order(changes: Value) -> Bad {
    bad("schema", changed("wrong", &changes).to_string(), Vec::new())
}

fn structured(envelope: &Value) -> Bad {
    bad("schema", envelope.to_string(), vec![header("content-type", "application/cloudevents+json; charset=UTF-8")])
}

fn not_json() -> Vec<Bad> {
    let order = order_json("torn").to_string();
    let torn = order[..order.len() - 5].to_owned();
    let twice = format!("{order}{order}");
    let marked = format!("\u{feff}{order}");
    let mut broken_text = order.clone().into_bytes();
    let place = order.find("torn").unwrap();
    broken_text[place] = 0xff;
    let surrogate = order.replace("torn", "\\ud800");
    let mut all: Vec<Bad> = [
        b"\xff\xfe\x00garbage".to_vec(),
        Vec::new(),
        b"\0\0\0\0\x07avro".to_vec(),
        torn.into_bytes(),
        twice.into_bytes(),
        marked.into_bytes(),
        broken_text,
        surrogate.into_bytes(),
        "[".repeat(60_000).into_bytes(),
    ]
    .into_iter()
    .map(|value| bad("malformed", value, Vec::new()))
    .collect();
    all.push(bad("malformed", "not json", binary(CREATED)));
    all.push(bad("malformed", "not json", vec![header("content-type", STRUCTURED)]));
    all
}

fn wrong_shapes() -> Vec<Bad> {
    let mut all: Vec<Bad> = ["null", "5", "\"text\"", "[]", "{}", "[{\"order_id\":\"x\"}]"]
        .into_iter()
        .map(|value| bad("schema", value, Vec::new()))
        .collect();
    all.extend(
        [
            json!({ "order_id": null }),
            json!({ "order_id": "" }),
            json!({ "order_id": "has space" }),
            json!({ "order_id": "+8613800012345" }),
            json!({ "order_id": "x".repeat(65) }),
            json!({ "order_id": 17 }),
            json!({ "phone": null }),
            json!({ "phone": 8_613_800_012_345_u64 }),
            json!({ "phone": ["+8613800012345"] }),
            json!({ "amount_minor": 0 }),
            json!({ "amount_minor": -5000 }),
            json!({ "amount_minor": 50.5 }),
            json!({ "amount_minor": "+8613800012345" }),
            json!({ "amount_minor": 1e30 }),
            json!({ "currency": "cny" }),
            json!({ "currency": "+8613800012345" }),
            json!({ "created_at": null }),
            json!({ "created_at": "13800012345" }),
            json!({ "created_at": "0001-01-01T00:00:00Z" }),
            json!({ "paid_at": "3001-01-01T00:00:00Z" }),
            json!({ "paid_at": "yesterday" }),
            json!({ "payment_id": "nul\u{0}byte" }),
            json!({ "carrier": "c".repeat(65) }),
            json!({ "notify": "yes, +8613800012345" }),
            json!({ "metadata": { "long": "m".repeat(1024) } }),
        ]
        .map(wrong_order),
    );
    // The values of an order, in the order of its fields, are no order.
    let listed = json!(["listed", "+8613800012345", null, 5000, "CNY", null, ago(1), ago(1), null, null, null]);
    all.push(bad("schema", listed.to_string(), Vec::new()));
    let order = order_json("twice").to_string();
    all.push(bad("schema", order.replacen('{', "{\"order_id\":\"other\",", 1), Vec::new()));
    all
}

fn wrong_envelopes() -> Vec<Bad> {
    let order = order_json("enveloped");
    let text = || order.to_string();
    let of_type = |reason, kind: &str| bad(reason, text(), binary(kind));
    let mut all = vec![
        of_type("unknown_type", "recharge.order.shipped.v1"),
        of_type("unknown_type", "Recharge.Order.Created.v1"),
        of_type("unknown_type", ""),
        of_type("unknown_type", "v1"),
        of_type("unknown_version", "recharge.order.created.v2"),
        of_type("unknown_version", "recharge.order.created.v1.1").reasoned("unknown_type"),
        bad("unknown_version", text(), vec![header("ce_specversion", "0.3"), header("ce_type", CREATED)]),
        bad("schema", text(), vec![header("ce_type", CREATED)]),
        bad("schema", text(), vec![header("ce_specversion", "1.0")]),
        // The first of a repeated header counts.
        bad("unknown_type", text(), [binary("some.other.v1"), binary(CREATED)].concat()),
        bad("bad_headers", text(), vec![(Bytes::from_static(b"trace"), Some(Bytes::from_static(b"\xff\xfe")))]),
    ];
    all.extend(
        [
            json!({ "specversion": "1.0", "type": CREATED, "id": "1", "source": "shop" }),
            json!({ "specversion": "1.0", "id": "1", "source": "shop", "data": order }),
            json!({ "type": CREATED, "id": "1", "source": "shop", "data": order }),
            json!({ "specversion": "1.0", "type": CREATED, "data_base64": "not base 64" }),
            json!({ "specversion": "1.0", "type": CREATED, "data": "a text" }),
            json!([]),
        ]
        .iter()
        .map(structured),
    );
    let versions = json!({ "specversion": "2.0", "type": CREATED, "data": order });
    all.push(structured(&versions).reasoned("unknown_version"));
    let newer = json!({ "specversion": "1.0", "type": "recharge.order.created.v9", "data": order });
    all.push(structured(&newer).reasoned("unknown_version"));
    let other = json!({ "specversion": "1.0", "type": "io.example.thing", "data": order });
    all.push(structured(&other).reasoned("unknown_type"));
    all
}

impl Bad {
    fn reasoned(self, reason: &'static str) -> Self {
        Self { reason, ..self }
    }
}

fn wrong_sizes_and_places() -> Vec<Bad> {
    let padded = |bytes: usize| {
        let order = order_json("large").to_string();
        format!("{order}{}", " ".repeat(bytes - order.len()))
    };
    let on_lifecycle = |reason, value: Value, kind: Option<&str>| {
        let headers = kind.map(binary).unwrap_or_default();
        Bad { topic: "lifecycle", ..bad(reason, value.to_string(), headers) }
    };
    let paid = "recharge.order.paid.v1";
    vec![
        bad("too_large", padded(64 * 1024 + 1), Vec::new()),
        bad("too_large", padded(1_000_000), vec![header("x", &"h".repeat(2_000))]),
        Bad { value: None, ..bad("null_value", "", Vec::new()) },
        Bad { value: None, topic: "lifecycle", ..bad("null_value", "", binary(paid)) },
        on_lifecycle("unknown_type", order_json("misplaced"), None),
        on_lifecycle("schema", json!({ "order_id": "never" }), Some(paid)),
        on_lifecycle("unknown_version", json!({ "order_id": "never" }), Some("recharge.order.cancelled.v3")),
        on_lifecycle("malformed", json!("x"), Some(paid)).torn(),
    ]
}

impl Bad {
    fn torn(self) -> Self {
        Self { value: Some(Bytes::from_static(b"{\"order_id\":")), ..self }
    }

    fn record(&self, line: &Line, number: usize) -> OutRecord {
        // Keys may be anything, too; each is another one, so that its letter can be found.
        let key = match number % 3 {
            0 => format!("bad-{number}").into_bytes(),
            1 => [b"\xff\x00bad-".as_slice(), number.to_string().as_bytes()].concat(),
            _ => number.to_be_bytes().to_vec(),
        };
        OutRecord {
            topic: line.topic(self.topic),
            key: Some(Bytes::from(key)),
            value: self.value.clone(),
            headers: self.headers.clone(),
        }
    }
}

/// Good orders in every form that is accepted, odd as it may be.
fn good(line: &Line, number: usize) -> OutRecord {
    let id = format!("good-{number}");
    let order = order_json(&id);
    let plain = line.order(&id);
    let with = |value: &Value, headers: Vec<Header>| OutRecord {
        value: Some(Bytes::from(value.to_string())),
        headers,
        ..plain.clone()
    };
    match number % 10 {
        0 => with(&order, binary(CREATED)),
        1 => {
            let envelope = json!({ "specversion": "1.0", "type": CREATED, "id": id, "source": "s", "data": order });
            with(&envelope, vec![header("content-type", STRUCTURED)])
        }
        2 => {
            use base64::Engine as _;
            let data = base64::engine::general_purpose::STANDARD.encode(order.to_string());
            let envelope = json!({ "specversion": "1.0", "type": CREATED, "data_base64": data });
            with(&envelope, vec![header("content-type", "Application/CloudEvents+JSON; charset=utf-8")])
        }
        // Odd headers that are nobody's business.
        3 => with(
            &order,
            vec![
                (Bytes::new(), Some(Bytes::new())),
                (Bytes::from_static(b"trace"), None),
                header("trace", "a"),
                header("trace", "a"),
                header("reason", "mine"),
                header("content-type", "text/plain"),
            ],
        ),
        4 => with(&order, [binary(CREATED), binary("some.other.v1")].concat()),
        5 => with(
            &changed(
                &id,
                &json!({ "metadata": { "nul": "\u{0}", "deep": [[[[[[[["充值"]]]]]]]] }, "later": { "x": 1 } }),
            ),
            Vec::new(),
        ),
        // Exactly as large as may be.
        6 => {
            let text = order.to_string();
            let padding = " ".repeat(64 * 1024 - text.len());
            OutRecord { value: Some(Bytes::from(format!("{text}{padding}"))), ..plain }
        }
        7 => OutRecord { key: None, ..plain },
        8 => {
            with(&changed(&id, &json!({ "carrier": "📱 mobile", "paid_at": "2026-01-05T08:00:00+08:00" })), Vec::new())
                .fresh(&id)
        }
        _ => plain,
    }
}

trait Fresh {
    fn fresh(self, id: &str) -> Self;
}

impl Fresh for OutRecord {
    /// The same, paid now, in another zone.
    fn fresh(mut self, id: &str) -> Self {
        let zone = chrono::FixedOffset::east_opt(8 * 3600).unwrap();
        let now = recharged::clock::SystemClock::local().with_timezone(&zone).to_rfc3339();
        self.value = Some(Bytes::from(changed(id, &json!({ "paid_at": now, "carrier": "📱" })).to_string()));
        self
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_records_are_dead_letters_as_they_came_and_hold_up_no_order() {
    let line = Line::set_up(Wishes::default()).await;
    let service = line.start("one", &[]).await;
    let all: Vec<Bad> =
        [not_json(), wrong_shapes(), wrong_envelopes(), wrong_sizes_and_places()].into_iter().flatten().collect();
    let mut expected = HashMap::new();
    for number in 0..200 {
        let mut batch = vec![good(&line, number)];
        if let Some(bad) = all.get(number) {
            let record = bad.record(&line, number);
            expected.insert(record.key.clone().unwrap(), (bad.reason, record.clone()));
            batch.insert(0, record);
        }
        line.write(batch).await;
    }
    assert_eq!(expected.len(), all.len(), "every bad record was sent");
    line.until_succeeded(200).await;
    let strangers: Vec<_> =
        line.rows().await.into_iter().filter(|row| !row.order_id.as_str().starts_with("good-")).collect();
    assert!(strangers.is_empty(), "bad records became orders: {strangers:?}");

    let read = letters(&line, all.len()).await;
    assert_eq!(read.len(), all.len());
    for (record, letter) in &read {
        let (reason, sent) = expected.remove(record.key.as_ref().unwrap()).expect("each came once");
        assert_eq!(
            letter.reason,
            reason,
            "{}: {:?}",
            letter.error,
            sent.value.as_ref().map(|v| v.slice(..v.len().min(300)))
        );
        assert_eq!((&record.value, &letter.headers), (&sent.value, &sent.headers), "{reason}");
        assert_eq!(letter.topic, sent.topic.as_ref());
        assert!(letter.timestamp.is_some_and(|at| at <= letter.first_seen + chrono::Duration::seconds(5)));
        assert!(!letter.error.is_empty());
        assert_no_numbers(&letter.error, "a dead letter's error");
    }
    let places: BTreeSet<_> = read.iter().map(|(_, l)| (&l.topic, l.partition, l.offset)).collect();
    assert_eq!(places.len(), read.len());
    assert_no_numbers(&service.log_text(), "the log");
    until_metric(&service, "recharge_dead_letter_messages_total", all.len()).await;
    assert!(line.audit().await.audit.clean);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_moves_on_within_a_second_of_a_bad_record() {
    let line = Line::set_up(Wishes { partitions: 1, ..Wishes::default() }).await;
    let _service = line.start("one", &[]).await;
    line.send("warm", 1).await;
    line.until_succeeded(1).await;
    let mut waits = Vec::new();
    for (number, value) in ["garbage", "{}", "[]", "null", "{\"order_id\":7}"].into_iter().enumerate() {
        let id = format!("behind-{number}");
        let bad = OutRecord { value: Some(Bytes::from_static(value.as_bytes())), ..line.order("bad") };
        line.write(vec![bad, line.order(&id)]).await;
        let order = line.until_order(&id, "succeeded", |order| order.state == State::Succeeded).await;
        waits.push(order.closed_at.unwrap() - order.paid_at.unwrap());
    }
    // A name that is not UTF-8, which no Rust client writes.
    wire::produce(&line.topic("orders"), b"{}", &[(b"ce_type", b"x"), (b"\xff\xfe", b"2")]).await;
    line.send("behind-all", 1).await;
    line.until_succeeded(7).await;
    let named = letters(&line, 6).await.remove(5).1;
    assert_eq!((named.reason.as_str(), named.headers.len()), ("bad_headers", 2));
    waits.sort_unstable();
    // The machine may be busy with something else for a while, not five times.
    assert!(waits[2] < chrono::Duration::seconds(1), "{waits:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_commands_are_dead_letters_and_the_lane_goes_on() {
    let line = Line::set_up(Wishes { partitions: 1, ..Wishes::default() }).await;
    let service = line.start("one", &[]).await;
    line.send("before", 1).await;
    line.until_succeeded(1).await;

    let command = |changes: Value| {
        let mut command = json!({ "kind": "submit", "order_id": "before-0", "attempt": 0, "version": 1, "deadline_at": 1_900_000_000_000_i64 });
        command.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        command.to_string()
    };
    let in_23_days = SystemClock::local().timestamp_millis() + 23 * 86_400_000;
    let garbage: Vec<(Option<String>, &str)> = vec![
        (Some("garbage".to_owned()), "malformed"),
        (Some(String::new()), "malformed"),
        (None, "null_value"),
        (Some("{}".to_owned()), "schema"),
        (Some("[1,2]".to_owned()), "schema"),
        (Some(command(json!({ "kind": "refund" }))), "schema"),
        (Some(command(json!({ "order_id": "+8613800012345" }))), "schema"),
        (Some(command(json!({ "version": -1 }))), "schema"),
        (Some(command(json!({ "deadline_at": i64::MAX }))), "schema"),
        (Some(command(json!({ "wake_at": 4_000_000_000_000_i64 }))), "bad_due_time"),
        (Some(command(json!({ "kind": "query", "wake_at": 4_000_000_000_000_i64 }))), "bad_due_time"),
    ];
    // These are commands, but there is nothing that they could do.
    let idle = [
        command(json!({})),
        command(json!({ "order_id": "nobody" })),
        command(json!({ "attempt": 7 })),
        command(json!({ "kind": "query" })),
        // After the longest delay a question may come early.
        command(json!({ "kind": "query", "wake_at": in_23_days })),
        command(json!({ "deadline_at": -8_334_000_000_000_000_i64 })),
    ];
    let mut batch = Vec::new();
    for topic in ["requests.sim", "requests.sim.due"] {
        let record = |value: Option<String>| OutRecord {
            topic: line.topic(topic),
            key: Some(Bytes::from_static(b"k")),
            value: value.map(Bytes::from),
            headers: vec![header("x", "y")],
        };
        batch.extend(garbage.iter().map(|(value, _)| record(value.clone())));
        batch.extend(idle.iter().map(|value| record(Some(value.clone()))));
    }
    // More than one batch of commands whose deadline no arithmetic can undercut.
    let least = command(json!({ "deadline_at": chrono::DateTime::<chrono::Utc>::MIN_UTC.timestamp_millis() }));
    let flood = OutRecord { value: Some(Bytes::from(least)), ..batch[0].clone() };
    batch.extend(std::iter::repeat_n(flood, 1_500));
    line.write(batch).await;
    line.send("after", 50).await;
    line.until_succeeded(51).await;

    let read = letters(&line, 2 * garbage.len()).await;
    let mut reasons: Vec<&str> = read.iter().map(|(_, letter)| letter.reason.as_str()).collect();
    let mut wanted: Vec<&str> = garbage.iter().chain(&garbage).map(|(_, reason)| *reason).collect();
    reasons.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(reasons, wanted);
    assert!(
        read.iter()
            .all(|(record, letter)| letter.headers == [header("x", "y")]
                && record.key.as_deref() == Some(b"k".as_slice()))
    );
    until_metric(&service, "recharge_dead_letter_messages_total", 2 * garbage.len()).await;
    assert_eq!(line.simulator.stats().submits, 51, "nothing was sent that nobody had bought");
    assert_no_numbers(&service.log_text(), "the log");
}
