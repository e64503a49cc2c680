//! Each fault of a submit: the answer on the wire, the ledger, and the strike.

use std::time::Duration;

use recharged::domain::{SubmitOutcome, UnknownCause};
use recharged::providers::simulator::{Declines, FaultClass, Faults, Latency, Profile, Rates, Spell};

use super::simulator::Run;
use super::wire::Wire;
use super::{provider_with, quick, settings, submit_of, until};

/// What a fault looks like, and what an honest client makes of it.
fn looks_right(class: FaultClass, wire: &Wire) -> UnknownCause {
    let name = class.as_str().trim_end_matches(".before").trim_end_matches(".after");
    let of_status = |wanted: u16| assert_eq!(wire.status(), wanted, "{class}: {wire:?}");
    match name.trim_start_matches("faults.") {
        "reset" => assert_eq!(*wire, Wire::Reset, "{class}"),
        "hang" => assert_eq!(*wire, Wire::Silence, "{class}"),
        "slow_drip" => {
            assert!(matches!(wire, Wire::Unfinished(text) if text.starts_with("HTTP/1.1 20")), "{class}: {wire:?}");
        }
        "error_500" => of_status(500),
        "error_502" => of_status(502),
        "error_503" => of_status(503),
        "error_504" => of_status(504),
        "truncated" => {
            assert!(wire.status() < 300 && serde_json::from_str::<serde_json::Value>(wire.body()).is_err(), "{wire:?}");
        }
        "unknown_code" => assert_eq!((wire.status(), &wire.json()["code"]), (422, &"E-9917".into())),
        "html_page" | "html_error" => {
            of_status(if name.ends_with("page") { 200 } else { 502 });
            assert!(wire.body().contains("<html>") && wire.header("content-type").unwrap().starts_with("text/html"));
        }
        "error_200" => assert_eq!((wire.status(), &wire.json()["code"]), (200, &"system_error".into())),
        other => panic!("{other} is no fault of a submit"),
    }
    match name.trim_start_matches("faults.") {
        "reset" => UnknownCause::Reset,
        "hang" | "slow_drip" => UnknownCause::Timeout,
        "truncated" | "html_page" => UnknownCause::BrokenBody,
        "unknown_code" => UnknownCause::UnmappedCode,
        _ => UnknownCause::ServerError,
    }
}

fn faults() -> impl Iterator<Item = FaultClass> {
    FaultClass::scriptable().filter(|class| class.as_str().starts_with("faults."))
}

#[tokio::test]
async fn each_fault_is_on_the_wire_in_the_ledger_and_among_the_strikes() {
    let run = Run::start(quick()).await;
    let mut delivered = 0;
    for (n, class) in faults().enumerate() {
        run.next(class);
        let cause = looks_right(class, &run.post(&format!("wire-{n}-1")).await);
        run.next(class);
        let mut settings = settings(&run.simulator.base_url());
        settings.call_timeout = Duration::from_secs(if cause == UnknownCause::Timeout { 1 } else { 30 });
        let outcome = provider_with(&settings).submit(&submit_of(&format!("client-{n}-1"))).await;
        assert_eq!(outcome, SubmitOutcome::Unknown(cause), "{class}");
        delivered += if class.as_str().ends_with(".after") { 2 } else { 0 };
        assert_eq!(run.delivered().len(), delivered, "{class}");
        assert_eq!(run.struck(class), (2, 2), "{class}");
    }
    let struck: u64 = run.simulator.strikes().iter().map(|strike| strike.requests).sum();
    assert_eq!(struck, 2 * faults().count() as u64, "and nothing else was struck");
    assert_eq!(run.simulator.stats().unclear(), struck);
}

#[tokio::test]
async fn a_profile_rates_the_new_faults_as_it_does_the_old() {
    let rates = Rates { before: 0.0, after: 1.0 };
    let run = Run::start(Profile { faults: Faults { html_error: rates, ..Faults::default() }, ..quick() }).await;
    for n in 0..3 {
        assert_eq!(run.post(&format!("order-{n}-1")).await.status(), 502);
    }
    assert_eq!(run.post("order-0-2").await.status(), 502);
    assert_eq!((run.delivered().len(), run.struck(FaultClass::HtmlErrorAfter)), (4, (4, 3)), "three orders");
}

/// A profile that rates one class alone, as high as can be.
fn always(class: FaultClass) -> Profile {
    let kind = class.as_str().trim_start_matches("faults.");
    let (kind, moment) = kind.split_once('.').unwrap();
    let text = format!("reply = {{ fixed = \"0s\" }}\n[faults.{kind}]\n{moment} = 1.0\n");
    Profile::from_toml(&text).unwrap()
}

#[tokio::test]
async fn each_fault_that_a_profile_rates_strikes_by_chance_and_executes_what_it_says() {
    let run = Run::start(quick()).await;
    let mut delivered = 0;
    for (n, class) in faults().enumerate() {
        run.set(always(class));
        looks_right(class, &run.post(&format!("rated-{n}-1")).await);
        delivered += usize::from(class.as_str().ends_with(".after"));
        assert_eq!(run.delivered().len(), delivered, "{class}");
        assert_eq!((run.struck(class), run.by_chance(class)), ((1, 1), 1), "{class}");
        let rated: Vec<_> =
            run.simulator.profile().rates_of_submits().into_iter().filter(|(_, rate)| *rate > 0.0).collect();
        assert_eq!(rated, [(class, 1.0)]);
    }
}

#[tokio::test]
async fn an_outage_and_an_empty_float_strike_by_their_rate_alone() {
    let soon = Spell::fixed(1.0, Duration::from_millis(300));
    let run = Run::start(Profile { outage: soon, ..quick() }).await;
    assert_eq!(run.post("order-1-1").await, Wire::Reset);
    until("nobody listens", || std::net::TcpStream::connect(run.simulator.addr()).is_err()).await;
    assert_eq!(run.by_chance(FaultClass::Outage), 1);
    until("somebody listens again", || std::net::TcpStream::connect(run.simulator.addr()).is_ok()).await;
    run.set(Profile { empty_float: soon, ..quick() });
    let refused = run.post("order-2-1").await;
    assert_eq!((refused.status(), &refused.json()["code"]), (422, &"insufficient_float".into()));
    assert_eq!((run.by_chance(FaultClass::EmptyFloat), run.delivered().len()), (1, 0));
}

#[tokio::test]
async fn a_fault_of_a_request_that_executed_nothing_is_not_counted_as_one_that_did() {
    let run = Run::start(quick()).await;
    assert_eq!(run.post("order-1-1").await.status(), 200);
    let fault = Faults { error_500: Rates { before: 0.0, after: 1.0 }, ..Faults::default() };
    // The reference is known: nothing more is done.
    run.set(Profile { faults: fault, ..quick() });
    assert_eq!(run.post("order-1-1").await.status(), 500);
    assert_eq!((run.struck(FaultClass::Error500Before), run.struck(FaultClass::Error500After)), ((1, 1), (0, 0)));
    // It is refused.
    let declines = Declines { fatal: 1.0, ..Declines::default() };
    run.set(Profile { faults: fault, declines, ..quick() });
    assert_eq!(run.post("order-2-1").await.status(), 500);
    assert_eq!((run.struck(FaultClass::Error500Before), run.struck(FaultClass::Error500After)), ((2, 2), (0, 0)));
    // It is done.
    run.set(Profile { faults: fault, ..quick() });
    assert_eq!(run.post("order-3-1").await.status(), 500);
    assert_eq!((run.struck(FaultClass::Error500After), run.delivered().len()), ((1, 1), 2));
}

#[tokio::test]
async fn in_an_outage_nobody_listens_and_what_is_under_way_is_answered() {
    let outage = Spell::fixed(0.0, Duration::from_secs(3));
    let slow = Latency::Fixed(Duration::from_millis(700));
    let run = Run::start(Profile { outage, reply: slow, ..quick() }).await;
    let under_way = run.post("order-1-1");
    let strikes = async {
        until("it is under way", || run.simulator.stats().submits == 1).await;
        run.next(FaultClass::Outage);
        assert_eq!(run.post("order-2-1").await, Wire::Reset);
        until("nobody listens", || std::net::TcpStream::connect(run.simulator.addr()).is_err()).await;
    };
    let (answer, ()) = tokio::join!(under_way, strikes);
    assert_eq!(answer.status(), 200);
    assert_eq!(run.get("order-1-1").await, Wire::Refused);
    let outcome = run.submit("order-3-1").await;
    assert!(matches!(outcome, SubmitOutcome::NotSent(_)), "no byte left: {outcome:?}");
    until("somebody listens again", || std::net::TcpStream::connect(run.simulator.addr()).is_ok()).await;
    assert_eq!(run.post("order-2-1").await.status(), 200, "it was not executed before");
    assert_eq!(run.delivered(), ["order-1-1", "order-2-1"]);
    assert_eq!(run.struck(FaultClass::Outage), (1, 1));
}

#[tokio::test]
async fn a_connection_that_rests_is_closed_when_an_outage_begins() {
    let run = Run::start(Profile { outage: Spell::fixed(0.0, Duration::from_millis(300)), ..quick() }).await;
    let provider = super::provider(&run.simulator.base_url());
    assert!(matches!(provider.submit(&submit_of("order-1-1")).await, SubmitOutcome::Succeeded(_)));
    assert_eq!(run.wire("POST", "/_admin/outage", r#"{"lasts": "300ms"}"#).await.status(), 200);
    until("nobody listens", || std::net::TcpStream::connect(run.simulator.addr()).is_err()).await;
    until("somebody listens again", || std::net::TcpStream::connect(run.simulator.addr()).is_ok()).await;
    let outcome = provider.submit(&submit_of("order-2-1")).await;
    assert!(matches!(outcome, SubmitOutcome::Succeeded(_)), "on a new connection: {outcome:?}");
}

#[tokio::test]
async fn declines_of_every_kind_are_definite_and_execute_nothing() {
    let run = Run::start(quick()).await;
    for (n, (class, status, retryable)) in
        [(FaultClass::Fatal, 422, false), (FaultClass::Retryable, 422, true), (FaultClass::OddStatus, 500, false)]
            .into_iter()
            .enumerate()
    {
        run.next(class);
        let wire = run.post(&format!("order-{n}-1")).await;
        assert_eq!((wire.status(), &wire.json()["retryable"]), (status, &retryable.into()), "{class}");
        run.next(class);
        let outcome = run.submit(&format!("client-{n}-1")).await;
        assert!(matches!(outcome, SubmitOutcome::Rejected(_)), "{class}: {outcome:?}");
        assert_eq!(run.struck(class).1, 2, "{class}");
    }
    assert_eq!(run.delivered(), Vec::<String>::new());
}

#[tokio::test]
async fn refusals_for_pace_by_chance_come_in_three_forms_and_execute_nothing() {
    let run = Run::start(Profile { declines: Declines { throttled: 1.0, ..Declines::default() }, ..quick() }).await;
    let mut forms = std::collections::BTreeSet::new();
    for n in 0..30 {
        let wire = run.post(&format!("order-{n}-1")).await;
        assert_eq!(wire.json()["code"], "throttled");
        forms.insert((wire.status(), wire.header("retry-after").is_some()));
        let outcome = run.submit(&format!("order-{n}-1")).await;
        assert!(matches!(outcome, SubmitOutcome::Throttled { .. }), "{outcome:?}");
    }
    assert_eq!(forms.into_iter().collect::<Vec<_>>(), [(200, false), (429, false), (429, true)]);
    assert_eq!((run.delivered().len(), run.struck(FaultClass::Throttled)), (0, (60, 30)));
}

#[tokio::test]
async fn the_last_digits_of_a_number_call_for_a_class_of_trouble() {
    let run = Run::start(Profile { suffix_scenarios: true, ..quick() }).await;
    let ending = FaultClass::Error503After.number_ending().unwrap();
    let wire = run.post_to("order-1-1", &format!("+86138000000{ending}")).await;
    assert_eq!((wire.status(), run.delivered().len(), run.struck(FaultClass::Error503After)), (503, 1, (1, 1)));
}
