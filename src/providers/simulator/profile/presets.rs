//! The profiles of `demo --faults`.

use std::time::Duration;

use super::{Declines, Faults, Latency, Outcomes, Profile, Queries, Rates, Spell};

impl Profile {
    /// A provider with everyday trouble: about 4 % refusals, 5 % doubtful failures, and now and
    /// then what a provider should never do.
    ///
    /// Without late successes, and with reversals only before anybody was told of a success:
    /// what a provider changes after it gave its final word is news that no query brings.
    pub fn some_faults() -> Self {
        let seconds = Duration::from_secs;
        Self {
            accepted_first: 0.3,
            completion: Latency::Lognormal { p50: seconds(3), p99: seconds(20) },
            declines: Declines {
                fatal: 0.02,
                retryable: 0.02,
                odd_status: 0.2,
                throttled: 0.005,
                ..Declines::default()
            },
            faults: Faults::all(Rates { before: 0.002, after: 0.002 }),
            outage: Spell::fixed(0.000_2, Duration::from_millis(500)),
            empty_float: Spell::fixed(0.000_2, Duration::from_millis(500)),
            outcomes: Outcomes {
                never: 0.001,
                accepted_then_failed: 0.005,
                reversed: Spell::fixed(0.001, Duration::ZERO),
                wrong_amount: 0.001,
                unknown: Spell { rate: 0.002, lasts: Latency::Uniform { min: seconds(10), max: seconds(40) } },
                ..Outcomes::default()
            },
            queries: Queries {
                failing: 0.02,
                outage: Spell::fixed(0.000_5, seconds(1)),
                not_found_lag: Spell::fixed(0.01, seconds(5)),
                stale: Spell::fixed(0.02, seconds(8)),
                ..Queries::default()
            },
            ..Self::default()
        }
    }

    /// A provider on its worst day: a quarter of the calls fail in doubt. What holds of the final
    /// word in [`Profile::some_faults`] holds here.
    pub fn storm() -> Self {
        let seconds = Duration::from_secs;
        let some = Self::some_faults();
        Self {
            reply: Latency::Lognormal { p50: Duration::from_millis(100), p99: seconds(4) },
            accepted_first: 0.5,
            completion: Latency::Lognormal { p50: seconds(5), p99: Duration::from_mins(1) },
            declines: Declines { fatal: 0.05, retryable: 0.10, odd_status: 0.3, throttled: 0.03, ..some.declines },
            faults: Faults::all(Rates { before: 0.0104, after: 0.0104 }),
            outage: Spell::fixed(0.001, seconds(1)),
            empty_float: Spell::fixed(0.001, seconds(1)),
            outcomes: Outcomes {
                never: 0.005,
                accepted_then_failed: 0.02,
                reversed: Spell { rate: 0.005, ..some.outcomes.reversed },
                wrong_amount: 0.005,
                unknown: Spell { rate: 0.01, ..some.outcomes.unknown },
                ..some.outcomes
            },
            queries: Queries {
                failing: 0.2,
                outage: Spell::fixed(0.002, seconds(2)),
                not_found_lag: Spell::fixed(0.05, seconds(5)),
                stale: Spell::fixed(0.1, seconds(10)),
                ..some.queries
            },
            ..some
        }
    }
}
