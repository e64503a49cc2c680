//! What people do with dead letters: look, send back, or let be.

use std::time::Duration;

use bytes::Bytes;
use recharged::clock::SystemClock;
use recharged::domain::inbound::{DeadLetterReason, Unfit};
use recharged::domain::{State, Timestamp};
use recharged::ports::{Ack, Assignment, InRecord, OutRecord};
use recharged::roles::dead_letter;
use serde_json::{Value, json};

use super::refusals::{Ended, ended};
use super::support::{ago, assert_no_numbers, changed, header, letters};
use crate::harness::{Line, PATIENCE, Wishes, order_json};

const NUMBER: &str = "+8613800012345";

async fn asked(line: &Line, arguments: &[&str]) -> Ended {
    asked_in(line, arguments, &[]).await
}

async fn asked_in(line: &Line, arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
    let mut command = line.command(&[&["--json", "dead-letters"], arguments].concat());
    command.envs(environment.iter().copied());
    ended(command, PATIENCE).await
}

fn lines(answer: &Ended) -> Vec<Value> {
    answer.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What became of each, and the summary.
fn outcomes(answer: &Ended) -> (Vec<String>, Value) {
    let mut lines = lines(answer);
    let summary = lines.pop().unwrap_or_else(|| panic!("{answer:?}"));
    let mut outcomes: Vec<String> = lines.iter().map(|line| line["outcome"].as_str().unwrap().to_owned()).collect();
    outcomes.sort_unstable();
    (outcomes, summary)
}

/// Letters by reason and state.
async fn counted(line: &Line, arguments: &[&str]) -> Vec<(String, String, u64)> {
    let answer = asked(line, &[&["list"], arguments].concat()).await;
    assert_eq!(answer.code, Some(0), "{answer:?}");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    lines(&answer)
        .iter()
        .map(|row| (text(&row["reason"]), text(&row["state"]), row["count"].as_u64().unwrap()))
        .collect()
}

fn counts(of: &[(&str, &str, u64)]) -> Vec<(String, String, u64)> {
    of.iter().map(|(reason, state, count)| ((*reason).to_owned(), (*state).to_owned(), *count)).collect()
}

async fn place_of(line: &Line, reason: &str) -> String {
    let listed = asked(line, &["list", "--each", "--done", "--reason", reason]).await;
    lines(&listed)[0]["place"].as_str().unwrap().to_owned()
}

#[derive(Debug)]
struct Nobodys;

impl Assignment for Nobodys {
    fn is_live(&self) -> bool {
        true
    }
    fn done(&self, _offset: i64) {}
}

/// The dead letter of a record that stood in a topic, as an older version of the service might have left it.
fn left_behind(line: &Line, topic: &str, offset: i64, record: OutRecord, reason: DeadLetterReason) -> OutRecord {
    let OutRecord { key, value, headers, .. } = record;
    let now = Timestamp::from_timestamp(1_790_000_000, 0).unwrap();
    let (topic, ack) = (line.topic(topic), Ack::new(std::sync::Arc::new(Nobodys), offset));
    let came = InRecord { topic, partition: 0, offset, timestamp: Some(now), key, value, headers, ack };
    dead_letter::record(&line.topic("dead-letters"), &came, &Unfit::new(reason, "as it was"), now)
}

/// So many paid orders that a newer version can read.
async fn leave_orders(line: &Line, count: u32) {
    let letter = |number| {
        let order = line.order(&format!("back-{number}"));
        left_behind(line, "orders", i64::from(number), order, DeadLetterReason::UnknownVersion)
    };
    line.write((0..count).map(letter).collect()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_be_used_goes_back_once_and_what_is_still_wrong_stays_once_until_a_person_lets_it_be() {
    const LONGER: (&str, &str) = ("RECHARGED__RETENTION__CLOSED_ORDERS", "90d");
    let toml = "[retention]\nclosed_orders = \"8d\"\n".to_owned();
    let line = Line::set_up(Wishes { toml, ..Wishes::default() }).await;
    let mut service = line.start("one", &[]).await;
    let old = changed("old", &json!({ "created_at": ago(864_000), "paid_at": ago(864_000) }));
    let odd = changed("odd", &json!({ "amount_minor": NUMBER, "phone": NUMBER, "remark": "call 138 0001 2345" }));
    let torn = OutRecord { value: Some(Bytes::from(format!("{{\"phone\":\"{NUMBER}"))), ..line.order("torn") };
    line.write(vec![line.record("old", &old), line.record("odd", &odd), torn]).await;
    letters(&line, 3).await;

    let open = counts(&[("malformed", "open", 1), ("schema", "open", 1), ("too_old", "open", 1)]);
    assert_eq!(counted(&line, &[]).await, open);
    assert_eq!(counted(&line, &["--reason", "schema,too_old", "--since", "1h"]).await, open[1..]);
    let each = asked(&line, &["list", "--each", "--limit", "2"]).await;
    assert_eq!((each.code, lines(&each).len()), (Some(0), 2), "{each:?}");
    let first = &lines(&each)[0];
    assert_eq!(first["original_topic"], *line.topic("orders"));

    // A person sees what is wrong, and numbers only if they want to.
    let odd_place = place_of(&line, "schema").await;
    let shown = asked(&line, &["show", &odd_place]).await;
    assert_eq!(shown.code, Some(0), "{shown:?}");
    let letter = &lines(&shown)[0];
    assert_eq!((&letter["usable_now"], &letter["value"]["order_id"]), (&json!(false), &json!("odd")), "{letter}");
    assert_eq!(
        (&letter["wrong_now"]["reason"], &letter["value"]["phone"]),
        (&json!("schema"), &json!("+86138****2345"))
    );
    for place in [odd_place.clone(), place_of(&line, "malformed").await] {
        for form in [&["--json", "dead-letters", "show", &place][..], &["dead-letters", "show", &place]] {
            let masked = ended(line.command(form), PATIENCE).await;
            assert_no_numbers(&format!("{}{}", masked.stdout, masked.stderr), "a dead letter");
            assert!(masked.stdout.contains("+86138****2345"), "{}", masked.stdout);
            assert!(!masked.stdout.contains("138 0001"), "{}", masked.stdout);
            let revealed = ended(line.command(&[form, &["--reveal"]].concat()), PATIENCE).await;
            assert!(revealed.stdout.contains(NUMBER), "{}", revealed.stdout);
        }
    }

    // Nothing has changed yet: nothing is sent, and no second letter comes of it.
    let vain = asked(&line, &["replay", "--all"]).await;
    assert_eq!(vain.code, Some(1), "{vain:?}");
    let (each, summary) = outcomes(&vain);
    assert_eq!((each, &summary["left"]), (vec!["still_wrong".to_owned(); 3], &json!(3)));
    assert_no_numbers(&format!("{}{}", vain.stdout, vain.stderr), "what is told of a replay");
    assert_eq!((line.read_all("orders").await.len(), line.read_all("dead-letters").await.len()), (3, 3));
    service.end_well(Duration::from_secs(15)).await;

    // Closed orders are kept for longer now.
    let tried = asked_in(&line, &["replay", "--all", "--dry-run"], &[LONGER]).await;
    assert_eq!(outcomes(&tried).0, ["still_wrong", "still_wrong", "would_replay"]);
    assert_eq!(line.read_all("orders").await.len(), 3);
    let replayed = asked_in(&line, &["replay", "--all", "--by", "A. Duty"], &[LONGER]).await;
    assert_eq!(
        (replayed.code, outcomes(&replayed).0),
        (Some(1), ["replayed", "still_wrong", "still_wrong"].map(str::to_owned).to_vec())
    );
    assert!(replayed.stdout.contains("it is failed and refunded"), "{replayed:?}");
    let old_place = place_of(&line, "too_old").await;
    let again = asked_in(&line, &["replay", &old_place], &[LONGER]).await;
    assert_eq!((again.code, outcomes(&again).0), (Some(0), vec!["replayed".to_owned()]));
    assert!(again.stdout.contains("by A. Duty") && outcomes(&again).1["already"] == 1, "{again:?}");
    assert_eq!(line.read_all("orders").await.len(), 4);

    let _service = line.start("again", &[LONGER]).await;
    line.until_order("old", "failed", |order| order.state == State::Failed && order.refund_requested).await;
    assert_eq!(line.read("refunds", |records| !records.is_empty()).await.len(), 1);
    assert_eq!(line.read_all("dead-letters").await.len(), 3, "what was sent back was used");

    let why = "test records, incident 4711";
    let discarded = asked(&line, &["discard", "--reason", "schema,malformed", "--why", why, "--by", "B. Duty"]).await;
    assert_eq!((discarded.code, outcomes(&discarded).0), (Some(0), vec!["discarded".to_owned(); 2]), "{discarded:?}");
    assert_eq!(counted(&line, &[]).await, []);
    let done = counts(&[("malformed", "discarded", 1), ("schema", "discarded", 1), ("too_old", "replayed", 1)]);
    assert_eq!(counted(&line, &["--done"]).await, done);
    let shown = &lines(&asked(&line, &["show", &odd_place]).await)[0];
    assert_eq!((&shown["mark"]["by"], &shown["mark"]["why"]), (&json!("B. Duty"), &json!(why)));
    let let_be = asked(&line, &["replay", &odd_place]).await;
    assert_eq!((let_be.code, outcomes(&let_be).0), (Some(0), vec!["discarded".to_owned()]));
    let nowhere = asked(&line, &["show", "0:4711"]).await;
    assert_eq!((nowhere.code, nowhere.said.len()), (Some(1), 1), "{nowhere:?}");
    assert!(nowhere.said[0].contains("0:4711: there is no dead letter there"), "{nowhere:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_waited_and_whose_time_has_gone_goes_back_and_does_nothing_to_an_order_that_moved_on() {
    let line = Line::set_up(Wishes::default()).await;
    let _service = line.start("one", &[]).await;
    line.send("c", 1).await;
    line.until_succeeded(1).await;
    let command = json!({ "kind": "submit", "order_id": "c-0", "attempt": 0, "version": 1, "deadline_at": 1_900_000_000_000_i64 });
    let an_hour_ago = (SystemClock::local().timestamp_millis() - 3_600_000).to_string();
    let waiting = |target: &str| OutRecord {
        value: Some(Bytes::from(command.to_string())),
        headers: vec![
            header("due-at", &an_hour_ago),
            header("target-topic", &line.topic(target)),
            header("hops", "0"),
            header("entered-at", &an_hour_ago),
        ],
        ..line.order("c-0")
    };
    let lost = |topic: &str, offset, record| left_behind(&line, topic, offset, record, DeadLetterReason::Undeliverable);
    line.write(vec![
        lost("delay.1s", 1, waiting("requests.sim.due")),
        lost("requests.sim", 2, OutRecord { headers: Vec::new(), ..waiting("x") }),
        lost("delay.1s", 3, waiting("requests.gone.due")),
    ])
    .await;
    let replayed = asked(&line, &["replay", "--all"]).await;
    assert_eq!(outcomes(&replayed).0, ["replayed", "replayed", "still_wrong"], "{replayed:?}");
    // The lane has read both when it has served what came behind them.
    line.read("requests.sim.due", |records| !records.is_empty()).await;
    line.send("d", 20).await;
    line.until_succeeded(21).await;
    assert_eq!(line.simulator.stats().submits, 21, "nothing was sent that nobody had bought");
    assert_eq!(line.read_all("dead-letters").await.len(), 3);
    assert!(line.audit().await.audit.clean);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_letters_than_are_read_at_once_go_back_in_one_run_each_once() {
    let line = Line::set_up(Wishes::default()).await;
    leave_orders(&line, 1_000).await;
    // Some of them are written twice, as after a crash of the one who wrote them.
    leave_orders(&line, 50).await;
    let replayed = asked(&line, &["replay", "--reason", "unknown_version"]).await;
    assert_eq!((replayed.code, &outcomes(&replayed).1["done"]), (Some(0), &json!(1_000)), "{}", replayed.stderr);
    assert_eq!(line.read_all("orders").await.len(), 1_000);
    assert_eq!(counted(&line, &[]).await, []);
    let _service = line.start("one", &[]).await;
    line.until_succeeded(1_000).await;
    assert!(line.audit().await.audit.clean);
}

/// With the points of `src/faults.rs` armed, on each store.
#[cfg(feature = "failpoints")]
mod that_die {
    use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

    use super::*;
    use crate::harness::variable;

    const ORDERS: u32 = 5;

    async fn on_postgres() -> (Line, Option<tempfile::TempDir>) {
        (Line::set_up(Wishes::default()).await, None)
    }

    async fn on_sqlite() -> (Line, Option<tempfile::TempDir>) {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("line.db").display());
        (Line::set_up_at(Wishes::default(), &variable("KAFKA_BROKERS"), &url, None).await, Some(folder))
    }

    /// A minute and more passes.
    async fn age(line: &Line, folder: Option<&tempfile::TempDir>) {
        let Some(folder) = folder else {
            return line.doctor("update dead_letter_marks set at = at - interval '61 seconds'").await;
        };
        let url = format!("sqlite://{}", folder.path().join("line.db").display());
        let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
        let aged = AssertSqlSafe("update dead_letter_marks set at = at - 61000000".to_owned());
        let aged = connection.execute(aged).await.unwrap();
        assert_eq!(aged.rows_affected(), u64::from(ORDERS));
    }

    async fn dies_at(point: &str, written_before: usize, (line, folder): (Line, Option<tempfile::TempDir>)) {
        leave_orders(&line, ORDERS).await;
        let armed = format!("{point}=1*return(abort)");
        let died = asked_in(&line, &["replay", "--all"], &[("FAILPOINTS", &armed)]).await;
        assert_eq!((died.code, died.stdout.as_str()), (None, ""), "{died:?}");
        assert_eq!(line.read_all("orders").await.len(), written_before);
        assert_eq!(counted(&line, &[]).await, counts(&[("unknown_version", "replaying", u64::from(ORDERS))]));

        // It may still be at it.
        let waits = asked(&line, &["replay", "--all"]).await;
        let all = |outcome: &str| vec![outcome.to_owned(); ORDERS as usize];
        assert_eq!((waits.code, outcomes(&waits).0), (Some(1), all("under_way")), "{waits:?}");
        age(&line, folder.as_ref()).await;
        let ended = asked(&line, &["replay", "--all"]).await;
        assert_eq!((ended.code, outcomes(&ended).0), (Some(0), all("replayed")), "{ended:?}");
        assert!(ended.stdout.contains("may have sent it before"), "{ended:?}");
        assert_eq!(asked(&line, &["replay", "--all"]).await.code, Some(0));
        assert_eq!(line.read_all("orders").await.len(), written_before + ORDERS as usize);

        let _service = line.start("one", &[]).await;
        line.until_succeeded(u64::from(ORDERS)).await;
        assert_eq!(line.sent_twice(), (Vec::new(), Vec::new()));
        assert!(line.audit().await.audit.clean);
        assert_eq!(line.rows().await.iter().map(|row| row.cases).max(), Some(0), "a second copy opens no case");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_run_that_dies_after_it_sent_is_brought_to_an_end_by_the_next_and_no_order_is_recharged_twice() {
        dies_at("replay::published", ORDERS as usize, on_postgres().await).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_run_that_dies_before_it_sent_is_brought_to_an_end_by_the_next() {
        dies_at("replay::marked", 0, on_postgres().await).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_run_that_dies_after_it_sent_is_brought_to_an_end_on_sqlite_as_well() {
        dies_at("replay::published", ORDERS as usize, on_sqlite().await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_others_among_the_dead_letters_are_listed_and_can_be_let_be() {
    let line = Line::set_up(Wishes { partitions: 1, ..Wishes::default() }).await;
    let foreign = OutRecord { topic: line.topic("dead-letters"), ..line.record("x", &order_json("x")) };
    line.write(vec![foreign]).await;
    assert_eq!(counted(&line, &[]).await, counts(&[("foreign", "open", 1)]));
    let refused = asked(&line, &["replay", "0:0"]).await;
    assert_eq!((refused.code, outcomes(&refused).0), (Some(1), vec!["still_wrong".to_owned()]));
    let discarded = asked(&line, &["discard", "0:0", "--why", "not ours", "--by", "me"]).await;
    assert_eq!((discarded.code, counted(&line, &[]).await), (Some(0), Vec::new()), "{discarded:?}");
}
