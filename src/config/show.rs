//! The effective configuration for people and programs: every value with its source.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value as Json;
use sha2::{Digest as _, Sha256};

use super::{Config, Loaded};

/// One value.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shown {
    /// The value; secrets are masked.
    pub value: Json,
    /// File and line, variable, `--set` or `default`.
    pub source: String,
}

impl Loaded {
    /// Every value that is set or has a default, by dotted key.
    pub fn shown(&self) -> BTreeMap<String, Shown> {
        leaves(&self.config)
            .into_iter()
            .map(|(key, value)| {
                let source = self.sources.of(&key).to_string();
                (key, Shown { value, source })
            })
            .collect()
    }
}

impl Config {
    /// A short fingerprint of the effective values, equal in processes that are configured alike.
    pub fn fingerprint(&self) -> String {
        let mut hasher = Sha256::new();
        for (key, value) in leaves(self) {
            // A process's own name is no difference in configuration.
            if key != "process.name" {
                hasher.update(format!("{key}={value}\n"));
            }
        }
        hasher.finalize().iter().take(6).fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
    }

    /// How long a drain may take: the longest call, and five seconds to settle it.
    pub fn drain_time(&self) -> Duration {
        let longest = self.providers.values().map(|p| p.send_window.get() + p.call_timeout.get()).max();
        longest.unwrap_or_default() + Duration::from_secs(5)
    }
}

fn leaves(config: &Config) -> Vec<(String, Json)> {
    let mut found = Vec::new();
    if let Ok(whole) = serde_json::to_value(config) {
        collect("", whole, &mut found);
    }
    found
}

fn collect(key: &str, value: Json, found: &mut Vec<(String, Json)>) {
    match value {
        Json::Null => {}
        Json::Object(below) => {
            for (name, value) in below {
                collect(&super::shape::join(key, &name), value, found);
            }
        }
        leaf @ (Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_)) => {
            found.push((key.to_owned(), leaf));
        }
    }
}
