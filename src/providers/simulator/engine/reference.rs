//! References and their lives.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::super::class::FaultClass;
use super::super::dice::Dice;
use super::super::fate::Refusal;
use super::super::ledger::Delivery;
use super::tell::Listener;
use crate::domain::{ClientRef, Money, Msisdn, Timestamp};

/// Locks for the references: enough that two cores seldom meet.
const SHARDS: usize = 64;
/// A reference costs about 230 bytes (with callbacks another 100, and its address), and none may be
/// forgotten; beyond this many the simulator refuses to work rather than grow.
pub(super) const REFERENCES_MAX_PER_SHARD: usize = 20_000_000 / SHARDS;

/// A recharge, as asked for.
#[derive(Debug, Clone)]
pub(in super::super) struct Order {
    pub(in super::super) client_ref: ClientRef,
    pub(in super::super) phone: Msisdn,
    pub(in super::super) amount: Money,
    /// Where the caller wants to hear of its end; kept with the reference once it is executed.
    pub(in super::super) callback_url: Option<Box<str>>,
}

/// What became of a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Life {
    /// Heard of, but nothing done.
    Nothing,
    InProgress,
    Delivered {
        amount: Money,
        at: Timestamp,
    },
    /// Delivered, and taken back.
    Reversed {
        amount: Money,
        at: Timestamp,
    },
    Refused(Refusal),
}

#[derive(Debug)]
pub(super) struct Reference {
    pub(super) submits: u32,
    pub(super) queries: u32,
    pub(super) life: Life,
    /// When its last submit came, it was last asked about, and it came to its end; of this run.
    pub(super) submitted_at: Option<Instant>,
    pub(super) asked_at: Option<Instant>,
    pub(super) ended_at: Option<Instant>,
    pub(super) rest: Option<Box<Rest>>,
    /// Only where there are callbacks.
    pub(super) listener: Option<Box<Listener>>,
}

/// What few references have.
#[derive(Debug)]
pub(super) struct Rest {
    pub(super) order: Order,
    /// Until then, and to the first question anyway, the provider says that it does not know.
    pub(super) unclear_until: Option<Instant>,
    pub(super) was_unclear: bool,
    /// What is sure to strike its next query.
    pub(super) query: Option<FaultClass>,
    /// A script decided what becomes of it: chance stays out of its questions too.
    pub(super) is_scripted: bool,
    /// What was taken from our balance for it, in minor units.
    pub(super) held: i64,
    /// Brought to its end from outside: what was to happen does not.
    pub(super) resolved: bool,
}

impl Reference {
    pub(super) const fn new(submits: u32, life: Life) -> Self {
        Self {
            submits,
            queries: 0,
            life,
            submitted_at: None,
            asked_at: None,
            ended_at: None,
            rest: None,
            listener: None,
        }
    }
}

/// References that a ledger holds from an earlier run.
#[derive(Debug)]
pub(in super::super) struct Remembered(pub(super) Vec<Mutex<HashMap<Box<str>, Reference>>>);

impl Remembered {
    pub(in super::super) fn new() -> Self {
        Self((0..SHARDS).map(|_| Mutex::default()).collect())
    }

    pub(in super::super) fn add(&mut self, delivery: &Delivery) {
        let amount = Money { minor: delivery.amount_minor, currency: delivery.currency };
        let at = delivery.at;
        let life = match delivery.reverses {
            None => Life::Delivered { amount, at },
            Some(_) => Life::Reversed { amount, at },
        };
        let name = delivery.client_ref.as_str();
        // The first life is over: the next submit of this reference is at least its second.
        lock_shard(&self.0, name).insert(name.into(), Reference::new(1, life));
    }
}

pub(super) fn lock_shard<'a>(
    shards: &'a [Mutex<HashMap<Box<str>, Reference>>],
    name: &str,
) -> MutexGuard<'a, HashMap<Box<str>, Reference>> {
    let hash = Dice::new(0, "shard", name, 0).next();
    let index = usize::try_from(hash % SHARDS as u64).unwrap_or(0);
    #[expect(clippy::indexing_slicing, reason = "there are SHARDS of them")]
    shards[index].lock().unwrap_or_else(PoisonError::into_inner)
}
