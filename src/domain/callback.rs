//! Callbacks: the address that a provider is given with a request, so that its callback names its order without a search;
//! and what is made of a word that nobody has proved.
//!
//! The address ends in a token, `ORDER.ATTEMPT.MAC`: nobody who has not been given one can make one. It holds for its attempt as
//! long as its key is known, and gives nothing away: whoever holds it can make us ask the provider, and no more.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::ids::{OrderId, ProviderId};
use super::order::Order;
use super::outcome::QueryOutcome;
use super::state::{AttemptState, State};

/// So many bytes of the code are in the token: 128 bits.
const MAC_BYTES: usize = 16;

/// Why a text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key for callback addresses has at least 16 bytes")]
pub struct WeakCallbackKey;

/// A secret of the fleet.
#[derive(Clone)]
pub struct CallbackKey(Hmac<Sha256>);

impl CallbackKey {
    /// Takes a secret of at least 16 bytes.
    pub fn new(secret: &[u8]) -> Result<Self, WeakCallbackKey> {
        if secret.len() < 16 {
            return Err(WeakCallbackKey);
        }
        Hmac::new_from_slice(secret).map(Self).map_err(|_| WeakCallbackKey)
    }

    fn mac(&self, provider: &ProviderId, order_id: &str, attempt: &str) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        // None of the three can hold a line end.
        for part in ["callback", provider.as_str(), order_id, attempt] {
            mac.update(part.as_bytes());
            mac.update(b"\n");
        }
        mac
    }
}

impl std::fmt::Debug for CallbackKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CallbackKey(****)")
    }
}

/// Makes and reads the addresses of one provider's callbacks.
#[derive(Debug, Clone)]
pub struct CallbackLinks {
    provider: ProviderId,
    /// Without its last slash.
    public_url: String,
    /// The first signs; every one is accepted, so that a key can be replaced while callbacks are awaited.
    keys: Vec<CallbackKey>,
}

impl CallbackLinks {
    /// `public_url` is where the provider reaches our listener.
    pub fn new(provider: ProviderId, public_url: &str, keys: Vec<CallbackKey>) -> Self {
        Self { provider, public_url: public_url.trim_end_matches('/').to_owned(), keys }
    }

    /// The address for an attempt; `None` without a key.
    pub fn link(&self, order_id: &OrderId, attempt: u16) -> Option<String> {
        let attempt = attempt.to_string();
        let mac = self.keys.first()?.mac(&self.provider, order_id.as_str(), &attempt).finalize().into_bytes();
        let mac = URL_SAFE_NO_PAD.encode(mac.get(..MAC_BYTES)?);
        Some(format!("{}/callbacks/{}/{order_id}.{attempt}.{mac}", self.public_url, self.provider))
    }

    /// Whose attempt a token names, if it is one of ours. Takes as long whatever is wrong with it.
    pub fn open(&self, token: &str) -> Option<(OrderId, u16)> {
        let mut parts = token.rsplitn(3, '.');
        let (mac, attempt, order_id) = (parts.next()?, parts.next()?, parts.next()?);
        let given = URL_SAFE_NO_PAD.decode(mac).ok().filter(|mac| mac.len() == MAC_BYTES).unwrap_or_default();
        let mut is_ours = false;
        for key in &self.keys {
            let mac = key.mac(&self.provider, order_id, attempt);
            // In constant time; an empty code is the prefix of any.
            is_ours |= given.len() == MAC_BYTES && mac.verify_truncated_left(&given).is_ok();
        }
        if !is_ours {
            return None;
        }
        Some((OrderId::parse(order_id).ok()?, attempt.parse().ok()?))
    }
}

/// What is done about a word that is not proved: it moves no order, and leads to a question at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heed {
    /// It is known, or tells nothing.
    Nothing,
    /// The question that stands about the current attempt comes sooner.
    Ask,
    /// Nobody asks about that attempt any more: somebody must.
    Confirm,
}

impl Heed {
    /// Of a word about attempt `number` of an order.
    pub fn to(order: &Order, number: u16, said: &QueryOutcome) -> Self {
        let is_current = number == order.attempt_number();
        if is_current && order.asks() {
            return Self::Ask;
        }
        let is_sent = order.attempt.as_ref().is_some_and(|attempt| attempt.state == AttemptState::Sent);
        if is_current && is_sent && order.state == State::InFlight {
            // Its caller is about to hear it; one that has gone is replaced by somebody who asks.
            return Self::Nothing;
        }
        match (said, order.is_delivered(number)) {
            (QueryOutcome::Succeeded(_), false) | (QueryOutcome::Failed(_) | QueryOutcome::Reversed(_), true) => {
                Self::Confirm
            }
            (QueryOutcome::Succeeded(_), true)
            | (QueryOutcome::Failed(_) | QueryOutcome::Reversed(_), false)
            | (
                QueryOutcome::InProgress
                | QueryOutcome::NotFound
                | QueryOutcome::ProviderUnknown
                | QueryOutcome::NotAsked
                | QueryOutcome::Unavailable { .. }
                | QueryOutcome::Throttled { .. }
                | QueryOutcome::Banned { .. },
                _,
            ) => Self::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn links(provider: &str, secrets: &[&str]) -> CallbackLinks {
        let keys = secrets.iter().map(|secret| CallbackKey::new(secret.as_bytes()).unwrap()).collect();
        CallbackLinks::new(ProviderId::new(provider), "https://shop.example/recharge/", keys)
    }

    const OLD: &str = "old-secret-of-the-fleet";
    const NEW: &str = "new-secret-of-the-fleet";

    fn token(links: &CallbackLinks, order_id: &str, attempt: u16) -> String {
        let link = links.link(&OrderId::parse(order_id).unwrap(), attempt).unwrap();
        let token = link.strip_prefix("https://shop.example/recharge/callbacks/one/").unwrap();
        token.to_owned()
    }

    #[test]
    fn a_token_names_its_attempt_to_whoever_has_a_key_and_to_nobody_else() {
        let token = token(&links("one", &[OLD]), "shop.2026-7_x", 3);
        let expected = Some((OrderId::parse("shop.2026-7_x").unwrap(), 3));
        assert_eq!(links("one", &[OLD]).open(&token), expected);
        assert_eq!(links("one", &[NEW, OLD]).open(&token), expected, "while a key is replaced, both are good");
        assert_eq!(links("one", &[NEW]).open(&token), None);
        assert_eq!(links("two", &[OLD]).open(&token), None, "of another provider");
        assert_eq!(links("one", &[]).open(&token), None);
        assert!(links("one", &[]).link(&OrderId::parse("a").unwrap(), 1).is_none());
    }

    #[test]
    fn a_short_secret_is_no_key() {
        assert!(CallbackKey::new(b"short").is_err());
    }

    proptest! {
        #[test]
        fn no_change_of_a_token_is_accepted(order in "[A-Za-z0-9._-]{1,64}", attempt in 1_u16.., at in 0_usize..90, with in "[A-Za-z0-9._-]") {
            let links = links("one", &[OLD]);
            let good = token(&links, &order, attempt);
            prop_assert_eq!(links.open(&good), Some((OrderId::parse(&order).unwrap(), attempt)));
            let at = at % good.len();
            let mut changed = good.clone();
            changed.replace_range(at..=at, &with);
            // The last character of a code carries four bits that mean nothing.
            if changed != good && at + 1 < good.len() {
                prop_assert_eq!(links.open(&changed), None, "{}", changed);
            }
            for short in 0..good.len() {
                prop_assert_eq!(links.open(&good[..short]), None);
            }
        }

        #[test]
        fn no_text_breaks_it(text in ".{0,120}") {
            prop_assert_eq!(links("one", &[OLD]).open(&text), None);
        }
    }
}
