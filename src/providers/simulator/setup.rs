//! A profile at work, with the rate limiter that it asks for.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use super::profile::Profile;
use super::reply::Reply;

/// A profile and the limiter that belongs to it.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) profile: Profile,
    limiter: Option<DefaultDirectRateLimiter>,
}

impl Setup {
    pub(super) fn new(profile: Profile) -> Arc<Self> {
        let limiter = profile.throttle.and_then(|throttle| {
            let period = Duration::try_from_secs_f64(1.0 / throttle.permits_per_second).ok()?;
            let burst = NonZeroU32::new(throttle.burst)?;
            Some(RateLimiter::direct(Quota::with_period(period)?.allow_burst(burst)))
        });
        Arc::new(Self { profile, limiter })
    }

    /// The answer to a request that comes too fast.
    pub(super) fn throttle(&self) -> Option<Reply> {
        let limiter = self.limiter.as_ref()?;
        let too_early = limiter.check().err()?;
        let wait = too_early.wait_time_from(DefaultClock::default().now());
        let tells_when = self.profile.throttle.is_some_and(|throttle| throttle.tells_when);
        Some(Reply::throttled(tells_when.then_some(wait)))
    }
}
