//! What is on its way out of a tier, by the topic that it goes to. Each has a queue and one batch
//! under way, so a topic that cannot be written holds up no other; and while a batch is under
//! way the next one grows.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tracing::warn;

use crate::domain::Timestamp;
use crate::domain::inbound::{DeadLetterReason, Unfit};
use crate::ports::{Clock, OutRecord, PublishError, Publisher};
use crate::roles::dead_letter;
use crate::roles::delayed::{Waiting, original_headers};

use super::held::Held;

/// Tries before a record goes to the dead letters.
const TRIES: u32 = 5;
/// The same where so many wait for one topic that others find no place in memory.
const TRIES_IN_THE_WAY: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Records in one batch at most.
const BATCH_MAX: usize = 5_000;

/// A record, and where it goes next.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) held: Held,
    /// The tier that it enters, where it has a further way to go than to its target.
    pub(super) into: Option<Arc<str>>,
}

impl Parcel {
    fn destination(&self) -> &Arc<str> {
        self.into.as_ref().unwrap_or(&self.held.waiting.target)
    }

    fn outgoing(&self) -> OutRecord {
        let record = &self.held.record;
        let bare = OutRecord {
            topic: Arc::clone(&self.held.waiting.target),
            key: record.key.clone(),
            value: record.value.clone(),
            headers: original_headers(record.headers.clone()),
        };
        match &self.into {
            None => bare,
            Some(tier) => {
                let hops = self.held.waiting.hops.saturating_add(1);
                Waiting { hops, ..self.held.waiting.clone() }.write(tier, bare)
            }
        }
    }
}

#[derive(Debug, Default)]
struct Destination {
    queue: VecDeque<Parcel>,
    busy: bool,
    /// Failures in a row.
    failures: u32,
    /// After a failure, not before this moment.
    not_before: Option<Instant>,
}

/// What became of a batch.
pub(super) struct Sent {
    destination: Arc<str>,
    parcels: Vec<Parcel>,
    results: Vec<Result<Fate, PublishError>>,
}

/// Where an acknowledged record lies now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// At its destination.
    Forwarded,
    /// Among the dead letters.
    Buried,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Outgoing {
    publisher: Arc<dyn Publisher>,
    clock: Arc<dyn Clock>,
    dead_letters: Arc<str>,
    /// A topic that fails may keep this many records waiting without being in the way.
    patience: usize,
    destinations: BTreeMap<Arc<str>, Destination>,
    under_way: JoinSet<Sent>,
    count: usize,
}

impl Outgoing {
    pub(super) fn new(
        publisher: Arc<dyn Publisher>,
        clock: Arc<dyn Clock>,
        dead_letters: Arc<str>,
        patience: usize,
    ) -> Self {
        let (destinations, under_way) = (BTreeMap::new(), JoinSet::new());
        Self { publisher, clock, dead_letters, patience, destinations, under_way, count: 0 }
    }

    pub(super) fn add(&mut self, parcel: Parcel) {
        self.count += 1;
        if let Some(known) = self.destinations.get_mut(parcel.destination()) {
            known.queue.push_back(parcel);
        } else {
            let name = Arc::clone(parcel.destination());
            self.destinations.entry(name).or_default().queue.push_back(parcel);
        }
    }

    /// Records that are not acknowledged yet.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Starts what can start; returns when to look again, after a failure.
    pub(super) fn start(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let mut again = None;
        for (name, destination) in &mut self.destinations {
            if destination.busy || destination.queue.is_empty() {
                continue;
            }
            if let Some(until) = destination.not_before.filter(|until| *until > now) {
                again = Some(again.map_or(until, |at: Instant| at.min(until)));
                continue;
            }
            let batch = destination.queue.len().min(BATCH_MAX);
            let parcels: Vec<Parcel> = destination.queue.drain(..batch).collect();
            let tries = if parcels.len() > self.patience { TRIES_IN_THE_WAY } else { TRIES };
            let last_try = destination.failures >= tries;
            destination.busy = true;
            let letters = last_try.then(|| Arc::clone(&self.dead_letters));
            let (publisher, name, now) = (Arc::clone(&self.publisher), Arc::clone(name), self.clock.now());
            self.under_way.spawn(send(publisher, name, parcels, letters, now));
        }
        again
    }

    /// The next batch that has come to its end; never, while none is under way.
    pub(super) async fn ended(&mut self) -> Result<Sent, JoinError> {
        match self.under_way.join_next().await {
            Some(ended) => ended,
            None => std::future::pending().await,
        }
    }

    pub(super) fn is_under_way(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// Takes what a batch has become: what was acknowledged is handed out, the rest is tried again.
    pub(super) fn take(&mut self, sent: Sent) -> Vec<(Parcel, Fate)> {
        let destination = self.destinations.entry(sent.destination).or_default();
        destination.busy = false;
        let (mut done, mut failed, mut first_error) = (Vec::with_capacity(sent.parcels.len()), Vec::new(), None);
        let mut results = sent.results.into_iter();
        for parcel in sent.parcels {
            match results.next() {
                Some(Ok(fate)) => done.push((parcel, fate)),
                Some(Err(error)) => {
                    first_error.get_or_insert(error);
                    failed.push(parcel);
                }
                None => failed.push(parcel),
            }
        }
        self.count -= done.len();
        // One that takes a part of a batch will take the rest; one that had to bury all of it stays suspect.
        if done.iter().any(|(_, fate)| *fate == Fate::Forwarded) {
            destination.failures = 0;
        }
        if failed.is_empty() {
            destination.not_before = None;
            return done;
        }
        destination.failures = destination.failures.saturating_add(1);
        let pause = FIRST_PAUSE.saturating_mul(1 << (destination.failures - 1).min(10)).min(LONGEST_PAUSE);
        destination.not_before = Some(Instant::now() + pause);
        if let Some(error) = first_error
            && destination.failures == 1
            && let Some(parcel) = failed.first()
        {
            warn!(topic = %parcel.destination(), records = failed.len(), %error, "records could not be forwarded; trying again");
        }
        for parcel in failed.into_iter().rev() {
            destination.queue.push_front(parcel);
        }
        done
    }
}

/// Sends a batch. On the last try, what cannot be written goes to the dead letters instead; if
/// that fails as well, the broker is away, and all of it is tried again.
async fn send(
    publisher: Arc<dyn Publisher>,
    destination: Arc<str>,
    parcels: Vec<Parcel>,
    letters: Option<Arc<str>>,
    now: Timestamp,
) -> Sent {
    let records: Vec<OutRecord> = parcels.iter().map(Parcel::outgoing).collect();
    let sent = publisher.publish(&records).await;
    let mut results: Vec<Result<Fate, PublishError>> =
        sent.into_iter().map(|result| result.map(|()| Fate::Forwarded)).collect();
    let Some(dead_letters) = letters else { return Sent { destination, parcels, results } };
    let failed: Vec<usize> = results.iter().enumerate().filter(|(_, result)| result.is_err()).map(|(n, _)| n).collect();
    let why = Unfit::new(DeadLetterReason::Undeliverable, format!("the topic {destination} did not take it"));
    let buried = failed.iter().filter_map(|n| parcels.get(*n));
    let buried: Vec<OutRecord> =
        buried.map(|parcel| dead_letter::record(&dead_letters, &parcel.held.record, &why, now)).collect();
    for (n, result) in failed.into_iter().zip(publisher.publish(&buried).await) {
        if let Some(slot) = results.get_mut(n) {
            *slot = result.map(|()| Fate::Buried);
        }
    }
    Sent { destination, parcels, results }
}
