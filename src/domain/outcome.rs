//! What a provider can answer, in words that hold for every provider
//! (`docs/STATE_MACHINE.md`; the reasons stand in the providers' own documents).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::money::Money;
use crate::faults::{Bug, is_planted};

/// The outcome of a submit. There is no error beside it: every failure of a call is an outcome.
#[derive(Debug, Clone, PartialEq)]
pub enum SubmitOutcome {
    /// Final: delivered.
    Succeeded(Receipt),
    /// The provider owns it now and tells the outcome later.
    Accepted {
        /// The provider's own reference, where it gave one.
        provider_ref: Option<String>,
    },
    /// Definitely not delivered, and never will be under this reference.
    Rejected(Failure),
    /// No byte of the request left.
    NotSent(NotSentCause),
    /// Refused for pace, or everything of ours for a while; documented as not executed.
    Throttled {
        /// How long the provider asks us to wait.
        retry_after: Option<Duration>,
    },
    /// The provider knows this reference already: ask, never fail.
    Duplicate,
    /// May have been executed.
    Unknown(UnknownCause),
}

/// The outcome of a query.
#[derive(Debug, Clone, PartialEq)]
pub enum QueryOutcome {
    /// Final: delivered.
    Succeeded(Receipt),
    /// The provider is still at it.
    InProgress,
    /// Final: not delivered.
    Failed(Failure),
    /// Delivered, then taken back.
    Reversed(Receipt),
    /// The provider does not know the reference. Proves nothing by itself.
    NotFound,
    /// The provider says that it does not know the outcome.
    ProviderUnknown,
    /// The query did not leave in time, for a reason on our side: nobody was asked.
    NotAsked,
    /// The query itself failed: proves nothing.
    Unavailable {
        /// How long the provider asks us to wait before it is asked about this reference again.
        retry_after: Option<Duration>,
    },
    /// Our questions come too fast, whatever they are about: proves nothing.
    Throttled {
        /// How long the provider asks us to put no question.
        retry_after: Option<Duration>,
    },
    /// Nothing of ours is taken for a while, be it a question or a recharge: proves nothing.
    Banned {
        /// How long it lasts.
        retry_after: Option<Duration>,
    },
}

/// What the provider says it delivered.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Receipt {
    /// The provider's own reference.
    pub provider_ref: Option<String>,
    /// The delivered amount, where the provider tells it.
    pub delivered: Option<Money>,
    /// When the provider delivered, where it tells.
    pub delivered_at: Option<Timestamp>,
}

/// A definite "no".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its class, common to all providers.
    pub class: FailureClass,
    /// The provider's own code, for people.
    pub code: String,
    /// Whether another attempt may help.
    pub advice: RetryAdvice,
}

super::state::text_enum! {
    /// Why a provider says no.
    FailureClass {
        /// The number does not exist.
        InvalidRecipient = "invalid_recipient",
        /// The number may not be recharged.
        RecipientBarred = "recipient_barred",
        /// This amount is not sold.
        AmountNotAllowed = "amount_not_allowed",
        /// A limit of the recipient or of ours.
        LimitReached = "limit_reached",
        /// The number was recharged a moment ago: look at the attempt before.
        CooldownActive = "cooldown_active",
        /// The phone operator is down.
        OperatorUnavailable = "operator_unavailable",
        /// Our balance at the provider is too low.
        InsufficientFloat = "insufficient_float",
        /// Our credentials or configuration.
        AuthOrConfig = "auth_or_config",
        /// Any other documented "no".
        ProviderDeclared = "provider_declared",
        /// Cancelled on our request.
        Cancelled = "cancelled",
    }
}

/// Whether another attempt may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAdvice {
    /// The answer will not change.
    Never,
    /// A new attempt, under a new reference, may be made after this long.
    NewAttempt {
        /// The least wait.
        after: Duration,
    },
    /// Only once we have mended something ourselves.
    AfterOperatorAction,
}

super::state::text_enum! {
    /// Why no byte left.
    NotSentCause {
        /// No connection: refused, no route, name not found, TLS failed.
        Connect = "connect",
        /// The send window of the claim had closed.
        WindowClosed = "window_closed",
        /// No permit came inside the send window.
        NoPermit = "no_permit",
        /// The request could not be built from this order.
        Unbuildable = "unbuildable",
    }
}

super::state::text_enum! {
    /// Why the outcome is unknown.
    UnknownCause {
        /// No complete answer within the call time-out.
        Timeout = "timeout",
        /// The connection broke after the first byte had left.
        Reset = "reset",
        /// A server error.
        ServerError = "server_error",
        /// A body that is not what the provider documents.
        BrokenBody = "broken_body",
        /// A code that is in no table of ours.
        UnmappedCode = "unmapped_code",
    }
}

/// What a provider does with a client reference that it has seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DuplicateSemantics {
    /// Refuses it whatever became of the first.
    RejectsAlways,
    /// Refuses it unless the first failed; then it is a new paid order.
    RejectsUnlessFailed,
    /// Answers with the first one's result.
    ReplaysResult,
    /// Executes it again.
    NotDeduplicated,
}

impl DuplicateSemantics {
    /// Whether the same reference may be sent again without risking a second delivery.
    pub fn resend_is_safe(self) -> bool {
        if is_planted(Bug::UnsafeResend) {
            return true;
        }
        match self {
            Self::RejectsAlways | Self::ReplaysResult => true,
            Self::RejectsUnlessFailed | Self::NotDeduplicated => false,
        }
    }
}

/// Which client references a provider takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefFormat {
    /// The greatest length in characters.
    pub max_len: u8,
    /// Letters and digits only.
    pub alphanumeric_only: bool,
}

impl RefFormat {
    /// Whether a text fits.
    pub fn takes(self, text: &str) -> bool {
        text.len() <= usize::from(self.max_len)
            && (!self.alphanumeric_only || text.bytes().all(|b| b.is_ascii_alphanumeric()))
    }
}

/// What a provider promises and forbids. Constants of its contract, not of ours.
#[derive(Debug, Clone, PartialEq)]
pub struct Capabilities {
    /// What it does with a known reference.
    pub duplicates: DuplicateSemantics,
    /// The first query may be sent this long after the submit.
    pub query_not_before: Duration,
    /// The least time between two queries of one reference.
    pub query_min_interval: Duration,
    /// How long it answers queries.
    pub query_retention: Duration,
    /// "Not found" counts only this long after the last send.
    pub not_found_grace: Duration,
    /// The same number is refused for this long after a recharge.
    pub same_number_cooldown: Option<Duration>,
    /// Which references it takes.
    pub client_ref: RefFormat,
    /// How long one call may take.
    pub call_timeout: Duration,
    /// Whether a signed callback settles its order; else it only leads to a query.
    pub callback_settles: bool,
}
