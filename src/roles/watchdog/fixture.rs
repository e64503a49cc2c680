//! An order and the rules, for the tests of the nets.

use std::collections::HashMap;
use std::time::Duration;

use crate::domain::{
    Attempt, AttemptState, Capabilities, ClaimId, ClientRef, Currency, DuplicateSemantics, Inquiry, Money, OnUnknown,
    Order, OrderId, Policy, ProviderId, ProviderPolicy, Recipient, RefFormat, State, Timestamp,
};

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000 + second, 0).unwrap()
}

pub(super) fn policy() -> Policy {
    let capabilities = Capabilities {
        duplicates: DuplicateSemantics::RejectsAlways,
        query_not_before: Duration::ZERO,
        query_min_interval: Duration::ZERO,
        query_retention: Duration::from_hours(20),
        not_found_grace: Duration::from_mins(1),
        same_number_cooldown: None,
        client_ref: RefFormat { max_len: 64, alphanumeric_only: false },
        call_timeout: Duration::from_secs(15),
        callback_settles: false,
    };
    let provider =
        ProviderPolicy { capabilities, expected_service: Duration::from_secs(2), send_window: Duration::from_secs(1) };
    Policy {
        sla: Duration::from_mins(3),
        unpaid_timeout: Duration::from_mins(30),
        notify_after: Duration::from_mins(1),
        notify_at_end: false,
        refund_confirm_within: Some(Duration::from_hours(24)),
        on_unknown: OnUnknown::Hold,
        reconcile_within: Duration::from_hours(24),
        max_attempts: 3,
        backoff_first: Duration::from_secs(1),
        backoff_max: Duration::from_secs(30),
        providers: HashMap::from([(ProviderId::new("lane"), provider)]),
        routes: std::sync::Arc::default(),
        shut: Vec::new(),
    }
}

/// Paid at second 0.
pub(super) fn order(state: State, attempt: Option<AttemptState>, wake_at: Option<i64>) -> Order {
    let order_id = OrderId::parse("o-1").unwrap();
    let attempt = attempt.map(|state| Attempt {
        number: 1,
        state,
        client_ref: ClientRef::in_clear(&order_id, 1),
        claim_id: ClaimId::random(),
        claimed_at: at(100),
        provider_ref: None,
        inquiry: Inquiry::default(),
    });
    Order {
        order_id,
        version: 3,
        state,
        asked_version: 3,
        recipient: Recipient::read("+8613800000017", None),
        amount: Money { minor: 5_000, currency: Currency::parse("CNY").unwrap() },
        carrier: None,
        created_at: at(0),
        paid_at: Some(at(0)),
        payment_id: None,
        notify: false,
        metadata: None,
        deadline_at: at(180),
        provider: Some(ProviderId::new("lane")),
        attempt,
        declined: 0,
        wake_at: wake_at.map(at),
        reason: None,
        sla: None,
        closed_at: None,
        refund_requested: false,
        refund_id: None,
        cases: 0,
    }
}
