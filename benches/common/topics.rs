//! How far the topics have come, asked of the broker.

use std::time::Duration;

use anyhow::{Context as _, Result};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};

use crate::common::scratch::{PARTITIONS, Scratch};

const PATIENCE: Duration = Duration::from_secs(10);

/// A client that reads beside the system under test, in no group.
pub(crate) struct Reader {
    consumer: BaseConsumer,
    topic: String,
}

impl Reader {
    /// Of the status events.
    pub(crate) fn of_events(scratch: &Scratch) -> Result<Self> {
        let consumer = ClientConfig::new()
            .set("bootstrap.servers", &scratch.brokers)
            .set("group.id", format!("{}reader", scratch.prefix))
            .set("enable.auto.commit", "false")
            .create()
            .context("the reader of events")?;
        Ok(Self { consumer, topic: scratch.topics.order_events.to_string() })
    }

    /// Records in the topic.
    pub(crate) fn count(&self) -> Result<u64> {
        let mut count = 0;
        for partition in 0..PARTITIONS {
            let (_, high) = self.consumer.fetch_watermarks(&self.topic, partition, PATIENCE)?;
            count += u64::try_from(high).unwrap_or(0);
        }
        Ok(count)
    }

    /// Hands over every record that is there now: key, `ce_type`, timestamp in ms.
    pub(crate) fn read_all(&self, mut see: impl FnMut(&[u8], &[u8], i64)) -> Result<()> {
        let mut left = self.count()?;
        let mut assignment = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            assignment.add_partition_offset(&self.topic, partition, Offset::Beginning)?;
        }
        self.consumer.assign(&assignment)?;
        while left > 0 {
            let record = self.consumer.poll(PATIENCE).context("the broker hands over no more events")??;
            let kind = header(&record, "ce_type");
            see(record.key().unwrap_or_default(), kind, record.timestamp().to_millis().unwrap_or(0));
            left -= 1;
        }
        Ok(())
    }
}

fn header<'a>(record: &'a rdkafka::message::BorrowedMessage<'_>, name: &str) -> &'a [u8] {
    use rdkafka::message::Headers as _;
    let headers = record.headers();
    headers.and_then(|all| all.iter().find(|one| one.key == name)).and_then(|one| one.value).unwrap_or_default()
}
