//! What stands between a question and the truth, and the rate limits: the wire, the ledger, and
//! the strike.

use std::time::Duration;

use recharged::domain::{QueryOutcome, SubmitOutcome};
use recharged::providers::simulator::{FaultClass, Latency, Profile, Queries, Spell, Throttle};
use serde_json::json;

use super::simulator::Run;
use super::{quick, until};

fn asking(queries: Queries) -> Profile {
    Profile { queries, completion: Latency::Fixed(Duration::from_millis(1)), ..quick() }
}

const ALWAYS: Spell = Spell::fixed(1.0, Duration::from_millis(400));

/// Asks until the answer has changed, and returns it.
async fn until_other(run: &Run, reference: &str, first: &QueryOutcome) -> QueryOutcome {
    let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
    loop {
        let told = run.query(reference).await;
        if told != *first {
            return told;
        }
        assert!(tokio::time::Instant::now() < deadline, "still {told:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_query_can_fail_whatever_is_true() {
    let run = Run::start(asking(Queries { failing: 1.0, ..Queries::default() })).await;
    run.post("order-1-1").await;
    assert_eq!(run.get("order-1-1").await.status(), 500);
    assert_eq!(run.query("order-1-1").await, QueryOutcome::Unavailable { retry_after: None });
    assert_eq!((run.delivered().len(), run.struck(FaultClass::QueryFailing)), (1, (2, 1)));
}

#[tokio::test]
async fn an_outage_of_queries_strikes_every_query_and_no_submit() {
    let run = Run::start(asking(Queries { outage: ALWAYS, ..Queries::default() })).await;
    for order in ["order-1-1", "order-2-1"] {
        assert_eq!(run.post(order).await.status(), 200);
    }
    assert_eq!(run.get("order-1-1").await.status(), 503);
    run.set(asking(Queries::default()));
    assert_eq!(run.get("order-2-1").await.status(), 503, "it began with another one's question");
    assert_eq!(run.post("order-3-1").await.status(), 200);
    let told = until_other(&run, "order-1-1", &QueryOutcome::Unavailable { retry_after: None }).await;
    assert!(matches!(told, QueryOutcome::Succeeded(_)), "{told:?}");
    assert_eq!((run.delivered().len(), run.struck(FaultClass::QueryOutage).1), (3, 2));
}

#[tokio::test]
async fn not_found_can_lag_behind_a_delivery() {
    let run = Run::start(asking(Queries { not_found_lag: ALWAYS, ..Queries::default() })).await;
    run.post("order-1-1").await;
    let wire = run.get("order-1-1").await;
    assert_eq!((wire.status(), &wire.json()["code"]), (404, &json!("not_found")));
    assert_eq!(run.delivered(), ["order-1-1"], "and yet it is delivered");
    let told = until_other(&run, "order-1-1", &QueryOutcome::NotFound).await;
    assert!(matches!(told, QueryOutcome::Succeeded(_)), "{told:?}");
    assert_eq!(run.struck(FaultClass::NotFoundLag).1, 1);
}

#[tokio::test]
async fn a_stale_status_says_in_progress_after_the_end() {
    let run = Run::start(asking(Queries { stale: ALWAYS, ..Queries::default() })).await;
    run.next("accept");
    assert_eq!(run.post("order-1-1").await.status(), 202);
    until("it is delivered", || run.delivered().len() == 1).await;
    assert_eq!(run.get("order-1-1").await.json()["status"], "accepted");
    let told = until_other(&run, "order-1-1", &QueryOutcome::InProgress).await;
    assert!(matches!(told, QueryOutcome::Succeeded(_)), "{told:?}");
    assert_eq!(run.struck(FaultClass::Stale).1, 1);
}

#[tokio::test]
async fn each_trouble_of_queries_that_a_script_calls_for_strikes_the_next_question_it_can() {
    let outage = Spell::fixed(0.0, Duration::from_millis(200));
    let run = Run::start(asking(Queries { outage, ..Queries::default() })).await;
    for (n, class) in FaultClass::scriptable().filter(|class| class.is_of_queries()).enumerate() {
        let reference = format!("order-{n}-1");
        run.next(class);
        assert_eq!(run.post(&reference).await.status(), 202, "{class}: else nobody would ask");
        until("it is delivered", || run.delivered().len() == n + 1).await;
        until("its end is known", || {
            run.simulator.references("", 10).iter().any(|r| r.client_ref == reference && r.state == "delivered")
        })
        .await;
        run.get(&reference).await;
        assert_eq!(run.struck(class), (1, 1), "{class}");
        let down = QueryOutcome::Unavailable { retry_after: None };
        let told = until_other(&run, &reference, &down).await;
        assert!(matches!(told, QueryOutcome::Succeeded(_)), "{class}: once, and then the truth: {told:?}");
    }
}

#[tokio::test]
async fn who_asks_too_early_or_too_often_is_refused_and_told_when() {
    let queries = Queries { not_before: Some(Duration::from_millis(400)), ..Queries::default() };
    let run = Run::start(asking(queries)).await;
    run.post("order-1-1").await;
    let wire = run.get("order-1-1").await;
    assert_eq!((wire.status(), &wire.json()["code"]), (403, &json!("too_early")));
    let QueryOutcome::Unavailable { retry_after: Some(wait) } = run.query("order-1-1").await else {
        panic!("it is told when")
    };
    assert!(wait <= Duration::from_millis(400), "{wait:?}");
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(matches!(run.query("order-1-1").await, QueryOutcome::Succeeded(_)));
    run.set(asking(Queries { min_interval: Some(Duration::from_mins(1)), ..Queries::default() }));
    let wire = run.get("order-1-1").await;
    assert_eq!((wire.status(), &wire.json()["code"]), (403, &json!("too_often")));
    assert!(matches!(run.query("order-1-1").await, QueryOutcome::Unavailable { retry_after: Some(_) }));
    assert_eq!((run.struck(FaultClass::TooEarly), run.struck(FaultClass::TooOften)), ((2, 1), (2, 1)));
}

#[tokio::test]
async fn what_is_past_its_retention_is_not_found_and_still_a_duplicate() {
    let run = Run::start(asking(Queries { retention: Some(Duration::from_millis(50)), ..Queries::default() })).await;
    run.post("order-1-1").await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(run.get("order-1-1").await.status(), 404);
    assert_eq!(run.query("order-1-1").await, QueryOutcome::NotFound);
    assert_eq!(run.post("order-1-1").await.status(), 409);
    assert_eq!((run.delivered().len(), run.struck(FaultClass::Forgotten)), (1, (2, 1)));
}

#[tokio::test]
async fn a_rate_limit_counts_down_in_headers_and_refuses_in_the_body_where_it_does_so() {
    let limit = |in_body| Throttle { permits_per_second: 0.1, burst: 2, tells_when: true, in_body };
    let run = Run::start(Profile { throttle: Some(limit(true)), ..quick() }).await;
    let mut remaining = Vec::new();
    for n in 0..3 {
        let wire = run.post(&format!("order-{n}-1")).await;
        assert_eq!((wire.status(), wire.header("x-ratelimit-limit")), (200, Some("2".to_owned())));
        remaining.push((wire.header("x-ratelimit-remaining").unwrap(), wire.json()["code"] == "throttled"));
    }
    assert_eq!(remaining, [("1".to_owned(), false), ("0".to_owned(), false), ("0".to_owned(), true)]);
    assert!(matches!(run.submit("order-9-1").await, SubmitOutcome::Throttled { retry_after: Some(_) }));
    assert_eq!((run.delivered().len(), run.struck(FaultClass::Throttle)), (2, (2, 2)));
    assert!(matches!(run.query("order-0-1").await, QueryOutcome::Throttled { .. }), "one limit for both");
    run.set(Profile { throttle: Some(limit(false)), ..quick() });
    for wanted in [200, 200, 429] {
        assert_eq!(run.post(&format!("more-{wanted}-{}", run.delivered().len())).await.status(), wanted);
    }
}

#[tokio::test]
async fn queries_can_have_a_limit_of_their_own() {
    let one = Some(Throttle { permits_per_second: 0.1, burst: 1, tells_when: false, in_body: false });
    let run = Run::start(Profile { query_throttle: one, ..quick() }).await;
    for n in 0..3 {
        assert_eq!(run.post(&format!("order-{n}-1")).await.status(), 200);
    }
    assert_eq!(run.get("order-0-1").await.status(), 200);
    let refused = run.get("order-0-1").await;
    assert_eq!((refused.status(), refused.header("retry-after")), (429, None));
    assert_eq!(run.query("order-1-1").await, QueryOutcome::Throttled { retry_after: None });
    assert_eq!((run.struck(FaultClass::QueryThrottle), run.struck(FaultClass::Throttle)), ((2, 2), (0, 0)));
}
