//! Several processes at one line: each has its share of every topic.

use std::time::{Duration, Instant};

use crate::harness::{Line, PATIENCE, Service, Wishes};
use crate::pace::at_most;

const TOPICS: [&str; 5] = ["orders", "lifecycle", "timers", "requests.sim", "requests.sim.due"];

/// How many partitions of each topic a process holds.
async fn holds(line: &Line, service: &Service) -> [usize; 5] {
    let mut held = [usize::MAX; 5];
    let Some((_, metrics)) = service.get("/metrics").await else { return held };
    for (topic, held) in TOPICS.iter().zip(&mut held) {
        let name = format!("recharge_kafka_assigned_partitions{{topic=\"{}\"}} ", line.topic(topic));
        let value = metrics.lines().find_map(|line| line.strip_prefix(&name));
        *held = value.unwrap_or_else(|| panic!("no {name}")).parse().unwrap();
    }
    held
}

async fn until_each_holds(line: &Line, services: &[&Service], wanted: usize) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut held = Vec::new();
        for service in services {
            held.push(holds(line, service).await);
        }
        if held.iter().all(|held| *held == [wanted; 5]) {
            return;
        }
        assert!(Instant::now() < deadline, "of {TOPICS:?} they hold {held:?}, not {wanted} each");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_hold_half_of_every_topic_and_the_one_that_is_left_holds_all() {
    let line = Line::set_up(Wishes::default()).await;
    let mut one = line.start("one", &[]).await;
    until_each_holds(&line, &[&one], 4).await;
    let two = line.start("two", &[]).await;
    until_each_holds(&line, &[&one, &two], 2).await;
    line.send("shared", 400).await;
    line.until_succeeded(400).await;
    for service in [&one, &two] {
        let taken = service.metric("recharge_provider_requests_total").await;
        assert!(taken.is_some_and(|taken| taken >= 50.0), "it made {taken:?} of 400 calls");
    }
    one.kill();
    let killed = Instant::now();
    until_each_holds(&line, &[&two], 4).await;
    at_most("being replaced", killed.elapsed(), Duration::from_secs(8), PATIENCE);
    line.send("alone", 100).await;
    line.all_succeeded(500).await;
}
