//! Every way in which a call can break, and what it is called.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use recharged::domain::{NotSentCause, QueryOutcome, SubmitOutcome, UnknownCause};
use recharged::providers::simulator::SimulatorOptions;
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::peer::{Peer, Script, answer, success};
use super::{provider, provider_with, query_of, quick, settings, simulator, submit_of, until};
use crate::pace::at_most;

/// Of the calls that are to meet it: long enough to send a request on a machine that is held up,
/// shorter than any answer of theirs takes.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

async fn submit_within(peer: &Peer, call_timeout: Duration) -> SubmitOutcome {
    let mut settings = settings(&peer.base_url());
    settings.call_timeout = call_timeout;
    let start = Instant::now();
    let outcome = provider_with(&settings).submit(&submit_of("order-1-1")).await;
    let second = Duration::from_secs(1);
    at_most("a call", start.elapsed(), call_timeout + second, call_timeout + 10 * second);
    outcome
}

/// With a time-out that nothing meets which works.
async fn submit_to(peer: &Peer) -> SubmitOutcome {
    submit_within(peer, Duration::from_secs(30)).await
}

async fn outcome_of(script: Script) -> SubmitOutcome {
    submit_to(&Peer::start(script).await).await
}

#[tokio::test]
async fn a_refused_connection_means_that_nothing_was_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let provider = provider(&url);
    assert_eq!(provider.connect(3).await, 0);
    assert_eq!(provider.submit(&submit_of("order-1-1")).await, SubmitOutcome::NotSent(NotSentCause::Connect));
    assert_eq!(
        provider.query(&query_of("order-1-1")).await,
        QueryOutcome::Unavailable { retry_after: None },
        "a query that fails proves nothing"
    );
}

#[tokio::test]
async fn a_name_that_does_not_exist_means_that_nothing_was_sent() {
    let provider = provider("http://no-such-host.invalid");
    assert_eq!(provider.submit(&submit_of("order-1-1")).await, SubmitOutcome::NotSent(NotSentCause::Connect));
}

#[tokio::test]
async fn a_connection_closed_before_reading_is_not_sent_or_unknown_but_never_wrong() {
    for _ in 0..50 {
        let peer = Peer::start(Script::CloseAtOnce).await;
        match submit_to(&peer).await {
            SubmitOutcome::NotSent(NotSentCause::Connect) | SubmitOutcome::Unknown(UnknownCause::Reset) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_reset_after_the_request_was_read_is_unknown() {
    let outcome = outcome_of(Script::ResetAfterRequest).await;
    assert_eq!(outcome, SubmitOutcome::Unknown(UnknownCause::Reset));
}

#[tokio::test]
async fn a_call_that_hangs_is_unknown_at_the_call_timeout_and_its_connection_is_reset() {
    let peer = Peer::start(Script::Hang).await;
    assert_eq!(submit_within(&peer, CALL_TIMEOUT).await, SubmitOutcome::Unknown(UnknownCause::Timeout));
    until("the connection is gone", || peer.seen.open.load(SeqCst) == 0).await;
    assert_eq!(peer.seen.reset.load(SeqCst), 1, "nothing of it can arrive later");
}

#[tokio::test]
async fn a_body_that_drips_is_cut_off_by_the_call_timeout() {
    let peer = Peer::start(Script::Drip(success(), Duration::from_millis(50))).await;
    let outcome = submit_within(&peer, CALL_TIMEOUT).await;
    assert_eq!(outcome, SubmitOutcome::Unknown(UnknownCause::Timeout));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_unknown() {
    let outcome = outcome_of(Script::HalfAnAnswer(success())).await;
    assert_eq!(outcome, SubmitOutcome::Unknown(UnknownCause::Reset));
}

#[tokio::test]
async fn an_answer_that_is_no_http_is_a_broken_body() {
    let outcome = outcome_of(Script::Answer(b"220 smtp.example ESMTP\r\n\r\n".to_vec())).await;
    assert_eq!(outcome, SubmitOutcome::Unknown(UnknownCause::BrokenBody));
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_not_read() {
    let large = format!(r#"{{"status":"succeeded","provider_ref":"{}"}}"#, "x".repeat(70_000));
    let outcome = outcome_of(Script::Answer(answer("200 OK", "", &large))).await;
    assert_eq!(outcome, SubmitOutcome::Unknown(UnknownCause::BrokenBody));

    let mut chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..80 {
        chunked.extend_from_slice(format!("400\r\n{}\r\n", " ".repeat(1024)).as_bytes());
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(outcome_of(Script::Answer(chunked)).await, SubmitOutcome::Unknown(UnknownCause::BrokenBody));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let peer = Peer::start(Script::Answer(answer("302 Found", "Location: /api/elsewhere\r\n", ""))).await;
    assert_eq!(submit_to(&peer).await, SubmitOutcome::Unknown(UnknownCause::BrokenBody));
    assert_eq!(peer.requests(), 1);
}

#[tokio::test]
async fn connections_are_kept_and_used_again() {
    let peer = Peer::start(Script::Answer(success())).await;
    let provider = provider(&peer.base_url());
    for n in 0..20 {
        let outcome = provider.submit(&submit_of(&format!("order-{n}-1"))).await;
        assert!(matches!(outcome, SubmitOutcome::Succeeded(_)), "{outcome:?}");
    }
    assert_eq!((peer.seen.accepted.load(SeqCst), peer.requests()), (1, 20));
}

#[tokio::test]
async fn a_pooled_connection_that_the_server_closed_is_replaced_and_the_request_arrives_once() {
    let peer = Peer::start(Script::AnswerOnceThenClose(success())).await;
    let provider = provider(&peer.base_url());
    for n in 1..=50 {
        let outcome = provider.submit(&submit_of(&format!("order-{n}-1"))).await;
        assert!(matches!(outcome, SubmitOutcome::Succeeded(_)), "{outcome:?}");
        until("the server has closed", || peer.seen.closed.load(SeqCst) == n).await;
        assert_eq!(peer.requests(), n);
    }
}

#[tokio::test]
async fn after_a_restart_of_the_provider_every_pooled_connection_is_replaced() {
    let first = simulator(SimulatorOptions { profile: quick(), ..Default::default() }).await;
    let provider = provider(&first.base_url());
    assert_eq!(provider.connect(8).await, 8);
    let listen = first.addr();
    first.shutdown().await;
    let second = simulator(SimulatorOptions { profile: quick(), listen, ..Default::default() }).await;
    let outcome = provider.submit(&submit_of("order-1-1")).await;
    assert!(matches!(outcome, SubmitOutcome::Succeeded(_)), "{outcome:?}");
    assert_eq!(second.stats().submits, 1);
}

#[tokio::test]
async fn connect_makes_connections_stand_ready_within_the_bound() {
    let peer = Peer::start(Script::Answer(success())).await;
    let mut settings = settings(&peer.base_url());
    settings.in_flight_max = 12;
    let provider = provider_with(&settings);
    assert_eq!(provider.connect(5).await, 5);
    assert_eq!(provider.connect(100).await, 12);
    assert_eq!(provider.connect(100).await, 12);
    assert_eq!(provider.connect(0).await, 0);
    until("all are accepted", || peer.seen.accepted.load(SeqCst) == 12).await;
    assert_eq!(peer.bytes(), 0);
}

#[tokio::test]
async fn connections_that_stand_ready_and_those_in_use_share_the_bound() {
    let peer = Peer::start(Script::Hang).await;
    let mut settings = settings(&peer.base_url());
    settings.in_flight_max = 12;
    let provider = provider_with(&settings);
    let calls: Vec<_> = (0..5)
        .map(|n| {
            let provider = Arc::clone(&provider);
            tokio::spawn(async move { provider.submit(&submit_of(&format!("order-{n}-1"))).await })
        })
        .collect();
    until("five calls are under way", || peer.requests() == 5).await;
    for _ in 0..3 {
        assert_eq!(provider.connect(12).await, 7);
    }
    until("all are accepted", || peer.seen.accepted.load(SeqCst) >= 12).await;
    assert_eq!(peer.seen.open_max.load(SeqCst), 12);
    calls.iter().for_each(tokio::task::JoinHandle::abort);
}

/// The runtime learns of a closed connection only when it next looks. On this runtime of one
/// thread it has no chance to between the close and the call.
#[tokio::test(flavor = "current_thread")]
async fn a_connection_that_closed_while_the_process_was_stopped_is_replaced() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (close, closing) = std::sync::mpsc::sync_channel::<()>(0);
    let server = std::thread::spawn(move || {
        let first = listener.accept().unwrap();
        closing.recv().unwrap();
        drop(first);
        closing.recv().unwrap();
        let (mut second, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        assert!(second.read(&mut request).unwrap() > 0);
        second.write_all(&success()).unwrap();
    });
    let provider = provider(&url);
    assert_eq!(provider.connect(1).await, 1);
    // Stopped here: both sends block the only thread, the second until the close is done.
    close.send(()).unwrap();
    close.send(()).unwrap();
    let outcome = provider.submit(&submit_of("order-1-1")).await;
    assert!(matches!(outcome, SubmitOutcome::Succeeded(_)), "{outcome:?}");
    server.join().unwrap();
}

#[tokio::test]
async fn connections_that_were_idle_too_long_are_not_used() {
    let peer = Peer::start(Script::Answer(success())).await;
    let mut settings = settings(&peer.base_url());
    settings.idle_limit = Duration::from_secs(1);
    let provider = provider_with(&settings);
    assert_eq!(provider.connect(2).await, 2);
    until("they were let go", || {
        // Looking is what lets them go.
        let ready = futures_util::FutureExt::now_or_never(provider.connect(0));
        ready.is_some() && peer.seen.closed.load(SeqCst) == 2
    })
    .await;
    assert!(matches!(provider.submit(&submit_of("order-1-1")).await, SubmitOutcome::Succeeded(_)));
    assert_eq!(peer.seen.accepted.load(SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bound_on_connections_holds_under_200_concurrent_calls() {
    let peer = Peer::start(Script::Slow(success(), Duration::from_millis(3))).await;
    let mut settings = settings(&peer.base_url());
    settings.in_flight_max = 10;
    let provider = provider_with(&settings);
    let calls: Vec<_> = (0..200)
        .map(|n| {
            let provider = Arc::clone(&provider);
            tokio::spawn(async move {
                if n % 3 == 0 {
                    provider.connect(10).await;
                }
                provider.submit(&submit_of(&format!("order-{n}-1"))).await
            })
        })
        .collect();
    for call in calls {
        let outcome = call.await.unwrap();
        assert!(matches!(outcome, SubmitOutcome::Succeeded(_)), "{outcome:?}");
    }
    assert_eq!(peer.requests(), 200);
    let open_max = peer.seen.open_max.load(SeqCst);
    assert!((1..=10).contains(&open_max), "{open_max} connections were open at once");
}

#[tokio::test]
async fn a_call_that_finds_no_free_connection_inside_its_window_was_not_sent() {
    let peer = Peer::start(Script::Hang).await;
    let mut settings = settings(&peer.base_url());
    settings.in_flight_max = 1;
    let provider = provider_with(&settings);
    let first = tokio::spawn({
        let provider = Arc::clone(&provider);
        async move { provider.submit(&submit_of("order-1-1")).await }
    });
    until("the first call is under way", || peer.requests() == 1).await;
    let mut second = submit_of("order-2-1");
    second.send_by -= Duration::from_mins(5) - Duration::from_millis(50);
    assert_eq!(provider.submit(&second).await, SubmitOutcome::NotSent(NotSentCause::WindowClosed));
    assert_eq!(provider.connect(1).await, 0, "no call could start now");
    first.abort();
    assert_eq!(peer.requests(), 1);
}

#[tokio::test]
async fn a_call_that_is_dropped_gives_its_place_back() {
    let peer = Peer::start(Script::Hang).await;
    let mut settings = settings(&peer.base_url());
    settings.in_flight_max = 1;
    let provider = provider_with(&settings);
    for n in 1..=3 {
        let request = submit_of(&format!("order-{n}-1"));
        tokio::select! {
            outcome = provider.submit(&request) => panic!("{outcome:?}"),
            () = until("the request has arrived", || peer.requests() == n) => {}
        }
        until("the dropped call's connection is gone", || peer.seen.closed.load(SeqCst) == n).await;
    }
    assert_eq!(peer.seen.open_max.load(SeqCst), 1);
}
