//! What a provider says of our limit in the headers of its answers.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use hyper::HeaderMap;

use super::WAIT_MAX;
use crate::domain::{Timestamp, plus};

/// A number above this is a moment since 1970, below it a wait in seconds: both are in use.
const MOMENT_FROM: u64 = 1_000_000_000;

/// Until when our limit is used up. `X-Ratelimit-Remaining: 0` alone says nothing of that: whoever keeps to a rate has nothing left
/// all the time. Together with `X-Ratelimit-Reset` it does.
#[derive(Debug, Default)]
pub(super) struct UsedUp(AtomicI64);

impl UsedUp {
    /// Looks at an answer.
    pub(super) fn note(&self, headers: &HeaderMap, now: Timestamp) {
        let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
        if number("x-ratelimit-remaining") != Some(0) {
            return;
        }
        let Some(reset) = number("x-ratelimit-reset") else { return };
        let wait = if reset >= MOMENT_FROM {
            let at = i64::try_from(reset).ok().and_then(|reset| Timestamp::from_timestamp(reset, 0));
            at.and_then(|at| (at - now).to_std().ok()).unwrap_or_default()
        } else {
            Duration::from_secs(reset)
        };
        self.0.fetch_max(plus(now, wait.min(WAIT_MAX)).timestamp_micros(), Ordering::Relaxed);
    }

    /// Until when, if that lies ahead.
    pub(super) fn until(&self, now: Timestamp) -> Option<Timestamp> {
        Timestamp::from_timestamp_micros(self.0.load(Ordering::Relaxed)).filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_used_up_until_the_provider_says_and_no_longer_than_any_wait() {
        let now = Timestamp::from_timestamp(1_800_000_000, 0).unwrap();
        let after = |remaining: &str, reset: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert("x-ratelimit-remaining", remaining.parse().unwrap());
            if let Some(reset) = reset {
                headers.insert("x-ratelimit-reset", reset.parse().unwrap());
            }
            let used_up = UsedUp::default();
            used_up.note(&headers, now);
            used_up.until(now).map(|until| (until - now).num_seconds())
        };
        assert_eq!(after("0", Some("3")), Some(3));
        assert_eq!(after("0", Some("1800000007")), Some(7));
        assert_eq!(after("0", Some("1700000000")), None, "that is over");
        assert_eq!(after("0", Some("99999999")), Some(i64::try_from(WAIT_MAX.as_secs()).unwrap()));
        for nothing in [after("1", Some("3")), after("0", None), after("none", Some("3")), after("0", Some("soon"))] {
            assert_eq!(nothing, None);
        }
    }
}
