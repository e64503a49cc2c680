//! Adapters of outside providers, and the registry that builds them.
//!
//! Each adapter turns one provider's protocol into the outcomes of `domain::outcome`, by closed
//! sets: what the provider does not document is *unknown*, never a guess.

pub mod http;
mod secret;
pub mod simulated;
pub mod simulator;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

pub use self::secret::Secret;
use self::simulated::{Contract, SimulatedProvider};
use crate::domain::ProviderId;
use crate::ports::{Clock, RechargeProvider};

/// A provider's section of the configuration, as plain values.
#[derive(Debug, Clone)]
pub struct ProviderSettings {
    /// Which adapter.
    pub kind: ProviderKind,
    /// Where its API begins.
    pub base_url: Url,
    /// The key, read from where the configuration points.
    pub key: Option<Secret>,
    /// How long one call may take, connecting included.
    pub call_timeout: Duration,
    /// How long opening one connection may take.
    pub connect_timeout: Duration,
    /// A connection that was idle for longer is not used again.
    pub idle_limit: Duration,
    /// The most calls at once, and so the most connections.
    pub in_flight_max: usize,
    /// Trust these roots (PEM) in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// What the provider promises, where it is not the adapter's own knowledge.
    pub contract: Contract,
}

impl ProviderSettings {
    /// With the usual limits.
    pub fn new(kind: ProviderKind, base_url: Url) -> Self {
        Self {
            kind,
            base_url,
            key: None,
            call_timeout: Duration::from_secs(15),
            connect_timeout: Duration::from_secs(2),
            idle_limit: Duration::from_secs(15),
            in_flight_max: 200,
            ca_file: None,
            contract: Contract::default(),
        }
    }

    fn http(&self) -> http::HttpSettings {
        http::HttpSettings {
            base_url: self.base_url.clone(),
            call_timeout: self.call_timeout,
            connect_timeout: self.connect_timeout,
            idle_limit: self.idle_limit,
            connections_max: self.in_flight_max,
            ca_file: self.ca_file.clone(),
        }
    }
}

/// The adapters there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderKind {
    /// The provider simulator's own protocol.
    Simulator,
}

impl ProviderKind {
    /// Every kind.
    pub const ALL: [Self; 1] = [Self::Simulator];

    /// The kind as the configuration names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Simulator => "simulator",
        }
    }

    /// Reads a kind as the configuration names it.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// Why a provider cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Its transport cannot.
    #[error("provider {provider}: {problem}")]
    Transport {
        /// Which provider.
        provider: ProviderId,
        /// The problem in words, with the key it stands at.
        problem: String,
        /// The problem.
        #[source]
        source: http::SettingsError,
    },
    /// Its key cannot be sent.
    #[error("provider {provider}: key: it has characters that cannot stand in a header")]
    Key {
        /// Which provider.
        provider: ProviderId,
    },
}

/// Builds the adapter of one provider.
pub fn build(
    id: &ProviderId,
    settings: &ProviderSettings,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn RechargeProvider>, BuildError> {
    match settings.kind {
        ProviderKind::Simulator => Ok(Arc::new(SimulatedProvider::new(id.clone(), settings, clock)?)),
    }
}

/// Shared by the adapters' constructors.
fn transport(
    id: &ProviderId,
    settings: &ProviderSettings,
    clock: &Arc<dyn Clock>,
) -> Result<http::HttpTransport, BuildError> {
    http::HttpTransport::new(&settings.http(), Arc::clone(clock)).map_err(|source| BuildError::Transport {
        provider: id.clone(),
        problem: source.to_string(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_reads_back_from_its_name() {
        for kind in ProviderKind::ALL {
            assert_eq!(ProviderKind::parse(kind.as_str()), Some(kind));
        }
        assert_eq!(ProviderKind::parse("dtone"), None);
    }
}
