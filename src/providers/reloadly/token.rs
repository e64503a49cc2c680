//! The OAuth 2 token of a client: one for all calls, got before it is needed, and again before it ends.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Method};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tracing::{info, warn};

use crate::domain::ProviderId;
use crate::ports::Clock;
use crate::providers::http::{HttpRequest, HttpResult, HttpTransport};
use crate::providers::{Secret, answers};

/// A token is replaced this long before its end, or at half of its life if that is shorter.
const BEFORE_ITS_END: Duration = Duration::from_mins(5);
/// A token that says nothing of its end is asked for again after this long.
const UNTOLD: Duration = Duration::from_mins(10);
/// None is kept for longer than this, however long it is said to last.
const LONGEST: Duration = Duration::from_hours(90 * 24);
/// After a failure, the next try.
const AGAIN: Duration = Duration::from_secs(1);

/// Gets the token, and keeps it.
#[derive(Debug)]
pub(super) struct TokenSource {
    provider: ProviderId,
    transport: HttpTransport,
    clock: Arc<dyn Clock>,
    client_id: String,
    secret: Secret,
    /// What the token is for: where the API begins.
    audience: String,
    held: RwLock<Held>,
    /// Whoever asks for a token holds this; the others wait for the same one.
    asking: Mutex<()>,
}

#[derive(Debug, Default)]
struct Held {
    bearer: Option<HeaderValue>,
    /// Which token this is: whoever was refused with an older one need not ask again.
    number: u64,
    /// On the clock since boot: until then nobody asks for another, and until then it is good.
    fresh_until: Duration,
    ends_at: Duration,
    /// No other is asked for before.
    not_before: Duration,
}

impl Held {
    fn token(&self) -> Option<Token> {
        Some(Token { bearer: self.bearer.clone()?, number: self.number })
    }
}

/// A token in use.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) bearer: HeaderValue,
    number: u64,
}

#[derive(Serialize)]
struct Login<'a> {
    client_id: &'a str,
    client_secret: &'a str,
    grant_type: &'static str,
    audience: &'a str,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: Option<u64>,
}

impl TokenSource {
    pub(super) fn new(
        provider: ProviderId,
        transport: HttpTransport,
        (client_id, secret): (&str, &Secret),
        audience: &str,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            provider,
            transport,
            clock,
            client_id: client_id.to_owned(),
            secret: secret.clone(),
            audience: audience.trim_end_matches('/').to_owned(),
            held: RwLock::default(),
            asking: Mutex::default(),
        }
    }

    /// The token at hand, if it is good still.
    pub(super) fn at_hand(&self) -> Option<Token> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.token().filter(|_| self.clock.since_boot() < held.fresh_until)
    }

    /// The token at hand, or a new one; `None` where none can be had now.
    pub(super) async fn get(&self) -> Option<Token> {
        if let Some(token) = self.at_hand() {
            return Some(token);
        }
        let _asking = self.asking.lock().await;
        if let Some(token) = self.at_hand() {
            return Some(token);
        }
        let now = self.clock.since_boot();
        let may_ask = now >= self.held.read().unwrap_or_else(PoisonError::into_inner).not_before;
        let granted = if may_ask { self.ask().await } else { None };
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        match granted {
            Some((bearer, lasts)) => {
                held.bearer = Some(bearer);
                held.number += 1;
                held.fresh_until = now + lasts.saturating_sub(BEFORE_ITS_END.min(lasts / 2));
                held.ends_at = now + lasts;
            }
            None if may_ask => held.not_before = self.clock.since_boot() + AGAIN,
            None => {}
        }
        // The one before is good to its end.
        held.token().filter(|_| self.clock.since_boot() < held.ends_at)
    }

    /// The provider takes a token no more; unless there is a newer one, the next call gets one.
    pub(super) fn refused(&self, token: &Token) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        if held.number == token.number {
            held.bearer = None;
        }
    }

    async fn ask(&self) -> Option<(HeaderValue, Duration)> {
        let login = Login {
            client_id: &self.client_id,
            client_secret: self.secret.expose(),
            grant_type: "client_credentials",
            audience: &self.audience,
        };
        let request = HttpRequest {
            method: Method::POST,
            path: "/oauth/token".to_owned(),
            headers: HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]),
            body: Bytes::from(serde_json::to_vec(&login).ok()?),
        };
        // It recharges nobody: there is no window for its first byte but its own time-out.
        let send_by = self.clock.since_boot() + Duration::from_mins(1);
        let response = match self.transport.call(&request, send_by).await {
            HttpResult::Response(response) => response,
            HttpResult::NotSent(_) | HttpResult::Unknown(_) => {
                warn!(provider = %self.provider, "no token: auth_url does not answer");
                return None;
            }
        };
        let granted = answers::read::<Granted>(&response.body).filter(|_| response.status.is_success());
        let Some(granted) = granted else {
            // Not its words: they may repeat what was sent.
            warn!(provider = %self.provider, status = response.status.as_u16(),
                "no token: check account and key_file");
            return None;
        };
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", granted.access_token)).ok()?;
        bearer.set_sensitive(true);
        let lasts = granted.expires_in.map_or(UNTOLD, Duration::from_secs).min(LONGEST);
        info!(provider = %self.provider, seconds = lasts.as_secs(), "a new token");
        Some((bearer, lasts))
    }
}
