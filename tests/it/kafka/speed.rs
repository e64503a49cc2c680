//! Figures to look at; nothing is asserted but that it works. Run with `--nocapture`.

use std::time::{Duration, Instant};

use bytes::Bytes;
use recharged::kafka::{Producer, ProducerOptions};
use recharged::ports::{OutRecord, Publisher};

use super::support::{kafka, next, start_one, topic, unique, until};

const RECORDS: usize = 200_000;
const CLOSE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: takes a while and says nothing on a busy machine"]
async fn how_many_records_a_second() {
    let topic = topic("speed", 4).await;
    let options = ProducerOptions { max_in_flight_records: 50_000, ..ProducerOptions::default() };
    let producer = Producer::new(&kafka(), options).unwrap();
    let value = Bytes::from(vec![b'x'; 300]);
    let started = Instant::now();
    for start in (0..RECORDS).step_by(20_000) {
        let batch = (start..start + 20_000).map(|number| OutRecord {
            topic: std::sync::Arc::clone(&topic),
            key: Some(Bytes::from(number.to_string())),
            value: Some(value.clone()),
            headers: Vec::new(),
        });
        assert!(producer.publish(&batch.collect::<Vec<_>>()).await.iter().all(Result::is_ok));
    }
    println!("written: {:.0} records/s", per_second(RECORDS, started));

    for high_mark in [1000, 10_000, 100_000] {
        let (handle, mut reader) = start_one(&unique("g"), &topic, high_mark);
        until("it joined", || handle.status().joined).await;
        let mut read = next(&mut reader, 1000).await.unwrap().len();
        let started = Instant::now();
        let cpu = cpu_seconds();
        while read < RECORDS {
            for record in next(&mut reader, 1000).await.unwrap() {
                record.ack.done();
                read += 1;
            }
        }
        println!(
            "read, high mark {high_mark}: {:.0} records/s, {:.2} us CPU each",
            per_second(RECORDS, started),
            (cpu_seconds() - cpu) * 1e6 / 200_000.0
        );
        handle.close(CLOSE).await.unwrap();
    }

    let (handle, mut reader) = start_one(&unique("g"), &topic, 10_000);
    let mut read = 0;
    while read < RECORDS {
        for record in next(&mut reader, 1000).await.unwrap() {
            record.ack.done();
            read += 1;
        }
    }
    assert_eq!(producer.close(CLOSE).await, 0);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let cpu = cpu_seconds();
    tokio::time::sleep(Duration::from_secs(5)).await;
    println!("idle: {:.2} % of a core", (cpu_seconds() - cpu) / 5.0 * 100.0);
    handle.close(CLOSE).await.unwrap();

    let (handle, _reader) = start_one(&unique("g"), &topic, 1000);
    until("it is paused", || handle.status().topics[0].paused == 4).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let cpu = cpu_seconds();
    tokio::time::sleep(Duration::from_secs(5)).await;
    println!("paused: {:.2} % of a core", (cpu_seconds() - cpu) / 5.0 * 100.0);
    handle.close(CLOSE).await.unwrap();
}

#[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
fn per_second(count: usize, since: Instant) -> f64 {
    count as f64 / since.elapsed().as_secs_f64()
}

/// What this process used so far, in user and system mode.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    let fields: Vec<f64> = after_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse().unwrap()).collect();
    fields.iter().sum::<f64>() / 100.0
}
