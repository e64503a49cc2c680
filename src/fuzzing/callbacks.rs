//! What providers, or whoever has learnt of an address, send of their own accord.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use super::document::Document;
use super::evidence::{self, Word};
use super::message::Message;
use super::replies::check_failure;
use super::world::{CALLBACK_KEYS, StillClock, is_plain, now, provider, provider_with, settings, silently};
use crate::domain::{CallbackKey, CallbackLinks, ClientRef, OrderId, ProviderId, QueryOutcome};
use crate::ports::{CallbackNews, CallbackRefusal, RawCallback};
use crate::providers::{ProviderKind, build};
use crate::roles::callback::{Caller, read_callback};

fn raw(message: &Message<'_>) -> RawCallback {
    RawCallback {
        provider: "one".to_owned(),
        token: None,
        headers: message.text_headers(),
        body: Bytes::copy_from_slice(message.content()),
        from: Ipv4Addr::LOCALHOST.into(),
    }
}

/// Whether one of the keys has signed it. The fuzzer watches what bytes are compared with: in time it learns a signature.
fn is_signed(kind: ProviderKind, callback: &RawCallback) -> bool {
    let only = |name: &str| {
        let mut found = callback.headers.iter().filter(|(other, _)| other == name).map(|(_, value)| value.as_str());
        found.next().filter(|_| found.next().is_none()).unwrap_or_default()
    };
    let body = callback.body.as_ref();
    match kind {
        ProviderKind::Simulator => {
            let signed =
                [only("webhook-id").as_bytes(), b".", only("webhook-timestamp").as_bytes(), b".", body].concat();
            let good = CALLBACK_KEYS.map(|key| format!("v1,{}", STANDARD.encode(mac(key, &signed))));
            only("webhook-signature").split(' ').any(|one| good.iter().any(|good| good == one))
        }
        ProviderKind::Reloadly => {
            let signed = [body, b":", only("x-reloadly-request-timestamp").as_bytes()].concat();
            let given = only("x-reloadly-signature");
            CALLBACK_KEYS.iter().any(|key| hexadecimal(&mac(key, &signed)).eq_ignore_ascii_case(given))
        }
        ProviderKind::Dtone | ProviderKind::Mf178 => false,
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn mac(key: &str, text: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

/// What is read of a callback is no more than what it says.
fn check(news: &CallbackNews, says: impl Fn(Word<'_>) -> bool) {
    assert!(news.provider_ref.as_deref().is_none_or(is_plain), "their reference is no plain text");
    match &news.said {
        QueryOutcome::Succeeded(receipt) => {
            assert!(says(Word::Delivered), "nothing in it says that it was delivered");
            assert!(receipt.provider_ref.as_deref().is_none_or(is_plain), "their reference is no plain text");
        }
        QueryOutcome::Reversed(_) => assert!(says(Word::TakenBack), "nothing in it says that it was taken back"),
        QueryOutcome::Failed(failure) => {
            assert!(says(Word::Refused(&failure.code)), "a definite no that it does not hold");
            check_failure(failure);
        }
        QueryOutcome::InProgress => assert!(says(Word::Taken), "nothing in it says that they are at it"),
        QueryOutcome::ProviderUnknown => assert!(says(Word::UnknownToThem), "nothing says that they do not know"),
        QueryOutcome::Unavailable { .. } => {}
        QueryOutcome::NotFound
        | QueryOutcome::NotAsked
        | QueryOutcome::Throttled { .. }
        | QueryOutcome::Banned { .. } => panic!("nobody calls back to say this"),
    }
}

/// What signs a callback: of a body and a time, the headers.
type Sign = fn(&str, &[u8], &str) -> Vec<(String, String)>;

/// How the first line damages a message that was signed: which part, where, and by what.
struct Damage {
    part: u8,
    at: usize,
    by: u8,
    /// How long ago it was signed, in seconds.
    age: i64,
}

impl Damage {
    fn of(message: &Message<'_>) -> Self {
        let words = message.words();
        let number = |nth: usize| words.get(nth).and_then(|word| word.parse::<i64>().ok());
        let low = |nth| number(nth).map_or(0, |number| number.to_le_bytes()[0]);
        let at = number(1).and_then(|at| usize::try_from(at).ok()).unwrap_or(0);
        Self { part: low(0), at, by: low(2), age: number(3).unwrap_or(0) }
    }

    /// Whether anything is another than before.
    fn strike(&self, callback: &mut RawCallback) -> bool {
        let before = (callback.headers.clone(), callback.body.clone());
        let count = callback.headers.len();
        match (self.part, self.part.checked_sub(1).map(usize::from)) {
            (0, _) => {
                let mut body = callback.body.to_vec();
                let length = body.len();
                match body.get_mut(self.at % length.max(1)) {
                    Some(byte) => *byte ^= self.by,
                    None => body.push(self.by),
                }
                callback.body = Bytes::from(body);
            }
            (_, Some(nth)) if nth < count => {
                let value = &mut callback.headers[nth].1;
                let at = value.floor_char_boundary(self.at % value.len().max(1));
                value.insert(at, char::from(self.by));
            }
            (_, Some(nth)) if nth < 2 * count => drop(callback.headers.remove(nth - count)),
            (_, Some(nth)) if nth < 3 * count => callback.headers.push(callback.headers[nth - 2 * count].clone()),
            (_, Some(nth)) if nth < 4 * count => {
                let value = &mut callback.headers[nth - 3 * count].1;
                let cut = value.floor_char_boundary(self.at % value.len().max(1));
                value.truncate(cut);
            }
            _ => {}
        }
        before != (callback.headers.clone(), callback.body.clone())
    }
}

/// A message that was not signed is refused, one that was is taken inside its window, and any change to it is a forgery.
fn check_signature(kind: ProviderKind, message: &Message<'_>, sign: Sign) {
    let own = provider(kind);
    let given = raw(message);
    let is_forged = |callback: &RawCallback| {
        own.read_callback(callback, now()) == Err(CallbackRefusal::Forged) || is_signed(kind, callback)
    };
    assert!(is_forged(&given), "nobody has signed it");
    let mut unsigned = settings(kind);
    unsigned.callback_keys = Vec::new();
    let trusting = provider_with(&unsigned, StillClock::new());
    let news = trusting.read_callback(&given, now()).expect("without a key nothing is refused");
    assert!(!news.is_proven, "without a key nothing is proven");

    let damage = Damage::of(message);
    let sent_at = now().timestamp().checked_sub(damage.age).unwrap_or(0);
    for key in CALLBACK_KEYS {
        let signed = RawCallback { headers: sign(key, &given.body, &sent_at.to_string()), ..given.clone() };
        let expected = if damage.age.unsigned_abs() <= 300 { Ok(true) } else { Err(CallbackRefusal::Stale) };
        let heard = own.read_callback(&signed, now());
        assert_eq!(heard.as_ref().map(|news| news.is_proven).map_err(|why| *why), expected, "a genuine message");
        if let Ok(heard) = heard {
            assert_eq!(heard, CallbackNews { is_proven: true, ..news.clone() }, "it says what it says");
        }
        let mut struck = signed;
        assert!(!damage.strike(&mut struck) || is_forged(&struck), "a message that was changed");
    }
    let stranger = RawCallback { headers: sign("a key of somebody", &given.body, &sent_at.to_string()), ..given };
    assert_eq!(own.read_callback(&stranger, now()), Err(CallbackRefusal::Forged), "signed by somebody else");
}

/// The provider simulator's callback, and its signature (Standard Webhooks).
pub fn simulator_callback(bytes: &[u8]) {
    fn sign(key: &str, body: &[u8], at: &str) -> Vec<(String, String)> {
        let signature = mac(key, &[b"m-1.", at.as_bytes(), b".", body].concat());
        let headers = [
            ("webhook-id", "m-1".to_owned()),
            ("webhook-timestamp", at.to_owned()),
            ("webhook-signature", format!("v1,{}", STANDARD.encode(signature))),
        ];
        headers.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }
    let message = Message::read(bytes);
    silently(|| check_signature(ProviderKind::Simulator, &message, sign));
    let news = unsigned(ProviderKind::Simulator, &message);
    let document = Document::of(message.content());
    check(&news, |word| document.as_ref().is_some_and(|document| evidence::simulator::tells(document, word)));
}

/// Reloadly's callback, and its signature.
pub fn reloadly_callback(bytes: &[u8]) {
    fn sign(key: &str, body: &[u8], at: &str) -> Vec<(String, String)> {
        let signature = hexadecimal(&mac(key, &[body, b":", at.as_bytes()].concat()));
        let headers = [("x-reloadly-request-timestamp", at.to_owned()), ("x-reloadly-signature", signature)];
        headers.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }
    let message = Message::read(bytes);
    silently(|| check_signature(ProviderKind::Reloadly, &message, sign));
    let news = unsigned(ProviderKind::Reloadly, &message);
    let data = Document::of(message.content()).and_then(|document| document.below("data"));
    let status = data.and_then(|data| data.text("status").or_else(|| data.text("airtimeTransactionStatus")));
    check(&news, |word| status.as_deref().is_some_and(|status| evidence::reloadly::tells(status, word)));
}

fn unsigned(kind: ProviderKind, message: &Message<'_>) -> CallbackNews {
    let mut settings = settings(kind);
    settings.callback_keys = Vec::new();
    let provider = provider_with(&settings, StillClock::new());
    let news = silently(|| provider.read_callback(&raw(message), now())).expect("nothing of it is checked");
    assert!(!news.is_proven, "nothing proves it");
    news
}

/// DT One's callback, which nobody signs.
pub fn dtone_callback(bytes: &[u8]) {
    let message = Message::read(bytes);
    let news = unsigned(ProviderKind::Dtone, &message);
    let document = Document::of(message.content());
    check(&news, |word| document.as_ref().is_some_and(|document| evidence::dtone::tells(document, word)));
}

/// mf178's callback: a form, whose signature nobody can check.
pub fn mf178_callback(bytes: &[u8]) {
    let message = Message::read(bytes);
    let news = unsigned(ProviderKind::Mf178, &message);
    let fields: Vec<(String, String)> = url::form_urlencoded::parse(message.content()).into_owned().collect();
    let state = fields.iter().find(|(name, _)| name == "state").and_then(|(_, state)| state.parse::<i128>().ok());
    check(&news, |word| state.is_some_and(|state| evidence::mf178::tells(state, word)));
}

struct Callers {
    all: HashMap<ProviderId, Caller>,
    links: Vec<CallbackLinks>,
}

const NAMES: [(&str, ProviderKind); 4] = [
    ("simulator", ProviderKind::Simulator),
    ("dtone", ProviderKind::Dtone),
    ("mf178", ProviderKind::Mf178),
    ("reloadly", ProviderKind::Reloadly),
];

thread_local! {
    static CALLERS: OnceCell<Callers> = const { OnceCell::new() };
}

impl Callers {
    fn new() -> Self {
        let key = || CallbackKey::new(b"canary-key-of-addresses").unwrap();
        let links: Vec<CallbackLinks> = NAMES
            .iter()
            .map(|(name, _)| CallbackLinks::new(ProviderId::new(name), "https://us.example/", vec![key()]))
            .collect();
        let caller = |(nth, (name, kind)): (usize, &(&str, ProviderKind))| {
            let from = if nth == 0 { vec!["192.0.2.0/24".parse().unwrap()] } else { Vec::new() };
            (
                ProviderId::new(name),
                Caller {
                    provider: build(&ProviderId::new(name), &settings(*kind), StillClock::new()).unwrap(),
                    links: Some(links[nth].clone()),
                    from,
                },
            )
        };
        Self { all: NAMES.iter().enumerate().map(caller).collect(), links }
    }
}

impl Callers {
    /// Whether it is the token of an address that we give.
    fn gave(&self, nth: usize, token: &str) -> bool {
        let mut parts = token.rsplitn(3, '.');
        let (_, attempt, order_id) = (parts.next(), parts.next(), parts.next());
        let attempt = attempt.and_then(|attempt| attempt.parse().ok());
        let Some((order_id, attempt)) = order_id.and_then(|id| OrderId::parse(id).ok()).zip(attempt) else {
            return false;
        };
        let link = self.links[nth].link(&order_id, attempt);
        link.is_some_and(|link| link.rsplit('/').next() == Some(token))
    }
}

/// The door itself: the first line is `PROVIDER TOKEN FROM ORDER ATTEMPT`, what follows is a callback. Without an
/// address of ours nothing gets in; with one, it speaks of that order's attempt and of no other.
pub fn callback_door(bytes: &[u8]) {
    let message = Message::read(bytes);
    let words = message.words();
    let word = |nth: usize| words.get(nth).copied().unwrap_or_default();
    let from: IpAddr = word(2).parse().unwrap_or(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)));
    let token = Some(word(1)).filter(|token| *token != "-").map(str::to_owned);
    let given = RawCallback { provider: word(0).to_owned(), token, from, ..raw(&message) };
    CALLERS.with(|cell| {
        let callers = cell.get_or_init(Callers::new);
        let read = |callback: &RawCallback| silently(|| read_callback(&callers.all, callback, now()).map(summary));
        let nth = NAMES.iter().position(|(name, _)| *name == word(0));
        let is_ours = nth.is_some_and(|nth| callers.gave(nth, word(1)) || is_signed(NAMES[nth].1, &given));
        assert!(read(&given).is_err() || is_ours, "it has neither an address of ours nor a signature");
        let Some(nth) = nth else { return };
        let (Ok(order_id), Ok(attempt)) = (OrderId::parse(word(3)), word(4).parse::<u16>()) else { return };
        let link = callers.links[nth].link(&order_id, attempt).unwrap();
        let token = link.rsplit('/').next().unwrap().to_owned();
        let invited = RawCallback { token: Some(token.clone()), ..given.clone() };
        let format = callers.all[word(0)].provider.capabilities().client_ref;
        if let Ok((caller, order, number, news)) = read(&invited) {
            assert_eq!((caller.as_str(), &order, number), (word(0), &order_id, attempt), "another one's attempt");
            let named = news.client_ref.clone();
            assert!(named.is_none_or(|named| named == ClientRef::for_attempt(&order_id, attempt, format)));
        }
        for other in NAMES.iter().filter(|(name, _)| *name != word(0)) {
            let misled = RawCallback { provider: other.0.to_owned(), ..invited.clone() };
            assert!(read(&misled).is_err(), "an address of another provider");
        }
        // What the input holds for a token, at one place of the genuine one.
        let at = token.floor_char_boundary(message.content().len() % token.len());
        let mut forged = token.clone();
        forged.replace_range(at..=at, word(1).get(..1).unwrap_or("x"));
        let is_ours = callers.gave(nth, &forged);
        let forged = RawCallback { token: Some(forged), ..invited };
        assert!(is_ours || read(&forged).is_err(), "an address that nobody was given");
    });
}

fn summary(read: (&Caller, OrderId, u16, CallbackNews)) -> (ProviderId, OrderId, u16, CallbackNews) {
    (read.0.provider.id().clone(), read.1, read.2, read.3)
}
