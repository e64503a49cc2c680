//! What DT One's codes and states mean (its specification, sections "API Error Codes" and "Transaction Status").

use std::time::Duration;

use crate::domain::{Failure, FailureClass, RetryAdvice};
use crate::providers::answers::{Refusal, refusal};

use FailureClass::{
    AmountNotAllowed, AuthOrConfig, CooldownActive, InsufficientFloat, InvalidRecipient, LimitReached,
    OperatorUnavailable, ProviderDeclared, RecipientBarred,
};
use RetryAdvice::{AfterOperatorAction, Never};

/// An operator that is down is back within seconds or within hours.
const SOON: RetryAdvice = RetryAdvice::NewAttempt { after: Duration::from_secs(5) };

pub(super) const TOO_MANY_REQUESTS: u64 = 1_000_429;
pub(super) const DUPLICATE: u64 = 1_007_001;
pub(super) const ALREADY_CANCELLED: u64 = 1_007_005;
pub(super) const NOT_FOUND: u64 = 1_008_004;
/// Documented as an error of theirs: the outcome is unknown.
pub(super) const THEIR_ERRORS: [u64; 2] = [1_009_001, 1_009_503];

/// Answers to a submit by which nothing was created.
const REFUSALS: [Refusal<u64>; 12] = [
    (1_000_400, AuthOrConfig, AfterOperatorAction),
    (1_000_401, AuthOrConfig, AfterOperatorAction),
    (1_003_001, AmountNotAllowed, Never),
    (1_003_002, AmountNotAllowed, Never),
    (1_003_003, AmountNotAllowed, Never),
    (1_005_003, InvalidRecipient, Never),
    (1_005_004, AuthOrConfig, AfterOperatorAction),
    (1_005_005, AuthOrConfig, AfterOperatorAction),
    (1_005_006, AuthOrConfig, AfterOperatorAction),
    (1_006_001, InsufficientFloat, AfterOperatorAction),
    (1_006_009, AuthOrConfig, AfterOperatorAction),
    (1_007_500, AuthOrConfig, AfterOperatorAction),
];

/// Ends without a delivery. The part before the first `-` is the class.
const ENDS: [Refusal<&str>; 22] = [
    ("REJECTED", ProviderDeclared, Never),
    ("REJECTED-INVALID-CREDIT-PARTY", InvalidRecipient, Never),
    ("REJECTED-BARRED-CREDIT-PARTY", RecipientBarred, Never),
    ("REJECTED-INELIGIBLE-CREDIT-PARTY", AmountNotAllowed, Never),
    ("REJECTED-INVALID-DEBIT-PARTY", AuthOrConfig, AfterOperatorAction),
    ("REJECTED-BARRED-DEBIT-PARTY", AuthOrConfig, AfterOperatorAction),
    ("REJECTED-LIMITATIONS-ON-CREDIT-PARTY-AMOUNT", LimitReached, Never),
    ("REJECTED-LIMITATIONS-ON-CREDIT-PARTY-QUANTITY", LimitReached, Never),
    ("REJECTED-OPERATOR-CURRENTLY-UNAVAILABLE", OperatorUnavailable, SOON),
    ("REJECTED-INSUFFICIENT-BALANCE", InsufficientFloat, AfterOperatorAction),
    ("DECLINED", ProviderDeclared, Never),
    ("DECLINED-INVALID-CREDIT-PARTY", InvalidRecipient, Never),
    ("DECLINED-BARRED-CREDIT-PARTY", RecipientBarred, Never),
    ("DECLINED-INELIGIBLE-CREDIT-PARTY", AmountNotAllowed, Never),
    ("DECLINED-INVALID-DEBIT-PARTY", AuthOrConfig, AfterOperatorAction),
    ("DECLINED-BARRED-DEBIT-PARTY", AuthOrConfig, AfterOperatorAction),
    ("DECLINED-LIMITATIONS-ON-OPERATOR-AMOUNT", LimitReached, Never),
    ("DECLINED-LIMITATIONS-ON-OPERATOR-QUANTITY", LimitReached, Never),
    ("DECLINED-DUPLICATED-TRANSACTION", CooldownActive, Never),
    ("DECLINED-OPERATOR-CURRENTLY-UNAVAILABLE", OperatorUnavailable, SOON),
    // Of the sandbox's table alone.
    ("DECLINED-EXCEPTION", ProviderDeclared, Never),
    ("CANCELLED", FailureClass::Cancelled, Never),
];

/// Documented for each of these alike.
const LIMITED: [&str; 3] = ["CREDIT-PARTY", "CUSTOMER", "OPERATOR"];

fn is_limitation(message: &str) -> bool {
    let of = |class: &str| message.strip_prefix(class)?.strip_prefix("-LIMITATIONS-ON-");
    let limit = of("REJECTED").or_else(|| of("DECLINED")).unwrap_or_default();
    LIMITED.iter().filter_map(|whose| limit.strip_prefix(whose)).any(|what| ["-AMOUNT", "-QUANTITY"].contains(&what))
}

/// What a submit that created nothing was refused for, if it is documented.
pub(super) fn refused(code: u64) -> Option<Failure> {
    refusal(&REFUSALS, code)
}

/// The failure of an ended transaction, and whether its message is in the table. The specification lets the class
/// decide: one that says "not delivered" is believed also where its message is new.
pub(super) fn ended(message: &str) -> (Failure, bool) {
    let known = refusal(&ENDS, message).or_else(|| {
        is_limitation(message).then(|| Failure { class: LimitReached, code: message.to_owned(), advice: Never })
    });
    let is_known = known.is_some();
    let other = || Failure { class: ProviderDeclared, code: "DECLINED-OTHER".to_owned(), advice: Never };
    (known.unwrap_or_else(other), is_known)
}
