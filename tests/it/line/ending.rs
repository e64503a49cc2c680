//! What a process that is told to end still tells, and what its exit code says.

use std::time::Duration;

use recharged::domain::State;

use super::outages::{ORDERS, under_load};
use super::servers::Torture;
use super::support::events;
use crate::harness::{Line, Service, Wishes};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_ends_in_the_middle_of_its_work_has_told_all_it_knows() {
    let line = Line::set_up(Wishes { permits_per_second: 200.0, burst: 20, ..Wishes::default() }).await;
    let mut service = line.start("one", &[]).await;
    line.send("o", 2_000).await;
    line.until_counts("some of them succeeded", |counts| counts.get(&State::Succeeded).is_some_and(|n| *n >= 100))
        .await;
    service.end_well(Duration::from_secs(15)).await;
    let open = line.counts().await.get(&State::Queued).copied().unwrap_or(0);
    assert!(open > 100, "it was told in the middle of its work: {open} orders are left");
    // Nobody else is there who could tell the rest.
    let told = events(&line).await;
    assert_eq!(told.len(), line.rows().await.len());
    let _service = line.start("two", &[]).await;
    line.until_succeeded(2_000).await;
    line.books_balance(2_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_ends_waits_a_moment_for_what_somebody_elses_transaction_holds_back() {
    use sqlx::Executor as _;
    let line = Line::set_up(Wishes::default()).await;
    let mut service = line.start("one", &[]).await;
    let mut other = line.connect().await;
    other.execute("begin; select pg_current_xact_id()").await.unwrap();
    line.send("o", 20).await;
    line.until_succeeded(20).await;
    let cursor = line.store.cursor().await.unwrap();
    assert!(line.store.has_more(cursor).await.unwrap());
    assert!(line.store.read_log(cursor, 1).await.unwrap().is_empty(), "nobody may read behind an open transaction");
    let released = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(700)).await;
        other.execute("commit").await.unwrap();
    });
    service.end_well(Duration::from_secs(15)).await;
    released.await.unwrap();
    assert!(!line.store.has_more(line.store.cursor().await.unwrap()).await.unwrap(), "all was told");
}

/// What a person reads: the lines on stderr that are not of the log.
fn said(service: &Service) -> String {
    let log = service.log_text();
    let said: Vec<&str> = log.lines().filter(|line| !line.starts_with('{')).collect();
    let [said] = said.as_slice() else { panic!("not one line: {said:?}") };
    (*said).to_owned()
}

/// The calls whose outcomes were not written, by what the process said.
fn calls_left(said: &str) -> usize {
    let count = said.split_once("the outcomes of up to ").and_then(|(_, rest)| rest.split(' ').next());
    count.map_or(0, |count| count.parse().unwrap())
}

/// Under load, with one server dead: the process ends in time and says what it leaves, and that
/// comes to an end once all is back. What was in its calls meanwhile may stay open; it is not sent
/// again.
async fn sigterm_without(server: &str, torture: &Torture) {
    let (line, mut service) = under_load(torture).await;
    torture.services(&[server, "kill"]).await;
    let status = service.terminate(Duration::from_secs(10)).await;
    let said = said(&service);
    println!("without {server}: {status}: {said}");
    assert_eq!(status.code(), Some(69), "{}", service.log_text());
    let (_, left) = said.split_once("not everything could be written or published: ").expect(&said);
    let logged = service.log_text();
    assert_eq!(logged.lines().filter(|line| line.starts_with('{') && line.contains(left)).count(), 1);
    assert!(!logged.contains("everything has stopped"), "the log says the same as the exit code");

    torture.services(&[server, "start"]).await;
    let _again = line.start("again", &[]).await;
    let caught = line.all_succeeded_after_a_crash(ORDERS).await;
    println!("{} caught", caught.len());
    assert!(caught.len() <= calls_left(&said), "{} were caught: {said}", caught.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_broker_a_process_ends_in_time_and_says_what_it_leaves() {
    sigterm_without("broker", &Torture::begin().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_database_a_process_ends_in_time_and_says_what_it_leaves() {
    sigterm_without("postgres", &Torture::begin().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_hangs_does_not_hold_up_the_end() {
    let torture = Torture::begin().await;
    let (_line, mut service) = under_load(&torture).await;
    torture.services(&["postgres", "suspend"]).await;
    let status = service.terminate(Duration::from_secs(10)).await;
    println!("with a database that hangs: {status}: {}", said(&service));
    assert_eq!(status.code(), Some(69), "{}", service.log_text());
    torture.services(&["postgres", "resume"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_had_nothing_in_hand_ends_well_without_its_broker() {
    let torture = Torture::begin().await;
    let line = torture.line(Wishes::default()).await;
    let mut service = line.start("one", &[]).await;
    line.send("i", 100).await;
    line.all_succeeded(100).await;
    torture.services(&["broker", "kill"]).await;
    let status = service.terminate(Duration::from_secs(10)).await;
    assert!(status.success(), "{status:?}: {}", service.log_text());
    torture.services(&["broker", "start"]).await;
}
