//! What programs read of a line: orders as JSON, and an audit that can fail.

use std::path::PathBuf;
use std::time::Duration;

use recharged::domain::{CaseKind, State};
use recharged::providers::simulator::{Latency, Profile};
use serde_json::{Value, json};

use super::refusals::{Ended, ended};
use super::support::{UNHURRIED, cancelled, changed, unpaid};
use crate::harness::{Line, PATIENCE, Wishes};

async fn asked(line: &Line, arguments: &[&str]) -> Ended {
    ended(line.command(&[&["--json"], arguments].concat()), PATIENCE).await
}

/// A line on which 20 orders succeeded, one was declined and refused its cancellation, one waits
/// for its payment, and one was cancelled.
async fn sold() -> Line {
    let reply = Latency::Fixed(Duration::from_millis(5));
    let profile = Profile { suffix_scenarios: true, reply, ..Profile::default() };
    let line = Line::set_up(Wishes { profile, send_window: UNHURRIED, ..Wishes::default() }).await;
    let mut service = line.start("one", &[]).await;
    let with_phone = |id: &str, phone: &str| line.record(id, &changed(id, &json!({ "phone": phone })));
    let mut batch: Vec<_> = (0..20).map(|number| with_phone(&format!("good-{number:02}"), "+8613800000811")).collect();
    batch.push(with_phone("declined", "+8613800000806"));
    batch.push(line.record("unpaid", &unpaid("unpaid")));
    batch.push(line.record("withdrawn", &unpaid("withdrawn")));
    line.write(batch).await;
    line.until_order("declined", "failed", |order| order.state == State::Failed).await;
    line.until_order("withdrawn", "stored", |_| true).await;
    line.write(vec![cancelled(&line, "declined"), cancelled(&line, "withdrawn")]).await;
    line.until_order("declined", "refused its cancellation", |order| order.cases != 0).await;
    line.until_order("withdrawn", "cancelled", |order| order.state == State::Cancelled).await;
    line.until_succeeded(20).await;
    // What is behind another database's open transaction is left to the next relay.
    line.until_told().await;
    service.end_well(Duration::from_secs(15)).await;
    line
}

const FIELDS: [&str; 16] = [
    "order_id",
    "state",
    "reason",
    "attempt",
    "version",
    "provider",
    "client_refs",
    "amount_minor",
    "currency",
    "created_at",
    "paid_at",
    "deadline_at",
    "closed_at",
    "sla",
    "refund_requested",
    "case_open",
];

fn assert_row(row: &Value) {
    for field in FIELDS {
        assert!(row.get(field).is_some(), "{field} is missing: {row}");
    }
    assert!(!row.to_string().contains("138000"), "a phone number is nobody's business: {row}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_are_shown_listed_and_exported_with_the_fields_that_are_promised() {
    let line = sold().await;
    let export = asked(&line, &["orders", "export"]).await;
    assert_eq!((export.code, export.said.len()), (Some(0), 0));
    let rows: Vec<Value> = export.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 23);
    rows.iter().for_each(assert_row);
    let of = |id: &str| rows.iter().find(|row| row["order_id"] == id).unwrap();
    let good = of("good-07");
    assert_eq!(
        (&good["state"], &good["sla"], &good["client_refs"]),
        (&json!("succeeded"), &json!("met"), &json!(["good-07-1"]))
    );
    assert!(good["closed_at"].is_string() && good["paid_at"].is_string());
    let declined = of("declined");
    assert_eq!((&declined["reason"], &declined["refund_requested"]), (&json!("provider_declined"), &json!(true)));
    assert_eq!(declined["case_open"], false, "a refused cancellation is no case");
    let waiting = of("unpaid");
    assert_eq!(
        (&waiting["paid_at"], &waiting["client_refs"], &waiting["sla"]),
        (&Value::Null, &json!([]), &Value::Null)
    );

    let shown = asked(&line, &["orders", "show", "declined"]).await.object();
    assert_row(&shown);
    let held_up = line.history("declined").await.held_up;
    let timeline = shown["timeline"].as_array().unwrap().iter();
    let steps = timeline.filter(|step| !held_up.iter().any(|version| step["version"] == *version));
    let steps: Vec<&str> = steps.map(|step| step["event"].as_str().unwrap()).collect();
    assert_eq!(steps, ["queued", "submitted", "failed", "cancel_refused"]);
    let told = line.command(&["orders", "show", "declined"]).output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("provider_declined") && !told.contains("138000"), "{told}");

    assert_eq!(listed(&line, &["--state", "failed,cancelled"]).await, ["declined", "withdrawn"]);
    assert_eq!(listed(&line, &["--older-than", "10m"]).await, [""; 0]);
    assert_eq!(listed(&line, &["--refund", "unconfirmed", "--lane", "sim"]).await, ["declined"]);
    assert_eq!(listed(&line, &["--with-case"]).await, [""; 0]);
    let created = of("good-07")["created_at"].as_str().unwrap();
    assert_eq!(listed(&line, &["--created-before", created]).await, [""; 0], "they were made in one breath");
    let due = of("unpaid")["deadline_at"].as_str().unwrap();
    assert_eq!(listed(&line, &["--deadline-from", due]).await, ["unpaid", "withdrawn"]);

    // Page by page, each behind the last line of the one before.
    let (mut seen, mut after) = (Vec::new(), Vec::new());
    loop {
        let page = listed(&line, &[&["--limit", "7"], &after[..]].concat()).await;
        seen.extend(page.clone());
        if page.len() < 7 {
            break;
        }
        after = vec!["--after", seen.last().unwrap().clone().leak()];
    }
    assert_eq!(seen, rows.iter().map(|row| row["order_id"].as_str().unwrap()).collect::<Vec<_>>());

    let csv = asked(&line, &["orders", "export", "--format", "csv", "--state", "failed"]).await;
    let csv: Vec<Vec<&str>> = csv.stdout.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!((csv.len(), csv[0].len()), (2, csv[1].len()), "{csv:?}");
    for (name, value) in csv[0].iter().zip(&csv[1]) {
        let expected = match &declined[*name] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            Value::Array(all) => all.iter().map(|each| each.as_str().unwrap()).collect::<Vec<_>>().join(" "),
            other @ (Value::Bool(_) | Value::Number(_) | Value::Object(_)) => other.to_string(),
        };
        assert_eq!(*value, expected, "{name}");
    }

    for (arguments, code, words) in [
        (&["--lane", "simm"][..], 78, "--lane: the configuration has no lane \"simm\"; it has sim"),
        (&["--created-from", due, "--created-before", due][..], 2, "--created-from is not before --created-before"),
        (&["--created-from", "yesterday"][..], 2, "2026-01-31T08:00:00Z"),
    ] {
        let refused = ended(line.command(&[&["orders", "list"], arguments].concat()), PATIENCE).await;
        assert_eq!(refused.code, Some(code), "{refused:?}");
        assert!(refused.said.iter().any(|said| said.contains(words)), "{refused:?}");
    }
}

/// The ids that are listed.
async fn listed(line: &Line, arguments: &[&str]) -> Vec<String> {
    let list = asked(line, &[&["orders", "list"], arguments].concat()).await;
    assert_eq!((list.code, list.said.len()), (Some(0), 0), "{list:?}");
    let id = |line: &str| serde_json::from_str::<Value>(line).unwrap()["order_id"].as_str().unwrap().to_owned();
    list.stdout.lines().map(id).collect()
}

struct Books {
    line: Line,
    /// Each line of the true ledger.
    ledger: Vec<Value>,
}

impl Books {
    /// Audits against a ledger of these lines, numbered as they stand.
    async fn against(&self, lines: &[Value]) -> Ended {
        use std::fmt::Write as _;
        let mut text = String::new();
        for (line, number) in lines.iter().zip(1_u64..) {
            let mut line = line.clone();
            line["seq"] = json!(number);
            writeln!(text, "{line}").unwrap();
        }
        self.against_text(&text).await
    }

    async fn against_text(&self, text: &str) -> Ended {
        let path: PathBuf = self.line.folder.path().join("doctored.jsonl");
        std::fs::write(&path, text).unwrap();
        asked(&self.line, &["audit", "--ledger", path.to_str().unwrap()]).await
    }
}

/// The line that takes another one back.
fn taken_back(delivery: &Value, number: u64) -> Value {
    let mut line = delivery.clone();
    line["reverses"] = json!(number);
    line
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_finds_each_kind_of_wrong_and_names_it() {
    let line = sold().await;
    let path = line.folder.path().join("ledger.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let ledger: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(ledger.len(), 20);
    let books = Books { line, ledger };

    let right = books.against(&books.ledger).await;
    let report = right.object();
    assert_eq!(right.code, Some(0), "{report}");
    let wanted =
        json!({ "orders": 23, "succeeded": 20, "failed": 1, "in_doubt": 0, "open": 1, "refunds": 1, "early": 0 });
    for (field, value) in wanted.as_object().unwrap() {
        assert_eq!(report[field], *value, "{field}: {report}");
    }
    assert_eq!(report["sla"], json!({ "met": 21, "missed": 0 }));
    assert!(report["orders_per_second"].as_f64().is_some_and(|rate| rate > 0.0));
    for field in ["resolution_ms", "delay_lateness_ms"] {
        for percentile in ["p50", "p99", "p999", "max"] {
            assert!(report[field].get(percentile).is_some(), "{field}.{percentile}: {report}");
        }
    }
    let clean = json!({ "clean": true, "lost": 0, "double": 0, "wrongly_failed": 0, "taken_back": 0,
        "unaccounted": 0, "misdelivered": 0, "unrefunded": 0, "wrongly_refunded": 0, "untold": 0,
        "overdue": 0 });
    assert_eq!(report["audit"], clean);

    let changed_reference = |reference: &str| {
        let mut line = books.ledger[0].clone();
        line["client_ref"] = json!(reference);
        line
    };
    let with = |line: Value| [books.ledger.clone(), vec![line]].concat();
    let changed = |key: &str, value: Value| {
        let mut lines = books.ledger.clone();
        lines[2][key] = value;
        lines
    };
    let cases = [
        ("misdelivered", changed("phone", json!("+8613800199999"))),
        ("misdelivered", changed("amount_minor", json!(1))),
        ("misdelivered", changed("currency", json!("USD"))),
        ("double", with(books.ledger[3].clone())),
        ("lost", books.ledger[1..].to_vec()),
        ("unaccounted", with(changed_reference("foreign-1"))),
        // Delivered although it failed; that its cancellation was refused excuses nothing.
        ("wrongly_failed", with(changed_reference("declined-1"))),
        // Delivered and taken back: by our books it succeeded, and nobody was told.
        ("taken_back", with(taken_back(&books.ledger[5], 6))),
    ];
    for (counter, lines) in cases {
        let found = books.against(&lines).await;
        let mut wanted = clean.clone();
        (wanted["clean"], wanted[counter]) = (json!(false), json!(1));
        assert_eq!((found.code, &found.object()["audit"]), (Some(1), &wanted), "{counter}");
        assert!(found.said.is_empty(), "the report has said it: {:?}", found.said);
    }
    // Of what failed and was refunded, nothing stands that was taken back; nor is it twice what was
    // delivered again.
    let declined = changed_reference("declined-1");
    let lines = [books.ledger.clone(), vec![declined.clone(), taken_back(&declined, 21)]].concat();
    let found = books.against(&lines).await;
    assert_eq!((found.code, &found.object()["audit"], &found.object()["reversals"]), (Some(0), &clean, &json!(1)));
    let again = [books.ledger.clone(), vec![taken_back(&books.ledger[5], 6), books.ledger[5].clone()]].concat();
    let found = books.against(&again).await;
    assert_eq!((found.code, &found.object()["audit"]), (Some(0), &clean));
    // An order that nothing was ever sent for, delivered: of nobody's account.
    let unasked = books.against(&with(changed_reference("unpaid-1"))).await;
    assert_eq!((unasked.code, &unasked.object()["audit"]["unaccounted"]), (Some(1), &json!(1)));
    let nothing = books.against(&[]).await;
    assert_eq!((nothing.code, &nothing.object()["audit"]["lost"]), (Some(1), &json!(20)));

    // A ledger that is not whole is no ledger.
    let gap = text.lines().enumerate().filter(|(at, _)| *at != 4).map(|(_, line)| line).collect::<Vec<_>>();
    let gap = gap.join("\n");
    let copied = format!("{text}{}\n", text.lines().next().unwrap());
    for (what, doctored, word) in [
        ("torn", text[..text.len() - 9].to_owned(), "line 20"),
        ("gap", gap, "line 5"),
        ("copied", copied, "line 21"),
        ("foreign", format!("{text}{{\"an\":\"other file\"}}\n"), "line 21"),
        ("binary", format!("{text}\u{0}\u{1}\n"), "line 21"),
    ] {
        let found = books.against_text(&doctored).await;
        assert_eq!((found.code, found.said.len(), found.stdout.as_str()), (Some(1), 1, ""), "{what}: {found:?}");
        assert!(found.said[0].contains("--ledger") && found.said[0].contains(word), "{what}: {:?}", found.said);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_finds_what_is_wrong_in_the_books_alone_and_no_other_case_excuses_it() {
    let line = sold().await;
    let text = std::fs::read_to_string(line.folder.path().join("ledger.jsonl")).unwrap();
    let ledger: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let books = Books { line, ledger };
    let found = async |lines: &[Value]| {
        let report = books.against(lines).await.object();
        let audit = report["audit"].as_object().unwrap();
        let found = audit.iter().filter(|(_, count)| count.as_u64().is_some_and(|count| count > 0));
        found.map(|(counter, count)| format!("{counter} {count}")).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(found(&books.ledger).await, "");
    let update = async |order: &str, change: &str| {
        books.line.doctor(&format!("update orders set {change} where order_id = '{order}'")).await;
    };

    let (doubt, success) =
        ("state = 'in_doubt', closed_at = null, cases = 1", "state = 'succeeded', closed_at = now(), cases = 0");
    for (order, wrong, counter, right) in [
        ("declined", "refund_requested = false", "unrefunded 1", "refund_requested = true"),
        ("good-07", "refund_requested = true", "wrongly_refunded 1", "refund_requested = false"),
        // In doubt, and its case is nowhere.
        ("good-07", doubt, "untold 1", success),
    ] {
        update(order, wrong).await;
        assert_eq!(found(&books.ledger).await, counter, "{order}: {wrong}");
        update(order, right).await;
        assert_eq!(found(&books.ledger).await, "", "{order}: {right}");
    }

    let mut delivered = books.ledger.clone();
    delivered.push(books.ledger[3].clone());
    delivered.last_mut().unwrap()["client_ref"] = json!("declined-1");
    let mut another = books.ledger.clone();
    another[2]["amount_minor"] = json!(1);
    let order = another[2]["client_ref"].as_str().unwrap().trim_end_matches("-1").to_owned();
    for (order, lines, counter, its_case) in [
        ("declined", &delivered, "wrongly_failed 1", CaseKind::LateSuccess),
        (order.as_str(), &another, "misdelivered 1", CaseKind::AmountMismatch),
    ] {
        update(order, &format!("cases = {}", CaseKind::PayloadConflict.bit())).await;
        assert_eq!(found(lines).await, counter, "a case of another matter");
        update(order, &format!("cases = {}", its_case.bit())).await;
        // Only an open one still tells of it.
        let kind = its_case.as_str();
        books
            .line
            .doctor(&format!(
                "insert into cases (order_id, kind, opened_at, escalate_at, evidence)
             values ('{order}', '{kind}', now(), now(), 'a test')"
            ))
            .await;
        assert_eq!(found(lines).await, "", "{order}");
    }
}

/// An order event as the relay writes it.
fn told(line: &Line, id: &str, version: u32, state: &str) -> recharged::ports::OutRecord {
    let event = json!({ "order_id": id, "version": version, "state": state, "attempt": 1,
        "at": "2026-11-22T10:00:00.000000Z", "deadline_at": "2026-11-22T10:03:00.000000Z" });
    recharged::ports::OutRecord { topic: line.topic("order-events"), ..line.record(id, &event) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_of_the_events_finds_what_was_not_told_and_what_never_happened() {
    let line = sold().await;
    let ledger = line.folder.path().join("ledger.jsonl");
    let audit = async || asked(&line, &["audit", "--events", "--ledger", ledger.to_str().unwrap()]).await;
    let right = audit().await;
    let (mut read, mut steps) = (0, 0);
    for row in line.rows().await {
        let history = line.history(row.order_id.as_str()).await;
        read += history.log.len();
        steps += history.steps();
    }
    // 20 of three steps, the declined one of four, the unpaid one of one, the cancelled one of two.
    assert_eq!(steps, 67);
    let mut wanted =
        json!({ "read": read, "repeated": 0, "out_of_order": 0, "unreadable": 0, "missing": 0, "phantom": 0 });
    assert_eq!((right.code, &right.object()["events"]), (Some(0), &wanted), "{right:?}");

    // Told twice: the contract allows it.
    let last = line.load("good-03").await.unwrap().version;
    line.write(vec![told(&line, "good-03", last, "succeeded")]).await;
    (wanted["read"], wanted["repeated"]) = (json!(read + 1), json!(1));
    assert_eq!((audit().await.code, &audit().await.object()["events"]), (Some(0), &wanted));
    // A step that is not stored, an order that is not stored, and one that tells nothing.
    let nothing = recharged::ports::OutRecord { value: None, ..told(&line, "good-04", 1, "queued") };
    line.write(vec![told(&line, "good-03", last + 1, "failed"), told(&line, "never", 1, "queued"), nothing]).await;
    (wanted["read"], wanted["phantom"], wanted["unreadable"]) = (json!(read + 4), json!(2), json!(1));
    let wrong = audit().await;
    assert_eq!((wrong.code, &wrong.object()["events"]), (Some(1), &wanted));
    // A step that happens without a relay to tell it.
    let mut quiet = line.start_roles("quiet", "intake", &[]).await;
    line.write(vec![line.record("untold", &unpaid("untold"))]).await;
    line.until_order("untold", "stored", |_| true).await;
    quiet.end_well(Duration::from_secs(15)).await;
    assert_eq!(audit().await.object()["events"]["missing"], 1);
    let spoken = line.command(&["audit", "--events", "--ledger", ledger.to_str().unwrap()]).output().unwrap();
    let spoken = String::from_utf8(spoken.stdout).unwrap();
    assert!(spoken.contains("1 repeated, 0 out of order, 1 unreadable, 1 missing, 2 phantom"), "{spoken}");
}
