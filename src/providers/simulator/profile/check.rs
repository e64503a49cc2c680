//! What makes sense in a profile, and what is said where it does not.

use std::time::Duration;

use super::{Ban, Latency, Profile, Spell, Throttle};

/// The most abuses that are remembered.
const ABUSES_MAX: u32 = 10_000;
/// The longest ban, and the longest time over which abuses are counted.
const BAN_MAX: Duration = Duration::from_hours(24);

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// Not TOML, or not a profile.
    #[error("the profile cannot be read: {0}")]
    Toml(#[source] Box<toml::de::Error>),
    /// A share is no share.
    #[error("{key}: {value} is not between 0 and 1")]
    Share {
        /// Which.
        key: &'static str,
        /// Its value.
        value: f64,
    },
    /// The shares of things that exclude each other exceed the whole.
    #[error("{key}: together they are {sum}, more than 1")]
    Sum {
        /// Which.
        key: &'static str,
        /// Their sum.
        sum: f64,
    },
    /// A distribution that is none.
    #[error("{key}: {problem}")]
    Latency {
        /// Which.
        key: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
    /// A rate limit that lets nothing pass.
    #[error("{key}: permits_per_second must be above 0 and burst at least 1")]
    Throttle {
        /// Which.
        key: &'static str,
    },
    /// A ban for nothing, or after more than is remembered.
    #[error("ban.after: {after} is not from 1 to {ABUSES_MAX}")]
    Abuses {
        /// How many abuses lead to it.
        after: u32,
    },
    /// A callback that is sent for ever.
    #[error("callbacks.resend: {count} waits, more than {most}")]
    Resends {
        /// How many there are.
        count: usize,
        /// How many there may be.
        most: usize,
    },
    /// A wait beyond all use.
    #[error("{key}: {} is more than {}", humantime::format_duration(*value), humantime::format_duration(*most))]
    TooLong {
        /// Which.
        key: &'static str,
        /// Its value.
        value: Duration,
        /// The longest.
        most: Duration,
    },
    /// Callbacks whose answer nobody waits for, or for too long.
    #[error("callbacks.patience: {} is not above zero and at most {}", humantime::format_duration(*value), humantime::format_duration(*most))]
    Patience {
        /// Its value.
        value: Duration,
        /// The longest.
        most: Duration,
    },
    /// A ban that ends at once, or almost never.
    #[error("{key}: {} is not above zero and at most {}", humantime::format_duration(*value), humantime::format_duration(BAN_MAX))]
    Ban {
        /// Which.
        key: &'static str,
        /// Its value.
        value: Duration,
    },
}

impl Profile {
    /// Checks what the types do not.
    pub fn check(&self) -> Result<(), ProfileError> {
        let (declines, outcomes, queries) = (self.declines, self.outcomes, self.queries);
        share("accepted_first", self.accepted_first)?;
        share("declines.odd_status", declines.odd_status)?;
        share("declines.throttled", declines.throttled)?;
        shares("declines", [declines.fatal, declines.retryable].into_iter())?;
        shares("faults", self.faults.rates().into_iter().flat_map(|(_, rates)| [rates.before, rates.after]))?;
        let rates = [
            outcomes.never,
            outcomes.accepted_then_failed,
            outcomes.late_success.rate,
            outcomes.reversed.rate,
            outcomes.wrong_amount,
            outcomes.unknown.rate,
        ];
        shares("outcomes", rates.into_iter())?;
        share("queries.failing", queries.failing)?;
        spell(["outage.rate", "outage.lasts"], self.outage)?;
        spell(["empty_float.rate", "empty_float.lasts"], self.empty_float)?;
        spell(["outcomes.late_success.rate", "outcomes.late_success.lasts"], outcomes.late_success)?;
        spell(["outcomes.reversed.rate", "outcomes.reversed.lasts"], outcomes.reversed)?;
        spell(["outcomes.unknown.rate", "outcomes.unknown.lasts"], outcomes.unknown)?;
        spell(["queries.outage.rate", "queries.outage.lasts"], queries.outage)?;
        spell(["queries.not_found_lag.rate", "queries.not_found_lag.lasts"], queries.not_found_lag)?;
        spell(["queries.stale.rate", "queries.stale.lasts"], queries.stale)?;
        self.reply.check("reply")?;
        self.completion.check("completion")?;
        throttle("throttle", self.throttle)?;
        throttle("query_throttle", self.query_throttle)?;
        self.ban.map_or(Ok(()), Ban::check)?;
        self.callbacks.check()
    }
}

impl Ban {
    fn check(self) -> Result<(), ProfileError> {
        if !(1..=ABUSES_MAX).contains(&self.after) {
            return Err(ProfileError::Abuses { after: self.after });
        }
        Self::check_time("ban.within", self.within)?;
        Self::check_time("ban.lasts", self.lasts)
    }

    pub(in super::super) fn check_time(key: &'static str, value: Duration) -> Result<(), ProfileError> {
        let is_right = !value.is_zero() && value <= BAN_MAX;
        if is_right { Ok(()) } else { Err(ProfileError::Ban { key, value }) }
    }
}

fn throttle(key: &'static str, throttle: Option<Throttle>) -> Result<(), ProfileError> {
    let Some(Throttle { permits_per_second, burst, .. }) = throttle else { return Ok(()) };
    let is_right = permits_per_second > 0.0 && permits_per_second.is_finite() && burst > 0;
    if is_right { Ok(()) } else { Err(ProfileError::Throttle { key }) }
}

pub(super) fn spell([rate, lasts]: [&'static str; 2], spell: Spell) -> Result<(), ProfileError> {
    share(rate, spell.rate)?;
    spell.lasts.check(lasts)
}

pub(super) fn share(key: &'static str, value: f64) -> Result<(), ProfileError> {
    if (0.0..=1.0).contains(&value) { Ok(()) } else { Err(ProfileError::Share { key, value }) }
}

/// Shares that exclude each other.
fn shares(key: &'static str, values: impl Iterator<Item = f64>) -> Result<(), ProfileError> {
    let mut sum = 0.0;
    for value in values {
        share(key, value)?;
        sum += value;
    }
    // A little more than the whole is rounding.
    if sum <= 1.0 + 1e-9 { Ok(()) } else { Err(ProfileError::Sum { key, sum }) }
}

impl Latency {
    pub(super) fn check(self, key: &'static str) -> Result<(), ProfileError> {
        match self {
            Self::Uniform { min, max } if min > max => Err(ProfileError::Latency { key, problem: "min is above max" }),
            Self::Lognormal { p50, p99 } if p50.is_zero() || p50 > p99 => {
                Err(ProfileError::Latency { key, problem: "p50 must be above zero and not above p99" })
            }
            Self::Fixed(_) | Self::Uniform { .. } | Self::Lognormal { .. } => Ok(()),
        }
    }
}
