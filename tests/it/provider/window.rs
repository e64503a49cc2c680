//! The send window: no first byte after it, whatever stopped the process and wherever.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use recharged::domain::{NotSentCause, ProviderId, QueryOutcome, SubmitOutcome, Timestamp};
use recharged::ports::{Clock, RechargeProvider};
use recharged::providers::build;

use super::peer::{Peer, Script, success};
use super::tls::Front;
use super::{RealClock, query_of, settings, submit_of, until};

/// A process that is stopped for ten seconds just before its clock is read for the n-th time.
#[derive(Debug)]
struct StoppedClock {
    reads_left: AtomicUsize,
}

impl StoppedClock {
    const STOP: Duration = Duration::from_secs(10);

    /// Never stopped, as yet.
    fn running() -> Arc<Self> {
        Arc::new(Self { reads_left: AtomicUsize::new(usize::MAX / 2) })
    }

    fn stop_after(&self, reads: usize) {
        self.reads_left.store(reads, SeqCst);
    }

    fn reads_left(&self) -> usize {
        self.reads_left.load(SeqCst)
    }
}

impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        RealClock.now()
    }

    fn since_boot(&self) -> Duration {
        let left = self.reads_left.fetch_update(SeqCst, SeqCst, |left| Some(left.saturating_sub(1))).unwrap();
        RealClock.since_boot() + if left == 0 { Self::STOP } else { Duration::ZERO }
    }
}

fn provider_on(peer: &Peer, clock: &Arc<StoppedClock>) -> Arc<dyn RechargeProvider> {
    let clock: Arc<dyn Clock> = Arc::<StoppedClock>::clone(clock);
    build(&ProviderId::new("primary"), &settings(&peer.base_url()), clock).unwrap()
}

/// Far enough for a machine that is held up, and nearer than the stop is long.
fn in_a_while() -> Duration {
    RealClock.since_boot() + StoppedClock::STOP / 2
}

#[tokio::test]
async fn a_window_that_is_over_before_the_call_means_that_no_byte_leaves() {
    let peer = Peer::start(Script::Answer(success())).await;
    let provider = provider_on(&peer, &StoppedClock::running());
    assert_eq!(provider.connect(1).await, 1);
    let mut request = submit_of("order-1-1");
    request.send_by = RealClock.since_boot().saturating_sub(Duration::from_millis(1));
    assert_eq!(provider.submit(&request).await, SubmitOutcome::NotSent(NotSentCause::WindowClosed));
    let mut query = query_of("order-1-1");
    query.send_by = request.send_by;
    assert_eq!(provider.query(&query).await, QueryOutcome::NotAsked);
    drop(provider);
    until("the connection is gone", || peer.seen.closed.load(SeqCst) == 1).await;
    assert_eq!(peer.bytes(), 0);
}

/// The stop is put before every reading of the clock in turn, the last of which is the one at
/// the socket, between the finished request and its first byte.
#[tokio::test]
async fn a_process_stopped_anywhere_in_a_call_sends_within_the_window_or_nothing() {
    stop_everywhere(async |script| (Peer::start(script).await, None)).await;
}

#[tokio::test]
async fn under_tls_too_a_stopped_process_sends_within_the_window_or_nothing() {
    stop_everywhere(async |script| {
        let peer = Peer::start(script).await;
        let front = Front::start(&peer, "localhost").await;
        (peer, Some(front))
    })
    .await;
}

async fn stop_everywhere(start: impl AsyncFn(Script) -> (Peer, Option<Front>)) {
    let provider_on = |peer: &Peer, front: &Option<Front>, clock: &Arc<StoppedClock>| match front {
        None => provider_on(peer, clock),
        Some(front) => {
            build(&ProviderId::new("primary"), &front.settings(), Arc::<StoppedClock>::clone(clock)).unwrap()
        }
    };
    for warm in [false, true] {
        // How often an undisturbed call looks at the clock up to its first byte.
        let (peer, front) = start(Script::Hang).await;
        let clock = StoppedClock::running();
        let provider = provider_on(&peer, &front, &clock);
        if warm {
            assert_eq!(provider.connect(1).await, 1);
        }
        let before = clock.reads_left();
        let mut request = submit_of("order-0-1");
        request.send_by = in_a_while();
        tokio::select! {
            biased;
            outcome = provider.submit(&request) => panic!("{outcome:?}"),
            () = until("the request has arrived", || peer.requests() == 1) => {}
        }
        let reads = before - clock.reads_left();
        assert!(reads >= 2, "at least at the start and at the socket");

        for stop in 0..reads {
            let (peer, front) = start(Script::Answer(success())).await;
            let clock = StoppedClock::running();
            let provider = provider_on(&peer, &front, &clock);
            if warm {
                assert_eq!(provider.connect(1).await, 1);
            }
            clock.stop_after(stop);
            let mut request = submit_of("order-1-1");
            request.send_by = in_a_while();
            let outcome = provider.submit(&request).await;
            let place = format!("stopped at reading {stop} of {reads}, warm: {warm}");
            assert_eq!(outcome, SubmitOutcome::NotSent(NotSentCause::WindowClosed), "{place}");
            drop(provider);
            until("the connections are gone", || peer.seen.open.load(SeqCst) == 0).await;
            assert_eq!(peer.bytes(), 0, "{place}");
        }
    }
}

#[tokio::test]
async fn a_stop_after_the_first_byte_does_not_lose_the_answer() {
    let peer = Peer::start(Script::Slow(success(), Duration::from_millis(100))).await;
    let clock = StoppedClock::running();
    let provider = provider_on(&peer, &clock);
    let mut request = submit_of("order-1-1");
    request.send_by = in_a_while();
    let call = tokio::spawn(async move { provider.submit(&request).await });
    until("the request has arrived", || peer.requests() == 1).await;
    clock.stop_after(0);
    assert!(matches!(call.await.unwrap(), SubmitOutcome::Succeeded(_)));
}
