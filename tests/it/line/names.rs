//! Processes with a lasting name: static members of their groups.

use std::time::{Duration, Instant};

use crate::harness::{Line, PATIENCE, Wishes};
use crate::pace::at_most;

const NAME: &str = "shop-0";

fn named(wishes: Wishes) -> Wishes {
    Wishes { toml: format!("[process]\nname = {NAME:?}\n"), ..wishes }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_named_process_that_was_killed_goes_on_at_once_when_it_is_started_again() {
    // Longer than going on may take on any machine: a process without a name would wait for itself
    // as long.
    const SESSION: (&str, &str) = ("RECHARGED__KAFKA__SESSION_TIMEOUT", "45s");
    let line = Line::set_up(named(Wishes { permits_per_second: 200.0, burst: 20, ..Wishes::default() })).await;
    let mut first = line.start("first", &[SESSION]).await;
    line.send("n", 2_000).await;
    line.until_under_way(200).await;
    first.kill();
    let began = Instant::now();
    let before = line.succeeded().await;
    let _again = line.spawn("again", &[SESSION]);
    line.until_under_way(before + 20).await;
    at_most("going on", began.elapsed(), Duration::from_secs(1), Duration::from_secs(30));
    let caught = line.all_succeeded_after_a_crash(2_000).await;
    println!("{} were caught", caught.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_processes_of_one_name_the_earlier_ends_and_says_why_in_one_line() {
    let line = Line::set_up(named(Wishes::default())).await;
    let mut first = line.start("first", &[]).await;
    line.send("before", 100).await;
    line.until_succeeded(100).await;
    let second = line.start("second", &[]).await;
    let status = first.until_ended(PATIENCE).await;
    assert_eq!(status.code(), Some(1));
    let log = first.log_text();
    // What is not of the log is what a person reads.
    let said: Vec<&str> = log.lines().filter(|line| !line.starts_with('{')).collect();
    let [said] = said.as_slice() else { panic!("{said:?}") };
    assert!(said.contains(NAME) && said.contains("names of processes must be unique"), "{said}");
    line.send("after", 100).await;
    line.all_succeeded(200).await;
    assert!(second.answers_ok("/readyz").await);
}
