use bytes::Bytes;
use proptest::prelude::*;

use super::*;

fn key() -> PhoneKey {
    PhoneKey::new(b"a key for tests only").unwrap()
}

fn header(name: &str, value: &[u8]) -> RawHeader {
    (Bytes::copy_from_slice(name.as_bytes()), Some(Bytes::copy_from_slice(value)))
}

fn binary(kind: &str) -> Vec<RawHeader> {
    vec![header("ce_specversion", b"1.0"), header("ce_type", kind.as_bytes()), header("ce_id", b"e1")]
}

const ORDER: &str = r#"{"order_id":"o-1","phone":"+8613800000001","amount_minor":5000,"currency":"CNY",
    "created_at":"2026-01-05T08:00:00Z","paid_at":"2026-01-05T08:00:01.5+08:00","payment_id":"p-1",
    "metadata":{"shop":7},"later_field":[1,2]}"#;

fn reason(value: &[u8], headers: &[RawHeader]) -> DeadLetterReason {
    read(Some(value), headers, true, &key()).unwrap_err().reason
}

#[test]
fn the_three_forms_of_one_order_read_alike() {
    let plain = read(Some(ORDER.as_bytes()), &[], true, &key()).unwrap();
    let by_headers = read(Some(ORDER.as_bytes()), &binary("recharge.order.created.v1"), false, &key()).unwrap();
    let structured =
        format!(r#"{{"specversion":"1.0","type":"recharge.order.created.v1","id":"e","source":"s","data":{ORDER}}}"#);
    let content_type = [header("content-type", b"application/cloudevents+json; charset=utf-8")];
    let in_body = read(Some(structured.as_bytes()), &content_type, false, &key()).unwrap();
    assert_eq!(plain, by_headers);
    assert_eq!(plain, in_body);
    let Inbound::Created(order) = plain else { panic!("an order") };
    assert_eq!(order.amount.minor, 5000);
    assert_eq!(order.metadata.as_deref(), Some(r#"{"shop":7}"#));
    assert_eq!(order.paid_at.unwrap().to_rfc3339(), "2026-01-05T00:00:01.500+00:00");
}

#[test]
fn each_kind_of_bad_record_has_its_reason() {
    use DeadLetterReason as R;
    assert_eq!(read(None, &[], true, &key()).unwrap_err().reason, R::NullValue);
    assert_eq!(reason(b"\xff\xfe garbage", &[]), R::Malformed);
    assert_eq!(reason(b"", &[]), R::Malformed);
    assert_eq!(reason(b"{\"order_id\":\"o\"", &[]), R::Malformed);
    assert_eq!(reason(b"[1,2]", &[]), R::Schema);
    assert_eq!(reason(ORDER.replace("5000", "50.5").as_bytes(), &[]), R::Schema);
    assert_eq!(reason(ORDER.replace("5000", "0").as_bytes(), &[]), R::Schema);
    assert_eq!(reason(ORDER.replace("CNY", "yuan").as_bytes(), &[]), R::Schema);
    assert_eq!(reason(ORDER.replace("o-1", "o/1").as_bytes(), &[]), R::Schema);
    assert_eq!(reason(ORDER.replace("2026-01-05T08:00:00Z", "yesterday").as_bytes(), &[]), R::Schema);
    assert_eq!(reason(ORDER.replace("p-1", "p\\u0000").as_bytes(), &[]), R::Schema);
    assert_eq!(reason(&vec![b' '; MAX_VALUE_BYTES + 1], &[]), R::TooLarge);
    assert_eq!(reason(ORDER.as_bytes(), &[header("x", b"\xff")]), R::BadHeaders);
    assert_eq!(reason(ORDER.as_bytes(), &binary("recharge.order.created.v2")), R::UnknownVersion);
    assert_eq!(reason(ORDER.as_bytes(), &binary("recharge.order.exploded.v1")), R::UnknownType);
    assert_eq!(read(Some(ORDER.as_bytes()), &[], false, &key()).unwrap_err().reason, R::UnknownType);
    let large = format!(r#"{{"shop":"{}"}}"#, "x".repeat(MAX_METADATA_BYTES));
    assert_eq!(reason(ORDER.replace(r#"{"shop":7}"#, &large).as_bytes(), &[]), R::Schema);
}

#[test]
fn the_detail_never_quotes_a_value() {
    let wrong = ORDER.replace("\"+8613800000001\"", "8613800000001");
    let unfit = read(Some(wrong.as_bytes()), &[], true, &key()).unwrap_err();
    assert!(!unfit.detail.contains("13800000001"), "{unfit}");
    assert!(unfit.detail.contains("expected a string"), "{unfit}");
    let wrong = ORDER.replace("5000", "\"13800000001\"");
    let unfit = read(Some(wrong.as_bytes()), &[], true, &key()).unwrap_err();
    assert!(!unfit.detail.contains("13800000001"), "{unfit}");
}

#[test]
fn the_detail_names_the_member_the_rule_and_the_form_of_what_stands_there() {
    let detail = |value: &str| read(Some(value.as_bytes()), &[], true, &key()).unwrap_err().detail;
    for (from, to, expected) in [
        ("5000", "\"13800000001\"", "/amount_minor: expected i64, found a text of 11 characters, line 1 column "),
        ("\"+8613800000001\"", "8613800000001", "/phone: expected a string, found a number, line 1 column "),
        ("\"o-1\"", "{\"a\":1}", "/order_id: expected a string, found "),
        (
            "\"2026-01-05T08:00:00Z\"",
            "\"13800000001\"",
            "/created_at: a value of another form than the schema asks, found a text of 11 characters, line 2 column ",
        ),
        ("\"p-1\"", "[1]", "/payment_id: expected "),
        ("o-1", "o/1", "/order_id: "),
        ("CNY", "yuan", "/currency: "),
        ("5000", "0", "/amount_minor: an amount is at least"),
        ("p-1", "p\\u0000", "/payment_id: at most 128 characters"),
        ("\"phone\":\"+8613800000001\",", "", "/phone: is missing"),
        ("{\"order_id\"", "{\"order_id\":\"x\",\"order_id\"", "/order_id: stands twice, line 1 column "),
    ] {
        let told = detail(&ORDER.replacen(from, to, 1));
        assert!(told.starts_with(expected), "{told}, not {expected}");
        assert!(!told.contains("1380000"), "{told}");
    }
    assert_eq!(detail("[1"), "not JSON, line 1 column 2");
}

#[test]
fn a_paid_order_with_an_unusable_number_is_still_an_order() {
    let odd = ORDER.replace("+8613800000001", "not a number");
    let Inbound::Created(order) = read(Some(odd.as_bytes()), &[], true, &key()).unwrap() else { panic!("an order") };
    assert_eq!(order.recipient.msisdn(), None);
    assert_eq!(order.phone_hash, None);
}

#[test]
fn metadata_that_some_reader_of_its_events_refuses_is_refused_at_once() {
    let with = |metadata: &str| read(Some(ORDER.replace(r#"{"shop":7}"#, metadata).as_bytes()), &[], true, &key());
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    for good in [r#"{"a":[1,-2.5e3,"\ud83d\ude00",null,true]}"#, "7", &nested(32), &format!("[{}1]", "[],".repeat(99))]
    {
        assert!(with(good).is_ok(), "{good}");
    }
    for bad in [r#"{"a":"\ud800"}"#, r#"{"\ud800":1}"#, "1e999", &nested(33)] {
        let unfit = with(bad).unwrap_err();
        assert_eq!(unfit.reason, DeadLetterReason::Schema, "{bad}");
        assert!(unfit.detail.starts_with("/metadata: nested deeper"), "{unfit}");
    }
}

#[test]
fn payments_cancellations_and_refunds_are_read() {
    let kind = |name: &str| binary(&format!("recharge.{name}.v1"));
    let paid = br#"{"order_id":"o","paid_at":"2026-01-05T08:00:00Z"}"#;
    assert!(matches!(read(Some(paid), &kind("order.paid"), false, &key()), Ok(Inbound::Paid { .. })));
    let cancelled = br#"{"order_id":"o","reason":"changed my mind"}"#;
    assert!(matches!(read(Some(cancelled), &kind("order.cancelled"), false, &key()), Ok(Inbound::Cancelled { .. })));
    let refunded = br#"{"order_id":"o","refund_id":"r","at":"2026-01-05T08:00:00Z"}"#;
    let read = read(Some(refunded), &kind("refund.confirmed"), false, &key());
    assert!(matches!(read, Ok(Inbound::RefundConfirmed { .. })));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused_without_a_panic(
        value in proptest::collection::vec(any::<u8>(), 0..400),
        name in proptest::collection::vec(any::<u8>(), 0..20),
        content in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
        plain in any::<bool>(),
    ) {
        let headers = [(Bytes::from(name), content.map(Bytes::from))];
        let _outcome = read(Some(&value), &headers, plain, &key());
    }

    #[test]
    fn a_damaged_order_is_read_or_refused_without_a_panic(at in 0_usize..300, byte in any::<u8>()) {
        let mut value = ORDER.as_bytes().to_vec();
        if let Some(slot) = value.get_mut(at) {
            *slot = byte;
        }
        let _outcome = read(Some(&value), &[], true, &key());
    }
}
