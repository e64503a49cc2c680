//! Partitions that move, and names that last.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use recharged::ports::{Stopped, Subscription};

use super::support::{
    PATIENCE, committed, group, long_session, next, number, producer, start, start_one, topic, unique, until,
    write_numbers,
};

const CLOSE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn two_members_together_see_every_record_and_late_acknowledgements_are_harmless() {
    let (topic, name) = (topic("two", 4).await, unique("g"));
    let producer = producer();
    write_numbers(&producer, &topic, 0..2000).await;
    let (first, mut reader) = start_one(&name, &topic, 10_000);
    let mut held = Vec::new();
    while held.len() < 2000 {
        held.extend(next(&mut reader, 1000).await.unwrap());
    }
    let (second, mut other) = start_one(&name, &topic, 10_000);
    until("both have a half", || {
        first.status().topics[0].assigned.len() == 2 && second.status().topics[0].assigned.len() == 2
    })
    .await;
    let mine: BTreeSet<i32> = first.status().topics[0].assigned.iter().copied().collect();
    // Records of moved partitions were never acknowledged: the second gets all of them.
    let expected: BTreeSet<u64> = held.iter().filter(|record| !mine.contains(&record.partition)).map(number).collect();
    assert!(held.iter().all(|record| record.ack.is_live() == mine.contains(&record.partition)));
    for record in held {
        record.ack.done();
    }
    let mut seen = BTreeSet::new();
    while seen.len() < expected.len() {
        for record in next(&mut other, 1000).await.unwrap() {
            seen.insert(number(&record));
            // Not acknowledged, so the late ones of the first must not have moved the offset.
        }
    }
    assert_eq!(seen, expected);
    for partition in (0..4).filter(|partition| !mine.contains(partition)) {
        assert!(matches!(committed(&name, &topic, partition).await, None | Some(0)));
    }
    first.close(CLOSE).await.unwrap();
    second.close(CLOSE).await.unwrap();
}

#[tokio::test]
async fn a_revocation_waits_for_what_is_in_hand() {
    let (topic, name) = (topic("hand", 2).await, unique("g"));
    write_numbers(&producer(), &topic, 0..200).await;
    let (first, mut reader) = start_one(&name, &topic, 1000);
    let mut held = Vec::new();
    while held.len() < 200 {
        held.extend(next(&mut reader, 1000).await.unwrap());
    }
    let (second, mut other) = start_one(&name, &topic, 1000);
    // The role finishes its batch as soon as it learns of the revocation.
    until("the revocation has begun", || held.iter().any(|record| !record.ack.is_live())).await;
    let partitions: Vec<i32> = held.iter().map(|record| record.partition).collect();
    for record in held {
        record.ack.done();
    }
    until("one partition moved", || second.status().topics[0].assigned.len() == 1).await;
    let moved = second.status().topics[0].assigned[0];
    let written = partitions.iter().filter(|partition| **partition == moved).count();
    assert_eq!(committed(&name, &topic, moved).await, i64::try_from(written).ok());
    let nothing = tokio::time::timeout(Duration::from_millis(500), other.next(1)).await;
    assert!(nothing.is_err(), "records came again");
    first.close(CLOSE).await.unwrap();
    second.close(CLOSE).await.unwrap();
}

#[tokio::test]
async fn members_that_come_and_go_under_load_lose_nothing() {
    const RECORDS: u64 = 30_000;
    let (topic, name) = (topic("storm", 6).await, unique("g"));
    let writing = tokio::spawn({
        let topic = std::sync::Arc::clone(&topic);
        async move {
            let producer = producer();
            for start in (0..RECORDS).step_by(500) {
                write_numbers(&producer, &topic, start..start + 500).await;
            }
        }
    });
    let seen = std::sync::Arc::new(std::sync::Mutex::new(BTreeSet::new()));
    let member = || {
        let (handle, mut reader) = start_one(&name, &topic, 300);
        let seen = std::sync::Arc::clone(&seen);
        let reading = tokio::spawn(async move {
            while let Ok(batch) = reader.next(200).await {
                tokio::time::sleep(Duration::from_millis(2)).await;
                for record in batch {
                    seen.lock().unwrap().insert(number(&record));
                    record.ack.done();
                }
            }
        });
        (handle, reading)
    };
    let (lasting, _) = member();
    for _ in 0..4 {
        let (passing, reading) = member();
        until("it has partitions", || !passing.status().topics[0].assigned.is_empty()).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        passing.close(CLOSE).await.unwrap();
        reading.await.unwrap();
    }
    writing.await.unwrap();
    until("everything was seen", || seen.lock().unwrap().len() == usize::try_from(RECORDS).unwrap()).await;
    let status = lasting.status();
    assert_eq!((status.commits_refused, status.rebuilds, status.failed), (0, 0, None));
    lasting.close(CLOSE).await.unwrap();
    for partition in 0..6 {
        assert!(committed(&name, &topic, partition).await.is_some());
    }
}

#[tokio::test]
async fn a_static_member_goes_on_at_once_after_its_restart() {
    let (topic, name) = (topic("static", 2).await, unique("g"));
    let producer = producer();
    let mut options = long_session(&name, &[(&topic, 1000)]);
    options.static_id = Some(unique("member"));
    let (handle, mut readers) = start(options.clone());
    write_numbers(&producer, &topic, 0..10).await;
    next(&mut readers[0], 10).await.unwrap().into_iter().for_each(|record| record.ack.done());
    handle.close(CLOSE).await.unwrap();
    write_numbers(&producer, &topic, 10..20).await;
    let restarted = Instant::now();
    let (handle, mut readers) = start(options);
    next(&mut readers[0], 10).await.unwrap();
    // The first one has not left: under another name its session would be waited for.
    crate::pace::at_most("going on", restarted.elapsed(), Duration::from_secs(2), PATIENCE);
    handle.close(CLOSE).await.unwrap();
}

#[tokio::test]
async fn of_two_members_of_one_name_the_first_fails_with_a_clear_sentence() {
    let (topic, name) = (topic("fence", 1).await, unique("g"));
    let mut options = group(&name, &[(&topic, 1000)]);
    options.static_id = Some("shop-0-intake-0".to_owned());
    let (first, mut readers) = start(options.clone());
    until("the first joined", || first.status().joined).await;
    let (second, _others) = start(options);
    let Stopped::Failed(text) = next(&mut readers[0], 1).await.unwrap_err() else { panic!("not a failure") };
    assert!(text.contains("shop-0-intake-0") && text.contains("unique"), "{text}");
    until("the second joined", || second.status().joined).await;
    first.close(CLOSE).await.unwrap();
    second.close(CLOSE).await.unwrap();
}
