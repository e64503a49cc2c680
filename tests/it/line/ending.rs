//! What a process that is told to end still tells.

use recharged::domain::State;

use super::support::events;
use crate::harness::{Line, PATIENCE, Wishes};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_ends_in_the_middle_of_its_work_has_told_all_it_knows() {
    let line = Line::set_up(Wishes { permits_per_second: 200.0, burst: 20, ..Wishes::default() }).await;
    let mut service = line.start("one", &[]).await;
    line.send("o", 2_000).await;
    line.until_counts("some of them succeeded", |counts| counts.get(&State::Succeeded).is_some_and(|n| *n >= 100))
        .await;
    let status = service.terminate(PATIENCE).await;
    assert!(status.success(), "{status:?}");
    let open = line.counts().await.get(&State::Queued).copied().unwrap_or(0);
    assert!(open > 100, "it was told in the middle of its work: {open} orders are left");
    // Nobody else is there who could tell the rest.
    let told = events(&line).await;
    assert_eq!(told.len(), line.rows().await.len());
    let _service = line.start("two", &[]).await;
    line.until_succeeded(2_000).await;
    line.books_balance(2_000).await;
}
