//! What our books say of an attempt against what the provider's list says: one pure function.

use serde::Serialize;

use crate::domain::{
    CaseKind, Dispute, Failure, FailureClass, Input, Money, Order, QueryOutcome, Receipt, RetryAdvice, State, Timestamp,
};
use crate::ports::ListedState;

/// Where an attempt stands by our books.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Here {
    /// Delivered.
    Delivered,
    /// It may still deliver.
    Open,
    /// It had no effect, was declined, or was written off; or the next one has been made since.
    NotDelivered,
}

impl Here {
    /// Of an attempt of an order. An older one was closed before the next was made.
    pub fn of(order: &Order, attempt: u16) -> Self {
        let is_open = order.attempt_number() == attempt && order.has_open_attempt();
        match (order.is_delivered(attempt), is_open) {
            (true, _) => Self::Delivered,
            (false, true) => Self::Open,
            (false, false) => Self::NotDelivered,
        }
    }

    /// Its one word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Open => "open",
            Self::NotDelivered => "not_delivered",
        }
    }
}

/// What a comparison finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Both say the same.
    Matched,
    /// We hold it delivered or open; the list has it not.
    MissingThere,
    /// The list has it, and we know nothing of it.
    MissingHere,
    /// Each has another end for it, or only one has.
    StateDiffers,
    /// Delivered, and not the amount that was ordered.
    AmountDiffers,
}

impl Class {
    /// Each of them.
    pub const ALL: [Self; 5] =
        [Self::Matched, Self::MissingThere, Self::MissingHere, Self::StateDiffers, Self::AmountDiffers];

    /// Its one word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Matched => "matched",
            Self::MissingThere => "missing_there",
            Self::MissingHere => "missing_here",
            Self::StateDiffers => "state_differs",
            Self::AmountDiffers => "amount_differs",
        }
    }
}

/// What is to be told of a closed order, and the case that it opens.
#[derive(Debug, Clone, PartialEq)]
pub struct Complaint {
    /// The case, which may have been opened before.
    pub kind: CaseKind,
    /// What [`decide`](crate::domain::decide()) is told.
    pub input: Input,
}

/// What became of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// What was found.
    pub class: Class,
    /// Nothing where the order is open (its own questions settle it), and where no rule has a case for it.
    pub complaint: Option<Complaint>,
}

impl Verdict {
    const MATCHED: Self = Self { class: Class::Matched, complaint: None };

    const fn without_case(class: Class) -> Self {
        Self { class, complaint: None }
    }
}

/// What the list says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct There {
    /// What became of it.
    pub state: ListedState,
    /// What was delivered, where it tells.
    pub amount: Option<Money>,
}

/// Compares an attempt of an order with the list's line about it; `None` where the list ought to have one and has
/// not.
pub fn compare(order: &Order, attempt: u16, there: Option<There>, now: Timestamp) -> Verdict {
    let here = Here::of(order, attempt);
    let Some(there) = there else { return unlisted(order, attempt, here) };
    match (here, there.state) {
        (Here::Delivered, ListedState::Delivered) => amounts(order, attempt, there.amount),
        (Here::Open, ListedState::InProgress | ListedState::Unknown)
        | (Here::NotDelivered, ListedState::Failed | ListedState::Reversed) => Verdict::MATCHED,
        (Here::Delivered | Here::NotDelivered, ListedState::InProgress | ListedState::Unknown) => {
            // It has no end there: nobody can say yet whose word will stand.
            Verdict::without_case(Class::StateDiffers)
        }
        (Here::Open | Here::NotDelivered, ListedState::Delivered) => {
            let kind = if order.state == State::Succeeded { CaseKind::DoubleSuccess } else { CaseKind::LateSuccess };
            let receipt = Receipt { provider_ref: None, delivered: there.amount, delivered_at: None };
            reported(order, attempt, now, kind, QueryOutcome::Succeeded(receipt))
        }
        (Here::Delivered, ListedState::Failed) => {
            reported(order, attempt, now, CaseKind::Conflict, QueryOutcome::Failed(listed_as_failed()))
        }
        (Here::Delivered, ListedState::Reversed) => {
            let receipt = Receipt { provider_ref: None, delivered: there.amount, delivered_at: None };
            reported(order, attempt, now, CaseKind::ReversedAfterSuccess, QueryOutcome::Reversed(receipt))
        }
        // Of an order that is open, or whose older attempt was delivered: this one is asked about still.
        (Here::Open, ListedState::Failed | ListedState::Reversed) => Verdict::without_case(Class::StateDiffers),
    }
}

/// The list ought to have it.
fn unlisted(order: &Order, attempt: u16, here: Here) -> Verdict {
    match here {
        Here::NotDelivered => Verdict::MATCHED,
        Here::Open => Verdict::without_case(Class::MissingThere),
        Here::Delivered => {
            let input = Input::Disputed { attempt, dispute: Dispute::NotListed };
            Verdict {
                class: Class::MissingThere,
                complaint: Some(Complaint { kind: CaseKind::Conflict, input }).filter(|_| order.state.is_closed()),
            }
        }
    }
}

fn amounts(order: &Order, attempt: u16, listed: Option<Money>) -> Verdict {
    let Some(listed) = listed.filter(|listed| *listed != order.amount) else { return Verdict::MATCHED };
    let input = Input::Disputed { attempt, dispute: Dispute::Amount(listed) };
    let complaint = Complaint { kind: CaseKind::AmountMismatch, input };
    Verdict { class: Class::AmountDiffers, complaint: Some(complaint).filter(|_| order.state.is_closed()) }
}

/// What the provider would have answered, had it been asked. An open order is not told: that would end it by a list.
fn reported(order: &Order, attempt: u16, asked_at: Timestamp, kind: CaseKind, outcome: QueryOutcome) -> Verdict {
    let input = Input::Reported { attempt, asked_at, outcome };
    let complaint = order.state.is_closed().then_some(Complaint { kind, input });
    Verdict { class: Class::StateDiffers, complaint }
}

fn listed_as_failed() -> Failure {
    Failure { class: FailureClass::ProviderDeclared, code: "listed_as_failed".to_owned(), advice: RetryAdvice::Never }
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
