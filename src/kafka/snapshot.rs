//! A topic read from its beginning to what was its end when reading began: for audits and for
//! people. No group, no offsets: nobody's place in the topic changes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use crate::ports::{Assignment, InRecord};

use super::consumer::record;
use super::context::Listener;
use super::options::create;
use super::{KafkaError, KafkaOptions};

/// How long the first answers of a broker may take.
const LIMIT: Duration = Duration::from_secs(10);
/// With nothing new for so long, the rest will not come.
const SILENCE: Duration = Duration::from_secs(30);
/// How long one look for a record takes.
const POLL: Duration = Duration::from_millis(200);
/// What is fetched ahead of its reader takes so much memory at most, of all partitions together about.
const READ_AHEAD_KBYTES: &str = "16384";

struct SnapshotContext(Listener);

impl ClientContext for SnapshotContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn error(&self, error: ClientError, reason: &str) {
        self.0.error(&error, reason);
    }
}

impl ConsumerContext for SnapshotContext {}

/// Reads the values of a topic, each partition in its order; a record without a value is an empty
/// one. `each` returns `false` to stop. Returns how many records were read.
///
/// Blocks: call it where that is allowed.
pub fn read_values(
    options: &KafkaOptions,
    topic: &str,
    mut each: impl FnMut(&[u8]) -> bool,
) -> Result<u64, KafkaError> {
    let consumer = consumer(options)?;
    read(&consumer, topic, |message| each(message.payload().unwrap_or_default()))
}

/// The same with whole records.
pub fn read_records(
    options: &KafkaOptions,
    topic: &Arc<str>,
    mut each: impl FnMut(InRecord) -> bool,
) -> Result<u64, KafkaError> {
    let (consumer, nobodys): (_, Arc<dyn Assignment>) = (consumer(options)?, Arc::new(Nobodys));
    read(&consumer, topic, |message| each(record::copy(message, topic, Arc::clone(&nobodys))))
}

/// Reads one record; `None` where there is none, or none any more.
///
/// Blocks: call it where that is allowed.
pub fn read_one(
    options: &KafkaOptions,
    topic: &Arc<str>,
    partition: i32,
    offset: i64,
) -> Result<Option<InRecord>, KafkaError> {
    let consumer = consumer(options)?;
    let end = ends_of(&consumer, topic)?.into_iter().find(|(found, _)| *found == partition).map(|(_, end)| end);
    if offset < 0 || end.is_none_or(|end| offset >= end) {
        return Ok(None);
    }
    assign(&consumer, topic, &[(partition, Offset::Offset(offset))])?;
    let began = Instant::now();
    loop {
        match consumer.poll(POLL) {
            // Where it was removed, reading goes on at the next one there is, or at the first.
            Some(Ok(message)) => {
                let is_it = message.offset() == offset;
                return Ok(is_it.then(|| record::copy(&message, topic, Arc::new(Nobodys))));
            }
            Some(Err(ClientError::PartitionEOF(_))) => return Ok(None),
            Some(Err(source)) if began.elapsed() > SILENCE => {
                return Err(KafkaError::Admin { operation: "read", source });
            }
            None if began.elapsed() > SILENCE => return Err(silent()),
            Some(Err(_)) | None => {}
        }
    }
}

/// What is read here belongs to no group: nobody waits to hear that it is done.
#[derive(Debug)]
struct Nobodys;

impl Assignment for Nobodys {
    fn is_live(&self) -> bool {
        true
    }

    fn done(&self, _offset: i64) {}
}

fn consumer(options: &KafkaOptions) -> Result<BaseConsumer<SnapshotContext>, KafkaError> {
    // librdkafka wants a group's name even where partitions are assigned by hand and nothing is
    // ever committed; the broker does not come to know this one.
    let config = options.config(&[
        ("group.id", "recharged-snapshot"),
        ("enable.auto.commit", "false"),
        ("enable.partition.eof", "true"),
        ("auto.offset.reset", "earliest"),
        ("queued.max.messages.kbytes", READ_AHEAD_KBYTES),
    ])?;
    let scrubber = options.scrubber();
    create(&config, SnapshotContext(Listener::new(scrubber.clone())), &scrubber)
}

fn assign(consumer: &BaseConsumer<SnapshotContext>, topic: &str, starts: &[(i32, Offset)]) -> Result<(), KafkaError> {
    let failed = |source| KafkaError::Admin { operation: "assign", source };
    let mut assignment = TopicPartitionList::new();
    for (partition, start) in starts {
        assignment.add_partition_offset(topic, *partition, *start).map_err(failed)?;
    }
    consumer.assign(&assignment).map_err(failed)
}

fn silent() -> KafkaError {
    let source = ClientError::MessageConsumption(rdkafka::error::RDKafkaErrorCode::OperationTimedOut);
    KafkaError::Admin { operation: "read", source }
}

fn read(
    consumer: &BaseConsumer<SnapshotContext>,
    topic: &str,
    mut each: impl FnMut(&BorrowedMessage<'_>) -> bool,
) -> Result<u64, KafkaError> {
    let mut ends = ends_of(consumer, topic)?;
    ends.retain(|(_, end)| *end > 0);
    let starts: Vec<_> = ends.iter().map(|(partition, _)| (*partition, Offset::Beginning)).collect();
    assign(consumer, topic, &starts)?;
    let (mut read, mut heard) = (0, Instant::now());
    while !ends.is_empty() {
        let (partition, is_at_end) = match consumer.poll(POLL) {
            Some(Ok(message)) => {
                let is_past = ends.iter().all(|(open, _)| *open != message.partition());
                if is_past {
                    continue;
                }
                read += 1;
                if !each(&message) {
                    return Ok(read);
                }
                let end = ends.iter().find(|(open, _)| *open == message.partition());
                (message.partition(), end.is_some_and(|(_, end)| message.offset() + 1 >= *end))
            }
            // Behind the last record there may be markers of transactions, which are never handed out.
            Some(Err(ClientError::PartitionEOF(partition))) => (partition, true),
            Some(Err(source)) if heard.elapsed() > SILENCE => {
                return Err(KafkaError::Admin { operation: "read", source });
            }
            None if heard.elapsed() > SILENCE => return Err(silent()),
            Some(Err(_)) | None => continue,
        };
        heard = Instant::now();
        if is_at_end {
            ends.retain(|(open, _)| *open != partition);
        }
    }
    Ok(read)
}

/// The end of each partition.
fn ends_of(consumer: &BaseConsumer<SnapshotContext>, topic: &str) -> Result<Vec<(i32, i64)>, KafkaError> {
    let failed = |operation| move |source| KafkaError::Admin { operation, source };
    let metadata = consumer.fetch_metadata(Some(topic), LIMIT).map_err(failed("metadata"))?;
    let partitions: Vec<i32> = metadata
        .topics()
        .iter()
        .flat_map(rdkafka::metadata::MetadataTopic::partitions)
        .map(rdkafka::metadata::MetadataPartition::id)
        .collect();
    if partitions.is_empty() {
        let code = rdkafka::error::RDKafkaErrorCode::UnknownTopicOrPartition;
        return Err(KafkaError::Admin { operation: "metadata", source: ClientError::MetadataFetch(code) });
    }
    partitions
        .into_iter()
        .map(|partition| {
            let (_, high) = consumer.fetch_watermarks(topic, partition, LIMIT).map_err(failed("watermarks"))?;
            Ok((partition, high))
        })
        .collect()
}
