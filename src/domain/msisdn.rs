//! Phone numbers. They are personal data: a number masks itself wherever it is printed, and is
//! read in clear only through `expose()`, which a search for that word finds.

use std::fmt;

use hmac::{Hmac, Mac};
use phonenumber::country;
use sha2::Sha256;

/// A valid number in E.164. Kept as digits, so that it is small and never on the heap.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Msisdn(u64);

impl Msisdn {
    /// Reads a number in E.164 (`+8613812345678`), or a national one with its region (`CN`).
    /// `None` where no phone network could have issued it.
    pub fn parse(text: &str, region: Option<&str>) -> Option<Self> {
        let text = text.trim();
        if text.len() > 32 {
            return None;
        }
        if let Some(known) = Self::mainland_mobile(text, region) {
            return Some(known);
        }
        let region = match region {
            Some(code) => Some(code.parse::<country::Id>().ok()?),
            None => None,
        };
        let number = phonenumber::parse(region, text).ok()?;
        if !phonenumber::is_valid(&number) {
            return None;
        }
        Self::from_e164(&number.format().mode(phonenumber::Mode::E164).to_string())
    }

    /// The bulk of the traffic by a rule that fits in a line: mainland China's mobile numbers are
    /// `+86` and eleven digits `13…`, `18…` or `15…` (but `154…`). The full metadata costs microseconds a number; a test
    /// holds this rule against it.
    fn mainland_mobile(text: &str, region: Option<&str>) -> Option<Self> {
        let national = match (text.strip_prefix("+86"), region) {
            (Some(rest), _) => rest,
            (None, Some("CN")) => text,
            (None, _) => return None,
        };
        let bytes = national.as_bytes();
        let fits = matches!(bytes, [b'1', b'3' | b'8', ..] | [b'1', b'5', b'0'..=b'3' | b'5'..=b'9', ..])
            && bytes.len() == 11
            && bytes.iter().all(u8::is_ascii_digit);
        if !fits {
            return None;
        }
        national.parse::<u64>().ok().map(|digits| Self(8_600_000_000_000 + digits))
    }

    /// Takes a number that is already in E.164, as the store holds it: `+` and 7 to 15 digits.
    pub fn from_e164(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('+')?;
        let fits =
            (7..=15).contains(&digits.len()) && !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
        if fits { digits.parse().ok().map(Self) } else { None }
    }

    /// The number in clear, in E.164. Only for the provider, the store and an export.
    pub fn expose(&self) -> String {
        format!("+{}", self.0)
    }

    /// A keyed hash of the number: what stands in Kafka keys, the event log and lookups in place
    /// of it. Without the key a plain hash of eleven digits is found by trying them all.
    pub fn keyed_hash(&self, key: &PhoneKey) -> PhoneHash {
        let mut mac = key.0.clone();
        mac.update(&self.0.to_be_bytes());
        let bytes = mac.finalize().into_bytes();
        let mut hash = [0_u8; 16];
        hash.copy_from_slice(bytes.get(..16).unwrap_or(&[0; 16]));
        PhoneHash(hash)
    }

    /// Two countries' worth of leading digits at most: the calling code as far as it matters.
    fn masked(self) -> String {
        let digits = self.0.to_string();
        let keep_front = digits.len().saturating_sub(8).min(5);
        let (front, rest) = digits.split_at(keep_front);
        let (_, back) = rest.split_at(rest.len().saturating_sub(4));
        format!("+{front}****{back}")
    }
}

impl fmt::Debug for Msisdn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

impl fmt::Display for Msisdn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

/// The first 128 bits of HMAC-SHA-256 over a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PhoneHash([u8; 16]);

impl PhoneHash {
    /// The raw bytes, for use as a Kafka key.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As text, for the event log and lookups: 22 characters of URL-safe base-64.
    pub fn to_text(self) -> String {
        use base64::Engine as _;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(self.0)
    }
}

/// The fleet's key for hashing phone numbers; the same in every process.
#[derive(Clone)]
pub struct PhoneKey(Hmac<Sha256>);

impl PhoneKey {
    /// A key for another purpose, from which neither this one nor any number's hash can be told.
    pub fn derived(&self, purpose: &str) -> [u8; 32] {
        let mut mac = self.0.clone();
        // No number is so long.
        mac.update(b"a key for ");
        mac.update(purpose.as_bytes());
        mac.finalize().into_bytes().into()
    }
}

/// Why a text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a phone key has at least 16 bytes")]
pub struct WeakPhoneKey;

impl PhoneKey {
    /// Takes a secret of at least 16 bytes.
    pub fn new(secret: &[u8]) -> Result<Self, WeakPhoneKey> {
        if secret.len() < 16 {
            return Err(WeakPhoneKey);
        }
        Hmac::new_from_slice(secret).map(Self).map_err(|_| WeakPhoneKey)
    }
}

impl fmt::Debug for PhoneKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PhoneKey(****)")
    }
}

/// Whom an order is for. Money came in even where the number is unusable, so that order is kept,
/// failed and refunded; its text is kept for the person who must explain it.
#[derive(Clone, PartialEq, Eq)]
pub enum Recipient {
    /// A number that can be recharged.
    Valid(Msisdn),
    /// What stood in the order instead, cut to 32 characters.
    Unusable(Box<str>),
}

impl Recipient {
    /// Reads whatever an order carries.
    pub fn read(text: &str, region: Option<&str>) -> Self {
        Msisdn::parse(text, region).map_or_else(|| Self::unusable(text), Self::Valid)
    }

    /// The `?` of the stored form is no part of the text, or reading it back would cut a long one.
    fn unusable(text: &str) -> Self {
        let text = text.strip_prefix('?').unwrap_or(text);
        Self::Unusable(text.chars().filter(|c| !c.is_control()).take(32).collect())
    }

    /// Takes what the store holds; the counterpart of [`Recipient::expose`].
    pub fn from_stored(text: &str) -> Self {
        Msisdn::from_e164(text).map_or_else(|| Self::unusable(text), Self::Valid)
    }

    /// The text in clear, for the store: E.164, or the unusable text behind a `?` (which no valid
    /// number begins with, so that reading it back cannot turn it into one).
    pub fn expose(&self) -> String {
        match self {
            Self::Valid(number) => number.expose(),
            Self::Unusable(text) => format!("?{text}"),
        }
    }

    /// The number, if it can be recharged.
    pub fn msisdn(&self) -> Option<Msisdn> {
        match self {
            Self::Valid(number) => Some(*number),
            Self::Unusable(_) => None,
        }
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Valid(number) => fmt::Debug::fmt(number, f),
            Self::Unusable(_) => f.write_str("(unusable number)"),
        }
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_masks_itself_in_debug_and_display() {
        let number = Msisdn::parse("+8613812345678", None).unwrap_or_else(|| panic!("valid"));
        assert_eq!(format!("{number}"), "+86138****5678");
        assert_eq!(format!("{number:?}"), "+86138****5678");
        assert_eq!(number.expose(), "+8613812345678");
        assert_eq!(format!("{:?}", Recipient::read("13812", Some("CN"))), "(unusable number)");
    }

    #[test]
    fn national_numbers_need_their_region() {
        assert_eq!(Msisdn::parse("13812345678", Some("CN")), Msisdn::parse("+8613812345678", None));
        assert_eq!(Msisdn::parse("13812345678", None), None);
        assert!(Msisdn::parse("9123 4567", Some("SG")).is_some());
        assert_eq!(Msisdn::parse("+86 21", None), None);
        assert_eq!(Msisdn::parse("hello", Some("CN")), None);
        assert_eq!(Msisdn::parse("13812345678", Some("nowhere")), None);
    }

    #[test]
    fn the_hash_depends_on_the_key_and_a_short_key_is_refused() {
        let number = Msisdn::from_e164("+8613800000001").unwrap_or_else(|| panic!("valid"));
        let key = |text: &[u8]| PhoneKey::new(text).unwrap_or_else(|e| panic!("{e}"));
        let a = number.keyed_hash(&key(b"0123456789abcdef"));
        assert_eq!(a, number.keyed_hash(&key(b"0123456789abcdef")));
        assert_ne!(a, number.keyed_hash(&key(b"0123456789abcdeg")));
        assert_eq!(a.to_text().len(), 22);
        assert!(PhoneKey::new(b"short").is_err());
    }

    proptest! {
        #[test]
        fn the_short_rule_for_mainland_mobiles_agrees_with_the_full_metadata(
            rest in 0_u64..1_000_000_000, second in prop::sample::select(vec![3_u64, 5, 8]),
        ) {
            let text = format!("+861{second}{rest:09}");
            let full = phonenumber::parse(None, &text).ok().filter(phonenumber::is_valid);
            prop_assert_eq!(Msisdn::mainland_mobile(&text, None).is_some(), full.is_some(), "{}", text);
        }

        #[test]
        fn what_is_stored_is_read_back(text in "\\PC{0,40}") {
            let recipient = Recipient::read(&text, Some("CN"));
            prop_assert_eq!(Recipient::from_stored(&recipient.expose()).expose(), recipient.expose());
        }
    }
}
