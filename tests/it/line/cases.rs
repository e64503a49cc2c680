//! What a person has to look at: orders in doubt, their refunds by policy, and what is decided about
//! them by hand.

use std::collections::HashMap;
use std::time::Duration;

use recharged::domain::{CaseKind, Reason, State};
use recharged::ports::CaseFilter;
use recharged::providers::simulator::{Latency, Profile, Queries};
use serde_json::Value;

use super::refusals::{Ended, ended};
use super::support::{body, events, header_of, types};
use crate::harness::{Line, PATIENCE, Service, Wishes};

/// Nobody hears whether a recharge was delivered, nor is anybody told who asks.
fn silent() -> Profile {
    let reply = Latency::Fixed(Duration::from_secs(600));
    Profile { reply, queries: Queries { failing: 1.0, ..Queries::default() }, ..Profile::default() }
}

const QUICK: Latency = Latency::Fixed(Duration::from_millis(5));

fn short(more: &str) -> String {
    format!("[sla]\ndeadline = \"6s\"\nunpaid_timeout = \"6s\"\nnotify_after = \"3s\"\n{more}\n")
}

async fn doubtful(orders: u64, more: &str) -> (Line, Service) {
    let wishes = Wishes { profile: silent(), call_timeout: "2s", toml: short(more), ..Wishes::default() };
    let line = Line::set_up(wishes).await;
    let service = line.start("one", &[]).await;
    line.send("d", orders).await;
    line.until_counts("all are in doubt", |counts| counts.get(&State::InDoubt) == Some(&orders)).await;
    (line, service)
}

async fn asked(line: &Line, arguments: &[&str]) -> Ended {
    ended(line.command(&[&["--json"], arguments].concat()), PATIENCE).await
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_settles_orders_in_doubt_and_each_decision_is_an_event_with_name_and_evidence() {
    let (line, _service) = doubtful(3, "reconcile_within = \"8s\"").await;
    let listed = asked(&line, &["cases", "list"]).await;
    assert_eq!(listed.code, Some(0), "{listed:?}");
    let cases = lines(&listed.stdout);
    assert_eq!(cases.len(), 3);
    assert!(cases.iter().all(|case| case["kind"] == "in_doubt" && case["state"] == "open"), "{cases:?}");

    let resolve = ["cases", "resolve", "d-0", "--as", "failed", "--by", "A. Duty", "--evidence", "operator's portal"];
    for missing in [5, 7] {
        let without: Vec<&str> =
            resolve.iter().enumerate().filter(|(n, _)| *n != missing && *n != missing + 1).map(|(_, a)| *a).collect();
        assert_eq!(asked(&line, &without).await.code, Some(2), "nobody decides without name and evidence: {without:?}");
    }
    let resolved = asked(&line, &resolve).await;
    assert_eq!(resolved.code, Some(0), "{resolved:?}");
    let said: Value = serde_json::from_str(&resolved.stdout).unwrap();
    assert_eq!((said["state"].as_str(), said["refund_requested"].as_bool()), (Some("failed"), Some(true)), "{said}");
    let mut delivered = resolve;
    (delivered[2], delivered[4]) = ("d-1", "succeeded");
    assert_eq!(asked(&line, &delivered).await.code, Some(0));
    let again = asked(&line, &resolve).await;
    assert_eq!((again.code, again.said.len()), (Some(1), 1), "{again:?}");
    assert!(again.said[0].contains("order d-0 has no open case"), "{again:?}");

    let (failed, succeeded) = (line.load("d-0").await.unwrap(), line.load("d-1").await.unwrap());
    assert_eq!((failed.state, failed.reason), (State::Failed, Some(Reason::ResolvedByOperator)));
    assert_eq!((succeeded.state, succeeded.refund_requested), (State::Succeeded, false));
    let refunds = line.read("refunds", |records| !records.is_empty()).await;
    assert_eq!(refunds.len(), 1);
    assert_eq!(body(&refunds[0])["order_id"], "d-0");
    assert_eq!(types(&events(&line).await["d-0"]).last().map(String::as_str), Some("failed"));
    let timeline = line.store.timeline(&failed.order_id).await.unwrap();
    let decided = timeline.last().unwrap().data.decided_by.as_ref().unwrap();
    assert_eq!((decided.name.as_str(), decided.evidence.as_str()), ("A. Duty", "operator's portal"));

    // Somebody looks after it, everybody sees who, and what was found is there for the next one.
    let unowned = || async { lines(&asked(&line, &["cases", "list", "--unowned"]).await.stdout) };
    assert_eq!(unowned().await.len(), 1);
    let take = ["cases", "take", "d-2", "--by"];
    assert_eq!(asked(&line, &[&take[..], &["A. Duty"]].concat()).await.code, Some(0));
    assert!(unowned().await.is_empty());
    let refused = asked(&line, &[&take[..], &["B. Night"]].concat()).await;
    assert_eq!((refused.code, refused.said.len()), (Some(1), 1), "{refused:?}");
    assert!(refused.said[0].contains("--over-from \"A. Duty\""), "{refused:?}");
    assert_eq!(asked(&line, &[&take[..], &["B. Night", "--over-from", "A. Duty"]].concat()).await.code, Some(0));
    let note = ["cases", "note", "d-2", "--by", "B. Night", "--text", "asked the operator, ticket 8841"];
    assert_eq!(asked(&line, &note).await.code, Some(0));
    let owned = lines(&asked(&line, &["cases", "list", "--owner", "B. Night"]).await.stdout);
    assert_eq!((owned.len(), owned[0]["owner"].as_str()), (1, Some("B. Night")), "{owned:?}");
    let release = ["cases", "release", "d-2", "--by", "B. Night"];
    assert_eq!(asked(&line, &release).await.code, Some(0));
    let nobodys = asked(&line, &release).await;
    assert_eq!((nobodys.code, nobodys.said.len()), (Some(1), 1), "{nobodys:?}");
    let shown = asked(&line, &["orders", "show", "d-2"]).await.object();
    let noted = shown["timeline"].as_array().unwrap().iter().filter(|step| step["event"] == "case_noted");
    let noted: Vec<(&str, &str)> =
        noted.map(|step| (step["by"].as_str().unwrap(), step["evidence"].as_str().unwrap())).collect();
    assert_eq!(
        noted,
        [
            ("A. Duty", "takes the case"),
            ("B. Night", "takes the case over from A. Duty"),
            ("B. Night", "asked the operator, ticket 8841"),
            ("B. Night", "releases the case"),
        ]
    );
    // It moved nothing, and nobody downstream was told.
    let told = types(&events(&line).await["d-2"]);
    assert!(!told.iter().any(|kind| kind == "case_noted"), "{told:?}");

    // What nobody settles is told to people.
    let escalated = || async { lines(&asked(&line, &["cases", "list", "--escalated"]).await.stdout) };
    let give_up = tokio::time::Instant::now() + PATIENCE;
    while escalated().await.is_empty() {
        assert!(tokio::time::Instant::now() < give_up, "the case was not escalated");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert_eq!(escalated().await[0]["order_id"], "d-2");
    let shown = ended(line.command(&["cases", "show", "d-2"]), PATIENCE).await;
    for words in ["a person must look now", "recharged cases resolve d-2 --as"] {
        assert!(shown.stdout.contains(words), "{}", shown.stdout);
    }
    // When the provider speaks after all, the order is settled by its word.
    line.simulator.set_profile(Profile { reply: QUICK, ..Profile::default() }).unwrap();
    let last = line.until_order("d-2", "settled by the provider", |order| order.state.is_closed()).await;
    assert_eq!(last.state, State::Succeeded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refunded_in_doubt_by_policy_each_order_has_its_case_and_one_refund_whatever_comes_later() {
    let (line, _service) = doubtful(40, "on_unknown = \"refund_flagged\"").await;
    let refunds = line.read("refunds", |records| records.len() >= 40).await;
    let mut per_order: HashMap<String, usize> = HashMap::new();
    for refund in &refunds {
        assert_eq!(header_of(refund, "ce_type"), "recharge.refund.requested.v1");
        *per_order.entry(body(refund)["order_id"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!((per_order.len(), refunds.len()), (40, 40));
    for row in line.rows().await {
        assert!(row.refund_requested && row.cases & CaseKind::InDoubt.bit() != 0, "{row:?}");
        let timeline = line.store.timeline(&row.order_id).await.unwrap();
        let refunded = timeline.iter().find(|event| event.data.refund.is_some()).unwrap();
        assert_eq!(refunded.data.cases_opened, [CaseKind::InDoubt], "in one transaction");
    }

    // The provider had delivered them all.
    line.simulator.set_profile(Profile { reply: QUICK, ..Profile::default() }).unwrap();
    line.until_succeeded(40).await;
    let filter = CaseFilter { kinds: vec![CaseKind::LateSuccess], ..CaseFilter::default() };
    let cases = line.store.cases(&filter, None, 100).await.unwrap();
    assert_eq!(cases.len(), 40, "each is a case for a person: the money is on its way back");
    let report = line.audit().await;
    assert!(report.audit.clean, "{report:?}");
    assert_eq!(line.read("refunds", |records| records.len() >= 40).await.len(), 40);
}
