//! Any order that the state machine can make, against anything that a list can say of any of its attempts.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::domain::decide::Why;
use crate::domain::{
    Capabilities, ClaimId, Currency, Decision, DuplicateSemantics, EventType, NewOrder, OnUnknown, OrderId, Policy,
    ProviderId, ProviderPolicy, Recipient, RefFormat, SubmitOutcome, UnknownCause, decide,
};

fn lane() -> ProviderId {
    ProviderId::new("primary")
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(1_790_000_000 + seconds, 0).unwrap()
}

fn cny(minor: i64) -> Money {
    Money { minor, currency: Currency::CNY }
}

fn policy(duplicates: DuplicateSemantics) -> Policy {
    let capabilities = Capabilities {
        duplicates,
        query_not_before: Duration::from_secs(2),
        query_min_interval: Duration::from_secs(5),
        query_retention: Duration::from_hours(24),
        not_found_grace: Duration::from_secs(20),
        same_number_cooldown: None,
        client_ref: RefFormat { max_len: 40, alphanumeric_only: false },
        call_timeout: Duration::from_secs(15),
        callback_settles: false,
    };
    let lane_policy =
        ProviderPolicy { capabilities, expected_service: Duration::from_secs(5), send_window: Duration::from_secs(1) };
    Policy {
        sla: Duration::from_mins(3),
        unpaid_timeout: Duration::from_mins(30),
        notify_after: Duration::from_mins(1),
        notify_at_end: false,
        refund_confirm_within: Some(Duration::from_hours(24)),
        on_unknown: OnUnknown::Hold,
        reconcile_within: Duration::from_hours(72),
        max_attempts: 3,
        backoff_first: Duration::from_secs(1),
        backoff_max: Duration::from_secs(5),
        providers: HashMap::from([(lane(), lane_policy)]),
        routes: std::sync::Arc::default(),
        shut: Vec::new(),
    }
}

/// A life by numbers: whatever happens, right or stale.
fn lived(policy: &Policy, life: &[(u8, u8)]) -> Order {
    let new = NewOrder {
        order_id: OrderId::parse("order-1").unwrap(),
        recipient: Recipient::read("+8613800000001", None),
        amount: cny(5000),
        carrier: None,
        created_at: at(0),
        paid_at: Some(at(0)),
        payment_id: None,
        notify: false,
        metadata: None,
        phone_hash: None,
    };
    let arrived = Input::Arrived { new: Box::new(new), verdict: Ok(lane()) };
    let Decision::Apply(first) = decide(None, &arrived, at(0), policy) else { panic!("it arrives") };
    let (mut order, mut now, mut claims) = (first.after, 0, 0);
    let failed = |advice| Failure { class: FailureClass::OperatorUnavailable, code: "E".to_owned(), advice };
    let again = || failed(RetryAdvice::NewAttempt { after: Duration::ZERO });
    for (choice, pause) in life {
        now += i64::from(*pause);
        let number = order.attempt_number();
        let claim_id = order.attempt.as_ref().map_or(ClaimId(uuid::Uuid::nil()), |attempt| attempt.claim_id);
        let reply = |outcome| Input::SubmitReply { attempt: number, claim_id, outcome };
        let reported = |attempt, outcome| Input::Reported { attempt, asked_at: at(now), outcome };
        let former = number.saturating_sub(1).max(1);
        let receipt = |minor: Option<i64>| Receipt { delivered: minor.map(cny), ..Receipt::default() };
        let input = match choice % 16 {
            0..=3 => {
                claims += 1;
                Input::Claim { claim_id: ClaimId(uuid::Uuid::from_u128(claims)) }
            }
            4 => reply(SubmitOutcome::Succeeded(receipt(Some(5000)))),
            5 => reply(SubmitOutcome::Succeeded(receipt(Some(2500)))),
            6 => reply(SubmitOutcome::Accepted { provider_ref: None }),
            7 | 8 => reply(SubmitOutcome::Rejected(again())),
            9 => reply(SubmitOutcome::Unknown(UnknownCause::Timeout)),
            10 => reply(SubmitOutcome::Throttled { retry_after: None }),
            11 => reported(former, QueryOutcome::Succeeded(receipt(None))),
            12 => reported(number, QueryOutcome::Failed(failed(RetryAdvice::Never))),
            13 => Input::Deadline,
            14 => Input::Resolved { succeeded: pause % 2 == 0, by: "duty".to_owned(), evidence: "portal".to_owned() },
            _ => reported(number, QueryOutcome::Reversed(receipt(None))),
        };
        if let Decision::Apply(transition) = decide(Some(&order), &input, at(now), policy) {
            order = transition.after;
        }
    }
    order
}

fn lists() -> impl Strategy<Value = Option<There>> {
    let amounts = prop_oneof![Just(None), Just(Some(5000)), Just(Some(2500))];
    let states = prop::sample::select(&ListedState::ALL);
    prop::option::weighted(0.8, (states, amounts).prop_map(|(state, minor)| There { state, amount: minor.map(cny) }))
}

fn what_never_changes(order: &Order) -> Order {
    // The attempt's own state follows the provider's word; a closed order's command dies with its question.
    Order { version: 0, cases: 0, attempt: None, wake_at: None, ..order.clone() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_difference_opens_its_one_case_on_a_closed_order_once_and_moves_nothing(
        rejects in any::<bool>(), life in prop::collection::vec((any::<u8>(), 0_u8..40), 1..30), there in lists(),
        which in any::<prop::sample::Index>(),
    ) {
        let policy = policy(if rejects { DuplicateSemantics::RejectsAlways } else { DuplicateSemantics::NotDeduplicated });
        let order = lived(&policy, &life);
        prop_assume!(order.attempt_number() > 0);
        let attempt = u16::try_from(which.index(usize::from(order.attempt_number()))).unwrap() + 1;
        let now = at(100_000);
        let verdict = compare(&order, attempt, there, now);
        let here = Here::of(&order, attempt);
        let is_matched = match (here, there.map(|there| there.state)) {
            (Here::Delivered, Some(ListedState::Delivered)) => {
                there.and_then(|there| there.amount).is_none_or(|listed| listed == order.amount)
            }
            (Here::Open, Some(ListedState::InProgress | ListedState::Unknown))
            | (Here::NotDelivered, None | Some(ListedState::Failed | ListedState::Reversed)) => true,
            _ => false,
        };
        prop_assert_eq!(verdict.class == Class::Matched, is_matched, "{:?} against {:?}", here, there);
        let Some(complaint) = verdict.complaint.clone() else {
            // Only what no rule has a case for goes without one.
            let has_an_end = there.is_some_and(|there| !matches!(there.state, ListedState::InProgress | ListedState::Unknown));
            let is_told = here == Here::Delivered && (has_an_end || there.is_none())
                || there.is_some_and(|there| there.state == ListedState::Delivered);
            prop_assert!(is_matched || !order.state.is_closed() || !is_told, "{here:?} against {there:?}: {order:?}");
            return Ok(());
        };
        prop_assert!(order.state.is_closed() && !is_matched);
        let known = order.cases & complaint.kind.bit() != 0;
        match decide(Some(&order), &complaint.input, now, &policy) {
            Decision::Apply(transition) => {
                let after = &transition.after;
                prop_assert_eq!(transition.event.kind, EventType::CaseOpened);
                prop_assert_eq!(after.cases & !order.cases, if known { 0 } else { complaint.kind.bit() });
                prop_assert_eq!(what_never_changes(after), what_never_changes(&order));
                prop_assert!(transition.refund.is_none() && transition.follow_up.is_none());
                let again = compare(after, attempt, there, now).complaint;
                if let Some(again) = again.filter(|again| again.kind == complaint.kind) {
                    let twice = decide(Some(after), &again.input, now, &policy);
                    prop_assert_eq!(twice, Decision::Keep(Why::Known), "a second time");
                }
            }
            Decision::Keep(why) => prop_assert!(known && why == Why::Known, "{why:?} for {complaint:?}"),
        }
    }
}

#[test]
fn an_open_order_is_told_nothing_by_a_list() {
    let policy = policy(DuplicateSemantics::RejectsAlways);
    let order = lived(&policy, &[(0, 1), (9, 1)]);
    assert_eq!((order.state, Here::of(&order, 1)), (State::InFlight, Here::Open));
    for state in [ListedState::Delivered, ListedState::Failed, ListedState::Reversed] {
        let verdict = compare(&order, 1, Some(There { state, amount: None }), at(9));
        assert_eq!(verdict, Verdict { class: Class::StateDiffers, complaint: None });
    }
    assert_eq!(compare(&order, 1, None, at(9)), Verdict { class: Class::MissingThere, complaint: None });
}
