//! The consumers of a topic. Partitions change hands when one joins, leaves, dies or stands still for too
//! long; whoever stood still finds out later, and until then believes that they are its own.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use recharged::kafka::consumer::ledger::Ledger;
use recharged::ports::{Ack, ActedOn, Assignment, Clock, InRecord, Stopped, Subscription};
use tokio::sync::Notify;

use super::{MemBroker, PARTITIONS, Partition};
use crate::life::Life;
use crate::weather::Fault;

/// Who is silent for so long is put out.
pub(crate) const SESSION: Duration = Duration::from_secs(8);
/// Offsets are committed this often.
const COMMIT_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
pub(super) struct Group {
    members: BTreeMap<usize, Arc<Member>>,
    owners: [Option<Arc<MemAssignment>>; PARTITIONS],
    /// Those who were silent for too long and do not know it yet.
    put_out: Vec<Arc<Member>>,
    was_read: bool,
}

#[derive(Debug)]
struct Member {
    life: Arc<Life>,
    held: Mutex<Vec<Arc<MemAssignment>>>,
    assignments: AtomicU64,
}

impl Group {
    pub(super) fn is_read(&self) -> bool {
        self.was_read
    }

    /// Who has a partition, for people.
    pub(super) fn tell(&self, place: usize) -> String {
        let members: Vec<usize> = self.members.keys().copied().collect();
        let owner = self.owners[place].as_ref();
        let owner = owner.map(|owner| (owner.member.life.slot, owner.is_live(), owner.position()));
        format!("members {members:?}, owner {owner:?}")
    }

    pub(super) fn done_to(&self, place: usize, partition: &Partition) -> usize {
        self.owners[place].as_ref().map_or(partition.committed, |owner| owner.position().1)
    }

    /// Takes a process in again that was put out; it learns that it has lost what it had.
    fn readmit(&mut self, life: &Arc<Life>) -> bool {
        let Some(found) = self.put_out.iter().position(|member| Arc::ptr_eq(&member.life, life)) else { return false };
        let member = self.put_out.swap_remove(found);
        for held in member.held.lock().unwrap().iter() {
            held.is_live.store(held.is_owner.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.members.entry(life.slot).or_insert(member);
        true
    }

    /// Whom each partition belongs to from now on: who has one keeps it, as long as that is fair.
    fn targets(&self, moves: bool) -> [Option<usize>; PARTITIONS] {
        let slots: Vec<usize> = self.members.keys().copied().collect();
        if slots.is_empty() {
            return [None; PARTITIONS];
        }
        let most = PARTITIONS.div_ceil(slots.len());
        let mut counts: BTreeMap<usize, usize> = slots.iter().map(|slot| (*slot, 0)).collect();
        let mut targets = [None; PARTITIONS];
        for (place, owner) in self.owners.iter().enumerate() {
            let Some(slot) = owner.as_ref().map(|owner| owner.member.life.slot) else { continue };
            if let Some(count) = counts.get_mut(&slot).filter(|count| **count < most && !moves) {
                *count += 1;
                targets[place] = Some(slot);
            }
        }
        for (target, owner) in targets.iter_mut().zip(&self.owners) {
            if target.is_none() {
                let former = owner.as_ref().map(|owner| owner.member.life.slot);
                let least = counts.iter_mut().min_by_key(|(slot, count)| (**count, Some(**slot) == former));
                let (slot, count) = least.unwrap();
                *count += 1;
                *target = Some(*slot);
            }
        }
        targets
    }
}

impl MemBroker {
    /// A consumer of a process. Its partitions come a moment later, or when the one whom it replaces
    /// was put out.
    pub(crate) fn subscribe(self: &Arc<Self>, topic: &str, life: &Arc<Life>) -> MemSubscription {
        let (name, slot): (Arc<str>, _) = (topic.into(), life.slot);
        let member =
            Arc::new(Member { life: Arc::clone(life), held: Mutex::default(), assignments: AtomicU64::new(0) });
        let joining = (Arc::clone(&name), Arc::clone(&member));
        let arrived = {
            let mut topics = self.topics.lock().unwrap();
            let found = topics.entry(Arc::clone(&name)).or_default();
            found.group.was_read = true;
            Arc::clone(&found.arrived)
        };
        self.later(self.wait_between(50_000, 800_000), move |broker| {
            let (topic, member) = joining;
            if member.life.is_dead() {
                return;
            }
            {
                let mut topics = broker.topics.lock().unwrap();
                let group = &mut topics.get_mut(&topic).unwrap().group;
                // Under its own name it takes over what it had.
                for owner in &mut group.owners {
                    if let Some(former) = owner.take_if(|owner| owner.member.life.slot == slot) {
                        former.is_owner.store(false, Ordering::Relaxed);
                    }
                }
                group.members.insert(slot, member);
            }
            broker.rebalance(&topic, false);
        });
        MemSubscription { broker: Arc::clone(self), topic: name, arrived, member }
    }

    /// Everybody's partitions change hands.
    pub(crate) fn shuffle(self: &Arc<Self>) {
        let names: Vec<Arc<str>> = self.topics.lock().unwrap().keys().cloned().collect();
        for name in names {
            let moves = self.topics.lock().unwrap()[&name].group.members.len() > 1;
            if moves {
                self.strikes.hit(Fault::Rebalance);
                self.rebalance(&name, true);
            }
        }
    }

    /// A process has died or stands still: it is put out of its groups unless it is heard of again.
    pub(crate) fn is_silent(self: &Arc<Self>, life: &Arc<Life>) {
        let life = Arc::clone(life);
        self.later(SESSION, move |broker| {
            if !life.is_dead() && !life.stands_still() {
                return;
            }
            for topic in broker.leave(&life) {
                // Who is dead was not put out: nobody is left who could believe that he is still in.
                if !life.is_dead() {
                    broker.strikes.hit(Fault::Eviction);
                }
                broker.rebalance(&topic, false);
            }
            if let Some(until) = life.stands_until().filter(|_| !life.is_dead()) {
                let finds_out = until - tokio::time::Instant::now() + broker.wait_between(0, 500_000);
                broker.later(finds_out, move |broker| broker.comes_back(&life));
            }
        });
    }

    /// Takes a process out of every group; returns their topics.
    fn leave(&self, life: &Arc<Life>) -> Vec<Arc<str>> {
        let mut left = Vec::new();
        for (name, topic) in self.topics.lock().unwrap().iter_mut() {
            let group = &mut topic.group;
            if group.members.get(&life.slot).is_some_and(|member| Arc::ptr_eq(&member.life, life)) {
                group.put_out.extend(group.members.remove(&life.slot));
                left.push(Arc::clone(name));
            }
        }
        left
    }

    /// Whoever was put out while it stood still learns of it, and joins again.
    fn comes_back(self: &Arc<Self>, life: &Arc<Life>) {
        if life.is_dead() {
            return;
        }
        let names: Vec<Arc<str>> = self.topics.lock().unwrap().keys().cloned().collect();
        for name in names {
            let is_back = {
                let mut topics = self.topics.lock().unwrap();
                topics.get_mut(&name).unwrap().group.readmit(life)
            };
            if is_back {
                self.rebalance(&name, false);
            }
        }
    }

    fn rebalance(self: &Arc<Self>, topic: &Arc<str>, moves: bool) {
        let mut topics = self.topics.lock().unwrap();
        let found = topics.get_mut(topic).unwrap();
        let targets = found.group.targets(moves);
        for (place, target) in targets.into_iter().enumerate() {
            let owner = &found.group.owners[place];
            if owner.as_ref().map(|owner| owner.member.life.slot) == target && owner.is_some() {
                continue;
            }
            if let Some(former) = found.group.owners[place].take() {
                found.partitions[place].committed = former.give_up(found.partitions[place].committed);
            }
            let Some(member) = target.and_then(|slot| found.group.members.get(&slot)) else { continue };
            let base = found.partitions[place].committed;
            let assignment = Arc::new(MemAssignment {
                broker: Arc::clone(self),
                topic: Arc::clone(topic),
                place,
                member: Arc::clone(member),
                is_live: AtomicBool::new(true),
                is_owner: AtomicBool::new(true),
                is_wanted: AtomicBool::new(true),
                reading: Mutex::new(Reading {
                    ledger: Ledger::new(i64::try_from(base).ok()),
                    next: base,
                    base,
                    committed_at: Duration::ZERO,
                }),
            });
            found.group.owners[place] = Some(Arc::clone(&assignment));
            let mut held = member.held.lock().unwrap();
            held.retain(|one| one.is_live.load(Ordering::Relaxed));
            held.push(assignment);
            drop(held);
            member.assignments.fetch_add(1, Ordering::Relaxed);
        }
        found.arrived.notify_waiters();
    }
}

#[derive(Debug)]
struct MemAssignment {
    broker: Arc<MemBroker>,
    topic: Arc<str>,
    place: usize,
    member: Arc<Member>,
    /// What its process believes.
    is_live: AtomicBool,
    /// What the broker knows.
    is_owner: AtomicBool,
    is_wanted: AtomicBool,
    reading: Mutex<Reading>,
}

#[derive(Debug)]
struct Reading {
    /// As the service's own consumer keeps it.
    ledger: Ledger,
    /// The next to hand out.
    next: usize,
    /// Where it began.
    base: usize,
    /// Since boot.
    committed_at: Duration,
}

impl MemAssignment {
    /// The partition goes to another; returns what is committed then. Who is there to be told commits
    /// what it has done; who is not, has lost that.
    fn give_up(self: &Arc<Self>, committed: usize) -> usize {
        self.is_owner.store(false, Ordering::Relaxed);
        let life = &self.member.life;
        if life.is_dead() {
            return committed;
        }
        if let Some(until) = life.stands_until().filter(|_| life.stands_still()) {
            let finds_out = until - tokio::time::Instant::now() + self.broker.wait_between(0, 500_000);
            let assignment = Arc::clone(self);
            self.broker.later(finds_out, move |_| assignment.is_live.store(false, Ordering::Relaxed));
            return committed;
        }
        self.is_live.store(false, Ordering::Relaxed);
        if self.broker.away_until().is_some() { committed } else { self.commits() }
    }

    /// The next to hand out, and the first that is not done.
    fn position(&self) -> (usize, usize) {
        let reading = self.reading.lock().unwrap();
        let position = reading.ledger.commit_position().and_then(|position| usize::try_from(position).ok());
        (reading.next, position.unwrap_or(reading.base))
    }

    /// What is committed now.
    fn commits(&self) -> usize {
        let (_, position) = self.position();
        self.broker.watch.committed(&self.topic, self.place, position);
        position
    }
}

impl Assignment for MemAssignment {
    fn is_live(&self) -> bool {
        self.is_live.load(Ordering::Relaxed)
    }

    fn done(&self, offset: i64) {
        let offset = usize::try_from(offset).unwrap();
        if !self.is_live() || self.member.life.is_dead() {
            return;
        }
        let mut topics = self.broker.topics.lock().unwrap();
        let partition = &mut topics.get_mut(&self.topic).unwrap().partitions[self.place];
        let (record, at) = &partition.records[offset];
        self.broker.watch.acknowledged(record, (self.place, offset), *at, self.broker.time.now());
        let now = self.broker.time.since_boot();
        let commits = {
            let mut reading = self.reading.lock().unwrap();
            reading.ledger.done(i64::try_from(offset).unwrap());
            let commits = now >= reading.committed_at + COMMIT_EVERY && self.broker.away_until().is_none();
            if commits {
                reading.committed_at = now;
            }
            commits
        };
        if commits && self.is_owner.load(Ordering::Relaxed) {
            partition.committed = self.commits();
        } else if commits {
            // Another has it: the broker refuses.
            self.broker.strikes.hit(Fault::StaleCommit);
        }
    }
}

/// What a process reads of a topic.
#[derive(Debug)]
pub(crate) struct MemSubscription {
    broker: Arc<MemBroker>,
    topic: Arc<str>,
    arrived: Arc<Notify>,
    member: Arc<Member>,
}

impl Drop for MemSubscription {
    fn drop(&mut self) {
        // They hold each other.
        let held = std::mem::take(&mut *self.member.held.lock().unwrap());
        if self.member.life.is_dead() {
            return;
        }
        for held in held {
            held.is_live.store(false, Ordering::Relaxed);
        }
        let mut topics = self.broker.topics.lock().unwrap();
        let Some(topic) = topics.get_mut(&self.topic) else { return };
        topic.group.put_out.retain(|member| !Arc::ptr_eq(member, &self.member));
        if topic.group.members.get(&self.member.life.slot).is_some_and(|member| Arc::ptr_eq(member, &self.member)) {
            topic.group.members.remove(&self.member.life.slot);
            let commits = |owner: &Arc<MemAssignment>| Arc::ptr_eq(&owner.member, &self.member);
            for place in 0..PARTITIONS {
                if let Some(owner) = topic.group.owners[place].take_if(|owner| commits(owner)) {
                    topic.partitions[place].committed = owner.commits();
                }
            }
            drop(topics);
            self.broker.rebalance(&self.topic, false);
        }
    }
}

#[async_trait]
impl Subscription for MemSubscription {
    async fn next(&mut self, max: usize) -> Result<Vec<InRecord>, Stopped> {
        loop {
            self.member.life.pass().await;
            let arrived = Arc::clone(&self.arrived);
            let arrived = arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            let found = self.fetch(max);
            if !found.is_empty() {
                return Ok(found);
            }
            arrived.await;
        }
    }

    fn want(&self, partition: i32, wanted: bool) {
        let held = self.member.held.lock().unwrap();
        for one in held.iter().filter(|one| one.is_live() && i32::try_from(one.place) == Ok(partition)) {
            one.is_wanted.store(wanted, Ordering::Relaxed);
        }
        if wanted {
            self.arrived.notify_waiters();
        }
    }

    fn assignments(&self) -> u64 {
        self.member.assignments.load(Ordering::Relaxed)
    }

    fn acted_on(&self) -> Vec<ActedOn> {
        let topics = self.broker.topics.lock().unwrap();
        let now = self.broker.time.now();
        let held = self.member.held.lock().unwrap();
        let mine = held.iter().filter(|one| one.is_live());
        mine.map(|one| {
            let oldest = topics[&self.topic].partitions[one.place].records.get(one.position().1);
            let age = oldest.map_or(Duration::ZERO, |(_, at)| (now - *at).to_std().unwrap_or_default());
            ActedOn { partition: i32::try_from(one.place).unwrap(), age }
        })
        .collect()
    }
}

impl MemSubscription {
    fn fetch(&self, max: usize) -> Vec<InRecord> {
        if self.broker.away_until().is_some() {
            return Vec::new();
        }
        let topics = self.broker.topics.lock().unwrap();
        let now = self.broker.time.now();
        let held = self.member.held.lock().unwrap();
        let mut found = Vec::new();
        // From the one that brought the fewest: none is starved.
        let is_read = |one: &&Arc<MemAssignment>| one.is_live() && one.is_wanted.load(Ordering::Relaxed);
        let mut mine: Vec<_> = held.iter().filter(is_read).collect();
        mine.sort_by_key(|one| one.position().0);
        for one in mine {
            let partition = &topics[&self.topic].partitions[one.place];
            if partition.silent_until.is_some_and(|until| until > now) {
                continue;
            }
            let mut reading = one.reading.lock().unwrap();
            let room = max - found.len();
            let fresh = partition.records.iter().enumerate().skip(reading.next).take(room);
            for (offset, (record, at)) in fresh {
                let offset = i64::try_from(offset).unwrap();
                reading.ledger.deliver(offset);
                found.push(InRecord {
                    topic: Arc::clone(&self.topic),
                    partition: i32::try_from(one.place).unwrap(),
                    offset,
                    timestamp: Some(*at),
                    key: record.key.clone(),
                    value: record.value.clone(),
                    headers: record.headers.clone(),
                    ack: Ack::new(Arc::<MemAssignment>::clone(one), offset),
                });
            }
            reading.next = partition.records.len().min(reading.next + room);
        }
        found
    }
}
