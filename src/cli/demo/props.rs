//! What stands on the demo's stage: its configuration, its provider, its broker and its store.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;

use super::plan::Trouble;
use super::{DemoArgs, Faults, Scenario, unpaid};
use crate::app::{self, chain, kafka_options, topic_plans};
use crate::cli::output::CliError;
use crate::config::{Config, Secrets};
use crate::domain::msisdn::PhoneKey;
use crate::kafka::{EmbeddedBroker, topics};
use crate::ports::SchemaError;
use crate::providers::simulator::{Profile, Simulator, SimulatorHandle, SimulatorOptions};
use crate::shop::Shop;
use crate::store::{self, StoreOptions};

/// A call to the simulator may take this long; short, so that a hung one does not hold up the end.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn seller(args: &DemoArgs, seed: u64) -> Shop {
    Shop {
        rate: args.rate,
        orders: Some(args.orders),
        prefix: format!("demo-{:06x}", seed & 0xff_ffff),
        seed,
        unusable: if args.faults() == Faults::None { 0.0 } else { 0.005 },
        repeated: if args.faults() == Faults::None { 0.0 } else { 0.02 },
    }
}

pub(super) fn quota(args: &DemoArgs) -> Option<f64> {
    args.quota
}

pub(super) fn configure(args: &DemoArgs, folder: &Folder) -> Result<(Config, Secrets), CliError> {
    let rate = quota(args).unwrap_or(args.rate * 1.2 + 10.0);
    let url = args.database.clone().unwrap_or_else(|| format!("sqlite://{}", folder.file("demo.db").display()));
    let mut sets = vec![
        format!("sla.deadline={}", humantime::format_duration(args.sla)),
        "kafka.brokers=127.0.0.1:1".to_owned(),
        "kafka.topics.partitions=4".to_owned(),
        format!("http.listen={}", args.listen),
        "providers.simulator.kind=simulator".to_owned(),
        "providers.simulator.base_url=http://127.0.0.1:1".to_owned(),
        format!("providers.simulator.call_timeout={}s", CALL_TIMEOUT.as_secs()),
        "providers.simulator.expected_service=500ms".to_owned(),
        format!("providers.simulator.quota.permits_per_second={rate}"),
        "providers.simulator.quota.in_flight_max=1000".to_owned(),
        "log.format=pretty".to_owned(),
    ];
    if args.scenario == Scenario::Unpaid {
        sets.extend(unpaid::sets(args));
    }
    let environment = [("RECHARGED__STORE__URL".to_owned(), url)];
    let loaded = Config::load(None, environment, &sets)?;
    let key: [u8; 32] = rand::rng().random();
    let secrets = Secrets {
        callback_keys: std::collections::BTreeMap::new(),
        token_keys: Vec::new(),
        store_password: None,
        sasl_password: None,
        phone_key: PhoneKey::new(&key).ok(),
        provider_keys: std::collections::BTreeMap::new(),
    };
    Ok((loaded.config, secrets))
}

pub(super) async fn simulate(
    profile: Profile,
    trouble: &Trouble,
    seed: u64,
    folder: &Folder,
) -> Result<SimulatorHandle, CliError> {
    let (ledger, script) = (Some(folder.file("ledger.jsonl")), trouble.script());
    let options = SimulatorOptions { profile, script, ledger, seed: Some(seed), ..SimulatorOptions::default() };
    let clock = Arc::new(crate::clock::SystemClock::new());
    Simulator::start(options, clock)
        .await
        .map_err(|error| CliError::failed(format!("the simulator: {}", chain(&error))))
}

/// The embedded broker with every topic, or the real one with topics of a prefix of their own.
pub(super) async fn open_broker(
    args: &DemoArgs,
    config: &mut Config,
    secrets: &Secrets,
) -> Result<Option<EmbeddedBroker>, CliError> {
    if let Some(brokers) = &args.kafka {
        let id: u32 = rand::rng().random();
        config.kafka.brokers.clone_from(brokers);
        config.kafka.topic_prefix = format!("recharged-demo-{id:08x}.");
        config.kafka.group_prefix = format!("recharged-demo-{id:08x}-");
        let kafka = kafka_options(config, secrets);
        let outcomes = topics::create(&kafka, &topic_plans(config)).await;
        outcomes.map_err(|error| CliError::from(app::broker_trouble(config, &error)))?;
        return Ok(None);
    }
    let plans = topic_plans(config);
    let names: Vec<(&str, i32)> =
        plans.iter().map(|plan| (plan.name.as_str(), i32::try_from(plan.partitions).unwrap_or(4))).collect();
    let broker = EmbeddedBroker::start(&names)
        .map_err(|error| CliError::failed(format!("the embedded broker: {}", chain(&error))))?;
    broker.bootstrap_servers().clone_into(&mut config.kafka.brokers);
    Ok(Some(broker))
}

/// The audit counts every order of the store, and the demo's relay tells every event in it, so
/// the store must be the demo's own: found out before anything is changed in it.
pub(super) async fn refuse_used(database: Option<&str>, options: &StoreOptions) -> Result<(), CliError> {
    let Some(url) = database else { return Ok(()) };
    // What cannot be opened is told by the migration, or made by it.
    let Ok(store) = store::open(url, options).await else { return Ok(()) };
    match store.check().await {
        Ok(()) => {}
        Err(SchemaError::Version { found: 0, .. }) => return Ok(()),
        Err(error @ SchemaError::Version { .. }) => {
            return Err(CliError::config(format!("--database: {error}, or give the demo an empty database")));
        }
        Err(SchemaError::Store(error)) => return Err(CliError::unreachable(format!("--database: {}", chain(&error)))),
    }
    let counts = store.count_by_state().await.map_err(|error| CliError::failed(chain(&error)))?;
    let orders: u64 = counts.iter().map(|(_, count)| count).sum();
    if orders == 0 {
        return Ok(());
    }
    Err(CliError::config(format!("--database: it holds {orders} orders already: give the demo an empty database")))
}

/// A folder of the demo's own, gone at its end.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn make() -> Result<Self, CliError> {
        let id: u32 = rand::rng().random();
        let path = std::env::temp_dir().join(format!("recharged-demo-{id:08x}"));
        std::fs::create_dir(&path)
            .map_err(|error| CliError::failed(format!("{}: cannot be made ({error})", path.display())))?;
        Ok(Self(path))
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        Path::join(&self.0, name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // It lies in the system's folder for such; what cannot be removed now is removed by it.
        drop(std::fs::remove_dir_all(&self.0));
    }
}
