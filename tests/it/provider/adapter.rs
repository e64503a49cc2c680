//! What the adapter makes of answers: closed sets, body before status.

use std::time::Duration;

use recharged::domain::{
    Currency, Failure, FailureClass, Money, QueryOutcome, Receipt, RetryAdvice, SubmitOutcome, UnknownCause,
};
use recharged::providers::{ProviderKind, ProviderSettings, Secret, build};

use super::peer::{Peer, Script, answer};
use super::{provider, query_of, submit_of};

async fn submit_answered(status: &str, headers: &str, body: &str) -> SubmitOutcome {
    let peer = Peer::start(Script::Answer(answer(status, headers, body))).await;
    provider(&peer.base_url()).submit(&submit_of("order-1-1")).await
}

async fn query_answered(status: &str, headers: &str, body: &str) -> QueryOutcome {
    let peer = Peer::start(Script::Answer(answer(status, headers, body))).await;
    provider(&peer.base_url()).query(&query_of("order-1-1")).await
}

fn failure(class: FailureClass, code: &str, advice: RetryAdvice) -> Failure {
    Failure { class, code: code.to_owned(), advice }
}

#[tokio::test]
async fn a_success_carries_what_the_provider_tells() {
    let body = r#"{"status":"succeeded","provider_ref":"S1","amount_minor":4900,"currency":"CNY","new_field":[1]}"#;
    let delivered = Some(Money { minor: 4_900, currency: Currency::parse("CNY").unwrap() });
    let receipt = Receipt { provider_ref: Some("S1".to_owned()), delivered, delivered_at: None };
    assert_eq!(submit_answered("200 OK", "", body).await, SubmitOutcome::Succeeded(receipt));
}

#[tokio::test]
async fn the_documented_answers_have_their_meaning() {
    let body = r#"{"status":"accepted","provider_ref":"S2"}"#;
    assert_eq!(
        submit_answered("202 Accepted", "", body).await,
        SubmitOutcome::Accepted { provider_ref: Some("S2".to_owned()) }
    );
    assert_eq!(submit_answered("409 Conflict", "", r#"{"code":"duplicate"}"#).await, SubmitOutcome::Duplicate);
    let body = r#"{"status":"rejected","code":"operator_unavailable","retryable":true,"retry_after_ms":2500}"#;
    let advice = RetryAdvice::NewAttempt { after: Duration::from_millis(2_500) };
    assert_eq!(
        submit_answered("422 Unprocessable Content", "", body).await,
        SubmitOutcome::Rejected(failure(FailureClass::OperatorUnavailable, "operator_unavailable", advice))
    );
    let body = r#"{"status":"rejected","code":"insufficient_float","retryable":true}"#;
    assert_eq!(
        submit_answered("422 Unprocessable Content", "", body).await,
        SubmitOutcome::Rejected(failure(
            FailureClass::InsufficientFloat,
            "insufficient_float",
            RetryAdvice::AfterOperatorAction
        ))
    );
}

#[tokio::test]
async fn a_refusal_is_read_from_the_body_whatever_the_status() {
    let body = r#"{"status":"rejected","code":"invalid_recipient","retryable":false}"#;
    let refused =
        SubmitOutcome::Rejected(failure(FailureClass::InvalidRecipient, "invalid_recipient", RetryAdvice::Never));
    for status in ["200 OK", "422 Unprocessable Content", "500 Internal Server Error"] {
        assert_eq!(submit_answered(status, "", body).await, refused, "{status}");
    }
}

#[tokio::test]
async fn what_is_not_documented_is_unknown_and_never_a_failure() {
    use UnknownCause::{BrokenBody, ServerError, UnmappedCode};
    let html = "<html><body>Bad Gateway</body></html>";
    for (status, body, cause) in [
        ("500 Internal Server Error", "", ServerError),
        ("502 Bad Gateway", html, ServerError),
        ("408 Request Timeout", "", ServerError),
        ("200 OK", html, BrokenBody),
        ("200 OK", r#"{"status":"succ"#, BrokenBody),
        ("200 OK", "", BrokenBody),
        ("404 Not Found", html, BrokenBody),
        ("422 Unprocessable Content", r#"{"status":"rejected","code":"E-9917"}"#, UnmappedCode),
        ("422 Unprocessable Content", r#"{"status":"rejected"}"#, UnmappedCode),
        ("200 OK", r#"{"status":"done"}"#, UnmappedCode),
        ("200 OK", "{}", UnmappedCode),
        ("404 Not Found", r#"{"code":"not_found"}"#, UnmappedCode),
        // Documented as "ask, do not take it for a failure", whatever the status.
        ("200 OK", r#"{"code":"system_error"}"#, ServerError),
        ("422 Unprocessable Content", r#"{"code":"system_error"}"#, ServerError),
        // Pages of HTML where the protocol was expected.
        ("502 Bad Gateway", "<html><title>502 Bad Gateway</title></html>", ServerError),
        ("504 Gateway Timeout", "gateway timeout", ServerError),
        // Words that belong to questions.
        ("403 Forbidden", r#"{"code":"too_early","retry_after_ms":1000}"#, UnmappedCode),
        ("200 OK", r#"{"status":"unknown"}"#, UnmappedCode),
        ("200 OK", r#"{"status":"reversed","amount_minor":5000,"currency":"CNY"}"#, UnmappedCode),
        ("502 Bad Gateway", r#"{"status":"accepted"}"#, ServerError),
        // Body and status contradict each other.
        ("500 Internal Server Error", r#"{"status":"succeeded"}"#, ServerError),
        ("429 Too Many Requests", r#"{"status":"succeeded"}"#, UnmappedCode),
        ("401 Unauthorized", r#"{"status":"accepted"}"#, UnmappedCode),
    ] {
        assert_eq!(submit_answered(status, "", body).await, SubmitOutcome::Unknown(cause), "{status} {body}");
    }
}

#[tokio::test]
async fn a_refusal_for_pace_tells_how_long_to_wait_where_it_does() {
    let throttled =
        |seconds: Option<f64>| SubmitOutcome::Throttled { retry_after: seconds.map(Duration::from_secs_f64) };
    let status = "429 Too Many Requests";
    assert_eq!(submit_answered(status, "", "").await, throttled(None));
    assert_eq!(submit_answered(status, "Retry-After: 7\r\n", "slow down").await, throttled(Some(7.0)));
    assert_eq!(submit_answered(status, "Retry-After: soon\r\n", "").await, throttled(None));
    let exact = r#"{"code":"throttled","retry_after_ms":1500}"#;
    assert_eq!(submit_answered(status, "Retry-After: 2\r\n", exact).await, throttled(Some(1.5)));
    assert_eq!(submit_answered("200 OK", "", r#"{"code":"throttled"}"#).await, throttled(None), "the in-body twin");
}

#[tokio::test]
async fn a_ban_is_a_rest_for_the_lane_and_decides_nothing_about_an_order() {
    let status = "403 Forbidden";
    let told = r#"{"code":"banned","retry_after_ms":29500}"#;
    let exact = Some(Duration::from_millis(29_500));
    for (headers, body, wait) in [
        ("Retry-After: 30\r\n", told, exact),
        ("Retry-After: 30\r\n", r#"{"code":"banned"}"#, Some(Duration::from_secs(30))),
        ("", r#"{"code":"banned"}"#, None),
    ] {
        assert_eq!(submit_answered(status, headers, body).await, SubmitOutcome::Throttled { retry_after: wait });
        assert_eq!(query_answered(status, headers, body).await, QueryOutcome::Banned { retry_after: wait });
    }
    // One of days would close the lane for days, though a person may have it lifted.
    let days = r#"{"code":"banned","retry_after_ms":604800000}"#;
    let longest = SubmitOutcome::Throttled { retry_after: Some(Duration::from_hours(1)) };
    assert_eq!(submit_answered(status, "", days).await, longest);
}

#[tokio::test]
async fn wrong_credentials_are_ours_to_mend() {
    for (status, code) in [("401 Unauthorized", "401"), ("403 Forbidden", "403")] {
        assert_eq!(
            submit_answered(status, "", "<html>no</html>").await,
            SubmitOutcome::Rejected(failure(FailureClass::AuthOrConfig, code, RetryAdvice::AfterOperatorAction))
        );
    }
}

#[tokio::test]
async fn a_query_answer_counts_only_in_the_words_of_the_protocol() {
    assert_eq!(query_answered("200 OK", "", r#"{"status":"accepted"}"#).await, QueryOutcome::InProgress);
    assert_eq!(query_answered("200 OK", "", r#"{"status":"unknown"}"#).await, QueryOutcome::ProviderUnknown);
    assert_eq!(
        query_answered("200 OK", "", r#"{"status":"reversed"}"#).await,
        QueryOutcome::Reversed(Receipt::default())
    );
    let body = r#"{"status":"rejected","code":"declined","retryable":false}"#;
    assert_eq!(
        query_answered("200 OK", "", body).await,
        QueryOutcome::Failed(failure(FailureClass::ProviderDeclared, "declined", RetryAdvice::Never))
    );
    assert_eq!(query_answered("404 Not Found", "", r#"{"code":"not_found"}"#).await, QueryOutcome::NotFound);
    for (status, body) in [
        ("404 Not Found", "<html>nginx</html>"),
        ("200 OK", r#"{"code":"not_found"}"#),
        ("200 OK", r#"{"status":"rejected","code":"E-9917"}"#),
        ("500 Internal Server Error", r#"{"status":"succeeded"}"#),
        ("502 Bad Gateway", ""),
        ("401 Unauthorized", ""),
        ("200 OK", "<html>maintenance</html>"),
        ("200 OK", r#"{"code":"system_error"}"#),
        ("404 Not Found", r#"{"code":"forgotten"}"#),
        ("503 Service Unavailable", "service unavailable"),
    ] {
        let outcome = query_answered(status, "", body).await;
        assert_eq!(outcome, QueryOutcome::Unavailable { retry_after: None }, "{status} {body}");
    }
    for code in ["too_early", "too_often"] {
        let body = format!(r#"{{"code":"{code}","retry_after_ms":2500}}"#);
        let wait = Some(Duration::from_millis(2_500));
        assert_eq!(query_answered("403 Forbidden", "", &body).await, QueryOutcome::Unavailable { retry_after: wait });
    }
    let body = r#"{"status":"reversed","provider_ref":"S3","amount_minor":5000,"currency":"CNY"}"#;
    let delivered = Some(Money { minor: 5_000, currency: Currency::parse("CNY").unwrap() });
    let receipt = Receipt { provider_ref: Some("S3".to_owned()), delivered, delivered_at: None };
    assert_eq!(query_answered("200 OK", "", body).await, QueryOutcome::Reversed(receipt));
}

#[tokio::test]
async fn a_question_that_failed_speaks_of_its_reference_and_a_throttled_one_of_all_questions() {
    let wait = |seconds: u64| Some(Duration::from_secs(seconds));
    let unavailable = |seconds| QueryOutcome::Unavailable { retry_after: wait(seconds) };
    let throttled = |seconds| QueryOutcome::Throttled { retry_after: wait(seconds) };
    for (status, headers, body, wanted) in [
        ("503 Service Unavailable", "Retry-After: 3600\r\n", "<html>maintenance</html>", unavailable(3_600)),
        ("503 Service Unavailable", "", r#"{"code":"system_error","retry_after_ms":60000}"#, unavailable(60)),
        ("403 Forbidden", "Retry-After: 30\r\n", r#"{"code":"too_early"}"#, unavailable(30)),
        ("403 Forbidden", "Retry-After: 30\r\n", "<html>no</html>", unavailable(30)),
        ("429 Too Many Requests", "Retry-After: 30\r\n", r#"{"code":"too_often"}"#, unavailable(30)),
        ("429 Too Many Requests", "Retry-After: 3\r\n", "", throttled(3)),
        ("429 Too Many Requests", "Retry-After: 3\r\n", r#"{"code":"E-17"}"#, throttled(3)),
        ("200 OK", "", r#"{"code":"throttled","retry_after_ms":4000}"#, throttled(4)),
    ] {
        assert_eq!(query_answered(status, headers, body).await, wanted, "{status} {body}");
    }
}

#[test]
fn a_provider_with_impossible_settings_is_refused_in_words() {
    let id = recharged::domain::ProviderId::new("primary");
    let refusal = |change: &dyn Fn(&mut ProviderSettings)| {
        let mut settings = ProviderSettings::new(ProviderKind::Simulator, "http://127.0.0.1:1".parse().unwrap());
        change(&mut settings);
        build(&id, &settings, std::sync::Arc::new(super::RealClock)).unwrap_err().to_string()
    };
    let error = refusal(&|s| s.base_url = "ftp://provider.example".parse().unwrap());
    assert_eq!(error, "provider primary: base_url: the scheme ftp is not supported, use https or http");
    let error = refusal(&|s| s.in_flight_max = 0);
    assert_eq!(error, "provider primary: in_flight_max: at least one call must be allowed");
    let error = refusal(&|s| s.key = Some(Secret::new("a\nb")));
    assert_eq!(error, "provider primary: key: it has characters that cannot stand in a header");
    let error = refusal(&|s| {
        s.base_url = "https://provider.example".parse().unwrap();
        s.ca_file = Some("/does/not/exist".into());
    });
    assert_eq!(error, "provider primary: ca_file: /does/not/exist cannot be read as PEM certificates");
}
