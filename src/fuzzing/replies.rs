//! What providers answer. Each adapter is asked to recharge, and asked what became of a recharge, and hears the same reply
//! to both. What it makes of it must be found in the reply (`evidence`); nothing but that moves money.

use bytes::Bytes;

use super::evidence::{self, Answer, Word};
use super::message::{Message, several};
use super::world::{
    REFERENCE, THEIRS, is_plain, now, order, provider, provider_with, question, settings, silently, wait,
};
use super::world::{StillClock, keeps_secrets};
use crate::domain::{Failure, QueryOutcome, Receipt, SubmitOutcome, plus};
use crate::ports::RechargeProvider;
use crate::providers::ProviderKind;
use crate::providers::http::WAIT_MAX;
use crate::providers::http::canned::Canned;

/// Headers by which the length of a body is told, or what becomes of the connection: `http_reply` plays with those.
const FRAMING: [&str; 6] = ["content-length", "transfer-encoding", "connection", "upgrade", "trailer", "te"];

/// A reply whose length is what it says.
pub(super) struct Reply<'a> {
    status: u16,
    body: &'a [u8],
    bytes: Bytes,
}

impl<'a> Reply<'a> {
    /// The first line is the status.
    pub(super) fn of(message: &Message<'a>) -> Self {
        let status = std::str::from_utf8(message.first).ok().and_then(|text| text.trim().parse().ok());
        // What is informational is followed by another reply.
        let status: u16 = status.filter(|status| (200..1_000).contains(status)).unwrap_or(200);
        let body = if [204, 304].contains(&status) { &[] } else { message.content() };
        let mut bytes = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len()).into_bytes();
        for (name, value) in &message.headers {
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            if FRAMING.contains(&name.trim()) || name.contains('\r') {
                continue;
            }
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend(value.unwrap_or_default().iter().filter(|byte| **byte != b'\r'));
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(body);
        Self { status, body, bytes: Bytes::from(bytes) }
    }

    fn answer(&self) -> Answer<'a> {
        Answer { status: self.status, body: self.body }
    }

    pub(super) fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }
}

/// What became of a send, whose bytes all left.
fn check_submit(outcome: &SubmitOutcome, answer: Answer<'_>, says: impl Fn(Word<'_>) -> bool) {
    match outcome {
        SubmitOutcome::Succeeded(receipt) => {
            assert!(answer.is_good() && says(Word::Delivered), "nothing in the reply says that it was delivered");
            check_receipt(receipt);
        }
        SubmitOutcome::Accepted { provider_ref } => {
            assert!(answer.is_good() && says(Word::Taken), "nothing in the reply says that it was taken");
            assert!(provider_ref.as_deref().is_none_or(is_plain), "their reference is no plain text");
        }
        SubmitOutcome::Rejected(failure) => {
            let is_told = says(Word::Refused(&failure.code)) || answer.refuses_the_login(failure);
            assert!(is_told, "a definite no that the reply does not hold");
            check_failure(failure);
        }
        SubmitOutcome::Throttled { retry_after } => {
            assert!(answer.status == 429 || says(Word::TooFast), "nothing in the reply says that we are too fast");
            assert!(retry_after.is_none_or(|wait| wait <= WAIT_MAX), "a wait for ever");
        }
        SubmitOutcome::Duplicate => assert!(says(Word::KnownAlready), "nothing in the reply says that it is known"),
        SubmitOutcome::NotSent(_) => panic!("it was sent"),
        SubmitOutcome::Unknown(_) => {}
    }
}

/// What was heard of a recharge.
fn check_query(outcome: &QueryOutcome, says: impl Fn(Word<'_>) -> bool) {
    match outcome {
        QueryOutcome::Succeeded(receipt) => {
            assert!(says(Word::Delivered), "nothing in the reply says that it was delivered");
            check_receipt(receipt);
        }
        QueryOutcome::Reversed(receipt) => {
            assert!(says(Word::TakenBack), "nothing in the reply says that it was taken back");
            check_receipt(receipt);
        }
        QueryOutcome::Failed(failure) => {
            assert!(says(Word::Refused(&failure.code)), "a definite no that the reply does not hold");
            check_failure(failure);
        }
        QueryOutcome::NotFound => assert!(says(Word::NotFound), "nothing in the reply says that it is not known"),
        QueryOutcome::InProgress => assert!(says(Word::Taken), "nothing in the reply says that they are at it"),
        QueryOutcome::ProviderUnknown => assert!(says(Word::UnknownToThem), "nothing says that they do not know"),
        QueryOutcome::NotAsked => panic!("it was asked"),
        QueryOutcome::Unavailable { retry_after }
        | QueryOutcome::Throttled { retry_after }
        | QueryOutcome::Banned { retry_after } => {
            assert!(retry_after.is_none_or(|wait| wait <= WAIT_MAX), "a wait for ever");
        }
    }
}

fn check_receipt(receipt: &Receipt) {
    assert!(receipt.provider_ref.as_deref().is_none_or(is_plain), "their reference is no plain text");
}

/// The code stands in the log of events: no free text, and nobody's number.
pub(super) fn check_failure(failure: &Failure) {
    let is_code = failure.code.len() <= 64 && failure.code.bytes().all(|byte| byte.is_ascii_graphic());
    let is_number = failure.code.split(|c: char| !c.is_ascii_digit()).any(|row| row.len() > 7);
    assert!(is_code && !is_number, "the code of a failure is free text");
    keeps_secrets(&format!("{failure:?}"));
}

fn check_limits(provider: &dyn RechargeProvider) {
    let until = provider.used_up_until();
    assert!(until.is_none_or(|until| until > now() && until <= plus(now(), WAIT_MAX)), "used up for ever");
}

/// The whole HTTP client: the input is what comes over the wire, and a byte has left by then.
pub fn http_reply(bytes: &[u8]) {
    let reply = Bytes::copy_from_slice(bytes);
    let provider = provider(ProviderKind::Simulator);
    silently(|| {
        let canned = Canned::new(move |_| Some(reply.clone()));
        let outcome = wait(provider.submit(&order()));
        assert!(!matches!(outcome, SubmitOutcome::NotSent(_)), "it was sent");
        let told = wait(provider.query(&question(None, false)));
        assert_ne!(told, QueryOutcome::NotAsked, "it was asked");
        assert_eq!(canned.requests().len(), 2, "one request for each call, whatever is answered");
        check_limits(provider.as_ref());
        if let SubmitOutcome::Succeeded(receipt) = &outcome {
            assert!(holds(bytes, b" 2"), "by a status of another kind");
            check_receipt(receipt);
        }
    });
}

/// A reply of the provider simulator.
pub fn simulator_reply(bytes: &[u8]) {
    let reply = Reply::of(&Message::read(bytes));
    let (answer, sent) = (reply.answer(), reply.bytes());
    let provider = provider(ProviderKind::Simulator);
    silently(|| {
        let _canned = Canned::new(move |_| Some(sent.clone()));
        let says = |word: Word<'_>| evidence::simulator::says(answer, word);
        check_submit(&wait(provider.submit(&order())), answer, says);
        let told = |word: Word<'_>| {
            let status_fits = if word == Word::NotFound { answer.status == 404 } else { answer.is_good() };
            says(word) && status_fits
        };
        check_query(&wait(provider.query(&question(None, false))), told);
        check_limits(provider.as_ref());
    });
}

/// A reply of DT One; a second one is the answer to what follows from the first (a confirmation, a cancellation).
pub fn dtone_reply(bytes: &[u8]) {
    let parts = several(bytes);
    let first = Reply::of(&Message::read(parts[0]));
    let second = Reply::of(&Message::read(parts.get(1).copied().unwrap_or(parts[0])));
    let (answer, follows) = (first.answer(), second.answer());
    for two_step in [false, true] {
        let mut settings = settings(ProviderKind::Dtone);
        settings.two_step = two_step;
        let provider = provider_with(&settings, StillClock::new());
        let (first, second) = (first.bytes(), second.bytes());
        silently(|| {
            let _canned = Canned::new(move |request| {
                let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
                let is_second = [&b"/confirm HTTP"[..], b"/cancel HTTP"].iter().any(|part| holds(line, part));
                Some(if is_second { second.clone() } else { first.clone() })
            });
            let outcome = wait(provider.submit(&order()));
            check_submit(&outcome, answer, |word| evidence::dtone::submit_says(answer, word));
            for (theirs, give_up) in [(None, false), (Some(THEIRS), false), (None, true)] {
                let told = wait(provider.query(&question(theirs, give_up)));
                let is_cancelled = give_up && evidence::dtone::cancelled(follows);
                check_query(&told, |word| {
                    let cancelled = is_cancelled
                        && word == Word::Refused("CANCELLED")
                        && evidence::dtone::query_says(answer, Word::Taken);
                    cancelled || evidence::dtone::query_says(answer, word)
                });
            }
            check_limits(provider.as_ref());
        });
    }
}

fn holds(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// A reply of mf178.
pub fn mf178_reply(bytes: &[u8]) {
    let reply = Reply::of(&Message::read(bytes));
    let (answer, sent) = (reply.answer(), reply.bytes());
    let provider = provider(ProviderKind::Mf178);
    silently(|| {
        let canned = Canned::new(move |_| Some(sent.clone()));
        let outcome = wait(provider.submit(&order()));
        check_submit(&outcome, answer, |word| evidence::mf178::submit_says(answer, word));
        for theirs in [None, Some(THEIRS)] {
            let told = wait(provider.query(&question(theirs, false)));
            check_query(&told, |word| evidence::mf178::query_says(answer, word));
        }
        assert!(
            canned
                .requests()
                .iter()
                .all(|request| holds(request, REFERENCE.as_bytes()) || holds(request, THEIRS.as_bytes()))
        );
        check_limits(provider.as_ref());
    });
}

/// A reply of Reloadly, whose token is good.
pub fn reloadly_reply(bytes: &[u8]) {
    const TOKEN: &[u8] =
        b"HTTP/1.1 200 OK\r\ncontent-length: 43\r\n\r\n{\"access_token\":\"canary\",\"expires_in\":3600}";
    let reply = Reply::of(&Message::read(bytes));
    let (answer, sent) = (reply.answer(), reply.bytes());
    let provider = provider(ProviderKind::Reloadly);
    silently(|| {
        let _canned = Canned::new(move |request| {
            let is_login = holds(request, b"/oauth/token");
            Some(if is_login { Bytes::from_static(TOKEN) } else { sent.clone() })
        });
        let outcome = wait(provider.submit(&order()));
        check_submit(&outcome, answer, |word| evidence::reloadly::submit_says(answer, word));
        let told = wait(provider.query(&question(None, false)));
        check_query(&told, |word| evidence::reloadly::report_says(answer, word));
        let told = wait(provider.query(&question(Some(THEIRS), false)));
        check_query(&told, |word| evidence::reloadly::status_says(answer, word));
        check_limits(provider.as_ref());
    });
}
