//! What the audit lets pass, and what it finds, order by order.

use std::collections::HashMap;
use std::time::Duration;

use crate::domain::{
    Attempt, AttemptState, CaseKind, ClaimId, ClientRef, Currency, Inquiry, Money, Msisdn, Order, OrderId, Recipient,
    RefFormat, Sla, State, Timestamp,
};
use crate::ports::{Case, CaseKey, OrderView, Resolution};

use super::super::{Audit, DECIDED_WITHIN, Deliveries, Report, count_delivery};
use super::Tally;

const REFERENCE: &str = "order-1-1";

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(1_790_000_000 + seconds, 0).unwrap()
}

fn amount(minor: i64) -> Money {
    Money { minor, currency: Currency::parse("CNY").unwrap() }
}

fn phone(last: u8) -> Msisdn {
    Msisdn::from_e164(&format!("+861380000000{last}")).unwrap()
}

/// Paid at 0 s, due at 180 s, sent once.
fn order(state: State, cases: &[CaseKind]) -> Order {
    let order_id = OrderId::parse("order-1").unwrap();
    Order {
        version: 5,
        state,
        asked_version: 1,
        recipient: Recipient::Valid(phone(1)),
        amount: amount(5_000),
        carrier: None,
        created_at: at(0),
        paid_at: Some(at(0)),
        payment_id: None,
        notify: false,
        metadata: None,
        deadline_at: at(180),
        provider: None,
        attempt: Some(Attempt {
            number: 1,
            state: AttemptState::NotExecuted,
            client_ref: ClientRef::for_attempt(&order_id, 1, RefFormat { max_len: 40, alphanumeric_only: false }),
            claim_id: ClaimId(uuid::Uuid::nil()),
            claimed_at: at(1),
            provider_ref: None,
            inquiry: Inquiry::default(),
        }),
        declined: 0,
        wake_at: None,
        reason: None,
        sla: state.is_closed().then_some(Sla::Met),
        closed_at: state.is_closed().then_some(at(20)),
        refund_requested: state == State::Failed,
        refund_id: None,
        cases: cases.iter().fold(0, |set, kind| set | kind.bit()),
        order_id,
    }
}

fn case(kind: CaseKind, closed_by: Option<&str>) -> Case {
    let resolution =
        closed_by.map(|by| Resolution { at: at(100), by: by.to_owned(), evidence: "what was known".to_owned() });
    Case {
        key: CaseKey { order_id: OrderId::parse("order-1").unwrap(), kind },
        opened_at: at(20),
        escalate_at: at(1_000),
        escalated: false,
        next_query_at: None,
        evidence: "what was known".to_owned(),
        resolution,
    }
}

/// Audits one order at 200 s.
fn audited(order: Order, cases: &[Case], delivered: &Deliveries) -> Report {
    let mut tally = Tally::new(delivered, at(200) - DECIDED_WITHIN);
    let view = OrderView { order, case_open: cases.iter().any(|case| case.resolution.is_none()) };
    let references = [REFERENCE.to_owned()];
    let known = if tally.depends_on_cases(&view, &references) { cases } else { &[] };
    tally.count(&view, &references, known);
    tally.close(Some(1))
}

fn delivered(to: Msisdn, minor: i64) -> Deliveries {
    let mut delivered = HashMap::new();
    count_delivery(&mut delivered, REFERENCE.to_owned(), to, amount(minor));
    delivered
}

/// Clean, but for these findings.
fn finds(report: &Report, found: Audit) {
    assert_eq!(report.audit, Audit { clean: found == Audit::default(), ..found }, "{report:?}");
    assert_eq!(report.is_clean(), found == Audit::default());
}

#[test]
fn an_order_that_nobody_decided_at_its_deadline_is_found() {
    for state in [State::AwaitingPayment, State::Queued, State::InFlight, State::RetryWait] {
        let stuck = order(state, &[]);
        finds(&audited(stuck.clone(), &[], &HashMap::new()), Audit { overdue: 1, ..Audit::default() });
        let due = |deadline_at| Order { deadline_at, ..stuck.clone() };
        finds(&audited(due(at(200) - DECIDED_WITHIN), &[], &HashMap::new()), Audit::default());
        let overdue = due(at(200) - DECIDED_WITHIN - Duration::from_millis(1));
        assert_eq!(audited(overdue, &[], &HashMap::new()).audit.overdue, 1);
    }
}

#[test]
fn an_order_in_doubt_is_judged_by_its_deadline_too_and_has_an_open_case_of_its_doubt() {
    let doubt = [CaseKind::InDoubt];
    let judged = Order { sla: Some(Sla::Missed), ..order(State::InDoubt, &doubt) };
    finds(&audited(judged.clone(), &[case(CaseKind::InDoubt, None)], &HashMap::new()), Audit::default());
    let unjudged = order(State::InDoubt, &doubt);
    let open = [case(CaseKind::InDoubt, None)];
    finds(&audited(unjudged, &open, &HashMap::new()), Audit { overdue: 1, ..Audit::default() });
    // A case of another matter is open, and that of the doubt is not.
    let both = [CaseKind::InDoubt, CaseKind::PayloadConflict];
    let judged = Order { cases: order(State::InDoubt, &both).cases, ..judged };
    let other = [case(CaseKind::InDoubt, Some("ann")), case(CaseKind::PayloadConflict, None)];
    finds(&audited(judged.clone(), &other, &HashMap::new()), Audit { untold: 1, ..Audit::default() });
    let mine = [case(CaseKind::InDoubt, None), case(CaseKind::PayloadConflict, None)];
    finds(&audited(judged, &mine, &HashMap::new()), Audit::default());
}

#[test]
fn a_delivery_of_what_failed_is_excused_by_a_case_that_still_tells_of_it() {
    let delivered = delivered(phone(1), 5_000);
    let found = Audit { wrongly_failed: 1, ..Audit::default() };
    finds(&audited(order(State::Failed, &[]), &[], &delivered), found);
    let of = |kind, closed_by| audited(order(State::Failed, &[kind]), &[case(kind, closed_by)], &delivered);
    finds(&of(CaseKind::FailedUnproven, None), Audit::default());
    finds(&of(CaseKind::FailedUnproven, Some("ann")), Audit::default());
    // Closed by "not found", and delivered after that: nobody hears of it.
    finds(&of(CaseKind::FailedUnproven, Some("provider")), found);
    finds(&of(CaseKind::LateSuccess, None), Audit::default());
    for another in [CaseKind::PayloadConflict, CaseKind::AmountMismatch, CaseKind::ProviderFlipped] {
        finds(&of(another, None), found);
    }
    // Both: the delivery was heard of in the end.
    let both = [CaseKind::FailedUnproven, CaseKind::LateSuccess];
    let cases = [case(both[0], Some("provider")), case(both[1], None)];
    finds(&audited(order(State::Failed, &both), &cases, &delivered), Audit::default());
}

#[test]
fn another_amount_is_excused_by_its_case_and_another_number_by_none() {
    let all = [CaseKind::AmountMismatch, CaseKind::DoubleSuccess];
    let found = Audit { misdelivered: 1, ..Audit::default() };
    finds(&audited(order(State::Succeeded, &all), &[], &delivered(phone(1), 4_000)), Audit::default());
    finds(&audited(order(State::Succeeded, &[]), &[], &delivered(phone(1), 4_000)), found);
    finds(&audited(order(State::Succeeded, &all), &[], &delivered(phone(2), 5_000)), found);
}
