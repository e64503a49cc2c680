//! Orders in their states, moved by the domain's own rules.

use std::collections::HashMap;
use std::time::Duration;

use recharged::domain::{
    Capabilities, ClaimId, Currency, Decision, DuplicateSemantics, Failure, FailureClass, Input, Money, NewOrder,
    OnUnknown, Order, OrderId, Policy, ProviderId, ProviderPolicy, QueryOutcome, Reason, Receipt, Recipient, RefFormat,
    RetryAdvice, SubmitOutcome, Timestamp, Transition, UnknownCause, decide,
};
use recharged::ports::{Inserted, Store, Written};

/// A refund as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refunded {
    pub(crate) order_id: String,
    pub(crate) payment_id: Option<String>,
    pub(crate) amount_minor: i64,
    pub(crate) currency: String,
    pub(crate) reason: String,
}

pub(crate) fn lane() -> ProviderId {
    ProviderId::new("primary")
}

pub(crate) fn policy() -> Policy {
    let capabilities = Capabilities {
        duplicates: DuplicateSemantics::RejectsAlways,
        query_not_before: Duration::from_secs(5),
        query_min_interval: Duration::from_secs(10),
        query_retention: Duration::from_hours(72),
        not_found_grace: Duration::from_secs(20),
        same_number_cooldown: None,
        client_ref: RefFormat { max_len: 64, alphanumeric_only: false },
        call_timeout: Duration::from_secs(15),
        callback_settles: true,
    };
    let lane_policy =
        ProviderPolicy { capabilities, expected_service: Duration::from_secs(2), send_window: Duration::from_secs(1) };
    Policy {
        sla: Duration::from_mins(3),
        unpaid_timeout: Duration::from_mins(30),
        notify_after: Duration::from_secs(60),
        notify_at_end: false,
        refund_confirm_within: Some(Duration::from_hours(24)),
        on_unknown: OnUnknown::Hold,
        reconcile_within: Duration::from_hours(72),
        max_attempts: 3,
        backoff_first: Duration::from_secs(1),
        backoff_max: Duration::from_secs(30),
        providers: HashMap::from([(lane(), lane_policy)]),
        routes: std::sync::Arc::default(),
        shut: Vec::new(),
    }
}

pub(crate) fn id(text: &str) -> OrderId {
    OrderId::parse(text).expect("a valid order id")
}

pub(crate) fn new_order(order_id: &str, now: Timestamp) -> NewOrder {
    NewOrder {
        order_id: id(order_id),
        recipient: Recipient::read("+8613800000017", None),
        amount: Money { minor: 5000, currency: Currency::parse("CNY").expect("a currency") },
        carrier: Some("cmcc".into()),
        created_at: now,
        paid_at: Some(now),
        payment_id: Some(format!("pay-{order_id}").into()),
        notify: false,
        metadata: None,
        phone_hash: Some("AAAAAAAAAAAAAAAAAAAAAA".into()),
    }
}

pub(crate) fn applied(decision: Decision) -> Transition {
    match decision {
        Decision::Apply(transition) => *transition,
        Decision::Keep(why) => panic!("the order was kept: {why:?}"),
    }
}

pub(crate) fn arrive(new: NewOrder, now: Timestamp) -> Transition {
    let input = Input::Arrived { new: Box::new(new), verdict: Ok(lane()) };
    applied(decide(None, &input, now, &policy()))
}

/// One that arrives without a hope, at a moment, and is refunded.
pub(crate) fn hopeless(order_id: &str, now: Timestamp) -> Transition {
    arrive_hopeless(new_order(order_id, now), now)
}

pub(crate) fn arrive_hopeless(new: NewOrder, now: Timestamp) -> Transition {
    let input = Input::Arrived { new: Box::new(new), verdict: Err(Reason::InvalidPhone) };
    applied(decide(None, &input, now, &policy()))
}

pub(crate) fn step(order: &Order, input: &Input, now: Timestamp) -> Transition {
    applied(decide(Some(order), input, now, &policy()))
}

pub(crate) fn claim(order: &Order, now: Timestamp) -> Transition {
    step(order, &Input::Claim { claim_id: ClaimId::random() }, now)
}

pub(crate) fn succeed(order: &Order, now: Timestamp) -> Transition {
    let claim_id = order.attempt.as_ref().expect("an attempt").claim_id;
    let receipt = Receipt { provider_ref: Some("P-2026-0001".to_owned()), ..Receipt::default() };
    step(
        order,
        &Input::SubmitReply { attempt: order.attempt_number(), claim_id, outcome: SubmitOutcome::Succeeded(receipt) },
        now,
    )
}

pub(crate) fn into_doubt(order: &Order) -> Transition {
    step(order, &Input::Deadline, order.deadline_at)
}

pub(crate) fn resolve_as_failed(order: &Order, now: Timestamp) -> Transition {
    let (by, evidence) = ("a person".to_owned(), "the provider's statement".to_owned());
    step(order, &Input::Resolved { succeeded: false, by, evidence }, now)
}

/// Anything that may happen to an order, by a number.
pub(crate) fn anything(order: &Order, choice: u32, now: Timestamp) -> Input {
    let (claim_id, attempt) = order.attempt.as_ref().map_or((ClaimId::random(), 1), |at| (at.claim_id, at.number));
    let no = |advice| Failure { class: FailureClass::OperatorUnavailable, code: "E7".to_owned(), advice };
    let again = RetryAdvice::NewAttempt { after: Duration::from_secs(1) };
    let reply = |outcome| Input::SubmitReply { attempt, claim_id, outcome };
    let reported = |outcome| Input::Reported { attempt, asked_at: now, outcome };
    match choice % 16 {
        0..=2 => Input::Claim { claim_id: ClaimId::random() },
        3 => reply(SubmitOutcome::Succeeded(Receipt::default())),
        4 => reply(SubmitOutcome::Accepted { provider_ref: Some("P-1".to_owned()) }),
        5 => reply(SubmitOutcome::Rejected(no(again))),
        6 => reply(SubmitOutcome::Unknown(UnknownCause::Timeout)),
        7 => reply(SubmitOutcome::Throttled { retry_after: Some(Duration::from_secs(2)) }),
        8 => reported(QueryOutcome::NotFound),
        9 => reported(QueryOutcome::Succeeded(Receipt::default())),
        10 => reported(QueryOutcome::Failed(no(RetryAdvice::Never))),
        11 => Input::Deadline,
        12 => Input::Resolved { succeeded: choice.is_multiple_of(2), by: "a person".into(), evidence: "a call".into() },
        13 => Input::RefundConfirmed { refund_id: format!("refund-{}", choice % 2).into(), at: now },
        14 => Input::RefundOverdue,
        _ => Input::Paid { paid_at: now, payment_id: Some("late".into()), verdict: Ok(lane()) },
    }
}

pub(crate) async fn insert_one(store: &dyn Store, transition: &Transition) -> Inserted {
    let mut answers = store.insert(std::slice::from_ref(transition)).await.expect("the insert is done");
    answers.pop().expect("one answer")
}

pub(crate) async fn apply_one(store: &dyn Store, transition: &Transition) -> Written {
    let mut answers = store.apply(std::slice::from_ref(transition)).await.expect("the write is done");
    answers.pop().expect("one answer")
}

pub(crate) async fn load_one(store: &dyn Store, order_id: &OrderId) -> Option<Order> {
    store.load(std::slice::from_ref(order_id)).await.expect("the load is done").pop().expect("one answer").order()
}

/// Inserts a paid order and claims it.
pub(crate) async fn in_flight(store: &dyn Store, order_id: &str) -> Order {
    let now = store.now().await.expect("the store tells the time");
    let arrived = arrive(new_order(order_id, now), now);
    assert_eq!(insert_one(store, &arrived).await, Inserted::Stored);
    let claimed = claim(&arrived.after, now);
    assert_eq!(apply_one(store, &claimed).await, Written::Stored);
    claimed.after
}
