//! Orders out of a shop's own table.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;

use recharged::domain::State;
use serde_json::{Value, json};

use super::refusals::{Ended, ended};
use super::support::{ago, assert_no_numbers, changed, now_text, unpaid};
use crate::harness::{Line, PATIENCE, Wishes, order_json};

fn file(line: &Line, name: &str, text: &str) -> PathBuf {
    let path = line.folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

async fn import(line: &Line, file: &std::path::Path, more: &[&str]) -> Ended {
    let arguments = [&["--json", "orders", "import", file.to_str().unwrap()], more].concat();
    ended(line.command(&arguments), PATIENCE).await
}

/// What is wrong, and the summary.
fn told(answer: &Ended) -> (Vec<Value>, Value) {
    let mut lines: Vec<Value> = answer.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary = lines.pop().unwrap_or_else(|| panic!("{answer:?}"));
    (lines, summary)
}

/// How many of each: new, there, repeated, wrong.
fn counts(answer: &Ended) -> [u64; 4] {
    let (_, summary) = told(answer);
    ["new", "there", "repeated", "wrong"].map(|name| summary[name].as_u64().unwrap())
}

fn lines(orders: &[Value]) -> String {
    orders.iter().map(|order| format!("{order}\n")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_orders_is_brought_in_once_however_often_and_recharged_like_any_other() {
    let line = Line::set_up(Wishes::default()).await;
    let orders: Vec<Value> = (0..50).map(|number| order_json(&format!("i-{number}"))).collect();
    let twice = [orders.clone(), vec![orders[7].clone(), unpaid("later")]].concat();
    let path = file(&line, "orders.jsonl", &lines(&twice));

    let looked = import(&line, &path, &["--dry-run"]).await;
    assert_eq!((looked.code, counts(&looked)), (Some(0), [51, 0, 1, 0]), "{looked:?}");
    assert_eq!(line.read_all("orders").await.len(), 0);
    let first = import(&line, &path, &[]).await;
    assert_eq!((first.code, counts(&first)), (Some(0), [51, 0, 1, 0]), "{first:?}");
    assert_eq!((&told(&looked).1["sent"], &told(&first).1["sent"]), (&json!(0), &json!(51)));
    let sent = line.read_all("orders").await;
    assert_eq!(sent.len(), 51);
    assert!(sent.iter().all(|record| record.headers.iter().any(|(name, _)| name.as_ref() == b"ce_id")));

    let _service = line.start("one", &[]).await;
    line.until_succeeded(50).await;
    line.until_order("later", "there", |order| order.state == State::AwaitingPayment).await;
    let again = import(&line, &path, &[]).await;
    assert_eq!((again.code, counts(&again)), (Some(0), [0, 51, 1, 0]), "{again:?}");
    assert_eq!(line.read_all("orders").await.len(), 51);

    // It was paid since: that is its payment. Another amount under a known id is none.
    let paid = changed("later", &json!({ "paid_at": now_text() }));
    let other = changed("i-3", &json!({ "amount_minor": 4_000 }));
    let both = import(&line, &file(&line, "both.jsonl", &lines(&[paid.clone(), other])), &[]).await;
    assert_eq!((both.code, counts(&both)), (Some(1), [1, 0, 0, 1]), "{both:?}");
    let (wrong, summary) = told(&both);
    assert_eq!(summary["sent"], 0, "none is sent where one is wrong");
    assert_eq!((&wrong[0]["line"], &wrong[0]["field"]), (&json!(2), &json!("order_id")), "{wrong:?}");
    let paid = import(&line, &file(&line, "paid.jsonl", &lines(&[paid])), &[]).await;
    assert_eq!((paid.code, counts(&paid)), (Some(0), [1, 0, 0, 0]), "{paid:?}");
    line.until_succeeded(51).await;
    assert!(line.rows().await.iter().all(|row| row.cases == 0), "nothing was there for a person to look at");
    assert!(line.audit().await.audit.clean);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_lines_with_three_bad_ones_those_three_are_told_and_nothing_is_sent() {
    three_bad_among(100_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a million lines: scripts/optimised integration line::imports::campaign_ --ignored"]
async fn campaign_of_a_million_lines_with_three_bad_ones_those_three_are_told() {
    three_bad_among(1_000_000).await;
}

async fn three_bad_among(count: usize) {
    let line = Line::set_up(Wishes::default()).await;
    let at = now_text();
    let mut text = String::from("order_id,phone,amount_minor,currency,created_at\n");
    for number in 0..count {
        let (phone, amount) = match number {
            17 => ("+8613800012345", "50.00"),
            _ if number == count / 2 => ("13800012345", "5000"),
            _ => ("+8613800000001", "5000"),
        };
        let id = if number == count - 1 { 4 } else { number };
        let amount = if number == count - 1 { "4000" } else { amount };
        writeln!(text, "m-{id},{phone},{amount},CNY,{at}").unwrap();
    }
    let path = file(&line, "many.csv", &text);
    let answer = import(&line, &path, &[]).await;
    let (wrong, summary) = told(&answer);
    assert_eq!((answer.code, &summary["wrong"]), (Some(1), &json!(3)), "{answer:?}");
    let places: Vec<(u64, &str)> =
        wrong.iter().map(|row| (row["line"].as_u64().unwrap(), row["field"].as_str().unwrap())).collect();
    assert_eq!(places, [(19, "amount_minor"), (count as u64 / 2 + 2, "phone"), (count as u64 + 1, "order_id")]);
    assert_no_numbers(&format!("{}{}", answer.stdout, answer.stderr), "what is told of a file");
    assert_eq!(line.read_all("orders").await.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_that_would_be_refunded_at_once_are_sent_only_if_somebody_wants_that() {
    let line = Line::set_up(Wishes::default()).await;
    let _service = line.start("one", &[]).await;
    let late = changed("late", &json!({ "created_at": ago(600), "paid_at": ago(600) }));
    let path = file(&line, "late.jsonl", &lines(&[order_json("good"), late]));
    let refused = import(&line, &path, &[]).await;
    assert_eq!((refused.code, counts(&refused)[3]), (Some(1), 1), "{refused:?}");
    assert!(refused.stdout.contains("--accept-refunds"), "{refused:?}");
    let taken = import(&line, &path, &["--accept-refunds"]).await;
    assert_eq!((taken.code, &told(&taken).1["end_at_once"]), (Some(0), &json!(1)), "{taken:?}");
    line.until_order("late", "refunded", |order| order.state == State::Failed && order.refund_requested).await;
    line.until_succeeded(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standard_input_is_read_as_a_file_is_and_what_cannot_be_read_is_told_in_one_line() {
    let line = Line::set_up(Wishes::default()).await;
    let mut command = line.command(&["--json", "orders", "import", "-", "--format", "jsonl"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let text = lines(&[order_json("p-1"), changed("p-2", &json!({ "remark": "x" }))]);
    pipe.write_all(text.as_bytes()).unwrap();
    drop(pipe);
    let answer = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    let summary: Value = serde_json::from_slice(&answer.stdout).unwrap();
    assert_eq!((answer.status.code(), &summary["sent"], &summary["unread"]), (Some(0), &json!(2), &json!(["remark"])));
    assert_eq!(line.read_all("orders").await.len(), 2);

    for (arguments, code, words) in [
        (vec!["orders", "import", "-"], 2, "-: its name tells no format"),
        (vec!["orders", "import", "/nowhere.csv"], 78, "/nowhere.csv: it cannot be read"),
        (vec!["orders", "import", "/proc", "--format", "csv"], 78, "/proc: it is read twice, so it must be a file"),
    ] {
        let refused = ended(line.command(&arguments), PATIENCE).await;
        assert_eq!((refused.code, refused.said.len()), (Some(code), 1), "{refused:?}");
        assert!(refused.said[0].starts_with(words), "{refused:?}");
    }
}
