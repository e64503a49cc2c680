//! Back-pressure: a slow reader loses nothing, costs bounded memory, and holds up nobody else.

use std::time::Duration;

use super::support::{
    group, next, number, producer, read_numbers, start, start_one, topic, unique, until, write_numbers,
};
use crate::pace::at_most;

const CLOSE: Duration = Duration::from_secs(5);
const RECORDS: u64 = 20_000;

#[tokio::test]
async fn a_slow_reader_loses_nothing_and_what_waits_for_it_is_bounded() {
    let topic = topic("slow", 4).await;
    write_numbers(&producer(), &topic, 0..RECORDS).await;
    let (handle, mut reader) = start_one(&unique("g"), &topic, 400);
    // Nobody reads as yet: whatever the thread's pace, it has more than may wait.
    until("it pauses", || handle.status().topics[0].paused > 0).await;
    let mut seen = vec![0_u32; usize::try_from(RECORDS).unwrap()];
    let (mut count, mut most) = (0, 0);
    while count < RECORDS {
        for record in next(&mut reader, 150).await.unwrap() {
            seen[usize::try_from(number(&record)).unwrap()] += 1;
            count += 1;
            record.ack.done();
        }
        // The reader's work, too slow for the thread.
        tokio::time::sleep(Duration::from_millis(15)).await;
        most = most.max(handle.status().topics[0].buffered);
    }
    assert!(seen.iter().all(|times| *times == 1), "lost or repeated");
    assert!(most <= 400 + 512, "{most} records waited");
    until("it resumes", || handle.status().topics[0].paused == 0).await;
    handle.close(CLOSE).await.unwrap();
}

#[tokio::test]
async fn a_full_inbox_stops_neither_polling_nor_another_topic() {
    let (stalled, flowing) = (topic("stalled", 2).await, topic("flowing", 2).await);
    let producer = producer();
    write_numbers(&producer, &stalled, 0..5000).await;
    let (handle, mut readers) = start(group(&unique("g"), &[(&stalled, 100), (&flowing, 1000)]));
    let mut flowing_reader = readers.pop().unwrap();
    let mut stalled_reader = readers.pop().unwrap();
    until("the unread topic is paused", || handle.status().topics[0].paused == 2).await;
    for round in 0..5 {
        write_numbers(&producer, &flowing, round * 1000..(round + 1) * 1000).await;
        read_numbers(&mut flowing_reader, 1000).await;
        let status = handle.status();
        at_most("the poll", status.poll_age, Duration::from_secs(1), Duration::from_secs(3));
        assert!(status.topics[0].buffered <= 100 + 512);
        assert_eq!(status.topics[1].paused, 0);
    }
    assert_eq!(read_numbers(&mut stalled_reader, 5000).await.len(), 5000);
    handle.close(CLOSE).await.unwrap();
}

#[tokio::test]
async fn a_partition_that_goes_while_paused_flows_at_its_next_holder_and_when_it_comes_back() {
    let (topic, name) = (topic("paused", 4).await, unique("g"));
    let producer = producer();
    write_numbers(&producer, &topic, 0..8000).await;
    let (first, mut reader) = start_one(&name, &topic, 200);
    until("all of it is paused", || first.status().topics[0].paused == 4).await;
    let (second, mut other) = start_one(&name, &topic, 100_000);
    until("half of it moved", || second.status().topics[0].assigned.len() == 2).await;
    // The second reads its half and leaves; its partitions go back to the first.
    let moved = next(&mut other, 10).await.unwrap();
    for record in moved {
        record.ack.done();
    }
    second.close(CLOSE).await.unwrap();
    until("all of it came back", || first.status().topics[0].assigned.len() == 4).await;
    write_numbers(&producer, &topic, 8000..9000).await;
    let mut seen = std::collections::BTreeSet::new();
    while !(8000..9000).all(|number| seen.contains(&number)) {
        for record in next(&mut reader, 1000).await.unwrap() {
            seen.insert(number(&record));
            record.ack.done();
        }
    }
    assert_eq!(first.status().rebuilds, 0);
    first.close(CLOSE).await.unwrap();
}
