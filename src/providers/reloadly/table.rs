//! What Reloadly's error codes and states mean (its airtime documentation).

use std::time::Duration;

use crate::domain::{Failure, FailureClass, RetryAdvice};
use crate::providers::answers::{Refusal, refusal};

use FailureClass::{
    AmountNotAllowed, AuthOrConfig, CooldownActive, InsufficientFloat, InvalidRecipient, LimitReached,
    OperatorUnavailable,
};
use RetryAdvice::{AfterOperatorAction, Never};

/// "Wait 30 minutes before the top-up is tried again": no second attempt here inside a promise of three.
const HALF_AN_HOUR: RetryAdvice = RetryAdvice::NewAttempt { after: Duration::from_mins(30) };
const SOON: RetryAdvice = RetryAdvice::NewAttempt { after: Duration::from_secs(5) };

pub(super) const DUPLICATE: &str = "CUSTOM_IDENTIFIER_ALREADY_USED";
pub(super) const TOKEN_EXPIRED: &str = "TOKEN_EXPIRED";

/// Answers to a submit by which nothing was created.
const REFUSALS: [Refusal<&str>; 8] = [
    ("INVALID_RECIPIENT_PHONE", InvalidRecipient, Never),
    ("INVALID_AMOUNT_FOR_OPERATOR", AmountNotAllowed, Never),
    ("COUNTRY_NOT_SUPPORTED", AmountNotAllowed, Never),
    ("OPERATOR_UNAVAILABLE_OR_CURRENTLY_INACTIVE", OperatorUnavailable, SOON),
    ("TRANSACTION_CANNOT_BE_PROCESSED_AT_THE_MOMENT", OperatorUnavailable, SOON),
    ("INSUFFICIENT_BALANCE", InsufficientFloat, AfterOperatorAction),
    // Another order's recharge, or an earlier attempt of this one.
    ("PHONE_RECENTLY_RECHARGED", CooldownActive, Never),
    (TOKEN_EXPIRED, AuthOrConfig, AfterOperatorAction),
];

/// Limits of our account are documented by the beginning of their names alone.
const DAILY_LIMITS: &str = "MAX_DAILY_";
/// What of such a name is a word of theirs: it stands in the log of events.
const NAME_MAX: usize = 64;

/// Where a top-up stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    InProgress,
    Succeeded,
    Failed(Failure),
    Undocumented,
}

/// What a submit that created nothing was refused for, if it is documented.
pub(super) fn refused(code: &str) -> Option<Failure> {
    let is_name = code.len() <= NAME_MAX && code.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    let name = if is_name { code } else { DAILY_LIMITS };
    let limited = || Failure { class: LimitReached, code: name.to_owned(), advice: AfterOperatorAction };
    refusal(&REFUSALS, code).or_else(|| code.starts_with(DAILY_LIMITS).then(limited))
}

pub(super) fn standing(status: &str) -> Standing {
    match status {
        "PROCESSING" | "PENDING" => Standing::InProgress,
        "SUCCESSFUL" => Standing::Succeeded,
        // Refunded: to our wallet; failed: it was never debited. Neither was delivered.
        "FAILED" | "REFUNDED" => Standing::Failed(Failure {
            class: FailureClass::ProviderDeclared,
            code: status.to_owned(),
            advice: HALF_AN_HOUR,
        }),
        _ => Standing::Undocumented,
    }
}
