//! Order, at-least-once, and how far offsets move.

use std::time::Duration;

use recharged::ports::{Stopped, Subscription};

use super::support::{
    PATIENCE, committed, group, kafka, long_session, next, number, producer, read_numbers, start, start_one, topic,
    unique, until, write_numbers,
};
use crate::pace::at_most;

const CLOSE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn records_come_in_order_and_acknowledged_ones_not_again() {
    let (topic, name) = (topic("order", 1).await, unique("g"));
    write_numbers(&producer(), &topic, 0..1000).await;
    let (handle, mut reader) = start_one(&name, &topic, 4000);
    let mut seen = Vec::new();
    while seen.len() < 1000 {
        for record in next(&mut reader, 100).await.unwrap() {
            seen.push(number(&record));
            if number(&record) < 600 {
                record.ack.done();
            }
        }
    }
    assert!(seen.iter().copied().eq(0..1000));
    handle.close(CLOSE).await.unwrap();
    assert_eq!(reader.next(1).await.unwrap_err(), Stopped::Closed);
    assert_eq!(committed(&name, &topic, 0).await, Some(600));

    let (handle, mut reader) = start_one(&name, &topic, 4000);
    let again = next(&mut reader, 10).await.unwrap();
    assert_eq!(number(&again[0]), 600);
    drop(again);
    handle.close(CLOSE).await.unwrap();
}

#[tokio::test]
async fn a_commit_never_passes_a_record_that_is_not_done() {
    let (topic, name) = (topic("hole", 1).await, unique("g"));
    write_numbers(&producer(), &topic, 0..100).await;
    let (handle, mut reader) = start_one(&name, &topic, 4000);
    let mut held = None;
    let mut count = 0;
    while count < 100 {
        for record in next(&mut reader, 1000).await.unwrap() {
            count += 1;
            if number(&record) == 40 { held = Some(record.ack) } else { record.ack.done() }
        }
    }
    // The periodic commit, not that of the close.
    let mut position = None;
    for _ in 0..100 {
        position = committed(&name, &topic, 0).await;
        if position == Some(40) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(position, Some(40));
    assert_eq!(handle.status().topics[0].in_hand, 1);
    held.unwrap().done();
    until("nothing is in hand", || handle.status().topics[0].in_hand == 0).await;
    handle.close(CLOSE).await.unwrap();
    assert_eq!(committed(&name, &topic, 0).await, Some(100));
}

#[tokio::test]
async fn an_empty_assignment_counts_as_joined() {
    let (topic, name) = (topic("empty", 1).await, unique("g"));
    let (first, _reader) = start_one(&name, &topic, 100);
    until("the first joined", || first.status().joined).await;
    let (second, _other) = start_one(&name, &topic, 100);
    until("the second joined", || second.status().joined).await;
    until("one of them has the partition", || {
        let held = |handle: &recharged::kafka::ConsumerHandle| handle.status().topics[0].assigned.len();
        held(&first) + held(&second) == 1
    })
    .await;
    second.close(CLOSE).await.unwrap();
    first.close(CLOSE).await.unwrap();
}

#[tokio::test]
async fn lag_is_what_was_not_fetched_and_vanishes() {
    let (topic, name) = (topic("lag", 2).await, unique("g"));
    let producer = producer();
    write_numbers(&producer, &topic, 0..20_000).await;
    let (handle, mut reader) = start_one(&name, &topic, 1000);
    until("the lag is known", || handle.status().topics[0].lag.is_some_and(|lag| lag > 10_000)).await;
    assert!(handle.status().topics[0].oldest_unread.is_some());
    read_numbers(&mut reader, 20_000).await;
    until("the lag is gone", || handle.status().topics[0].lag == Some(0)).await;
    until("nothing is unread", || handle.status().topics[0].oldest_unread.is_none()).await;
    assert_eq!(handle.status().offset_gaps, 0);
    handle.close(CLOSE).await.unwrap();
}

#[tokio::test]
async fn a_missing_topic_ends_the_subscription_with_its_name() {
    let topic = std::sync::Arc::from(unique("missing"));
    let (handle, mut reader) = start_one(&unique("g"), &topic, 100);
    let Stopped::Failed(text) = next(&mut reader, 1).await.unwrap_err() else { panic!("not a failure") };
    assert!(text.contains(&*topic), "{text}");
    assert!(handle.status().failed.is_some());
    handle.close(CLOSE).await.unwrap();
}

#[tokio::test]
async fn a_topic_listed_twice_is_refused() {
    let topic = std::sync::Arc::from("t");
    let error = recharged::kafka::Consumer::start(&kafka(), group("g", &[(&topic, 1), (&topic, 1)])).unwrap_err();
    assert!(error.to_string().contains("listed twice"), "{error}");
}

#[tokio::test]
async fn a_dropped_handle_leaves_the_group() {
    let (topic, name) = (topic("drop", 1).await, unique("g"));
    let (first, _readers) = start(long_session(&name, &[(&topic, 100)]));
    until("the first has the partition", || first.status().topics[0].assigned.len() == 1).await;
    let started = std::time::Instant::now();
    drop(first);
    let (second, _other) = start(long_session(&name, &[(&topic, 100)]));
    until("the second has the partition", || second.status().topics[0].assigned.len() == 1).await;
    // Otherwise only the session time-out would free it.
    at_most("freeing it", started.elapsed(), Duration::from_secs(6), PATIENCE);
    second.close(CLOSE).await.unwrap();
}
