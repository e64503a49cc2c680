//! What a callback looks like in each dialect, and what acknowledges it.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, Mac as _};
use serde_json::json;
use sha2::Sha256;
use url::form_urlencoded;
use uuid::Uuid;

use super::super::engine::{Engine, Life};
use super::super::reply::Word;
use super::{Dialect, mf178, reloadly, small_number};
use crate::domain::ClientRef;
use crate::providers::Secret;
use crate::providers::mf178::sign;

/// By how many seconds the timestamp of a stale callback is too old.
const STALE_SECONDS: i64 = 3_600;

/// What a callback says.
#[derive(Debug, Clone)]
pub(in super::super) struct Telling {
    pub(in super::super) client_ref: ClientRef,
    pub(in super::super) life: Life,
    /// The message's own; a resend is the same message.
    pub(in super::super) id: Uuid,
    /// Signed with another key.
    pub(in super::super) is_forged: bool,
    /// With a timestamp that is too old.
    pub(in super::super) is_stale: bool,
}

/// A callback as it goes over the wire.
#[derive(Debug, Clone)]
pub(in super::super) struct Letter {
    pub(in super::super) content_type: &'static str,
    pub(in super::super) headers: Vec<(&'static str, String)>,
    pub(in super::super) body: Bytes,
}

impl Telling {
    /// The truth, in a message of its own.
    pub(in super::super) fn of(client_ref: &ClientRef, life: Life) -> Self {
        Self { client_ref: client_ref.clone(), life, id: Uuid::new_v4(), is_forged: false, is_stale: false }
    }
}

impl Dialect {
    /// Whether its callbacks are signed. Those that are not are as good as the address that they come to.
    pub(in super::super) const fn signs_callbacks(self) -> bool {
        match self {
            Self::Own | Self::Mf178 | Self::Reloadly => true,
            Self::Dtone => false,
        }
    }

    /// Whether an answer acknowledges a callback.
    pub(in super::super) fn acknowledges(self, status: u16, body: &[u8]) -> bool {
        match self {
            Self::Own | Self::Dtone | Self::Reloadly => (200..300).contains(&status),
            Self::Mf178 => status == 200 && body == b"SUCCESS",
        }
    }

    /// A callback, as it is sent now.
    pub(in super::super) fn letter(self, engine: &Engine, telling: &Telling) -> Letter {
        let Telling { client_ref, life, id, is_forged, is_stale } = telling;
        let now = engine.now();
        let at = now.timestamp() - if *is_stale { STALE_SECONDS } else { 0 };
        let secret = Secret::new(&format!("{}{}", engine.secret(), if *is_forged { ", forged" } else { "" }));
        let asked = Word::Stands { client_ref: client_ref.clone(), life: *life, asked: true };
        let json = |headers, body| Letter { content_type: "application/json", headers, body };
        match self {
            Self::Own => {
                let body = with_reference(&self.wire(&asked, now).body, client_ref);
                let id = format!("msg_{}", id.simple());
                let signed = [id.as_bytes(), b".", at.to_string().as_bytes(), b".", &body].concat();
                let signature = format!("v1,{}", STANDARD.encode(hmac(&secret, &signed)));
                let headers =
                    vec![("webhook-id", id), ("webhook-timestamp", at.to_string()), ("webhook-signature", signature)];
                json(headers, body)
            }
            Self::Dtone => json(Vec::new(), self.wire(&asked, now).body),
            Self::Mf178 => {
                let filed = engine.filed.second(client_ref.as_str()).unwrap_or(at);
                let parameters = [
                    ("order_id", small_number(client_ref).to_string()),
                    ("third_id", client_ref.as_str().to_owned()),
                    ("state", mf178::state(*life).to_string()),
                    ("time", filed.to_string()),
                    ("timestamp", at.to_string()),
                ];
                let sign = sign::sign(parameters.iter().map(|(name, value)| (*name, value.as_str())), &secret);
                let mut form = form_urlencoded::Serializer::new(String::new());
                let body = form.extend_pairs(&parameters).append_pair("sign", &sign).finish();
                Letter { content_type: "application/x-www-form-urlencoded", headers: Vec::new(), body: body.into() }
            }
            Self::Reloadly => {
                let data = reloadly::told(client_ref, *life);
                let body = Bytes::from(json!({ "type": "airtime_transaction.status", "data": data }).to_string());
                let signed = [&body[..], b":", at.to_string().as_bytes()].concat();
                let mut signature = String::with_capacity(64);
                for byte in hmac(&secret, &signed) {
                    // Writing to a string cannot fail.
                    write!(signature, "{byte:02x}").unwrap_or_default();
                }
                let headers =
                    vec![("x-reloadly-request-timestamp", at.to_string()), ("x-reloadly-signature", signature)];
                json(headers, body)
            }
        }
    }
}

/// The answer to a query does not name whoever it is about: who asks knows that.
fn with_reference(body: &[u8], client_ref: &ClientRef) -> Bytes {
    let reference = serde_json::to_string(client_ref).unwrap_or_default();
    let rest = body.strip_prefix(b"{").unwrap_or(body);
    [b"{\"client_ref\":", reference.as_bytes(), b",", rest].concat().into()
}

fn hmac(secret: &Secret, text: &[u8]) -> Vec<u8> {
    // A key of any length will do.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()) else { return Vec::new() };
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}
