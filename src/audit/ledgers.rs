//! What providers truly delivered: what the books are compared with.

use std::collections::HashMap;

use crate::domain::{Money, Msisdn, ProviderId};

use super::sent::Sent;

/// What was delivered under a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    /// How often.
    pub times: u32,
    /// How many of these were taken back.
    pub reversed: u32,
    /// To whom, the first time.
    pub phone: Msisdn,
    /// How much, the first time.
    pub amount: Money,
}

impl Delivered {
    /// What the recipient has of it.
    pub(super) fn stand(&self) -> u64 {
        u64::from(self.times.saturating_sub(self.reversed))
    }
}

/// What was delivered, by reference.
#[derive(Debug, Clone, Default)]
pub struct Ledger(HashMap<String, Delivered>);

impl Ledger {
    /// Counts one delivery.
    pub fn delivered(&mut self, reference: String, phone: Msisdn, amount: Money) {
        self.0.entry(reference).or_insert(Delivered { times: 0, reversed: 0, phone, amount }).times += 1;
    }

    /// Counts that a delivery was taken back. One that was never counted is left alone.
    pub fn took_back(&mut self, reference: &str) {
        if let Some(delivered) = self.0.get_mut(reference) {
            delivered.reversed += 1;
        }
    }

    /// What was delivered under a reference.
    pub fn find(&self, reference: &str) -> Option<&Delivered> {
        self.0.get(reference)
    }

    fn deliveries(&self) -> u64 {
        self.0.values().map(|delivered| u64::from(delivered.times)).sum()
    }
}

/// The ledgers of an audit.
#[derive(Debug, Clone)]
pub enum Ledgers {
    /// One, whose provider is not asked for: a reference counts wherever it was sent.
    Anyones(Ledger),
    /// Each provider's own: a reference counts at the provider to which it was sent, and one that has no ledger here has
    /// delivered nothing.
    Named(HashMap<ProviderId, Ledger>),
}

impl Ledgers {
    /// What became of what was sent.
    pub(super) fn find(&self, sent: &Sent) -> Option<&Delivered> {
        let ledger = match self {
            Self::Anyones(ledger) => ledger,
            Self::Named(ledgers) => ledgers.get(sent.provider.as_ref()?)?,
        };
        ledger.find(sent.client_ref.as_str())
    }

    /// Whether it matters who was asked.
    pub(super) fn are_named(&self) -> bool {
        matches!(self, Self::Named(_))
    }

    /// All deliveries.
    pub(super) fn deliveries(&self) -> u64 {
        match self {
            Self::Anyones(ledger) => ledger.deliveries(),
            Self::Named(ledgers) => ledgers.values().map(Ledger::deliveries).sum(),
        }
    }
}
