use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::domain::inbound::Unfit;
use crate::domain::msisdn::PhoneKey;
use crate::domain::plus;
use crate::ports::{Ack, Assignment, Store};
use crate::roles::dead_letter::{self, Header};
use crate::roles::delayed::Waiting;
use crate::store::{StoreOptions, open};

#[derive(Debug)]
struct Nobodys;

impl Assignment for Nobodys {
    fn is_live(&self) -> bool {
        true
    }
    fn done(&self, _offset: i64) {}
}

/// A broker that answers as it is told.
#[derive(Debug, Default)]
struct Broker {
    taken: Mutex<Vec<OutRecord>>,
    trouble: Mutex<Option<PublishError>>,
}

#[async_trait]
impl Publisher for Broker {
    async fn publish(&self, batch: &[OutRecord]) -> Vec<Result<(), PublishError>> {
        let trouble = self.trouble.lock().unwrap().clone();
        self.taken.lock().unwrap().extend_from_slice(batch);
        batch.iter().map(|_| trouble.clone().map_or(Ok(()), Err)).collect()
    }
}

struct Scene {
    store: Arc<dyn Store>,
    broker: Arc<Broker>,
    now: Timestamp,
}

impl Scene {
    async fn set() -> Self {
        let store = open("sqlite::memory:", &StoreOptions::default()).await.unwrap();
        let now = store.now().await.unwrap();
        Self { store, broker: Arc::default(), now }
    }

    fn run(&self) -> Replay {
        Replay {
            marks: self.store.clone(),
            orders: self.store.clone(),
            publisher: self.broker.clone(),
            readers: readers(),
            run: Uuid::new_v4(),
            by: "a tester".to_owned(),
            dry_run: false,
        }
    }

    /// What becomes of one letter in a run of its own.
    async fn replay(&self, found: &Found) -> Outcome {
        self.run().take(vec![found.clone()]).await.unwrap().remove(0).outcome
    }

    fn sent(&self) -> Vec<OutRecord> {
        std::mem::take(&mut self.broker.taken.lock().unwrap())
    }

    async fn mark(&self, found: &Found) -> Option<LetterMark> {
        self.store.letter_marks(std::slice::from_ref(&found.key)).await.unwrap().remove(0)
    }

    fn order(&self, id: &str, changes: &Value) -> Value {
        let at = self.now.to_rfc3339();
        let mut order = json!({ "order_id": id, "phone": "+8613800000001", "amount_minor": 5_000, "currency": "CNY",
            "created_at": at, "paid_at": at });
        order.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        order
    }

    fn command(&self, id: &str) -> Value {
        let deadline = plus(self.now, Duration::from_secs(60)).timestamp_millis();
        json!({ "kind": "query", "order_id": id, "attempt": 1, "version": 2, "deadline_at": deadline })
    }
}

fn topic(name: &str) -> Arc<str> {
    Arc::from(format!("recharge.{name}"))
}

fn readers() -> Readers {
    Readers {
        orders: topic("orders"),
        lifecycle: topic("lifecycle"),
        timers: topic("timers"),
        lanes: HashSet::from([topic("requests.main"), topic("requests.main.due")]),
        lanes_begin: topic("requests."),
        tiers: HashSet::from([topic("delay.5s")]),
        phone_key: PhoneKey::new(b"a key for tests only").unwrap(),
        retention: Duration::from_hours(24 * 90),
        sla: Duration::from_mins(3),
        unpaid_timeout: Duration::from_mins(30),
    }
}

fn binary(kind: &str) -> Vec<Header> {
    let header = |name: &'static str, value: &str| {
        (Bytes::from_static(name.as_bytes()), Some(Bytes::copy_from_slice(value.as_bytes())))
    };
    vec![header("ce_specversion", "1.0"), header("ce_id", "e"), header("ce_type", kind)]
}

/// A record that stood in a topic.
fn stood(name: &str, offset: i64, value: &Value, headers: Vec<Header>) -> InRecord {
    InRecord {
        topic: topic(name),
        partition: 1,
        offset,
        timestamp: Timestamp::from_timestamp_millis(1_790_000_000_000),
        key: Some(Bytes::from_static(b"k\xff")),
        value: Some(Bytes::from(value.to_string())),
        headers,
        ack: Ack::new(Arc::new(Nobodys), offset),
    }
}

/// Its dead letter.
fn letter(record: &InRecord, reason: DeadLetterReason) -> Found {
    let out =
        dead_letter::record(&topic("dead-letters"), record, &Unfit::new(reason, "as it was"), Timestamp::UNIX_EPOCH);
    let (topic, partition, offset, headers) = (out.topic, 0, 100 + record.offset, out.headers);
    Found::of(InRecord { topic, partition, offset, headers, ..record.clone() })
}

fn wrong(outcome: &Outcome) -> &Unfit {
    let Outcome::StillWrong(unfit) = outcome else { panic!("{outcome:?}") };
    unfit
}

const REPLAYED: Outcome = Outcome::Replayed { again: false };

#[tokio::test]
async fn a_letter_goes_back_as_it_came_and_only_once_however_often_that_is_asked() {
    let scene = Scene::set().await;
    let record = stood("orders", 7, &scene.order("o-1", &json!({})), binary("recharge.order.created.v1"));
    let found = letter(&record, DeadLetterReason::UnknownVersion);
    assert_eq!(scene.replay(&found).await, REPLAYED);
    let sent = scene.sent();
    let InRecord { topic, key, value, headers, .. } = record.clone();
    assert_eq!(sent, [OutRecord { topic, key, value, headers }]);
    // The letter of the same record, written twice, is the same.
    let twin = Found { record: InRecord { offset: 900, ..found.record.clone() }, ..found.clone() };
    for again in [&found, &twin] {
        let outcome = scene.replay(again).await;
        let Outcome::Done(mark) = outcome else { panic!("{outcome:?}") };
        assert_eq!((mark.state, mark.by.as_str()), (LetterState::Replayed, "a tester"));
    }
    assert_eq!(scene.sent(), []);
    // A record of the same place in another life of its topic is another one.
    let later = InRecord { timestamp: Timestamp::from_timestamp_millis(1_790_000_000_001), ..record };
    assert_eq!(scene.replay(&letter(&later, DeadLetterReason::UnknownVersion)).await, REPLAYED);
}

#[tokio::test]
async fn two_letters_of_one_record_in_one_batch_are_sent_as_one() {
    let scene = Scene::set().await;
    let found = letter(&stood("orders", 7, &scene.order("o-1", &json!({})), Vec::new()), DeadLetterReason::Schema);
    let told = scene.run().take(vec![found.clone(), found]).await.unwrap();
    let outcomes: Vec<&Outcome> = told.iter().map(|told| &told.outcome).collect();
    assert_eq!((outcomes, scene.sent().len()), (vec![&REPLAYED, &Outcome::Twin], 1));
}

#[tokio::test]
async fn one_that_is_still_wrong_is_told_and_stays_without_a_mark_and_without_a_number_in_what_is_told() {
    use DeadLetterReason as R;
    let scene = Scene::set().await;
    let created = || binary("recharge.order.created.v1");
    let old = scene.now - chrono::Duration::days(91);
    let order = |changes: Value| scene.order("o-1", &changes);
    let cases = [
        (stood("orders", 1, &order(json!({ "amount_minor": "13800000001" })), created()), R::Schema, R::Schema),
        (
            stood("orders", 2, &order(json!({})), binary("recharge.order.created.v9")),
            R::UnknownVersion,
            R::UnknownVersion,
        ),
        (stood("orders", 3, &order(json!({ "paid_at": old.to_rfc3339() })), created()), R::TooOld, R::TooOld),
        (stood("lifecycle", 4, &order(json!({})), Vec::new()), R::UnknownType, R::UnknownType),
        (stood("requests.main", 5, &json!({ "kind": "13800000001" }), Vec::new()), R::Schema, R::Schema),
        (stood("requests.gone", 6, &scene.command("o-1"), Vec::new()), R::Undeliverable, R::UnknownTarget),
        (stood("delay.9s", 7, &scene.command("o-1"), Vec::new()), R::Undeliverable, R::UnknownTarget),
        (InRecord { value: None, ..stood("orders", 8, &json!(1), Vec::new()) }, R::NullValue, R::NullValue),
        (
            stood("orders", 9, &order(json!({})), vec![(Bytes::from_static(b"\xff"), None)]),
            R::BadHeaders,
            R::BadHeaders,
        ),
    ];
    for (record, was, is) in cases {
        let found = letter(&record, was);
        let outcome = scene.replay(&found).await;
        assert_eq!(wrong(&outcome).reason, is, "{outcome:?}");
        assert!(!format!("{outcome:?}").contains("13800000001"), "{outcome:?}");
        assert_eq!(scene.mark(&found).await, None);
    }
    let foreign = Found::of(stood("dead-letters", 10, &json!({}), Vec::new()));
    assert_eq!(wrong(&scene.replay(&foreign).await).reason, R::BadHeaders);
    assert_eq!(scene.sent(), []);
}

#[tokio::test]
async fn what_came_before_its_order_goes_back_once_the_order_is_there() {
    let scene = Scene::set().await;
    let paid = json!({ "order_id": "late", "paid_at": scene.now.to_rfc3339() });
    let found = letter(&stood("lifecycle", 1, &paid, binary("recharge.order.paid.v1")), DeadLetterReason::Orphan);
    assert_eq!(wrong(&scene.replay(&found).await).reason, DeadLetterReason::Orphan);
    assert_eq!((scene.sent(), scene.mark(&found).await), (Vec::new(), None));

    let order = scene.order("late", &json!({ "paid_at": null }));
    let value = order.to_string();
    let event = crate::domain::inbound::read(Some(value.as_bytes()), &[], true, &readers().phone_key).unwrap();
    let crate::domain::inbound::Inbound::Created(new) = event else { panic!("an order") };
    let input = crate::domain::Input::Arrived { new, verdict: Err(crate::domain::Reason::NoRoute) };
    let policy = crate::config::Config::default().policy();
    let crate::domain::Decision::Apply(arrival) = crate::domain::decide(None, &input, scene.now, &policy) else {
        panic!("an arrival")
    };
    scene.store.insert(&[*arrival]).await.unwrap();
    assert_eq!(scene.replay(&found).await, REPLAYED);
    assert_eq!(scene.sent().len(), 1);
}

#[tokio::test]
async fn what_waited_goes_back_into_its_tier_if_its_target_can_use_it_also_when_its_time_has_gone() {
    let scene = Scene::set().await;
    let waiting = |target: &str, ago: i64, value: &Value| {
        let due_at = scene.now - chrono::Duration::hours(ago);
        let bare = OutRecord { topic: topic("x"), key: None, value: None, headers: Vec::new() };
        let waits = Waiting { due_at, target: topic(target), hops: 0, entered_at: due_at };
        let headers = waits.write(&topic("delay.5s"), bare).headers;
        letter(&stood("delay.5s", ago, value, headers), DeadLetterReason::Undeliverable)
    };
    let command = scene.command("o-1");
    let gone = waiting("requests.main.due", 24, &command);
    assert_eq!(scene.replay(&gone).await, REPLAYED);
    let sent = scene.sent().remove(0);
    assert_eq!((sent.topic, sent.headers), (topic("delay.5s"), gone.letter.clone().unwrap().headers));
    for (found, reason) in [
        (waiting("requests.main.due", 24 * 31, &command), DeadLetterReason::BadDueTime),
        (waiting("requests.other.due", 1, &command), DeadLetterReason::UnknownTarget),
        (waiting("elsewhere", 2, &command), DeadLetterReason::UnknownTarget),
        (waiting("requests.main.due", 3, &json!({})), DeadLetterReason::Schema),
        (waiting("timers", 4, &json!({})), DeadLetterReason::UnknownType),
    ] {
        assert_eq!(wrong(&scene.replay(&found).await).reason, reason);
    }
    assert_eq!(scene.sent(), []);
}

#[tokio::test]
async fn an_order_whose_deadline_is_over_is_told_to_end_in_a_refund() {
    let scene = Scene::set().await;
    let an_hour_ago = (scene.now - chrono::Duration::hours(1)).to_rfc3339();
    let note = |changes: Value| {
        let found = letter(&stood("orders", 1, &scene.order("o-1", &changes), Vec::new()), DeadLetterReason::Schema);
        readers().judge(&found, scene.now).unwrap().note
    };
    assert_eq!(note(json!({})), None);
    assert!(note(json!({ "paid_at": an_hour_ago })).unwrap().contains("refunded"));
    assert!(note(json!({ "phone": "none" })).unwrap().contains("refunded"));
    assert!(note(json!({ "paid_at": null, "created_at": an_hour_ago })).unwrap().contains("cancelled"));
    assert_eq!(note(json!({ "paid_at": null })), None);
}

#[tokio::test]
async fn what_a_run_that_died_had_begun_is_left_to_it_for_a_minute_and_then_brought_to_an_end() {
    let scene = Scene::set().await;
    let found = letter(&stood("orders", 7, &scene.order("o-1", &json!({})), Vec::new()), DeadLetterReason::Schema);
    let begun = |seconds: i64| LetterMark {
        state: LetterState::Replaying,
        by: "who died".to_owned(),
        why: String::new(),
        at: scene.now - chrono::Duration::seconds(seconds),
        run: Uuid::new_v4(),
    };
    let keys = std::slice::from_ref(&found.key);
    let long_ago = begun(120);
    assert_eq!(scene.store.mark_letters(keys, &begun(10), long_ago.at).await.unwrap(), [true]);
    assert!(matches!(scene.replay(&found).await, Outcome::UnderWay(mark) if mark.by == "who died"));
    assert_eq!(scene.sent(), []);

    assert_eq!(scene.store.mark_letters(keys, &long_ago, scene.now).await.unwrap(), [true]);
    let looked = Replay { dry_run: true, ..scene.run() }.take(vec![found.clone()]).await.unwrap().remove(0);
    assert_eq!((looked.outcome, scene.sent()), (Outcome::Usable { again: true }, Vec::new()));
    assert_eq!(scene.replay(&found).await, Outcome::Replayed { again: true });
    assert_eq!(scene.sent().len(), 1);
    // The one that was thought dead ends nothing that is not its own any more.
    scene.store.replays_failed(keys, long_ago.run).await.unwrap();
    assert_eq!(scene.mark(&found).await.unwrap().state, LetterState::Replayed);
}

#[tokio::test]
async fn a_topic_that_refuses_leaves_the_letter_as_it_was_and_one_that_does_not_answer_leaves_a_doubt() {
    let scene = Scene::set().await;
    let found = letter(&stood("orders", 7, &scene.order("o-1", &json!({})), Vec::new()), DeadLetterReason::Schema);
    let refused = PublishError::Refused("too large".to_owned());
    *scene.broker.trouble.lock().unwrap() = Some(refused.clone());
    assert_eq!(scene.replay(&found).await, Outcome::NotTaken(refused));
    assert_eq!(scene.mark(&found).await, None);

    let silence = PublishError::Unacknowledged("silence".to_owned());
    *scene.broker.trouble.lock().unwrap() = Some(silence.clone());
    assert_eq!(scene.replay(&found).await, Outcome::Unsure(silence));
    assert_eq!(scene.mark(&found).await.unwrap().state, LetterState::Replaying);
}
