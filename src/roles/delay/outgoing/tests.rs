use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::*;
use crate::clock::SystemClock;
use crate::domain::Timestamp;
use crate::roles::delay::held::fixture::{Lasting, held, held_of};
use crate::roles::delayed::Waiting;

/// As long as a partition without a leader keeps a record.
const NO_ANSWER: Duration = Duration::from_secs(3);
const LETTERS: &str = "letters";
const WELL: &str = "due.well";
const ILL: &str = "due.ill";
const MOST: usize = 24_000;
const TICK: Duration = Duration::from_millis(10);

/// Some topics take nothing, and of all others one partition does not: that of the records with the key `ill`.
#[derive(Debug, Default)]
struct Broker {
    dead: Mutex<HashSet<&'static str>>,
    /// No broker answers.
    is_away: AtomicBool,
    /// The broker takes what it is given, and answers from then on only.
    stands_until: Mutex<Option<Instant>>,
    /// Of dead letters, the key and the words of the error.
    letters: Mutex<Vec<(Option<Bytes>, String)>>,
}

impl Broker {
    fn with_dead(dead: &[&'static str]) -> Arc<Self> {
        Arc::new(Self { dead: Mutex::new(dead.iter().copied().collect()), ..Self::default() })
    }

    fn is_ill(&self, record: &OutRecord) -> bool {
        let is_key_ill = &*record.topic != LETTERS && record.key.as_deref() == Some(b"ill");
        self.is_away.load(Ordering::Relaxed) || is_key_ill || self.dead.lock().unwrap().contains(&*record.topic)
    }
}

#[async_trait]
impl Publisher for Broker {
    async fn publish(&self, batch: &[OutRecord]) -> Vec<Result<(), PublishError>> {
        let stands = self.stands_until.lock().unwrap().map(|until| until.saturating_duration_since(Instant::now()));
        if let Some(stands) = stands.filter(|stands| !stands.is_zero()) {
            tokio::time::sleep(stands.min(NO_ANSWER)).await;
            if stands > NO_ANSWER {
                return vec![Err(PublishError::Unacknowledged("timed out".into())); batch.len()];
            }
        }
        let takes = if batch.iter().any(|record| self.is_ill(record)) { NO_ANSWER } else { Duration::from_millis(3) };
        tokio::time::sleep(takes).await;
        let answer = |record: &OutRecord| match &*record.topic {
            "due.none" => Err(PublishError::NoSuchTopic("the broker's words".into())),
            _ if self.is_ill(record) => Err(PublishError::Unacknowledged("no leader".into())),
            LETTERS => {
                let error = record.headers.iter().rev().find(|(name, _)| name.as_ref() == b"error").unwrap();
                let error = String::from_utf8(error.1.as_ref().unwrap().to_vec()).unwrap();
                self.letters.lock().unwrap().push((record.key.clone(), error));
                Ok(())
            }
            _ => Ok(()),
        };
        batch.iter().map(answer).collect()
    }
}

fn outgoing(broker: &Arc<Broker>) -> Outgoing {
    Outgoing::new(Arc::<Broker>::clone(broker), Arc::new(SystemClock::new()), Arc::from(LETTERS), MOST)
}

fn parcel(topic: &str, key: &'static str) -> Parcel {
    let partition = i32::from(key == "ill");
    let mut held = held(partition, Timestamp::UNIX_EPOCH);
    held.record.key = Some(Bytes::from_static(key.as_bytes()));
    let target = Arc::from(topic);
    held.waiting = Waiting { target, ..held.waiting };
    Parcel::new(held, None)
}

/// What came of a record: where it was to go, its key, whether it became a dead letter, and when.
#[derive(Debug)]
struct Came {
    topic: Arc<str>,
    key: Bytes,
    reason: Option<&'static str>,
    at: Instant,
}

impl Came {
    fn of(done: Done) -> Self {
        let at = Instant::now();
        match done {
            Done::Forwarded { held, .. } => {
                Self { topic: held.waiting.target, key: held.record.key.unwrap(), reason: None, at }
            }
            Done::Buried(letter) => Self {
                topic: Waiting::read(letter.record(), Timestamp::UNIX_EPOCH).map_or(Arc::from("?"), |w| w.target),
                key: letter.record().key.clone().unwrap(),
                reason: Some(letter.reason().as_str()),
                at,
            },
        }
    }

    fn is_buried(&self) -> bool {
        self.reason.is_some()
    }
}

/// Runs for `time`; every tick `arrive` says what comes due, which has to wait while the hands are full.
async fn run(
    outgoing: &mut Outgoing,
    time: Duration,
    mut arrive: impl FnMut(usize) -> Vec<Parcel>,
) -> (Vec<Came>, usize) {
    let (began, mut done, mut tick, mut fullest) = (Instant::now(), Vec::new(), 0, 0);
    let (mut next, mut waiting) = (began, Vec::new());
    while began.elapsed() < time {
        if Instant::now() >= next {
            waiting.extend(arrive(tick));
            (tick, next) = (tick + 1, next + TICK);
        }
        let room = MOST.saturating_sub(outgoing.len()).min(waiting.len());
        waiting.drain(..room).for_each(|parcel| outgoing.add(parcel));
        let again = outgoing.start();
        fullest = fullest.max(outgoing.len());
        let wake = again.map_or(next, |again| again.min(next)).max(Instant::now());
        tokio::select! {
            ended = outgoing.ended() => done.extend(outgoing.take(ended.unwrap()).into_iter().map(Came::of)),
            () = tokio::time::sleep_until(wake) => {}
        }
    }
    (done, fullest)
}

/// The longest time in which nothing of a topic came through.
fn longest_gap(done: &[Came], topic: &str) -> Duration {
    let came: Vec<Instant> = done.iter().filter(|one| &*one.topic == topic && !one.is_buried()).map(|o| o.at).collect();
    came.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap()
}

fn many(topic: &str, key: &'static str, count: usize) -> Vec<Parcel> {
    (0..count).map(|_| parcel(topic, key)).collect()
}

#[tokio::test(start_paused = true)]
async fn what_one_ill_partition_does_not_take_is_given_up_and_delays_the_others_little() {
    let broker = Broker::with_dead(&[]);
    let mut outgoing = outgoing(&broker);
    // Fifty a second, of which one goes to the ill one.
    let arrive = |tick: usize| match tick % 100 {
        14 => many(WELL, "ill", 1),
        even if even % 2 == 0 => many(WELL, "well", 1),
        _ => Vec::new(),
    };
    let (done, fullest) = run(&mut outgoing, Duration::from_secs(120), arrive).await;
    let buried = done.iter().filter(|one| one.is_buried());
    assert!(buried.clone().all(|one| one.key == "ill"));
    // Each is tried for up to 25 s.
    let given_up = buried.count();
    assert!((80..=120).contains(&given_up), "{given_up} of 120 were given up");
    assert!(done.len() - given_up > 5_600, "only {} of 5880", done.len() - given_up);
    let longest = longest_gap(&done, WELL);
    assert!(longest < Duration::from_millis(150), "nothing came through for {longest:?}");
    assert!(fullest < 300, "{fullest} waited");
}

#[tokio::test(start_paused = true)]
async fn under_load_an_ill_partition_delays_no_other_of_its_topic() {
    let broker = Broker::with_dead(&[]);
    let mut outgoing = outgoing(&broker);
    // 4,000 a second, of which 400 go to the ill one.
    let arrive = |_| [many(WELL, "ill", 4), many(WELL, "well", 36)].concat_all();
    let (done, fullest) = run(&mut outgoing, Duration::from_secs(20), arrive).await;
    assert!(done.iter().filter(|one| one.is_buried()).all(|one| one.key == "ill"));
    let well = done.iter().filter(|one| one.key == "well").count();
    // All but what was under way when the illness was not known yet.
    assert!(well > 71_000, "only {well} of 72000");
    let late: Vec<&Came> = done.iter().filter(|one| one.key == "well").skip(5_000).collect();
    let longest = late.windows(2).map(|pair| pair[1].at - pair[0].at).max().unwrap();
    assert!(longest < Duration::from_millis(150), "nothing came through for {longest:?}");
    assert!(fullest < MOST, "the hands were full");
}

#[tokio::test(start_paused = true)]
async fn a_dead_topic_under_load_never_takes_the_room_of_others() {
    for per_tick in [15, 100] {
        let broker = Broker::with_dead(&[ILL]);
        let mut outgoing = outgoing(&broker);
        // 1,500 and 10,000 a second for the one that takes nothing, 500 for the other.
        let arrive = |_| [many(ILL, "any", per_tick), many(WELL, "any", 5)].concat_all();
        let (done, fullest) = run(&mut outgoing, Duration::from_secs(30), arrive).await;
        // At the higher rate the hands are full once, before it is known that nobody answers.
        let allowed = Duration::from_millis(if per_tick == 15 { 50 } else { 4_000 });
        let longest = longest_gap(&done, WELL);
        assert!(longest < allowed, "at {per_tick}: nothing came through for {longest:?}");
        let settled: Vec<&Came> = done.iter().skip_while(|one| one.at < done[0].at + 2 * NO_ANSWER).collect();
        let settled = settled.iter().filter(|one| &*one.topic == WELL).collect::<Vec<_>>();
        let longest = settled.windows(2).map(|pair| pair[1].at - pair[0].at).max().unwrap();
        assert!(longest < Duration::from_millis(50), "at {per_tick}: nothing came through for {longest:?}");
        if per_tick == 15 {
            assert!(fullest < MOST / 2 + 2_000, "{fullest} waited");
        }
        let held = outgoing.destinations[ILL].len();
        assert!(held <= MOST / 2, "{held} wait for it");
        let buried = done.iter().filter(|one| one.is_buried()).count();
        assert!(buried > 30 * 90 * per_tick - MOST, "only {buried} were given up");
    }
}

#[tokio::test(start_paused = true)]
async fn two_dead_topics_leave_half_of_the_room_to_others() {
    let broker = Broker::with_dead(&[ILL, "due.ill-too"]);
    let mut outgoing = outgoing(&broker);
    let arrive = |_| [many(ILL, "any", 60), many("due.ill-too", "any", 60), many(WELL, "any", 5)].concat_all();
    let (done, _) = run(&mut outgoing, Duration::from_secs(25), arrive).await;
    let held: usize = [ILL, "due.ill-too"].map(|name| outgoing.destinations[name].len()).into_iter().sum();
    assert!(held <= MOST / 2, "{held} wait for them");
    let well = done.iter().filter(|one| &*one.topic == WELL);
    let settled: Vec<&Came> = well.skip_while(|one| one.at < done[0].at + 4 * NO_ANSWER).collect();
    let longest = settled.windows(2).map(|pair| pair[1].at - pair[0].at).max().unwrap();
    assert!(longest < Duration::from_millis(50), "nothing came through for {longest:?}");
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_topic_does_not_take_is_given_up_after_a_few_tries_in_the_broker_s_words() {
    let broker = Broker::with_dead(&[ILL]);
    let mut outgoing = outgoing(&broker);
    let began = Instant::now();
    let arrive = |tick| if tick == 0 { many(ILL, "any", 300) } else { Vec::new() };
    let (done, _) = run(&mut outgoing, Duration::from_secs(60), arrive).await;
    assert_eq!((done.len(), outgoing.len(), outgoing.bytes()), (300, 0, 0));
    // Six tries, and the pauses between them.
    for one in &done {
        let after = one.at - began;
        assert!(after > NO_ANSWER * 6 && after < NO_ANSWER * 7, "{after:?}");
        assert_eq!(one.reason, Some("undeliverable"));
    }
    let letters = broker.letters.lock().unwrap();
    assert!(letters.iter().all(|(_, error)| error.contains("no leader") && error.contains(ILL)), "{:?}", letters[0]);
}

#[tokio::test(start_paused = true)]
async fn any_number_of_topics_that_do_not_exist_are_forgotten_and_told_apart() {
    let broker = Broker::with_dead(&[]);
    let mut outgoing = outgoing(&broker);
    let arrive = |tick| match tick {
        0..100 => vec![parcel(&format!("due.{tick}"), "any"), parcel("due.none", "any")],
        _ => Vec::new(),
    };
    let (done, _) = run(&mut outgoing, Duration::from_secs(30), arrive).await;
    let told = done.iter().filter(|one| one.reason == Some("unknown_target")).count();
    assert_eq!((done.len(), told), (200, 100));
    assert!(
        broker.letters.lock().unwrap().iter().all(|(_, error)| error.ends_with("no such topic: the broker's words"))
    );
    outgoing.add(parcel(WELL, "any"));
    outgoing.start();
    let sent = outgoing.ended().await.unwrap();
    outgoing.take(sent);
    assert_eq!(outgoing.destinations.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_all_brokers_costs_no_record_its_tries() {
    let broker = Broker::with_dead(&[]);
    let mut outgoing = outgoing(&broker);
    // More than the share of one topic, from the beginning of the outage on.
    broker.is_away.store(true, Ordering::Relaxed);
    let arrive = |tick| if tick < 800 { many(WELL, "any", 25) } else { Vec::new() };
    let (done, _) = run(&mut outgoing, Duration::from_secs(95), arrive).await;
    assert_eq!((done.len(), outgoing.len()), (0, 20_000));
    broker.is_away.store(false, Ordering::Relaxed);
    // One partition takes a moment longer.
    broker.dead.lock().unwrap().insert(WELL);
    run(&mut outgoing, Duration::from_secs(2), |_| Vec::new()).await;
    broker.dead.lock().unwrap().clear();
    let (done, _) = run(&mut outgoing, Duration::from_secs(60), |_| Vec::new()).await;
    let buried = broker.letters.lock().unwrap().len();
    // The one that asked how the broker is.
    assert!(buried <= 1, "{buried} were given up");
    assert_eq!((done.len(), outgoing.len(), outgoing.bytes()), (20_000, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_stands_still_for_some_seconds_costs_no_record_its_way() {
    // Under load, with one topic and with two, for longer than a record waits for its answer, and than all its tries.
    for (seconds, per_tick) in [(2, 50), (5, 100), (6, 10), (16, 50), (25, 50)] {
        for topics in [vec![WELL], vec![WELL, "due.too"]] {
            let broker = Broker::with_dead(&[]);
            let mut outgoing = outgoing(&broker);
            let stands = Arc::clone(&broker);
            let arrive = |tick: usize| {
                if tick == 300 {
                    *stands.stands_until.lock().unwrap() = Some(Instant::now() + Duration::from_secs(seconds));
                }
                let due = if tick < 1_000 { per_tick } else { 0 };
                topics.iter().flat_map(|topic| many(topic, "any", due)).collect()
            };
            let (done, _) = run(&mut outgoing, Duration::from_secs(90), arrive).await;
            let buried = done.iter().filter(|one| one.is_buried()).count();
            // The one that asked how the broker is.
            assert!(buried <= 1, "{seconds} s, {per_tick} and {} topics: {buried} were given up", topics.len());
            assert_eq!((done.len(), outgoing.len()), (1_000 * per_tick * topics.len(), 0));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_topic_does_not_take_comes_to_the_dead_letters_once_these_can_be_written() {
    let broker = Broker::with_dead(&[ILL, LETTERS]);
    let mut outgoing = outgoing(&broker);
    let arrive = |tick| if tick == 0 { many(ILL, "any", 300) } else { Vec::new() };
    let (done, _) = run(&mut outgoing, Duration::from_secs(60), arrive).await;
    assert_eq!((done.len(), outgoing.len()), (0, 300));
    broker.dead.lock().unwrap().remove(LETTERS);
    let (done, _) = run(&mut outgoing, Duration::from_secs(60), |_| Vec::new()).await;
    assert_eq!((done.len(), outgoing.len()), (300, 0));
}

#[tokio::test(start_paused = true)]
async fn what_was_revoked_is_neither_tried_again_nor_given_up() {
    let broker = Broker::with_dead(&[ILL]);
    let (mut outgoing, assignment) = (outgoing(&broker), Arc::new(Lasting::default()));
    let parcels = || {
        let mut held = held_of(&assignment, 0, Timestamp::UNIX_EPOCH);
        held.waiting.target = Arc::from(ILL);
        Parcel::new(held, None)
    };
    (0..300).for_each(|_| outgoing.add(parcels()));
    let under_way = run(&mut outgoing, NO_ANSWER * 2, |_| Vec::new()).await;
    assert!(under_way.0.is_empty());
    assignment.is_over.store(true, Ordering::Relaxed);
    outgoing.drop_revoked();
    let (done, _) = run(&mut outgoing, Duration::from_secs(60), |_| Vec::new()).await;
    assert!(done.is_empty() && broker.letters.lock().unwrap().is_empty());
    assert_eq!((outgoing.len(), outgoing.bytes()), (0, 0));
}

/// `concat` wants clones.
trait ConcatAll {
    fn concat_all(self) -> Vec<Parcel>;
}

impl<const N: usize> ConcatAll for [Vec<Parcel>; N] {
    fn concat_all(self) -> Vec<Parcel> {
        self.into_iter().flatten().collect()
    }
}
