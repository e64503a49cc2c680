//! A row as small as it can be: what `decide` reads of an order, and nothing else. Time is one of six
//! instants, so that the worlds are finitely many. `transitions::a_small_row_is_decided_like_the_whole_one`
//! holds that nothing is lost.

use recharged::domain::{
    Attempt, AttemptState, CaseChange, CaseKind, ClaimId, ClientRef, Currency, Inquiry, Money, Msisdn, NewOrder, Order,
    OrderId, ProviderId, Recipient, RefFormat, Sla, State, Timestamp, Transition,
};

/// An instant.
pub(crate) type Tick = u8;

/// Ten seconds apart, and one so late that the provider is about to forget the attempt.
pub(crate) const SECONDS: [i64; 6] = [0, 10, 20, 30, 40, 950];

/// The last instant: bytes that have not arrived by then never will.
pub(crate) const FAR: Tick = 5;

/// Later than every instant.
const NEVER: Tick = 6;

/// Earlier than every instant.
pub(crate) const LONG_AGO: Tick = Tick::MAX;

pub(crate) const REF_FORMAT: RefFormat = RefFormat { max_len: 40, alphanumeric_only: false };

pub(crate) fn at(tick: Tick) -> Timestamp {
    Timestamp::from_timestamp(1_790_000_000 + SECONDS[usize::from(tick)], 0).unwrap()
}

/// The first instant at which a moment has come: there is none between it and the moment.
pub(crate) fn tick_of(moment: Timestamp) -> Tick {
    (0..=FAR).find(|tick| at(*tick) >= moment).unwrap_or(NEVER)
}

/// An order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Row {
    pub(crate) state: State,
    pub(crate) paid: bool,
    pub(crate) routed: bool,
    pub(crate) deadline: Tick,
    pub(crate) attempt: Option<Try>,
    pub(crate) declined: u8,
    pub(crate) wake: Option<Tick>,
    pub(crate) sla: Option<Sla>,
    pub(crate) refund: bool,
    /// The first refund that was confirmed.
    pub(crate) refunded: Option<u8>,
    /// Cases that were ever opened.
    pub(crate) cases: u16,
    /// Those that are still open.
    pub(crate) open: u16,
}

/// Its attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Try {
    pub(crate) number: u8,
    pub(crate) state: AttemptState,
    pub(crate) claim: u8,
    pub(crate) claimed: Tick,
    pub(crate) was_accepted: bool,
    pub(crate) not_found: Option<Tick>,
    pub(crate) closed_by_not_found: bool,
    pub(crate) earlier_suspected: bool,
    pub(crate) delivered_by: Option<u8>,
}

pub(crate) fn lane() -> ProviderId {
    ProviderId::new("primary")
}

pub(crate) fn claim_id(claim: u8) -> ClaimId {
    ClaimId(uuid::Uuid::from_u128(u128::from(claim)))
}

pub(crate) fn refund_id(refund: u8) -> std::sync::Arc<str> {
    format!("refund-{refund}").into()
}

pub(crate) fn new_order(paid: bool) -> NewOrder {
    NewOrder {
        order_id: OrderId::parse("order-1").unwrap(),
        recipient: Recipient::Valid(Msisdn::from_e164("+8613800000001").unwrap()),
        amount: Money { minor: 5000, currency: Currency::parse("CNY").unwrap() },
        carrier: None,
        created_at: at(0),
        paid_at: paid.then(|| at(0)),
        payment_id: paid.then(|| "pay-1".into()),
        notify: false,
        metadata: None,
        phone_hash: None,
    }
}

impl Row {
    /// The order again.
    pub(crate) fn whole(&self) -> Order {
        let new = new_order(self.paid);
        let attempt = self.attempt.map(|small| Attempt {
            number: u16::from(small.number),
            state: small.state,
            client_ref: ClientRef::for_attempt(&new.order_id, u16::from(small.number), REF_FORMAT),
            claim_id: claim_id(small.claim),
            claimed_at: at(small.claimed),
            provider_ref: None,
            inquiry: Inquiry {
                was_accepted: small.was_accepted,
                not_found_at: small
                    .not_found
                    .map(|tick| if tick == LONG_AGO { Timestamp::UNIX_EPOCH } else { at(tick) }),
                closed_by_not_found: small.closed_by_not_found,
                earlier_suspected: small.earlier_suspected,
                delivered_by: small.delivered_by.map(u16::from),
            },
        });
        Order {
            order_id: new.order_id,
            version: 1,
            state: self.state,
            asked_version: 1,
            recipient: new.recipient,
            amount: new.amount,
            carrier: None,
            created_at: new.created_at,
            paid_at: new.paid_at,
            payment_id: new.payment_id,
            notify: false,
            metadata: None,
            deadline_at: at(self.deadline),
            provider: self.routed.then(lane),
            attempt,
            declined: u16::from(self.declined),
            wake_at: self.wake.map(|tick| if tick == NEVER { Timestamp::MAX_UTC } else { at(tick) }),
            reason: None,
            sla: self.sla,
            closed_at: None,
            refund_requested: self.refund,
            refund_id: self.refunded.map(refund_id),
            cases: self.cases,
        }
    }

    /// The row after a transition; `open` are the cases that were open before it.
    pub(crate) fn after(transition: &Transition, mut open: u16) -> Self {
        for change in &transition.cases {
            match change {
                CaseChange::Open { kind, .. } => open |= kind.bit(),
                CaseChange::Resolve { kind, .. } => open &= !kind.bit(),
            }
        }
        let order = &transition.after;
        Self {
            state: order.state,
            paid: order.paid_at.is_some(),
            routed: order.provider.is_some(),
            deadline: tick_of(order.deadline_at),
            attempt: order.attempt.as_ref().map(|whole| Try {
                number: whole.number as u8,
                state: whole.state,
                claim: whole.claim_id.0.as_u128() as u8,
                claimed: tick_of(whole.claimed_at),
                was_accepted: whole.inquiry.was_accepted,
                not_found: whole.inquiry.not_found_at.map(tick_of),
                closed_by_not_found: whole.inquiry.closed_by_not_found,
                earlier_suspected: whole.inquiry.earlier_suspected,
                delivered_by: whole.inquiry.delivered_by.map(|number| number as u8),
            }),
            declined: order.declined as u8,
            wake: order.wake_at.map(tick_of),
            sla: order.sla,
            refund: order.refund_requested,
            refunded: (1..=2).find(|refund| order.refund_id == Some(refund_id(*refund))),
            cases: order.cases,
            open,
        }
    }

    /// Forgets what `decide` will not look at again, from an instant on.
    pub(crate) fn forget(&mut self, earliest: Tick) {
        self.wake = self.wake.map(|wake| if wake <= earliest { 0 } else { wake });
        let Some(attempt) = &mut self.attempt else { return };
        let may_be_sent_again = attempt.state == AttemptState::Prepared;
        if !attempt.state.is_open() && !may_be_sent_again {
            attempt.claim = 0;
            if !attempt.closed_by_not_found {
                attempt.claimed = 0;
            }
        }
        if attempt.was_accepted || !attempt.state.is_open() {
            attempt.not_found = None;
        }
    }

    pub(crate) fn has_open_attempt(&self) -> bool {
        self.attempt.is_some_and(|attempt| attempt.state.is_open())
    }

    /// Closed, or openly in doubt.
    pub(crate) fn is_decided(&self) -> bool {
        match self.state {
            State::Succeeded | State::Failed | State::Cancelled => true,
            State::InDoubt => self.open & CaseKind::InDoubt.bit() != 0,
            State::AwaitingPayment | State::Queued | State::InFlight | State::RetryWait => false,
        }
    }
}
