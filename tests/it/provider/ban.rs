//! The ban: who does not keep the limits is refused everything for a while.

use std::time::Duration;

use recharged::domain::{QueryOutcome, SubmitOutcome};
use recharged::providers::simulator::{Ban, FaultClass, Profile, Queries, Throttle};
use serde_json::json;

use super::quick;
use super::simulator::Run;
use super::wire::Wire;

/// Long enough that a test does not see its end.
const LONG: Duration = Duration::from_mins(10);

fn after(after: u32, lasts: Duration) -> Option<Ban> {
    Some(Ban { after, within: Duration::from_mins(1), lasts, tells_when: true })
}

fn one_permit() -> Option<Throttle> {
    Some(Throttle { permits_per_second: 0.001, burst: 1, tells_when: false, in_body: false })
}

fn is_banned(wire: &Wire) -> bool {
    let is_forbidden = wire.status() == 403 && wire.json()["code"] == "banned";
    assert!(!is_forbidden || wire.header("retry-after").is_some(), "it says how long: {wire:?}");
    is_forbidden
}

#[tokio::test]
async fn submits_over_the_quota_lead_to_a_ban_of_submits_and_queries_which_ends() {
    let lasts = Duration::from_secs(4);
    let run = Run::start(Profile { throttle: one_permit(), ban: after(2, lasts), ..quick() }).await;
    assert_eq!(run.post("order-1-1").await.status(), 200);
    let began = tokio::time::Instant::now();
    for order in ["order-2-1", "order-3-1"] {
        assert_eq!(run.post(order).await.status(), 429, "{order}: the abuse itself is refused as ever");
    }
    let banned = run.post("order-2-1").await;
    assert!(is_banned(&banned), "{banned:?}");
    assert_eq!(banned.header("x-ratelimit-limit"), None, "it never came to the rate limit");
    let wait = banned.json()["retry_after_ms"].as_u64().unwrap();
    assert!((1..=4_000).contains(&wait), "{wait}");
    assert!(is_banned(&run.get("order-1-1").await), "a question is no better");
    let SubmitOutcome::Throttled { retry_after: Some(wait) } = run.submit("order-3-1").await else {
        panic!("nothing was executed, and the order is not at fault")
    };
    assert!(wait <= lasts, "{wait:?}");
    let QueryOutcome::Banned { retry_after: Some(wait) } = run.query("order-1-1").await else {
        panic!("it proves nothing")
    };
    assert!(wait <= lasts, "{wait:?}");
    assert_eq!((run.struck(FaultClass::Ban), run.struck(FaultClass::Throttle)), ((4, 3), (2, 2)));
    assert_eq!((run.simulator.stats().banned, run.simulator.stats().throttled), (4, 2));
    assert_eq!(run.delivered(), ["order-1-1"]);

    // Without the limit, so that only the ban is in the way; it goes on under another profile.
    run.set(Profile { ban: after(2, lasts), ..quick() });
    assert!(is_banned(&run.post("order-2-1").await));
    while is_banned(&run.post("order-2-1").await) {
        assert!(began.elapsed() < Duration::from_mins(1), "it does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(began.elapsed() >= lasts, "after {:?}", began.elapsed());
    assert_eq!(run.get("order-2-1").await.status(), 200);
    assert_eq!(run.delivered(), ["order-1-1", "order-2-1"], "what was refused had not been executed");
}

#[tokio::test]
async fn queries_over_their_limit_lead_to_it_too() {
    let run = Run::start(Profile { query_throttle: one_permit(), ban: after(2, LONG), ..quick() }).await;
    for wanted in [200, 429, 429] {
        run.post("order-1-1").await;
        assert_eq!(run.get("order-1-1").await.status(), wanted);
    }
    assert!(is_banned(&run.get("order-1-1").await) && is_banned(&run.post("order-2-1").await));
    assert_eq!((run.struck(FaultClass::QueryThrottle), run.struck(FaultClass::Ban)), ((2, 1), (2, 2)));
    assert_eq!(run.delivered(), ["order-1-1"]);
}

#[tokio::test]
async fn queries_that_come_too_early_or_too_often_lead_to_it_too() {
    let too_early = Queries { not_before: Some(LONG), ..Queries::default() };
    let too_often = Queries { min_interval: Some(LONG), ..Queries::default() };
    for (queries, class) in [(too_early, FaultClass::TooEarly), (too_often, FaultClass::TooOften)] {
        let run = Run::start(Profile { queries, ban: after(3, LONG), ..quick() }).await;
        run.post("order-1-1").await;
        if class == FaultClass::TooOften {
            assert_eq!(run.get("order-1-1").await.status(), 200);
        }
        for _ in 0..3 {
            let wire = run.get("order-1-1").await;
            assert_eq!((wire.status(), &wire.json()["code"] == "banned"), (403, false), "{class}");
        }
        assert!(is_banned(&run.get("order-1-1").await) && is_banned(&run.post("order-2-1").await), "{class}");
        let outcome = run.query("order-9-1").await;
        assert!(matches!(outcome, QueryOutcome::Banned { .. }), "not \"not found\": {outcome:?}");
        assert_eq!((run.struck(class), run.struck(FaultClass::Ban)), ((3, 1), (3, 3)), "{class}");
    }
}

#[tokio::test]
async fn what_is_no_abuse_and_what_a_ban_refuses_leads_to_none() {
    let queries = Queries { retention: Some(Duration::ZERO), ..Queries::default() };
    let quiet = Profile { queries, cooldown: Some(LONG), ban: after(1, LONG), ..quick() };
    let run = Run::start(quiet.clone()).await;
    for n in 0..3 {
        assert_ne!(run.post(&format!("order-{n}-1")).await.status(), 403, "a number that has not cooled down");
        assert_eq!(run.get(&format!("order-{n}-1")).await.status(), 404, "forgotten");
    }
    assert_eq!(run.struck(FaultClass::Ban), (0, 0));
    assert_eq!(run.wire("POST", "/_admin/ban", r#"{"lasts": "50ms"}"#).await.status(), 200);
    until_served(&run).await;
    let refused = run.struck(FaultClass::Ban).0;
    for _ in 0..3 {
        run.post("order-1-1").await;
    }
    assert_eq!(run.struck(FaultClass::Ban).0, refused);
}

async fn until_served(run: &Run) {
    let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
    while is_banned(&run.post("order-1-1").await) {
        assert!(tokio::time::Instant::now() < deadline, "it does not end");
    }
}

#[tokio::test]
async fn a_ban_need_not_tell_how_long_it_lasts() {
    let ban = after(1, LONG).map(|ban| Ban { tells_when: false, ..ban });
    let run = Run::start(Profile { throttle: one_permit(), ban, ..quick() }).await;
    run.post("order-1-1").await;
    assert_eq!(run.post("order-2-1").await.status(), 429);
    let wire = run.post("order-2-1").await;
    assert_eq!((wire.status(), wire.header("retry-after"), wire.json()), (403, None, json!({ "code": "banned" })));
    assert_eq!(run.submit("order-2-1").await, SubmitOutcome::Throttled { retry_after: None });
    assert_eq!(run.query("order-1-1").await, QueryOutcome::Banned { retry_after: None });
}

#[tokio::test]
async fn a_script_or_a_number_begins_a_ban_that_strikes_others_too() {
    let lasts = Duration::from_secs(3);
    let run = Run::start(Profile { suffix_scenarios: true, ban: after(9, lasts), ..quick() }).await;
    run.next(FaultClass::Ban);
    assert!(is_banned(&run.post("order-1-1").await) && is_banned(&run.post("order-2-1").await));
    assert_eq!((run.delivered().len(), run.struck(FaultClass::Ban)), (0, (2, 2)));
    until_served(&run).await;
    assert_eq!(run.delivered(), ["order-1-1"], "it had not been executed before");
    let ending = FaultClass::Ban.number_ending().unwrap();
    assert!(is_banned(&run.post_to("order-3-1", &format!("+86138000000{ending}")).await));
    assert!(is_banned(&run.get("order-1-1").await));
}

#[tokio::test]
async fn a_ban_is_begun_and_lifted_while_the_provider_runs_and_not_for_the_administration() {
    let run = Run::start(Profile { throttle: one_permit(), ..quick() }).await;
    let toml = "reply = { fixed = \"0s\" }\nban = { after = 1, within = \"10s\", lasts = \"10m\" }\n\
                [throttle]\npermits_per_second = 0.001\nburst = 1\n";
    let profile = run.wire("PUT", "/_admin/profile", toml).await.json();
    assert_eq!(profile["ban"], json!({ "after": 1, "within": "10s", "lasts": "10m", "tells_when": true }));
    for wanted in [200, 429, 403] {
        assert_eq!(run.post(&format!("order-{wanted}-1")).await.status(), wanted);
    }
    run.set(quick());
    assert!(is_banned(&run.post("order-1-1").await), "a new profile does not end it");
    assert_eq!(run.wire("DELETE", "/_admin/ban", "").await.json(), json!({ "lasts": null }));
    assert_eq!(run.post("order-1-1").await.status(), 200);
    assert_eq!(run.wire("POST", "/_admin/ban", r#"{"lasts": "10m"}"#).await.json(), json!({ "lasts": "10m" }));
    assert!(is_banned(&run.get("order-1-1").await));
    for (wrong, word) in [("{}", "lasts"), (r#"{"lasts": "0s"}"#, "above zero"), (r#"{"lasts": "2days"}"#, "1day")] {
        let refused = run.wire("POST", "/_admin/ban", wrong).await;
        assert_eq!(refused.status(), 422);
        assert!(refused.json()["problem"].as_str().unwrap().contains(word), "{refused:?}");
    }
}
