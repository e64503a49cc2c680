//! Callbacks.

use metrics::Counter;

use super::Family;
use super::catalogue as names;
use crate::domain::ProviderId;
use crate::ports::Became;

const TURNED_AWAY: [&str; 5] = ["unknown", "network", "forged", "stale", "reference"];
const NOT_NOW: &str = "not_now";
/// In place of a provider's name, where the address has one that nobody has.
const NOBODY: &str = "none";

/// What providers tell of their own accord.
#[derive(Clone, Debug)]
pub struct CallbackMetrics {
    by_provider: Vec<(ProviderId, Family<Counter>)>,
    of_nobody: Counter,
}

impl CallbackMetrics {
    /// For those who may call back.
    pub fn new(providers: &[ProviderId]) -> Self {
        let became = Became::ALL.iter().map(|became| became.as_str());
        let results: Vec<&'static str> = became.chain(TURNED_AWAY).chain([NOT_NOW]).collect();
        let of = |provider: &ProviderId| {
            Family::new(&results, |result| names::CALLBACKS.counter(&[provider.as_str(), result]))
        };
        Self {
            by_provider: providers.iter().map(|provider| (provider.clone(), of(provider))).collect(),
            of_nobody: names::CALLBACKS.counter(&[NOBODY, "unknown"]),
        }
    }

    /// One was dealt with.
    pub fn taken(&self, provider: &ProviderId, became: Became) {
        self.count(provider, became.as_str());
    }

    /// One was turned away: `unknown`, `network`, `forged`, `stale` or `reference`.
    pub fn turned_away(&self, provider: Option<&ProviderId>, why: &'static str) {
        match provider {
            Some(provider) => self.count(provider, why),
            None => self.of_nobody.increment(1),
        }
    }

    /// One was genuine, and is to be sent again.
    pub fn not_now(&self, provider: &ProviderId) {
        self.count(provider, NOT_NOW);
    }

    fn count(&self, provider: &ProviderId, result: &'static str) {
        let of_provider = self.by_provider.iter().find(|(of, _)| of == provider);
        if let Some(counter) = of_provider.and_then(|(_, results)| results.get(result)) {
            counter.increment(1);
        }
    }
}
