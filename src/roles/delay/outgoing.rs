//! What is on its way out of a tier, by the topic that it goes to. Each has a queue of its own and,
//! as long as it answers soon, one batch under way, while which the next one grows; so a topic that
//! cannot be written holds up no other. What failed is tried again beside what is new, since a
//! topic may be ill in one partition only.

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

/// Tries that may fail before the one after which a record goes to the dead letters.
const TRIES: u32 = 5;
/// The same where so many wait for one topic that others find no place in memory.
const TRIES_IN_THE_WAY: u32 = 2;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Records in one batch at most.
const BATCH_MAX: usize = 5_000;
/// A batch that takes longer may have met a partition that is ill; the next does not wait for it.
const ANSWERS_WITHIN: Duration = Duration::from_millis(50);

/// A record, and where it goes next.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) held: Held,
    /// The tier that it enters, where it has a further way to go than to its target.
    pub(super) into: Option<Arc<str>>,
    /// How often it was tried.
    tries: u32,
}

impl Parcel {
    pub(super) fn new(held: Held, into: Option<Arc<str>>) -> Self {
        Self { held, into, tries: 0 }
    }

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
    /// Not tried yet.
    fresh: VecDeque<Parcel>,
    /// Tried, and failed.
    failed: VecDeque<Parcel>,
    /// Fresh ones under way, and when the last batch of them began.
    under_way: usize,
    began_at: Option<Instant>,
    /// Whether a batch of failed ones is under way.
    retrying: bool,
    /// Failures in a row, of these.
    failures: u32,
    /// Failed ones are not tried again before this moment.
    not_before: Option<Instant>,
}

impl Destination {
    /// How many fresh ones may be sent now, with so many under way at most; or when to look again.
    fn fresh_now(&self, now: Instant, most: usize) -> Result<usize, Option<Instant>> {
        let room = most.saturating_sub(self.under_way);
        let answers_by = self.began_at.filter(|_| self.under_way > 0).map(|began| began + ANSWERS_WITHIN);
        match answers_by {
            _ if self.fresh.is_empty() || room == 0 => Err(None),
            Some(by) if by > now => Err(Some(by)),
            Some(_) | None => Ok(self.fresh.len().min(BATCH_MAX).min(room)),
        }
    }

    /// How many failed ones may be tried again now, or when to look again.
    fn failed_now(&self, now: Instant) -> Result<usize, Option<Instant>> {
        match self.not_before {
            _ if self.failed.is_empty() || self.retrying => Err(None),
            Some(until) if until > now => Err(Some(until)),
            Some(_) | None => Ok(self.failed.len().min(BATCH_MAX)),
        }
    }
}

/// What became of a batch.
pub(super) struct Sent {
    destination: Arc<str>,
    /// Whether its records had failed before.
    again: bool,
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
    /// Records that a forwarder holds at most. A topic that keeps a quarter of them waiting is in the
    /// way of others; half of them it may have under way.
    most: usize,
    destinations: BTreeMap<Arc<str>, Destination>,
    under_way: JoinSet<Sent>,
    count: usize,
}

impl Outgoing {
    pub(super) fn new(
        publisher: Arc<dyn Publisher>,
        clock: Arc<dyn Clock>,
        dead_letters: Arc<str>,
        most: usize,
    ) -> Self {
        let (destinations, under_way) = (BTreeMap::new(), JoinSet::new());
        Self { publisher, clock, dead_letters, most, destinations, under_way, count: 0 }
    }

    pub(super) fn add(&mut self, parcel: Parcel) {
        self.count += 1;
        if let Some(known) = self.destinations.get_mut(parcel.destination()) {
            known.fresh.push_back(parcel);
        } else {
            let name = Arc::clone(parcel.destination());
            self.destinations.entry(name).or_default().fresh.push_back(parcel);
        }
    }

    /// Records that are not acknowledged yet.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Starts what can start; returns when to look again.
    pub(super) fn start(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let mut again: Option<Instant> = None;
        for (name, destination) in &mut self.destinations {
            let limit = if destination.failed.len() > self.most / 4 { TRIES_IN_THE_WAY } else { TRIES };
            let mut send = |parcels: Vec<Parcel>, is_again| {
                let way = Way {
                    destination: Arc::clone(name),
                    dead_letters: Arc::clone(&self.dead_letters),
                    limit,
                    again: is_again,
                };
                self.under_way.spawn(way.send(Arc::clone(&self.publisher), parcels, self.clock.now()));
            };
            match destination.failed_now(now) {
                Ok(count) => {
                    destination.retrying = true;
                    send(destination.failed.drain(..count).collect(), true);
                }
                Err(until) => again = [again, until].into_iter().flatten().min(),
            }
            match destination.fresh_now(now, (self.most / 2).max(1)) {
                Ok(count) => {
                    destination.under_way += count;
                    destination.began_at = Some(now);
                    send(destination.fresh.drain(..count).collect(), false);
                    // What is left waits for this one, or until it has taken too long.
                    let by = Some(now + ANSWERS_WITHIN).filter(|_| !destination.fresh.is_empty());
                    again = [again, by].into_iter().flatten().min();
                }
                Err(until) => again = [again, until].into_iter().flatten().min(),
            }
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
        if sent.again {
            destination.retrying = false;
        } else {
            destination.under_way -= sent.parcels.len();
        }
        let (mut done, mut failed, mut first_error) = (Vec::with_capacity(sent.parcels.len()), Vec::new(), None);
        let mut results = sent.results.into_iter();
        for mut parcel in sent.parcels {
            match results.next() {
                Some(Ok(fate)) => done.push((parcel, fate)),
                other => {
                    first_error = first_error.or(other.and_then(Result::err));
                    parcel.tries = parcel.tries.saturating_add(1);
                    failed.push(parcel);
                }
            }
        }
        self.count -= done.len();
        if failed.is_empty() {
            if sent.again {
                (destination.failures, destination.not_before) = (0, None);
            }
            return done;
        }
        if let Some(error) = first_error
            && destination.failed.is_empty()
            && !sent.again
            && let Some(parcel) = failed.first()
        {
            warn!(topic = %parcel.destination(), records = failed.len(), %error, "records could not be forwarded; trying again");
        }
        if sent.again || destination.failed.is_empty() {
            destination.failures = destination.failures.saturating_add(1);
            let pause = FIRST_PAUSE.saturating_mul(1 << (destination.failures - 1).min(10)).min(LONGEST_PAUSE);
            destination.not_before = Some(Instant::now() + pause);
        }
        destination.failed.extend(failed);
        done
    }
}

/// A batch's way.
struct Way {
    destination: Arc<str>,
    dead_letters: Arc<str>,
    /// Tries that may fail.
    limit: u32,
    again: bool,
}

impl Way {
    /// Sends a batch. What cannot be written on its last try goes to the dead letters instead; if
    /// that fails as well, the broker is away, and it is tried again.
    async fn send(self, publisher: Arc<dyn Publisher>, parcels: Vec<Parcel>, now: Timestamp) -> Sent {
        let records: Vec<OutRecord> = parcels.iter().map(Parcel::outgoing).collect();
        let sent = publisher.publish(&records).await;
        let mut results: Vec<Result<Fate, PublishError>> =
            sent.into_iter().map(|result| result.map(|()| Fate::Forwarded)).collect();
        let why =
            Unfit::new(DeadLetterReason::Undeliverable, format!("the topic {} did not take it", self.destination));
        let (mut given_up, mut letters) = (Vec::new(), Vec::new());
        for (parcel, result) in parcels.iter().zip(&mut results) {
            if result.is_err() && parcel.tries >= self.limit {
                letters.push(dead_letter::record(&self.dead_letters, &parcel.held.record, &why, now));
                given_up.push(result);
            }
        }
        if !letters.is_empty() {
            for (result, buried) in given_up.into_iter().zip(publisher.publish(&letters).await) {
                *result = buried.map(|()| Fate::Buried);
            }
        }
        Sent { destination: self.destination, again: self.again, parcels, results }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use bytes::Bytes;

    use super::super::held::fixture::held;
    use super::*;
    use crate::clock::SystemClock;

    /// As long as a partition without a leader keeps a record.
    const NO_ANSWER: Duration = Duration::from_secs(3);

    /// One partition of every target is ill: that of the records with this key.
    #[derive(Debug, Default)]
    struct Broker {
        /// Whether all partitions are.
        dead: bool,
    }

    #[async_trait]
    impl Publisher for Broker {
        async fn publish(&self, batch: &[OutRecord]) -> Vec<Result<(), PublishError>> {
            let is_ill = |record: &OutRecord| {
                &*record.topic != "letters" && (self.dead || record.key.as_deref() == Some(b"ill"))
            };
            let takes = if batch.iter().any(is_ill) { NO_ANSWER } else { Duration::from_millis(3) };
            tokio::time::sleep(takes).await;
            let answer =
                |record| if is_ill(record) { Err(PublishError::Unacknowledged("no leader".into())) } else { Ok(()) };
            batch.iter().map(answer).collect()
        }
    }

    fn outgoing(broker: Broker) -> Outgoing {
        Outgoing::new(Arc::new(broker), Arc::new(SystemClock::new()), Arc::from("letters"), 4_000)
    }

    fn parcel(key: &'static str) -> Parcel {
        let mut held = held(0, Timestamp::UNIX_EPOCH);
        held.record.key = Some(Bytes::from_static(key.as_bytes()));
        Parcel::new(held, None)
    }

    /// Adds a record of this key every 20 ms, and returns what became of each in `time`, with when.
    async fn traffic(outgoing: &mut Outgoing, keys: &[&'static str], time: Duration) -> Vec<(Bytes, Fate, Instant)> {
        let (began, mut done, mut added) = (Instant::now(), Vec::new(), 0);
        let mut next = began;
        while began.elapsed() < time {
            let again = outgoing.start();
            let wake = again.map_or(next, |again| again.min(next)).max(Instant::now());
            tokio::select! {
                ended = outgoing.ended() => {
                    let fates = outgoing.take(ended.unwrap()).into_iter();
                    done.extend(fates.map(|(parcel, fate)| (parcel.held.record.key.unwrap(), fate, Instant::now())));
                }
                () = tokio::time::sleep_until(wake) => {}
            }
            if Instant::now() >= next {
                outgoing.add(parcel(keys[added % keys.len()]));
                (added, next) = (added + 1, next + Duration::from_millis(20));
            }
        }
        done
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_ill_partition_does_not_take_is_given_up_and_delays_the_others_little() {
        let mut outgoing = outgoing(Broker::default());
        // One in fifty: one a second.
        let keys: Vec<&str> = (0..50).map(|n| if n == 7 { "ill" } else { "well" }).collect();
        let time = Duration::from_secs(120);
        let done = traffic(&mut outgoing, &keys, time).await;
        let buried = done.iter().filter(|(_, fate, _)| *fate == Fate::Buried);
        assert!(buried.clone().all(|(key, ..)| key == "ill"));
        // Each is tried for up to 25 s.
        let given_up = buried.count();
        assert!((80..=120).contains(&given_up), "{given_up} of 120 were given up");
        let well: Vec<Instant> = done.iter().filter(|(key, ..)| key == "well").map(|(.., at)| *at).collect();
        assert!(well.len() > 5_600, "only {} of 5880", well.len());
        let longest = well.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        assert!(longest < Duration::from_millis(150), "nothing came through for {longest:?}");
        assert!(outgoing.len() < 300, "{} wait", outgoing.len());
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_dead_topic_does_not_take_is_given_up_after_a_few_tries() {
        let mut outgoing = outgoing(Broker { dead: true });
        for _ in 0..300 {
            outgoing.add(parcel("any"));
        }
        let mut buried = 0;
        let began = Instant::now();
        while outgoing.len() > 0 {
            let again = outgoing.start();
            let wake = again.unwrap_or_else(|| Instant::now() + Duration::from_secs(60));
            tokio::select! {
                ended = outgoing.ended() => buried += outgoing.take(ended.unwrap()).len(),
                () = tokio::time::sleep_until(wake) => {}
            }
            assert!(began.elapsed() < Duration::from_secs(60));
        }
        assert_eq!(buried, 300);
        // Six tries, and the pauses between them.
        assert!(began.elapsed() > NO_ANSWER * 6 && began.elapsed() < NO_ANSWER * 7, "{:?}", began.elapsed());
    }
}
