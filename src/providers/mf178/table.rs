//! What mf178's codes and states mean (its purchasing API for merchants, "code table" and "order state").

use std::time::Duration;

use crate::domain::{Failure, FailureClass, RetryAdvice};
use crate::providers::answers::{Refusal, refusal};

use FailureClass::{AuthOrConfig, InsufficientFloat, InvalidRecipient, OperatorUnavailable, ProviderDeclared};
use RetryAdvice::{AfterOperatorAction, Never};

pub(super) const OK: i64 = 0;
pub(super) const DUPLICATE: i64 = 10_010;
/// "Fault, retry later". The document counts it as "access failed"; whether the order was taken by then it does not
/// say, so it is asked about.
pub(super) const FAULT: i64 = 10_013;
pub(super) const NOT_FOUND: i64 = 10_015;
pub(super) const TOO_FREQUENT: i64 = 10_016;

/// A channel that is shut now may be open in a moment.
const SOON: RetryAdvice = RetryAdvice::NewAttempt { after: Duration::from_secs(5) };

/// Answers to a submit by which nothing was taken.
const REFUSALS: [Refusal<i64>; 9] = [
    (10_001, AuthOrConfig, AfterOperatorAction),
    (10_002, AuthOrConfig, AfterOperatorAction),
    (10_003, AuthOrConfig, AfterOperatorAction),
    (10_004, AuthOrConfig, AfterOperatorAction),
    (10_005, AuthOrConfig, AfterOperatorAction),
    (10_006, AuthOrConfig, AfterOperatorAction),
    (10_011, InsufficientFloat, AfterOperatorAction),
    (10_012, OperatorUnavailable, SOON),
    (10_014, InvalidRecipient, Never),
];

/// Where an order stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    InProgress,
    Succeeded,
    Failed(Failure),
    /// They do not know, and look into it by hand. It ends nothing.
    UnknownToThem,
    Undocumented,
}

/// What a submit that took nothing was refused for, if it is documented.
pub(super) fn refused(code: i64) -> Option<Failure> {
    refusal(&REFUSALS, code)
}

pub(super) fn state(state: i64) -> State {
    match state {
        1 | 2 | 11 | 12 => State::InProgress,
        3 => State::Succeeded,
        // 6: and the price is back in our balance.
        4 | 6 => State::Failed(Failure { class: ProviderDeclared, code: format!("state_{state}"), advice: SOON }),
        41 => State::UnknownToThem,
        _ => State::Undocumented,
    }
}
