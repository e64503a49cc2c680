//! The provider's quota, as the provider sees it: never exceeded, whatever happens to the fleet,
//! and used while there is work.

mod campaign;
mod stalls;

use std::time::{Duration, Instant};

use recharged::clock::SystemClock;
use recharged::domain::State;
use recharged::ports::Clock as _;
use recharged::providers::simulator::{Latency, Profile};

use stalls::{Ticker, surely_above};

use crate::harness::{Line, Service, Wishes};
use crate::pace::is_quiet;

/// The share of the quota that must be used while there is work, and what is bearable beside other
/// work.
const ENOUGH: f64 = 0.98;
const BEARABLE: f64 = 0.7;
const STRETCH: Duration = Duration::from_secs(4);

/// A fleet at a rate, with more work than it can do.
struct Fleet {
    line: Line,
    rate: f64,
    burst: u32,
    /// Counts of a stretch, at most.
    tries: u8,
    running: Vec<Service>,
    /// How many orders were sent.
    sent: u64,
    ticker: Ticker,
}

/// What must be used of what is promised.
fn enough(promised: f64) -> f64 {
    if is_quiet() { promised } else { promised.min(BEARABLE) }
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
        Self::of_three_at(8, rate, burst, orders).await
    }

    /// With so many partitions.
    async fn of_three_at(partitions: u16, rate: f64, burst: u32, orders: u64) -> Self {
        let ticker = Ticker::start();
        let reply = Latency::Lognormal { p50: Duration::from_millis(20), p99: Duration::from_millis(100) };
        let line = Line::set_up(Wishes {
            partitions,
            permits_per_second: rate,
            burst,
            profile: Profile { reply, ..Profile::default() },
            // The last order waits for minutes, by intent: it must not be given up meanwhile.
            toml: "[sla]\ndeadline = \"30m\"\n".to_owned(),
            alone: true,
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
        Self { line, rate, burst, tries: 5, running, sent: orders, ticker }
    }

    async fn queued(&self) -> u64 {
        self.line.counts().await.get(&State::Queued).copied().unwrap_or(0)
    }

    /// Sees to it that there is work for this long, and stored before it begins.
    async fn feed(&mut self, length: Duration) {
        let seconds = length.as_secs_f64();
        if self.queued().await as f64 > self.rate * (seconds + 3.0) {
            return;
        }
        // For what passes until all are stored, too.
        let more = (self.rate * (seconds + 10.0)) as u64;
        println!("{more} orders more");
        self.line.send(&format!("q{}", self.sent), more).await;
        self.sent += more;
        let sent = self.sent;
        self.line.until_counts("all are stored", |counts| counts.values().sum::<u64>() == sent).await;
    }

    /// How much of the quota is used while nothing happens to the fleet and there is work. What is
    /// lost by design is lost in every stretch; a neighbour that takes the machine for a moment is
    /// not, so the best of a few counts.
    async fn steady(&mut self, what: &'static str, length: Duration, promised: f64) -> f64 {
        let mut best: f64 = 0.0;
        for _ in 0..self.tries {
            self.feed(length).await;
            let from_us = now_us();
            tokio::time::sleep(length).await;
            let stretch = Stretch { what, from_us, to_us: now_us() };
            let (used, queued) = (self.used(&stretch), self.queued().await);
            // A process with an empty heap cannot use permits, so "work" is more than a second's;
            // a try without it says nothing.
            if queued as f64 <= self.rate.max(3.0) {
                println!("{what}: only {queued} orders were left");
                continue;
            }
            best = best.max(used);
            if best >= enough(promised) {
                break;
            }
        }
        best
    }

    /// How much of the quota a stretch used, of 1.
    fn used(&self, stretch: &Stretch) -> f64 {
        let arrivals = self.line.simulator.arrivals_us();
        let seconds = stretch.seconds();
        let count = arrivals.iter().filter(|at| (stretch.from_us..stretch.to_us).contains(*at)).count();
        let used = count as f64 / (self.rate * seconds);
        println!("{}: {count} in {seconds:.2} s, {:.1} % of {}/s", stretch.what, 100.0 * used, self.rate);
        used
    }

    fn within_quota(&self) {
        let noted = self.line.simulator.arrivals_us();
        let earliest = self.ticker.earliest(&noted);
        let waited = earliest.iter().zip(&noted).filter(|(earliest, noted)| earliest != noted).count();
        let above = surely_above(&earliest, &noted, self.rate, self.burst);
        println!("{waited} of {} requests may have waited for this process", noted.len());
        assert!(above <= 1e-3, "a window holds {above:.1} requests more than {}/s allow", self.rate);
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

/// Three processes; a fourth joins and leaves; one is killed and comes back. Returns how much of
/// the quota was used in each quiet time between.
async fn through_every_change(rate: f64, burst: u32, orders: u64, tries: u8) -> Vec<f64> {
    let mut fleet = Fleet::of_three(rate, burst, orders).await;
    fleet.tries = tries;
    fleet.line.until_under_way(rate as u64).await;
    let mut used = vec![fleet.steady("three processes", STRETCH, ENOUGH).await];

    let from_us = now_us();
    let mut fourth = fleet.line.start("four", &[]).await;
    used.push(fleet.steady("four processes", STRETCH, ENOUGH).await);
    fourth.end_well(Duration::from_secs(12)).await;
    fleet.used(&Stretch { what: "from the join to the leave", from_us, to_us: now_us() });
    used.push(fleet.steady("three again", STRETCH, ENOUGH).await);

    let killed = Instant::now();
    fleet.running[0].kill();
    fleet.running[0] = fleet.line.start("one again", &[]).await;
    println!("back after {:?}", killed.elapsed());
    used.push(fleet.steady("three after the kill", STRETCH, ENOUGH).await);

    fleet.tell_permits().await;
    fleet.within_quota();
    used
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_a_second_are_used_and_never_exceeded_through_a_join_a_leave_and_a_kill() {
    let used = through_every_change(200.0, 20, 10_000, 5).await;
    assert!(used.iter().all(|used| *used >= enough(ENOUGH)), "{used:?}");
}

/// Beyond what a debug build does on a small machine, so only what must never happen is asserted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_a_second_are_never_exceeded_through_a_join_a_leave_and_a_kill() {
    let used = through_every_change(1_000.0, 100, 30_000, 1).await;
    println!("{used:?} of 1,000/s were used");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_a_second_is_used_and_never_exceeded_through_a_kill() {
    let mut fleet = Fleet::of_three(1.0, 1, 60).await;
    fleet.line.until_under_way(1).await;
    // Of a dozen one may lie outside, by the luck of where the stretch begins.
    let (stretch, promised) = (Duration::from_secs(12), 11.0 / 12.1);
    let used = fleet.steady("three processes", stretch, promised).await;
    assert!(used >= enough(promised), "{used:.2}");
    fleet.running[0].kill();
    fleet.running[0] = fleet.line.start("one again", &[]).await;
    let used = fleet.steady("three after the kill", stretch, promised).await;
    assert!(used >= enough(promised), "{used:.2}");
    fleet.within_quota();
}
