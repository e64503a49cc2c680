//! A broker and a database that go away in the middle of the work and come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::servers::Torture;
use crate::harness::{Line, PATIENCE, Service, Wishes};
use crate::pace::{at_most, is_quiet};

pub(super) const ORDERS: u64 = 3_000;

/// A run of a dozen seconds with a service that must go on by itself.
pub(super) async fn under_load(torture: &Torture) -> (Line, Service) {
    under_load_with(torture, "").await
}

async fn under_load_with(torture: &Torture, toml: &str) -> (Line, Service) {
    let wishes = Wishes { permits_per_second: 250.0, burst: 25, toml: toml.to_owned(), ..Wishes::default() };
    let line = torture.line(wishes).await;
    let service = line.start("one", &[]).await;
    line.send("u", ORDERS).await;
    line.until_under_way(300).await;
    (line, service)
}

/// Asks `/livez` all the time; it must say yes whatever the servers do. Where the machine is held
/// up no answer comes for a while; that is not a no.
struct Pulse {
    stop: Arc<AtomicBool>,
    asking: JoinHandle<Vec<String>>,
}

impl Pulse {
    fn of(service: &Service) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, listen) = (Arc::clone(&stop), service.listen);
        let asking = tokio::spawn(async move {
            let bearable = if is_quiet() { 0 } else { 2 };
            let (mut bad, mut unanswered) = (Vec::new(), 0);
            while !stopped.load(Ordering::SeqCst) {
                match crate::harness::get(listen, "/livez").await {
                    Some((200, _)) => unanswered = 0,
                    Some(other) => bad.push(format!("{other:?}")),
                    // Each waits for seconds.
                    None => {
                        unanswered += 1;
                        if unanswered > bearable {
                            bad.push(format!("no answer to {unanswered} in a row"));
                        }
                    }
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            bad
        });
        Self { stop, asking }
    }

    async fn was_steady(self) {
        self.stop.store(true, Ordering::SeqCst);
        let bad = self.asking.await.unwrap();
        assert!(bad.is_empty(), "/livez: {bad:?}");
    }
}

/// Waits until `/readyz` says 503 with this word in it; returns how long that took.
async fn until_unready(service: &Service, word: &str) -> Duration {
    let began = Instant::now();
    let mut last = None;
    while began.elapsed() < PATIENCE {
        last = service.get("/readyz").await;
        if last.as_ref().is_some_and(|(status, body)| *status == 503 && body.contains(word)) {
            return began.elapsed();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("/readyz never said that {word} is away, but {last:?}");
}

async fn until_ready_again(service: &Service) {
    let began = Instant::now();
    service.until_ready().await;
    println!("ready again after {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_goes_on_by_itself_after_every_outage_of_its_database() {
    let torture = Torture::begin().await;
    let (line, mut service) = under_load(&torture).await;
    let pulse = Pulse::of(&service);

    torture.services(&["postgres", "immediate"]).await;
    println!("unready after {:?}", until_unready(&service, "store").await);
    torture.services(&["postgres", "start"]).await;
    until_ready_again(&service).await;

    let before = line.succeeded().await;
    println!("{before} after the restart");
    for _ in 0..10 {
        torture
            .sql("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and datname like 'line_%'")
            .await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(before < ORDERS, "the load was over before the connections were ended");

    line.all_succeeded(ORDERS).await;
    service.until_ready().await;
    pulse.was_steady().await;
    service.end_well(Duration::from_secs(12)).await;
}

/// Waits until `/readyz` does not say this any more; returns how long that took.
async fn until_unsaid(service: &Service, words: &str) -> Duration {
    let began = Instant::now();
    while service.get("/readyz").await.is_none_or(|(_, body)| body.contains(words)) {
        assert!(began.elapsed() < PATIENCE, "/readyz says {words:?} for ever: {}", service.log_text());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    began.elapsed()
}

/// A broker that is killed and started again; `/readyz` follows it. Returns how long it took to be
/// ready again once the broker was.
async fn a_broker_killed_and_started(torture: &Torture, toml: &str) -> Duration {
    let (line, mut service) = under_load_with(torture, toml).await;
    let pulse = Pulse::of(&service);
    torture.services(&["broker", "kill"]).await;
    let noticed = until_unready(&service, "kafka: no broker answers").await;
    at_most("noticing", noticed, Duration::from_millis(2_500), Duration::from_millis(7_500));
    torture.services(&["broker", "start"]).await;
    let began = Instant::now();
    let seen = until_unsaid(&service, "no broker answers").await;
    at_most("seeing it again", seen, Duration::from_millis(2_500), Duration::from_millis(7_500));
    service.until_ready().await;
    let ready = began.elapsed();
    line.send("after", 100).await;
    line.all_succeeded(ORDERS + 100).await;
    pulse.was_steady().await;
    service.end_well(Duration::from_secs(12)).await;
    ready
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_goes_on_by_itself_after_the_broker_was_killed() {
    let torture = Torture::begin().await;
    // A member without a name is a new one after an outage longer than its session, and the
    // group's coordinator waits a session for the old one.
    let ready = a_broker_killed_and_started(&torture, "").await;
    at_most("getting ready", ready, Duration::from_secs(9), Duration::from_secs(20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_named_process_is_ready_again_as_soon_as_its_broker_is() {
    let torture = Torture::begin().await;
    let ready = a_broker_killed_and_started(&torture, "[process]\nname = \"shop-0\"\n").await;
    // Beside other work the session's 6 s tell nothing: an outage and a start take as long.
    at_most("getting ready", ready, Duration::from_secs(3), Duration::from_secs(30));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_goes_on_by_itself_after_the_broker_answered_nothing_for_longer_than_the_session() {
    let torture = Torture::begin().await;
    let (line, mut service) = under_load(&torture).await;
    let pulse = Pulse::of(&service);
    let began = Instant::now();
    torture.services(&["broker", "suspend"]).await;
    // Nothing breaks: that answers are owed is all there is to see.
    let noticed = until_unready(&service, "kafka").await;
    at_most("noticing", noticed, Duration::from_millis(4_500), Duration::from_secs(14));
    // The session is 6 s.
    tokio::time::sleep(Duration::from_secs(8).saturating_sub(began.elapsed())).await;
    torture.services(&["broker", "resume"]).await;
    until_ready_again(&service).await;
    line.send("after", 100).await;
    line.all_succeeded(ORDERS + 100).await;
    pulse.was_steady().await;
    service.end_well(Duration::from_secs(12)).await;
}

/// It has no consumer that would notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_only_publishes_is_not_ready_without_its_broker() {
    let torture = Torture::begin().await;
    let line = torture.line(Wishes::default()).await;
    let mut relay = line.start_roles("relay", "relay", &[]).await;
    torture.services(&["broker", "kill"]).await;
    let noticed = until_unready(&relay, "kafka: no broker answers").await;
    at_most("noticing", noticed, Duration::from_secs(6), Duration::from_secs(18));
    torture.services(&["broker", "start"]).await;
    until_ready_again(&relay).await;
    relay.end_well(Duration::from_secs(12)).await;
}
