//! The simulator's ledger: whole after a kill, refused when it was tampered with.

use std::io::Write as _;
use std::sync::Arc;

use recharged::domain::{DuplicateSemantics, QueryOutcome, SubmitOutcome};
use recharged::providers::simulator::{LedgerError, Profile, Simulator, SimulatorError, SimulatorOptions, read_ledger};

use super::simulator::Run;
use super::{RealClock, provider, query_of, quick, simulator, submit_of};

#[tokio::test]
async fn a_ledger_survives_a_kill_and_its_references_are_known_after_the_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.jsonl");
    let options = || SimulatorOptions { profile: quick(), ledger: Some(path.clone()), ..Default::default() };
    let first = simulator(options()).await;
    for n in 1..=3 {
        provider(&first.base_url()).submit(&submit_of(&format!("order-{n}-1"))).await;
    }
    first.shutdown().await;
    let whole = std::fs::read(&path).unwrap();

    // Killed in the middle of a write: every possible tear of a fourth line.
    let fourth = whole.split(|byte| *byte == b'\n').next().unwrap();
    for torn in [1, 20, fourth.len()] {
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(&fourth[..torn]).unwrap();
        let error = read_ledger(&path).unwrap_err();
        assert!(matches!(error, LedgerError::Torn { line: 4, .. }), "{error:?}");
        assert!(error.to_string().contains("line 4"), "{error}");
        let again = simulator(options()).await;
        again.shutdown().await;
        assert_eq!(std::fs::read(&path).unwrap(), whole, "what was never confirmed is cut off");
    }

    let second = simulator(options()).await;
    let provider = provider(&second.base_url());
    assert_eq!(provider.submit(&submit_of("order-2-1")).await, SubmitOutcome::Duplicate);
    assert!(matches!(provider.query(&query_of("order-3-1")).await, QueryOutcome::Succeeded(_)));
    assert!(matches!(provider.submit(&submit_of("order-4-1")).await, SubmitOutcome::Succeeded(_)));
    second.set_profile(Profile { duplicates: DuplicateSemantics::ReplaysResult, ..quick() }).unwrap();
    assert!(matches!(provider.submit(&submit_of("order-1-1")).await, SubmitOutcome::Succeeded(_)));
    second.shutdown().await;
    let ledger = read_ledger(&path).unwrap();
    assert_eq!(ledger.iter().map(|d| d.seq).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(!format!("{ledger:?}").contains("13800000042"), "numbers are masked in debug output");
}

#[tokio::test]
async fn a_ledger_with_foreign_or_missing_lines_is_refused_by_line() {
    let run = Run::start(quick()).await;
    for n in 1..=3 {
        run.submit(&format!("order-{n}-1")).await;
    }
    let Run { dir, simulator } = run;
    simulator.shutdown().await;
    let path = dir.path().join("ledger.jsonl");
    let whole = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = whole.lines().collect();

    std::fs::write(&path, format!("{}\nhello\n{}\n", lines[0], lines[2])).unwrap();
    assert!(matches!(read_ledger(&path).unwrap_err(), LedgerError::Foreign { line: 2, .. }));
    let options = SimulatorOptions { ledger: Some(path.clone()), ..Default::default() };
    let error = Simulator::start(options, Arc::new(RealClock)).await.unwrap_err();
    assert!(matches!(error, SimulatorError::Ledger(LedgerError::Foreign { line: 2, .. })), "{error:?}");

    std::fs::write(&path, format!("{}\n{}\n", lines[0], lines[2])).unwrap();
    assert!(matches!(read_ledger(&path).unwrap_err(), LedgerError::Sequence { line: 2, found: 3, .. }));
}

#[tokio::test]
async fn two_simulators_cannot_write_one_ledger() {
    let run = Run::start(quick()).await;
    let options = SimulatorOptions { ledger: Some(run.dir.path().join("ledger.jsonl")), ..Default::default() };
    let error = Simulator::start(options, Arc::new(RealClock)).await.unwrap_err();
    assert!(matches!(error, SimulatorError::Ledger(LedgerError::Locked { .. })), "{error:?}");
}
