//! An order's life, step by step, with the laws checked at each step.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::domain::decide::{Decision, Input, Why, decide};
use crate::domain::event::{EventType, LoggedEvent, replay};
use crate::domain::*;

/// The lane of every story.
pub(super) fn lane() -> ProviderId {
    ProviderId::new("primary")
}

/// Seconds after the stories' beginning.
pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(1_790_000_000 + seconds, 0).unwrap()
}

pub(super) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A deadline of 180 s; queries from 2 s on, every 5 s; "not found" counts after 20 s.
pub(super) fn policy(duplicates: DuplicateSemantics) -> Policy {
    let capabilities = Capabilities {
        duplicates,
        query_not_before: secs(2),
        query_min_interval: secs(5),
        query_retention: secs(86_400),
        not_found_grace: secs(20),
        same_number_cooldown: None,
        client_ref: RefFormat { max_len: 40, alphanumeric_only: false },
        call_timeout: secs(15),
        callback_settles: true,
    };
    let provider = ProviderPolicy { capabilities, expected_service: secs(5), send_window: secs(1) };
    Policy {
        sla: secs(180),
        unpaid_timeout: secs(1800),
        notify_after: secs(60),
        notify_at_end: false,
        refund_confirm_within: Some(Duration::from_hours(24)),
        on_unknown: OnUnknown::Hold,
        reconcile_within: secs(72 * 3600),
        max_attempts: 3,
        backoff_first: secs(2),
        backoff_max: secs(30),
        providers: HashMap::from([(lane(), provider)]),
        routes: std::sync::Arc::default(),
        shut: Vec::new(),
    }
}

pub(super) fn new_order(paid_at: Option<Timestamp>) -> NewOrder {
    NewOrder {
        order_id: OrderId::parse("order-1").unwrap(),
        recipient: Recipient::Valid(Msisdn::from_e164("+8613800000001").unwrap()),
        amount: Money { minor: 5000, currency: Currency::parse("CNY").unwrap() },
        carrier: None,
        created_at: at(0),
        paid_at,
        payment_id: paid_at.map(|_| "pay-1".into()),
        notify: false,
        metadata: Some("{\"shop\":7}".into()),
        phone_hash: Some("hash".into()),
    }
}

pub(super) fn claim_id(number: u128) -> ClaimId {
    ClaimId(uuid::Uuid::from_u128(number))
}

pub(super) fn no(class: FailureClass, advice: RetryAdvice) -> Failure {
    Failure { class, code: format!("E-{class}"), advice }
}

pub(super) const TRY_AGAIN: RetryAdvice = RetryAdvice::NewAttempt { after: Duration::ZERO };

/// One order, all that was decided of it, and the policy.
#[derive(Debug, Clone)]
pub(super) struct Story {
    pub(super) policy: Policy,
    pub(super) order: Option<Order>,
    pub(super) log: Vec<LoggedEvent>,
    pub(super) refunds: Vec<Refund>,
    pub(super) opened: Vec<CaseKind>,
    pub(super) resolved: HashSet<CaseKind>,
    pub(super) follow_up: Option<FollowUp>,
    claims: u128,
}

impl Story {
    pub(super) fn new(policy: Policy) -> Self {
        let (log, refunds, opened) = (Vec::new(), Vec::new(), Vec::new());
        Self { policy, order: None, log, refunds, opened, resolved: HashSet::new(), follow_up: None, claims: 0 }
    }

    /// Paid at second 0, in its lane.
    pub(super) fn queued(duplicates: DuplicateSemantics) -> Self {
        let mut story = Self::new(policy(duplicates));
        story.tell(arrived(new_order(Some(at(0)))), 0);
        story
    }

    /// Claimed at second 0.
    pub(super) fn in_flight(duplicates: DuplicateSemantics) -> Self {
        let mut story = Self::queued(duplicates);
        story.claim(0);
        story
    }

    pub(super) fn row(&self) -> &Order {
        self.order.as_ref().unwrap()
    }

    pub(super) fn attempt(&self) -> &Attempt {
        self.row().attempt.as_ref().unwrap()
    }

    pub(super) fn stands(&self) -> (State, Option<AttemptState>) {
        (self.row().state, self.row().attempt.as_ref().map(|attempt| attempt.state))
    }

    /// The last that happened to it.
    pub(super) fn last(&self) -> EventType {
        self.log.iter().rev().find(|event| !event.kind.is_aside()).unwrap().kind
    }

    pub(super) fn has_open(&self, kind: CaseKind) -> bool {
        self.opened.contains(&kind) && !self.resolved.contains(&kind)
    }

    pub(super) fn claim(&mut self, second: i64) -> ClaimId {
        self.claims += 1;
        let claim_id = claim_id(self.claims);
        self.tell(Input::Claim { claim_id }, second);
        claim_id
    }

    /// The reply to the row's current claim.
    pub(super) fn reply(&mut self, outcome: SubmitOutcome, second: i64) -> Option<Why> {
        let (attempt, claim_id) = (self.attempt().number, self.attempt().claim_id);
        self.tell(Input::SubmitReply { attempt, claim_id, outcome }, second)
    }

    /// What the provider says, asked about an attempt that same second.
    pub(super) fn report(&mut self, attempt: u16, outcome: QueryOutcome, second: i64) -> Option<Why> {
        self.tell(Input::Reported { attempt, asked_at: at(second), outcome }, second)
    }

    pub(super) fn not_found_twice(&mut self, seconds: [i64; 2]) {
        let attempt = self.attempt().number;
        for second in seconds {
            self.report(attempt, QueryOutcome::NotFound, second);
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "a story is told in values")]
    pub(super) fn tell(&mut self, input: Input, second: i64) -> Option<Why> {
        self.feed(&input, at(second))
    }

    /// Feeds one input, applies the decision, checks the laws; the reason, if nothing was written.
    pub(super) fn feed(&mut self, input: &Input, now: Timestamp) -> Option<Why> {
        let transition = match decide(self.order.as_ref(), input, now, &self.policy) {
            Decision::Keep(why) => return Some(why),
            Decision::Apply(transition) => *transition,
        };
        self.check_form(&transition, now);
        self.check_told(&transition, now);
        self.check_cases(&transition);
        self.check_attempts(&transition.after);
        check_standing(&transition.after);
        if let Some(before) = &self.order {
            check_move(before, &transition, now);
        }
        match decide(Some(&transition.after), input, now, &self.policy) {
            Decision::Keep(_) => {}
            // Whether a case is still open stands in the case: who closes it has looked there.
            Decision::Apply(_) if matches!(input, Input::CaseClosed { .. }) => {}
            Decision::Apply(again) => panic!("{input:?} twice: {:?}, then {again:?}", transition.event),
        }
        self.refunds.extend(transition.refund);
        self.log.push(transition.event);
        self.log.extend(transition.told.map(|told| *told));
        self.follow_up = transition.follow_up;
        self.order = Some(transition.after);
        assert!(self.refunds.len() <= 1, "refunded twice");
        assert_eq!(self.row().refund_requested, self.refunds.len() == 1);
        None
    }

    fn check_form(&self, transition: &Transition, now: Timestamp) {
        let after = &transition.after;
        let from = self.order.as_ref().map_or(0, |order| order.version);
        assert_eq!((transition.from_version, after.version), (from, from + 1));
        let event = &transition.event;
        assert_eq!((event.version, &event.order_id, event.at), (from + 1, &after.order_id, to_micros(now)));
        assert_eq!(event.data.state, after.state);
        let asked_before = self.order.as_ref().map_or(0, |order| order.asked_version);
        if let Some(FollowUp { lane, command }) = &transition.follow_up {
            assert_eq!(Some(lane), after.provider.as_ref());
            assert_eq!((command.version, command.wake_at), (after.version, after.wake_at));
            assert_eq!((command.attempt, after.asked_version), (after.attempt_number(), after.version));
            let only_asks = command.kind == CommandKind::Query && after.asks();
            assert!(!after.state.is_closed() || only_asks, "a closed order only asks, while an answer matters");
        } else {
            assert_eq!(after.asked_version, asked_before, "an event that asks for nothing kills no live command");
        }
        if let Some(refund) = &transition.refund {
            assert!(after.paid_at.is_some(), "only what was paid is refunded");
            assert_eq!((refund.amount, &refund.payment_id), (after.amount, &after.payment_id));
            let within = self.policy.refund_confirm_within.filter(|_| after.refund_id.is_none());
            assert_eq!(refund.confirm_by, within.map(|within| plus(now, within)), "it is followed");
            let is_doubt = after.state == State::InDoubt;
            assert!(!is_doubt || self.policy.on_unknown == OnUnknown::RefundFlagged, "a doubt is not refunded");
        }
    }

    /// Somebody is told of the end with it, where that is wanted.
    fn check_told(&self, transition: &Transition, now: Timestamp) {
        let after = &transition.after;
        let was_closed = self.order.as_ref().is_some_and(|order| order.state.is_closed());
        let is_wanted = self.policy.notify_at_end && after.notify && after.recipient.msisdn().is_some();
        let Some(told) = transition.told.as_deref() else {
            assert!(!is_wanted || was_closed || !after.state.is_closed(), "nobody is told of the end");
            return;
        };
        assert!(is_wanted && !was_closed && after.state.is_closed());
        assert_eq!((told.kind, told.version), (EventType::EndNotificationRequested, after.version));
        assert_eq!((told.at, told.data.state, transition.notify_at), (to_micros(now), after.state, None));
    }

    fn check_cases(&mut self, transition: &Transition) {
        for change in &transition.cases {
            match change {
                CaseChange::Open { kind, .. } => {
                    assert!(!self.opened.contains(kind), "{kind} opened twice");
                    self.opened.push(*kind);
                }
                CaseChange::Resolve { kind, .. } => {
                    let is_first = self.resolved.insert(*kind);
                    // By a person, and by the confirmation that comes all the same.
                    let may_be_twice = *kind == CaseKind::RefundUnconfirmed;
                    assert!(self.opened.contains(kind) && (is_first || may_be_twice), "{kind} resolved twice");
                }
            }
        }
        let after = &transition.after;
        let bits = self.opened.iter().fold(0, |set, kind| set | kind.bit());
        assert_eq!(after.cases & !Order::CANCEL_REFUSED, bits);
        if after.state == State::InDoubt {
            assert!(self.has_open(CaseKind::InDoubt), "in doubt without an open case");
        }
    }

    /// Never two open attempts; never a new reference while an older one could still deliver.
    fn check_attempts(&self, after: &Order) {
        let Some(before) = self.order.as_ref().and_then(|order| order.attempt.as_ref()) else { return };
        let now = after.attempt.as_ref().unwrap();
        if now.claim_id != before.claim_id {
            assert!(!before.state.is_open(), "a claim beside an open attempt");
            assert_eq!(now.state, AttemptState::Sent);
        }
        if now.number == before.number {
            assert_eq!(now.client_ref, before.client_ref, "a reference never changes");
            let forgot = before.inquiry.closed_by_not_found && !now.inquiry.closed_by_not_found;
            assert!(!forgot, "what not found has closed stays so");
            return;
        }
        assert_eq!(now.number, before.number + 1);
        assert_ne!(now.client_ref, before.client_ref);
        let is_over = matches!(before.state, AttemptState::Failed | AttemptState::NotExecuted | AttemptState::Prepared);
        assert!(is_over && !before.inquiry.closed_by_not_found, "a new reference beside {before:?}");
    }

    /// The log, through its lines and back, rebuilds the row.
    pub(super) fn check_replay(&self) {
        let stored: Vec<_> = self.log.iter().map(|event| LoggedEvent::from_line(&event.to_line()).unwrap()).collect();
        assert_eq!(stored, self.log);
        if let Some(order) = &self.order {
            assert_eq!(replay(&stored, &order.recipient).unwrap().as_ref(), Some(order));
        }
    }
}

/// What holds of a row by itself.
fn check_standing(after: &Order) {
    let attempt = after.attempt.as_ref().map(|attempt| attempt.state);
    match after.state {
        State::AwaitingPayment => assert!(attempt.is_none() && after.paid_at.is_none()),
        State::Queued => assert!(attempt.is_none() && after.paid_at.is_some() && after.provider.is_some()),
        State::InFlight | State::InDoubt => assert!(after.has_open_attempt()),
        State::RetryWait => assert!(attempt.is_some() && !after.has_open_attempt()),
        State::Succeeded => assert!(after.paid_at.is_some()),
        State::Failed => {
            assert!(!after.has_open_attempt(), "failed with an open attempt");
            assert!(after.paid_at.is_some() && after.refund_requested && after.reason.is_some());
        }
        State::Cancelled => assert!(attempt.is_none() && after.reason.is_some() && after.sla.is_none()),
    }
    assert_eq!(after.state.is_closed(), after.closed_at.is_some());
    assert!(!after.state.is_closed() || after.wake_at.is_none() || after.asks(), "a closed order waits for nothing");
    let counted = matches!(after.state, State::Succeeded | State::Failed);
    assert!(!counted || after.sla.is_some(), "closed without an SLA");
    if after.refund_requested && matches!(after.state, State::InDoubt | State::Succeeded) {
        assert!(after.has_cases(), "refunded and perhaps delivered, without a case");
    }
}

/// What holds of a move from one row to the next.
fn check_move(before: &Order, transition: &Transition, now: Timestamp) {
    let after = &transition.after;
    if before.state.is_closed() {
        let row = |order: &Order| (order.state, order.reason, order.closed_at, order.sla, order.deadline_at);
        assert_eq!(row(after), row(before), "a closed order never changes");
        let late_payment = before.state == State::Cancelled && before.paid_at.is_none() && after.paid_at.is_some();
        assert_eq!(transition.refund.is_some(), late_payment, "closed: only a late payment is refunded");
    }
    match (before.sla, after.sla) {
        (None, Some(Sla::Met)) => assert!(after.closed_at.is_some() && now < after.deadline_at),
        (None, Some(Sla::Missed)) => assert!(now >= after.deadline_at),
        (was, is) => assert_eq!(is, was, "the SLA is settled once"),
    }
    let told = |order: &Order| (order.order_id.clone(), order.recipient.clone(), order.amount, order.created_at);
    assert_eq!(told(after), told(before), "what the shop said never changes");
    assert!(before.paid_at.is_none() || before.paid_at == after.paid_at, "an order is paid once");
    assert!(before.refund_id.is_none() || before.refund_id == after.refund_id, "the first refund stands");
    assert!(after.declined >= before.declined && after.attempt_number() >= before.attempt_number());
}

pub(super) fn arrived(new: NewOrder) -> Input {
    Input::Arrived { new: Box::new(new), verdict: Ok(lane()) }
}

pub(super) fn paid(second: i64, payment: &str) -> Input {
    Input::Paid { paid_at: at(second), payment_id: Some(payment.into()), verdict: Ok(lane()) }
}

pub(super) fn delivered() -> SubmitOutcome {
    SubmitOutcome::Succeeded(Receipt::default())
}

pub(super) fn found_delivered() -> QueryOutcome {
    QueryOutcome::Succeeded(Receipt::default())
}

pub(super) fn timed_out() -> SubmitOutcome {
    SubmitOutcome::Unknown(UnknownCause::Timeout)
}
