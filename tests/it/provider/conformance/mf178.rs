//! mf178, by its purchasing API for merchants.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use md5::{Digest as _, Md5};
use recharged::domain::{
    FailureClass, Msisdn, QueryOutcome, Receipt, RetryAdvice, SubmitOutcome, Timestamp, UnknownCause,
};
use recharged::ports::{QueryKey, SubmitRequest};
use recharged::providers::ProviderKind;
use serde_json::{Value, json};

use super::super::peer::answer;
use super::{Contender, REFERENCE, SECRET, failure, last_body, last_head, order, question};
use FailureClass::{AuthOrConfig, InsufficientFloat, InvalidRecipient, OperatorUnavailable, ProviderDeclared};
use RetryAdvice::{AfterOperatorAction, Never};

pub(super) const CONTENDER: Contender =
    Contender { kind: ProviderKind::Mf178, before: &[], undocumented: ("200 OK", r#"{"code":10999,"message":"new"}"#) };

const SOON: RetryAdvice = RetryAdvice::NewAttempt { after: Duration::from_secs(5) };
const ID: &str = "25031400001";

/// An order in some state, as both calls answer.
fn in_state(state: i64) -> String {
    format!(
        r#"{{"code":0,"message":"ok","data":{{"order_id":"{ID}","third_id":"{REFERENCE}","state":{state},
        "cost":"49.50","voucher":null,"rsp_info":"","new_field":1}}}}"#
    )
}

fn coded(code: i64) -> String {
    json!({ "code": code, "message": "as documented", "data": null }).to_string()
}

fn receipt() -> Receipt {
    Receipt { provider_ref: Some(ID.to_owned()), delivered: None, delivered_at: None }
}

/// The signature as the document spells it, of a body that was sent.
fn signature_of(body: &Value) -> String {
    let fields = body.as_object().unwrap().iter().filter(|(name, _)| !["sign", "datas"].contains(&name.as_str()));
    let sorted: BTreeMap<&String, String> =
        fields.map(|(name, value)| (name, value.as_str().map_or_else(|| value.to_string(), str::to_owned))).collect();
    let mut text = String::new();
    for (name, value) in sorted {
        write!(text, "{name}{value}").unwrap();
    }
    let hash = Md5::digest(format!("{text}{SECRET}"));
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_submit_is_the_documented_request_signed_over_all_its_parameters() {
    let peer = CONTENDER.peer(answer("200 OK", "", &in_state(1))).await;
    let request = SubmitRequest { sent_at: Timestamp::from_timestamp(1_767_600_000, 0).unwrap(), ..order() };
    let outcome = CONTENDER.provider(&peer.base_url()).submit(&request).await;
    assert_eq!(outcome, SubmitOutcome::Accepted { provider_ref: Some(ID.to_owned()) });
    assert_eq!(last_head(&peer).0, "POST /api/api/merchant/upload_order HTTP/1.1");
    let body = last_body(&peer);
    let expected = json!({
        "app_key": "our-account", "timestamp": 1_767_600_000, "miniunit_id": 4001, "third_id": REFERENCE,
        "call_back_url": "https://us.example/cb", "datas": { "target": "13800000042" }, "sign": signature_of(&body),
    });
    assert_eq!(body, expected);
    assert!(!peer.texts()[0].contains(SECRET));
}

#[tokio::test]
async fn a_question_by_our_reference_names_the_second_of_its_submit() {
    let peer = CONTENDER.peer(answer("200 OK", "", &in_state(11))).await;
    let provider = CONTENDER.provider(&peer.base_url());
    let key = QueryKey { sent_at: Timestamp::from_timestamp(1_767_600_000, 999_000_000).unwrap(), ..question() };
    assert_eq!(provider.query(&key).await, QueryOutcome::InProgress);
    assert_eq!(last_head(&peer).0, "POST /api/api/merchant/order_info HTTP/1.1");
    let body = last_body(&peer);
    assert_eq!((&body["third_id"], &body["time"]), (&json!(REFERENCE), &json!(1_767_600_000)));
    assert_eq!(body["sign"], json!(signature_of(&body)));
    assert!(body["timestamp"].as_i64().unwrap() > 1_767_600_000, "the time of the question is its own");

    provider.query(&QueryKey { provider_ref: Some(ID.to_owned()), ..key }).await;
    let body = last_body(&peer);
    assert_eq!(body["order_id"], json!(ID));
    assert!(body.get("third_id").is_none() && body.get("time").is_none());
    assert_eq!(body["sign"], json!(signature_of(&body)));
}

#[tokio::test]
async fn every_documented_state_has_its_meaning() {
    let accepted = SubmitOutcome::Accepted { provider_ref: Some(ID.to_owned()) };
    let failed = |state: i64| failure(ProviderDeclared, &format!("state_{state}"), SOON);
    for (state, submit, query) in [
        (1, accepted.clone(), QueryOutcome::InProgress),
        (2, accepted.clone(), QueryOutcome::InProgress),
        (11, accepted.clone(), QueryOutcome::InProgress),
        (12, accepted.clone(), QueryOutcome::InProgress),
        (3, SubmitOutcome::Succeeded(receipt()), QueryOutcome::Succeeded(receipt())),
        (4, SubmitOutcome::Rejected(failed(4)), QueryOutcome::Failed(failed(4))),
        (6, SubmitOutcome::Rejected(failed(6)), QueryOutcome::Failed(failed(6))),
        // Looked into by hand: nobody may take it for an end.
        (41, accepted, QueryOutcome::ProviderUnknown),
        (5, SubmitOutcome::Unknown(UnknownCause::UnmappedCode), QueryOutcome::Unavailable { retry_after: None }),
    ] {
        assert_eq!(CONTENDER.submit_answered("200 OK", "", &in_state(state)).await, submit, "state {state}");
        assert_eq!(CONTENDER.query_answered("200 OK", "", &in_state(state)).await, query, "state {state}");
    }
}

#[tokio::test]
async fn every_documented_code_has_its_meaning_whatever_its_status() {
    let rejected = |class, code: i64, advice| SubmitOutcome::Rejected(failure(class, &code.to_string(), advice));
    let unavailable = QueryOutcome::Unavailable { retry_after: None };
    for (code, submit, query) in [
        (10_001, rejected(AuthOrConfig, 10_001, AfterOperatorAction), unavailable.clone()),
        (10_002, rejected(AuthOrConfig, 10_002, AfterOperatorAction), unavailable.clone()),
        (10_003, rejected(AuthOrConfig, 10_003, AfterOperatorAction), unavailable.clone()),
        (10_004, rejected(AuthOrConfig, 10_004, AfterOperatorAction), unavailable.clone()),
        (10_005, rejected(AuthOrConfig, 10_005, AfterOperatorAction), unavailable.clone()),
        (10_006, rejected(AuthOrConfig, 10_006, AfterOperatorAction), unavailable.clone()),
        (10_010, SubmitOutcome::Duplicate, unavailable.clone()),
        (10_011, rejected(InsufficientFloat, 10_011, AfterOperatorAction), unavailable.clone()),
        (10_012, rejected(OperatorUnavailable, 10_012, SOON), unavailable.clone()),
        (10_013, SubmitOutcome::Unknown(UnknownCause::ServerError), unavailable.clone()),
        (10_014, rejected(InvalidRecipient, 10_014, Never), unavailable),
        (10_015, SubmitOutcome::Unknown(UnknownCause::UnmappedCode), QueryOutcome::NotFound),
        (10_016, SubmitOutcome::Throttled { retry_after: None }, QueryOutcome::Throttled { retry_after: None }),
    ] {
        assert_eq!(CONTENDER.submit_answered("200 OK", "", &coded(code)).await, submit, "{code}");
        assert_eq!(CONTENDER.query_answered("200 OK", "", &coded(code)).await, query, "{code}");
    }
}

#[tokio::test]
async fn an_order_of_another_reference_or_none_at_all_is_no_answer() {
    let stranger = in_state(3).replace(REFERENCE, "somebody-elses");
    for body in [stranger.as_str(), r#"{"code":0,"message":"ok"}"#, r#"{"code":0,"data":{}}"#] {
        let outcome = CONTENDER.submit_answered("200 OK", "", body).await;
        assert_eq!(outcome, SubmitOutcome::Unknown(UnknownCause::BrokenBody), "{body}");
        let outcome = CONTENDER.query_answered("200 OK", "", body).await;
        assert_eq!(outcome, QueryOutcome::Unavailable { retry_after: None }, "{body}");
    }
}

#[tokio::test]
async fn a_number_of_another_country_is_refused_before_anything_leaves() {
    let peer = CONTENDER.peer(answer("200 OK", "", &in_state(1))).await;
    let request = SubmitRequest { msisdn: Msisdn::from_e164("+6591234567").unwrap(), ..order() };
    let outcome = CONTENDER.provider(&peer.base_url()).submit(&request).await;
    assert_eq!(outcome, SubmitOutcome::Rejected(failure(InvalidRecipient, "not_of_mainland_china", Never)));
    assert_eq!(peer.requests(), 0);
}
