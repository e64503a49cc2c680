//! What the audit lets pass, and what it finds, order by order.

use std::time::Duration;

use crate::domain::{
    Attempt, AttemptState, CaseKind, ClaimId, ClientRef, Currency, Inquiry, Money, Msisdn, Order, OrderId, ProviderId,
    Recipient, RefFormat, Sla, State, Timestamp,
};
use crate::ports::{Case, CaseKey, OrderView, Resolution};

use super::super::sent::Sent;
use super::super::{Audit, DECIDED_WITHIN, Ledger, Ledgers, Report};
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
        owner: None,
        resolution,
    }
}

/// Audits one order at 200 s.
fn audited(order: Order, cases: &[Case], ledgers: &Ledgers) -> Report {
    audited_as(order, cases, &[sent("one", REFERENCE)], ledgers)
}

fn audited_as(order: Order, cases: &[Case], sent: &[Sent], ledgers: &Ledgers) -> Report {
    let mut tally = Tally::new(ledgers, at(200) - DECIDED_WITHIN);
    let view = OrderView { order, case_open: cases.iter().any(|case| case.resolution.is_none()) };
    let known = if tally.depends_on_cases(&view, sent) { cases } else { &[] };
    tally.count(&view, sent, known);
    tally.close(Some(1))
}

fn sent(provider: &str, reference: &str) -> Sent {
    Sent { provider: Some(ProviderId::new(provider)), client_ref: ClientRef::from_stored(reference) }
}

fn nothing() -> Ledgers {
    Ledgers::Anyones(Ledger::default())
}

fn ledger(reference: &str, to: Msisdn, minor: i64) -> Ledger {
    let mut ledger = Ledger::default();
    ledger.delivered(reference.to_owned(), to, amount(minor));
    ledger
}

fn delivered(to: Msisdn, minor: i64) -> Ledgers {
    Ledgers::Anyones(ledger(REFERENCE, to, minor))
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
        finds(&audited(stuck.clone(), &[], &nothing()), Audit { overdue: 1, ..Audit::default() });
        let due = |deadline_at| Order { deadline_at, ..stuck.clone() };
        finds(&audited(due(at(200) - DECIDED_WITHIN), &[], &nothing()), Audit::default());
        let overdue = due(at(200) - DECIDED_WITHIN - Duration::from_millis(1));
        assert_eq!(audited(overdue, &[], &nothing()).audit.overdue, 1);
    }
}

#[test]
fn an_order_in_doubt_is_judged_by_its_deadline_too_and_has_an_open_case_of_its_doubt() {
    let doubt = [CaseKind::InDoubt];
    let judged = Order { sla: Some(Sla::Missed), ..order(State::InDoubt, &doubt) };
    finds(&audited(judged.clone(), &[case(CaseKind::InDoubt, None)], &nothing()), Audit::default());
    let unjudged = order(State::InDoubt, &doubt);
    let open = [case(CaseKind::InDoubt, None)];
    finds(&audited(unjudged, &open, &nothing()), Audit { overdue: 1, ..Audit::default() });
    // A case of another matter is open, and that of the doubt is not.
    let both = [CaseKind::InDoubt, CaseKind::PayloadConflict];
    let judged = Order { cases: order(State::InDoubt, &both).cases, ..judged };
    let other = [case(CaseKind::InDoubt, Some("ann")), case(CaseKind::PayloadConflict, None)];
    finds(&audited(judged.clone(), &other, &nothing()), Audit { untold: 1, ..Audit::default() });
    let mine = [case(CaseKind::InDoubt, None), case(CaseKind::PayloadConflict, None)];
    finds(&audited(judged, &mine, &nothing()), Audit::default());
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
    finds(&of(CaseKind::Unconfirmed, None), Audit::default());
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

/// By name, with what each has delivered.
fn named<const N: usize>(ledgers: [(&str, Ledger); N]) -> Ledgers {
    Ledgers::Named(ledgers.into_iter().map(|(name, ledger)| (ProviderId::new(name), ledger)).collect())
}

#[test]
fn an_order_that_two_providers_have_executed_is_found_and_so_is_one_that_the_wrong_one_has() {
    let sends = [sent("one", "order-1-1"), sent("two", "R2")];
    let of = |reference| ledger(reference, phone(1), 5_000);
    let audited = |ledgers: &Ledgers| audited_as(order(State::Succeeded, &[]), &[], &sends, ledgers);
    finds(&audited(&named([("one", Ledger::default()), ("two", of("R2"))])), Audit::default());
    let both = [named([("one", of("order-1-1")), ("two", of("R2"))]), {
        let mut together = of("order-1-1");
        together.delivered("R2".to_owned(), phone(1), amount(5_000));
        Ledgers::Anyones(together)
    }];
    for both in both {
        finds(&audited(&both), Audit { double: 1, ..Audit::default() });
    }
    // A reference counts where it was sent: elsewhere it is nobody's.
    let swapped = named([("one", of("R2")), ("two", Ledger::default())]);
    finds(&audited(&swapped), Audit { lost: 1, unaccounted: 1, ..Audit::default() });
    let same = named([("one", of("order-1-1")), ("two", of("order-1-1"))]);
    finds(&audited(&same), Audit { unaccounted: 1, ..Audit::default() });
    // One that is not named has delivered nothing.
    finds(&audited(&named([("one", Ledger::default())])), Audit { lost: 1, ..Audit::default() });
}
