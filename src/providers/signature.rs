//! Signatures of callbacks: HMAC-SHA256 over the bytes as they came, in constant time, with each key that is live.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::Secret;
use crate::domain::Timestamp;
use crate::ports::{CallbackRefusal, RawCallback};

/// A message that was signed longer ago than this, or so far in the future, is taken for a recording.
const WINDOW: Duration = Duration::from_mins(5);
/// Signatures in one header at most, of which one counts.
const SIGNATURES_MAX: usize = 8;

/// Checks a message in the form of Standard Webhooks: `webhook-id`, `webhook-timestamp`, `webhook-signature`. `false`
/// where no key is known, and so nothing is proven.
pub(super) fn standard(keys: &[Secret], callback: &RawCallback, now: Timestamp) -> Result<bool, CallbackRefusal> {
    if keys.is_empty() {
        return Ok(false);
    }
    let header = |name| callback.header(name).ok_or(CallbackRefusal::Forged);
    let (id, at, signatures) = (header("webhook-id")?, header("webhook-timestamp")?, header("webhook-signature")?);
    let given: Vec<Vec<u8>> = signatures
        .split(' ')
        .filter_map(|one| STANDARD.decode(one.strip_prefix("v1,")?).ok())
        .take(SIGNATURES_MAX)
        .collect();
    let signed = [id.as_bytes(), b".", at.as_bytes(), b".", &callback.body];
    if !given.iter().fold(false, |is, signature| is | is_signed(keys, &signed, signature)) {
        return Err(CallbackRefusal::Forged);
    }
    let at = at.parse().ok().and_then(|seconds| Timestamp::from_timestamp(seconds, 0));
    in_window(at, now)
}

/// Whether one of the keys has signed these parts, one behind the other.
pub(super) fn is_signed(keys: &[Secret], parts: &[&[u8]], signature: &[u8]) -> bool {
    let mut is_signed = false;
    for key in keys {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.expose().as_bytes()) else { continue };
        for part in parts {
            mac.update(part);
        }
        // Each key takes the same time, whichever it is.
        is_signed |= mac.verify_slice(signature).is_ok();
    }
    is_signed
}

/// `Ok(true)` for a moment that is near enough to be the sending of what has just come.
pub(super) fn in_window(at: Option<Timestamp>, now: Timestamp) -> Result<bool, CallbackRefusal> {
    let distance = at.and_then(|at| (now - at).abs().to_std().ok());
    if distance.is_some_and(|distance| distance <= WINDOW) { Ok(true) } else { Err(CallbackRefusal::Stale) }
}

/// The bytes of a text of hexadecimal digits.
pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| if let [high, low] = pair { Some(digit(*high)? << 4 | digit(*low)?) } else { None }).collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use bytes::Bytes;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(seconds, 0).unwrap()
    }

    fn mac(key: &str, text: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
        mac.update(text.as_bytes());
        STANDARD.encode(mac.finalize().into_bytes())
    }

    fn callback(headers: &[(&str, &str)], body: &str) -> RawCallback {
        RawCallback {
            provider: "one".to_owned(),
            token: None,
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            body: Bytes::copy_from_slice(body.as_bytes()),
            from: Ipv4Addr::LOCALHOST.into(),
        }
    }

    fn signed(key: &str, sent_at: i64, body: &str) -> RawCallback {
        let signature = format!("v1,{}", mac(key, &format!("m-1.{sent_at}.{body}")));
        let sent_at = sent_at.to_string();
        let headers =
            [("webhook-id", "m-1"), ("webhook-timestamp", sent_at.as_str()), ("webhook-signature", &signature)];
        callback(&headers, body)
    }

    fn keys(texts: &[&str]) -> Vec<Secret> {
        texts.iter().map(|text| Secret::new(text)).collect()
    }

    #[test]
    fn a_message_counts_by_any_live_key_inside_its_window() {
        let read = |keys: &[Secret], message: &RawCallback| standard(keys, message, at(NOW));
        let message = signed("old", NOW - 299, "{}");
        assert_eq!(read(&keys(&["old"]), &message), Ok(true));
        assert_eq!(read(&keys(&["new", "old"]), &message), Ok(true), "while a key is replaced");
        assert_eq!(read(&keys(&["new"]), &message), Err(CallbackRefusal::Forged));
        assert_eq!(read(&[], &message), Ok(false), "without a key nothing is proven");
        for late in [NOW - 301, NOW + 301] {
            assert_eq!(read(&keys(&["old"]), &signed("old", late, "{}")), Err(CallbackRefusal::Stale));
        }
    }

    #[test]
    fn any_change_makes_a_message_a_forgery() {
        let good = signed("key", NOW, r#"{"status":"succeeded"}"#);
        let keys = keys(&["key"]);
        let forged = |change: &dyn Fn(&mut RawCallback)| {
            let mut message = good.clone();
            change(&mut message);
            assert_eq!(standard(&keys, &message, at(NOW)), Err(CallbackRefusal::Forged), "{:?}", message.headers);
        };
        forged(&|message| message.body = Bytes::from_static(br#"{"status":"rejected"}"#));
        for nth in 0..3 {
            forged(&|message| message.headers[nth].1.push('0'));
            forged(&|message| drop(message.headers.remove(nth)));
            // Which of two counts would be a guess.
            forged(&|message| message.headers.push(message.headers[nth].clone()));
        }
        forged(&|message| message.headers[2].1 = "v1,".to_owned());
        forged(&|message| message.headers[2].1 = message.headers[2].1.replace("v1,", "v2,"));
        let among_others = format!("v1,AAAA v1a,x {}", good.headers[2].1);
        let mut rotated = good.clone();
        rotated.headers[2].1 = among_others;
        assert_eq!(standard(&keys, &rotated, at(NOW)), Ok(true), "a sender that replaces its key signs with both");
    }

    #[test]
    fn hexadecimal_digits_are_read_in_both_cases_and_nothing_else_is() {
        assert_eq!(from_hex("00fFa5"), Some(vec![0, 255, 165]));
        for bad in ["0", "0g", "é0", "+1"] {
            assert_eq!(from_hex(bad), None, "{bad}");
        }
    }
}
