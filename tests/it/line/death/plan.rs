//! How a play goes: what providers agree to, what is sold, and who dies when.

use std::time::Duration;

use recharged::providers::simulator::{Declines, Dialect, Faults, Latency, Profile, Queries, Rates};

use crate::harness::Provider;

/// Twelve kinds of fault, before the execution and after it, are a fifth of all calls.
const OF_EACH_KIND: f64 = 0.2 / 24.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Death {
    /// Its process: `kill -9`. What it had accepted and not completed it has forgotten when it is back.
    Killed,
    /// It lives on, and takes no connection.
    Refused,
}

/// What a provider agrees to, in so far as it is not as in its documents.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) query_not_before: Duration,
    pub(super) query_min_interval: Duration,
}

#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) orders: u64,
    pub(super) per_second: f64,
    /// Whom it strikes, the first lane of the route; and the second one.
    pub(super) sick: Dialect,
    pub(super) healthy: Dialect,
    pub(super) death: Death,
    pub(super) dies_after: Duration,
    pub(super) dead_for: Duration,
    pub(super) deadline: Duration,
    /// What is left of it for those that come late.
    pub(super) hurried: Duration,
    pub(super) call_timeout: Duration,
    pub(super) send_window: Duration,
    pub(super) dtone: Terms,
    pub(super) mf178: Terms,
    pub(super) completion: Latency,
    /// The rules of breakers, where they are not the usual ones.
    pub(super) breaker: &'static str,
    /// So long after its deadline an order is decided at the latest.
    pub(super) decided_within: Duration,
    /// No other line runs meanwhile.
    pub(super) alone: bool,
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

impl Plan {
    /// Some hundred orders, in some ten seconds.
    pub(super) fn small() -> Self {
        let terms = Terms { query_not_before: seconds(1.0), query_min_interval: seconds(1.0) };
        Self {
            orders: 240,
            per_second: 40.0,
            sick: Dialect::Dtone,
            healthy: Dialect::Mf178,
            death: Death::Killed,
            dies_after: seconds(1.5),
            dead_for: seconds(3.0),
            deadline: seconds(12.0),
            hurried: seconds(4.0),
            call_timeout: seconds(2.0),
            send_window: seconds(1.0),
            dtone: terms,
            mf178: terms,
            completion: Latency::Uniform { min: seconds(0.2), max: seconds(2.0) },
            breaker: "{ rest_first = \"500ms\", rest_max = \"2s\" }",
            decided_within: recharged::audit::DECIDED_WITHIN,
            alone: false,
        }
    }

    /// Twenty thousand orders with the promise of three minutes, of which one provider is dead for half a minute.
    ///
    /// mf178's published waits leave no time to learn inside three minutes what became of a lost reply
    /// (`docs/PROVIDERS.md`); here it may be asked sooner.
    pub(super) fn large(sick: Dialect, death: Death) -> Self {
        Self {
            orders: 20_000,
            per_second: 200.0,
            sick,
            healthy: if sick == Dialect::Dtone { Dialect::Mf178 } else { Dialect::Dtone },
            death,
            dies_after: seconds(35.0),
            dead_for: seconds(30.0),
            deadline: seconds(180.0),
            hurried: seconds(20.0),
            call_timeout: seconds(10.0),
            send_window: seconds(1.0),
            dtone: Terms { query_not_before: seconds(2.0), query_min_interval: seconds(5.0) },
            mf178: Terms { query_not_before: seconds(10.0), query_min_interval: seconds(10.0) },
            completion: Latency::Lognormal { p50: seconds(3.0), p99: seconds(20.0) },
            breaker: "{}",
            decided_within: super::AT_ONCE,
            alone: true,
        }
    }

    fn terms(&self, dialect: Dialect) -> Terms {
        if dialect == Dialect::Dtone { self.dtone } else { self.mf178 }
    }

    /// How a provider behaves, dead or alive.
    pub(super) fn profile(&self, dialect: Dialect) -> Profile {
        let terms = self.terms(dialect);
        Profile {
            reply: Latency::Lognormal { p50: seconds(0.05), p99: seconds(0.3) },
            accepted_first: 0.3,
            completion: self.completion,
            declines: Declines { fatal: 0.02, retryable: 0.02, odd_status: 0.2, ..Declines::default() },
            faults: Faults::all(Rates { before: OF_EACH_KIND, after: OF_EACH_KIND }),
            queries: Queries {
                failing: 0.1,
                not_before: Some(terms.query_not_before),
                min_interval: Some(terms.query_min_interval),
                ..Queries::default()
            },
            ..Profile::default()
        }
    }

    /// A provider in the configuration, with the amounts that it sells.
    pub(super) fn configured(&self, provider: &Provider, sells: [i64; 2]) -> String {
        let terms = self.terms(provider.dialect());
        let text = |time: Duration| format!("{:?}", humantime::format_duration(time).to_string());
        let product = |minor: i64| format!("{{ amount_minor = {minor}, product = \"{minor}\" }}");
        // Two answers of "not found" count from here on: as soon as nothing can be on its way any more.
        let grace = self.call_timeout + self.send_window + Duration::from_millis(500);
        format!(
            "{}call_timeout = {}\nsend_window = {}\nexpected_service = \"1s\"\nbreaker = {}\n\
             quota = {{ permits_per_second = 500, burst = 100, in_flight_max = 400 }}\nproducts = [{}, {}]\n\
             [providers.{}.capabilities]\nquery_not_before = {}\nquery_min_interval = {}\nnot_found_grace = {}\n",
            provider.toml(),
            text(self.call_timeout),
            text(self.send_window),
            self.breaker,
            product(sells[0]),
            product(sells[1]),
            provider.name(),
            text(terms.query_not_before),
            text(terms.query_min_interval),
            text(grace),
        )
    }
}
