//! What the log costs: three entries are written per order, and each is durable storage twice.

use super::*;
use crate::domain::money::Money;
use crate::domain::msisdn::{Msisdn, Recipient};

fn at(micros: i64) -> Timestamp {
    Timestamp::from_timestamp_micros(1_790_000_000_000_000 + micros).unwrap()
}

/// An order as a shop sends it, with everything but metadata.
fn typical() -> Order {
    Order {
        order_id: OrderId::parse("ord-20260921-00000042").unwrap(),
        version: 1,
        state: State::Queued,
        asked_version: 1,
        recipient: Recipient::Valid(Msisdn::from_e164("+8613800000001").unwrap()),
        amount: Money { minor: 5000, currency: Currency::parse("CNY").unwrap() },
        carrier: Some("cmcc".into()),
        created_at: at(0),
        paid_at: Some(at(1)),
        payment_id: Some("pay-0123456789abcdef".into()),
        notify: false,
        metadata: None,
        deadline_at: at(180_000_001),
        provider: Some(ProviderId::new("primary")),
        attempt: None,
        declined: 0,
        wake_at: None,
        reason: None,
        sla: None,
        closed_at: None,
        refund_requested: false,
        refund_id: None,
        cases: 0,
    }
}

fn claimed(before: &Order) -> Order {
    let attempt = Attempt {
        number: 1,
        state: AttemptState::Sent,
        client_ref: ClientRef::in_clear(&before.order_id, 1),
        claim_id: ClaimId::random(),
        claimed_at: at(50_000),
        provider_ref: None,
        inquiry: Inquiry::default(),
    };
    Order { version: 2, state: State::InFlight, attempt: Some(attempt), ..before.clone() }
}

fn size(data: &EventData) -> usize {
    serde_json::to_vec(data).unwrap().len()
}

#[test]
fn the_three_entries_of_an_ordinary_order_stay_small() {
    let queued = typical();
    let submitted = claimed(&queued);
    let mut succeeded = Order { version: 3, state: State::Succeeded, sla: Some(Sla::Met), ..submitted.clone() };
    let attempt = succeeded.attempt.as_mut().unwrap();
    attempt.state = AttemptState::Succeeded;
    attempt.provider_ref = Some("250312345678".to_owned());

    let mut first = EventData::of_move(None, &queued);
    first.facts.as_mut().unwrap().phone_hash = Some("x".repeat(22).into());
    let sizes = [
        size(&first),
        size(&EventData::of_move(Some(&queued), &submitted)),
        size(&EventData::of_move(Some(&submitted), &succeeded)),
    ];
    println!("queued {}, submitted {}, succeeded {} bytes", sizes[0], sizes[1], sizes[2]);
    assert!(sizes[0] <= 260 && sizes[1] <= 190 && sizes[2] <= 130, "{sizes:?}");
}

#[test]
fn a_claim_tells_its_reference_whether_it_is_readable_or_a_hash() {
    let queued = typical();
    for reference in [ClientRef::in_clear(&queued.order_id, 1), ClientRef::from_stored("R0123456789ABCDEF")] {
        let mut after = claimed(&queued);
        after.attempt.as_mut().unwrap().client_ref = reference.clone();
        let data = EventData::of_move(Some(&queued), &after);
        let event =
            LoggedEvent { order_id: after.order_id.clone(), version: 2, kind: EventType::Submitted, at: at(0), data };
        assert_eq!(event.client_ref(), Some(reference));
    }
}

#[test]
fn news_of_an_attempt_is_published_as_the_state_it_confirms() {
    for (state, public) in [
        (State::InFlight, EventType::Submitted),
        (State::InDoubt, EventType::InDoubt),
        (State::Succeeded, EventType::Succeeded),
        (State::RetryWait, EventType::RetryScheduled),
    ] {
        assert_eq!(EventType::AttemptUpdated.public(state), public);
    }
    for kind in EventType::ALL.iter().filter(|kind| !kind.is_aside()) {
        assert_eq!(kind.event_type(), format!("recharge.order.{kind}.v1"));
    }
}

#[test]
fn an_entry_is_one_line_whatever_the_shop_writes_and_reads_back_whole_and_borrowed() {
    let mut queued = typical();
    queued.metadata = Some("{\"note\":\"two\nlines, a \\ and a \u{2028}\"}".into());
    queued.order_id = OrderId::parse("a\"b").unwrap_or(queued.order_id);
    let data = EventData::of_move(None, &queued);
    let event = LoggedEvent { order_id: queued.order_id.clone(), version: 1, kind: EventType::Queued, at: at(7), data };
    let line = event.to_line();
    assert_eq!(line.lines().count(), 1);
    assert_eq!(LoggedEvent::from_line(&line).unwrap(), event);
    let told = Announcement::from_line(&line).unwrap();
    assert_eq!((told.order_id.as_ref(), told.version, told.kind), (event.order_id.as_str(), 1, event.kind));
    assert_eq!((told.at, told.state, told.deadline_at), (event.at, event.data.state, event.data.deadline_at));
    assert_eq!(told.metadata.as_deref(), queued.metadata.as_deref());
    assert!(matches!(told.provider, Some(Text(std::borrow::Cow::Borrowed("primary")))), "nothing is copied: {told:?}");
    let error = LoggedEvent::from_line(&line.replace("queued", "kept +8613800000001")).unwrap_err();
    assert!(!format!("{error:?} {error}").contains("138"), "{error:?}");
}

#[test]
fn a_log_with_a_gap_or_without_its_beginning_does_not_replay() {
    let queued = typical();
    let recipient = queued.recipient.clone();
    let entry = |version, before: Option<&Order>, after: &Order| LoggedEvent {
        order_id: after.order_id.clone(),
        version,
        kind: EventType::Queued,
        at: at(0),
        data: EventData::of_move(before, after),
    };
    let first = entry(1, None, &queued);
    assert_eq!(
        replay(&[first.clone(), entry(3, Some(&queued), &queued)], &recipient),
        Err(ReplayError::Gap { after: 1, found: 3 })
    );
    assert_eq!(replay(&[entry(1, Some(&queued), &queued)], &recipient), Err(ReplayError::NoFacts));
    assert_eq!(replay(&[], &recipient), Ok(None));
    assert_eq!(replay(&[first], &recipient), Ok(Some(queued)));
}
