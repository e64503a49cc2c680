//! Processes that die, are stopped, or are asked to go, in the middle of the work.

use std::time::{Duration, Instant};

use recharged::domain::{DuplicateSemantics, State};
use recharged::providers::simulator::{Latency, Profile};
use rustix::process::Signal;

use super::support::until;
use crate::harness::{Line, PATIENCE, Service, Wishes};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_killed_in_the_middle_of_twenty_thousand_orders_loses_and_doubles_nothing() {
    const ORDERS: u64 = 20_000;
    const IN_FLIGHT: &str = "recharge_provider_in_flight_requests";
    let reply = Latency::Uniform { min: Duration::from_millis(50), max: Duration::from_millis(250) };
    let profile = Profile { reply, ..Profile::default() };
    let line = Line::set_up(Wishes { profile: profile.clone(), alone: true, ..Wishes::default() }).await;
    let mut processes = [line.start("one", &[]).await, line.start("two", &[]).await];
    line.send("k", ORDERS).await;
    line.until_under_way(4_000).await;
    // From here on calls take long, and still far less than their time-out: those that are open
    // when the process is seen to call are so when it is killed.
    let slow = Latency::Fixed(Duration::from_secs(2));
    line.simulator.set_profile(Profile { reply: slow, ..profile.clone() }).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    // One that calls: the group may have given all of the lane to the other.
    let deadline = Instant::now() + PATIENCE;
    let caller = loop {
        assert!(Instant::now() < deadline, "nobody calls");
        let [one, two] = &processes;
        let (one, two) = tokio::join!(one.metric(IN_FLIGHT), two.metric(IN_FLIGHT));
        if let Some(caller) = [one, two].iter().position(|calls| calls.is_some_and(|calls| calls > 20.0)) {
            break caller;
        }
    };
    processes[caller].kill();
    line.simulator.set_profile(profile).unwrap();
    let before = line.succeeded().await;
    assert!(before < ORDERS, "it was killed too late");
    let _again = line.start("one again", &[]).await;
    let caught = line.all_succeeded_after_a_crash(ORDERS).await;
    println!("killed after {before}; {} caught", caught.len());
    // At most what one process may have in flight, and what it may have claimed for that.
    assert!((1..=1_500).contains(&caught.len()), "{}", caught.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sigterm_under_load_ends_in_time_and_leaves_nothing_in_flight() {
    const ORDERS: u64 = 3_000;
    let reply = Latency::Uniform { min: Duration::from_millis(20), max: Duration::from_secs(1) };
    let line = Line::set_up(Wishes {
        permits_per_second: 300.0,
        burst: 30,
        call_timeout: "3s",
        profile: Profile { reply, ..Profile::default() },
        ..Wishes::default()
    })
    .await;
    let mut service = line.start("one", &[]).await;
    line.send("t", ORDERS).await;
    line.until_under_way(200).await;
    service.end_well(Duration::from_secs(8)).await;
    let counts = line.counts().await;
    assert_eq!(counts.get(&State::InFlight), None, "{counts:?}");
    assert!(counts.get(&State::Queued) > Some(&0), "it worked on to the end: {counts:?}");
    let _again = line.start("one again", &[]).await;
    line.all_succeeded(ORDERS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_at_once() {
    let reply = Latency::Fixed(Duration::from_secs(30));
    let profile = Profile { reply, ..Profile::default() };
    let line = Line::set_up(Wishes { call_timeout: "25s", profile, ..Wishes::default() }).await;
    let mut service = line.start("one", &[]).await;
    line.send("s", 10).await;
    line.until_counts("all are in flight", |counts| counts.get(&State::InFlight) == Some(&10)).await;
    service.signal(Signal::TERM);
    let log = || service.log_text().contains("a second signal stops at once");
    until("the first signal was heard", log).await;
    assert!(!service.has_ended(), "it waits for its calls");
    let began = Instant::now();
    let status = service.terminate(Duration::from_secs(2)).await;
    // Its calls would end after 25 s, and with them a process that waits.
    assert!(began.elapsed() < Duration::from_secs(15), "ended after {:?}: {status}", began.elapsed());
    assert_eq!(status.code(), Some(1));
    let counts = line.counts().await;
    assert_eq!(counts.get(&State::InFlight), Some(&10), "what was sent stays open: {counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_under_load_loses_and_doubles_nothing() {
    const EACH: u64 = 3_000;
    let line = Line::set_up(Wishes { permits_per_second: 400.0, burst: 40, ..Wishes::default() }).await;
    let mut one = line.start("one", &[]).await;
    let mut two = line.start("two", &[]).await;
    let mut sold = 0;
    for (name, process) in [("one", &mut one), ("two", &mut two)] {
        // Seconds of work beyond what is done, however slow the restart before was.
        line.send(name, EACH).await;
        sold += EACH;
        line.until_under_way(sold - EACH + 500).await;
        process.end_well(Duration::from_secs(10)).await;
        *process = line.start(&format!("{name} again"), &[]).await;
    }
    line.all_succeeded(sold).await;
}

const STOPPED: u64 = 3_000;

/// A process is stopped in the middle of its calls for longer than its session, and goes on.
async fn stopped_with_calls_open(duplicates: DuplicateSemantics) -> (Line, [Service; 2]) {
    let reply = Latency::Uniform { min: Duration::from_millis(100), max: Duration::from_millis(600) };
    let profile = Profile { reply, duplicates, ..Profile::default() };
    let wishes = Wishes { permits_per_second: 300.0, burst: 30, call_timeout: "3s", profile, ..Wishes::default() };
    let line = Line::set_up(wishes).await;
    let zombie = line.start("zombie", &[]).await;
    let other = line.start("other", &[]).await;
    line.send("z", STOPPED).await;
    line.until_under_way(500).await;
    zombie.signal(Signal::STOP);
    // Longer than the session (6 s), and than send window, call and margin after it: by then the
    // other has its partitions, and asks about what it had sent.
    tokio::time::sleep(Duration::from_secs(16)).await;
    zombie.signal(Signal::CONT);
    (line, [zombie, other])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_stopped_with_calls_open_for_longer_than_its_session_changes_nothing_when_it_goes_on() {
    let (line, [zombie, _other]) = stopped_with_calls_open(DuplicateSemantics::RejectsAlways).await;
    let caught = line.all_succeeded_after_a_crash(STOPPED).await;
    println!("{} caught", caught.len());
    assert!(!caught.is_empty(), "nobody asked about what the stopped process had sent");
    assert_eq!(line.sent_twice(), (Vec::new(), Vec::new()));
    zombie.until_ready().await;
}

/// Nothing absorbs what is sent twice. What was claimed and never left cannot be told from bytes that are late, and
/// ends in doubt or with a refund rather than with a second send.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_stopped_with_calls_open_has_nothing_sent_twice_where_all_would_be_executed() {
    let (line, [zombie, _other]) = stopped_with_calls_open(DuplicateSemantics::NotDeduplicated).await;
    let open = [State::Queued, State::InFlight, State::RetryWait];
    line.until_counts("nothing is under way", |counts| {
        counts.values().sum::<u64>() == STOPPED && open.iter().all(|state| !counts.contains_key(state))
    })
    .await;
    assert_eq!(line.sent_twice(), (Vec::new(), Vec::new()));
    assert!(line.succeeded().await > STOPPED * 9 / 10, "{:?}", line.counts().await);
    line.books_balance(STOPPED).await;
    zombie.until_ready().await;
}

/// With the points of `src/faults.rs` armed.
#[cfg(feature = "failpoints")]
mod at_a_point {
    use recharged::domain::EventType;

    use super::*;

    const ENOUGH: u64 = 400;

    /// Small batches one after another, so that a point is passed often.
    async fn feed_until_ended(line: &Line, prefix: &str, service: &mut Service) -> u64 {
        let mut sent = 0;
        while !service.has_ended() {
            assert!(sent < 20_000, "it did not crash:\n{}", service.log_text());
            line.send(&format!("{prefix}{sent}"), 20).await;
            sent += 20;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        sent
    }

    /// The rest, so that something follows the crash.
    async fn feed_to_enough(line: &Line, prefix: &str, sent: u64) -> u64 {
        let rest = ENOUGH.saturating_sub(sent).max(100);
        line.send(&format!("{prefix}rest"), rest).await;
        sent + rest
    }

    async fn one_process_crashes(
        roles: &str,
        others: Option<&str>,
        point: &str,
        after: u32,
    ) -> (Line, u64, Vec<Service>) {
        let line = Line::set_up(Wishes::default()).await;
        let mut running = Vec::new();
        if let Some(others) = others {
            running.push(line.start_roles("others", others, &[]).await);
        }
        let armed = format!("{point}={after}*off->1*return(abort)");
        let mut service = line.start_roles("crashing", roles, &[("FAILPOINTS", &armed)]).await;
        let sent = feed_until_ended(&line, "c", &mut service).await;
        assert!(service.log_text().contains(&format!("failpoint {point}")), "{}", service.log_text());
        (line, sent, running)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_crash_between_the_insert_and_its_commands_strands_no_order() {
        let (line, sent, _running) =
            one_process_crashes("intake", Some("dispatch,delay,relay"), "intake::stored", 3).await;
        let stored: u64 = line.counts().await.values().sum();
        let sent = feed_to_enough(&line, "c", sent).await;
        let _again = line.start_roles("again", "intake", &[]).await;
        line.all_succeeded(sent).await;
        println!("{stored} were stored at the crash, of {sent} in the end");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_crash_between_claim_and_send_is_asked_about_and_sent_again() {
        let (line, sent, _running) =
            one_process_crashes("dispatch", Some("intake,relay,delay"), "dispatch::claimed", 5).await;
        let sent = feed_to_enough(&line, "c", sent).await;
        let _again = line.start_roles("again", "dispatch", &[]).await;
        let caught = line.all_succeeded_after_a_crash(sent).await;
        println!("{} caught", caught.len());
        assert!(!caught.is_empty());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_crash_between_reply_and_settlement_is_asked_about_and_never_sent_again() {
        let (line, sent, _running) =
            one_process_crashes("dispatch", Some("intake,relay,delay"), "dispatch::replied", 50).await;
        let sent = feed_to_enough(&line, "c", sent).await;
        let _again = line.start_roles("again", "dispatch", &[]).await;
        let caught = line.all_succeeded_after_a_crash(sent).await;
        println!("{} caught", caught.len());
        assert!(!caught.is_empty());
        assert_eq!(line.simulator.stats().duplicates, 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_crash_between_publish_and_cursor_leaves_no_event_out_and_none_out_of_order() {
        let (line, sent, _running) =
            one_process_crashes("relay", Some("intake,dispatch,delay"), "relay::published", 4).await;
        let sent = feed_to_enough(&line, "c", sent).await;
        let _again = line.start_roles("again", "relay", &[]).await;
        line.all_succeeded(sent).await;
    }

    const CLAIMED: u64 = 40;

    /// A process that stopped itself between its first claims and their first bytes, what it had
    /// claimed by then, and the rest of the fleet.
    async fn stopped_after_its_claims(line: &Line) -> (Service, Vec<String>, Service) {
        let others = line.start_roles("others", "intake,relay,delay", &[]).await;
        line.send("z", CLAIMED).await;
        // All at once, and in one partition: a second claim beside the first could be on its way
        // to the provider while the process is being stopped.
        line.until_counts("all are stored", |counts| counts.get(&State::Queued) == Some(&CLAIMED)).await;
        let stop = ("FAILPOINTS", "dispatch::claimed=1*return(stop)");
        let service = line.spawn_roles("stopped", "dispatch", &[stop]);
        service.until_stopped().await;
        assert!(line.simulator.arrivals_us().is_empty());
        let rows = line.rows().await;
        let claimed: Vec<String> =
            rows.iter().filter(|row| row.state == State::InFlight).map(|row| row.order_id.to_string()).collect();
        assert!(!claimed.is_empty());
        (service, claimed, others)
    }

    fn one_partition() -> Wishes {
        Wishes { partitions: 1, call_timeout: "4s", ..Wishes::default() }
    }

    async fn each_was_retried_and_sent_once(line: &Line, claimed: &[String], count: u64) {
        line.until_succeeded(count).await;
        for id in claimed {
            // Once at least, and again wherever the machine held the process up; for nothing else.
            let history = line.history(id).await;
            assert!(!history.held_up.is_empty(), "{id}: {:?}", history.log);
            assert_eq!(history.kinds(), [EventType::Queued, EventType::Submitted, EventType::Succeeded], "{id}");
        }
        assert_eq!(line.simulator.arrivals_us().len() as u64, count, "one request an order");
        line.books_balance(count).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_process_stopped_after_its_claims_sends_none_of_them_when_it_goes_on() {
        let line = Line::set_up(one_partition()).await;
        let (service, claimed, _others) = stopped_after_its_claims(&line).await;
        // Longer than the send window and the call's time-out together.
        tokio::time::sleep(Duration::from_millis(5_500)).await;
        assert!(line.simulator.arrivals_us().is_empty(), "{} were claimed", claimed.len());
        service.signal(Signal::CONT);
        each_was_retried_and_sent_once(&line, &claimed, CLAIMED).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_process_stopped_for_longer_than_its_session_sends_nothing_that_others_may_have() {
        let line = Line::set_up(one_partition()).await;
        let (service, claimed, _others) = stopped_after_its_claims(&line).await;
        let stopped_at = Instant::now();
        // Its partitions go to another process, which is ready once it has them and which does
        // all that the stopped one has not claimed.
        let _heir = line.start_roles("heir", "dispatch", &[]).await;
        line.send("more", 200).await;
        let rest = CLAIMED + 200 - claimed.len() as u64;
        line.until_under_way(rest).await;
        tokio::time::sleep(Duration::from_secs(8).saturating_sub(stopped_at.elapsed())).await;
        assert_eq!(line.simulator.arrivals_us().len() as u64, rest, "{} were claimed", claimed.len());
        service.signal(Signal::CONT);
        each_was_retried_and_sent_once(&line, &claimed, CLAIMED + 200).await;
        service.until_ready().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_process_held_up_between_its_permit_and_the_first_byte_does_not_send_late() {
        let line = Line::set_up(Wishes::default()).await;
        // Longer than a permit holds, shorter than the send window.
        let _service = line.start("one", &[("FAILPOINTS", "dispatch::permitted=1*sleep(600)")]).await;
        line.send("p", 1).await;
        each_was_retried_and_sent_once(&line, &["p-0".to_owned()], 1).await;
    }
}
