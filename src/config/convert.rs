//! The configuration in the words of the domain and the ports.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::{Config, KafkaConfig, ProductConfig, ProviderConfig, ProviderKind, QuotaConfig, Secrets, contracts};
use crate::domain::route::{Lane, Product, ProductTable, Route, RouteTable};
use crate::domain::{CallbackLinks, Capabilities, Currency, Policy, ProviderId, ProviderPolicy};
use crate::ports::QuotaTerms;

/// A network, or a single address.
pub(super) fn network(text: &str) -> Option<IpNet> {
    let one = || text.parse::<std::net::IpAddr>().map(|address| IpNet::from(address.to_canonical()));
    text.parse::<IpNet>().or_else(|_| one()).ok()
}

fn networks(texts: &[String]) -> Vec<IpNet> {
    texts.iter().filter_map(|text| network(text)).collect()
}

impl Config {
    /// The networks of our own proxies before the listener for callbacks.
    pub fn callback_proxies(&self) -> Vec<IpNet> {
        networks(&self.callback.proxies)
    }

    /// How a provider's callbacks are addressed; `None` where it cannot be told.
    pub fn callback_links(&self, provider: &ProviderId, secrets: &Secrets) -> Option<CallbackLinks> {
        let url = self.callback.public_url.as_deref()?;
        let kind = self.providers.get(provider.as_str())?.kind?;
        let keys = secrets.token_keys.clone();
        (kind.is_told_where() && !keys.is_empty()).then(|| CallbackLinks::new(provider.clone(), url, keys))
    }

    /// The networks from which a provider calls back; empty for any.
    pub fn callback_networks(&self, provider: &ProviderId) -> Vec<IpNet> {
        self.providers.get(provider.as_str()).map(|provider| networks(&provider.callback_networks)).unwrap_or_default()
    }

    /// The rules in the form in which `decide` reads them.
    pub fn policy(&self) -> Policy {
        Policy {
            sla: self.sla.deadline.get(),
            unpaid_timeout: self.sla.unpaid_timeout.get(),
            notify_after: self.sla.notify_after.get(),
            notify_at_end: self.sla.notify_at_end,
            refund_confirm_within: Some(self.sla.refund_confirm_within.get()).filter(|within| !within.is_zero()),
            on_unknown: self.sla.on_unknown,
            reconcile_within: self.sla.reconcile_within.get(),
            max_attempts: self.retry.max_attempts,
            backoff_first: self.retry.backoff_first.get(),
            backoff_max: self.retry.backoff_max.get(),
            providers: self
                .providers
                .iter()
                .map(|(name, provider)| (ProviderId::new(name), provider.policy()))
                .collect(),
            routes: Arc::new(self.route_table()),
            shut: Vec::new(),
        }
    }

    /// The terms of a provider's quota; `None` if it is not configured.
    pub fn quota_terms(&self, provider: &ProviderId) -> Option<QuotaTerms> {
        self.providers.get(provider.as_str()).map(|provider| provider.quota.terms())
    }

    /// Which lane an order goes to.
    pub fn route_table(&self) -> RouteTable {
        let lane = |name: &String| {
            let products = self.providers.get(name).map(ProviderConfig::products).unwrap_or_default();
            Lane { id: ProviderId::new(name), sells_anything: products.is_empty(), products }
        };
        if self.routes.is_empty() {
            // Checked: there is exactly one provider then.
            let lanes = self.providers.keys().take(1).map(lane).collect();
            return RouteTable::new(vec![Route::everything(lanes)]);
        }
        RouteTable::new(
            self.routes
                .iter()
                .map(|route| Route {
                    country: route.country.clone(),
                    carrier: route.carrier.clone(),
                    amounts: route.amounts.clone(),
                    lanes: route.lanes.iter().map(lane).collect(),
                    weights: route.weights.clone(),
                })
                .collect(),
        )
    }
}

impl KafkaConfig {
    /// What every client of the brokers is told, in librdkafka's words, the password included.
    pub fn client_properties(&self, secrets: &Secrets) -> BTreeMap<String, String> {
        let mut properties = self.properties.clone();
        let mut set = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                properties.insert(name.to_owned(), value.to_owned());
            }
        };
        set("security.protocol", Some(self.security_protocol.as_str()));
        if self.security_protocol.has_tls() {
            set("ssl.ca.location", Some(&self.ssl_ca_location));
            set("ssl.certificate.location", self.ssl_certificate_location.as_deref());
            set("ssl.key.location", self.ssl_key_location.as_deref());
        }
        if self.security_protocol.has_login() {
            set("sasl.mechanisms", self.sasl_mechanism.map(super::SaslMechanism::as_str));
            set("sasl.username", self.sasl_username.as_deref());
            set("sasl.password", secrets.sasl_password.as_ref().map(super::Secret::expose));
        }
        properties
    }

    /// What consumers alone are told.
    pub fn consumer_properties(&self) -> Vec<(String, String)> {
        let millis = |span: super::Span| span.get().as_millis().to_string();
        vec![
            ("session.timeout.ms".to_owned(), millis(self.session_timeout)),
            ("heartbeat.interval.ms".to_owned(), millis(self.heartbeat_interval)),
            ("max.poll.interval.ms".to_owned(), millis(self.max_poll_interval)),
        ]
    }
}

impl QuotaConfig {
    /// The burst: as given, or one second's worth.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float cast saturates, and the rate is checked to be positive"
    )]
    pub fn burst_or_default(&self) -> u32 {
        self.burst.unwrap_or(self.permits_per_second as u32).max(1)
    }

    /// The quota in the port's words.
    pub fn terms(&self) -> QuotaTerms {
        QuotaTerms {
            interval: interval_of(self.permits_per_second),
            burst: self.burst_or_default(),
            query_share: self.query_share,
            retry_share: self.retry_share,
        }
    }
}

/// The shortest interval, in whole nanoseconds, at which no more leave than `rate` a second:
/// rounded up, since a contract is not kept on average.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between a microsecond and some days, in nanoseconds: a whole number that a float holds exactly"
)]
fn interval_of(rate: f64) -> Duration {
    const SECOND: f64 = 1e9;
    let rate = rate.clamp(1e-6, SECOND);
    let nanos = (SECOND / rate).ceil();
    // The division itself may have rounded down to a whole number; the fused product has the exact sign.
    let falls_short = rate.mul_add(nanos, -SECOND) < 0.0;
    Duration::from_nanos(nanos as u64 + u64::from(falls_short))
}

impl ProviderConfig {
    /// The contract of its kind, as the file corrects it.
    pub fn contract(&self) -> Capabilities {
        // Checked: there is a kind.
        let contract = contracts::of(self.kind.unwrap_or(ProviderKind::Simulator), self.call_timeout.get());
        match &self.capabilities {
            Some(corrections) => corrections.correct(&contract),
            None => contract,
        }
    }

    /// Where its tokens are to be had, if it wants any.
    pub fn auth_url(&self) -> Option<&str> {
        const RELOADLY: &str = "https://auth.reloadly.com";
        let usual = (self.kind == Some(ProviderKind::Reloadly)).then_some(RELOADLY);
        self.auth_url.as_deref().or(usual)
    }

    /// What it sells.
    pub fn product_table(&self) -> ProductTable {
        ProductTable::new(self.products())
    }

    fn products(&self) -> Vec<Product> {
        let product = |product: &ProductConfig| {
            Some(Product {
                country: product.country.clone(),
                carrier: product.carrier.clone(),
                amount_minor: product.amount_minor,
                currency: Currency::parse(&product.currency).ok()?,
                code: product.product.clone(),
                is_ranged: product.ranged,
            })
        };
        self.products.iter().filter_map(product).collect()
    }

    fn policy(&self) -> ProviderPolicy {
        ProviderPolicy {
            capabilities: self.contract(),
            expected_service: self.expected_service.get(),
            send_window: self.send_window.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Whether `nanos · rate` reaches a second, reckoned in whole numbers.
    fn reaches_a_second(nanos: u64, rate: f64) -> bool {
        let exponent = i32::try_from(rate.to_bits() >> 52).unwrap() - 1075;
        let mantissa = u128::from(rate.to_bits() & ((1 << 52) - 1) | 1 << 52);
        u128::from(nanos) * mantissa >= 1_000_000_000_u128 << -exponent
    }

    proptest! {
        #[test]
        fn an_interval_is_the_shortest_that_never_exceeds_its_rate(rate in (-6.0..=6.0_f64).prop_map(|e| 10_f64.powf(e))) {
            let nanos = u64::try_from(interval_of(rate).as_nanos()).unwrap();
            prop_assert!(reaches_a_second(nanos, rate), "{nanos} ns is too short for {rate}");
            prop_assert!(!reaches_a_second(nanos - 1, rate), "{nanos} ns is too long for {rate}");
        }

        #[test]
        fn whole_rates_are_kept_too(rate in 1..=1_000_000_u32) {
            let nanos = u64::try_from(interval_of(f64::from(rate)).as_nanos()).unwrap();
            prop_assert_eq!(nanos, 1_000_000_000_u64.div_ceil(u64::from(rate)));
        }
    }

    #[test]
    fn a_division_that_rounds_down_to_a_whole_number_is_seen() {
        // Just below 50: the interval is a hair above 20 ms.
        let rate = 50.0_f64.next_down();
        assert_eq!(interval_of(rate), Duration::from_nanos(20_000_001));
        assert_eq!(interval_of(50.0), Duration::from_millis(20));
    }
}
