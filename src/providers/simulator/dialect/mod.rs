//! The protocols that the simulator speaks, over one engine and one ledger. A dialect reads requests, checks their login,
//! and puts what the engine says into its provider's words.

pub(super) mod dtone;
mod dtone_list;
mod letter;
mod listing;
pub(super) mod mf178;
mod own;
mod own_list;
pub(super) mod reloadly;
mod reloadly_list;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;

pub(super) use self::letter::{Letter, Telling};
pub(super) use self::own_list::Line as DayLine;
use super::dice::Dice;
use super::engine::{Engine, Order};
use super::reply::{Reply, Word};
use super::server::respond;
use crate::domain::{ClientRef, Currency, Money, Msisdn, Timestamp};
use crate::providers::Secret;

/// The longest reference, in bytes.
const REFERENCE_MAX: usize = 64;
/// The longest address for callbacks, in bytes: one is kept for each reference.
const CALLBACK_URL_MAX: usize = 2_048;

/// Whose protocol is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// The simulator's own.
    #[default]
    Own,
    /// DT One DVS.
    Dtone,
    /// mf178.
    Mf178,
    /// Reloadly Airtime.
    Reloadly,
}

impl Dialect {
    /// Every dialect.
    pub const ALL: [Self; 4] = [Self::Own, Self::Dtone, Self::Mf178, Self::Reloadly];

    /// Its name: that of the adapter that speaks it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Own => "simulator",
            Self::Dtone => "dtone",
            Self::Mf178 => "mf178",
            Self::Reloadly => "reloadly",
        }
    }

    /// Reads a name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dialect| dialect.as_str() == text)
    }

    /// The requests of the protocol.
    pub(super) fn router(self) -> Router<Arc<Engine>> {
        match self {
            Self::Own => own::router(),
            Self::Dtone => dtone::router(),
            Self::Mf178 => mf178::router(),
            Self::Reloadly => reloadly::router(),
        }
    }

    /// A word as it goes over the wire.
    pub(super) fn wire(self, word: &Word, now: Timestamp) -> Wire {
        match self {
            Self::Own => own::wire(word),
            Self::Dtone => dtone::wire(word, now),
            Self::Mf178 => mf178::wire(word),
            Self::Reloadly => reloadly::wire(word, now),
        }
    }
}

/// An answer as it goes over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wire {
    pub(super) status: u16,
    pub(super) body: Bytes,
    /// For the header, in seconds.
    pub(super) retry_after: Option<u64>,
}

impl Wire {
    fn json(status: u16, body: &impl Serialize) -> Self {
        match serde_json::to_vec(body) {
            Ok(body) => Self { status, body: body.into(), retry_after: None },
            Err(_) => Self { status: 500, body: Bytes::new(), retry_after: None },
        }
    }

    /// With a wait in the header, in whole seconds, rounded up.
    fn come_back(self, wait: Option<Duration>) -> Self {
        Self { retry_after: wait.map(|wait| wait.as_secs() + u64::from(wait.subsec_nanos() > 0)), ..self }
    }
}

/// The login that callers must show.
#[derive(Debug, Clone, Default)]
pub(super) struct Login {
    pub(super) account: Option<String>,
    pub(super) key: Option<Secret>,
}

impl Login {
    /// Whether an account and a key are these; whatever is not set is not asked for.
    pub(super) fn is(&self, account: &str, key: &str) -> bool {
        self.account.as_deref().is_none_or(|own| own == account) && self.has_key(key)
    }

    pub(super) fn has_key(&self, key: &str) -> bool {
        self.key.as_ref().is_none_or(|own| own.expose() == key)
    }

    /// What others sign with.
    pub(super) fn secret(&self) -> &str {
        self.key.as_ref().map_or("", Secret::expose)
    }
}

/// Of an `Authorization` header, what follows its scheme.
fn authorization<'a>(headers: &'a HeaderMap, scheme: &str) -> Option<&'a str> {
    headers.get(axum::http::header::AUTHORIZATION)?.to_str().ok()?.strip_prefix(scheme)?.strip_prefix(' ')
}

/// A request for a recharge, as read; the reference alone where the rest makes no sense.
struct Asked {
    client_ref: String,
    order: Option<(Msisdn, Money)>,
    /// Where the caller wants to hear of the end.
    callback_url: Option<String>,
}

impl Asked {
    fn order(self) -> Option<Order> {
        let (phone, amount) = self.order?;
        let callback_url = self.callback_url.filter(|url| url.len() <= CALLBACK_URL_MAX).map(Into::into);
        Some(Order { client_ref: ClientRef::from_stored(&self.client_ref), phone, amount, callback_url })
    }
}

/// A submit, after its login was looked at: at the door first, then what the provider does with it.
async fn submitted(engine: &Arc<Engine>, is_known: bool, asked: Result<Asked, Reply>) -> Response {
    let (client_ref, asked) = match asked {
        Ok(asked) if (1..=REFERENCE_MAX).contains(&asked.client_ref.len()) => (asked.client_ref.clone(), Ok(asked)),
        Ok(asked) => (asked.client_ref, Err(Reply::Say(Word::Malformed))),
        Err(reply) => (String::new(), Err(reply)),
    };
    let admission = engine.admit_submit(&client_ref, is_known).await;
    let reply = match (admission.reply, asked.map(Asked::order)) {
        (Some(reply), _) => reply,
        (None, Ok(Some(order))) => {
            engine.note_number(&order.client_ref);
            engine.submit(order).await
        }
        (None, Ok(None)) => engine.is_malformed(),
        (None, Err(reply)) => engine.refuses(reply),
    };
    respond(engine, reply, admission.pacing, |_, wire| wire).await
}

/// A question, likewise; `form` is how its answer differs from the plain one.
async fn questioned(
    engine: &Arc<Engine>,
    is_known: bool,
    client_ref: &str,
    form: impl Fn(&Word, Wire) -> Wire,
) -> Response {
    let admission = engine.admit_query(client_ref, is_known).await;
    let reply = match admission.reply {
        Some(reply) => reply,
        None => engine.query(client_ref).await,
    };
    respond(engine, reply, admission.pacing, form).await
}

/// A question about what nobody has sent.
async fn nobody(engine: &Arc<Engine>, is_known: bool) -> Response {
    let admission = engine.admit_query("", is_known).await;
    let reply = admission.reply.unwrap_or_else(|| Reply::not_found(""));
    respond(engine, reply, admission.pacing, |_, wire| wire).await
}

/// A provider's own number of a reference: of the caller's, so that it is the same after a restart.
pub(super) fn number(client_ref: &ClientRef) -> u64 {
    Dice::new(0, "provider ref", client_ref.as_str(), 0).next()
}

/// The same, small enough for every reader of JSON.
pub(super) fn small_number(client_ref: &ClientRef) -> u64 {
    number(client_ref) >> 11
}

/// A currency, by its code.
fn currency(text: &str) -> Option<Currency> {
    Currency::parse(text).ok()
}
