//! One typed configuration, complete and checked across fields before anything is opened.
//!
//! Layers: defaults, the file, the environment (`RECHARGED__KAFKA__BROKERS`), then `--set`. The
//! JSON Schema that serde's types give is also what the layers are checked against, so that every
//! problem is found at once, each with its place. `docs/CONFIGURATION.md` lists all keys.

mod check;
mod contracts;
mod convert;
mod layers;
mod names;
mod problem;
mod provider;
mod rules;
mod secrets;
mod sections;
mod shape;
mod show;
mod types;

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use check::Needs;
pub use names::{Groups, TopicPlan, TopicUse, Topics};
pub use problem::{ConfigProblem, Source};
pub use provider::{
    BreakerConfig, CapabilitiesConfig, Duplicates, ProductConfig, ProviderConfig, ProviderKind, QuotaConfig,
    RouteConfig,
};
pub use secrets::{Secret, Secrets};
pub use sections::{
    CallbackConfig, DelayConfig, HttpConfig, KafkaConfig, LogConfig, LogFormat, ProcessConfig, RetentionConfig,
    RetryConfig, SaslMechanism, SecurityConfig, SecurityProtocol, SlaConfig, StoreConfig, TopicsConfig,
};
pub use show::Shown;
pub use types::{Listen, Span, StoreUrl, tier_name};

/// Everything that an operator sets.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// This process among its fleet.
    pub process: ProcessConfig,
    /// The promise.
    pub sla: SlaConfig,
    /// The brokers.
    pub kafka: KafkaConfig,
    /// The database.
    pub store: StoreConfig,
    /// Keys of the fleet.
    pub security: SecurityConfig,
    /// How long things are kept.
    pub retention: RetentionConfig,
    /// The delay tiers.
    pub delay: DelayConfig,
    /// Further attempts after a definite "no".
    pub retry: RetryConfig,
    /// Probes and metrics.
    pub http: HttpConfig,
    /// Callbacks of the providers.
    pub callback: CallbackConfig,
    /// The providers by name; each is a lane.
    pub providers: BTreeMap<String, ProviderConfig>,
    /// Which lanes serve which numbers, in order. May be left out with exactly one provider.
    pub routes: Vec<RouteConfig>,
    /// The log.
    pub log: LogConfig,
}

/// A configuration and where each of its values came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    pub(in crate::config) sources: problem::Sources,
}

impl Config {
    /// Reads and checks all layers. `env` is the whole environment; what does not begin with
    /// `RECHARGED__` is ignored. `sets` are the `key=value` texts of `--set`, the last one winning.
    ///
    /// Addresses may still be missing, since not every command needs them all: [`Loaded::require`].
    pub fn load(
        path: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
        sets: &[String],
    ) -> Result<Loaded, Vec<ConfigProblem>> {
        let mut layers = layers::Layers::default();
        if let Some(path) = path {
            layers.add_file(path);
        }
        Self::of_layers(layers, env, sets)
    }

    /// Likewise, of the text of a file.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn read(
        text: &str,
        env: impl IntoIterator<Item = (String, String)>,
        sets: &[String],
    ) -> Result<Loaded, Vec<ConfigProblem>> {
        let mut layers = layers::Layers::default();
        layers.add_toml("file.toml".to_owned(), text);
        Self::of_layers(layers, env, sets)
    }

    fn of_layers(
        mut layers: layers::Layers,
        env: impl IntoIterator<Item = (String, String)>,
        sets: &[String],
    ) -> Result<Loaded, Vec<ConfigProblem>> {
        layers.add_env(env);
        layers.add_sets(sets);
        let (config, sources) = layers.finish()?;
        let loaded = Loaded { config, sources };
        let mut findings = loaded.config.findings();
        findings.extend(loaded.password_in_the_open());
        if findings.is_empty() { Ok(loaded) } else { Err(loaded.sources.place(findings)) }
    }

    /// What is wrong across fields; empty for a configuration that can work.
    pub fn problems(&self) -> Vec<ConfigProblem> {
        problem::Sources::default().place(self.findings())
    }

    fn findings(&self) -> Vec<problem::Finding> {
        check::across_fields(self)
    }

    /// The JSON Schema of the file.
    pub fn schema() -> serde_json::Value {
        schemars::schema_for!(Config).to_value()
    }
}

impl Loaded {
    /// A URL with its password may come from the environment, where secrets are kept; a file is
    /// read by many, and a command line by everybody on the machine.
    fn password_in_the_open(&self) -> Option<problem::Finding> {
        let key = "store.url".to_owned();
        let open = self.config.store.url.has_password() && !matches!(self.sources.of(&key), Source::Env(_));
        let message = "holds a password: move it to store.password_file or store.password_env".to_owned();
        open.then_some(problem::Finding { key, message })
    }

    /// Names what is missing for a command that needs these parts.
    pub fn require(&self, needs: Needs) -> Result<(), Vec<ConfigProblem>> {
        let missing = check::missing(&self.config, needs);
        if missing.is_empty() { Ok(()) } else { Err(self.sources.place(missing)) }
    }

    /// Reads every secret that the configuration refers to. `env` is the whole environment.
    pub fn secrets(&self, env: impl IntoIterator<Item = (String, String)>) -> Result<Secrets, Vec<ConfigProblem>> {
        secrets::read(&self.config, &env.into_iter().collect()).map_err(|findings| self.sources.place(findings))
    }
}
