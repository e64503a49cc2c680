//! Making and checking topics.

use std::collections::BTreeMap;

use recharged::kafka::KafkaOptions;
use recharged::kafka::topics::{ANSWER_LIMIT, Outcome, Problem, TopicPlan, Want, create, verify};

use super::support::{kafka, plan, unique};

fn with(mut plan: TopicPlan, settings: &[(&str, Want)]) -> TopicPlan {
    plan.config = settings.iter().map(|(key, want)| ((*key).to_owned(), want.clone())).collect::<BTreeMap<_, _>>();
    plan
}

#[tokio::test]
async fn a_topic_is_made_as_planned_and_making_it_again_changes_nothing() {
    let name = unique("made");
    let planned = with(
        plan(&name, 3),
        &[
            ("retention.ms", Want::AtLeast(3_600_000)),
            ("cleanup.policy", Want::Exactly("delete".to_owned())),
            ("min.insync.replicas", Want::AtLeast(1)),
            ("max.message.bytes", Want::AtLeast(2_000_000)),
        ],
    );
    let plans = [planned];
    assert_eq!(verify(&kafka(), &plans, ANSWER_LIMIT).await.unwrap(), vec![Problem::Missing { topic: name.clone() }]);
    assert_eq!(create(&kafka(), &plans).await.unwrap(), vec![Outcome::Created { topic: name.clone() }]);
    assert_eq!(verify(&kafka(), &plans, ANSWER_LIMIT).await.unwrap(), vec![]);
    assert_eq!(create(&kafka(), &plans).await.unwrap(), vec![Outcome::Unchanged { topic: name }]);
}

#[tokio::test]
async fn what_is_too_little_is_raised_and_other_settings_stay() {
    let name = unique("raised");
    let before = with(
        plan(&name, 1),
        &[("retention.ms", Want::AtLeast(1000)), ("segment.bytes", Want::Exactly("1048576".to_owned()))],
    );
    create(&kafka(), &[before]).await.unwrap();
    let after =
        with(plan(&name, 2), &[("retention.ms", Want::AtLeast(5000)), ("max.message.bytes", Want::AtLeast(3_000_000))]);
    let problems = verify(&kafka(), std::slice::from_ref(&after), ANSWER_LIMIT).await.unwrap();
    assert_eq!(problems.len(), 3, "{problems:?}");
    let outcomes = create(&kafka(), std::slice::from_ref(&after)).await.unwrap();
    assert!(outcomes.contains(&Outcome::PartitionsRaised { topic: name.clone(), from: 1, to: 2 }), "{outcomes:?}");
    let retention = Outcome::SettingRaised {
        topic: name.clone(),
        key: "retention.ms".to_owned(),
        from: "1000".to_owned(),
        to: "5000".to_owned(),
    };
    assert!(outcomes.contains(&retention), "{outcomes:?}");
    assert_eq!(verify(&kafka(), &[after], ANSWER_LIMIT).await.unwrap(), vec![]);
    let untouched = with(plan(&name, 2), &[("segment.bytes", Want::Exactly("1048576".to_owned()))]);
    assert_eq!(verify(&kafka(), &[untouched], ANSWER_LIMIT).await.unwrap(), vec![]);
}

#[tokio::test]
async fn nothing_is_ever_shrunk_and_what_differs_is_told() {
    let name = unique("kept");
    let big = with(plan(&name, 4), &[("retention.ms", Want::AtLeast(9000))]);
    create(&kafka(), &[big]).await.unwrap();
    let small = with(
        plan(&name, 2),
        &[("retention.ms", Want::AtMost(5000)), ("cleanup.policy", Want::Exactly("compact".to_owned()))],
    );
    let outcomes = create(&kafka(), std::slice::from_ref(&small)).await.unwrap();
    assert_eq!(outcomes, vec![Outcome::Unchanged { topic: name.clone() }]);
    let problems = verify(&kafka(), &[small], ANSWER_LIMIT).await.unwrap();
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            format!("{name}: has 4 partitions, not 2"),
            format!("{name}: cleanup.policy is delete, not compact"),
            format!("{name}: retention.ms is 9000, not at most 5000"),
        ]
    );
    let copies = TopicPlan { replication: Some(3), ..plan(&name, 4) };
    assert_eq!(
        verify(&kafka(), &[copies], ANSWER_LIMIT).await.unwrap(),
        vec![Problem::Replication { topic: name.clone(), found: 1, wanted: 3 }]
    );
}

#[tokio::test]
async fn a_refused_topic_says_why_and_does_not_stop_the_others() {
    let (bad, good) = (unique("bad"), unique("good"));
    let impossible = TopicPlan { replication: Some(99), ..plan(&bad, 1) };
    let outcomes = create(&kafka(), &[impossible, plan(&good, 1)]).await.unwrap();
    assert!(matches!(&outcomes[0], Outcome::Refused { topic, .. } if *topic == bad), "{outcomes:?}");
    assert_eq!(outcomes[1], Outcome::Created { topic: good });
}

#[tokio::test]
async fn brokers_that_do_not_answer_are_a_passing_error() {
    let mut nowhere = KafkaOptions::plain("127.0.0.1:1", "kafka-tests");
    nowhere.properties.insert("socket.timeout.ms".to_owned(), "1000".to_owned());
    let error = verify(&nowhere, &[plan("any", 1)], ANSWER_LIMIT).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
}
