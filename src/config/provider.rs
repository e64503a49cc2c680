//! Providers and routes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::types::Span;

/// Which adapter speaks to a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProviderKind {
    /// The simulator (`recharged simulate`).
    Simulator,
    /// DT One DVS.
    Dtone,
    /// mf178.
    Mf178,
    /// Reloadly Airtime.
    Reloadly,
}

impl ProviderKind {
    /// As it stands in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Simulator => "simulator",
            Self::Dtone => "dtone",
            Self::Mf178 => "mf178",
            Self::Reloadly => "reloadly",
        }
    }
}

impl ProviderKind {
    /// Whether it takes an address for its callback with each recharge.
    pub const fn is_told_where(self) -> bool {
        match self {
            Self::Simulator | Self::Dtone | Self::Mf178 => true,
            Self::Reloadly => false,
        }
    }

    /// Whether its callbacks are signed with a key of their own.
    pub const fn signs_callbacks(self) -> bool {
        match self {
            Self::Simulator | Self::Reloadly => true,
            Self::Dtone | Self::Mf178 => false,
        }
    }
}

/// A provider, its contract with us, and its lane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProviderConfig {
    /// Which adapter speaks to it. Required.
    pub kind: Option<ProviderKind>,
    /// Where it answers. Required.
    pub base_url: String,
    /// Where its tokens are to be had; only with `kind = "reloadly"`, and left out, `https://auth.reloadly.com`.
    pub auth_url: Option<String>,
    /// Our name there: the API key of DT One, the `app_key` of mf178, the client id of Reloadly.
    pub account: Option<String>,
    /// A file that holds its key: the API secret, the app secret, the client secret.
    pub key_file: Option<String>,
    /// Files that hold what its callbacks are signed with, where they are; several while one is replaced.
    pub callback_key_files: Vec<String>,
    /// Networks from which it calls back, such as `"203.0.113.0/24"`; empty for any.
    pub callback_networks: Vec<String>,
    /// CA certificates (PEM) to trust in place of the system's.
    pub ca_file: Option<String>,
    /// How long one call may take, connecting included.
    pub call_timeout: Span,
    /// From a claim to its first byte; past it, nothing leaves.
    pub send_window: Span,
    /// How long a call is expected to take at least: with less time left, none is begun.
    pub expected_service: Span,
    /// The rate that the contract grants.
    pub quota: QuotaConfig,
    /// When its lane rests because it does not answer, or takes no orders of ours.
    pub breaker: BreakerConfig,
    /// What it sells. Empty: any amount.
    pub products: Vec<ProductConfig>,
    /// DT One: create a transaction first and confirm it by a second call, so that a lost reply to the first is harmless.
    pub two_step: bool,
    /// Corrections of what the kind is known to promise.
    pub capabilities: Option<CapabilitiesConfig>,
}

impl Default for ProviderConfig {
    fn default() -> Self {
        Self {
            kind: None,
            base_url: String::new(),
            auth_url: None,
            account: None,
            key_file: None,
            callback_key_files: Vec::new(),
            callback_networks: Vec::new(),
            ca_file: None,
            call_timeout: Span::seconds(15),
            send_window: Span::seconds(1),
            expected_service: Span::seconds(2),
            quota: QuotaConfig::default(),
            breaker: BreakerConfig::default(),
            products: Vec::new(),
            two_step: false,
            capabilities: None,
        }
    }
}

/// A provider's quota.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct QuotaConfig {
    /// Calls a second, of the whole fleet; may be below one.
    pub permits_per_second: f64,
    /// Calls that may leave at once after a rest; left out, one second's worth, at least 1.
    pub burst: Option<u32>,
    /// Calls under way at once, of this process.
    pub in_flight_max: u32,
    /// Guaranteed to queries, of 1: of the quota, and of the calls under way.
    pub query_share: f64,
    /// Guaranteed to retries, of 1: of the quota, and of the calls under way.
    pub retry_share: f64,
}

impl Default for QuotaConfig {
    fn default() -> Self {
        Self { permits_per_second: 50.0, burst: None, in_flight_max: 200, query_share: 0.2, retry_share: 0.2 }
    }
}

/// When a lane rests. Every process sees for itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerConfig {
    /// Calls of so long are looked at.
    pub window: Span,
    /// From so many of them on.
    pub calls_min: u16,
    /// It rests when so many of them, of 1, got no proper answer; 1 and more: never by this.
    pub failing: f64,
    /// It rests after so many calls in a row without a proper answer, or without a connection.
    pub in_a_row: u16,
    /// It rests after so many refusals in a row for the sake of our balance or our login.
    pub account_in_a_row: u16,
    /// The first rest, after which one order is tried; each further one is twice as long.
    pub rest_first: Span,
    /// The longest rest.
    pub rest_max: Span,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            window: Span::seconds(30),
            calls_min: 20,
            failing: 0.6,
            in_a_row: 10,
            account_in_a_row: 3,
            rest_first: Span::seconds(2),
            rest_max: Span::seconds(60),
        }
    }
}

fn any() -> String {
    "*".to_owned()
}

fn yuan() -> String {
    "CNY".to_owned()
}

/// A product that a provider sells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProductConfig {
    /// ISO 3166 country of the number, or `*`.
    #[serde(default = "any")]
    pub country: String,
    /// The carrier, or `*`.
    #[serde(default = "any")]
    pub carrier: String,
    /// What the customer gets, in minor units.
    pub amount_minor: i64,
    /// ISO 4217 currency of the amount.
    #[serde(default = "yuan")]
    pub currency: String,
    /// The provider's name for it: a product id of DT One, a miniunit of mf178, an operator id of Reloadly.
    pub product: String,
    /// DT One: the product is of a range of amounts, and is told this one.
    #[serde(default)]
    pub ranged: bool,
}

/// Which lanes serve which numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// ISO 3166 country of the number, or `*`.
    #[serde(default = "any")]
    pub country: String,
    /// The carrier that the order names, or `*`.
    #[serde(default = "any")]
    pub carrier: String,
    /// Amounts in minor units; empty for all.
    #[serde(default)]
    pub amounts: Vec<i64>,
    /// Names of providers, in order of preference: the next one is tried where the one before has definitely done nothing.
    pub lanes: Vec<String>,
    /// How often each lane comes first, against the others, such as `[3, 1]`; left out, the first always does.
    #[serde(default)]
    pub weights: Vec<u32>,
}

/// What a provider does with a reference that it has seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Duplicates {
    /// Refuses it whatever became of the first.
    RejectsAlways,
    /// Refuses it unless the first failed; then it is a new paid order.
    RejectsUnlessFailed,
    /// Answers with the first one's result.
    ReplaysResult,
    /// Executes it again.
    NotDeduplicated,
}

/// Corrections of a provider's contract; what is left out stays as its kind is known to promise (`docs/PROVIDERS.md`).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CapabilitiesConfig {
    /// What it does with a known reference; only with `kind = "simulator"`.
    pub duplicates: Option<Duplicates>,
    /// The first query may be sent this long after the submit.
    pub query_not_before: Option<Span>,
    /// The least time between two queries of one reference.
    pub query_min_interval: Option<Span>,
    /// How long it answers queries.
    pub query_retention: Option<Span>,
    /// "Not found" counts only this long after the last send; at least send window and call time-out together.
    pub not_found_grace: Option<Span>,
    /// The same number is refused for this long after a recharge.
    pub same_number_cooldown: Option<Span>,
    /// The longest reference that it takes; only with `kind = "simulator"`.
    pub client_ref_max_len: Option<u8>,
    /// Whether a reference may have letters and digits only; only with `kind = "simulator"`.
    pub client_ref_alphanumeric_only: Option<bool>,
}
