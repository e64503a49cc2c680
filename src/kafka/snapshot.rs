//! A topic read from its beginning to what was its end when reading began: for audits and for
//! people. No group, no offsets: nobody's place in the topic changes.

use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::Message as _;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use super::context::Listener;
use super::options::create;
use super::{KafkaError, KafkaOptions};

/// How long the first answers of a broker may take.
const LIMIT: Duration = Duration::from_secs(10);
/// With nothing new for so long, the rest will not come.
const SILENCE: Duration = Duration::from_secs(30);

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
    // librdkafka wants a group's name even where partitions are assigned by hand and nothing is
    // ever committed; the broker does not come to know this one.
    let config = options.config(&[
        ("group.id", "recharged-snapshot"),
        ("enable.auto.commit", "false"),
        ("enable.partition.eof", "true"),
    ])?;
    let scrubber = options.scrubber();
    let context = SnapshotContext(Listener::new(scrubber.clone()));
    let consumer: BaseConsumer<SnapshotContext> = create(&config, context, &scrubber)?;
    let mut ends = ends_of(&consumer, topic)?;
    let mut assignment = TopicPartitionList::new();
    for (partition, _) in ends.iter().filter(|(_, end)| *end > 0) {
        assignment
            .add_partition_offset(topic, *partition, Offset::Beginning)
            .map_err(|source| KafkaError::Admin { operation: "assign", source })?;
    }
    ends.retain(|(_, end)| *end > 0);
    consumer.assign(&assignment).map_err(|source| KafkaError::Admin { operation: "assign", source })?;
    let (mut read, mut heard) = (0, Instant::now());
    while !ends.is_empty() {
        let (partition, is_at_end) = match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                let is_past = ends.iter().all(|(open, _)| *open != message.partition());
                if is_past {
                    continue;
                }
                read += 1;
                if !each(message.payload().unwrap_or_default()) {
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
            None if heard.elapsed() > SILENCE => {
                let source = ClientError::MessageConsumption(rdkafka::error::RDKafkaErrorCode::OperationTimedOut);
                return Err(KafkaError::Admin { operation: "read", source });
            }
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
