//! Identifiers. All are cheap to clone: a batch hands them to several owners.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::display::Base64Display;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::outcome::RefFormat;

/// The shop's order id: 1–64 characters of `A-Z a-z 0-9 . _ -` (`interface.md` section 4).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct OrderId(Arc<str>);

/// Why a text is no order id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an order id has 1 to 64 characters of A-Z a-z 0-9 . _ -")]
pub struct InvalidOrderId;

impl OrderId {
    /// The greatest length in bytes.
    pub const MAX_LEN: usize = 64;

    /// Checks and takes a text.
    pub fn parse(text: &str) -> Result<Self, InvalidOrderId> {
        let fits = (1..=Self::MAX_LEN).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if fits { Ok(Self(Arc::from(text))) } else { Err(InvalidOrderId) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for OrderId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// Takes the text from where it stands: one is read per command and per order.
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = OrderId;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an order id")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<OrderId, E> {
                OrderId::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl fmt::Debug for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A provider as the configuration names it (`[providers.primary]`); also the name of its lane.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProviderId(Arc<str>);

impl ProviderId {
    /// Takes a name as configured; `config` has checked its characters.
    pub fn new(name: &str) -> Self {
        Self(Arc::from(name))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Found in maps by its text.
impl std::borrow::Borrow<str> for ProviderId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ProviderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ProviderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names one claim: one permission to send one request, held by one process. In JSON it is 22
/// characters of URL-safe base-64 in place of a UUID's 36: the log holds one per claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClaimId(pub Uuid);

impl ClaimId {
    /// A new random claim id.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl Serialize for ClaimId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Base64Display::new(self.0.as_bytes(), &URL_SAFE_NO_PAD))
    }
}

impl<'de> Deserialize<'de> for ClaimId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let bytes = URL_SAFE_NO_PAD.decode(text.as_bytes()).map_err(serde::de::Error::custom)?;
        Uuid::from_slice(&bytes).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Our reference for an attempt, as the provider sees it. Deterministic, so that a restarted
/// process, a callback and the audit all arrive at the same text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClientRef(Arc<str>);

impl ClientRef {
    /// The reference of attempt `number` of `order`: both in clear where the provider's format
    /// takes them (people can read it at 3 a.m.), else a hash of both.
    pub fn for_attempt(order: &OrderId, number: u16, format: RefFormat) -> Self {
        let clear = Self::in_clear(order, number);
        if format.takes(clear.as_str()) { clear } else { Self(Arc::from(hashed(order, number, format).as_str())) }
    }

    /// The readable form, which neither row nor log need to hold.
    pub fn in_clear(order: &OrderId, number: u16) -> Self {
        Self(Arc::from(format!("{order}-{number}").as_str()))
    }

    /// Whether this is the readable form.
    pub fn is_in_clear(&self, order: &OrderId, number: u16) -> bool {
        let rest = self.as_str().strip_prefix(order.as_str()).and_then(|rest| rest.strip_prefix('-'));
        // Digits alone: a sign or leading zeros would be read as the same number.
        rest.is_some_and(|digits| !digits.starts_with(['+', '0']) && digits.parse() == Ok(number))
    }

    /// Whose reference this is, as far as it can be read: a hash is not told from any other text.
    pub fn attempt(&self, format: RefFormat) -> Option<(OrderId, u16)> {
        let (order, number) = self.as_str().rsplit_once('-')?;
        let (order, number) = (OrderId::parse(order).ok()?, number.parse().ok()?);
        (Self::for_attempt(&order, number, format) == *self).then_some((order, number))
    }

    /// Whether it may be the hash of an order and a number, which tells neither.
    pub fn may_be_hashed(&self) -> bool {
        let digits = self.as_str().strip_prefix('R').unwrap_or_default();
        (7..32).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
    }

    /// Takes a reference as read back from the store.
    pub fn from_stored(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ClientRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ClientRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `R` and up to 31 base-32 characters of SHA-256: 155 bits at full length, alphanumeric.
fn hashed(order: &OrderId, number: u16, format: RefFormat) -> String {
    use sha2::{Digest, Sha256};
    const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let mut hasher = Sha256::new();
    hasher.update(order.as_str().as_bytes());
    hasher.update([0]);
    hasher.update(number.to_be_bytes());
    let digest = hasher.finalize();
    let length = usize::from(format.max_len).clamp(8, 32);
    let mut text = String::with_capacity(length);
    text.push('R');
    let (mut bits, mut held) = (0_u32, 0_u32);
    for byte in digest {
        bits = (bits << 8) | u32::from(byte);
        held += 8;
        while held >= 5 {
            if text.len() == length {
                return text;
            }
            held -= 5;
            let index = usize::try_from((bits >> held) & 31).unwrap_or(0);
            text.push(char::from(ALPHABET.get(index).copied().unwrap_or(b'0')));
        }
        bits &= (1 << held) - 1;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: RefFormat = RefFormat { max_len: 64, alphanumeric_only: false };
    const NARROW: RefFormat = RefFormat { max_len: 32, alphanumeric_only: true };

    #[test]
    fn an_order_id_takes_exactly_the_documented_characters() {
        for good in ["a", "A-1_2.x", &"x".repeat(64)] {
            assert_eq!(OrderId::parse(good).map(|id| id.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "a b", "é", "a/b", &"x".repeat(65), "a\0"] {
            assert_eq!(OrderId::parse(bad), Err(InvalidOrderId), "{bad:?}");
        }
    }

    #[test]
    fn only_the_readable_form_is_taken_for_it() {
        let id = OrderId::parse("a-1").unwrap();
        assert!(ClientRef::in_clear(&id, 12).is_in_clear(&id, 12));
        for other in ["a-1-2", "a-1-012", "a-1-+12", "a-1", "a-112", "a-1-12x", "R0123"] {
            assert!(!ClientRef::from_stored(other).is_in_clear(&id, 12), "{other}");
        }
    }

    #[test]
    fn a_claim_is_22_characters_in_json_and_reads_back() {
        let claim = ClaimId::random();
        let json = serde_json::to_string(&claim).unwrap();
        assert_eq!(json.len(), 24, "22 characters and two quotes: {json}");
        assert_eq!(serde_json::from_str::<ClaimId>(&json).unwrap(), claim);
        assert!(serde_json::from_str::<ClaimId>("\"AAAA\"").is_err(), "three bytes are no claim");
    }

    #[test]
    fn a_readable_reference_names_its_attempt_and_nothing_else_does() {
        let id = OrderId::parse("a-1").unwrap();
        assert_eq!(ClientRef::in_clear(&id, 12).attempt(WIDE), Some((id.clone(), 12)));
        for other in ["a-1-012", "a-1-+12", "a-1-0x", "a", "-1", "", "a-1-70000"] {
            assert_eq!(ClientRef::from_stored(other).attempt(WIDE), None, "{other}");
        }
        assert_eq!(ClientRef::for_attempt(&id, 12, NARROW).attempt(NARROW), None);
    }

    #[test]
    fn a_reference_is_readable_where_it_fits_and_a_hash_elsewhere() {
        let id = OrderId::parse("order-7").unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(ClientRef::for_attempt(&id, 2, WIDE).as_str(), "order-7-2");
        let hash = ClientRef::for_attempt(&id, 2, NARROW);
        assert_eq!(hash.as_str().len(), 32);
        assert!(NARROW.takes(hash.as_str()));
        assert_ne!(hash, ClientRef::for_attempt(&id, 1, NARROW));
        assert_eq!(hash, ClientRef::for_attempt(&id, 2, NARROW));
        assert!(hash.may_be_hashed() && !ClientRef::for_attempt(&id, 2, WIDE).may_be_hashed());
    }
}
