//! What a login is answered with.

use std::time::Duration;

use bytes::Bytes;

use super::message::Message;
use super::replies::Reply;
use super::world::{StillClock, order, provider_with, settings, silently, wait};
use crate::domain::SubmitOutcome;
use crate::providers::ProviderKind;
use crate::providers::http::canned::Canned;

/// Reloadly's token: a call is made with the one that was granted, or not at all; and so again when that has ended,
/// however long it lasts. It is in no line of the log.
pub fn reloadly_token(bytes: &[u8]) {
    const TAKEN: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 19\r\n\r\n{\"transactionId\":7}";
    let message = Message::read(bytes);
    // Whatever the reply grants holds a mark that is looked for in the log.
    let marked = String::from_utf8_lossy(message.content()).replace("TOKEN", "canary-token");
    let reply = Reply::of(&Message { body: Some(marked.as_bytes()), ..message }).bytes();
    let clock = StillClock::new();
    let provider = provider_with(&settings(ProviderKind::Reloadly), std::sync::Arc::clone(&clock) as _);
    silently(|| {
        let canned = Canned::new(move |request| {
            let is_login = request.starts_with(b"POST /api/oauth/token ");
            Some(if is_login { reply.clone() } else { Bytes::from_static(TAKEN) })
        });
        for later in [Duration::ZERO, Duration::from_secs(2), Duration::from_hours(24 * 365 * 100)] {
            clock.advance(later);
            let ready = wait(provider.connect(1));
            let before = canned.requests().len();
            let outcome = wait(provider.submit(&order()));
            let sent = canned.requests().split_off(before);
            let calls: Vec<String> = sent
                .iter()
                .map(|request| String::from_utf8_lossy(request).into_owned())
                .filter(|request| request.starts_with("POST /api/topups-async "))
                .collect();
            match (&outcome, calls.as_slice()) {
                (SubmitOutcome::Accepted { .. }, [call]) => {
                    assert!(call.contains("\r\nauthorization: Bearer "), "a call without a token");
                    assert_eq!(ready, 1, "it was claimed without a token at hand");
                }
                (SubmitOutcome::NotSent(_), []) => assert_eq!(ready, 0, "a token was at hand"),
                _ => panic!("a call that was made {} times ended in another way", calls.len()),
            }
        }
    });
}
