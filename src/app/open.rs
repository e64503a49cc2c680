//! Opening what a process needs, and what is said when that fails: one line with the key, the
//! trouble and the remedy, and the exit code that tells a script what kind of trouble it is.

use std::sync::Arc;
use std::time::Duration;

use tracing::info;

use crate::callbacks::Listener;
use crate::clock::SystemClock;
use crate::config::{self, Config, ProviderConfig, Secrets, TopicUse};
use crate::domain::ProviderId;
use crate::kafka::topics::{TopicPlan, Want};
use crate::kafka::{KafkaOptions, topics};
use crate::ports::{Clock, ListPermits, SchemaError, Statement, Store};
use crate::providers::{self, ListSpan, ProviderKind, ProviderSettings, Secret};
use crate::store::{self, OpenError, StoreOptions};

use super::{Plan, Providers, Role};

/// Why a process did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What is configured cannot work (exit code 78).
    #[error("{0}")]
    Config(String),
    /// A needed service cannot be reached (exit code 69).
    #[error("{0}")]
    Unreachable(String),
    /// No broker answers (exit code 69 as well).
    #[error("{0}")]
    NoBroker(String),
    /// Anything else (exit code 1).
    #[error("{0}")]
    Failed(String),
}

impl StartError {
    pub(super) fn config(error: impl std::error::Error) -> Self {
        Self::Config(chain(&error))
    }

    pub(super) fn failed(error: impl std::error::Error) -> Self {
        Self::Failed(chain(&error))
    }
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text.replace('\n', " ")
}

/// The store's settings.
pub fn store_options(config: &Config, secrets: &Secrets) -> StoreOptions {
    StoreOptions {
        max_connections: config.store.max_connections,
        password: secrets.store_password.as_ref().map(|secret| secret.expose().to_owned()),
        ..StoreOptions::default()
    }
}

/// Opens the store.
pub async fn open_store(config: &Config, secrets: &Secrets) -> Result<Arc<dyn Store>, StartError> {
    let opened = store::open(config.store.url.expose(), &store_options(config, secrets)).await;
    opened.map_err(|error| store_trouble(&error))
}

/// What an unopened store means for the process.
pub fn store_trouble(error: &OpenError) -> StartError {
    let said = format!("store.url: {}", chain(error));
    match error {
        OpenError::Connect(cause) if cause.is_transient() => {
            StartError::Unreachable(format!("{said}: start the database, or correct the address"))
        }
        OpenError::Scheme(_) | OpenError::Address(_) | OpenError::Connect(_) => StartError::Config(said),
    }
}

/// Opens the store, and refuses another schema than this build's.
pub async fn open_checked_store(config: &Config, secrets: &Secrets) -> Result<Arc<dyn Store>, StartError> {
    let store = open_store(config, secrets).await?;
    check_store(store.as_ref()).await?;
    Ok(store)
}

async fn check_store(store: &dyn Store) -> Result<(), StartError> {
    store.check().await.map_err(|error| match &error {
        SchemaError::Store(cause) if cause.is_transient() => {
            StartError::Unreachable(format!("store.url: {}", chain(cause)))
        }
        SchemaError::Store(_) | SchemaError::Version { .. } => {
            StartError::Config(format!("store.url: {}", chain(&error)))
        }
    })
}

/// The clients' settings.
pub fn kafka_options(config: &Config, secrets: &Secrets) -> KafkaOptions {
    let name = Some(config.process.name.clone()).filter(|name| !name.is_empty());
    KafkaOptions {
        brokers: config.kafka.brokers.clone(),
        properties: config.kafka.client_properties(secrets),
        client_id: name.clone().unwrap_or_else(|| "recharged".to_owned()),
        process_name: name,
    }
}

/// Every topic as it must be, in the broker's words.
pub fn topic_plans(config: &Config) -> Vec<TopicPlan> {
    config.topic_plan().iter().map(topic_plan).collect()
}

fn topic_plan(plan: &config::TopicPlan) -> TopicPlan {
    let want = |key: &str, value: String| match key {
        // An orders topic that keeps records longer than we keep closed orders would bring back
        // orders whose end we have forgotten; elsewhere more is better.
        "retention.ms" if plan.usage == TopicUse::In => Want::AtMost(value.parse().unwrap_or(i64::MAX)),
        "retention.ms" | "retention.bytes" | "max.message.bytes" | "min.insync.replicas" => {
            Want::AtLeast(value.parse().unwrap_or(0))
        }
        _ => Want::Exactly(value),
    };
    TopicPlan {
        name: plan.name.to_string(),
        partitions: u32::from(plan.partitions),
        replication: plan.replication,
        config: plan.settings().into_iter().map(|(key, value)| (key.to_owned(), want(key, value))).collect(),
    }
}

/// Refuses to work on topics that are missing or of another shape; answers with the tiers that are no
/// longer configured, where this process forwards. `limit` is how long a broker may take to answer at all.
pub(super) async fn check_topics(plan: &Plan, limit: Duration) -> Result<Vec<Duration>, StartError> {
    if plan.embedded_broker {
        return Ok(Vec::new());
    }
    let kafka = kafka_options(&plan.config, &plan.secrets);
    verify_topics(&plan.config, &kafka, limit).await?;
    if plan.roles.contains(&Role::Delay) { former_tiers(&plan.config, &kafka).await } else { Ok(Vec::new()) }
}

async fn verify_topics(config: &Config, kafka: &KafkaOptions, limit: Duration) -> Result<(), StartError> {
    let problems =
        topics::verify(kafka, &topic_plans(config), limit).await.map_err(|error| broker_trouble(config, &error))?;
    let Some(first) = problems.first() else { return Ok(()) };
    let more = match problems.len() {
        1 => String::new(),
        all => format!(" (and {} more: `recharged topics verify` lists them)", all - 1),
    };
    Err(StartError::Config(format!("kafka: {first}{more}: `recharged topics create` makes what is missing")))
}

/// Tiers that are no longer configured and whose topics are still there, maybe with records.
async fn former_tiers(config: &Config, kafka: &KafkaOptions) -> Result<Vec<Duration>, StartError> {
    let names = topics::names(kafka).await.map_err(|error| broker_trouble(config, &error))?;
    let (topics, configured) = (config.topics(), config.tiers());
    let mut former: Vec<Duration> =
        names.iter().filter_map(|name| topics.tier_of(name)).filter(|tier| !configured.contains(tier)).collect();
    former.sort_unstable();
    for tier in &former {
        info!(topic = %topics.delay(*tier),
            "this tier is no longer configured: what waits in it is forwarded; delete the topic when it is empty");
    }
    Ok(former)
}

/// What a silent broker means for the process.
pub fn broker_trouble(config: &Config, error: &crate::kafka::KafkaError) -> StartError {
    use crate::kafka::KafkaError as E;
    match error {
        E::Admin { .. } => StartError::NoBroker(format!(
            "kafka.brokers: {} cannot be used ({}): start the broker, or correct the address or the login",
            config.kafka.brokers,
            chain(error)
        )),
        E::Reserved { .. } | E::Property { .. } | E::Client { .. } | E::Options { .. } => {
            StartError::Config(format!("kafka.properties: {}", chain(error)))
        }
        E::Subscribe { .. }
        | E::Thread { .. }
        | E::CloseTimedOut { .. }
        | E::NotCommitted { .. }
        | E::Embedded { .. } => StartError::Failed(chain(error)),
    }
}

/// Opens the port for callbacks, if this process is to take any.
pub(super) async fn callback_listener(plan: &Plan) -> Result<Option<Listener>, StartError> {
    let config = &plan.config;
    if !plan.roles.contains(&Role::Callback) {
        return Ok(None);
    }
    let is_signed = plan.secrets.callback_keys.values().any(|keys| !keys.is_empty());
    let is_addressed = config.lanes().iter().any(|lane| config.callback_links(lane, &plan.secrets).is_some());
    if !is_signed && !is_addressed {
        // Nobody asked for it: it is one of all roles.
        return if plan.roles == [Role::Callback] {
            Err(StartError::Config(
                "callback.public_url: is missing: no provider can call back; give it, or providers.NAME.callback_key_files"
                    .to_owned(),
            ))
        } else {
            Ok(None)
        };
    }
    Listener::bind(config.callback.listen.0, config.callback_proxies()).await.map(Some).map_err(StartError::config)
}

/// Builds the adapters of the configured providers.
pub(super) fn providers(config: &Config, secrets: &Secrets, clock: &Arc<SystemClock>) -> Result<Providers, StartError> {
    let mut built = Providers::new();
    for (name, provider) in &config.providers {
        let settings = provider_settings(name, provider, secrets)?;
        let id = ProviderId::new(name);
        let adapter = providers::build(&id, &settings, Arc::<SystemClock>::clone(clock) as Arc<dyn Clock>);
        built.insert(id, adapter.map_err(StartError::config)?);
    }
    Ok(built)
}

/// A provider's own list of a time; `None` where its API has none.
pub fn open_list(
    config: &Config,
    secrets: &Secrets,
    name: &str,
    permits: Arc<dyn ListPermits>,
    span: ListSpan,
) -> Result<Option<Box<dyn Statement>>, StartError> {
    let unknown = || StartError::Config(format!("providers.{name}: there is none of this name"));
    let settings = provider_settings(name, config.providers.get(name).ok_or_else(unknown)?, secrets)?;
    let clock = Arc::new(SystemClock::new());
    providers::list(&ProviderId::new(name), &settings, clock, permits, span).map_err(StartError::config)
}

/// A provider's section as its adapter takes it.
fn provider_settings(name: &str, provider: &ProviderConfig, secrets: &Secrets) -> Result<ProviderSettings, StartError> {
    let wrong = |key: &str, why: String| StartError::Config(format!("providers.{name}.{key}: {why}"));
    let url = |key: &str, text: &str| {
        url::Url::parse(text).map_err(|error| wrong(key, format!("{error}: give an http(s) address")))
    };
    let base_url = url("base_url", &provider.base_url)?;
    let kind = provider.kind.and_then(|kind| ProviderKind::parse(kind.as_str()));
    let kind = kind.ok_or_else(|| wrong("kind", "this build has no adapter of this kind".to_owned()))?;
    let mut settings = ProviderSettings::new(kind, base_url);
    settings.key = secrets.provider_keys.get(name).map(|key| Secret::new(key.expose()));
    let callback_keys = secrets.callback_keys.get(name).into_iter().flatten();
    settings.callback_keys = callback_keys.map(|key| Secret::new(key.expose())).collect();
    settings.call_timeout = provider.call_timeout.get();
    settings.in_flight_max = usize::try_from(provider.quota.in_flight_max).unwrap_or(usize::MAX);
    settings.auth_url = provider.auth_url().map(|text| url("auth_url", text)).transpose()?;
    settings.account.clone_from(&provider.account);
    settings.ca_file = provider.ca_file.as_ref().map(Into::into);
    settings.products = provider.product_table();
    settings.two_step = provider.two_step;
    settings.contract = provider.contract();
    Ok(settings)
}
