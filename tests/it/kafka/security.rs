//! TLS and SCRAM.

use std::time::{Duration, Instant};

use recharged::kafka::topics;
use recharged::kafka::{Consumer, KafkaOptions, Producer, ProducerOptions};
use recharged::ports::{PublishError, Publisher, Stopped};

use super::support::{group, next, out, plan, read_numbers, topic, unique, variable};

const CLOSE: Duration = Duration::from_secs(5);

fn scram(password: &str) -> KafkaOptions {
    let mut options = KafkaOptions::plain(variable("KAFKA_BROKERS_SCRAM"), "kafka-tests");
    let properties = [
        ("security.protocol", "sasl_ssl".to_owned()),
        ("sasl.mechanism", "SCRAM-SHA-512".to_owned()),
        ("sasl.username", variable("KAFKA_SCRAM_USER")),
        ("sasl.password", password.to_owned()),
        ("ssl.ca.location", variable("KAFKA_CA_FILE")),
    ];
    options.properties = properties.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    options
}

fn password() -> String {
    let file = variable("KAFKA_SCRAM_PASSWORD_FILE");
    std::fs::read_to_string(file).unwrap().trim().to_owned()
}

#[tokio::test]
async fn scram_over_tls_writes_reads_and_administers() {
    let (topic, name) = (topic("scram", 1).await, unique("g"));
    let options = scram(&password());
    assert_eq!(topics::verify(&options, &[plan(&topic, 1)], topics::ANSWER_LIMIT).await.unwrap(), vec![]);
    let producer = Producer::new(&options, ProducerOptions::default()).unwrap();
    producer.publish(&[out(&topic, None, "7")]).await.remove(0).unwrap();
    let (handle, mut readers) = Consumer::start(&options, group(&name, &[(&topic, 10)])).unwrap();
    assert!(read_numbers(&mut readers[0], 1).await.contains(&7));
    handle.close(CLOSE).await.unwrap();
    assert_eq!(producer.close(CLOSE).await, 0);
}

#[tokio::test]
async fn a_wrong_password_is_told_clearly_and_never_shown() {
    let wrong = "canary-5d1e-not-the-password";
    let topic = topic("wrong", 1).await;
    let options = scram(wrong);
    let (handle, mut readers) = Consumer::start(&options, group(&unique("g"), &[(&topic, 10)])).unwrap();
    let started = Instant::now();
    let Stopped::Failed(text) = next(&mut readers[0], 1).await.unwrap_err() else { panic!("not a failure") };
    println!("after {:?}: {text}", started.elapsed());
    assert!(text.to_lowercase().contains("authentication"), "{text}");
    handle.close(CLOSE).await.unwrap();

    let timeout = Some(Duration::from_secs(2));
    let producer =
        Producer::new(&options, ProducerOptions { message_timeout: timeout, ..ProducerOptions::default() }).unwrap();
    let answer = producer.publish(&[out(&topic, None, "7")]).await.remove(0);
    let Err(PublishError::Unacknowledged(reason)) = answer else { panic!("{answer:?}") };
    assert!(reason.to_lowercase().contains("authentication"), "{reason}");
    for shown in [text, reason, format!("{producer:?} {options:?}")] {
        assert!(!shown.contains(wrong), "{shown}");
    }
    producer.close(CLOSE).await;
}
