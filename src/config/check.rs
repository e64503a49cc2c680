//! Checks across fields, before anything is opened.

use std::time::Duration;

use crate::domain::{delay, inquiry};

use super::problem::Finding;
use super::{Config, Span, rules};

/// What a command cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// The brokers' addresses.
    pub kafka: bool,
    /// The store's address.
    pub store: bool,
    /// At least one provider, with routes, and the key for hashing phone numbers.
    pub work: bool,
}

impl Needs {
    /// The service itself.
    pub const RUN: Self = Self { kafka: true, store: true, work: true };
    /// Topics only.
    pub const KAFKA: Self = Self { kafka: true, store: false, work: false };
    /// The store only.
    pub const STORE: Self = Self { kafka: false, store: true, work: false };
    /// Topics and the store.
    pub const KAFKA_AND_STORE: Self = Self { kafka: true, store: true, work: false };
}

/// Collects findings.
#[derive(Debug, Default)]
pub(super) struct Findings(pub(super) Vec<Finding>);

impl Findings {
    pub(super) fn add(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.0.push(Finding { key: key.into(), message: message.into() });
    }

    pub(super) fn unless(&mut self, holds: bool, key: &str, message: impl FnOnce() -> String) {
        if !holds {
            self.add(key, message());
        }
    }

    pub(super) fn positive(&mut self, key: &str, span: Span) {
        self.unless(!span.get().is_zero(), key, || "is zero: give a duration above zero".to_owned());
    }
}

/// Everything that does not fit together.
pub(super) fn across_fields(config: &Config) -> Vec<Finding> {
    let mut findings = Findings::default();
    sla(config, &mut findings);
    tiers(config, &mut findings);
    retry(config, &mut findings);
    process(config, &mut findings);
    listeners(config, &mut findings);
    retention(config, &mut findings);
    store(config, &mut findings);
    log(config, &mut findings);
    rules::kafka(config, &mut findings);
    rules::providers(config, &mut findings);
    rules::routes(config, &mut findings);
    findings.0
}

/// What a command needs and the configuration does not give.
pub(super) fn missing(config: &Config, needs: Needs) -> Vec<Finding> {
    let mut findings = Findings::default();
    findings.unless(!needs.kafka || !config.kafka.brokers.is_empty(), "kafka.brokers", || {
        "is missing: give the bootstrap brokers, such as \"kafka-1:9092,kafka-2:9092\"".to_owned()
    });
    findings.unless(!needs.store || !config.store.url.is_empty(), "store.url", || {
        "is missing: give the database, such as \"postgres://recharged@db/recharged\"".to_owned()
    });
    if needs.work {
        findings.unless(!config.providers.is_empty(), "providers", || {
            "there is none: add a section [providers.NAME] with kind, base_url and quota".to_owned()
        });
        findings.unless(config.security.phone_key_file.is_some(), "security.phone_key_file", || {
            "is missing: name a file with a key of 16 bytes or more, the same in the whole fleet".to_owned()
        });
    }
    findings.0
}

fn sla(config: &Config, findings: &mut Findings) {
    let sla = &config.sla;
    findings.positive("sla.deadline", sla.deadline);
    findings.positive("sla.unpaid_timeout", sla.unpaid_timeout);
    findings.positive("sla.notify_after", sla.notify_after);
    findings.unless(sla.reconcile_within > sla.deadline, "sla.reconcile_within", || {
        format!("{} is not longer than sla.deadline ({}): give hours or days", sla.reconcile_within, sla.deadline)
    });
}

fn tiers(config: &Config, findings: &mut Findings) {
    let tiers = &config.delay.tiers;
    findings.unless(!tiers.is_empty(), "delay.tiers", || "is empty: give at least one tier, such as \"1s\"".to_owned());
    findings.unless(tiers.is_sorted_by(|one, next| one < next), "delay.tiers", || {
        "the tiers do not rise: list each once, shortest first".to_owned()
    });
    // Every wait that a tier serves: beyond the longest of them, a tier stays empty for ever. Questions after
    // the deadline wait longest, up to what a record may wait at all.
    let waits = [
        ("a question after the deadline", Span::new(inquiry::longest_wait(Duration::ZERO))),
        ("sla.unpaid_timeout", config.sla.unpaid_timeout),
        ("sla.notify_after", config.sla.notify_after),
        ("retry.backoff_max", config.retry.backoff_max),
    ];
    let queries = config.providers.values().map(|provider| {
        let terms = provider.contract();
        let waits = terms.query_min_interval.max(terms.query_not_before);
        let question = inquiry::longest_wait(terms.query_retention).max(waits).min(delay::LONGEST);
        ("a question to a provider", Span::new(question))
    });
    let longest = waits.into_iter().chain(queries).max_by_key(|(_, wait)| *wait);
    let Some((which, longest)) = longest else { return };
    for (index, tier) in tiers.iter().enumerate() {
        let key = format!("delay.tiers[{index}]");
        findings.unless(tier.get().as_millis() >= 100, &key, || {
            format!("{tier} is below what a tier can keep: give at least 100ms")
        });
        findings.unless(*tier <= longest, &key, || {
            format!("{tier} is longer than any wait it could serve ({which} is {longest}): drop it")
        });
    }
}

fn retry(config: &Config, findings: &mut Findings) {
    let retry = &config.retry;
    findings.unless(retry.max_attempts >= 1, "retry.max_attempts", || "is 0: give at least 1".to_owned());
    findings.positive("retry.backoff_first", retry.backoff_first);
    findings.unless(retry.backoff_first <= retry.backoff_max, "retry.backoff_max", || {
        format!("{} is shorter than retry.backoff_first ({})", retry.backoff_max, retry.backoff_first)
    });
    findings.unless(retry.backoff_first < config.sla.deadline, "retry.backoff_first", || {
        format!(
            "{} leaves no time for a second attempt before sla.deadline ({})",
            retry.backoff_first, config.sla.deadline
        )
    });
}

fn process(config: &Config, findings: &mut Findings) {
    let name = &config.process.name;
    let fits = name.len() <= 128 && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    findings.unless(fits, "process.name", || "give at most 128 characters of A-Z a-z 0-9 . _ -".to_owned());
    let grace = config.process.grace_period;
    findings.unless(grace.get() > config.drain_time(), "process.grace_period", || {
        format!(
            "{grace} is not longer than a drain, which takes the longest call_timeout and 5s ({}): \
             raise it, and the pod's terminationGracePeriodSeconds with it",
            Span::new(config.drain_time())
        )
    });
}

fn listeners(config: &Config, findings: &mut Findings) {
    findings.unless(!config.http.listen.collides_with(config.callback.listen), "callback.listen", || {
        format!("{} is http.listen's port too: give another", config.callback.listen)
    });
    let callback = &config.callback;
    if let Some(url) = &callback.public_url {
        rules::web_address("callback.public_url", url, findings);
    }
    findings.unless(
        callback.public_url.is_some() || callback.token_key_files.is_empty(),
        "callback.public_url",
        || "is missing: callback.token_key_files sign the addresses below it".to_owned(),
    );
    for (nth, network) in callback.proxies.iter().enumerate() {
        rules::network(&format!("callback.proxies[{nth}]"), network, findings);
    }
}

fn retention(config: &Config, findings: &mut Findings) {
    let closed = config.retention.closed_orders;
    findings.unless(closed > config.sla.reconcile_within, "retention.closed_orders", || {
        format!("{closed} is not longer than sla.reconcile_within ({})", config.sla.reconcile_within)
    });
    let confirmed = config.sla.refund_confirm_within;
    findings.unless(confirmed < closed, "sla.refund_confirm_within", || {
        format!(
            "{confirmed} is not shorter than retention.closed_orders ({closed}): nobody would know the order any more"
        )
    });
    // An order that can be read again after its row is gone would be recharged again.
    let readable = config.kafka.topics.orders_retention;
    findings.unless(readable < closed, "kafka.topics.orders_retention", || {
        format!(
            "{readable} is not shorter than retention.closed_orders ({closed}): an order read again must still be known"
        )
    });
}

fn store(config: &Config, findings: &mut Findings) {
    let store = &config.store;
    findings.unless(store.max_connections >= 1, "store.max_connections", || "is 0: give at least 1".to_owned());
    findings.unless(store.password_file.is_none() || store.password_env.is_none(), "store.password_env", || {
        "store.password_file is given too: keep one of them".to_owned()
    });
    if !store.url.is_empty() {
        findings.unless(store.url.names_a_database(), "store.url", || {
            "is no database that is known here: give postgres://user@host/database or sqlite://file".to_owned()
        });
    }
}

fn log(config: &Config, findings: &mut Findings) {
    let level = &config.log.level;
    let readable = !level.is_empty() && tracing_subscriber::EnvFilter::builder().parse(level).is_ok();
    findings.unless(readable, "log.level", || {
        format!("{level:?} is no level: give error, warn, info, debug, trace, or a filter such as info,recharged::kafka=debug")
    });
}
