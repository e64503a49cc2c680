//! What is on its way out of a tier, by the topic that it goes to. Each has a queue of its own and,
//! as long as it answers soon, one batch under way, while which the next one grows; so a topic that
//! cannot be written holds up no other. What failed is tried again beside what is new, since a
//! topic may be ill in one partition only.
//!
//! Topics that are ill share half of the forwarder's hands, and have no more, so that what goes elsewhere
//! always finds room. From half of its share on, what a topic does not take is given up at its first
//! failure; beyond it, what comes is given up at once. Both only where the broker answered others all the
//! while (`pulse`): one that stands still for some seconds makes no topic ill.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tracing::warn;

use crate::domain::Timestamp;
use crate::domain::inbound::Unfit;
use crate::ports::{Clock, InRecord, OutRecord, PublishError, Publisher};

use super::destination::{Destination, TRIES};
use super::held::Held;
use super::letters::Letters;
use super::parcel::{Letter, Parcel};
use super::pulse::{PROMPT, Pulse};

/// All topics that are ill may hold this part of the hands, and any topic may have as much under way.
const SHARED_PART: usize = 2;

/// A batch that has come to its end.
#[derive(Debug)]
pub(super) struct Sent {
    batch: Batch,
    results: Vec<Result<(), PublishError>>,
    /// When it was handed over, on the clock of due times and on this process's own.
    handed_at: Timestamp,
    began_at: Instant,
}

#[derive(Debug)]
enum Batch {
    Parcels {
        destination: Arc<str>,
        /// Whether they had failed before.
        again: bool,
        parcels: Vec<Parcel>,
    },
    Letters(Vec<Letter>),
}

/// What became of a record.
#[derive(Debug)]
pub(super) enum Done {
    /// It lies at its destination.
    Forwarded {
        held: Box<Held>,
        /// The tier, if it is one.
        into: Option<Arc<str>>,
        /// When it was handed over to be written.
        sent_at: Timestamp,
    },
    /// It lies among the dead letters.
    Buried(Letter),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Outgoing {
    publisher: Arc<dyn Publisher>,
    clock: Arc<dyn Clock>,
    dead_letters: Arc<str>,
    /// Records of one topic that may be under way, and of all that are ill in hand.
    most: usize,
    /// Topics that are ill.
    ill: usize,
    destinations: BTreeMap<Arc<str>, Destination>,
    letters: Letters,
    pulse: Pulse,
    under_way: JoinSet<Sent>,
    count: usize,
    bytes: usize,
}

impl Outgoing {
    pub(super) fn new(
        publisher: Arc<dyn Publisher>,
        clock: Arc<dyn Clock>,
        dead_letters: Arc<str>,
        most: usize,
    ) -> Self {
        Self {
            publisher,
            clock,
            dead_letters,
            most: (most / SHARED_PART).max(1),
            ill: 0,
            destinations: BTreeMap::new(),
            letters: Letters::default(),
            pulse: Pulse::default(),
            under_way: JoinSet::new(),
            count: 0,
            bytes: 0,
        }
    }

    /// How many records a topic that is ill may hold.
    fn share(&self) -> usize {
        (self.most / self.ill.max(1)).max(1)
    }

    pub(super) fn add(&mut self, parcel: Parcel) {
        self.count += 1;
        self.bytes += parcel.held.size;
        if let Some(known) = self.destinations.get_mut(parcel.destination()) {
            known.add(parcel);
        } else {
            let name = Arc::clone(parcel.destination());
            self.destinations.entry(name).or_default().add(parcel);
        }
    }

    /// Takes a record that cannot be read.
    pub(super) fn bury(&mut self, record: InRecord, why: Unfit, now: Timestamp) {
        let letter = Letter::poison(record, why, now);
        self.count += 1;
        self.bytes += letter.size();
        self.letters.add(letter);
    }

    /// Records that are not acknowledged yet.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// What they take in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Starts what can start; returns when to look again.
    pub(super) fn start(&mut self) -> Option<Instant> {
        let now = Instant::now();
        self.ill = self.destinations.values().filter(|destination| destination.illness(now).is_some()).count();
        let (most, share) = (self.most, self.share());
        let mut again: Vec<Option<Instant>> = Vec::new();
        let mut begun: Vec<Batch> = Vec::new();
        let excess = self.excess(now);
        for letter in excess {
            self.letters.add(letter);
        }
        for (name, destination) in &mut self.destinations {
            let batch = |parcels, again| Batch::Parcels { destination: Arc::clone(name), again, parcels };
            match destination.take_failed(now) {
                Ok(parcels) => begun.push(batch(parcels, true)),
                Err(until) => again.push(until),
            }
            let most = if destination.illness(now).is_some() { share } else { most };
            match destination.take_fresh(now, most) {
                Ok(batches) => {
                    begun.extend(batches.into_iter().map(|parcels| batch(parcels, false)));
                    // What is left waits for this one, or until it has taken too long.
                    again.push(destination.rest_by(now));
                }
                Err(until) => again.push(until),
            }
        }
        match self.letters.take(self.pulse.beats(now), now) {
            Ok(letters) => begun.push(Batch::Letters(letters)),
            Err(until) => again.push(until),
        }
        if !begun.is_empty() {
            let handed_at = self.clock.now();
            for batch in begun {
                self.send(batch, handed_at, now);
            }
        }
        again.into_iter().flatten().min()
    }

    /// What goes to topics that are ill and have their share.
    fn excess(&mut self, now: Instant) -> Vec<Letter> {
        let (share, mut excess) = (self.share(), Vec::new());
        // A broker that takes nothing at all takes no letters either.
        if self.letters.is_broker_ill() {
            return excess;
        }
        for (name, destination) in self.destinations.iter_mut().filter(|(_, topic)| topic.len() > share) {
            let Some(error) = destination.proven_illness(now).cloned() else { continue };
            let beyond = destination.take_beyond(share);
            if let Some(records) = Some(beyond.len()).filter(|records| *records > 0) {
                warn!(topic = %name, records, %error, "too much waits for this topic: records go to the dead letters");
            }
            let first_seen = self.clock.now();
            excess.extend(beyond.into_iter().map(|parcel| Letter::given_up(parcel, &error, first_seen)));
        }
        excess
    }

    fn send(&mut self, batch: Batch, handed_at: Timestamp, began_at: Instant) {
        let records: Vec<OutRecord> = match &batch {
            Batch::Parcels { parcels, .. } => parcels.iter().map(|parcel| parcel.outgoing(handed_at)).collect(),
            Batch::Letters(letters) => letters.iter().map(|letter| letter.outgoing(&self.dead_letters)).collect(),
        };
        let publisher = Arc::clone(&self.publisher);
        self.under_way.spawn(async move {
            let results = publisher.publish(&records).await;
            Sent { batch, results, handed_at, began_at }
        });
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
    pub(super) fn take(&mut self, sent: Sent) -> Vec<Done> {
        let now = Instant::now();
        if sent.results.iter().any(Result::is_ok) {
            self.pulse.answered(sent.began_at, now);
            if self.letters.acknowledged(now) {
                self.destinations.values_mut().for_each(Destination::give_back_tries);
            }
        }
        let done = match sent.batch {
            Batch::Letters(letters) => {
                let (done, failed) = sorted(letters, sent.results);
                for parcel in self.letters.came_back(failed, now <= sent.began_at + PROMPT, now) {
                    self.try_again(parcel);
                }
                self.bytes -= done.iter().map(Letter::size).sum::<usize>();
                done.into_iter().map(Done::Buried).collect::<Vec<_>>()
            }
            Batch::Parcels { destination, again, parcels } => {
                let count = parcels.len();
                let (done, failed) = sorted(parcels, sent.results);
                let error = failed.first().map(|(_, error)| error);
                let proven = self.pulse.has_beaten_since(sent.began_at, now);
                let known = self.destinations.entry(Arc::clone(&destination)).or_default();
                if known.came_back(count, again, error, proven, now)
                    && let Some(error) = error
                {
                    warn!(topic = %destination, records = failed.len(), %error, "records could not be forwarded; trying again");
                }
                self.failed(&destination, failed, proven, sent.began_at);
                self.bytes -= done.iter().map(|parcel| parcel.held.size).sum::<usize>();
                let sent_at = sent.handed_at;
                done.into_iter()
                    .map(|Parcel { held, into, .. }| Done::Forwarded { held, into, sent_at })
                    .collect::<Vec<_>>()
            }
        };
        self.count -= done.len();
        // Whoever writes into a tier may name any number of lanes.
        self.destinations.retain(|_, destination| destination.len() > 0 || destination.illness(now).is_some());
        done
    }

    /// Of what failed, some is tried again, and some given up. `proven` says that it was not the broker's fault.
    fn failed(&mut self, destination: &Arc<str>, failed: Vec<(Parcel, PublishError)>, proven: bool, began_at: Instant) {
        let waiting = self.destinations.get(destination).map_or(0, Destination::len);
        let is_over = proven && waiting + failed.len() > self.share() / 2 && !self.letters.is_broker_ill();
        let (limit, tells) = (if is_over { 0 } else { TRIES }, self.letters.tells(began_at));
        let (first_seen, mut buried) = (self.clock.now(), 0_usize);
        for (mut parcel, error) in failed {
            if !parcel.is_live() {
                // Another process holds its partition now, and has it as well.
                self.count -= 1;
                self.bytes -= parcel.held.size;
            } else if !tells || parcel.tries < limit {
                parcel.tries = parcel.tries.saturating_add(u32::from(tells));
                self.try_again(parcel);
            } else if self.letters.may_ask() {
                buried += 1;
                self.letters.add(Letter::given_up(parcel, &error, first_seen));
            } else {
                parcel.tries = 0;
                self.try_again(parcel);
            }
        }
        if buried > 0 {
            warn!(topic = %destination, records = buried, "records could not be forwarded: they go to the dead letters");
        }
    }

    fn try_again(&mut self, parcel: Parcel) {
        let name = Arc::clone(parcel.destination());
        self.destinations.entry(name).or_default().add_failed(parcel);
    }

    /// Lets go of what waits here and belongs to partitions that were given back.
    pub(super) fn drop_revoked(&mut self) {
        let dropped = self.destinations.values_mut().map(Destination::drop_revoked);
        for (count, bytes) in dropped.collect::<Vec<_>>().into_iter().chain([self.letters.drop_revoked()]) {
            self.count -= count;
            self.bytes -= bytes;
        }
    }
}

/// Parts what was acknowledged from what was not, and why.
fn sorted<T>(items: Vec<T>, results: Vec<Result<(), PublishError>>) -> (Vec<T>, Vec<(T, PublishError)>) {
    let (mut done, mut failed) = (Vec::with_capacity(items.len()), Vec::new());
    let mut results = results.into_iter();
    for item in items {
        match results.next() {
            Some(Ok(())) => done.push(item),
            Some(Err(why)) => failed.push((item, why)),
            None => failed.push((item, PublishError::Unacknowledged("it was not answered".to_owned()))),
        }
    }
    (done, failed)
}

#[cfg(test)]
mod tests;
