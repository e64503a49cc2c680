//! Adapters of outside providers, and the registry that builds them.
//!
//! Each adapter turns one provider's protocol into the outcomes of `domain::outcome`, by closed
//! sets: what the provider does not document is *unknown*, never a guess.

mod answers;
pub mod day_file;
mod decimal;
mod dtone;
pub mod http;
mod lister;
mod mf178;
mod reloadly;
mod secret;
mod signature;
pub mod simulated;
pub mod simulator;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use self::dtone::{Dtone, DtoneList};
pub use self::lister::ListSpan;
use self::mf178::Mf178;
use self::reloadly::{Reloadly, ReloadlyList};
pub use self::secret::Secret;
use self::simulated::{SimulatedList, SimulatedProvider};
use crate::domain::route::ProductTable;
use crate::domain::{Capabilities, DuplicateSemantics, ProviderId, RefFormat};
use crate::ports::{Clock, ListPermits, RechargeProvider, Statement};

/// A provider's section of the configuration, as plain values.
#[derive(Debug, Clone)]
pub struct ProviderSettings {
    /// Which adapter.
    pub kind: ProviderKind,
    /// Where its API begins.
    pub base_url: Url,
    /// Where its tokens are to be had, if not at `base_url`.
    pub auth_url: Option<Url>,
    /// Our name there: an API key, an `app_key`, a client id.
    pub account: Option<String>,
    /// The key, read from where the configuration points.
    pub key: Option<Secret>,
    /// What its callbacks are signed with, the newest first; several while one is replaced.
    pub callback_keys: Vec<Secret>,
    /// What it sells, by its own names.
    pub products: ProductTable,
    /// DT One: a transaction is created first, and confirmed by a second call.
    pub two_step: bool,
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
    /// What the provider promises; its call time-out is the one above.
    pub contract: Capabilities,
}

impl ProviderSettings {
    /// With the usual limits.
    pub fn new(kind: ProviderKind, base_url: Url) -> Self {
        Self {
            kind,
            base_url,
            auth_url: None,
            account: None,
            key: None,
            callback_keys: Vec::new(),
            products: ProductTable::default(),
            two_step: false,
            call_timeout: Duration::from_secs(15),
            connect_timeout: Duration::from_secs(2),
            idle_limit: Duration::from_secs(15),
            in_flight_max: 200,
            ca_file: None,
            contract: Capabilities {
                duplicates: DuplicateSemantics::RejectsAlways,
                query_not_before: Duration::from_secs(2),
                query_min_interval: Duration::from_secs(5),
                query_retention: Duration::from_hours(30 * 24),
                not_found_grace: Duration::from_mins(1),
                same_number_cooldown: None,
                client_ref: RefFormat { max_len: 64, alphanumeric_only: false },
                call_timeout: Duration::from_secs(15),
                callback_settles: true,
            },
        }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { call_timeout: self.call_timeout, ..self.contract.clone() }
    }

    fn http(&self) -> http::HttpSettings {
        http::HttpSettings {
            base_url: self.base_url.clone(),
            call_timeout: self.call_timeout,
            connect_timeout: self.connect_timeout,
            idle_limit: self.idle_limit,
            connections_max: self.in_flight_max,
            ca_file: self.ca_file.clone(),
            body_max: http::BODY_MAX,
        }
    }
}

/// The adapters there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderKind {
    /// The provider simulator's own protocol.
    Simulator,
    /// DT One DVS.
    Dtone,
    /// mf178.
    Mf178,
    /// Reloadly Airtime.
    Reloadly,
}

impl ProviderKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Simulator, Self::Dtone, Self::Mf178, Self::Reloadly];

    /// The kind as the configuration names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Simulator => "simulator",
            Self::Dtone => "dtone",
            Self::Mf178 => "mf178",
            Self::Reloadly => "reloadly",
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
    /// It needs a login.
    #[error("providers.{provider}.{key}: is missing: {kind} calls are signed with it")]
    Login {
        /// Which provider.
        provider: ProviderId,
        /// The key of the configuration.
        key: &'static str,
        /// Which adapter.
        kind: &'static str,
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
    let id = id.clone();
    Ok(match settings.kind {
        ProviderKind::Simulator => Arc::new(SimulatedProvider::new(id, settings, clock)?),
        ProviderKind::Dtone => Arc::new(Dtone::new(id, settings, clock)?),
        ProviderKind::Mf178 => Arc::new(Mf178::new(id, settings, clock)?),
        ProviderKind::Reloadly => Arc::new(Reloadly::new(id, settings, clock)?),
    })
}

/// The provider's own list of a time; `None` where its API has none.
pub fn list(
    id: &ProviderId,
    settings: &ProviderSettings,
    clock: Arc<dyn Clock>,
    permits: Arc<dyn ListPermits>,
    span: ListSpan,
) -> Result<Option<Box<dyn Statement>>, BuildError> {
    let id = id.clone();
    Ok(Some(match settings.kind {
        ProviderKind::Simulator => Box::new(SimulatedList::new(id, settings, clock, permits, span)?),
        ProviderKind::Dtone => Box::new(DtoneList::new(id, settings, clock, permits, span)?),
        ProviderKind::Reloadly => Box::new(ReloadlyList::new(id, settings, clock, permits, span)?),
        ProviderKind::Mf178 => return Ok(None),
    }))
}

/// Our name and key there, which most providers want.
fn login<'a>(id: &ProviderId, settings: &'a ProviderSettings) -> Result<(&'a str, &'a Secret), BuildError> {
    let missing = |key| BuildError::Login { provider: id.clone(), key, kind: settings.kind.as_str() };
    let account = settings.account.as_deref().ok_or_else(|| missing("account"))?;
    let key = settings.key.as_ref().ok_or_else(|| missing("key_file"))?;
    Ok((account, key))
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
        assert_eq!(ProviderKind::parse("nobody"), None);
    }
}
