//! The simulator changed and looked at from outside while it runs.

use recharged::domain::{DuplicateSemantics, SubmitOutcome};
use recharged::providers::Secret;
use recharged::providers::simulator::{Declines, FaultClass, Profile, SimulatorOptions};
use serde_json::json;

use super::simulator::Run;
use super::wire::Wire;
use super::{provider, quick, submit_of, until};

#[tokio::test]
async fn the_profile_is_read_and_changed_while_it_runs() {
    let run = Run::start(quick()).await;
    let profile = run.wire("GET", "/_admin/profile", "").await.json();
    assert_eq!(profile, serde_json::to_value(quick()).unwrap());
    let toml = "reply = { fixed = \"0s\" }\n[declines]\nfatal = 1.0\n";
    assert_eq!(run.wire("PUT", "/_admin/profile", toml).await.json()["declines"]["fatal"], 1.0);
    assert_eq!(run.post("order-1-1").await.status(), 422);
    let back = run.wire("PUT", "/_admin/profile", &profile.to_string()).await;
    assert_eq!((back.status(), run.post("order-2-1").await.status()), (200, 200));
    for (wrong, word) in [("[declines]\nfatal = 2", "declines"), ("{\"replay\": 1}", "replay"), ("x", "x")] {
        let refused = run.wire("PUT", "/_admin/profile", wrong).await;
        assert_eq!(refused.status(), 422);
        assert!(refused.json()["problem"].as_str().unwrap().contains(word), "{refused:?}");
    }
    assert_eq!(run.simulator.profile(), quick());
    let declines = Declines { fatal: 1.0, ..Declines::default() };
    run.set(Profile { declines, ..quick() });
    assert_eq!(run.wire("GET", "/_admin/profile", "").await.json()["declines"]["fatal"], 1.0);
}

#[tokio::test]
async fn a_script_says_what_certain_submits_meet_and_then_all_is_as_before() {
    let run = Run::start(quick()).await;
    let script = "[[step]]\nclient_ref = \"order-1-1\"\nanswer = { status = 418, body = \"<b>tea</b>\", executed = true }\n\
                  [[step]]\norder = \"order-2\"\nrefuse = \"operator_unavailable\"\nretry_after = \"1s\"\ntimes = 2\n\
                  [[step]]\nnext = 1\nthen = \"faults.error_504.before\"\n";
    assert_eq!(run.wire("POST", "/_admin/script", script).await.json(), json!({ "waiting": 3 }));
    let tea = run.post("order-1-1").await;
    assert_eq!((tea.status(), tea.body(), run.delivered().len()), (418, "<b>tea</b>", 1));
    assert_eq!((run.post("order-2-1").await.status(), run.post("order-2-2").await.status()), (422, 422));
    assert_eq!((run.post("order-3-1").await.status(), run.post("order-3-1").await.status()), (504, 200));
    assert_eq!(run.struck(FaultClass::Error504Before), (1, 1));
    assert_eq!(run.wire("GET", "/_admin/script", "").await.json()["waiting"], 0);
    let json = json!({ "step": [{ "next": 5, "then": "deliver" }] }).to_string();
    assert_eq!(run.wire("POST", "/_admin/script", &json).await.json()["waiting"], 1);
    assert_eq!(run.wire("DELETE", "/_admin/script", "").await.json()["waiting"], 0);
    let refused = run.wire("POST", "/_admin/script", "[[step]]\nnext = 1\nthen = \"faults.hang\"\n").await;
    assert_eq!(refused.status(), 422);
    assert!(refused.json()["problem"].as_str().unwrap().contains("did you mean"), "{refused:?}");
}

#[tokio::test]
async fn references_are_listed_as_they_truly_stand() {
    let run = Run::start(quick()).await;
    for (reference, then) in [("a-1", "deliver"), ("b-1", "declines.fatal"), ("c-1", "outcomes.never")] {
        run.next(then);
        run.post(reference).await;
    }
    run.next("faults.reset.before");
    run.post("d-1").await;
    let page = run.wire("GET", "/_admin/references?limit=3", "").await.json();
    let states: Vec<_> = page["references"].as_array().unwrap().iter().map(|r| r["state"].as_str().unwrap()).collect();
    assert_eq!((states, &page["after"]), (vec!["delivered", "refused", "in_progress"], &json!("c-1")));
    let rest = run.wire("GET", "/_admin/references?limit=3&after=c-1", "").await.json();
    let wanted = json!([{ "client_ref": "d-1", "state": "nothing", "submits": 1, "queries": 0 }]);
    assert_eq!((&rest["references"], &rest["after"]), (&wanted, &json!(null)));
    assert_eq!(run.wire("GET", "/_admin/references?limit=x", "").await.status(), 400);
    assert_eq!(run.wire("POST", "/_admin/references/z-1/resolve", r#"{"as": "failed"}"#).await.status(), 404);
    assert_eq!(run.wire("POST", "/_admin/references/c-1/resolve", "{}").await.status(), 422);
}

#[tokio::test]
async fn while_it_is_frozen_everything_hangs_and_nothing_is_done() {
    let run = Run::start(quick()).await;
    assert_eq!(run.wire("PUT", "/_admin/freeze", "").await.json(), json!({ "frozen": true }));
    assert_eq!((run.post("order-1-1").await, run.get("order-1-1").await), (Wire::Silence, Wire::Silence));
    assert_eq!(run.delivered(), Vec::<String>::new());
    let waits = provider(&run.simulator.base_url());
    let waits = tokio::spawn(async move { waits.submit(&submit_of("order-2-1")).await });
    until("it arrived", || run.simulator.stats().submits == 2).await;
    assert_eq!(run.wire("DELETE", "/_admin/freeze", "").await.json(), json!({ "frozen": false }));
    let outcome = waits.await.unwrap();
    assert!(matches!(outcome, SubmitOutcome::Succeeded(_)), "{outcome:?}");
    assert_eq!(run.delivered(), ["order-2-1"], "a caller that gave up has left nothing behind");
}

#[tokio::test]
async fn counts_and_strikes_are_told() {
    let run = Run::start(quick()).await;
    run.next("faults.truncated.after");
    run.post("order-1-1").await;
    assert_eq!(run.wire("GET", "/_admin/stats", "").await.json()["truncated"], 1);
    let strikes = run.wire("GET", "/_admin/strikes", "").await.json();
    let struck: Vec<_> = strikes.as_array().unwrap().iter().filter(|strike| strike["requests"] != 0).collect();
    assert_eq!(struck, [&json!({ "class": "faults.truncated.after", "requests": 1, "orders": 1, "by_chance": 0 })]);
}

#[tokio::test]
async fn the_administration_needs_the_key_that_callers_need() {
    let options = SimulatorOptions { profile: quick(), key: Some(Secret::new("right")), ..Default::default() };
    let run = Run { dir: tempfile::tempdir().unwrap(), simulator: super::simulator(options).await };
    assert_eq!(run.wire("GET", "/_admin/profile", "").await.status(), 401);
    assert_eq!(run.wire("PUT", "/_admin/freeze", "").await.status(), 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_race_of_one_reference_ends_as_the_provider_deduplicates() {
    for (duplicates, delivered) in [
        (DuplicateSemantics::RejectsAlways, 1),
        (DuplicateSemantics::RejectsUnlessFailed, 1),
        (DuplicateSemantics::ReplaysResult, 1),
        (DuplicateSemantics::NotDeduplicated, 20),
    ] {
        let run = Run::start(Profile { duplicates, ..quick() }).await;
        let submits = futures_util::future::join_all((0..20).map(|_| run.post("order-1-1"))).await;
        assert!(submits.iter().all(|wire| matches!(wire.status(), 200 | 202 | 409)), "{duplicates:?}: {submits:?}");
        assert_eq!(run.delivered().len(), delivered, "{duplicates:?}");
    }
}

#[test]
fn the_documentation_lists_every_class_of_trouble() {
    let mut table = "| class | number ends in | what happens |\n|---|---|---|".to_owned();
    for class in FaultClass::ALL {
        let ending = class.number_ending().map_or(String::new(), |ending| ending.to_string());
        table.push_str(&format!("\n| `{class}` | {ending} | {} |", class.about()));
    }
    crate::docs::holds("docs/SIMULATOR.md", "classes", &table);
}
