//! A provider that does other than it was asked, or that changes its final word: what the line
//! makes of it, and what the audit does.

use std::time::Duration;

use recharged::domain::{CaseKind, Order, Reason, State};
use recharged::providers::simulator::{FaultClass, Latency, Outcomes, Profile, Script, Spell};

use super::support::UNHURRIED;
use crate::harness::{Line, Service, Wishes};

/// Late enough for the line to have heard of the first word.
const LATER: Duration = Duration::from_secs(3);

fn profile(reversed_after: Duration) -> Profile {
    let outcomes = Outcomes {
        reversed: Spell::fixed(0.0, reversed_after),
        late_success: Spell::fixed(0.0, LATER),
        unknown: Spell::fixed(0.0, Duration::from_secs(2)),
        ..Outcomes::default()
    };
    let soon = Latency::Fixed(Duration::from_millis(5));
    Profile { reply: soon, completion: soon, outcomes, ..Profile::default() }
}

async fn line(reversed_after: Duration) -> (Line, Service) {
    let wishes = Wishes { profile: profile(reversed_after), send_window: UNHURRIED, ..Wishes::default() };
    let line = Line::set_up(wishes).await;
    let service = line.start("one", &[]).await;
    (line, service)
}

/// Sends an order that meets a class of trouble, and waits until it is closed.
async fn closed(line: &Line, id: &str, class: FaultClass) -> Order {
    line.simulator.script(&Script::for_orders([(vec![id.to_owned()], class)])).unwrap();
    line.write(vec![line.order(id)]).await;
    line.until_order(id, "closed", |order| order.state.is_closed()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_line_is_told_of_in_time_ends_rightly_and_the_audit_is_clean() {
    let (line, _service) = line(Duration::ZERO).await;
    let amount = closed(&line, "amount", FaultClass::WrongAmount).await;
    assert_eq!((amount.state, amount.cases), (State::Succeeded, CaseKind::AmountMismatch.bit()));
    let reversed = closed(&line, "reversed", FaultClass::Reversed).await;
    assert_eq!(
        (reversed.state, reversed.reason, reversed.refund_requested),
        (State::Failed, Some(Reason::Reversed), true)
    );
    let failed = closed(&line, "failed", FaultClass::AcceptedThenFailed).await;
    assert_eq!((failed.state, failed.reason), (State::Failed, Some(Reason::ProviderDeclined)));
    let unclear = closed(&line, "unclear", FaultClass::Unclear).await;
    assert_eq!((unclear.state, unclear.cases), (State::Succeeded, 0));
    let report = line.audit().await;
    assert!(report.audit.clean, "{report:?}");
    assert_eq!((report.orders, report.reversals, report.cases), (4, 1, 1));
    for class in [FaultClass::WrongAmount, FaultClass::Reversed, FaultClass::AcceptedThenFailed, FaultClass::Unclear] {
        assert_eq!(line.simulator.struck(class), 1, "{class}");
    }
}

/// The provider has delivered, and the line, which may not ask yet, has not heard what.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_amount_is_no_finding_before_the_line_can_have_heard_of_it() {
    let mut profile = Profile { accepted_first: 1.0, ..profile(Duration::ZERO) };
    profile.outcomes.wrong_amount = 1.0;
    let wishes = Wishes { profile, send_window: UNHURRIED, query_not_before: "60s", ..Wishes::default() };
    let line = Line::set_up(wishes).await;
    let _service = line.start("one", &[]).await;
    line.write(vec![line.order("amount")]).await;
    let deadline = std::time::Instant::now() + crate::harness::PATIENCE;
    while line.delivered().is_empty() {
        assert!(std::time::Instant::now() < deadline, "{:?}", line.simulator.strikes());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let report = line.audit().await;
    assert_eq!((report.open, report.cases, line.simulator.struck(FaultClass::WrongAmount)), (1, 0, 1), "{report:?}");
    assert!(report.audit.clean, "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_final_word_that_the_provider_takes_back_is_found_by_the_audit() {
    let (line, _service) = line(LATER).await;
    // Nobody asks about an order that is closed: until providers call back, this is how it comes out.
    let reversed = closed(&line, "reversed", FaultClass::Reversed).await;
    let late = closed(&line, "late", FaultClass::LateSuccess).await;
    assert_eq!((reversed.state, late.state), (State::Succeeded, State::Failed));
    assert!(line.audit().await.audit.clean, "so far all is as it was told");
    let struck = |class| line.simulator.struck(class);
    let both = || struck(FaultClass::Reversed) + struck(FaultClass::LateSuccess) == 2;
    let deadline = std::time::Instant::now() + crate::harness::PATIENCE;
    while !both() {
        assert!(std::time::Instant::now() < deadline, "{:?}", line.simulator.strikes());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let found = line.audit().await.audit;
    assert_eq!((found.clean, found.taken_back, found.wrongly_failed), (false, 1, 1), "{found:?}");
    assert_eq!((found.lost, found.double, found.misdelivered), (0, 0, 0), "{found:?}");
}
