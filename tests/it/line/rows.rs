//! Rows that somebody holds, or that nobody can read: they hold up themselves alone.

use std::time::Duration;

use recharged::domain::State;
use recharged::providers::simulator::{Latency, Profile};
use sqlx::Executor as _;

use super::support::{header_of, letters};
use crate::harness::{Line, Wishes, order_json};

async fn console(line: &Line, order: &str) -> sqlx::PgConnection {
    let mut console = line.connect().await;
    console.execute("begin").await.unwrap();
    let lock = format!("select 1 from orders where order_id = '{order}' for update");
    console.execute(sqlx::AssertSqlSafe(lock)).await.unwrap();
    console
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_is_held_or_unreadable_keeps_no_other_order_from_being_recharged() {
    let line = Line::set_up(Wishes { toml: "[sla]\ndeadline = \"60s\"\n".to_owned(), ..Wishes::default() }).await;
    let mut intake = line.start_roles("intake", "intake", &[]).await;
    line.send("r", 200).await;
    line.until_counts("all are stored", |counts| counts.get(&State::Queued) == Some(&200)).await;
    intake.kill();
    line.doctor("update orders set currency = 'cny' where order_id = 'r-7'").await;
    let mut console = console(&line, "r-9").await;

    let service = line.start("one", &[]).await;
    line.until_succeeded(198).await;
    // Whatever comes of the unreadable order is kept for later.
    line.write(vec![line.record("r-7", &order_json("r-7"))]).await;
    let letters = letters(&line, 1).await;
    assert_eq!(header_of(&letters[0].0, "reason"), "undeliverable");
    assert!(service.log_text().contains("its row cannot be read"));
    assert!(service.answers_ok("/readyz").await && service.answers_ok("/livez").await);

    console.execute("rollback").await.unwrap();
    line.until_succeeded(199).await;
    line.doctor("update orders set currency = 'CNY' where order_id = 'r-7'").await;
    line.until_counts("the mended one comes to its end", |counts| {
        let of = |state| counts.get(&state).copied().unwrap_or(0);
        of(State::Succeeded) + of(State::Failed) == 200
    })
    .await;
    let report = line.audit().await;
    assert!(report.audit.clean, "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outcome_whose_row_is_held_is_written_when_it_is_let_go_of() {
    let profile = Profile { reply: Latency::Fixed(Duration::from_secs(3)), ..Profile::default() };
    let line = Line::set_up(Wishes { profile, call_timeout: "20s", ..Wishes::default() }).await;
    let _service = line.start("one", &[]).await;
    line.send("r", 50).await;
    line.until_counts("all are sent", |counts| counts.get(&State::InFlight) == Some(&50)).await;
    let mut console = console(&line, "r-9").await;
    line.until_succeeded(49).await;
    console.execute("rollback").await.unwrap();
    line.all_succeeded(50).await;
}
