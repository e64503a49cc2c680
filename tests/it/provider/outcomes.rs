//! What becomes of a recharge other than plainly delivered or refused, and what money and the
//! number have to say about it: the wire, the ledger, and the strike.

use std::time::Duration;

use recharged::domain::{Currency, FailureClass, Money, QueryOutcome, RetryAdvice, SubmitOutcome};
use recharged::providers::simulator::{
    Delivery, FaultClass, Latency, Outcomes, Profile, SimulatorOptions, Spell, read_ledger,
};
use serde_json::json;

use super::simulator::Run;
use super::{quick, until};

const SOON: Latency = Latency::Fixed(Duration::from_millis(200));

/// Completes what it accepts at once.
fn prompt() -> Profile {
    Profile { completion: Latency::Fixed(Duration::from_millis(1)), ..quick() }
}

impl Run {
    fn ledger(&self) -> Vec<Delivery> {
        read_ledger(&self.dir.path().join("ledger.jsonl")).unwrap()
    }

    async fn until_status(&self, reference: &str, status: &str) {
        let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
        loop {
            let told = self.get(reference).await.json()["status"].clone();
            if told == status {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{reference} is {told} and not {status}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn what_is_never_completed_stays_in_progress_until_it_is_resolved() {
    let run = Run::start(prompt()).await;
    for (reference, resolution, status, deliveries) in
        [("order-1-1", "delivered", "succeeded", 1), ("order-2-1", "failed", "rejected", 1)]
    {
        run.next(FaultClass::Never);
        assert_eq!((run.post(reference).await.status(), run.get(reference).await.status()), (202, 202));
        assert_eq!(run.query(reference).await, QueryOutcome::InProgress);
        let path = format!("/_admin/references/{reference}/resolve");
        let resolved = run.wire("POST", &path, &json!({ "as": resolution }).to_string()).await;
        assert_eq!(resolved.status(), 200, "{resolved:?}");
        assert_eq!(run.get(reference).await.json()["status"], status);
        assert_eq!(run.delivered().len(), deliveries);
        assert_eq!(run.wire("POST", &path, &json!({ "as": resolution }).to_string()).await.status(), 409);
    }
    assert_eq!(run.struck(FaultClass::Never), (2, 2));
}

#[tokio::test]
async fn what_was_accepted_can_fail() {
    let run = Run::start(prompt()).await;
    run.next(FaultClass::AcceptedThenFailed);
    assert_eq!(run.post("order-1-1").await.status(), 202);
    run.until_status("order-1-1", "rejected").await;
    let QueryOutcome::Failed(failure) = run.query("order-1-1").await else { panic!("it failed") };
    assert_eq!((failure.class, failure.advice), (FailureClass::ProviderDeclared, RetryAdvice::Never));
    assert_eq!((run.delivered().len(), run.struck(FaultClass::AcceptedThenFailed)), (0, (1, 1)));
    assert_eq!(run.struck(FaultClass::Fatal), (0, 0), "each is counted as what it is");
}

#[tokio::test]
async fn what_failed_can_be_delivered_late() {
    let late_success = Spell { rate: 1.0, lasts: SOON };
    let run = Run::start(Profile { outcomes: Outcomes { late_success, ..Outcomes::default() }, ..quick() }).await;
    let refused = run.post("order-1-1").await;
    assert_eq!((refused.status(), &refused.json()["status"]), (422, &json!("rejected")));
    assert_eq!((run.delivered().len(), run.struck(FaultClass::LateSuccess)), (0, (0, 0)), "not yet");
    run.until_status("order-1-1", "succeeded").await;
    assert_eq!(run.delivered(), ["order-1-1"]);
    until("it is counted", || run.struck(FaultClass::LateSuccess) == (1, 1)).await;
}

#[tokio::test]
async fn what_was_delivered_can_be_taken_back_and_both_stand_in_the_ledger() {
    let reversed = |lasts| Outcomes { reversed: Spell { rate: 1.0, lasts }, ..Outcomes::default() };
    let run = Run::start(Profile { outcomes: reversed(SOON), ..quick() }).await;
    assert_eq!(run.post("order-1-1").await.json()["status"], "succeeded");
    run.until_status("order-1-1", "reversed").await;
    let told = run.query("order-1-1").await;
    let QueryOutcome::Reversed(receipt) = told else { panic!("{told:?}") };
    assert_eq!(receipt.delivered.unwrap().minor, 5_000);
    // At once: nobody is ever told of a success.
    run.set(Profile { outcomes: reversed(Latency::Fixed(Duration::ZERO)), ..quick() });
    assert_eq!(run.post("order-2-1").await.json()["status"], "reversed");
    assert!(matches!(run.submit("order-3-1").await, SubmitOutcome::Unknown(_)));
    assert!(matches!(run.query("order-3-1").await, QueryOutcome::Reversed(_)));
    let lines: Vec<_> = run.ledger().iter().map(|line| (line.client_ref.to_string(), line.reverses)).collect();
    let wanted = [("1", None), ("1", Some(1)), ("2", None), ("2", Some(3)), ("3", None), ("3", Some(5))];
    assert_eq!(lines, wanted.map(|(order, reverses)| (format!("order-{order}-1"), reverses)));
    assert_eq!((run.simulator.stats().reversed, run.struck(FaultClass::Reversed)), (3, (3, 3)));

    // Still so after a restart.
    let Run { dir, simulator } = run;
    simulator.shutdown().await;
    let ledger = Some(dir.path().join("ledger.jsonl"));
    let simulator = super::simulator(SimulatorOptions { profile: quick(), ledger, ..Default::default() }).await;
    assert!(matches!(Run { dir, simulator }.query("order-2-1").await, QueryOutcome::Reversed(_)));
}

#[tokio::test]
async fn a_wrong_amount_is_told_and_written_as_it_was_delivered() {
    let run = Run::start(quick()).await;
    run.next(FaultClass::WrongAmount);
    let SubmitOutcome::Succeeded(receipt) = run.submit("order-1-1").await else { panic!("it succeeded") };
    let half = Money { minor: 2_500, currency: Currency::parse("CNY").unwrap() };
    assert_eq!(
        (receipt.delivered, run.get("order-1-1").await.json()["amount_minor"].as_i64()),
        (Some(half), Some(2_500))
    );
    assert_eq!((run.ledger()[0].amount_minor, run.struck(FaultClass::WrongAmount)), (2_500, (1, 1)));
}

#[tokio::test]
async fn for_a_while_the_provider_does_not_know_and_then_it_does() {
    let unknown = Spell { rate: 1.0, lasts: Latency::Fixed(Duration::from_millis(500)) };
    let run = Run::start(Profile { outcomes: Outcomes { unknown, ..Outcomes::default() }, ..prompt() }).await;
    assert_eq!(run.post("order-1-1").await.status(), 202);
    until("it is delivered", || run.delivered().len() == 1).await;
    assert_eq!(run.get("order-1-1").await.json()["status"], "unknown");
    run.until_status("order-1-1", "succeeded").await;
    assert_eq!(run.struck(FaultClass::Unclear).1, 1);
    // One that nobody asks about within its time is unclear to the first question all the same.
    run.post("order-2-1").await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(run.query("order-2-1").await, QueryOutcome::ProviderUnknown);
    assert!(matches!(run.query("order-2-1").await, QueryOutcome::Succeeded(_)));
    // And one that is resolved is clear at once.
    let unknown = Spell { rate: 1.0, lasts: Latency::Fixed(Duration::from_mins(5)) };
    run.set(Profile { outcomes: Outcomes { unknown, ..Outcomes::default() }, ..prompt() });
    run.post("order-3-1").await;
    until("it is delivered", || run.delivered().len() == 3).await;
    assert_eq!(run.query("order-3-1").await, QueryOutcome::ProviderUnknown);
    let resolved = run.wire("POST", "/_admin/references/order-3-1/resolve", r#"{"as": "failed"}"#).await;
    assert_eq!(resolved.json()["state"], "delivered", "the truth stays the truth");
    assert!(matches!(run.query("order-3-1").await, QueryOutcome::Succeeded(_)));
}

#[tokio::test]
async fn a_number_cools_down_and_its_next_recharge_is_refused_meanwhile() {
    let run = Run::start(Profile { cooldown: Some(Duration::from_mins(2)), ..quick() }).await;
    assert_eq!(run.post("order-1-1").await.status(), 200);
    let refused = run.post("order-1-2").await;
    assert_eq!((refused.status(), &refused.json()["code"]), (422, &json!("cooldown_active")));
    let SubmitOutcome::Rejected(failure) = run.submit("order-2-1").await else { panic!("refused") };
    assert_eq!(failure.class, FailureClass::CooldownActive);
    assert_eq!(run.post_to("order-3-1", "+8613800000043").await.status(), 200, "another number");
    run.set(Profile { cooldown: Some(Duration::from_millis(1)), ..quick() });
    assert_eq!(run.delivered(), ["order-1-1", "order-3-1"]);
    assert_eq!(run.struck(FaultClass::Cooldown), (2, 2));
}

#[tokio::test]
async fn a_balance_is_spent_and_what_it_does_not_cover_is_refused_until_it_is_raised() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Some(dir.path().join("ledger.jsonl"));
    let options = SimulatorOptions { profile: quick(), ledger, balance: Some(12_000), ..Default::default() };
    let run = Run { dir, simulator: super::simulator(options).await };
    let statuses = async |orders: std::ops::Range<u32>| {
        let mut statuses = Vec::new();
        for n in orders {
            statuses.push(run.post(&format!("order-{n}-1")).await.status());
        }
        statuses
    };
    assert_eq!(statuses(0..3).await, [200, 200, 422]);
    let SubmitOutcome::Rejected(failure) = run.submit("client-1-1").await else { panic!("refused") };
    assert_eq!((failure.class, failure.advice), (FailureClass::InsufficientFloat, RetryAdvice::AfterOperatorAction));
    assert_eq!(run.wire("GET", "/_admin/balance", "").await.json(), json!({ "minor": 2_000 }));
    assert_eq!(run.wire("PUT", "/_admin/balance", r#"{"minor": 5000}"#).await.json(), json!({ "minor": 5_000 }));
    assert_eq!(statuses(3..5).await, [200, 422]);
    run.wire("PUT", "/_admin/balance", r#"{"minor": null}"#).await;
    assert_eq!(statuses(5..7).await, [200, 200]);
    assert_eq!((run.delivered().len(), run.struck(FaultClass::Balance)), (5, (3, 3)));
}

#[tokio::test]
async fn an_empty_float_refuses_everybody_until_it_is_raised_or_its_time_is_over() {
    let lasting = |lasts| Profile { empty_float: Spell::fixed(0.0, lasts), ..quick() };
    let run = Run::start(lasting(Duration::from_mins(5))).await;
    run.next(FaultClass::EmptyFloat);
    for order in ["order-1-1", "order-2-1"] {
        let refused = run.post(order).await;
        assert_eq!((refused.status(), &refused.json()["code"]), (422, &json!("insufficient_float")), "{order}");
    }
    assert_eq!((run.delivered().len(), run.struck(FaultClass::EmptyFloat)), (0, (2, 2)));
    run.wire("PUT", "/_admin/balance", r#"{"minor": null}"#).await;
    assert_eq!(run.post("order-3-1").await.status(), 200);
    run.set(lasting(Duration::from_millis(50)));
    run.next(FaultClass::EmptyFloat);
    assert_eq!(run.post("order-4-1").await.status(), 422);
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(run.post("order-5-1").await.status(), 200);
}

#[tokio::test]
async fn whichever_way_a_recharge_ends_the_balance_pays_what_was_delivered_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Some(dir.path().join("ledger.jsonl"));
    let options = SimulatorOptions { profile: prompt(), ledger, balance: Some(100_000), ..Default::default() };
    let run = Run { dir, simulator: super::simulator(options).await };
    let mut left = 100_000;
    for (n, class, resolution, held, paid) in
        [(1, FaultClass::Never, "failed", 5_000, 0), (2, FaultClass::Never, "delivered", 5_000, 5_000)]
    {
        run.next(class);
        let reference = format!("order-{n}-1");
        assert_eq!(run.post(&reference).await.status(), 202);
        assert_eq!(run.wire("GET", "/_admin/balance", "").await.json(), json!({ "minor": left - held }));
        let path = format!("/_admin/references/{reference}/resolve");
        assert_eq!(run.wire("POST", &path, &json!({ "as": resolution }).to_string()).await.status(), 200);
        left -= paid;
        assert_eq!(run.wire("GET", "/_admin/balance", "").await.json(), json!({ "minor": left }), "{resolution}");
    }
    // Told failed, and delivered later.
    let late_success = Spell { rate: 1.0, lasts: SOON };
    run.set(Profile { outcomes: Outcomes { late_success, ..Outcomes::default() }, ..prompt() });
    assert_eq!(run.post("order-3-1").await.status(), 422);
    assert_eq!(run.wire("GET", "/_admin/balance", "").await.json(), json!({ "minor": left }));
    run.until_status("order-3-1", "succeeded").await;
    assert_eq!(run.wire("GET", "/_admin/balance", "").await.json(), json!({ "minor": left - 5_000 }));
}
