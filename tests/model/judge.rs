//! `decide` itself, asked once for each small row, input and instant, and remembered.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, RwLock};
use std::time::Duration;

use recharged::domain::inquiry::next_query;
use recharged::domain::{
    CaseKind, Decision, Dispute, EventType, Failure, FailureClass, Input, NotSentCause, Policy, QueryOutcome, Reason,
    Receipt, RetryAdvice, State, SubmitOutcome, UnknownCause, decide,
};

use crate::row::{FAR, Row, Tick, at, claim_id, lane, new_order, refund_id, tick_of};

/// What a caller hears, or believes, of its send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Word {
    Delivered,
    Accepted,
    Refused,
    /// Refused, for the number was recharged a moment ago.
    Cooldown,
    NotSent,
    Throttled,
    Duplicate,
    /// No answer, or none that can be understood.
    Lost,
}

/// What the provider says when asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Answer {
    Delivered,
    InProgress,
    Failed,
    Reversed,
    NotFound,
    Unsure,
    Unavailable,
}

/// An input, small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Asked {
    Arrived {
        paid: bool,
        routed: bool,
        same: bool,
    },
    Paid {
        routed: bool,
    },
    PaidAgain,
    Cancelled,
    Refunded(u8),
    RefundOverdue,
    Claim(u8),
    /// With one lane there is nowhere else to go.
    LaneShut,
    /// Its number is taken again when all is over.
    NumberCools,
    Reply {
        attempt: u8,
        claim: u8,
        word: Word,
    },
    Reported {
        attempt: u8,
        asked: Tick,
        answer: Answer,
    },
    CallerLost,
    Deadline,
    Resolved(bool),
    CaseClosed,
    NotListed,
    /// A callback's word about its first attempt that nobody confirmed.
    Unconfirmed,
    /// Listed with another amount, or with its own.
    Listed {
        same: bool,
    },
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decided {
    pub(crate) row: Row,
}

/// A kind of transition of `decide`: from which state, on what, to which state, logged as what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kind {
    pub(crate) from: Option<State>,
    pub(crate) on: &'static str,
    pub(crate) to: State,
    pub(crate) event: EventType,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let from = self.from.map_or("-", State::as_str);
        write!(f, "{from} | {} | {} | {}", self.on, self.to, self.event)
    }
}

/// Answers that were given before.
type Memory<Q, A> = RwLock<HashMap<Q, A, foldhash::fast::RandomState>>;

fn remembered<Q: Eq + std::hash::Hash, A: Copy>(memory: &Memory<Q, A>, question: Q, find: impl FnOnce() -> A) -> A {
    if let Some(known) = memory.read().unwrap().get(&question) {
        return *known;
    }
    let answer = find();
    memory.write().unwrap().insert(question, answer);
    answer
}

#[derive(Debug)]
pub(crate) struct Judge {
    pub(crate) policy: Policy,
    decisions: Memory<(Option<Row>, Asked, Tick), Option<Decided>>,
    next_queries: Memory<(Row, Tick), Option<Tick>>,
    asking: Memory<Row, bool>,
    seen: Mutex<BTreeSet<Kind>>,
}

impl Judge {
    pub(crate) fn new(policy: Policy) -> Self {
        Self {
            policy,
            decisions: Memory::default(),
            next_queries: Memory::default(),
            asking: Memory::default(),
            seen: Mutex::default(),
        }
    }

    /// What `decide` says at an instant; `None` where it changes nothing.
    pub(crate) fn decide(&self, row: Option<Row>, asked: Asked, now: Tick) -> Option<Decided> {
        remembered(&self.decisions, (row, asked, now), || {
            let order = row.map(|row| row.whole());
            match decide(order.as_ref(), &asked.input(), at(now), &self.policy) {
                Decision::Keep(_) => None,
                Decision::Apply(transition) => {
                    let after = Row::after(&transition, row.map_or(0, |row| row.open));
                    let (from, to) = (row.map(|row| row.state), after.state);
                    self.seen.lock().unwrap().insert(Kind { from, on: asked.name(), to, event: transition.event.kind });
                    Some(Decided { row: after })
                }
            }
        })
    }

    /// When the provider is asked next, after an answer that settled nothing.
    pub(crate) fn next_query(&self, row: &Row, now: Tick) -> Option<Tick> {
        remembered(&self.next_queries, (*row, now), || {
            next_query(&row.whole(), Duration::ZERO, at(now), self.policy.provider(&lane())?).map(tick_of)
        })
    }

    /// Whether the provider's word on the current attempt can still change something.
    pub(crate) fn asks(&self, row: &Row) -> bool {
        remembered(&self.asking, *row, || row.whole().asks())
    }

    /// Every kind of transition that was taken.
    pub(crate) fn seen(&self) -> BTreeSet<Kind> {
        self.seen.lock().unwrap().clone()
    }
}

const TRY_AGAIN: RetryAdvice = RetryAdvice::NewAttempt { after: Duration::ZERO };

fn failure(class: FailureClass) -> Failure {
    Failure { class, code: "E".to_owned(), advice: TRY_AGAIN }
}

impl Word {
    pub(crate) const ALL: [Self; 8] = [
        Self::Delivered,
        Self::Accepted,
        Self::Refused,
        Self::Cooldown,
        Self::NotSent,
        Self::Throttled,
        Self::Duplicate,
        Self::Lost,
    ];

    fn outcome(self) -> SubmitOutcome {
        match self {
            Self::Delivered => SubmitOutcome::Succeeded(Receipt::default()),
            Self::Accepted => SubmitOutcome::Accepted { provider_ref: None },
            Self::Refused => SubmitOutcome::Rejected(failure(FailureClass::ProviderDeclared)),
            Self::Cooldown => SubmitOutcome::Rejected(failure(FailureClass::CooldownActive)),
            Self::NotSent => SubmitOutcome::NotSent(NotSentCause::WindowClosed),
            Self::Throttled => SubmitOutcome::Throttled { retry_after: None },
            Self::Duplicate => SubmitOutcome::Duplicate,
            Self::Lost => SubmitOutcome::Unknown(UnknownCause::Timeout),
        }
    }
}

impl Answer {
    pub(crate) const ALL: [Self; 7] = [
        Self::Delivered,
        Self::InProgress,
        Self::Failed,
        Self::Reversed,
        Self::NotFound,
        Self::Unsure,
        Self::Unavailable,
    ];

    fn outcome(self) -> QueryOutcome {
        match self {
            Self::Delivered => QueryOutcome::Succeeded(Receipt::default()),
            Self::InProgress => QueryOutcome::InProgress,
            Self::Failed => QueryOutcome::Failed(failure(FailureClass::ProviderDeclared)),
            Self::Reversed => QueryOutcome::Reversed(Receipt::default()),
            Self::NotFound => QueryOutcome::NotFound,
            Self::Unsure => QueryOutcome::ProviderUnknown,
            Self::Unavailable => QueryOutcome::Unavailable { retry_after: None },
        }
    }
}

impl Asked {
    pub(crate) fn input(self) -> Input {
        let verdict = |routed: bool| if routed { Ok(lane()) } else { Err(Reason::NoRoute) };
        match self {
            Self::Arrived { paid, routed, same } => {
                let mut new = new_order(paid);
                new.amount.minor += i64::from(!same);
                Input::Arrived { new: Box::new(new), verdict: verdict(routed) }
            }
            Self::Paid { routed } => {
                // Told as of the first instant: a shop is believed about when it was paid.
                Input::Paid { paid_at: at(0), payment_id: Some("pay-1".into()), verdict: verdict(routed) }
            }
            Self::PaidAgain => Input::Paid { paid_at: at(0), payment_id: Some("pay-2".into()), verdict: verdict(true) },
            Self::Cancelled => Input::CancelRequested,
            Self::Refunded(refund) => Input::RefundConfirmed { refund_id: refund_id(refund), at: at(0) },
            Self::RefundOverdue => Input::RefundOverdue,
            Self::Claim(claim) => Input::Claim { claim_id: claim_id(claim) },
            Self::LaneShut => Input::LaneShut,
            Self::NumberCools => Input::NumberCools { until: at(FAR) },
            Self::Reply { attempt, claim, word } => {
                Input::SubmitReply { attempt: u16::from(attempt), claim_id: claim_id(claim), outcome: word.outcome() }
            }
            Self::Reported { attempt, asked, answer } => {
                Input::Reported { attempt: u16::from(attempt), asked_at: at(asked), outcome: answer.outcome() }
            }
            Self::CallerLost => Input::CallerLost,
            Self::Deadline => Input::Deadline,
            Self::Resolved(succeeded) => {
                Input::Resolved { succeeded, by: "a person".to_owned(), evidence: "a statement".to_owned() }
            }
            Self::Unconfirmed => Input::Unconfirmed { attempt: 1 },
            Self::NotListed => Input::Disputed { attempt: 1, dispute: Dispute::NotListed },
            Self::Listed { same } => {
                let mut amount = new_order(true).amount;
                amount.minor += i64::from(!same);
                Input::Disputed { attempt: 1, dispute: Dispute::Amount(amount) }
            }
            Self::CaseClosed => Input::CaseClosed {
                kind: CaseKind::PayloadConflict,
                by: "a person".to_owned(),
                evidence: "a letter".to_owned(),
            },
        }
    }

    pub(crate) fn name(self) -> &'static str {
        name_of(&self.input())
    }
}

/// The name of an input. No arm stands for several inputs: a new one must be named here, and then
/// `transitions` asks for what the model does about it.
pub(crate) fn name_of(input: &Input) -> &'static str {
    match input {
        Input::Arrived { .. } => "arrived",
        Input::Paid { .. } => "paid",
        Input::CancelRequested => "cancel",
        Input::RefundConfirmed { .. } => "refund confirmed",
        Input::RefundOverdue => "refund overdue",
        Input::Claim { .. } => "claim",
        Input::LaneShut => "lane shut",
        Input::NumberCools { .. } => "number cools",
        Input::SubmitReply { outcome, .. } => match outcome {
            SubmitOutcome::Succeeded(_) => "reply: delivered",
            SubmitOutcome::Accepted { .. } => "reply: accepted",
            SubmitOutcome::Rejected(Failure { class: FailureClass::CooldownActive, .. }) => "reply: cooldown",
            SubmitOutcome::Rejected(_) => "reply: refused",
            SubmitOutcome::NotSent(_) => "reply: not sent",
            SubmitOutcome::Throttled { .. } => "reply: throttled",
            SubmitOutcome::Duplicate => "reply: duplicate",
            SubmitOutcome::Unknown(_) => "reply: unknown",
        },
        Input::Reported { outcome, .. } => match outcome {
            QueryOutcome::Succeeded(_) => "report: delivered",
            QueryOutcome::InProgress => "report: in progress",
            QueryOutcome::Failed(_) => "report: failed",
            QueryOutcome::Reversed(_) => "report: reversed",
            QueryOutcome::NotFound => "report: not found",
            QueryOutcome::ProviderUnknown => "report: provider unknown",
            QueryOutcome::NotAsked
            | QueryOutcome::Unavailable { .. }
            | QueryOutcome::Throttled { .. }
            | QueryOutcome::Banned { .. } => "report: unavailable",
        },
        Input::Disputed { dispute, .. } => match dispute {
            Dispute::NotListed => "list: not there",
            Dispute::Amount(_) => "list: amount",
        },
        Input::Unconfirmed { .. } => "callback: unconfirmed",
        Input::CallerLost => "caller lost",
        Input::Deadline => "deadline",
        Input::Resolved { .. } => "resolved",
        Input::CaseClosed { .. } => "case closed",
    }
}
