//! The provider behind the simulator's HTTP: references, their lives, and what is delivered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::arrivals::{Arrivals, RequestKind};
use super::fate::{Dice, Fate, Moment, Refusal, Verdict};
use super::ledger::{Delivery, Ledger, LedgerBroken};
use super::profile::{FaultKind, Profile};
use super::reply::Reply;
use super::setup::Setup;
use super::stats::{Counts, count};
use crate::domain::{ClientRef, DuplicateSemantics, Money, Msisdn, Timestamp};
use crate::ports::Clock;
use crate::providers::Secret;

/// Locks for the references: enough that two cores seldom meet.
const SHARDS: usize = 64;
/// A reference costs about 150 bytes, and none may be forgotten; beyond this many the simulator
/// refuses to work rather than grow.
const REFERENCES_MAX_PER_SHARD: usize = 20_000_000 / SHARDS;

/// A recharge, as asked for.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) client_ref: ClientRef,
    pub(super) phone: Msisdn,
    pub(super) amount: Money,
}

/// What became of a reference.
#[derive(Debug, Clone, Copy)]
pub(super) enum Life {
    /// Heard of, but nothing done.
    Nothing,
    InProgress,
    Delivered {
        amount: Money,
        at: Timestamp,
    },
    Refused(Refusal),
}

#[derive(Debug)]
struct Reference {
    submits: u32,
    queries: u32,
    life: Life,
}

/// What a submit meets.
enum Met {
    /// A new recharge: do it.
    Fresh(Fate),
    /// The request fails before anything is done.
    Fault(Fate, FaultKind),
    /// The reference is known.
    Known(Fate, Life),
    /// There is no room for another reference.
    Full,
}

/// The provider.
#[derive(Debug)]
pub(super) struct Engine {
    seed: u64,
    key: Option<Secret>,
    clock: Arc<dyn Clock>,
    setup: RwLock<Arc<Setup>>,
    shards: Vec<Mutex<HashMap<Box<str>, Reference>>>,
    ledger: Ledger,
    arrivals: Arrivals,
    pub(super) counts: Counts,
    pub(super) stop: CancellationToken,
}

/// References that a ledger holds from an earlier run.
#[derive(Debug)]
pub(super) struct Remembered(Vec<Mutex<HashMap<Box<str>, Reference>>>);

impl Remembered {
    pub(super) fn new() -> Self {
        Self((0..SHARDS).map(|_| Mutex::default()).collect())
    }

    pub(super) fn add(&mut self, delivery: &Delivery) {
        let amount = Money { minor: delivery.amount_minor, currency: delivery.currency };
        let life = Life::Delivered { amount, at: delivery.at };
        let name = delivery.client_ref.as_str();
        // The first life is over: the next submit of this reference is at least its second.
        lock_shard(&self.0, name).insert(name.into(), Reference { submits: 1, queries: 0, life });
    }
}

impl Engine {
    pub(super) fn new(
        (seed, profile, key): (u64, Profile, Option<Secret>),
        (ledger, known, arrivals): (Ledger, Remembered, Arrivals),
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        Arc::new(Self {
            seed,
            key,
            clock,
            setup: RwLock::new(Setup::new(profile)),
            shards: known.0,
            ledger,
            arrivals,
            counts: Counts::default(),
            stop: CancellationToken::new(),
        })
    }

    pub(super) fn set_profile(&self, profile: Profile) {
        *self.setup.write().unwrap_or_else(PoisonError::into_inner) = Setup::new(profile);
    }

    pub(super) fn profile(&self) -> Profile {
        self.setup().profile.clone()
    }

    pub(super) fn arrival_times(&self) -> Vec<(u64, RequestKind)> {
        self.arrivals.times()
    }

    fn setup(&self) -> Arc<Setup> {
        Arc::clone(&self.setup.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What every request goes through first; `Some` ends it there.
    pub(super) fn admit(&self, client_ref: &str, kind: RequestKind, bearer: Option<&str>) -> Option<Reply> {
        self.arrivals.record(client_ref, kind);
        count(match kind {
            RequestKind::Submit => &self.counts.submits,
            RequestKind::Query => &self.counts.queries,
        });
        if let Some(key) = &self.key
            && bearer != Some(key.expose())
        {
            count(&self.counts.unauthorized);
            return Some(Reply::unauthorized());
        }
        let throttled = self.setup().throttle();
        if throttled.is_some() {
            count(&self.counts.throttled);
        }
        throttled
    }

    pub(super) async fn submit(self: &Arc<Self>, order: Order) -> Reply {
        let arrived = Instant::now();
        let setup = self.setup();
        let (fate, reply) = match self.meet(&order, &setup.profile) {
            Met::Full => return Reply::error_500(),
            Met::Fault(fate, kind) => {
                sleep_until(arrived + fate.reply_after).await;
                return self.failed(kind, Reply::accepted(&order.client_ref));
            }
            Met::Known(fate, life) => {
                count(&self.counts.duplicates);
                let replays = setup.profile.duplicates == DuplicateSemantics::ReplaysResult;
                let reply = if replays { Reply::life(&order.client_ref, life) } else { Reply::duplicate() };
                (fate, reply)
            }
            Met::Fresh(fate) => match self.execute(&order, &fate).await {
                Ok(life) => (fate, Reply::life(&order.client_ref, life)),
                Err(LedgerBroken) => return Reply::error_500(),
            },
        };
        sleep_until(arrived + fate.reply_after).await;
        match fate.fault {
            Some((kind, Moment::AfterExecution)) => self.failed(kind, reply),
            Some((_, Moment::BeforeExecution)) | None => reply,
        }
    }

    pub(super) async fn query(&self, client_ref: &str) -> Reply {
        let arrived = Instant::now();
        let (nth, life) = {
            let mut shard = lock_shard(&self.shards, client_ref);
            match shard.get_mut(client_ref) {
                Some(reference) => {
                    reference.queries = reference.queries.saturating_add(1);
                    (reference.queries, reference.life)
                }
                None => (0, Life::Nothing),
            }
        };
        let setup = self.setup();
        sleep_until(arrived + Dice::new(self.seed, "query reply", client_ref, nth).wait(setup.profile.reply)).await;
        if Dice::new(self.seed, "query", client_ref, nth).hits(setup.profile.failing_queries) {
            count(&self.counts.errors_500);
            return Reply::error_500();
        }
        match life {
            Life::Nothing => {
                count(&self.counts.not_found);
                Reply::not_found()
            }
            // In an answer to a query, a refusal is a plain fact and no odd status.
            Life::Refused(refusal) => Reply::refused(Refusal { status: 200, ..refusal }),
            Life::InProgress | Life::Delivered { .. } => Reply::life(&ClientRef::from_stored(client_ref), life),
        }
    }

    /// Decides under the reference's lock, so that of any number of concurrent submits of one
    /// reference exactly one finds it fresh.
    fn meet(&self, order: &Order, profile: &Profile) -> Met {
        let name = order.client_ref.as_str();
        let mut shard = lock_shard(&self.shards, name);
        if shard.len() >= REFERENCES_MAX_PER_SHARD && !shard.contains_key(name) {
            return Met::Full;
        }
        let reference = shard.entry(name.into()).or_insert(Reference { submits: 0, queries: 0, life: Life::Nothing });
        let fate = Fate::of(profile, self.seed, name, reference.submits, &order.phone.expose());
        reference.submits = reference.submits.saturating_add(1);
        let is_fresh = match (reference.life, profile.duplicates) {
            (Life::Nothing, _)
            | (_, DuplicateSemantics::NotDeduplicated)
            | (Life::Refused(_), DuplicateSemantics::RejectsUnlessFailed) => true,
            (
                Life::InProgress | Life::Delivered { .. } | Life::Refused(_),
                DuplicateSemantics::RejectsAlways
                | DuplicateSemantics::RejectsUnlessFailed
                | DuplicateSemantics::ReplaysResult,
            ) => false,
        };
        match fate.fault {
            Some((kind, Moment::BeforeExecution)) => Met::Fault(fate, kind),
            Some((_, Moment::AfterExecution)) | None if is_fresh => {
                reference.life = Life::InProgress;
                Met::Fresh(fate)
            }
            Some((_, Moment::AfterExecution)) | None => {
                let life = reference.life;
                Met::Known(fate, life)
            }
        }
    }

    /// Does it, or begins to. In a task of its own: a caller that goes away does not stop a
    /// provider, and a reference must not stay in progress for ever.
    async fn execute(self: &Arc<Self>, order: &Order, fate: &Fate) -> Result<Life, LedgerBroken> {
        let (engine, order, verdict) = (Arc::clone(self), order.clone(), fate.verdict);
        match (fate.completes_after, verdict) {
            (Some(wait), _) => {
                count(&self.counts.accepted);
                let until = Instant::now() + wait;
                tokio::spawn(async move {
                    tokio::select! {
                        // Stopped: what is not delivered by now never is.
                        biased;
                        () = engine.stop.cancelled() => {}
                        () = sleep_until(until) => drop(engine.settle(&order, verdict).await),
                    }
                });
                Ok(Life::InProgress)
            }
            (None, Verdict::Refuse(_)) => self.settle(&order, verdict).await,
            (None, Verdict::Deliver) => {
                tokio::spawn(async move { engine.settle(&order, verdict).await }).await.unwrap_or(Err(LedgerBroken))
            }
        }
    }

    /// The moment of truth.
    async fn settle(&self, order: &Order, verdict: Verdict) -> Result<Life, LedgerBroken> {
        let settled = match verdict {
            Verdict::Refuse(refusal) => {
                count(&self.counts.refused);
                Ok(Life::Refused(refusal))
            }
            Verdict::Deliver => self.deliver(order).await,
        };
        let name = order.client_ref.as_str();
        if let Some(reference) = lock_shard(&self.shards, name).get_mut(name) {
            reference.life = settled.unwrap_or(Life::Nothing);
        }
        settled
    }

    async fn deliver(&self, order: &Order) -> Result<Life, LedgerBroken> {
        let at = self.clock.now();
        let delivery = Delivery {
            seq: 0,
            at,
            client_ref: order.client_ref.clone(),
            phone: order.phone,
            amount_minor: order.amount.minor,
            currency: order.amount.currency,
        };
        self.ledger.append(delivery).await?;
        count(&self.counts.executed);
        Ok(Life::Delivered { amount: order.amount, at })
    }

    /// The reply as a fault leaves it.
    fn failed(&self, kind: FaultKind, reply: Reply) -> Reply {
        let (counter, reply) = match kind {
            FaultKind::Reset => (&self.counts.resets, Reply::Reset),
            FaultKind::Hang => (&self.counts.hangs, Reply::Hang),
            FaultKind::Error500 => (&self.counts.errors_500, Reply::error_500()),
            FaultKind::Truncated => (&self.counts.truncated, reply.truncated()),
            FaultKind::UnknownCode => (&self.counts.unknown_codes, Reply::unknown_code()),
        };
        count(counter);
        reply
    }
}

fn lock_shard<'a>(
    shards: &'a [Mutex<HashMap<Box<str>, Reference>>],
    name: &str,
) -> MutexGuard<'a, HashMap<Box<str>, Reference>> {
    let hash = Dice::new(0, "shard", name, 0).next();
    let index = usize::try_from(hash % SHARDS as u64).unwrap_or(0);
    #[expect(clippy::indexing_slicing, reason = "there are SHARDS of them")]
    shards[index].lock().unwrap_or_else(PoisonError::into_inner)
}
