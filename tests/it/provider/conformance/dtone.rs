//! DT One DVS, by the replies that its specification 1.14.0 documents.

use std::time::Duration;

use recharged::domain::{
    Currency, Failure, FailureClass, Money, Msisdn, QueryOutcome, Receipt, RetryAdvice, SubmitOutcome, UnknownCause,
};
use recharged::ports::{QueryKey, RechargeProvider, SubmitRequest};
use recharged::providers::ProviderKind;
use serde_json::{Value, json};

use super::super::peer::{Peer, Script, answer};
use super::super::provider_with;
use super::{Contender, REFERENCE, failure, last_body, last_head, order, question};
use FailureClass::{
    AmountNotAllowed, AuthOrConfig, Cancelled, CooldownActive, InsufficientFloat, InvalidRecipient, LimitReached,
    OperatorUnavailable, ProviderDeclared, RecipientBarred,
};
use RetryAdvice::{AfterOperatorAction, Never};

pub(super) const CONTENDER: Contender = Contender {
    kind: ProviderKind::Dtone,
    before: &[],
    undocumented: ("400 Bad Request", r#"{"errors":[{"code":1999999,"message":"New"}]}"#),
};

const SOON: RetryAdvice = RetryAdvice::NewAttempt { after: Duration::from_secs(5) };
const ID: &str = "2188600123";

/// A transaction as the specification's example has it, of some status.
pub(super) fn transaction(class: &str, message: &str) -> String {
    format!(
        r#"{{"id":2188600123,"external_id":"{REFERENCE}","creation_date":"2026-01-05T08:00:00.000000000Z",
        "confirmation_expiration_date":"2026-01-05T09:00:00.000000000Z","confirmation_date":"2026-01-05T08:00:00.1Z",
        "status":{{"id":20000,"message":"{message}","class":{{"id":2,"message":"{class}"}}}},
        "operator_reference":null,"pin":null,"product":{{"id":4001,"name":"50 CNY","regions":null}},
        "prices":{{"wholesale":{{"unit_type":"CURRENCY","unit":"USD","amount":7.10,"fee":0}},"retail":null}},
        "rates":{{"base":0.14}},"promotions":null,"requested_values":null,"adjusted_values":null,
        "benefits":[{{"type":"CREDITS","unit_type":"CURRENCY","unit":"CNY","additional_information":null,
          "amount":{{"base":50,"promotion_bonus":5.5,"total_excluding_tax":55.5}}}},
          {{"type":"DATA","unit_type":"DATA","unit":"MB","amount":{{"base":100,"promotion_bonus":0}}}}],
        "credit_party_identifier":{{"mobile_number":"+8613800000042"}},"a_field_of_tomorrow":[1]}}"#
    )
}

fn errors(codes: &[u64]) -> String {
    let errors: Vec<Value> = codes.iter().map(|code| json!({"code": code, "message": "As documented"})).collect();
    json!({ "errors": errors }).to_string()
}

fn receipt() -> Receipt {
    let delivered = Some(Money { minor: 5_000, currency: Currency::parse("CNY").unwrap() });
    Receipt { provider_ref: Some(ID.to_owned()), delivered, delivered_at: None }
}

fn known(key: QueryKey) -> QueryKey {
    QueryKey { provider_ref: Some(ID.to_owned()), ..key }
}

#[tokio::test]
async fn a_submit_is_the_documented_request() {
    let peer = CONTENDER.peer(answer("201 Created", "", &transaction("CONFIRMED", "CONFIRMED"))).await;
    let provider = CONTENDER.provider(&peer.base_url());
    let outcome = provider.submit(&order()).await;
    assert_eq!(outcome, SubmitOutcome::Accepted { provider_ref: Some(ID.to_owned()) });
    let (line, headers) = last_head(&peer);
    assert_eq!(line, "POST /api/async/transactions HTTP/1.1");
    // printf 'our-account:canary-secret' | base64
    assert!(headers.contains("authorization: Basic b3VyLWFjY291bnQ6Y2FuYXJ5LXNlY3JldA==\r\n"), "{headers}");
    assert!(headers.contains("content-type: application/json\r\n"), "{headers}");
    let expected = json!({
        "external_id": REFERENCE, "product_id": 4001, "auto_confirm": true, "callback_url": "https://us.example/cb",
        "credit_party_identifier": { "mobile_number": "+8613800000042" },
    });
    assert_eq!(last_body(&peer), expected);

    let (msisdn, currency) = (Msisdn::from_e164("+6591234567").unwrap(), Currency::parse("SGD").unwrap());
    let ranged = SubmitRequest { msisdn, amount: Money { minor: 475, currency }, callback_url: None, ..order() };
    provider.submit(&ranged).await;
    let text = peer.texts().pop().unwrap();
    assert!(text.contains(r#""calculation_mode":"DESTINATION_AMOUNT""#), "{text}");
    assert!(text.contains(r#""destination":{"unit_type":"CURRENCY","unit":"SGD","amount":4.75}"#), "{text}");
    assert!(!text.contains("callback_url"));
}

#[tokio::test]
async fn a_question_is_put_by_our_reference_until_theirs_is_known() {
    let peer = CONTENDER.peer(answer("200 OK", "", &format!("[{}]", transaction("SUBMITTED", "SUBMITTED")))).await;
    let provider = CONTENDER.provider(&peer.base_url());
    assert_eq!(provider.query(&question()).await, QueryOutcome::InProgress);
    assert_eq!(last_head(&peer).0, format!("GET /api/transactions?external_id={REFERENCE} HTTP/1.1"));
    provider.query(&known(question())).await;
    assert_eq!(last_head(&peer).0, format!("GET /api/transactions/{ID} HTTP/1.1"));
}

#[tokio::test]
async fn the_class_of_a_transaction_decides() {
    let accepted = SubmitOutcome::Accepted { provider_ref: Some(ID.to_owned()) };
    for (class, submit, query) in [
        ("CREATED", accepted.clone(), QueryOutcome::InProgress),
        ("CONFIRMED", accepted.clone(), QueryOutcome::InProgress),
        ("SUBMITTED", accepted, QueryOutcome::InProgress),
        ("COMPLETED", SubmitOutcome::Succeeded(receipt()), QueryOutcome::Succeeded(receipt())),
        ("REVERSED", SubmitOutcome::Unknown(UnknownCause::UnmappedCode), QueryOutcome::Reversed(receipt())),
        (
            "ARCHIVED",
            SubmitOutcome::Unknown(UnknownCause::UnmappedCode),
            QueryOutcome::Unavailable { retry_after: None },
        ),
    ] {
        // The message in it may be any.
        let body = transaction(class, &format!("{class}-AND-MORE"));
        assert_eq!(CONTENDER.submit_answered("201 Created", "", &body).await, submit, "{class}");
        assert_eq!(CONTENDER.query_answered("200 OK", "", &body).await, query, "{class}");
        assert_eq!(CONTENDER.query_answered("200 OK", "", &format!("[{body}]")).await, query, "{class} in a list");
    }
}

#[tokio::test]
async fn every_documented_end_has_its_class() {
    for (message, class, advice) in [
        ("REJECTED", ProviderDeclared, Never),
        ("REJECTED-INVALID-CREDIT-PARTY", InvalidRecipient, Never),
        ("REJECTED-BARRED-CREDIT-PARTY", RecipientBarred, Never),
        ("REJECTED-INELIGIBLE-CREDIT-PARTY", AmountNotAllowed, Never),
        ("REJECTED-INVALID-DEBIT-PARTY", AuthOrConfig, AfterOperatorAction),
        ("REJECTED-BARRED-DEBIT-PARTY", AuthOrConfig, AfterOperatorAction),
        ("REJECTED-LIMITATIONS-ON-CREDIT-PARTY-AMOUNT", LimitReached, Never),
        ("REJECTED-LIMITATIONS-ON-CREDIT-PARTY-QUANTITY", LimitReached, Never),
        ("REJECTED-OPERATOR-CURRENTLY-UNAVAILABLE", OperatorUnavailable, SOON),
        ("REJECTED-INSUFFICIENT-BALANCE", InsufficientFloat, AfterOperatorAction),
        ("DECLINED", ProviderDeclared, Never),
        ("DECLINED-INVALID-CREDIT-PARTY", InvalidRecipient, Never),
        ("DECLINED-BARRED-CREDIT-PARTY", RecipientBarred, Never),
        ("DECLINED-INELIGIBLE-CREDIT-PARTY", AmountNotAllowed, Never),
        ("DECLINED-INVALID-DEBIT-PARTY", AuthOrConfig, AfterOperatorAction),
        ("DECLINED-BARRED-DEBIT-PARTY", AuthOrConfig, AfterOperatorAction),
        ("DECLINED-LIMITATIONS-ON-OPERATOR-AMOUNT", LimitReached, Never),
        ("DECLINED-LIMITATIONS-ON-CREDIT-PARTY-AMOUNT", LimitReached, Never),
        ("DECLINED-LIMITATIONS-ON-CUSTOMER-AMOUNT", LimitReached, Never),
        ("DECLINED-LIMITATIONS-ON-OPERATOR-QUANTITY", LimitReached, Never),
        ("DECLINED-LIMITATIONS-ON-CREDIT-PARTY-QUANTITY", LimitReached, Never),
        ("DECLINED-LIMITATIONS-ON-CUSTOMER-QUANTITY", LimitReached, Never),
        ("DECLINED-DUPLICATED-TRANSACTION", CooldownActive, Never),
        ("DECLINED-OPERATOR-CURRENTLY-UNAVAILABLE", OperatorUnavailable, SOON),
        ("DECLINED-EXCEPTION", ProviderDeclared, Never),
        ("CANCELLED", Cancelled, Never),
    ] {
        let body = transaction(message.split('-').next().unwrap(), message);
        let refused = failure(class, message, advice);
        let outcome = CONTENDER.submit_answered("201 Created", "", &body).await;
        assert_eq!(outcome, SubmitOutcome::Rejected(refused.clone()), "{message}");
        assert_eq!(CONTENDER.query_answered("200 OK", "", &body).await, QueryOutcome::Failed(refused), "{message}");
    }
    // Not delivered, says the class, whatever the message will be called.
    let other = CONTENDER.query_answered("200 OK", "", &transaction("DECLINED", "DECLINED-BY-THE-MOON")).await;
    assert_eq!(other, QueryOutcome::Failed(failure(ProviderDeclared, "DECLINED-OTHER", Never)));
}

#[tokio::test]
async fn every_documented_error_of_a_submit_has_its_meaning_whatever_its_status() {
    let rejected = |class, code: u64, advice| SubmitOutcome::Rejected(failure(class, &code.to_string(), advice));
    for (code, outcome) in [
        (1_000_400, rejected(AuthOrConfig, 1_000_400, AfterOperatorAction)),
        (1_000_401, rejected(AuthOrConfig, 1_000_401, AfterOperatorAction)),
        (1_000_429, SubmitOutcome::Throttled { retry_after: None }),
        (1_003_001, rejected(AmountNotAllowed, 1_003_001, Never)),
        (1_003_002, rejected(AmountNotAllowed, 1_003_002, Never)),
        (1_003_003, rejected(AmountNotAllowed, 1_003_003, Never)),
        (1_005_003, rejected(InvalidRecipient, 1_005_003, Never)),
        (1_005_004, rejected(AuthOrConfig, 1_005_004, AfterOperatorAction)),
        (1_005_005, rejected(AuthOrConfig, 1_005_005, AfterOperatorAction)),
        (1_005_006, rejected(AuthOrConfig, 1_005_006, AfterOperatorAction)),
        (1_006_001, rejected(InsufficientFloat, 1_006_001, AfterOperatorAction)),
        (1_006_009, rejected(AuthOrConfig, 1_006_009, AfterOperatorAction)),
        (1_007_001, SubmitOutcome::Duplicate),
        (1_007_500, rejected(AuthOrConfig, 1_007_500, AfterOperatorAction)),
        (1_009_001, SubmitOutcome::Unknown(UnknownCause::ServerError)),
        (1_009_503, SubmitOutcome::Unknown(UnknownCause::ServerError)),
    ] {
        for status in ["400 Bad Request", "500 Internal Server Error", "200 OK"] {
            assert_eq!(CONTENDER.submit_answered(status, "", &errors(&[code])).await, outcome, "{code} {status}");
        }
    }
    // Of several, the one by which something may have been executed counts.
    let both = CONTENDER.submit_answered("400 Bad Request", "", &errors(&[1_005_003, 1_007_001])).await;
    assert_eq!(both, SubmitOutcome::Duplicate);
    let both = CONTENDER.submit_answered("500 Internal Server Error", "", &errors(&[1_005_003, 1_009_001])).await;
    assert_eq!(both, SubmitOutcome::Unknown(UnknownCause::ServerError));
}

#[tokio::test]
async fn a_submit_is_answered_only_by_a_transaction_of_its_own_reference_and_a_good_status() {
    let stranger = transaction("COMPLETED", "COMPLETED").replace(REFERENCE, "somebody-elses");
    let outcome = CONTENDER.submit_answered("201 Created", "", &stranger).await;
    assert_eq!(outcome, SubmitOutcome::Unknown(UnknownCause::BrokenBody));
    let own = transaction("COMPLETED", "COMPLETED");
    let outcome = CONTENDER.submit_answered("500 Internal Server Error", "", &own).await;
    assert_eq!(outcome, SubmitOutcome::Unknown(UnknownCause::ServerError));
}

#[tokio::test]
async fn nothing_found_is_told_by_an_empty_list_or_its_own_code_and_by_nothing_else() {
    let unavailable = QueryOutcome::Unavailable { retry_after: None };
    let strangers = format!("[{}]", transaction("COMPLETED", "COMPLETED").replace(REFERENCE, "somebody-elses"));
    for (status, body, outcome) in [
        ("200 OK", "[]", QueryOutcome::NotFound),
        ("404 Not Found", &errors(&[1_008_004]), QueryOutcome::NotFound),
        // A wrong address, or a proxy's.
        ("404 Not Found", &errors(&[1_000_404]), unavailable.clone()),
        ("500 Internal Server Error", "[]", unavailable.clone()),
        // It holds others: the search does not search.
        ("200 OK", &strangers, unavailable.clone()),
        ("401 Unauthorized", &errors(&[1_000_401]), unavailable),
        ("429 Too Many Requests", &errors(&[1_000_429]), QueryOutcome::Throttled { retry_after: None }),
    ] {
        assert_eq!(CONTENDER.query_answered(status, "", body).await, outcome, "{status} {body}");
    }
}

#[tokio::test]
async fn the_delivered_amount_is_told_in_minor_units_and_only_where_it_is_clear() {
    let told = |change: &dyn Fn(&mut Value)| {
        let mut body: Value = serde_json::from_str(&transaction("COMPLETED", "COMPLETED")).unwrap();
        change(&mut body);
        let body = body.to_string();
        async move {
            match CONTENDER.query_answered("200 OK", "", &body).await {
                QueryOutcome::Succeeded(receipt) => {
                    receipt.delivered.map(|money| (money.minor, money.currency.to_string()))
                }
                other => panic!("{other:?}"),
            }
        }
    };
    let destination =
        |amount: Value| json!({ "destination": { "unit_type": "CURRENCY", "unit": "SGD", "amount": amount } });
    assert_eq!(told(&|_| {}).await, Some((5_000, "CNY".to_owned())), "without the bonus");
    let told_ranged = told(&|body| body["requested_values"] = destination(json!(4.75))).await;
    assert_eq!(told_ranged, Some((475, "SGD".to_owned())));
    let both = told(&|body| {
        body["requested_values"] = destination(json!(4.75));
        body["adjusted_values"] = destination(json!(4.7));
    });
    assert_eq!(both.await, Some((470, "SGD".to_owned())), "what was adjusted counts");
    assert_eq!(
        told(&|body| body["requested_values"] = destination(json!("4.75"))).await,
        Some((475, "SGD".to_owned()))
    );
    assert_eq!(told(&|body| body["requested_values"] = destination(json!(4.755))).await, None);
    assert_eq!(told(&|body| body["benefits"] = json!(null)).await, None);
    assert_eq!(told(&|body| body["benefits"][0]["unit"] = json!("credits")).await, None);
}

/// Create, then confirm.
async fn two_step(answers: Vec<(&str, Vec<u8>)>) -> (Peer, std::sync::Arc<dyn RechargeProvider>) {
    let answers = answers.into_iter().map(|(line, bytes)| (line.to_owned(), bytes)).collect();
    let peer = Peer::start(Script::ByLine(answers)).await;
    let mut settings = CONTENDER.settings(&peer.base_url());
    settings.two_step = true;
    let provider = provider_with(&settings);
    (peer, provider)
}

fn lines(peer: &Peer) -> Vec<String> {
    let first = |text: &String| text.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
    peer.texts().iter().map(first).collect()
}

#[tokio::test]
async fn in_two_steps_a_transaction_is_created_and_then_confirmed() {
    let confirmed = answer("202 Accepted", "", &transaction("CONFIRMED", "CONFIRMED"));
    let refused = answer("400 Bad Request", "", &errors(&[1_007_002]));
    let broken = answer("502 Bad Gateway", "", "<html>");
    for confirming in [confirmed, refused, broken] {
        let created = answer("201 Created", "", &transaction("CREATED", "CREATED"));
        let (peer, provider) = two_step(vec![("/confirm", confirming), ("POST", created)]).await;
        let outcome = provider.submit(&order()).await;
        // Whatever became of the second step: they have it, and a question tells.
        assert_eq!(outcome, SubmitOutcome::Accepted { provider_ref: Some(ID.to_owned()) });
        let expected =
            ["POST /api/async/transactions".to_owned(), format!("POST /api/async/transactions/{ID}/confirm")];
        assert_eq!(lines(&peer), expected);
        assert!(peer.texts()[0].contains(r#""auto_confirm":false"#));
    }
}

#[tokio::test]
async fn what_was_refused_in_the_first_step_is_not_confirmed() {
    let (peer, provider) = two_step(vec![("POST", answer("400 Bad Request", "", &errors(&[1_005_003])))]).await;
    assert!(matches!(provider.submit(&order()).await, SubmitOutcome::Rejected(_)));
    assert_eq!(peer.requests(), 1);
}

#[tokio::test]
async fn what_a_lost_reply_left_unconfirmed_is_confirmed_when_it_is_asked_about_in_time() {
    let created = answer("200 OK", "", &format!("[{}]", transaction("CREATED", "CREATED")));
    let confirmed = answer("202 Accepted", "", &transaction("CONFIRMED", "CONFIRMED"));
    let (peer, provider) = two_step(vec![("/confirm", confirmed), ("GET", created)]).await;
    assert_eq!(provider.query(&question()).await, QueryOutcome::InProgress);
    assert_eq!(lines(&peer)[1], format!("POST /api/async/transactions/{ID}/confirm"));
}

#[tokio::test]
async fn after_the_deadline_what_is_not_at_the_operator_is_cancelled_and_not_confirmed() {
    let unavailable = answer("503 Service Unavailable", "", "");
    for (cancelling, outcome) in [
        (answer("202 Accepted", "", &transaction("CANCELLED", "CANCELLED")), Some(Cancelled)),
        (answer("400 Bad Request", "", &errors(&[1_007_005])), Some(Cancelled)),
        // It went to the operator meanwhile.
        (answer("400 Bad Request", "", &errors(&[1_007_007])), None),
        (answer("202 Accepted", "", &transaction("CONFIRMED", "CONFIRMED")), None),
        (unavailable, None),
    ] {
        let created = answer("200 OK", "", &transaction("CREATED", "CREATED"));
        let (peer, provider) = two_step(vec![("/cancel", cancelling), ("GET", created)]).await;
        let told = provider.query(&QueryKey { give_up: true, ..known(question()) }).await;
        match outcome {
            Some(class) => {
                assert!(
                    matches!(&told, QueryOutcome::Failed(Failure { class: told, .. }) if *told == class),
                    "{told:?}"
                );
            }
            None => assert_eq!(told, QueryOutcome::InProgress),
        }
        assert_eq!(lines(&peer)[1], format!("POST /api/transactions/{ID}/cancel"));
    }
}

#[tokio::test]
async fn what_is_at_the_operator_is_never_cancelled() {
    for class in ["CONFIRMED", "SUBMITTED", "COMPLETED"] {
        let (peer, provider) = two_step(vec![("GET", answer("200 OK", "", &transaction(class, class)))]).await;
        let told = provider.query(&QueryKey { give_up: true, ..known(question()) }).await;
        assert!(matches!(told, QueryOutcome::InProgress | QueryOutcome::Succeeded(_)), "{told:?}");
        assert_eq!(peer.requests(), 1, "{class}");
    }
}
