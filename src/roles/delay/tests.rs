//! The role at a broker in memory, on a clock that stands still while nothing waits.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::*;
use crate::metrics::DelayMetrics;
use crate::ports::{Ack, ActedOn, OutRecord, PublishError};
use crate::roles::dead_letter::DeadLetter;
use held::fixture::Lasting;

const TARGET: &str = "requests.lane.due";
const LETTERS: &str = "letters";
const MOST: usize = 64;

/// Since a moment, by tokio's clock.
#[derive(Debug)]
struct Time(Instant);

impl Clock for Time {
    fn now(&self) -> Timestamp {
        Timestamp::from_timestamp(1_790_000_000, 0).unwrap() + self.0.elapsed()
    }

    fn since_boot(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Records of a topic, with their timestamps.
type Written = Vec<(OutRecord, Timestamp)>;

/// Topics of one partition each, and what the timestamps of records differ by from the time.
#[derive(Debug)]
struct World {
    time: Arc<Time>,
    topics: Mutex<HashMap<Arc<str>, Written>>,
    written: Notify,
    running: Mutex<JoinSet<Result<(), RoleError>>>,
    skew_ms: AtomicI64,
    takes_no_letters: AtomicBool,
}

impl World {
    fn new(skew_ms: i64) -> Arc<Self> {
        Arc::new(Self {
            time: Arc::new(Time(Instant::now())),
            topics: Mutex::default(),
            written: Notify::new(),
            running: Mutex::default(),
            skew_ms: AtomicI64::new(skew_ms),
            takes_no_letters: AtomicBool::new(false),
        })
    }

    fn now(&self) -> Timestamp {
        self.time.now()
    }

    fn count(&self, topic: &str) -> usize {
        self.topics.lock().unwrap().get(topic).map_or(0, Vec::len)
    }

    fn write(&self, record: OutRecord) {
        let at = self.now() + chrono::TimeDelta::milliseconds(self.skew_ms.load(Ordering::Relaxed));
        self.topics.lock().unwrap().entry(Arc::clone(&record.topic)).or_default().push((record, at));
        self.written.notify_waiters();
    }

    /// What a topic has once there are so many.
    async fn wait_for(&self, topic: &str, count: usize) -> Vec<OutRecord> {
        loop {
            let written = self.written.notified();
            if self.count(topic) >= count {
                break;
            }
            written.await;
        }
        self.topics.lock().unwrap()[topic].iter().map(|(record, _)| record.clone()).collect()
    }

    /// Starts a forwarder for each tier.
    fn start(self: &Arc<Self>, seconds: &[u64]) -> Vec<Reading> {
        let tiers: Vec<Duration> = seconds.iter().copied().map(Duration::from_secs).collect();
        let topic = |tier: Duration| Arc::<str>::from(format!("delay.{}", tier.as_secs()));
        let named = DelayTiers::new(tiers.iter().map(|tier| (*tier, topic(*tier))));
        let start = |tier: Duration| {
            let role = Delay {
                publisher: Arc::<Self>::clone(self),
                clock: Arc::<Time>::clone(&self.time),
                rules: DelayRules {
                    tier,
                    tiers: named.clone(),
                    targets: HashSet::new(),
                    lanes: "requests.".into(),
                    dead_letters: LETTERS.into(),
                    read_ahead: MOST,
                },
                metrics: DelayMetrics::new("1s"),
            };
            let reading = Reading {
                world: Arc::clone(self),
                topic: topic(tier),
                next: Arc::default(),
                assignment: Arc::default(),
                revocations: Arc::new(watch::Sender::new(0)),
                is_gone: Arc::default(),
            };
            self.running.lock().unwrap().spawn(role.run(Box::new(reading.clone()), StopSignals::default()));
            reading
        };
        tiers.into_iter().map(start).collect()
    }

    /// They would look around for ever.
    fn stop(&self) {
        self.running.lock().unwrap().abort_all();
    }

    fn tiers(seconds: &[u64]) -> DelayTiers {
        let topic = |second: u64| Arc::<str>::from(format!("delay.{second}"));
        DelayTiers::new(seconds.iter().map(|second| (Duration::from_secs(*second), topic(*second))))
    }
}

#[async_trait]
impl Publisher for World {
    async fn publish(&self, batch: &[OutRecord]) -> Vec<Result<(), PublishError>> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let write = |record: &OutRecord| {
            if &*record.topic == LETTERS && self.takes_no_letters.load(Ordering::Relaxed) {
                return Err(PublishError::Unacknowledged("no leader".into()));
            }
            self.write(record.clone());
            Ok(())
        };
        batch.iter().map(write).collect()
    }
}

#[derive(Debug, Clone)]
struct Reading {
    world: Arc<World>,
    topic: Arc<str>,
    next: Arc<AtomicUsize>,
    assignment: Arc<Lasting>,
    revocations: Arc<watch::Sender<u64>>,
    is_gone: Arc<AtomicBool>,
}

#[async_trait]
impl Subscription for Reading {
    async fn next(&mut self, max: usize) -> Result<Vec<InRecord>, Stopped> {
        loop {
            let written = self.world.written.notified();
            if self.is_gone.load(Ordering::Relaxed) {
                return Err(Stopped::Gone);
            }
            let found: Vec<InRecord> = {
                let topics = self.world.topics.lock().unwrap();
                let next = self.next.load(Ordering::Relaxed);
                let records = topics.get(&self.topic).into_iter().flatten().enumerate().skip(next).take(max);
                let record = |(offset, (record, at)): (usize, &(OutRecord, Timestamp))| InRecord {
                    topic: Arc::clone(&self.topic),
                    partition: 0,
                    offset: i64::try_from(offset).unwrap(),
                    timestamp: Some(*at),
                    key: record.key.clone(),
                    value: record.value.clone(),
                    headers: record.headers.clone(),
                    ack: Ack::new(Arc::<Lasting>::clone(&self.assignment), 0),
                };
                records.map(record).collect()
            };
            if !found.is_empty() {
                self.next.fetch_add(found.len(), Ordering::Relaxed);
                return Ok(found);
            }
            written.await;
        }
    }

    fn want(&self, _partition: i32, _wanted: bool) {}

    fn revocations(&self) -> watch::Receiver<u64> {
        self.revocations.subscribe()
    }

    fn assignments(&self) -> u64 {
        0
    }

    fn acted_on(&self) -> Vec<ActedOn> {
        Vec::new()
    }
}

fn record(topic: &str, value: String) -> OutRecord {
    OutRecord { topic: topic.into(), key: None, value: Some(Bytes::from(value)), headers: Vec::new() }
}

fn header(name: &'static [u8], value: impl Into<Vec<u8>>) -> (Bytes, Option<Bytes>) {
    (Bytes::from_static(name), Some(Bytes::from(value.into())))
}

/// In a tier by hand, without the time at which it entered it.
fn by_hand(world: &World, tier: &str, after: Duration) -> OutRecord {
    let due_ms = (world.now() + after).timestamp_millis();
    let headers = vec![header(b"due-at", due_ms.to_string()), header(b"target-topic", TARGET)];
    OutRecord { headers, ..record(tier, due_ms.to_string()) }
}

const HOUR: u64 = 3_600;
const TIERS: [u64; 7] = [1, 5, 15, 30, 60, 300, 1_800];
const SKEWS: [i64; 6] = [0, -999, 5_000, -2 * 3_600_000, 2 * 3_600_000, -8 * 86_400_000];

/// Puts off a record for so long, and returns the hops that it took.
async fn hops_of(tiers: &[u64], after: Duration, skew_ms: i64) -> usize {
    let world = World::new(skew_ms);
    let _reading = world.start(tiers);
    let due_at = world.now() + after;
    world.write(World::tiers(tiers).put_off(record(TARGET, "v".to_owned()), due_at, world.now()));
    let came = world.wait_for(TARGET, 1).await;
    let late = world.now() - due_at;
    // Waiting and writing take a millisecond each, a due time is one in whole milliseconds.
    let is_own_wait = after < Duration::from_millis(950);
    assert!(is_own_wait || late >= chrono::TimeDelta::zero(), "{after:?} at {skew_ms}: early by {late}");
    assert!(late < chrono::TimeDelta::milliseconds(20), "{after:?} at {skew_ms}: late by {late}");
    world.stop();
    assert_eq!(came, [record(TARGET, "v".to_owned())], "with nothing of ours");
    tiers.iter().map(|tier| world.count(&format!("delay.{tier}"))).sum()
}

#[tokio::test(start_paused = true)]
async fn whatever_the_delay_and_the_timestamps_a_record_comes_in_time_after_few_hops() {
    // In milliseconds, with the hops that it takes.
    let delays = [(1, 0), (960, 1), (1_000, 1), (1_700, 1), (4_000, 4), (61_000, 2), (200_123, 9), (7_200_000, 4)];
    for (millis, expected) in delays {
        for skew in SKEWS {
            let hops = hops_of(&TIERS, Duration::from_millis(millis), skew).await;
            assert!(hops <= expected + 1, "{hops} hops for {millis} ms at {skew}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_week_is_waited_out_in_seven_hops_of_a_day_whatever_the_timestamps() {
    // By the timestamps it has left every tier that it enters.
    assert_eq!(hops_of(&[24 * HOUR], Duration::from_hours(7 * 24), -8 * 86_400_000).await, 7);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_was_put_into_a_tier_by_hand_makes_one_hop_more_at_most() {
    for skew in SKEWS {
        let world = World::new(skew);
        let _reading = world.start(&TIERS);
        let after = Duration::from_hours(2);
        world.write(by_hand(&world, "delay.1800", after));
        let due_at = world.now() + after;
        world.wait_for(TARGET, 1).await;
        let late = world.now() - due_at;
        assert!(late >= chrono::TimeDelta::zero() && late < chrono::TimeDelta::milliseconds(20), "{late} at {skew}");
        world.stop();
        let hops: usize = TIERS.map(|tier| world.count(&format!("delay.{tier}"))).into_iter().sum();
        assert!(hops <= 6, "{hops} hops at {skew}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_meant_or_not_be_forwarded_as_it_is_becomes_a_dead_letter_with_all_that_can_be_read() {
    let world = World::new(0);
    let reading = world.start(&[1]);
    let now = world.now();
    let with = |name: &'static [u8], value: &str| {
        let mut record = by_hand(&world, "delay.1", Duration::from_secs(1));
        record.headers.insert(0, header(b"kept", b"\xfe".to_vec()));
        record.headers.push(header(name, value));
        record
    };
    let in_days = |days: i64| (now + chrono::TimeDelta::days(days)).timestamp_millis().to_string();
    let bad = [
        ("bad_headers", with(b"\xff", "lost")),
        ("bad_due_time", with(b"due-at", "0")),
        ("bad_due_time", with(b"due-at", "-1")),
        ("bad_due_time", with(b"due-at", &now.timestamp().to_string())),
        ("bad_due_time", with(b"due-at", &in_days(-31))),
        ("bad_due_time", with(b"due-at", &in_days(8))),
        ("unknown_target", with(b"target-topic", "orders")),
    ];
    let count = bad.len();
    for (_, record) in &bad {
        world.write(record.clone());
    }
    world.write(with(b"due-at", &in_days(-29)));
    world.wait_for(TARGET, 1).await;
    let letters = world.wait_for(LETTERS, count).await;
    for ((reason, record), letter) in bad.iter().zip(&letters) {
        let ack = Ack::new(Arc::<Lasting>::default(), 0);
        let (topic, headers) = (Arc::from(LETTERS), letter.headers.clone());
        let letter = InRecord { topic, partition: 0, offset: 0, timestamp: None, key: None, value: None, headers, ack };
        let read = DeadLetter::read(&letter).unwrap();
        assert_eq!((read.reason.as_str(), &read.headers), (*reason, &record.headers));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(reading[0].assignment.done.load(Ordering::Relaxed), count + 1);
}

#[tokio::test(start_paused = true)]
async fn poison_that_cannot_be_written_fills_the_hands_and_is_read_no_further() {
    let world = World::new(0);
    world.takes_no_letters.store(true, Ordering::Relaxed);
    let reading = world.start(&[1]);
    (0..10 * MOST).for_each(|_| world.write(record("delay.1", "poison".to_owned())));
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(reading[0].next.load(Ordering::Relaxed), MOST);
    assert_eq!(reading[0].assignment.done.load(Ordering::Relaxed), 0);
    world.takes_no_letters.store(false, Ordering::Relaxed);
    assert_eq!(world.wait_for(LETTERS, 10 * MOST).await.len(), 10 * MOST);
}

#[tokio::test(start_paused = true)]
async fn a_few_large_records_fill_the_hands() {
    let world = World::new(0);
    let large = || OutRecord {
        value: Some(Bytes::from(vec![0; BYTES_MAX / 4])),
        ..by_hand(&world, "delay.60", Duration::from_mins(1))
    };
    (0..3 * MOST).for_each(|_| world.write(by_hand(&world, "delay.60", Duration::from_secs(59))));
    let reading = world.start(&[60]);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(reading[0].next.load(Ordering::Relaxed), MOST);
    let few = World::new(0);
    let reading = few.start(&[60]);
    for count in 1..=6 {
        few.write(OutRecord { headers: by_hand(&few, "delay.60", Duration::from_mins(1)).headers, ..large() });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(reading[0].next.load(Ordering::Relaxed), count.min(4));
    }
    assert_eq!(few.wait_for(TARGET, 6).await.len(), 6);
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_away_is_let_go_of_at_once() {
    let world = World::new(0);
    let reading = world.start(&[60]);
    (0..10).for_each(|_| world.write(by_hand(&world, "delay.60", Duration::from_mins(1))));
    let held = || Arc::strong_count(&reading[0].assignment) - 2;
    while held() < 10 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    reading[0].assignment.is_over.store(true, Ordering::Relaxed);
    reading[0].revocations.send_modify(|count| *count += 1);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(held(), 0, "whoever gives it back would wait for it");
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!(world.count(TARGET), 0, "its next holder has it");
}

#[tokio::test(start_paused = true)]
async fn a_forwarder_whose_topic_is_gone_rests_until_the_process_ends() {
    let world = World::new(0);
    let stop = StopSignals::default();
    let reading = world.start(&[60]).remove(0);
    let role = Delay {
        publisher: Arc::<World>::clone(&world),
        clock: Arc::<Time>::clone(&world.time),
        rules: DelayRules {
            tier: Duration::from_mins(1),
            tiers: World::tiers(&[60]),
            targets: HashSet::new(),
            lanes: "requests.".into(),
            dead_letters: LETTERS.into(),
            read_ahead: MOST,
        },
        metrics: DelayMetrics::new("1s"),
    };
    reading.is_gone.store(true, Ordering::Relaxed);
    let running = tokio::spawn(role.run(Box::new(reading), stop.clone()));
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(!running.is_finished());
    stop.drain.cancel();
    running.await.unwrap().unwrap();
}
