//! Reloadly's callbacks. Their signature is known from public integrations, which agree about it; about where in the
//! body the state stands these do not, so it is looked for in each of the places.

use serde::Deserialize;

use crate::domain::{ClientRef, Timestamp};
use crate::ports::{CallbackRefusal, RawCallback};
use crate::providers::answers::{self, Object};
use crate::providers::{Secret, signature};

/// A number above this is a time in milliseconds: in seconds it would lie thousands of years ahead.
const MILLIS_FROM: i64 = 100_000_000_000;

#[derive(Deserialize)]
pub(super) struct Told {
    data: Object<Data>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    status: Option<String>,
    airtime_transaction_status: Option<String>,
    transaction_id: Option<u64>,
    custom_identifier: Option<String>,
}

/// `X-Reloadly-Signature` is the HMAC of the body, a colon and `X-Reloadly-Request-Timestamp`, in hexadecimal digits.
pub(super) fn verify(keys: &[Secret], callback: &RawCallback, now: Timestamp) -> Result<bool, CallbackRefusal> {
    if keys.is_empty() {
        return Ok(false);
    }
    let header = |name| callback.header(name).ok_or(CallbackRefusal::Forged);
    let (given, at) = (header("x-reloadly-signature")?, header("x-reloadly-request-timestamp")?);
    let given = signature::from_hex(given).ok_or(CallbackRefusal::Forged)?;
    if !signature::is_signed(keys, &[&callback.body, b":", at.as_bytes()], &given) {
        return Err(CallbackRefusal::Forged);
    }
    signature::in_window(moment(at), now)
}

/// As seconds, as milliseconds, or as a date: which it is is not published.
fn moment(text: &str) -> Option<Timestamp> {
    match text.parse::<i64>() {
        Ok(millis) if millis >= MILLIS_FROM => Timestamp::from_timestamp_millis(millis),
        Ok(seconds) => Timestamp::from_timestamp(seconds, 0),
        Err(_) => chrono::DateTime::parse_from_rfc3339(text).ok().map(|at| at.to_utc()),
    }
}

pub(super) fn read(body: &[u8]) -> Option<Told> {
    answers::read(body)
}

impl Told {
    pub(super) fn status(&self) -> Option<&str> {
        self.data.status.as_deref().or(self.data.airtime_transaction_status.as_deref())
    }

    pub(super) fn client_ref(&self) -> Option<ClientRef> {
        self.data.custom_identifier.as_deref().map(ClientRef::from_stored)
    }

    pub(super) fn provider_ref(&self) -> Option<String> {
        self.data.transaction_id.map(|id| id.to_string())
    }
}
