//! The configuration as operators meet it: layers, errors, sources, secrets.

use std::path::{Path, PathBuf};

use recharged::config::{Config, ConfigProblem, Loaded, Needs, Span};
use recharged::domain::ProviderId;
use serde_json::Value;

struct File {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn file(text: &str) -> File {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("recharged.toml");
    std::fs::write(&path, text).unwrap();
    File { _folder: folder, path }
}

fn load(text: &str, env: &[(&str, &str)], sets: &[&str]) -> Result<Loaded, Vec<ConfigProblem>> {
    let file = file(text);
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    Config::load(Some(&file.path), env, &sets)
}

/// The problems of a file, without its folder.
fn problems(text: &str) -> Vec<String> {
    lines(load(text, &[], &[]))
}

fn lines(loaded: Result<Loaded, Vec<ConfigProblem>>) -> Vec<String> {
    let Err(problems) = loaded else { return Vec::new() };
    let shown = problems.iter().map(ToString::to_string);
    shown
        .map(|line| line.rsplit_once("recharged.toml").map_or(line.clone(), |(_, rest)| format!("FILE{rest}")))
        .collect()
}

const MINIMAL: &str = r#"
kafka.brokers = "kafka:9092"
store.url = "postgres://recharged@db/recharged"
security.phone_key_file = "/run/secrets/phone-key"

[providers.primary]
kind = "simulator"
base_url = "http://simulator:9500"
"#;

#[test]
fn the_addresses_are_all_that_must_be_given() {
    let loaded = load(MINIMAL, &[], &[]).unwrap();
    loaded.require(Needs::RUN).unwrap();
    let config = &loaded.config;
    assert_eq!(config.sla.deadline, Span::seconds(180));
    assert_eq!(config.policy().refund_confirm_within, Some(std::time::Duration::from_hours(24)));
    assert_eq!(&*config.topics().orders, "recharge.orders");
    let lane = ProviderId::new("primary");
    assert_eq!(&*config.topics().due(&lane), "recharge.requests.primary.due");
    let groups = config.groups();
    assert_eq!((&*groups.intake, &*groups.intake_lifecycle), ("recharge-intake", "recharge-intake.lifecycle"));
    assert_eq!(&*groups.intake_timers, "recharge-intake.timers");
    assert_eq!(&*groups.dispatch(&lane), "recharge-dispatch-primary");
    assert_eq!(&*groups.dispatch_due(&lane), "recharge-dispatch-primary.due");
    let tiers: Vec<String> = config.tiers().into_iter().map(|tier| config.topics().delay(tier).to_string()).collect();
    assert_eq!(tiers[4], "recharge.delay.1m");
    assert_eq!(tiers[6], "recharge.delay.30m");
    let terms = config.quota_terms(&lane).unwrap();
    assert_eq!((terms.interval.as_millis(), terms.burst), (20, 50));
}

#[test]
fn everything_in_the_documented_example_is_read() {
    let text = r#"
[process]
name = "recharged-0"
[sla]
deadline = "180s"
unpaid_timeout = "30m"
notify_after = "60s"
on_unknown = "hold"
reconcile_within = "72h"
[kafka]
brokers = "127.0.0.1:9092"
topic_prefix = "recharge."
group_prefix = "recharge-"
security_protocol = "SASL_SSL"
sasl_mechanism = "scram-sha-512"
sasl_username = "recharged"
sasl_password_file = "/run/secrets/kafka"
[kafka.properties]
socket.keepalive.enable = true
"linger.ms" = 5
[store]
url = "sqlite://recharged.db"
[security]
phone_key_file = "/run/secrets/phone-key"
[retention]
closed_orders = "90d"
[delay]
tiers = ["1s", "5s", "15s", "30s", "1m", "5m", "30m"]
[http]
listen = "127.0.0.1:9400"
[callback]
public_url = "https://shop.example/recharge"
listen = "127.0.0.1:9401"
[providers.primary]
kind = "simulator"
base_url = "https://provider.example/api"
key_file = "/run/secrets/primary-key"
call_timeout = "15s"
quota = { permits_per_second = 50, burst = 50, in_flight_max = 200, query_share = 0.2, retry_share = 0.2 }
products = [ { country = "CN", carrier = "*", amount_minor = 5000, product = "50" } ]
[providers.second]
kind = "simulator"
base_url = "https://second.example/api"
[[routes]]
country = "CN"
carrier = "*"
lanes = ["primary", "second"]
[log]
format = "json"
level = "info"
"#;
    let config = load(text, &[], &[]).unwrap().config;
    let properties = &config.kafka.properties;
    assert_eq!(properties.get("socket.keepalive.enable").map(String::as_str), Some("true"));
    assert_eq!(properties.get("linger.ms").map(String::as_str), Some("5"));
    let names: Vec<String> = config.topic_plan().into_iter().map(|plan| plan.name.to_string()).collect();
    assert!(names.contains(&"recharge.requests.second.due".to_owned()));
    assert_eq!(names.len(), 7 + 2 * 2 + 7);
}

#[test]
fn an_unknown_key_is_an_error_that_names_the_nearest_one() {
    assert_eq!(
        problems("[sla]\ndeadlin = \"1s\"\n"),
        ["FILE:2: sla.deadlin: there is no such key; did you mean \"deadline\"?"]
    );
    let nested =
        problems("[providers.p]\nkind = \"simulator\"\nbase_url = \"http://h\"\nquota = { permit_per_second = 1 }\n");
    assert_eq!(
        nested,
        ["FILE:4: providers.p.quota.permit_per_second: there is no such key; did you mean \"permits_per_second\"?"]
    );
}

#[test]
fn all_problems_are_reported_each_on_a_line_of_its_own() {
    let found = problems(
        "[sla]\ndeadline = \"fast\"\nunpaid_timeout = 30\n[delay]\ntiers = \"1s\"\n[http]\nlisten = \"9400\"\n",
    );
    assert_eq!(found.len(), 4, "{found:#?}");
    assert!(found.iter().all(|line| !line.contains('\n')));
    assert_eq!(
        found[0],
        "FILE:2: sla.deadline: \"fast\" does not fit here: give a duration with its unit, such as \"180s\" or \"30m\", of 100 years at most"
    );
    assert!(found[1].starts_with("FILE:3: sla.unpaid_timeout: 30 does not fit here"));
}

#[test]
fn a_later_layer_wins_and_its_name_is_shown() {
    let env = [("RECHARGED__SLA__DEADLINE", "120s"), ("RECHARGED__HTTP__LISTEN", "127.0.0.1:1"), ("HOME", "/")];
    let loaded = load(MINIMAL, &env, &["http.listen=127.0.0.1:2", "delay.tiers=1s,5s"]).unwrap();
    assert_eq!(loaded.config.sla.deadline, Span::seconds(120));
    assert_eq!(loaded.config.http.listen.to_string(), "127.0.0.1:2");
    let shown = loaded.shown();
    assert_eq!(shown["sla.deadline"].source, "environment RECHARGED__SLA__DEADLINE");
    assert_eq!(shown["http.listen"].source, "--set");
    assert_eq!(shown["log.level"].source, "default");
    assert_eq!(shown["delay.tiers"].value, serde_json::json!(["1s", "5s"]));
    assert!(shown["kafka.brokers"].source.ends_with("recharged.toml:2"), "{}", shown["kafka.brokers"].source);
}

#[test]
fn the_environment_reaches_lanes_with_hyphens_and_settings_with_dots() {
    let text = "[providers.cn-east]\nkind = \"simulator\"\nbase_url = \"http://h\"\n";
    let env = [
        ("RECHARGED__PROVIDERS__CN_EAST__QUOTA__PERMITS_PER_SECOND", "1"),
        ("RECHARGED__KAFKA__PROPERTIES__LINGER_MS", "7"),
    ];
    let config = load(text, &env, &[]).unwrap().config;
    assert_eq!(config.quota_terms(&ProviderId::new("cn-east")).unwrap().interval.as_secs(), 1);
    assert_eq!(config.quota_terms(&ProviderId::new("cn-east")).unwrap().burst, 1);
    assert_eq!(config.kafka.properties.get("linger.ms").map(String::as_str), Some("7"));
}

#[test]
fn problems_of_the_environment_and_of_set_name_their_place() {
    let found = lines(load(MINIMAL, &[("RECHARGED__KAFKA__BROKER", "x")], &["sla.deadline=soon", "foo"]));
    assert_eq!(
        found[0],
        "environment RECHARGED__KAFKA__BROKER: kafka.broker: there is no such key; did you mean \"brokers\"?"
    );
    assert!(found[1].starts_with("--set: foo: has no value"), "{found:?}");
    assert!(found[2].starts_with("--set: sla.deadline: \"soon\" does not fit here"), "{found:?}");
}

#[test]
fn a_file_that_is_not_there_or_not_toml_is_named() {
    let missing = Config::load(Some(Path::new("/nowhere/recharged.toml")), [], &[]);
    assert!(lines(missing)[0].starts_with("FILE: cannot be read"));
    let found = problems("[sla]\ndeadline = \n[store]\npassword = \"canary\n");
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("FILE:2: is not TOML: "), "{found:?}");
    assert!(!found[0].contains("canary"));
}

/// What does not fit together, and the key that the error names.
const CROSS_CHECKS: [(&str, &str); 35] = [
    // A dot would let one lane's topics and groups meet another's.
    ("providers.\"x.due\".kind = \"simulator\"", "providers.x.due"),
    ("delay.tiers = [\"1s\", \"200h\"]", "delay.tiers[1]"),
    ("delay.tiers = [\"0s\", \"5s\"]", "delay.tiers[0]"),
    ("delay.tiers = [\"1s\", \"1s\"]", "delay.tiers"),
    ("delay.tiers = [\"5s\", \"1s\"]", "delay.tiers"),
    ("delay.tiers = []", "delay.tiers"),
    ("sla.deadline = \"0s\"", "sla.deadline"),
    ("sla.reconcile_within = \"1m\"", "sla.reconcile_within"),
    ("sla.refund_confirm_within = \"90d\"", "sla.refund_confirm_within"),
    ("sla.deadline = \"10s\"", "providers.p.call_timeout"),
    ("providers.p.call_timeout = \"200s\"", "providers.p.call_timeout"),
    (
        "providers.p.call_timeout = \"60s\"\nproviders.p.capabilities.not_found_grace = \"60s\"",
        "providers.p.capabilities.not_found_grace",
    ),
    ("providers.p.expected_service = \"180s\"", "providers.p.expected_service"),
    ("providers.p.quota.permits_per_second = 0", "providers.p.quota.permits_per_second"),
    ("providers.p.quota.permits_per_second = -1.5", "providers.p.quota.permits_per_second"),
    ("providers.p.quota.burst = 0", "providers.p.quota.burst"),
    ("providers.p.quota.in_flight_max = 0", "providers.p.quota.in_flight_max"),
    ("providers.p.quota.query_share = 1", "providers.p.quota.query_share"),
    ("providers.p.quota.query_share = 0.5\nproviders.p.quota.retry_share = 0.5", "providers.p.quota.query_share"),
    ("providers.p.products = [{ amount_minor = 0, product = \"x\" }]", "providers.p.products[0].amount_minor"),
    ("kafka.heartbeat_interval = \"3s\"", "kafka.heartbeat_interval"),
    ("kafka.session_timeout = \"90s\"", "kafka.max_poll_interval"),
    ("kafka.security_protocol = \"sasl_ssl\"", "kafka.sasl_mechanism"),
    ("kafka.sasl_username = \"x\"", "kafka.security_protocol"),
    ("kafka.properties.\"enable.auto.commit\" = true", "kafka.properties.enable.auto.commit"),
    ("kafka.properties.\"sasl.password\" = \"x\"", "kafka.properties.sasl.password"),
    ("kafka.topics.orders_retention = \"90d\"", "kafka.topics.orders_retention"),
    ("kafka.topics.replication = 1\nkafka.topics.min_insync_replicas = 2", "kafka.topics.min_insync_replicas"),
    ("process.grace_period = \"20s\"", "process.grace_period"),
    ("callback.listen = \"0.0.0.0:9400\"", "callback.listen"),
    ("retention.closed_orders = \"24h\"", "retention.closed_orders"),
    ("store.url = \"mysql://db/x\"", "store.url"),
    ("log.level = \"loud=very=much\"", "log.level"),
    ("routes = [{ lanes = [\"q\"] }]", "routes[0].lanes[0]"),
    ("retry.backoff_first = \"2m\"", "retry.backoff_max"),
];

#[test]
fn what_does_not_fit_together_is_refused_before_anything_is_opened() {
    let provider = "providers.p.kind = \"simulator\"\nproviders.p.base_url = \"http://h\"\n";
    for (text, key) in CROSS_CHECKS {
        let found = load(&format!("{provider}{text}\n"), &[], &[]).map(|_| ()).unwrap_err();
        assert!(found.iter().any(|problem| problem.key() == key), "{text}: {found:?}");
    }
}

#[test]
fn where_the_payment_side_confirms_nothing_no_refund_is_followed() {
    let loaded = load("sla.refund_confirm_within = \"0s\"\nsla.notify_at_end = true\n", &[], &[]).unwrap();
    let policy = loaded.config.policy();
    assert_eq!((policy.refund_confirm_within, policy.notify_at_end), (None, true));
}

#[test]
fn the_default_tiers_suit_every_wait_that_may_be_configured() {
    let provider = "providers.p.kind = \"simulator\"\nproviders.p.base_url = \"http://h\"\n";
    let short = "sla.unpaid_timeout = \"10m\"\nproviders.p.capabilities.query_retention = \"1h\"\n";
    load(&format!("{provider}{short}"), &[], &[]).unwrap();
    load("sla.unpaid_timeout = \"10m\"\n", &[], &[]).unwrap();
    load(&format!("{provider}delay.tiers = [\"1s\", \"24h\"]\n"), &[], &[]).unwrap();
}

/// A provider of a kind that is real, complete; `rest` is added to it.
fn real(kind: &str, product: &str, rest: &str) -> String {
    format!(
        "[providers.p]\nkind = \"{kind}\"\nbase_url = \"https://h/\"\naccount = \"us\"\nkey_file = \"/k\"\n{rest}\n\
         [[providers.p.products]]\namount_minor = 5000\nproduct = \"{product}\"\n"
    )
}

#[test]
fn a_real_provider_is_taken_when_its_login_and_its_products_are_there() {
    for (kind, product) in [("dtone", "4001"), ("mf178", "yd-50"), ("reloadly", "341")] {
        load(&real(kind, product, ""), &[], &[]).unwrap();
        let bare = problems(&format!("[providers.p]\nkind = \"{kind}\"\nbase_url = \"https://h/\"\n"));
        for key in ["account", "key_file", "products"] {
            assert!(
                bare.iter().any(|problem| problem.contains(&format!("providers.p.{key}: is "))),
                "{kind}: {bare:?}"
            );
        }
    }
    assert!(
        problems("[providers.p]\nkind = \"ding\"\nbase_url = \"https://h/\"\n")[0]
            .contains("one of \"simulator\", \"dtone\", \"mf178\", \"reloadly\"")
    );
}

#[test]
fn what_belongs_to_another_kind_or_is_a_fact_of_a_provider_is_no_setting() {
    for (kind, product, rest, key) in [
        ("mf178", "1", "two_step = true", "two_step"),
        ("dtone", "1", "auth_url = \"https://a/\"", "auth_url"),
        ("dtone", "fifty", "", "products[0].product"),
        ("reloadly", "341", "auth_url = \"nowhere\"", "auth_url"),
        ("dtone", "1", "capabilities.duplicates = \"not_deduplicated\"", "capabilities"),
        ("mf178", "1", "capabilities.client_ref_max_len = 64", "capabilities"),
        // A question that may come too early would be answered "not found" about what is under way.
        ("mf178", "1", "capabilities.not_found_grace = \"10s\"", "capabilities.not_found_grace"),
    ] {
        let found = load(&real(kind, product, rest), &[], &[]).map(|_| ()).unwrap_err();
        let key = format!("providers.p.{key}");
        assert!(found.iter().any(|problem| problem.key() == key), "{kind}, {rest}: {found:?}");
    }
    // What the documents leave open may be corrected.
    let corrected = real("dtone", "1", "two_step = true\ncapabilities.query_not_before = \"3s\"");
    let contract = load(&corrected, &[], &[]).unwrap().config.providers["p"].contract();
    assert_eq!((contract.query_not_before.as_secs(), contract.client_ref.max_len), (3, 40));
}

#[test]
fn several_providers_need_routes_and_a_wrong_lane_is_told_the_nearest() {
    let two = "[providers.primary]\nkind = \"simulator\"\nbase_url = \"http://a\"\n[providers.second]\nkind = \"simulator\"\nbase_url = \"http://b\"\n";
    assert!(problems(two)[0].contains("routes: there are several providers and no route"), "{:?}", problems(two));
    let wrong = problems(&format!("{two}[[routes]]\nlanes = [\"primry\"]\n"));
    assert_eq!(wrong, ["FILE:8: routes[0].lanes[0]: there is no provider \"primry\"; did you mean \"primary\"?"]);
}

#[test]
fn what_a_command_needs_is_asked_for_when_it_is_missing() {
    let loaded = load("", &[], &[]).unwrap();
    assert_eq!(loaded.require(Needs::KAFKA).unwrap_err().len(), 1);
    let all = loaded.require(Needs::RUN).unwrap_err();
    let keys: Vec<&str> = all.iter().map(ConfigProblem::key).collect();
    assert_eq!(keys, ["kafka.brokers", "providers", "security.phone_key_file", "store.url"]);
}

#[test]
fn secrets_are_read_from_where_the_configuration_points_and_shown_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (phone, key) = (path("phone", "canary-0123456789abcdef\n"), path("key", "canary-key\n"));
    let text = format!(
        "store.password_env = \"DB_PASSWORD\"\nsecurity.phone_key_file = \"{phone}\"\n\
         [providers.p]\nkind = \"simulator\"\nbase_url = \"http://h\"\nkey_file = \"{key}\"\n"
    );
    let loaded = load(&text, &[("RECHARGED__STORE__URL", "postgres://me:canary-url@db/r")], &[]).unwrap();
    let secrets = loaded.secrets([("DB_PASSWORD".to_owned(), "canary-db".to_owned())]).unwrap();
    assert_eq!(secrets.provider_keys["p"].expose(), "canary-key");
    assert_eq!(secrets.store_password.as_ref().unwrap().expose(), "canary-db");
    let shown = format!("{secrets:?} {loaded:?} {}", serde_json::to_string(&loaded.shown()).unwrap());
    assert!(!shown.contains("canary"), "{shown}");
}

#[test]
fn a_secret_that_cannot_be_read_names_its_key_and_path() {
    let text = "store.password_env = \"NOT_SET\"\nsecurity.phone_key_file = \"/nowhere/phone\"\n";
    let found = lines(load(text, &[], &[]).and_then(|loaded| loaded.secrets([]).map(|_| loaded)));
    assert_eq!(found.len(), 2);
    assert!(found[0].starts_with("FILE:1: store.password_env: the environment has no NOT_SET"), "{found:?}");
    assert!(found[1].starts_with("FILE:2: security.phone_key_file: cannot read /nowhere/phone"), "{found:?}");
}

#[test]
fn a_password_in_the_url_may_come_from_the_environment_only() {
    let url = "postgres://me:canary@db/r";
    let found = problems(&format!("store.url = \"{url}\"\n"));
    assert!(found[0].starts_with("FILE:1: store.url: holds a password"), "{found:?}");
    assert!(!found[0].contains("canary"));
    assert!(load("", &[("RECHARGED__STORE__URL", url)], &[]).is_ok());
    assert!(load("", &[], &[&format!("store.url={url}")]).is_err());
}

#[test]
fn equal_configurations_have_equal_fingerprints() {
    let print = |sets: &[&str]| load(MINIMAL, &[], sets).unwrap().config.fingerprint();
    assert_eq!(print(&[]), print(&["process.name=pod-1", "sla.deadline=3m"]));
    assert_ne!(print(&[]), print(&["sla.deadline=2m"]));
}

#[test]
fn the_documentation_lists_every_key_as_it_is() {
    let schema = Config::schema();
    let mut rows = vec!["| key | takes | default | meaning |".to_owned(), "|---|---|---|---|".to_owned()];
    describe(&schema, &schema, "", None, &mut rows);
    super::docs::holds("docs/CONFIGURATION.md", "keys", &rows.join("\n"));
}

/// Writes a row per key of a section.
fn describe(root: &Value, section: &Value, above: &str, defaults: Option<&Value>, rows: &mut Vec<String>) {
    let section = resolved(root, section);
    for (name, node) in section["properties"].as_object().unwrap() {
        let key = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        let inner = resolved(root, node);
        let default = defaults.and_then(|all| all.get(name)).or_else(|| node.get("default"));
        if inner.get("properties").is_some() {
            describe(root, inner, &key, default, rows);
        } else if name == "providers" {
            let of = &inner["additionalProperties"];
            describe(root, of, "providers.NAME", None, rows);
        } else if let Some(items) = inner.get("items").filter(|items| resolved(root, items).get("properties").is_some())
        {
            rows.push(row(&format!("[[{key}]]"), "tables", default, node));
            describe(root, items, &format!("{key}[]"), None, rows);
        } else {
            rows.push(row(&key, &takes(root, inner), default, node));
        }
    }
}

fn row(key: &str, takes: &str, default: Option<&Value>, node: &Value) -> String {
    let default = match default {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) if text.is_empty() => String::new(),
        Some(value) => format!("`{value}`"),
    };
    let meaning = node["description"].as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|");
    format!("| `{key}` | {takes} | {default} | {meaning} |")
}

fn resolved<'a>(root: &'a Value, node: &'a Value) -> &'a Value {
    let optional = node.get("anyOf").and_then(|variants| variants.get(0)).unwrap_or(node);
    match optional.get("$ref").and_then(Value::as_str) {
        Some(reference) => &root["$defs"][reference.rsplit('/').next().unwrap()],
        None => optional,
    }
}

fn takes(root: &Value, node: &Value) -> String {
    if let Some(members) = node.get("oneOf").or_else(|| node.get("enum")).and_then(Value::as_array) {
        let texts = members.iter().map(|member| member.get("const").unwrap_or(member).to_string());
        return texts.map(|text| format!("`{text}`")).collect::<Vec<_>>().join(", ");
    }
    if let Some(items) = node.get("items") {
        return format!("list: {}", takes(root, resolved(root, items)));
    }
    let kind = &node["type"];
    let kind = kind.as_str().or_else(|| kind[0].as_str()).unwrap_or("text");
    match (kind, node["format"].as_str()) {
        (_, Some("human-duration")) => "duration".to_owned(),
        (_, Some("socket-address")) => "address".to_owned(),
        ("string", _) => "text".to_owned(),
        ("integer", _) => "whole number".to_owned(),
        ("object", _) => "table of texts".to_owned(),
        (other, _) => other.to_owned(),
    }
}
