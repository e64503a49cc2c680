//! What a process is to be.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{Config, Secrets};
use crate::domain::ProviderId;
use crate::ports::RechargeProvider;

/// A role of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// From order events to stored orders and commands.
    Intake,
    /// From commands to recharges.
    Dispatch,
    /// From the delay tiers to where each record is due.
    Delay,
    /// Decides every order at its deadline.
    Watchdog,
    /// From the event log to public events.
    Relay,
    /// From what providers tell of their own accord to settled orders and questions.
    Callback,
}

impl Role {
    /// Every role that this build has.
    pub const ALL: [Self; 6] = [Self::Intake, Self::Dispatch, Self::Delay, Self::Watchdog, Self::Relay, Self::Callback];

    /// The role as `--roles` names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Intake => "intake",
            Self::Dispatch => "dispatch",
            Self::Delay => "delay",
            Self::Watchdog => "watchdog",
            Self::Relay => "relay",
            Self::Callback => "callback",
        }
    }

    /// Reads a role as `--roles` names it.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

/// The providers that lanes call, by lane.
pub type Providers = HashMap<ProviderId, Arc<dyn RechargeProvider>>;

/// What a process is to be.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The configuration, checked.
    pub config: Config,
    /// What it refers to.
    pub secrets: Secrets,
    /// What to do.
    pub roles: Vec<Role>,
    /// The broker lives in this process: it has no administration to verify topics with, and a
    /// gap in offsets is a loss.
    pub embedded_broker: bool,
    /// In place of the configured providers, for measurements.
    pub providers: Option<Providers>,
}
