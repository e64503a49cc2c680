//! How fast adapter and simulator are together; printed, not judged.

use std::sync::Arc;

use futures_util::StreamExt as _;
use recharged::domain::SubmitOutcome;
use recharged::providers::simulator::{SimulatorOptions, read_ledger};
use tokio::time::Instant;

use super::{provider_with, quick, settings, simulator, submit_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_submits_are_delivered_and_their_pace_is_printed() {
    const SUBMITS: u32 = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let ledger = dir.path().join("ledger.jsonl");
    let simulator =
        simulator(SimulatorOptions { profile: quick(), ledger: Some(ledger.clone()), ..Default::default() }).await;
    let mut settings = settings(&simulator.base_url());
    settings.in_flight_max = 64;
    let provider = provider_with(&settings);
    provider.connect(64).await;
    let start = Instant::now();
    let workers = futures_util::stream::iter(0..64).map(|worker| {
        let provider = Arc::clone(&provider);
        tokio::spawn(async move {
            for n in (worker..SUBMITS).step_by(64) {
                let outcome = provider.submit(&submit_of(&format!("order-{n}-1"))).await;
                assert!(matches!(outcome, SubmitOutcome::Succeeded(_)), "{outcome:?}");
            }
        })
    });
    workers.buffer_unordered(64).for_each(|joined| async { joined.unwrap() }).await;
    let took = start.elapsed();
    println!("{SUBMITS} submits in {took:?}: {:.0} per second", f64::from(SUBMITS) / took.as_secs_f64());
    assert_eq!(read_ledger(&ledger).unwrap().len(), SUBMITS as usize);
}
