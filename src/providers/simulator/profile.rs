//! How a simulated provider behaves: what `--profile FILE` holds.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::text::{duplicates_text, duration_text};
use crate::domain::DuplicateSemantics;

/// Everything that can be chosen about a simulated provider; may be changed while it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Profile {
    /// What happens to a reference that was seen before.
    #[serde(with = "duplicates_text")]
    pub duplicates: DuplicateSemantics,
    /// From the arrival of a request to its answer.
    pub reply: Latency,
    /// How many recharges are accepted first and completed later, of 1.
    pub accepted_first: f64,
    /// From the acceptance to the completion.
    pub completion: Latency,
    /// Refusals.
    pub declines: Declines,
    /// The provider's own rate limit, over submits and queries; none if absent.
    pub throttle: Option<Throttle>,
    /// Failures that leave the caller in doubt.
    pub faults: Faults,
    /// How many queries are answered by a 500, of 1.
    pub failing_queries: f64,
    /// Let the last three digits of the number decide (x02 invalid, x03 barred, x04 operator
    /// unavailable, x05 cooldown, x06 declined; 1xx at least 3 s, 2xx 20 s, 3xx 5 min), as DT
    /// One's sandbox does.
    pub suffix_scenarios: bool,
}

impl Default for Profile {
    /// A provider that works: answers in about 20 ms and delivers.
    fn default() -> Self {
        Self {
            duplicates: DuplicateSemantics::RejectsAlways,
            reply: Latency::Lognormal { p50: Duration::from_millis(20), p99: Duration::from_millis(100) },
            accepted_first: 0.0,
            completion: Latency::Lognormal { p50: Duration::from_secs(4), p99: Duration::from_mins(1) },
            declines: Declines::default(),
            throttle: None,
            faults: Faults::default(),
            failing_queries: 0.0,
            suffix_scenarios: false,
        }
    }
}

/// A distribution of waits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Latency {
    /// Always the same.
    #[serde(with = "duration_text")]
    Fixed(Duration),
    /// Any value of a range alike.
    Uniform {
        /// The least.
        #[serde(with = "duration_text")]
        min: Duration,
        /// The greatest.
        #[serde(with = "duration_text")]
        max: Duration,
    },
    /// Log-normal: what services look like, with a tail.
    Lognormal {
        /// The median.
        #[serde(with = "duration_text")]
        p50: Duration,
        /// Exceeded by one in a hundred.
        #[serde(with = "duration_text")]
        p99: Duration,
    },
}

/// How many recharges are refused.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Declines {
    /// For good, of 1.
    pub fatal: f64,
    /// With the advice to try again, of 1.
    pub retryable: f64,
    /// The wait that goes with that advice.
    #[serde(with = "duration_text")]
    pub retry_after: Duration,
    /// How many refusals come with status 500 or 200 in place of 422, of 1: some providers do that.
    pub odd_status: f64,
}

impl Default for Declines {
    fn default() -> Self {
        Self { fatal: 0.0, retryable: 0.0, retry_after: Duration::from_secs(1), odd_status: 0.0 }
    }
}

/// A token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Throttle {
    /// The steady rate.
    pub permits_per_second: f64,
    /// How many may come at once after a rest; at least 1.
    pub burst: u32,
    /// Whether the refusal carries `Retry-After`.
    #[serde(default = "yes")]
    pub tells_when: bool,
}

const fn yes() -> bool {
    true
}

/// How often a fault strikes, of 1, before the recharge is executed and after it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rates {
    /// The recharge is not executed.
    pub before: f64,
    /// The recharge is executed.
    pub after: f64,
}

/// Failures that leave the caller in doubt. At most one strikes a request.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// The connection is reset in place of an answer.
    pub reset: Rates,
    /// No answer ever comes.
    pub hang: Rates,
    /// Status 500 without a word of the protocol.
    pub error_500: Rates,
    /// JSON that ends in the middle.
    pub truncated: Rates,
    /// A code that is in no documentation.
    pub unknown_code: Rates,
}

/// The kinds of [`Faults`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FaultKind {
    Reset,
    Hang,
    Error500,
    Truncated,
    UnknownCode,
}

impl Faults {
    pub(super) fn rates(&self) -> [(FaultKind, Rates); 5] {
        [
            (FaultKind::Reset, self.reset),
            (FaultKind::Hang, self.hang),
            (FaultKind::Error500, self.error_500),
            (FaultKind::Truncated, self.truncated),
            (FaultKind::UnknownCode, self.unknown_code),
        ]
    }
}

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
    #[error("throttle: permits_per_second must be above 0 and burst at least 1")]
    Throttle,
}

impl Profile {
    /// Reads and checks a profile.
    pub fn from_toml(text: &str) -> Result<Self, ProfileError> {
        let profile: Self = toml::from_str(text).map_err(|error| ProfileError::Toml(Box::new(error)))?;
        profile.check()?;
        Ok(profile)
    }

    /// A provider with everyday trouble: about 4 % refusals and 1 % of every doubtful failure.
    pub fn some_faults() -> Self {
        let each = Rates { before: 0.005, after: 0.005 };
        Self {
            accepted_first: 0.3,
            completion: Latency::Lognormal { p50: Duration::from_secs(3), p99: Duration::from_secs(20) },
            declines: Declines { fatal: 0.02, retryable: 0.02, odd_status: 0.2, ..Declines::default() },
            faults: Faults { reset: each, hang: each, error_500: each, truncated: each, unknown_code: each },
            failing_queries: 0.02,
            ..Self::default()
        }
    }

    /// A provider on its worst day: a quarter of the calls fail in doubt.
    pub fn storm() -> Self {
        let each = Rates { before: 0.025, after: 0.025 };
        Self {
            reply: Latency::Lognormal { p50: Duration::from_millis(100), p99: Duration::from_secs(4) },
            accepted_first: 0.5,
            completion: Latency::Lognormal { p50: Duration::from_secs(5), p99: Duration::from_mins(1) },
            declines: Declines { fatal: 0.05, retryable: 0.10, odd_status: 0.3, ..Declines::default() },
            faults: Faults { reset: each, hang: each, error_500: each, truncated: each, unknown_code: each },
            failing_queries: 0.2,
            ..Self::default()
        }
    }

    /// Checks what the types do not.
    pub fn check(&self) -> Result<(), ProfileError> {
        share("accepted_first", self.accepted_first)?;
        share("failing_queries", self.failing_queries)?;
        share("declines.odd_status", self.declines.odd_status)?;
        shares("declines", [self.declines.fatal, self.declines.retryable].into_iter())?;
        shares("faults", self.faults.rates().into_iter().flat_map(|(_, rates)| [rates.before, rates.after]))?;
        self.reply.check("reply")?;
        self.completion.check("completion")?;
        match self.throttle {
            Some(throttle) if !(throttle.permits_per_second > 0.0 && throttle.permits_per_second.is_finite()) => {
                Err(ProfileError::Throttle)
            }
            Some(Throttle { burst: 0, .. }) => Err(ProfileError::Throttle),
            Some(_) | None => Ok(()),
        }
    }
}

fn share(key: &'static str, value: f64) -> Result<(), ProfileError> {
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
    fn check(self, key: &'static str) -> Result<(), ProfileError> {
        match self {
            Self::Uniform { min, max } if min > max => Err(ProfileError::Latency { key, problem: "min is above max" }),
            Self::Lognormal { p50, p99 } if p50.is_zero() || p50 > p99 => {
                Err(ProfileError::Latency { key, problem: "p50 must be above zero and not above p99" })
            }
            Self::Fixed(_) | Self::Uniform { .. } | Self::Lognormal { .. } => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_reads_back_as_it_was_written() {
        let profile = Profile {
            duplicates: DuplicateSemantics::ReplaysResult,
            reply: Latency::Fixed(Duration::from_millis(3)),
            throttle: Some(Throttle { permits_per_second: 50.0, burst: 10, tells_when: false }),
            ..Profile::storm()
        };
        let text = toml::to_string(&profile).unwrap();
        assert_eq!(Profile::from_toml(&text).unwrap(), profile, "{text}");
    }

    #[test]
    fn a_profile_file_needs_only_what_differs_from_the_default() {
        let profile = Profile::from_toml(
            "accepted_first = 0.5\nreply = { uniform = { min = \"1ms\", max = \"2ms\" } }\n[faults.reset]\nafter = 0.1\n",
        )
        .unwrap();
        let reply = Latency::Uniform { min: Duration::from_millis(1), max: Duration::from_millis(2) };
        let faults = Faults { reset: Rates { before: 0.0, after: 0.1 }, ..Faults::default() };
        assert_eq!(profile, Profile { accepted_first: 0.5, reply, faults, ..Profile::default() });
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (text, word) in [
            ("accepted_first = 1.5", "accepted_first"),
            ("[declines]\nfatal = 0.6\nretryable = 0.6", "declines"),
            ("[faults.hang]\nbefore = -0.1", "faults"),
            ("reply = { lognormal = { p50 = \"2s\", p99 = \"1s\" } }", "reply"),
            ("[throttle]\npermits_per_second = 0\nburst = 1", "throttle"),
            ("[throttle]\npermits_per_second = 1\nburst = 0", "throttle"),
            ("duplicates = \"sometimes\"", "rejects_always"),
            ("acepted_first = 0.1", "acepted_first"),
        ] {
            let error = Profile::from_toml(text).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn the_presets_make_sense() {
        for profile in [Profile::default(), Profile::some_faults(), Profile::storm()] {
            profile.check().unwrap();
        }
    }
}
