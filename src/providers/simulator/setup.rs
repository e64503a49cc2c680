//! A profile at work, with the rate limiters that it asks for, and the abuses that it counts.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::time::Instant;

use super::arrivals::RequestKind;
use super::class::FaultClass;
use super::profile::{Profile, Throttle};
use super::reply::{Reply, Word};

/// A profile and the limiters that belong to it.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) profile: Profile,
    limiter: Option<Limiter>,
    queries: Option<Limiter>,
    /// When the last abuses came: never more than a ban takes.
    abuses: Mutex<VecDeque<Instant>>,
}

#[derive(Debug)]
struct Limiter {
    terms: Throttle,
    bucket: DefaultDirectRateLimiter<StateInformationMiddleware>,
}

/// What a rate limit says of a request: for the headers `X-Ratelimit-Limit` and `-Remaining`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pacing {
    pub(super) limit: u32,
    pub(super) remaining: u32,
}

impl Setup {
    pub(super) fn new(profile: Profile) -> Arc<Self> {
        let (limiter, queries) = (Limiter::new(profile.throttle), Limiter::new(profile.query_throttle));
        Arc::new(Self { profile, limiter, queries, abuses: Mutex::default() })
    }

    /// Notes an abuse. If it was one too many, the ban lasts so long, and what led to it is settled.
    pub(super) fn abused(&self, now: Instant) -> Option<Duration> {
        let ban = self.profile.ban?;
        let mut abuses = self.abuses.lock().unwrap_or_else(PoisonError::into_inner);
        while abuses.front().is_some_and(|at| now.saturating_duration_since(*at) > ban.within) {
            abuses.pop_front();
        }
        abuses.push_back(now);
        if abuses.len() < usize::try_from(ban.after).unwrap_or(usize::MAX) {
            return None;
        }
        abuses.clear();
        Some(ban.lasts)
    }

    /// The answer to whoever is banned for that much longer.
    pub(super) fn banned(&self, left: Duration) -> Reply {
        Reply::Say(Word::Banned { wait: self.profile.ban.is_none_or(|ban| ban.tells_when).then_some(left) })
    }

    /// What the rate limit says, and the answer to a request that comes too fast.
    pub(super) fn pace(&self, kind: RequestKind) -> Option<(Pacing, Option<(FaultClass, Reply)>)> {
        let (limiter, class) = match (&self.queries, kind) {
            (Some(queries), RequestKind::Query) => (queries, FaultClass::QueryThrottle),
            (_, RequestKind::Submit | RequestKind::Query) => (self.limiter.as_ref()?, FaultClass::Throttle),
        };
        let limit = limiter.terms.burst;
        Some(match limiter.bucket.check() {
            Ok(state) => (Pacing { limit, remaining: state.remaining_burst_capacity() }, None),
            Err(too_early) => {
                let wait = too_early.wait_time_from(DefaultClock::default().now());
                let told = limiter.terms.tells_when.then_some(wait);
                let reply = Reply::Say(Word::Throttled { wait: told, in_body: limiter.terms.in_body });
                (Pacing { limit, remaining: 0 }, Some((class, reply)))
            }
        })
    }
}

impl Limiter {
    fn new(terms: Option<Throttle>) -> Option<Self> {
        let terms = terms?;
        let period = Duration::try_from_secs_f64(1.0 / terms.permits_per_second).ok()?;
        let quota = Quota::with_period(period)?.allow_burst(NonZeroU32::new(terms.burst)?);
        Some(Self { terms, bucket: RateLimiter::direct(quota).with_middleware::<StateInformationMiddleware>() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::profile::Ban;
    use super::*;

    #[test]
    fn only_abuses_that_come_close_together_are_one_too_many() {
        let seconds = Duration::from_secs;
        let ban = Ban { after: 3, within: seconds(10), lasts: seconds(30), tells_when: true };
        let setup = Setup::new(Profile { ban: Some(ban), ..Profile::default() });
        let began = Instant::now();
        let banned_at: Vec<u64> = [0, 5, 11, 16, 17, 18, 19, 20]
            .into_iter()
            .filter(|at| setup.abused(began + seconds(*at)) == Some(ban.lasts))
            .collect();
        assert_eq!(banned_at, [17, 20], "and a ban begins the count anew");
        let none = Setup::new(Profile::default());
        assert!((0..100).all(|_| none.abused(began).is_none()));
    }
}
