//! Secrets: the configuration names where they are, this reads them.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::Config;
use super::problem::Finding;
use crate::domain::CallbackKey;
use crate::domain::msisdn::PhoneKey;

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret in clear, for the one call that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

/// Every secret of a process.
#[derive(Debug, Clone)]
pub struct Secrets {
    /// Of the store.
    pub store_password: Option<Secret>,
    /// Of the brokers.
    pub sasl_password: Option<Secret>,
    /// For hashing phone numbers; absent where the configuration names none.
    pub phone_key: Option<PhoneKey>,
    /// Of the providers that have one.
    pub provider_keys: BTreeMap<String, Secret>,
    /// Of the providers that sign their callbacks.
    pub callback_keys: BTreeMap<String, Vec<Secret>>,
    /// Of the addresses for callbacks.
    pub token_keys: Vec<CallbackKey>,
}

/// Reads what `config` refers to, and says of each that cannot be read which key and path it is.
pub(super) fn read(config: &Config, env: &HashMap<String, String>) -> Result<Secrets, Vec<Finding>> {
    let mut findings = Vec::new();
    let mut from_file = |key: String, path: Option<&String>| {
        let path = path?;
        match std::fs::read_to_string(path) {
            Ok(text) if text.trim().is_empty() => {
                findings.push(Finding { key, message: format!("{path} is empty: put the secret into it") });
                None
            }
            // Files of secrets are often written with a line end, which belongs to none.
            Ok(text) => Some(Secret::new(text.trim_end_matches(['\r', '\n']))),
            Err(error) => {
                let message = format!("cannot read {path} ({error}): name a file that this process may read");
                findings.push(Finding { key, message });
                None
            }
        }
    };
    let store_file = from_file("store.password_file".to_owned(), config.store.password_file.as_ref());
    let sasl_file = from_file("kafka.sasl_password_file".to_owned(), config.kafka.sasl_password_file.as_ref());
    let phone = from_file("security.phone_key_file".to_owned(), config.security.phone_key_file.as_ref());
    let provider_keys = config
        .providers
        .iter()
        .filter_map(|(name, provider)| {
            from_file(format!("providers.{name}.key_file"), provider.key_file.as_ref()).map(|key| (name.clone(), key))
        })
        .collect();
    let mut from_files = |key: &str, paths: &[String]| -> Vec<Secret> {
        let keyed = paths.iter().enumerate();
        keyed.filter_map(|(nth, path)| from_file(format!("{key}[{nth}]"), Some(path))).collect()
    };
    let callback_keys = config
        .providers
        .iter()
        .map(|(name, provider)| {
            let keys = from_files(&format!("providers.{name}.callback_key_files"), &provider.callback_key_files);
            (name.clone(), keys)
        })
        .collect();
    let tokens = from_files("callback.token_key_files", &config.callback.token_key_files);
    let mut from_env = |key: &str, name: &Option<String>| {
        let name = name.as_deref()?;
        let found = env.get(name).filter(|text| !text.is_empty()).map(Secret::new);
        if found.is_none() {
            let message = format!("the environment has no {name}: set it, or name another variable");
            findings.push(Finding { key: key.to_owned(), message });
        }
        found
    };
    let store_password = store_file.or(from_env("store.password_env", &config.store.password_env));
    let sasl_password = sasl_file.or(from_env("kafka.sasl_password_env", &config.kafka.sasl_password_env));
    let phone_key = phone.and_then(|secret| match PhoneKey::new(secret.expose().as_bytes()) {
        Ok(key) => Some(key),
        Err(error) => {
            let key = "security.phone_key_file".to_owned();
            findings.push(Finding { key, message: format!("{error}: make one with `openssl rand -hex 32`") });
            None
        }
    });
    let mut token_keys = Vec::new();
    for (nth, secret) in tokens.iter().enumerate() {
        match CallbackKey::new(secret.expose().as_bytes()) {
            Ok(key) => token_keys.push(key),
            Err(error) => {
                let key = format!("callback.token_key_files[{nth}]");
                findings.push(Finding { key, message: format!("{error}: make one with `openssl rand -hex 32`") });
            }
        }
    }
    if token_keys.is_empty() && config.callback.public_url.is_some() {
        let derived = phone_key.as_ref().map(|key| key.derived("addresses of callbacks"));
        token_keys.extend(derived.and_then(|key| CallbackKey::new(&key).ok()));
    }
    if findings.is_empty() {
        Ok(Secrets { store_password, sasl_password, phone_key, provider_keys, callback_keys, token_keys })
    } else {
        Err(findings)
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}
