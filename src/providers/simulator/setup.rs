//! A profile at work, with the rate limiter that it asks for.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use super::arrivals::RequestKind;
use super::class::FaultClass;
use super::profile::{Profile, Throttle};
use super::reply::Reply;

/// A profile and the limiters that belong to it.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) profile: Profile,
    limiter: Option<Limiter>,
    queries: Option<Limiter>,
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
        Arc::new(Self { profile, limiter, queries })
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
                let reply = Reply::throttled(told, limiter.terms.in_body);
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
