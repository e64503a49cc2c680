//! The simulator: exactly once, on the disk before the reply, and repeatable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use recharged::domain::{DuplicateSemantics, QueryOutcome, SubmitOutcome, UnknownCause};
use recharged::ports::RechargeProvider;
use recharged::providers::Secret;
use recharged::providers::simulator::{
    Declines, Faults, Latency, Outcomes, Profile, Queries, Rates, RequestKind, SimulatorHandle, SimulatorOptions,
    Spell, Throttle, check_quota, max_over_window, read_arrivals, read_ledger,
};
use tempfile::TempDir;
use tokio::time::Instant;

use super::{provider, provider_with, query_of, quick, settings, simulator, submit_of, until};
use crate::pace::at_most;

pub(super) struct Run {
    pub(super) dir: TempDir,
    pub(super) simulator: SimulatorHandle,
}

impl Run {
    pub(super) async fn start(profile: Profile) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Some(dir.path().join("ledger.jsonl"));
        let simulator = simulator(SimulatorOptions { profile, ledger, ..Default::default() }).await;
        Self { dir, simulator }
    }

    pub(super) fn delivered(&self) -> Vec<String> {
        let ledger = read_ledger(&self.dir.path().join("ledger.jsonl")).unwrap();
        ledger.into_iter().map(|delivery| delivery.client_ref.to_string()).collect()
    }

    pub(super) async fn submit(&self, reference: &str) -> SubmitOutcome {
        provider(&self.simulator.base_url()).submit(&submit_of(reference)).await
    }

    pub(super) async fn query(&self, reference: &str) -> QueryOutcome {
        provider(&self.simulator.base_url()).query(&query_of(reference)).await
    }
}

async fn race(profile: Profile, calls: usize) -> (Run, BTreeMap<&'static str, usize>) {
    let run = Run::start(profile).await;
    let mut settings = settings(&run.simulator.base_url());
    settings.in_flight_max = 100;
    settings.call_timeout = Duration::from_mins(1);
    let provider = provider_with(&settings);
    let calls: Vec<_> = (0..calls)
        .map(|_| {
            let provider = Arc::clone(&provider);
            tokio::spawn(async move { provider.submit(&submit_of("order-7-1")).await })
        })
        .collect();
    let mut outcomes = BTreeMap::new();
    for call in calls {
        let outcome = match call.await.unwrap() {
            SubmitOutcome::Succeeded(_) => "succeeded",
            SubmitOutcome::Accepted { .. } => "accepted",
            SubmitOutcome::Duplicate => "duplicate",
            other => panic!("{other:?}"),
        };
        *outcomes.entry(outcome).or_insert(0) += 1;
    }
    (run, outcomes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_5000_concurrent_submits_of_one_reference_exactly_one_is_delivered() {
    let (run, outcomes) = race(quick(), 5_000).await;
    assert_eq!(outcomes, BTreeMap::from([("succeeded", 1), ("duplicate", 4_999)]));
    assert_eq!(run.delivered(), ["order-7-1"]);
    let stats = run.simulator.stats();
    assert_eq!((stats.submits, stats.executed, stats.duplicates), (5_000, 1, 4_999));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_replays_answers_every_submit_and_delivers_once() {
    let (run, outcomes) = race(Profile { duplicates: DuplicateSemantics::ReplaysResult, ..quick() }, 500).await;
    assert!(outcomes.keys().all(|outcome| *outcome != "duplicate") && outcomes["succeeded"] >= 1, "{outcomes:?}");
    assert_eq!(run.delivered(), ["order-7-1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_does_not_deduplicate_delivers_every_submit() {
    let (run, outcomes) = race(Profile { duplicates: DuplicateSemantics::NotDeduplicated, ..quick() }, 50).await;
    assert_eq!(outcomes, BTreeMap::from([("succeeded", 50)]));
    assert_eq!(run.delivered().len(), 50);
}

#[tokio::test]
async fn a_provider_that_rejects_unless_failed_takes_a_failed_reference_as_a_new_order() {
    let refusing = |fatal| Profile {
        duplicates: DuplicateSemantics::RejectsUnlessFailed,
        declines: Declines { fatal, ..Declines::default() },
        ..quick()
    };
    let run = Run::start(refusing(1.0)).await;
    assert!(matches!(run.submit("order-1-1").await, SubmitOutcome::Rejected(_)));
    run.simulator.set_profile(refusing(0.0)).unwrap();
    assert!(matches!(run.submit("order-1-1").await, SubmitOutcome::Succeeded(_)));
    assert_eq!(run.submit("order-1-1").await, SubmitOutcome::Duplicate);
    assert_eq!(run.delivered(), ["order-1-1"]);

    run.simulator.set_profile(Profile { duplicates: DuplicateSemantics::RejectsAlways, ..refusing(1.0) }).unwrap();
    assert!(matches!(run.submit("order-2-1").await, SubmitOutcome::Rejected(_)));
    assert_eq!(run.submit("order-2-1").await, SubmitOutcome::Duplicate, "rejects_always holds after a failure too");
}

#[tokio::test]
async fn a_delivery_is_in_the_ledger_when_its_reply_arrives() {
    let run = Run::start(quick()).await;
    for n in 1..=100 {
        let reference = format!("order-{n}-1");
        assert!(matches!(run.submit(&reference).await, SubmitOutcome::Succeeded(_)));
        assert_eq!(run.delivered().last(), Some(&reference));
    }
}

#[tokio::test]
async fn an_accepted_recharge_is_in_progress_and_then_delivered() {
    let completion = Latency::Fixed(Duration::from_secs(3));
    let run = Run::start(Profile { accepted_first: 1.0, completion, ..quick() }).await;
    assert!(matches!(run.submit("order-1-1").await, SubmitOutcome::Accepted { provider_ref: Some(_) }));
    assert_eq!(run.query("order-1-1").await, QueryOutcome::InProgress);
    assert_eq!(run.submit("order-1-1").await, SubmitOutcome::Duplicate);
    assert_eq!(run.delivered(), Vec::<String>::new());
    until("it is delivered", || run.delivered() == ["order-1-1"]).await;
    let told = settled(&provider(&run.simulator.base_url()), "order-1-1").await;
    assert!(matches!(told, QueryOutcome::Succeeded(_)), "{told:?}");
    assert_eq!(run.query("order-2-1").await, QueryOutcome::NotFound);
}

#[tokio::test]
async fn every_fault_leaves_the_caller_in_doubt_and_the_ledger_with_the_truth() {
    let fault = |faults: Faults| Profile { faults, ..quick() };
    let (before, after) = (Rates { before: 1.0, after: 0.0 }, Rates { before: 0.0, after: 1.0 });
    let none = Faults::default();
    for (executed, rates) in [(false, before), (true, after)] {
        for (name, faults, cause) in [
            ("reset", Faults { reset: rates, ..none }, UnknownCause::Reset),
            ("hang", Faults { hang: rates, ..none }, UnknownCause::Timeout),
            ("error_500", Faults { error_500: rates, ..none }, UnknownCause::ServerError),
            ("truncated", Faults { truncated: rates, ..none }, UnknownCause::BrokenBody),
            ("unknown_code", Faults { unknown_code: rates, ..none }, UnknownCause::UnmappedCode),
        ] {
            let run = Run::start(fault(faults)).await;
            let mut settings = settings(&run.simulator.base_url());
            // Short only where it is to pass: the others must not meet it, whatever holds the machine up.
            settings.call_timeout = Duration::from_secs(if cause == UnknownCause::Timeout { 2 } else { 30 });
            let outcome = provider_with(&settings).submit(&submit_of("order-1-1")).await;
            assert_eq!(outcome, SubmitOutcome::Unknown(cause), "{name}, executed: {executed}");
            assert_eq!(run.delivered().len(), usize::from(executed), "{name}, executed: {executed}");
            let asked = run.query("order-1-1").await;
            let told =
                if executed { matches!(asked, QueryOutcome::Succeeded(_)) } else { asked == QueryOutcome::NotFound };
            assert!(told, "{name}, executed: {executed}: {asked:?}");
        }
    }
}

/// Asks until the provider is no longer at it.
async fn settled(provider: &Arc<dyn RechargeProvider>, reference: &str) -> QueryOutcome {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        match provider.query(&query_of(reference)).await {
            QueryOutcome::InProgress | QueryOutcome::ProviderUnknown => {
                assert!(Instant::now() < deadline, "{reference} is not settled within a minute")
            }
            outcome => return outcome,
        }
    }
}

/// What a caller is told about 200 orders in a storm, and what became of them in truth.
async fn storm(concurrency: usize) -> BTreeMap<String, (String, String)> {
    let (reply, completion) = (Latency::Fixed(Duration::ZERO), Latency::Fixed(Duration::from_millis(1)));
    let storm = Profile::storm();
    // What strikes others beside the one it began with depends on who comes when.
    let (outage, empty_float, queries) = (Spell::default(), Spell::default(), Queries::default());
    let (never, reversed) = (0.0, Spell::default());
    let unknown = Spell { lasts: Latency::Fixed(Duration::ZERO), ..storm.outcomes.unknown };
    let outcomes = Outcomes { never, reversed, unknown, ..storm.outcomes };
    let profile = Profile { reply, completion, outage, empty_float, queries, outcomes, ..storm };
    let run = Run::start(profile).await;
    let mut settings = settings(&run.simulator.base_url());
    // Only what hangs may meet it.
    settings.call_timeout = Duration::from_secs(5);
    let provider = provider_with(&settings);
    // As before a claim: a hundred connections opened at one moment can overflow a listen queue.
    while provider.connect(concurrency).await < concurrency {}
    let orders = stream::iter(0..200).map(|n| {
        let provider = Arc::clone(&provider);
        async move {
            let reference = format!("order-{n}-1");
            let told = match provider.submit(&submit_of(&reference)).await {
                // The moment of delivery is all that differs between runs.
                SubmitOutcome::Succeeded(receipt) => format!("succeeded {:?}", receipt.provider_ref),
                other => format!("{other:?}"),
            };
            let truth = match settled(&provider, &reference).await {
                QueryOutcome::Succeeded(_) => "succeeded".to_owned(),
                other => format!("{other:?}"),
            };
            (reference, (told, truth))
        }
    });
    let orders: BTreeMap<_, _> = orders.buffer_unordered(concurrency).collect().await;
    let delivered = orders.values().filter(|(_, truth)| truth == "succeeded").count();
    assert_eq!(run.delivered().len(), delivered);
    orders
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_repeats_from_its_seed_at_any_concurrency() {
    let (few, many) = (storm(10).await, storm(150).await);
    let differing: Vec<_> = few.iter().filter(|(order, fate)| many.get(*order) != Some(fate)).collect();
    assert!(differing.is_empty(), "{differing:?} but {:?}", many.get(differing[0].0));
    let doubtful: Vec<_> = few.values().filter(|(told, _)| told.starts_with("Unknown")).collect();
    assert!(doubtful.len() > 20, "the storm is a storm");
    assert!(doubtful.iter().any(|(_, truth)| truth == "succeeded"));
    assert!(doubtful.iter().any(|(_, truth)| truth == "NotFound"));
}

#[tokio::test]
async fn a_caller_beyond_the_rate_limit_is_throttled_and_nothing_is_delivered() {
    for tells_when in [true, false] {
        let throttle = Some(Throttle { permits_per_second: 1.0, burst: 3, tells_when, in_body: false });
        let run = Run::start(Profile { throttle, ..quick() }).await;
        let mut succeeded = 0;
        for n in 0..10 {
            match run.submit(&format!("order-{n}-1")).await {
                SubmitOutcome::Succeeded(_) => succeeded += 1,
                SubmitOutcome::Throttled { retry_after } => {
                    assert_eq!(retry_after.is_some(), tells_when);
                    assert!(retry_after <= Some(Duration::from_secs(1)), "{retry_after:?}");
                }
                other => panic!("{other:?}"),
            }
        }
        assert!((3..10).contains(&succeeded), "{succeeded}");
        assert_eq!(run.delivered().len(), succeeded);
        assert_eq!(run.simulator.stats().throttled, 10 - u64::try_from(succeeded).unwrap());
    }
}

#[tokio::test]
async fn only_callers_with_the_key_are_served() {
    let key = Some(Secret::new("right"));
    let simulator = simulator(SimulatorOptions { profile: quick(), key: key.clone(), ..Default::default() }).await;
    let mut settings = settings(&simulator.base_url());
    for wrong in [None, Some(Secret::new("wrong"))] {
        settings.key = wrong;
        let outcome = provider_with(&settings).submit(&submit_of("order-1-1")).await;
        assert!(matches!(outcome, SubmitOutcome::Rejected(_)), "{outcome:?}");
    }
    assert_eq!(simulator.stats().executed, 0);
    settings.key = key;
    let outcome = provider_with(&settings).submit(&submit_of("order-1-1")).await;
    assert!(matches!(outcome, SubmitOutcome::Succeeded(_)), "{outcome:?}");
    assert!(!format!("{settings:?}{simulator:?}").contains("right"));
}

#[tokio::test]
async fn the_request_log_holds_every_arrival_and_convicts_a_caller_that_was_too_fast() {
    let dir = tempfile::tempdir().unwrap();
    let requests = dir.path().join("requests.jsonl");
    let options = SimulatorOptions { profile: quick(), requests: Some(requests.clone()), ..Default::default() };
    let simulator = simulator(options).await;
    let provider = provider(&simulator.base_url());
    for n in 0..100 {
        provider.submit(&submit_of(&format!("order-{n}-1"))).await;
    }
    provider.query(&query_of("order-1-1")).await;
    let log = read_arrivals(&requests).unwrap();
    let submits: Vec<_> = log.iter().filter(|a| a.kind == RequestKind::Submit).map(|a| a.at_us).collect();
    assert_eq!((log.len(), submits.len()), (101, 100));
    assert_eq!(submits, simulator.arrivals_us_of(RequestKind::Submit));
    assert_eq!(simulator.arrivals_us().len(), 101);
    assert_eq!(max_over_window(&submits, Duration::from_mins(1)), 100);
    check_quota(&submits, 5.0, 3).unwrap_err();
    check_quota(&submits, 5.0, 100).unwrap();
}

#[tokio::test]
async fn replies_take_as_long_as_the_profile_says() {
    let run = Run::start(Profile { reply: Latency::Fixed(Duration::from_millis(120)), ..quick() }).await;
    let start = Instant::now();
    run.submit("order-1-1").await;
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(120), "{took:?}");
    at_most("a reply", took, Duration::from_millis(600), Duration::from_secs(8));
}
