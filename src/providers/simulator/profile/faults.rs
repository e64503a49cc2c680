//! The parts of a profile that are trouble.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::class::FaultClass;
use super::super::text::{duration_text, optional_duration};
use super::Latency;

/// How many recharges are refused.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Declines {
    /// For good, of 1.
    pub fatal: f64,
    /// With the advice to try again, of 1.
    pub retryable: f64,
    /// The wait that goes with that advice.
    #[serde(with = "duration_text")]
    pub retry_after: Duration,
    /// How many refusals come with status 500 or 200 in place of 422, of 1: some providers do that.
    pub odd_status: f64,
    /// How many submits are refused for pace although the pace was kept, of 1: by 429 with and
    /// without `Retry-After`, and by the same word in a 200. Nothing is executed.
    pub throttled: f64,
}

impl Default for Declines {
    fn default() -> Self {
        Self { fatal: 0.0, retryable: 0.0, retry_after: Duration::from_secs(1), odd_status: 0.0, throttled: 0.0 }
    }
}

/// What becomes of a caller that keeps no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ban {
    /// So many abuses lead to it: requests over a rate limit, queries too early or too often.
    pub after: u32,
    /// If they come within this time.
    #[serde(with = "duration_text")]
    pub within: Duration,
    /// So long every request is refused. What is refused meanwhile is no abuse.
    #[serde(with = "duration_text")]
    pub lasts: Duration,
    /// Whether the refusal says how long it still lasts.
    #[serde(default = "super::yes")]
    pub tells_when: bool,
}

/// How often a fault strikes, of 1, before the recharge is executed and after it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rates {
    /// The recharge is not executed.
    pub before: f64,
    /// The recharge is executed.
    pub after: f64,
}

/// Something that begins by chance and lasts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Spell {
    /// How often it begins, of 1.
    pub rate: f64,
    /// How long it lasts.
    pub lasts: Latency,
}

impl Spell {
    /// At this rate, always as long.
    pub const fn fixed(rate: f64, lasts: Duration) -> Self {
        Self { rate, lasts: Latency::Fixed(lasts) }
    }
}

impl Default for Spell {
    fn default() -> Self {
        Self::fixed(0.0, Duration::from_secs(5))
    }
}

macro_rules! faults {
    ($($(#[$doc:meta])* $field:ident $kind:ident $before:ident $after:ident),+ $(,)?) => {
        /// Failures that leave the caller in doubt. At most one strikes a request.
        #[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Faults {
            $($(#[$doc])* pub $field: Rates,)+
        }

        /// The kinds of [`Faults`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(in super::super) enum FaultKind {
            $($kind,)+
        }

        impl FaultKind {
            pub(in super::super) const ALL: [Self; [$(Self::$kind),+].len()] = [$(Self::$kind),+];

            /// Before the execution, and after it.
            pub(in super::super) const fn classes(self) -> (FaultClass, FaultClass) {
                match self { $(Self::$kind => (FaultClass::$before, FaultClass::$after),)+ }
            }
        }

        impl Faults {
            /// All of them alike.
            pub const fn all(rates: Rates) -> Self {
                Self { $($field: rates,)+ }
            }

            pub(in super::super) fn rates(&self) -> [(FaultKind, Rates); FaultKind::ALL.len()] {
                [$((FaultKind::$kind, self.$field)),+]
            }
        }
    };
}

faults! {
    /// The connection is reset in place of an answer.
    reset Reset ResetBefore ResetAfter,
    /// No answer ever comes.
    hang Hang HangBefore HangAfter,
    /// The answer comes, a byte a second.
    slow_drip SlowDrip SlowDripBefore SlowDripAfter,
    /// Status 500 without a word of the protocol.
    error_500 Error500 Error500Before Error500After,
    /// The same with status 502.
    error_502 Error502 Error502Before Error502After,
    /// The same with status 503.
    error_503 Error503 Error503Before Error503After,
    /// The same with status 504.
    error_504 Error504 Error504Before Error504After,
    /// JSON that ends in the middle.
    truncated Truncated TruncatedBefore TruncatedAfter,
    /// A code that is in no documentation.
    unknown_code UnknownCode UnknownCodeBefore UnknownCodeAfter,
    /// A page of HTML with status 200.
    html_page HtmlPage HtmlPageBefore HtmlPageAfter,
    /// A page of HTML with status 502, as gateways send it.
    html_error HtmlError HtmlErrorBefore HtmlErrorAfter,
    /// Status 200 with `{code: "system_error"}`, documented as "ask, do not take it for a failure".
    error_200 Error200 Error200Before Error200After,
}

/// What becomes of a recharge other than plainly delivered or refused. At most one happens to a
/// recharge, and it goes before `declines`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Outcomes {
    /// Accepted and never completed, of 1.
    pub never: f64,
    /// Accepted and then failed, of 1.
    pub accepted_then_failed: f64,
    /// Told failed, and delivered so long after it: the provider contradicts itself.
    pub late_success: Spell,
    /// Delivered, and taken back so long after it.
    pub reversed: Spell,
    /// Delivered with half the amount, of 1.
    pub wrong_amount: f64,
    /// Accepted; for so long the provider says that it does not know, and then what is true.
    pub unknown: Spell,
}

/// Trouble of queries, and what a caller may not do.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Queries {
    /// How many are answered by a 500, of 1.
    pub failing: f64,
    /// How many begin an outage in which every query is answered by a 503.
    pub outage: Spell,
    /// How many references are not found for so long after their submit.
    pub not_found_lag: Spell,
    /// How many references are told "in progress" for so long after their end.
    pub stale: Spell,
    /// Sooner after the submit a query is refused.
    #[serde(with = "optional_duration", skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Duration>,
    /// Sooner after the query before it, of the same reference, a query is refused.
    #[serde(with = "optional_duration", skip_serializing_if = "Option::is_none")]
    pub min_interval: Option<Duration>,
    /// So long after its submit a reference is forgotten by queries.
    #[serde(with = "optional_duration", skip_serializing_if = "Option::is_none")]
    pub retention: Option<Duration>,
}
