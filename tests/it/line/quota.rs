//! The provider's quota, as the provider sees it: never exceeded, whatever happens to the fleet,
//! and used while there is work.

use std::time::{Duration, Instant};

use recharged::clock::SystemClock;
use recharged::domain::State;
use recharged::ports::Clock as _;
use recharged::providers::simulator::{Latency, Profile, check_quota};

use crate::harness::{Line, Service, Wishes};

/// A fleet at a rate, with more work than it can do.
struct Fleet {
    line: Line,
    rate: f64,
    burst: u32,
    running: Vec<Service>,
}

/// What happened between two moments, in microseconds since boot.
struct Stretch {
    what: &'static str,
    from_us: u64,
    to_us: u64,
}

impl Stretch {
    fn seconds(&self) -> f64 {
        (self.to_us - self.from_us) as f64 / 1e6
    }
}

impl Fleet {
    async fn of_three(rate: f64, burst: u32, orders: u64) -> Self {
        let reply = Latency::Lognormal { p50: Duration::from_millis(20), p99: Duration::from_millis(100) };
        let line = Line::set_up(Wishes {
            partitions: 8,
            permits_per_second: rate,
            burst,
            profile: Profile { reply, ..Profile::default() },
            ..Wishes::default()
        })
        .await;
        let mut running = Vec::new();
        for name in ["one", "two", "three"] {
            running.push(line.start(name, &[]).await);
        }
        line.send("q", orders).await;
        // What is measured is dispatch: intake and relay have had their share of the machine.
        line.until_counts("all are stored", |counts| counts.values().sum::<u64>() == orders).await;
        Self { line, rate, burst, running }
    }

    /// Lets time pass in which nothing happens to the fleet; there must be work all the while.
    async fn steady(&self, what: &'static str, length: Duration) -> Stretch {
        let from_us = now_us();
        tokio::time::sleep(length).await;
        let stretch = Stretch { what, from_us, to_us: now_us() };
        let queued = self.line.counts().await.get(&State::Queued).copied().unwrap_or(0);
        // A process with an empty heap cannot use permits, so "work" is more than one second's.
        assert!(queued as f64 > self.rate.max(3.0), "{what}: only {queued} orders are left: more are needed");
        stretch
    }

    /// How much of the quota a stretch used, of 1.
    fn used(&self, stretch: &Stretch, arrivals: &[u64]) -> f64 {
        let seconds = stretch.seconds();
        let count = arrivals.iter().filter(|at| (stretch.from_us..stretch.to_us).contains(*at)).count();
        let used = count as f64 / (self.rate * seconds);
        println!("{}: {count} in {seconds:.2} s, {:.1} % of {}/s", stretch.what, 100.0 * used, self.rate);
        used
    }

    fn within_quota(&self) -> Vec<u64> {
        let arrivals = self.line.simulator.arrivals_us();
        check_quota(&arrivals, self.rate, self.burst).unwrap();
        arrivals
    }

    /// What became of the permits, by process; for whoever must find out where they went.
    async fn tell_permits(&self) {
        for service in &self.running {
            let (_, text) = service.get("/metrics").await.unwrap_or_default();
            let lines: Vec<&str> =
                text.lines().filter(|line| line.starts_with("recharge_rate_limit_permits_total")).collect();
            println!("{lines:#?}");
        }
    }
}

fn now_us() -> u64 {
    u64::try_from(SystemClock::new().since_boot().as_micros()).unwrap()
}

/// Three processes; a fourth joins and leaves; one is killed and comes back.
async fn through_every_change(rate: f64, burst: u32, orders: u64) {
    let mut fleet = Fleet::of_three(rate, burst, orders).await;
    fleet.line.until_under_way(rate as u64).await;
    let mut stretches = Vec::new();
    stretches.push(fleet.steady("three processes", Duration::from_secs(5)).await);

    let began = now_us();
    let mut fourth = fleet.line.start("four", &[]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(fourth.terminate(Duration::from_secs(12)).await.success(), "{}", fourth.log_text());
    stretches.push(Stretch { what: "a fourth joins and leaves", from_us: began, to_us: now_us() });
    stretches.push(fleet.steady("three again", Duration::from_secs(3)).await);

    let killed = Instant::now();
    fleet.running[0].kill();
    fleet.running[0] = fleet.line.start("one again", &[]).await;
    println!("back after {:?}", killed.elapsed());
    stretches.push(fleet.steady("three after the kill", Duration::from_secs(4)).await);

    fleet.tell_permits().await;
    let arrivals = fleet.within_quota();
    let used: Vec<(f64, f64)> = stretches.iter().map(|one| (one.seconds(), fleet.used(one, &arrivals))).collect();
    // A stretch begins and ends in the middle of somebody's reservation; together they even out.
    assert!(used.iter().all(|(_, used)| *used >= 0.9), "{used:?}");
    let seconds: f64 = used.iter().map(|(seconds, _)| seconds).sum();
    let all = used.iter().map(|(seconds, used)| seconds * used).sum::<f64>() / seconds;
    println!("{:.1} % in all", 100.0 * all);
    assert!(all >= 0.98, "{used:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_a_second_are_used_and_never_exceeded_through_a_join_a_leave_and_a_kill() {
    through_every_change(200.0, 20, 9_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_a_second_are_used_and_never_exceeded_through_a_join_a_leave_and_a_kill() {
    through_every_change(1_000.0, 100, 40_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_a_second_is_used_and_never_exceeded_through_a_kill() {
    let mut fleet = Fleet::of_three(1.0, 1, 60).await;
    fleet.line.until_under_way(1).await;
    let before = fleet.steady("three processes", Duration::from_secs(12)).await;
    fleet.running[0].kill();
    fleet.running[0] = fleet.line.start("one again", &[]).await;
    let after = fleet.steady("three after the kill", Duration::from_secs(12)).await;
    let arrivals = fleet.within_quota();
    for stretch in [before, after] {
        // A dozen at one a second: one lies outside by the luck of where the stretch begins.
        let seconds = stretch.seconds();
        assert!(fleet.used(&stretch, &arrivals) * seconds >= seconds.floor() - 1.0, "{}", stretch.what);
    }
}
