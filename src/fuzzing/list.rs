//! Providers' own lists of a day.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::message::{Message, several};
use super::replies::Reply;
use super::world::{StillClock, keeps_secrets, now, settings, silently, wait};
use crate::domain::{ProviderId, minus};
use crate::ports::{ListPermits, Listed, StatementError};
use crate::providers::http::canned::Canned;
use crate::providers::{self, ListSpan, ProviderKind};

/// As many calls as one likes.
#[derive(Debug)]
struct Unlimited;

#[async_trait]
impl ListPermits for Unlimited {
    async fn wait(&self) -> Result<(), StatementError> {
        Ok(())
    }

    async fn rest(&self, _: Duration) -> Result<(), StatementError> {
        Ok(())
    }
}

/// The pages that a list gives to whoever asks for it: the first line names the provider, each message behind it is a
/// reply. It ends, and is read whole or ends in an error that holds nobody's number.
pub fn list(bytes: &[u8]) {
    let parts = several(bytes);
    let kind = match parts[0] {
        b"simulator" => ProviderKind::Simulator,
        b"reloadly" => ProviderKind::Reloadly,
        _ => ProviderKind::Dtone,
    };
    let pages: Vec<Bytes> = parts.iter().skip(1).take(8).map(|part| Reply::of(&Message::read(part)).bytes()).collect();
    let count = pages.len();
    let span =
        ListSpan { from: minus(now(), Duration::from_hours(20)), until: now(), pace: Duration::from_millis(500) };
    let settings = settings(kind);
    let (provider, clock, permits) = (ProviderId::new("one"), StillClock::new(), Arc::new(Unlimited));
    let mut list = providers::list(&provider, &settings, clock, permits, span).unwrap().unwrap();
    silently(|| {
        const TOKEN: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 25\r\n\r\n{\"access_token\":\"canary\"}";
        let mut left = pages.into_iter();
        let _canned = Canned::new(move |request| {
            let is_login = request.starts_with(b"POST /api/oauth/token ");
            if is_login { Some(Bytes::from_static(TOKEN)) } else { left.next() }
        });
        let mut all: Vec<Listed> = Vec::new();
        for _ in 0..=count {
            match wait(list.next_page()) {
                Ok(Some(page)) => all.extend(page),
                Ok(None) => return check(&all),
                Err(error) => {
                    keeps_secrets(&format!("{error} {error:?}"));
                    return check(&all);
                }
            }
        }
        panic!("more pages than replies");
    });
}

fn check(all: &[Listed]) {
    let places: Vec<u64> = all.iter().map(|listed| listed.place).collect();
    assert!(places.iter().copied().eq(1..=places.len() as u64), "entries are told by their places");
}
