//! The pure middle: an order, its states, and the one function that moves it.
//!
//! Nothing here awaits, reads a clock, logs, or knows Kafka, SQL or HTTP. Every rule takes
//! `now` and facts and returns a decision, so that each can be tested by writing down two values.

pub mod callback;
pub mod command;
pub mod decide;
pub mod delay;
pub mod early;
pub mod event;
pub mod ids;
pub mod inbound;
pub mod inquiry;
pub mod masked;
pub mod money;
pub mod msisdn;
pub mod notification;
pub mod order;
pub mod outcome;
pub mod policy;
pub mod retry;
pub mod route;
pub mod state;
pub mod transition;

/// A moment in UTC, with microsecond precision (what both stores keep).
pub type Timestamp = chrono::DateTime<chrono::Utc>;

/// Cuts a moment to whole microseconds, so that what was decided equals what is read back.
pub fn to_micros(at: Timestamp) -> Timestamp {
    // Nearly always it has none smaller, and is no leap second.
    let nanos = at.timestamp_subsec_nanos();
    if nanos.is_multiple_of(1_000) && nanos < 1_000_000_000 {
        return at;
    }
    Timestamp::from_timestamp_micros(at.timestamp_micros()).unwrap_or(at)
}

/// `at` plus `wait`, in whole microseconds. An absurd wait ends at the last moment that there is,
/// where the operator would panic: no configuration may bring a decision down.
pub fn plus(at: Timestamp, wait: std::time::Duration) -> Timestamp {
    let later = chrono::Duration::from_std(wait).ok().and_then(|wait| at.checked_add_signed(wait));
    to_micros(later.unwrap_or(Timestamp::MAX_UTC))
}

/// `at` less `wait`, likewise.
pub fn minus(at: Timestamp, wait: std::time::Duration) -> Timestamp {
    let earlier = chrono::Duration::from_std(wait).ok().and_then(|wait| at.checked_sub_signed(wait));
    to_micros(earlier.unwrap_or(Timestamp::MIN_UTC))
}

/// A number that is spread evenly over what it is made from, and the same in every process (FNV-1a, its high half
/// mixed into the low one).
pub(crate) fn spread(bytes: &[u8]) -> u64 {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    hash ^ (hash >> 32)
}

pub use callback::{CallbackKey, CallbackLinks, Heed, WeakCallbackKey};
pub use command::{Command, CommandKind};
pub use decide::{Decision, Dispute, Input, decide};
pub use event::{Announcement, EventData, EventType, LoggedEvent};
pub use ids::{ClaimId, ClientRef, OrderId, ProviderId};
pub use money::{Currency, Money};
pub use msisdn::{Msisdn, PhoneKey, Recipient};
pub use notification::Notification;
pub use order::{Attempt, Inquiry, NewOrder, Order};
pub use outcome::{
    Capabilities, DuplicateSemantics, Failure, FailureClass, NotSentCause, QueryOutcome, Receipt, RefFormat,
    RetryAdvice, SubmitOutcome, UnknownCause,
};
pub use policy::{OnUnknown, Policy, ProviderPolicy};
pub(crate) use state::text_enum;
pub use state::{AttemptState, CaseKind, Reason, Sla, State};
pub use transition::{CaseChange, FollowUp, Refund, RefundNews, Transition};
