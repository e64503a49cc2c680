//! The sections of the file, with their defaults (`docs/CONFIGURATION.md`).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::types::{Listen, Span, StoreUrl};
use crate::domain::OnUnknown;

/// This process among its fleet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProcessConfig {
    /// Lasting name (a `StatefulSet`'s pod): enables static membership in the consumer groups. Empty for none.
    pub name: String,
    /// How long the process may take to stop: the pod's `terminationGracePeriodSeconds`.
    pub grace_period: Span,
}

impl Default for ProcessConfig {
    fn default() -> Self {
        Self { name: String::new(), grace_period: Span::seconds(60) }
    }
}

/// The promise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SlaConfig {
    /// From `paid_at` to the deadline.
    pub deadline: Span,
    /// From `created_at` to the cancellation of an unpaid order.
    pub unpaid_timeout: Span,
    /// From `created_at` to the notification, where the order asks for one.
    pub notify_after: Span,
    /// Whether there is a notification of an order's end as well, where the order asks for any; then the one after
    /// `sla.notify_after` comes for orders alone that are open by then.
    pub notify_at_end: bool,
    /// How long the payment side may take to confirm a refund before a person must look; `"0s"` where it confirms none.
    pub refund_confirm_within: Span,
    /// What to do at the deadline with a recharge whose outcome is not known.
    pub on_unknown: OnUnknown,
    /// How long an order may be in doubt before a person must look.
    pub reconcile_within: Span,
}

impl Default for SlaConfig {
    fn default() -> Self {
        Self {
            deadline: Span::seconds(180),
            unpaid_timeout: Span::seconds(30 * 60),
            notify_after: Span::seconds(60),
            notify_at_end: false,
            refund_confirm_within: Span::seconds(24 * 3600),
            on_unknown: OnUnknown::Hold,
            reconcile_within: Span::seconds(72 * 3600),
        }
    }
}

/// How the brokers are spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SecurityProtocol {
    /// In clear, no login.
    #[default]
    Plaintext,
    /// TLS.
    Ssl,
    /// In clear, with a login.
    SaslPlaintext,
    /// TLS, with a login.
    SaslSsl,
}

impl SecurityProtocol {
    /// As librdkafka writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }

    /// Whether a login is part of it.
    pub const fn has_login(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }

    /// Whether TLS is part of it.
    pub const fn has_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }
}

/// The login's mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SaslMechanism {
    /// Name and password in clear: only inside TLS.
    #[serde(rename = "PLAIN")]
    Plain,
    /// SCRAM with SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// SCRAM with SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl SaslMechanism {
    /// As librdkafka writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// The brokers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaConfig {
    /// Bootstrap brokers, `host:port` separated by commas. Required wherever Kafka is used.
    pub brokers: String,
    /// In front of every topic's name.
    pub topic_prefix: String,
    /// In front of every consumer group's name.
    pub group_prefix: String,
    /// How the brokers are spoken to.
    pub security_protocol: SecurityProtocol,
    /// The login's mechanism; required with a `sasl_` protocol.
    pub sasl_mechanism: Option<SaslMechanism>,
    /// The login's name.
    pub sasl_username: Option<String>,
    /// A file that holds the login's password.
    pub sasl_password_file: Option<String>,
    /// An environment variable that holds the login's password.
    pub sasl_password_env: Option<String>,
    /// CA certificates: a PEM file, a folder, or `probe` for the system's.
    pub ssl_ca_location: String,
    /// The client's certificate, PEM.
    pub ssl_certificate_location: Option<String>,
    /// The client's private key, PEM.
    pub ssl_key_location: Option<String>,
    /// After this long without a heartbeat the group gives the partitions to others.
    pub session_timeout: Span,
    /// Time between two heartbeats; at most a third of the session time-out.
    pub heartbeat_interval: Span,
    /// The longest time between two polls.
    pub max_poll_interval: Span,
    /// What `topics create` makes and `topics verify` compares with.
    pub topics: TopicsConfig,
    /// Any librdkafka setting, in its own words, but for those that have a key here or that the delivery guarantee rests on.
    pub properties: BTreeMap<String, String>,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            brokers: String::new(),
            topic_prefix: "recharge.".to_owned(),
            group_prefix: "recharge-".to_owned(),
            security_protocol: SecurityProtocol::Plaintext,
            sasl_mechanism: None,
            sasl_username: None,
            sasl_password_file: None,
            sasl_password_env: None,
            ssl_ca_location: "probe".to_owned(),
            ssl_certificate_location: None,
            ssl_key_location: None,
            session_timeout: Span::seconds(6),
            heartbeat_interval: Span::seconds(1),
            max_poll_interval: Span::seconds(60),
            topics: TopicsConfig::default(),
            properties: BTreeMap::new(),
        }
    }
}

/// The shape of the topics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TopicsConfig {
    /// Partitions of each topic.
    pub partitions: u16,
    /// Replicas of each partition; left out, the broker's own default.
    pub replication: Option<u16>,
    /// In-sync replicas that a write needs; left out, the broker's own default.
    pub min_insync_replicas: Option<u16>,
    /// How long orders and lifecycle events stay readable; shorter than `retention.closed_orders`.
    pub orders_retention: Span,
    /// How long commands, timers and delayed records stay, beyond the longest tier: the longest outage to survive.
    pub work_retention: Span,
    /// How long order events, refunds and notifications stay for their readers.
    pub events_retention: Span,
    /// How long dead letters stay for people.
    pub dead_letter_retention: Span,
}

impl Default for TopicsConfig {
    fn default() -> Self {
        const DAY: u64 = 86_400;
        Self {
            partitions: 12,
            replication: None,
            min_insync_replicas: None,
            orders_retention: Span::seconds(7 * DAY),
            work_retention: Span::seconds(3 * DAY),
            events_retention: Span::seconds(7 * DAY),
            dead_letter_retention: Span::seconds(30 * DAY),
        }
    }
}

/// The database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// `postgres://user@host/database` or `sqlite://file`. Required wherever the store is used.
    pub url: StoreUrl,
    /// A file that holds the password.
    pub password_file: Option<String>,
    /// An environment variable that holds the password.
    pub password_env: Option<String>,
    /// Connections of this process.
    pub max_connections: u32,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { url: StoreUrl::default(), password_file: None, password_env: None, max_connections: 10 }
    }
}

/// Keys of the fleet.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SecurityConfig {
    /// A file that holds the key for hashing phone numbers (16 bytes or more), the same in the whole fleet.
    pub phone_key_file: Option<String>,
}

/// How long things are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionConfig {
    /// Closed orders.
    pub closed_orders: Span,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self { closed_orders: Span::seconds(90 * 86_400) }
    }
}

/// The delay tiers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DelayConfig {
    /// One topic each, rising.
    pub tiers: Vec<Span>,
}

impl Default for DelayConfig {
    fn default() -> Self {
        Self { tiers: [1, 5, 15, 30, 60, 300, 1800].map(Span::seconds).to_vec() }
    }
}

/// Further attempts after a definite "no".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetryConfig {
    /// Attempts that providers may decline before the order fails.
    pub max_attempts: u16,
    /// The first wait; each further one is twice as long.
    pub backoff_first: Span,
    /// The longest wait.
    pub backoff_max: Span,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self { max_attempts: 5, backoff_first: Span::seconds(5), backoff_max: Span::seconds(60) }
    }
}

/// Probes and metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Where `/livez`, `/readyz`, `/startupz` and `/metrics` are served.
    pub listen: Listen,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { listen: Listen::loopback(9400) }
    }
}

/// Callbacks of the providers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CallbackConfig {
    /// The address under which providers reach the callback listener, if they do. Each recharge is sent with an address
    /// below it.
    pub public_url: Option<String>,
    /// Files with keys (16 bytes or more) for those addresses, the same in the whole fleet; left out, one is made from
    /// `security.phone_key_file`. The first signs new ones, each is
    /// taken: to replace a key, put the new one in front, and drop the old one when no order is as old.
    pub token_key_files: Vec<String>,
    /// Where `/callbacks/{provider}` is served.
    pub listen: Listen,
    /// Networks of our own proxies, such as `"10.0.0.0/8"`: what comes through them is from whom their `X-Forwarded-For` names.
    pub proxies: Vec<String>,
}

impl Default for CallbackConfig {
    fn default() -> Self {
        Self { public_url: None, token_key_files: Vec::new(), listen: Listen::loopback(9401), proxies: Vec::new() }
    }
}

/// The log's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people.
    Pretty,
}

/// The log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Its form.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug` or `trace`, or a filter such as `info,recharged::kafka=debug`.
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Json, level: "info".to_owned() }
    }
}
