//! The answers of the simulator's protocol.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use super::dice::Dice;
use super::engine::Life;
use super::fate::{Pace, Refusal};
use crate::domain::{ClientRef, Currency, Money, Timestamp};

/// What goes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// An answer.
    Answer {
        status: u16,
        body: Bytes,
        /// For the header, in seconds.
        retry_after: Option<u64>,
    },
    /// The connection is reset.
    Reset,
    /// Nothing, ever.
    Hang,
    /// A byte a second.
    Drip { status: u16, body: Bytes },
}

/// What a browser shows where a provider was expected.
const PAGE: &[u8] =
    b"<!doctype html><html><head><title>We will be back</title></head><body><h1>Maintenance</h1></body></html>";
/// What a gateway sends for a server that it does not reach.
const BAD_GATEWAY: &[u8] =
    b"<html><head><title>502 Bad Gateway</title></head><body><center><h1>502 Bad Gateway</h1></center></body></html>";

#[derive(Serialize, Default)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider_ref: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retryable: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    amount_minor: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<Currency>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivered_at: Option<Timestamp>,
}

impl Body<'_> {
    fn answer(&self, status: u16) -> Reply {
        match serde_json::to_vec(self) {
            Ok(body) => Reply::Answer { status, body: body.into(), retry_after: None },
            Err(_) => Reply::error(500),
        }
    }
}

impl Reply {
    /// How a reference stands.
    pub(super) fn life(client_ref: &ClientRef, life: Life) -> Self {
        match life {
            Life::Nothing => Self::not_found(),
            Life::InProgress => Self::accepted(client_ref),
            Life::Refused(refusal) => Self::refused(refusal),
            Life::Delivered { amount, at } => Self::delivered("succeeded", client_ref, amount, at),
            Life::Reversed { amount, at } => Self::delivered("reversed", client_ref, amount, at),
        }
    }

    fn delivered(status: &'static str, client_ref: &ClientRef, amount: Money, at: Timestamp) -> Self {
        Body {
            status: Some(status),
            provider_ref: Some(provider_ref(client_ref)),
            amount_minor: Some(amount.minor),
            currency: Some(amount.currency),
            delivered_at: Some(at),
            ..Body::default()
        }
        .answer(200)
    }

    /// The provider does not know what became of it.
    pub(super) fn unclear(client_ref: &ClientRef) -> Self {
        Body { status: Some("unknown"), provider_ref: Some(provider_ref(client_ref)), ..Body::default() }.answer(200)
    }

    pub(super) fn accepted(client_ref: &ClientRef) -> Self {
        Body { status: Some("accepted"), provider_ref: Some(provider_ref(client_ref)), ..Body::default() }.answer(202)
    }

    pub(super) fn refused(refusal: Refusal) -> Self {
        Body {
            status: Some("rejected"),
            code: Some(refusal.code),
            retryable: Some(refusal.retry_after.is_some()),
            retry_after_ms: refusal.retry_after.map(millis),
            ..Body::default()
        }
        .answer(refusal.status)
    }

    pub(super) fn duplicate() -> Self {
        Self::code(409, "duplicate")
    }

    pub(super) fn not_found() -> Self {
        Self::code(404, "not_found")
    }

    pub(super) fn unauthorized() -> Self {
        Self::code(401, "unauthorized")
    }

    pub(super) fn malformed() -> Self {
        Self::code(400, "malformed")
    }

    pub(super) fn unknown_code() -> Self {
        Body { status: Some("rejected"), code: Some("E-9917"), ..Body::default() }.answer(422)
    }

    /// A question that the provider does not take now.
    pub(super) fn not_now(code: &'static str, wait: Duration) -> Self {
        let body = Body { code: Some(code), retry_after_ms: Some(millis(wait).max(1)), ..Body::default() };
        body.answer(403)
    }

    /// Documented as: ask, do not take it for a failure.
    pub(super) fn system_error() -> Self {
        Self::code(200, "system_error")
    }

    /// With the wait, where it is told, in the header, in whole seconds rounded up, and exactly in
    /// the body.
    pub(super) fn throttled(wait: Option<Duration>, in_body: bool) -> Self {
        let status = if in_body { 200 } else { 429 };
        Self::come_back(status, "throttled", wait, wait.filter(|_| !in_body))
    }

    /// Refused like everything else of a caller that was banned.
    pub(super) fn banned(wait: Option<Duration>) -> Self {
        Self::come_back(403, "banned", wait, wait)
    }

    fn come_back(status: u16, code: &str, in_body: Option<Duration>, in_header: Option<Duration>) -> Self {
        let retry_after_ms = in_body.map(|wait| millis(wait).max(1));
        let seconds = in_header.map(|wait| wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
        match (Body { code: Some(code), retry_after_ms, ..Body::default() }).answer(status) {
            Self::Answer { status, body, .. } => Self::Answer { status, body, retry_after: seconds },
            other @ (Self::Reset | Self::Hang | Self::Drip { .. }) => other,
        }
    }

    /// Refused for pace although the pace was kept.
    pub(super) fn slow_down(pace: Pace) -> Self {
        let wait = Duration::from_secs(1);
        match pace {
            Pace::Told => Self::throttled(Some(wait), false),
            Pace::Untold => Self::throttled(None, false),
            Pace::InBody => Self::throttled(Some(wait), true),
        }
    }

    /// A server error without a word of the protocol.
    pub(super) fn error(status: u16) -> Self {
        let body: &[u8] = match status {
            502 => b"bad gateway",
            503 => b"service unavailable",
            504 => b"gateway timeout",
            _ => b"internal error",
        };
        Self::Answer { status, body: Bytes::from_static(body), retry_after: None }
    }

    pub(super) fn page() -> Self {
        Self::Answer { status: 200, body: Bytes::from_static(PAGE), retry_after: None }
    }

    pub(super) fn bad_gateway() -> Self {
        Self::Answer { status: 502, body: Bytes::from_static(BAD_GATEWAY), retry_after: None }
    }

    /// The same answer, cut in the middle.
    pub(super) fn truncated(self) -> Self {
        match self {
            Self::Answer { status, body, retry_after } => {
                Self::Answer { status, body: body.slice(..body.len() / 2), retry_after }
            }
            other @ (Self::Reset | Self::Hang | Self::Drip { .. }) => other,
        }
    }

    /// The same answer, a byte a second.
    pub(super) fn dripping(self) -> Self {
        match self {
            Self::Answer { status, body, .. } => Self::Drip { status, body },
            other @ (Self::Reset | Self::Hang | Self::Drip { .. }) => other,
        }
    }

    fn code(status: u16, code: &str) -> Self {
        Body { code: Some(code), ..Body::default() }.answer(status)
    }
}

/// The provider's own reference: of the caller's, so that it is the same after a restart.
fn provider_ref(client_ref: &ClientRef) -> String {
    format!("S{:016x}", Dice::new(0, "provider ref", client_ref.as_str(), 0).next())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
