//! Reloadly Airtime, by its documentation.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use recharged::domain::{
    Currency, FailureClass, Money, Msisdn, NotSentCause, QueryOutcome, Receipt, RetryAdvice, SubmitOutcome,
    UnknownCause,
};
use recharged::ports::{QueryKey, RechargeProvider, SubmitRequest};
use recharged::providers::ProviderKind;
use serde_json::json;

use super::super::peer::{Peer, Script, answer};
use super::super::{provider_with, until};
use super::{Contender, REFERENCE, failure, last_body, last_head, order, question};
use FailureClass::{
    AmountNotAllowed, AuthOrConfig, CooldownActive, InsufficientFloat, InvalidRecipient, LimitReached,
    OperatorUnavailable, ProviderDeclared,
};
use RetryAdvice::{AfterOperatorAction, Never};

const TOKEN: &str = r#"{"access_token":"canary-token","scope":"send-topups","expires_in":86400,"token_type":"Bearer"}"#;

pub(super) const CONTENDER: Contender = Contender {
    kind: ProviderKind::Reloadly,
    before: &[("/oauth/token", TOKEN)],
    undocumented: (
        "400 Bad Request",
        r#"{"timeStamp":"2026-01-05 08:00:00","message":"?","errorCode":"A_NEW_ONE","infoLink":null,"details":[]}"#,
    ),
};

const SOON: RetryAdvice = RetryAdvice::NewAttempt { after: Duration::from_secs(5) };
const HALF_AN_HOUR: RetryAdvice = RetryAdvice::NewAttempt { after: Duration::from_mins(30) };

fn error(code: &str) -> String {
    json!({ "timeStamp": "2026-01-05 08:00:00", "message": "as documented", "path": "/topups-async",
            "errorCode": code, "infoLink": null, "details": [] })
    .to_string()
}

fn transaction(status: &str) -> String {
    format!(
        r#"{{"transactionId":12345,"status":"{status}","operatorTransactionId":null,
        "customIdentifier":"{REFERENCE}","recipientPhone":"8613800000042","requestedAmount":7.1,
        "requestedAmountCurrencyCode":"USD","deliveredAmount":50.00000,"deliveredAmountCurrencyCode":"CNY"}}"#
    )
}

fn status(status: &str) -> String {
    format!(r#"{{"code":null,"message":null,"status":"{status}","transaction":{}}}"#, transaction(status))
}

fn report(transactions: &[String]) -> String {
    let size = transactions.len();
    format!(r#"{{"content":[{}],"totalElements":{size},"last":true}}"#, transactions.join(","))
}

fn receipt() -> Receipt {
    let delivered = Some(Money { minor: 5_000, currency: Currency::parse("CNY").unwrap() });
    Receipt { provider_ref: Some("12345".to_owned()), delivered, delivered_at: None }
}

fn known() -> QueryKey {
    QueryKey { provider_ref: Some("12345".to_owned()), ..question() }
}

async fn asked_by_its_number(http: &str, body: &str) -> QueryOutcome {
    let peer = CONTENDER.peer(answer(http, "", body)).await;
    CONTENDER.provider(&peer.base_url()).query(&known()).await
}

#[tokio::test]
async fn a_submit_is_the_documented_request_with_the_token_of_all_calls() {
    let peer = CONTENDER.peer(answer("200 OK", "", r#"{"transactionId":12345}"#)).await;
    let provider = CONTENDER.provider(&peer.base_url());
    assert_eq!(provider.connect(1).await, 1);
    let login = last_body(&peer);
    let base = peer.base_url();
    let expected = json!({
        "client_id": "our-account", "client_secret": "canary-secret", "grant_type": "client_credentials",
        "audience": base.trim_end_matches('/'),
    });
    assert_eq!(login, expected);
    let outcome = provider.submit(&order()).await;
    assert_eq!(outcome, SubmitOutcome::Accepted { provider_ref: Some("12345".to_owned()) });
    let (line, headers) = last_head(&peer);
    assert_eq!(line, "POST /api/topups-async HTTP/1.1");
    assert!(headers.contains("authorization: Bearer canary-token\r\n"), "{headers}");
    assert!(headers.contains("accept: application/com.reloadly.topups-v1+json\r\n"), "{headers}");
    let expected = json!({
        "operatorId": 4001, "amount": 50, "useLocalAmount": true, "customIdentifier": REFERENCE,
        "recipientPhone": { "countryCode": "CN", "number": "+8613800000042" },
    });
    assert_eq!(last_body(&peer), expected);
    let (msisdn, currency) = (Msisdn::from_e164("+6591234567").unwrap(), Currency::parse("SGD").unwrap());
    provider.submit(&SubmitRequest { msisdn, amount: Money { minor: 475, currency }, ..order() }).await;
    let text = peer.texts().pop().unwrap();
    assert!(text.contains(r#""amount":4.75"#) && text.contains(r#""countryCode":"SG""#), "{text}");
    let logins = peer.texts().iter().filter(|text| text.contains("/oauth/token")).count();
    assert_eq!(logins, 1, "one token for all");
}

#[tokio::test]
async fn a_question_is_put_by_our_reference_until_their_number_is_known() {
    let peer = CONTENDER.peer(answer("200 OK", "", &report(&[transaction("PROCESSING")]))).await;
    let provider = CONTENDER.provider(&peer.base_url());
    assert_eq!(provider.query(&question()).await, QueryOutcome::InProgress);
    let line = last_head(&peer).0;
    assert_eq!(line, format!("GET /api/topups/reports/transactions?customIdentifier={REFERENCE} HTTP/1.1"));
    provider.query(&known()).await;
    assert_eq!(last_head(&peer).0, "GET /api/topups/12345/status HTTP/1.1");
}

#[tokio::test]
async fn every_documented_status_has_its_meaning() {
    let failed = |code: &str| QueryOutcome::Failed(failure(ProviderDeclared, code, HALF_AN_HOUR));
    for (word, outcome) in [
        ("PROCESSING", QueryOutcome::InProgress),
        ("PENDING", QueryOutcome::InProgress),
        ("SUCCESSFUL", QueryOutcome::Succeeded(receipt())),
        ("FAILED", failed("FAILED")),
        ("REFUNDED", failed("REFUNDED")),
        ("ESCALATED", QueryOutcome::Unavailable { retry_after: None }),
    ] {
        assert_eq!(asked_by_its_number("200 OK", &status(word)).await, outcome, "{word}");
        let reported = CONTENDER.query_answered("200 OK", "", &report(&[transaction(word)])).await;
        assert_eq!(reported, outcome, "{word} in a report");
    }
}

#[tokio::test]
async fn every_documented_error_of_a_submit_has_its_meaning() {
    let rejected = |class, code, advice| SubmitOutcome::Rejected(failure(class, code, advice));
    for (code, outcome) in [
        ("INVALID_RECIPIENT_PHONE", rejected(InvalidRecipient, "INVALID_RECIPIENT_PHONE", Never)),
        ("INVALID_AMOUNT_FOR_OPERATOR", rejected(AmountNotAllowed, "INVALID_AMOUNT_FOR_OPERATOR", Never)),
        ("COUNTRY_NOT_SUPPORTED", rejected(AmountNotAllowed, "COUNTRY_NOT_SUPPORTED", Never)),
        (
            "OPERATOR_UNAVAILABLE_OR_CURRENTLY_INACTIVE",
            rejected(OperatorUnavailable, "OPERATOR_UNAVAILABLE_OR_CURRENTLY_INACTIVE", SOON),
        ),
        (
            "TRANSACTION_CANNOT_BE_PROCESSED_AT_THE_MOMENT",
            rejected(OperatorUnavailable, "TRANSACTION_CANNOT_BE_PROCESSED_AT_THE_MOMENT", SOON),
        ),
        ("INSUFFICIENT_BALANCE", rejected(InsufficientFloat, "INSUFFICIENT_BALANCE", AfterOperatorAction)),
        (
            "MAX_DAILY_TRANSACTION_AMOUNT_REACHED",
            rejected(LimitReached, "MAX_DAILY_TRANSACTION_AMOUNT_REACHED", AfterOperatorAction),
        ),
        ("PHONE_RECENTLY_RECHARGED", rejected(CooldownActive, "PHONE_RECENTLY_RECHARGED", Never)),
        ("CUSTOM_IDENTIFIER_ALREADY_USED", SubmitOutcome::Duplicate),
    ] {
        for http in ["400 Bad Request", "500 Internal Server Error"] {
            assert_eq!(CONTENDER.submit_answered(http, "", &error(code)).await, outcome, "{code} {http}");
        }
    }
}

#[tokio::test]
async fn a_report_that_holds_nothing_is_not_found_and_one_that_holds_others_proves_nothing() {
    assert_eq!(CONTENDER.query_answered("200 OK", "", &report(&[])).await, QueryOutcome::NotFound);
    let stranger = report(&[transaction("SUCCESSFUL").replace(REFERENCE, "somebody-elses")]);
    let outcome = CONTENDER.query_answered("200 OK", "", &stranger).await;
    assert_eq!(outcome, QueryOutcome::Unavailable { retry_after: None });
    let outcome = CONTENDER.query_answered("404 Not Found", "", &report(&[])).await;
    assert_eq!(outcome, QueryOutcome::Unavailable { retry_after: None });
}

#[tokio::test]
async fn a_reply_without_a_number_of_theirs_is_unknown() {
    let outcome = CONTENDER.submit_answered("200 OK", "", "{}").await;
    assert_eq!(outcome, SubmitOutcome::Unknown(UnknownCause::BrokenBody));
    let outcome = CONTENDER.submit_answered("500 Internal Server Error", "", r#"{"transactionId":1}"#).await;
    assert_eq!(outcome, SubmitOutcome::Unknown(UnknownCause::ServerError));
}

#[tokio::test]
async fn a_token_that_has_ended_is_replaced_once_and_the_call_is_made_again() {
    let peer = CONTENDER.peer(answer("401 Unauthorized", "", &error("TOKEN_EXPIRED"))).await;
    let provider = CONTENDER.provider(&peer.base_url());
    let outcome = provider.submit(&order()).await;
    let ours = failure(AuthOrConfig, "TOKEN_EXPIRED", AfterOperatorAction);
    assert_eq!(outcome, SubmitOutcome::Rejected(ours), "also the new one was refused");
    let calls = |text: &str| peer.texts().iter().filter(|request| request.contains(text)).count();
    assert_eq!((calls("/oauth/token"), calls("/topups-async")), (2, 2));
}

#[tokio::test]
async fn many_calls_that_want_a_token_at_once_get_one_between_them() {
    let script = [("/oauth/token".to_owned(), answer("200 OK", "", TOKEN))];
    let other = (String::new(), answer("200 OK", "", r#"{"transactionId":12345}"#));
    let peer = Peer::start(Script::ByLine(script.into_iter().chain([other]).collect())).await;
    let provider: Arc<dyn RechargeProvider> = CONTENDER.provider(&peer.base_url());
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let provider = Arc::clone(&provider);
        calls.spawn(async move { provider.submit(&order()).await });
    }
    while let Some(outcome) = calls.join_next().await {
        assert!(matches!(outcome.unwrap(), SubmitOutcome::Accepted { .. }));
    }
    let logins = peer.texts().iter().filter(|text| text.contains("/oauth/token")).count();
    assert_eq!(logins, 1);
}

#[tokio::test]
async fn without_a_token_nothing_is_claimed_and_nothing_leaves() {
    let script = Script::ByLine(vec![("/oauth/token".to_owned(), answer("401 Unauthorized", "", "{}"))]);
    let peer = Peer::start(script).await;
    let provider = CONTENDER.provider(&peer.base_url());
    assert_eq!(provider.connect(5).await, 0);
    let outcome = provider.submit(&order()).await;
    assert_eq!(outcome, SubmitOutcome::NotSent(NotSentCause::Connect));
    assert_eq!(provider.query(&question()).await, QueryOutcome::Unavailable { retry_after: None });
    let logins = peer.seen.requests.load(SeqCst);
    assert!(logins <= 3, "a login that fails is not tried at every call: {logins}");
}

#[tokio::test]
async fn tokens_may_be_had_elsewhere() {
    let auth = CONTENDER.peer(answer("404 Not Found", "", "")).await;
    let answered = Script::ByLine(vec![(String::new(), answer("200 OK", "", r#"{"transactionId":12345}"#))]);
    let api = Peer::start(answered).await;
    let mut settings = CONTENDER.settings(&api.base_url());
    settings.auth_url = Some(auth.base_url().parse().unwrap());
    let outcome = provider_with(&settings).submit(&order()).await;
    assert!(matches!(outcome, SubmitOutcome::Accepted { .. }), "{outcome:?}");
    until("the login went to its own address", || auth.requests() == 1).await;
    assert!(api.texts().iter().all(|text| !text.contains("oauth")));
}
