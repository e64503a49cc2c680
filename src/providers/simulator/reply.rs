//! What goes back, before it is put into a provider's words (`dialect`).

use std::time::Duration;

use bytes::Bytes;

use super::engine::Life;
use super::fate::{Pace, Refusal};
use crate::domain::ClientRef;

/// What goes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// A word of the provider.
    Say(Word),
    /// Bytes that are nobody's word: a page, what a script says.
    Raw { status: u16, body: Bytes },
    /// The first half of an answer.
    Half(Box<Self>),
    /// An answer, a byte a second, without its last.
    Drip(Box<Self>),
    /// The connection is reset.
    Reset,
    /// Nothing, ever.
    Hang,
}

/// What a provider can say, in no provider's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// How a reference stands: to whoever sent it, or asks about it.
    Stands {
        client_ref: ClientRef,
        life: Life,
        asked: bool,
    },
    /// The provider does not know what became of it.
    Unclear(ClientRef),
    /// A recharge that was never begun.
    Refused(Refusal),
    /// The reference is known.
    Duplicate,
    Unauthorized,
    /// No request of this provider's protocol.
    Malformed,
    /// A code that no document has.
    UnknownCode,
    /// A question that comes too early, or too often.
    NotNow {
        code: &'static str,
        wait: Duration,
    },
    /// Documented as: ask, do not take it for a failure.
    SystemError,
    /// Too fast.
    Throttled {
        wait: Option<Duration>,
        in_body: bool,
    },
    /// Nothing of this caller's is taken for a while.
    Banned {
        wait: Option<Duration>,
    },
}

/// What a browser shows where a provider was expected.
const PAGE: &[u8] =
    b"<!doctype html><html><head><title>We will be back</title></head><body><h1>Maintenance</h1></body></html>";
/// What a gateway sends for a server that it does not reach.
const BAD_GATEWAY: &[u8] =
    b"<html><head><title>502 Bad Gateway</title></head><body><center><h1>502 Bad Gateway</h1></center></body></html>";

impl Reply {
    /// How a reference stands, to whoever sent it.
    pub(super) fn sent(client_ref: &ClientRef, life: Life) -> Self {
        Self::Say(Word::Stands { client_ref: client_ref.clone(), life, asked: false })
    }

    /// How a reference stands, to whoever asks.
    pub(super) fn asked(client_ref: &str, life: Life) -> Self {
        Self::Say(Word::Stands { client_ref: ClientRef::from_stored(client_ref), life, asked: true })
    }

    pub(super) fn not_found(client_ref: &str) -> Self {
        Self::asked(client_ref, Life::Nothing)
    }

    /// Refused for pace although the pace was kept.
    pub(super) fn slow_down(pace: Pace) -> Self {
        let wait = Duration::from_secs(1);
        Self::Say(match pace {
            Pace::Told => Word::Throttled { wait: Some(wait), in_body: false },
            Pace::Untold => Word::Throttled { wait: None, in_body: false },
            Pace::InBody => Word::Throttled { wait: Some(wait), in_body: true },
        })
    }

    /// A server error without a word of the protocol.
    pub(super) fn error(status: u16) -> Self {
        let body: &[u8] = match status {
            502 => b"bad gateway",
            503 => b"service unavailable",
            504 => b"gateway timeout",
            _ => b"internal error",
        };
        Self::Raw { status, body: Bytes::from_static(body) }
    }

    pub(super) fn page() -> Self {
        Self::Raw { status: 200, body: Bytes::from_static(PAGE) }
    }

    pub(super) fn bad_gateway() -> Self {
        Self::Raw { status: 502, body: Bytes::from_static(BAD_GATEWAY) }
    }
}
