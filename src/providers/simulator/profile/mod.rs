//! How a simulated provider behaves: what `--profile FILE` holds.

mod callbacks;
mod check;
mod faults;
mod presets;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::callbacks::Callbacks;
pub use self::check::ProfileError;
pub(super) use self::faults::FaultKind;
pub use self::faults::{Ban, Declines, Faults, Outcomes, Queries, Rates, Spell};
use super::class::FaultClass;
use super::text::{duplicates_text, duration_text, optional_duration};
use crate::domain::DuplicateSemantics;

/// Everything that can be chosen about a simulated provider; may be changed while it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Profile {
    /// What happens to a reference that was seen before.
    #[serde(with = "duplicates_text")]
    pub duplicates: DuplicateSemantics,
    /// So long after a recharge of a number, another one of the same number is refused.
    #[serde(with = "optional_duration", skip_serializing_if = "Option::is_none")]
    pub cooldown: Option<Duration>,
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
    /// A limit of its own for queries, which then do not count against `throttle`.
    pub query_throttle: Option<Throttle>,
    /// Who does not keep the limits is banned for a while; nobody if absent.
    pub ban: Option<Ban>,
    /// Failures that leave the caller in doubt.
    pub faults: Faults,
    /// How many submits begin an outage: theirs is reset before it is executed, requests under way
    /// are still answered, and no connection is taken while it lasts.
    pub outage: Spell,
    /// How many submits find our balance used up, until it is raised or so long has passed:
    /// recharges are refused meanwhile, and nothing is executed.
    pub empty_float: Spell,
    /// What becomes of a recharge other than plainly delivered or refused.
    pub outcomes: Outcomes,
    /// Trouble of queries.
    pub queries: Queries,
    /// What is told without being asked, and its trouble.
    pub callbacks: Callbacks,
    /// Let the last three digits of the number decide (x02 invalid, x03 barred, x04 operator
    /// unavailable, x05 cooldown, x06 declined; 1xx at least 3 s, 2xx 20 s, 3xx 5 min), as DT
    /// One's sandbox does; from x50 on, a class of trouble each (`docs/SIMULATOR.md`).
    pub suffix_scenarios: bool,
}

impl Default for Profile {
    /// A provider that works: answers in about 20 ms and delivers.
    fn default() -> Self {
        Self {
            duplicates: DuplicateSemantics::RejectsAlways,
            cooldown: None,
            reply: Latency::Lognormal { p50: Duration::from_millis(20), p99: Duration::from_millis(100) },
            accepted_first: 0.0,
            completion: Latency::Lognormal { p50: Duration::from_secs(4), p99: Duration::from_mins(1) },
            declines: Declines::default(),
            throttle: None,
            query_throttle: None,
            ban: None,
            faults: Faults::default(),
            outage: Spell::default(),
            empty_float: Spell::default(),
            outcomes: Outcomes::default(),
            queries: Queries::default(),
            callbacks: Callbacks::default(),
            suffix_scenarios: false,
        }
    }
}

impl Profile {
    /// Reads and checks a profile.
    pub fn from_toml(text: &str) -> Result<Self, ProfileError> {
        let profile: Self = toml::from_str(text).map_err(|error| ProfileError::Toml(Box::new(error)))?;
        profile.check()?;
        Ok(profile)
    }

    /// The classes of trouble that it rates above zero, in the order of [`FaultClass::ALL`]. Limits
    /// and the ban have no rate and are not among them.
    pub fn classes(&self) -> Vec<FaultClass> {
        let queries = [
            (FaultClass::QueryFailing, self.queries.failing),
            (FaultClass::QueryOutage, self.queries.outage.rate),
            (FaultClass::NotFoundLag, self.queries.not_found_lag.rate),
            (FaultClass::Stale, self.queries.stale.rate),
        ];
        let all = self.rates_of_submits().into_iter().chain(queries).chain(self.callbacks.rates());
        all.filter(|(_, rate)| *rate > 0.0).map(|(class, _)| class).collect()
    }

    /// How often each class of trouble strikes a submit by chance, of 1, and a little less where several would.
    pub fn rates_of_submits(&self) -> Vec<(FaultClass, f64)> {
        let declines = self.declines;
        let others = [
            (FaultClass::Outage, self.outage.rate),
            (FaultClass::Fatal, declines.fatal),
            (FaultClass::Retryable, declines.retryable),
            (FaultClass::OddStatus, (declines.fatal + declines.retryable) * declines.odd_status),
            (FaultClass::Throttled, declines.throttled),
            (FaultClass::EmptyFloat, self.empty_float.rate),
            (FaultClass::Never, self.outcomes.never),
            (FaultClass::AcceptedThenFailed, self.outcomes.accepted_then_failed),
            (FaultClass::LateSuccess, self.outcomes.late_success.rate),
            (FaultClass::Reversed, self.outcomes.reversed.rate),
            (FaultClass::WrongAmount, self.outcomes.wrong_amount),
            (FaultClass::Unclear, self.outcomes.unknown.rate),
        ];
        let faults = self.faults.rates().into_iter().flat_map(|(kind, rates)| {
            let (before, after) = kind.classes();
            [(before, rates.before), (after, rates.after)]
        });
        faults.chain(others).collect()
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
    /// Whether the refusal is a word in a body with status 200 in place of a 429.
    #[serde(default)]
    pub in_body: bool,
}

const fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_reads_back_as_it_was_written() {
        let profile = Profile {
            duplicates: DuplicateSemantics::ReplaysResult,
            reply: Latency::Fixed(Duration::from_millis(3)),
            throttle: Some(Throttle { permits_per_second: 50.0, burst: 10, tells_when: false, in_body: true }),
            cooldown: Some(Duration::from_mins(2)),
            ban: Some(Ban {
                after: 3,
                within: Duration::from_secs(10),
                lasts: Duration::from_secs(30),
                tells_when: false,
            }),
            queries: Queries { retention: Some(Duration::from_hours(1)), ..Queries::default() },
            callbacks: Callbacks {
                lost: 0.25,
                resend: vec![Duration::from_secs(3), Duration::from_mins(1)],
                ..Callbacks::default()
            },
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
            ("[outcomes]\nnever = 0.6\nwrong_amount = 0.6", "outcomes"),
            ("[outage]\nrate = 2", "outage.rate"),
            ("[queries.stale]\nlasts = { uniform = { min = \"2s\", max = \"1s\" } }", "queries.stale.lasts"),
            ("cooldown = \"soon\"", "cooldown"),
            ("[query_throttle]\npermits_per_second = 0\nburst = 1", "query_throttle"),
            ("reply = { lognormal = { p50 = \"2s\", p99 = \"1s\" } }", "reply"),
            ("[throttle]\npermits_per_second = 0\nburst = 1", "throttle"),
            ("[throttle]\npermits_per_second = 1\nburst = 0", "throttle"),
            ("[ban]\nafter = 0\nwithin = \"1s\"\nlasts = \"1s\"", "ban.after: 0 is not from 1 to 10000"),
            ("[ban]\nafter = 10001\nwithin = \"1s\"\nlasts = \"1s\"", "ban.after: 10001"),
            ("[ban]\nafter = 1\nwithin = \"0s\"\nlasts = \"1s\"", "ban.within: 0s is not above zero and at most 1day"),
            ("[ban]\nafter = 1\nwithin = \"1s\"\nlasts = \"0s\"", "ban.lasts: 0s"),
            ("[ban]\nafter = 1\nwithin = \"1s\"\nlasts = \"25h\"", "ban.lasts: 1day 1h"),
            ("[ban]\nafter = 1\nwithin = \"1s\"", "lasts"),
            ("[ban]\nafter = 1\nwithin = \"1s\"\nlast = \"1s\"", "last"),
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
        assert_eq!(Profile::default().classes(), []);
        // No query tells of the one, and nobody meets the other who keeps the limits.
        let left_out = [FaultClass::LateSuccess, FaultClass::Ban];
        let expected: Vec<_> = FaultClass::scriptable().filter(|class| !left_out.contains(class)).collect();
        assert_eq!(Profile::some_faults().classes(), expected);
        assert_eq!(Profile::storm().classes(), expected);
    }
}
