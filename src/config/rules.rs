//! Checks of brokers, providers and routes.

use std::collections::BTreeSet;

use super::check::Findings;
use super::convert;
use super::{Config, ProviderConfig, ProviderKind, SaslMechanism, SecurityProtocol, Span};
use crate::domain::Currency;

/// Settings of librdkafka that have a key of their own here.
const HAVE_A_KEY: [(&str, &str); 17] = [
    ("bootstrap.servers", "kafka.brokers"),
    ("metadata.broker.list", "kafka.brokers"),
    ("security.protocol", "kafka.security_protocol"),
    ("sasl.mechanism", "kafka.sasl_mechanism"),
    ("sasl.mechanisms", "kafka.sasl_mechanism"),
    ("sasl.username", "kafka.sasl_username"),
    ("sasl.password", "kafka.sasl_password_file"),
    ("ssl.ca.location", "kafka.ssl_ca_location"),
    ("ssl.certificate.location", "kafka.ssl_certificate_location"),
    ("ssl.key.location", "kafka.ssl_key_location"),
    ("ssl.key.pem", "kafka.ssl_key_location"),
    ("ssl.key.password", "kafka.ssl_key_location"),
    ("ssl.keystore.password", "kafka.ssl_key_location"),
    ("session.timeout.ms", "kafka.session_timeout"),
    ("heartbeat.interval.ms", "kafka.heartbeat_interval"),
    ("max.poll.interval.ms", "kafka.max_poll_interval"),
    ("group.instance.id", "process.name"),
];

/// Settings of librdkafka on which the delivery guarantee rests.
const OURS: [&str; 17] = [
    "client.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.commit.interval.ms",
    "auto.offset.reset",
    "group.id",
    "group.protocol",
    "partition.assignment.strategy",
    "enable.idempotence",
    "acks",
    "request.required.acks",
    "transactional.id",
    "allow.auto.create.topics",
    "message.timeout.ms",
    "delivery.timeout.ms",
    "enable.partition.eof",
    "test.mock.num.brokers",
];

pub(super) fn kafka(config: &Config, findings: &mut Findings) {
    let kafka = &config.kafka;
    let names = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    for (key, prefix) in [("kafka.topic_prefix", &kafka.topic_prefix), ("kafka.group_prefix", &kafka.group_prefix)] {
        let fits = prefix.len() <= 128 && names(prefix);
        findings.unless(fits, key, || "give at most 128 characters of A-Z a-z 0-9 . _ -".to_owned());
    }
    let (heartbeat, session, poll) = (kafka.heartbeat_interval, kafka.session_timeout, kafka.max_poll_interval);
    findings.positive("kafka.heartbeat_interval", heartbeat);
    findings.unless(heartbeat.get() * 3 <= session.get(), "kafka.heartbeat_interval", || {
        format!("{heartbeat} is more than a third of kafka.session_timeout ({session}): three must fit in")
    });
    findings.unless(session <= poll, "kafka.max_poll_interval", || {
        format!("{poll} is shorter than kafka.session_timeout ({session})")
    });
    findings.unless(kafka.topics.partitions >= 1, "kafka.topics.partitions", || "is 0: give at least 1".to_owned());
    replicas(config, findings);
    login(config, findings);
    for name in kafka.properties.keys() {
        let key = format!("kafka.properties.{name}");
        if let Some((_, instead)) = HAVE_A_KEY.iter().find(|(taken, _)| taken == name) {
            findings.add(key, format!("has a key of its own: use {instead}"));
        } else if OURS.contains(&name.as_str()) {
            findings.add(key, "is set by the product, whose guarantees rest on it: leave it out");
        } else if name.contains("password") || name.contains("secret") {
            findings.add(key, "would put a secret into the configuration: leave it out");
        }
    }
}

fn replicas(config: &Config, findings: &mut Findings) {
    let topics = &config.kafka.topics;
    findings.unless(topics.replication != Some(0), "kafka.topics.replication", || "is 0: give at least 1".to_owned());
    if let (Some(replicas), Some(in_sync)) = (topics.replication, topics.min_insync_replicas) {
        findings.unless(in_sync <= replicas, "kafka.topics.min_insync_replicas", || {
            format!("{in_sync} is more than kafka.topics.replication ({replicas}): no write would ever succeed")
        });
    }
    for (key, span) in [
        ("kafka.topics.orders_retention", topics.orders_retention),
        ("kafka.topics.work_retention", topics.work_retention),
        ("kafka.topics.events_retention", topics.events_retention),
        ("kafka.topics.dead_letter_retention", topics.dead_letter_retention),
    ] {
        findings.positive(key, span);
    }
}

fn login(config: &Config, findings: &mut Findings) {
    let kafka = &config.kafka;
    let password = kafka.sasl_password_file.is_some() || kafka.sasl_password_env.is_some();
    let protocol = kafka.security_protocol.as_str();
    if kafka.security_protocol.has_login() {
        let wants = |key: &'static str| move || format!("is missing: {protocol} logs in, which needs {key}");
        findings.unless(
            kafka.sasl_mechanism.is_some(),
            "kafka.sasl_mechanism",
            wants("a mechanism, such as \"SCRAM-SHA-512\""),
        );
        findings.unless(kafka.sasl_username.is_some(), "kafka.sasl_username", wants("a name"));
        findings.unless(password, "kafka.sasl_password_file", wants("a password file, or kafka.sasl_password_env"));
    } else {
        let given = kafka.sasl_mechanism.is_some() || kafka.sasl_username.is_some() || password;
        findings.unless(!given, "kafka.security_protocol", || {
            format!("{protocol} has no login, yet sasl_ keys are given: use \"sasl_ssl\" or drop them")
        });
    }
    findings.unless(
        kafka.sasl_password_file.is_none() || kafka.sasl_password_env.is_none(),
        "kafka.sasl_password_env",
        || "kafka.sasl_password_file is given too: keep one of them".to_owned(),
    );
    let clear = kafka.sasl_mechanism == Some(SaslMechanism::Plain)
        && kafka.security_protocol == SecurityProtocol::SaslPlaintext;
    findings.unless(!clear, "kafka.sasl_mechanism", || {
        "PLAIN would send the password in clear: use \"sasl_ssl\", or a SCRAM mechanism".to_owned()
    });
    let pair = kafka.ssl_certificate_location.is_some() == kafka.ssl_key_location.is_some();
    findings.unless(pair, "kafka.ssl_certificate_location", || {
        "a certificate and its key belong together: give both ssl_certificate_location and ssl_key_location".to_owned()
    });
}

pub(super) fn providers(config: &Config, findings: &mut Findings) {
    for (name, provider) in &config.providers {
        let at = |rest: &str| format!("providers.{name}{rest}");
        let fits = (1..=32).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'));
        // No dot: behind one stands what a lane has several of, its due topic and that topic's group.
        findings
            .unless(fits, &at(""), || "a lane's name is part of topic names: give 1 to 32 of a-z 0-9 _ -".to_owned());
        adapter(name, provider, findings);
        timing(name, provider, config.sla.deadline, findings);
        quota(name, provider, findings);
        breaker(name, provider, findings);
        for (index, product) in provider.products.iter().enumerate() {
            let key = |field: &str| at(&format!(".products[{index}].{field}"));
            country(&key("country"), &product.country, findings);
            findings.unless(product.amount_minor > 0, &key("amount_minor"), || "is not above zero".to_owned());
            findings.unless(Currency::parse(&product.currency).is_ok(), &key("currency"), || {
                "is no ISO 4217 code: give three capital letters, such as \"CNY\"".to_owned()
            });
        }
    }
}

fn adapter(name: &str, provider: &ProviderConfig, findings: &mut Findings) {
    let at = |rest: &str| format!("providers.{name}.{rest}");
    match provider.kind {
        None => findings.add(at("kind"), "is missing: give \"dtone\", \"mf178\", \"reloadly\" or \"simulator\""),
        Some(kind) => of_kind(name, provider, kind, findings),
    }
    if provider.base_url.is_empty() {
        findings
            .add(at("base_url"), "is missing: give the provider's address, such as \"https://provider.example/api\"");
    } else {
        web_address(&at("base_url"), &provider.base_url, findings);
    }
}

/// What a kind needs, and what no other takes.
fn of_kind(name: &str, provider: &ProviderConfig, kind: ProviderKind, findings: &mut Findings) {
    let at = |rest: &str| format!("providers.{name}.{rest}");
    let only = |kind: &'static str| move || format!("belongs to kind = {kind:?} alone: leave it out");
    findings.unless(!provider.two_step || kind == ProviderKind::Dtone, &at("two_step"), only("dtone"));
    let no_auth_url = provider.auth_url.is_none();
    findings.unless(no_auth_url || kind == ProviderKind::Reloadly, &at("auth_url"), only("reloadly"));
    if let Some(url) = &provider.auth_url {
        web_address(&at("auth_url"), url, findings);
    }
    let may_sign = provider.callback_key_files.is_empty() || kind.signs_callbacks();
    findings.unless(may_sign, &at("callback_key_files"), || {
        format!(
            "{} signs no callbacks in a documented way: leave it out; the address that it is given proves who calls",
            kind.as_str()
        )
    });
    for (nth, text) in provider.callback_networks.iter().enumerate() {
        network(&at(&format!("callback_networks[{nth}]")), text, findings);
    }
    if kind == ProviderKind::Simulator {
        return;
    }
    if let Some(own) = &provider.capabilities {
        let fixed =
            own.duplicates.is_none() && own.client_ref_max_len.is_none() && own.client_ref_alphanumeric_only.is_none();
        findings.unless(fixed, &at("capabilities"), || {
            "duplicates and client_ref_* are facts of a real provider, no setting: leave them out".to_owned()
        });
    }
    let account = provider.account.as_deref().unwrap_or_default();
    findings.unless(!account.is_empty(), &at("account"), || {
        "is missing: give our name there (API key, app_key or client id)".to_owned()
    });
    findings.unless(provider.key_file.is_some(), &at("key_file"), || {
        "is missing: name the file that holds our secret there".to_owned()
    });
    findings.unless(!provider.products.is_empty(), &at("products"), || {
        format!("is empty: a {} provider recharges by its own products, so list what is sold", kind.as_str())
    });
    for (index, product) in provider.products.iter().enumerate() {
        let key = at(&format!("products[{index}]"));
        let numbered = kind == ProviderKind::Mf178 || product.product.parse::<u64>().is_ok();
        findings.unless(numbered, &format!("{key}.product"), || {
            format!("{:?} is no whole number: give the id that {} has for it", product.product, kind.as_str())
        });
        let may_range = !product.ranged || kind == ProviderKind::Dtone;
        findings.unless(may_range, &format!("{key}.ranged"), only("dtone"));
    }
}

fn timing(name: &str, provider: &ProviderConfig, deadline: Span, findings: &mut Findings) {
    let at = |rest: &str| format!("providers.{name}.{rest}");
    findings.positive(&at("call_timeout"), provider.call_timeout);
    findings.positive(&at("send_window"), provider.send_window);
    let call = Span::new(provider.send_window.get() + provider.call_timeout.get());
    findings.unless(call < deadline, &at("call_timeout"), || {
        format!(
            "{} (and send_window {}) cannot fit sla.deadline ({deadline}): shorten it",
            provider.call_timeout, provider.send_window
        )
    });
    findings.unless(provider.expected_service < deadline, &at("expected_service"), || {
        format!("{} is not below sla.deadline ({deadline}): no call would ever be made", provider.expected_service)
    });
    let terms = provider.contract();
    // Earlier, a request of ours could still arrive after the provider had said "not found".
    findings.unless(terms.not_found_grace >= call.get(), &at("capabilities.not_found_grace"), || {
        let grace = Span::new(terms.not_found_grace);
        format!("{grace} is shorter than send_window and call_timeout together ({call}): raise it")
    });
    findings.positive(&at("capabilities.query_min_interval"), Span::new(terms.query_min_interval));
    findings.unless(terms.client_ref.max_len >= 8, &at("capabilities.client_ref_max_len"), || {
        "is too short to be unique: give at least 8".to_owned()
    });
}

fn quota(name: &str, provider: &ProviderConfig, findings: &mut Findings) {
    let at = |rest: &str| format!("providers.{name}.quota.{rest}");
    let quota = &provider.quota;
    let rate = quota.permits_per_second;
    findings.unless(rate.is_finite() && rate > 0.0, &at("permits_per_second"), || {
        format!("{rate} lets nothing leave: give the contract's calls a second, above zero")
    });
    findings.unless(rate <= 1_000_000.0, &at("permits_per_second"), || "is above a million a second".to_owned());
    findings.unless(quota.burst != Some(0), &at("burst"), || "is 0: give at least 1".to_owned());
    findings.unless(quota.in_flight_max >= 1, &at("in_flight_max"), || "is 0: give at least 1".to_owned());
    let share = |share: f64| (0.0..1.0).contains(&share);
    for (key, value) in [("query_share", quota.query_share), ("retry_share", quota.retry_share)] {
        findings.unless(share(value), &at(key), || format!("{value} is no share: give at least 0 and less than 1"));
    }
    let (query, retry) = (quota.query_share, quota.retry_share);
    findings.unless(!share(query) || !share(retry) || query + retry < 1.0, &at("query_share"), || {
        format!("query_share and retry_share make {}: fresh orders need a share too, so stay below 1", query + retry)
    });
}

fn breaker(name: &str, provider: &ProviderConfig, findings: &mut Findings) {
    let at = |rest: &str| format!("providers.{name}.breaker.{rest}");
    let own = &provider.breaker;
    for (key, span) in [("window", own.window), ("rest_first", own.rest_first)] {
        findings.positive(&at(key), span);
    }
    findings.unless(own.rest_first <= own.rest_max, &at("rest_max"), || {
        format!("{} is shorter than rest_first ({})", own.rest_max, own.rest_first)
    });
    findings.unless(own.failing.is_finite() && own.failing > 0.0, &at("failing"), || {
        format!("{} is no share: give one above 0, such as 0.6", own.failing)
    });
    let counts = [("calls_min", own.calls_min), ("in_a_row", own.in_a_row), ("account_in_a_row", own.account_in_a_row)];
    for (key, count) in counts {
        findings.unless(count >= 1, &at(key), || "is 0: give at least 1".to_owned());
    }
}

pub(super) fn routes(config: &Config, findings: &mut Findings) {
    let many = config.providers.len() > 1 && config.routes.is_empty();
    findings.unless(!many, "routes", || {
        "there are several providers and no route: add [[routes]] with lanes in order of preference".to_owned()
    });
    for (index, route) in config.routes.iter().enumerate() {
        let at = |rest: &str| format!("routes[{index}].{rest}");
        country(&at("country"), &route.country, findings);
        findings.unless(!route.lanes.is_empty(), &at("lanes"), || "is empty: name at least one provider".to_owned());
        let mut seen = BTreeSet::new();
        for (position, lane) in route.lanes.iter().enumerate() {
            let key = at(&format!("lanes[{position}]"));
            findings.unless(seen.insert(lane), &key, || format!("{lane:?} stands there twice"));
            findings.unless(config.providers.contains_key(lane), &key, || unknown_lane(lane, config));
        }
        let fits = route.weights.is_empty() || route.weights.len() == route.lanes.len();
        findings.unless(fits, &at("weights"), || {
            format!("has {} for {} lanes: give one for each, or none", route.weights.len(), route.lanes.len())
        });
        let some = route.weights.is_empty() || route.weights.iter().any(|weight| *weight > 0);
        findings.unless(some, &at("weights"), || "are all 0: at least one lane has to come first".to_owned());
        for (position, amount) in route.amounts.iter().enumerate() {
            let key = at(&format!("amounts[{position}]"));
            findings.unless(*amount > 0, &key, || format!("{amount} is not above zero"));
        }
    }
}

fn unknown_lane(lane: &str, config: &Config) -> String {
    let nearest = config
        .providers
        .keys()
        .max_by(|one, other| strsim::jaro_winkler(lane, one).total_cmp(&strsim::jaro_winkler(lane, other)));
    match nearest {
        Some(known) => format!("there is no provider {lane:?}; did you mean {known:?}?"),
        None => format!("there is no provider {lane:?}: add [providers.{lane}]"),
    }
}

fn country(key: &str, country: &str, findings: &mut Findings) {
    let fits = country == "*" || (country.len() == 2 && country.bytes().all(|b| b.is_ascii_uppercase()));
    findings.unless(fits, key, || "is no ISO 3166 code: give two capital letters, such as \"CN\", or \"*\"".to_owned());
}

pub(super) fn network(key: &str, text: &str, findings: &mut Findings) {
    findings.unless(convert::network(text).is_some(), key, || {
        format!("{text:?} is no network: give one such as \"203.0.113.0/24\", or a single address")
    });
}

pub(super) fn web_address(key: &str, text: &str, findings: &mut Findings) {
    match url::Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.host().is_some() => {
            let bare = url.username().is_empty() && url.password().is_none();
            findings.unless(bare, key, || "holds a login: move it to key_file".to_owned());
        }
        // The text is not repeated: it may hold a login.
        Ok(_) | Err(_) => findings.add(key, "is no address: give one such as \"https://provider.example/api\""),
    }
}
