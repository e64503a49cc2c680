//! The answers of the simulator's protocol.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use super::engine::Life;
use super::fate::{Dice, Refusal};
use crate::domain::{ClientRef, Currency, Timestamp};

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
}

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
            Err(_) => Reply::error_500(),
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
            Life::Delivered { amount, at } => Body {
                status: Some("succeeded"),
                provider_ref: Some(provider_ref(client_ref)),
                amount_minor: Some(amount.minor),
                currency: Some(amount.currency),
                delivered_at: Some(at),
                ..Body::default()
            }
            .answer(200),
        }
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

    /// With the wait in the header, in whole seconds rounded up, and exactly in the body.
    pub(super) fn throttled(wait: Option<Duration>) -> Self {
        let body = Body { code: Some("throttled"), retry_after_ms: wait.map(|w| millis(w).max(1)), ..Body::default() };
        let seconds = wait.map(|wait| wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
        match body.answer(429) {
            Self::Answer { status, body, .. } => Self::Answer { status, body, retry_after: seconds },
            other @ (Self::Reset | Self::Hang) => other,
        }
    }

    pub(super) fn error_500() -> Self {
        Self::Answer { status: 500, body: Bytes::from_static(b"internal error"), retry_after: None }
    }

    /// The same answer, cut in the middle.
    pub(super) fn truncated(self) -> Self {
        match self {
            Self::Answer { status, body, retry_after } => {
                Self::Answer { status, body: body.slice(..body.len() / 2), retry_after }
            }
            other @ (Self::Reset | Self::Hang) => other,
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
