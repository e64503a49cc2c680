//! A broker inside this process, for demonstrations and quick trials: librdkafka's mock cluster.
//!
//! It keeps nothing on disk, and little in memory: beyond 5 MiB (as sent, so compressed) or
//! 100,000 batches a partition it silently drops the oldest batches, read or not. It has no
//! administration (no `topics` commands), no access control, no TLS, and shows records of aborted
//! transactions. A consumer sees what was dropped as a jump of offsets: [`lost_records`] tells,
//! and whoever uses this broker must ask.

use std::fmt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use rdkafka::mocking::MockCluster;

use super::consumer::ConsumerStatus;
use super::{KafkaError, KafkaOptions};

/// From this many batches of records on a partition drops its oldest.
pub const PARTITION_BATCHES_MAX: u64 = 100_000;
/// From this many bytes on, counted as they were sent, a partition drops its oldest batches.
pub const PARTITION_BYTES_MAX: u64 = 5 * 1024 * 1024;

/// A running embedded broker; it ends, with all it holds, when this is dropped.
pub struct EmbeddedBroker {
    servers: String,
    /// Dropping it ends the thread.
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl EmbeddedBroker {
    /// Starts it with these topics and numbers of partitions.
    pub fn start(topics: &[(&str, i32)]) -> Result<Self, KafkaError> {
        let topics: Vec<(String, i32)> = topics.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        let (stop, stopped) = sync_channel(0);
        let (tell, told) = sync_channel(1);
        let name = "kafka-embedded".to_owned();
        // The cluster may not change threads, so it lives and dies on one of its own.
        let thread = thread::Builder::new()
            .name(name.clone())
            .spawn(move || serve(&topics, &tell, &stopped))
            .map_err(|source| KafkaError::Thread { name, source })?;
        let servers = told
            .recv()
            .unwrap_or_else(|_| Err("its thread ended".to_owned()))
            .map_err(|reason| KafkaError::Embedded { reason })?;
        Ok(Self { servers, stop: Some(stop), thread: Some(thread) })
    }

    /// Its address, as Kafka clients want it.
    pub fn bootstrap_servers(&self) -> &str {
        &self.servers
    }

    /// Options with which clients reach it.
    pub fn options(&self, client_id: &str) -> KafkaOptions {
        KafkaOptions::plain(&self.servers, client_id)
    }
}

fn serve(topics: &[(String, i32)], tell: &SyncSender<Result<String, String>>, stopped: &Receiver<()>) {
    let cluster = MockCluster::new(1).and_then(|cluster| {
        topics.iter().try_for_each(|(name, partitions)| cluster.create_topic(name, *partitions, 1))?;
        Ok(cluster)
    });
    let (answer, cluster) = match cluster {
        Ok(cluster) => (Ok(cluster.bootstrap_servers()), Some(cluster)),
        Err(error) => (Err(error.to_string()), None),
    };
    if tell.send(answer).is_ok() && cluster.is_some() {
        // Nothing is ever sent: the end of the sender is the signal.
        while stopped.recv().is_ok() {}
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the embedded broker's thread panicked");
        }
    }
}

impl fmt::Debug for EmbeddedBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedBroker").field("servers", &self.servers).finish_non_exhaustive()
    }
}

/// How many records the embedded broker dropped before a consumer could read them. Only with this
/// broker is a jump of offsets a loss, and only if the consumer was started with
/// [`begins_at_zero`](super::ConsumerOptions::begins_at_zero) are the first records counted too.
pub fn lost_records(status: &ConsumerStatus) -> u64 {
    status.offsets_skipped
}
