//! Writing records: idempotent, acknowledged by all in-sync replicas, bounded in flight.

mod delivery;
mod waves;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, PurgeConfig};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::KafkaError;
use super::context::Listener;
use super::options::{KafkaOptions, Scrubber, create};
use super::reach::Reach;
use super::sync::lock;
use crate::ports::{OutRecord, PublishError, Publisher};

use delivery::{Batch, DeliveryContext, Ticket};
use waves::{TopicWaves, Waves};

/// How long the poll thread sleeps in librdkafka; reports wake it. The client spins through the
/// last fraction of a millisecond of each wait, so a short one costs most of an idle process's CPU.
const POLL: Duration = Duration::from_secs(2);
/// How often the client says what it knows.
const STATISTICS: Duration = Duration::from_secs(3);
/// How long to wait when librdkafka's queue is full by bytes.
const FULL_PAUSE: Duration = Duration::from_millis(5);

/// What waits in librdkafka takes so much memory at most, unless a producer shares it out by topic.
const QUEUE_KBYTES: usize = 16_384;
/// librdkafka believes that a topic does not exist after this long.
const UNKNOWN_AFTER: Duration = Duration::from_secs(30);

/// What one writer hands over at once at most: with a few partitions, a request for each.
const WAVE_BYTES: usize = 768 * 1024;

/// A client that broke younger than this is not replaced yet: a cause that stays would make one
/// after the other.
const REBUILD_PAUSE: Duration = Duration::from_secs(1);

/// How a producer writes.
#[derive(Debug, Clone)]
pub struct ProducerOptions {
    /// After this long a record counts as not acknowledged. `None`: never, for the relay, where
    /// giving up would let a later version of an order overtake; its caller bounds the wait.
    pub message_timeout: Option<Duration>,
    /// At most this many records are with librdkafka; more make the caller wait.
    pub max_in_flight_records: usize,
    /// How much of one topic may be with librdkafka, in records of a KiB: what is larger counts for more.
    /// Beyond it only writers to this topic wait, so that one that is not answered takes no other's
    /// place. `None`: as much as of all together.
    pub topic_share: Option<u32>,
    /// How long a record may wait for others to share its request.
    pub linger: Duration,
    /// Nothing is written past a record that failed: what stands behind it in its batch is answered
    /// as not acknowledged, so that its writer can go on with it in order.
    pub in_order: bool,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self {
            message_timeout: Some(Duration::from_secs(30)),
            max_in_flight_records: 10_000,
            topic_share: None,
            linger: Duration::from_millis(5),
            in_order: false,
        }
    }
}

impl ProducerOptions {
    fn validate(&self) -> Result<(), KafkaError> {
        let problem = if !(1..=10_000_000).contains(&self.max_in_flight_records) {
            Some("max_in_flight_records must be 1 to 10,000,000")
        } else if self.message_timeout.is_some_and(|timeout| timeout <= self.linger) {
            Some("message_timeout must be longer than linger")
        } else if self.topic_share == Some(0) {
            Some("topic_share must be at least 1")
        } else {
            None
        };
        problem.map_or(Ok(()), |reason| Err(KafkaError::Options { reason: reason.to_owned() }))
    }

    fn config(&self, kafka: &KafkaOptions) -> Result<ClientConfig, KafkaError> {
        let timeout = self.message_timeout.map_or(0, |timeout| timeout.as_millis().max(1));
        let mut config = kafka.config(&[
            ("compression.type", "lz4"),
            // The partition that Java's producers choose for a key, so that both agree.
            ("partitioner", "murmur2_random"),
            // A batch must fit the smallest topic: the broker refuses it whole.
            ("batch.size", "262144"),
            // What is too large for a topic is for its broker to say.
            ("message.max.bytes", "8388608"),
            ("queue.buffering.max.kbytes", &QUEUE_KBYTES.to_string()),
        ])?;
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("allow.auto.create.topics", "false")
            .set("statistics.interval.ms", STATISTICS.as_millis().to_string())
            .set("message.timeout.ms", timeout.to_string())
            .set("queue.buffering.max.ms", self.linger.as_millis().to_string())
            .set("queue.buffering.max.messages", self.max_in_flight_records.to_string());
        if self.topic_share.is_some() {
            // The shares are of records of a KiB: it must hold as many.
            let kbytes = self.max_in_flight_records.clamp(QUEUE_KBYTES, 2_000_000);
            config.set("queue.buffering.max.kbytes", kbytes.to_string());
        }
        if let Some(timeout) = self.message_timeout.filter(|timeout| *timeout < UNKNOWN_AFTER) {
            // Else a topic that does not exist is one that does not answer in time.
            config.set("topic.metadata.propagation.max.ms", timeout.as_millis().to_string());
        }
        if self.in_order {
            // A failed request breaks the client, and with it what was handed over behind it.
            config.set("enable.gapless.guarantee", "true");
        }
        Ok(config)
    }
}

/// A producer, seen from outside.
#[derive(Debug, Clone, Default)]
pub struct ProducerStatus {
    /// Records that are not answered yet.
    pub in_flight: usize,
    /// Times that the client broke and was made anew.
    pub rebuilds: u64,
    /// No broker has answered for some seconds.
    pub unreachable: bool,
    /// The client's last error; it may be long over.
    pub last_error: Option<String>,
}

type Client = BaseProducer<DeliveryContext>;

/// Writes records; see [`Publisher`].
pub struct Producer {
    config: ClientConfig,
    scrubber: Scrubber,
    options: ProducerOptions,
    permits: Arc<Semaphore>,
    waves: TopicWaves,
    reach: Arc<Reach>,
    /// `None` once it is closed.
    client: Mutex<Option<Running>>,
    rebuilds: AtomicU64,
}

/// What a batch is written with.
#[derive(Default)]
struct Writing {
    /// Held from one record to the next, but never while its writer waits: a broken client ends
    /// once nobody holds it.
    client: Option<Arc<Client>>,
    /// The generation of the batch's first client.
    first: Option<u64>,
}

/// What a record that is not handed over yet has of its topic's share.
struct Share<'a> {
    waves: &'a Waves,
    weight: u32,
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.waves.give_back(self.weight);
    }
}

/// A client and the thread that serves its reports.
struct Running {
    client: Arc<Client>,
    stop: Arc<AtomicBool>,
    made_at: Instant,
}

impl Producer {
    /// A producer; it connects in the background.
    pub fn new(kafka: &KafkaOptions, options: ProducerOptions) -> Result<Self, KafkaError> {
        options.validate()?;
        let producer = Self {
            config: options.config(kafka)?,
            scrubber: kafka.scrubber(),
            permits: Arc::new(Semaphore::new(options.max_in_flight_records)),
            waves: TopicWaves::new(options.topic_share),
            reach: Arc::new(Reach::new(STATISTICS)),
            options,
            client: Mutex::new(None),
            rebuilds: AtomicU64::new(0),
        };
        *lock(&producer.client) = Some(producer.connect()?);
        Ok(producer)
    }

    /// How it stands.
    pub fn status(&self) -> ProducerStatus {
        let last_error = lock(&self.client)
            .as_ref()
            .and_then(|running| running.client.client().context().listener.last())
            .map(|told| told.text);
        ProducerStatus {
            in_flight: self.in_flight(),
            rebuilds: self.rebuilds.load(Ordering::Relaxed),
            unreachable: self.reach.is_lost(std::time::Instant::now()),
            last_error,
        }
    }

    /// Takes no more records, waits at most `deadline` for those in flight, and gives up the
    /// rest: their writers hear that they are not acknowledged. Returns how many these were.
    pub async fn close(&self, deadline: Duration) -> usize {
        let everything = u32::try_from(self.options.max_in_flight_records).unwrap_or(u32::MAX);
        let flushed = tokio::time::timeout(deadline, self.permits.acquire_many(everything)).await;
        let leftover = if matches!(flushed, Ok(Ok(_))) { 0 } else { self.in_flight() };
        drop(lock(&self.client).take());
        leftover
    }

    fn in_flight(&self) -> usize {
        self.options.max_in_flight_records.saturating_sub(self.permits.available_permits())
    }

    fn connect(&self) -> Result<Running, KafkaError> {
        let context = DeliveryContext {
            listener: Listener::new(self.scrubber.clone()),
            generation: self.rebuilds.load(Ordering::Relaxed),
            permits: Arc::clone(&self.permits),
            broken: AtomicBool::new(false),
            reach: Arc::clone(&self.reach),
            forgotten: AtomicBool::new(false),
        };
        let client: Arc<Client> = Arc::new(create(&self.config, context, &self.scrubber)?);
        let stop = Arc::new(AtomicBool::new(false));
        let name = "kafka-producer".to_owned();
        let (served, stopped) = (Arc::clone(&client), Arc::clone(&stop));
        thread::Builder::new()
            .name(name.clone())
            .spawn(move || serve(served, &stopped))
            .map_err(|source| KafkaError::Thread { name, source })?;
        Ok(Running { client, stop, made_at: Instant::now() })
    }

    /// Replaces a client that broke while nobody writes; to be called now and then.
    pub fn tend(&self) {
        // Closed, or made a moment ago: the next time tells.
        let _client = self.client();
    }

    /// The client to write with; a broken one is replaced. An idempotent producer breaks for good
    /// when the broker lost what it had acknowledged or took its rights; what was in flight is
    /// answered as not acknowledged, and repeating it is for the writer, who knows how.
    fn client(&self) -> Result<Arc<Client>, PublishError> {
        let mut client = lock(&self.client);
        let Some(running) = client.as_ref() else {
            return Err(PublishError::Unacknowledged("the producer is closed".to_owned()));
        };
        if !running.client.client().context().broken.load(Ordering::Acquire) {
            return Ok(Arc::clone(&running.client));
        }
        let cause = running.client.client().fatal_error().map(|(_, text)| self.scrubber.clean(&text));
        let cause = cause.unwrap_or_else(|| "it has forgotten every broker".to_owned());
        if running.made_at.elapsed() < REBUILD_PAUSE {
            return Err(PublishError::Unacknowledged(format!("the producer is broken: {cause}")));
        }
        tracing::error!("the producer broke and is made anew: {cause}");
        self.rebuilds.fetch_add(1, Ordering::Relaxed);
        let anew = self.connect().map_err(|error| PublishError::Unacknowledged(error.to_string()))?;
        let made = Arc::clone(&anew.client);
        *client = Some(anew);
        Ok(made)
    }

    /// The client for the next record of a batch. In order, what failed ends the batch, and so does
    /// another client: what the one before had in hand fails, if it has not been said yet.
    fn next_client(&self, writing: &mut Writing, batch: &Batch) -> Result<Arc<Client>, PublishError> {
        let behind = || Err(PublishError::Unacknowledged("a record before it was not written".to_owned()));
        if self.options.in_order && batch.has_failed() {
            return behind();
        }
        let client = writing.client.take().map_or_else(|| self.client(), Ok)?;
        let generation = client.client().context().generation;
        let first = *writing.first.get_or_insert(generation);
        if self.options.in_order && first != generation { behind() } else { Ok(client) }
    }

    /// When the callers of this batch have waited long enough.
    fn give_up_at(&self) -> Option<Instant> {
        self.options.message_timeout.map(|timeout| Instant::now() + timeout)
    }

    async fn permits(&self, wanted: usize, give_up_at: Option<Instant>) -> Result<SemaphorePermit<'_>, PublishError> {
        let count = wanted.min(self.options.max_in_flight_records);
        let acquire = self.permits.acquire_many(u32::try_from(count).unwrap_or(u32::MAX));
        let acquired = match give_up_at {
            Some(at) => tokio::time::timeout_at(at, acquire)
                .await
                .map_err(|_| PublishError::Unacknowledged("the producer's queue stayed full".to_owned()))?,
            None => acquire.await,
        };
        acquired.map_err(|_| PublishError::Unacknowledged("the producer is closed".to_owned()))
    }

    /// Hands one record to librdkafka, waiting while its queue is full; `false` if it was
    /// answered here, and no report will come.
    async fn send(
        &self,
        writing: &mut Writing,
        record: &OutRecord,
        ticket: Ticket,
        give_up_at: Option<Instant>,
    ) -> bool {
        let mut ticket = Box::new(ticket);
        loop {
            let with = match self.next_client(writing, &ticket.batch) {
                Ok(with) => with,
                Err(error) => {
                    ticket.batch.answer(ticket.index, Err(error));
                    return false;
                }
            };
            ticket.waves.handed_over();
            let (error, back) = match with.send(outgoing(record, ticket)) {
                Ok(()) => {
                    writing.client = Some(with);
                    return true;
                }
                Err((error, record)) => (error, record.delivery_opaque),
            };
            ticket = back;
            ticket.waves.answered();
            match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) if give_up_at.is_none_or(|at| Instant::now() < at) => {
                    drop(with);
                    tokio::time::sleep(FULL_PAUSE).await;
                }
                Some(RDKafkaErrorCode::Fatal) => with.client().context().broken.store(true, Ordering::Release),
                Some(_) | None => {
                    ticket.batch.answer(ticket.index, Err(with.client().context().refusal(&error)));
                    return false;
                }
            }
        }
    }
}

#[async_trait]
impl Publisher for Producer {
    /// Dropping the future loses no permit; what was handed over is still written.
    async fn publish(&self, batch: &[OutRecord]) -> Vec<Result<(), PublishError>> {
        let tracker = Arc::new(Batch::new(batch.len()));
        let give_up_at = self.give_up_at();
        let mut permits: Option<SemaphorePermit<'_>> = None;
        let (mut writing, mut wave_bytes) = (Writing::default(), 0);
        // The topics of this wave; a batch has few.
        let mut waves: Vec<(&Arc<str>, Arc<Waves>)> = Vec::new();
        for (index, record) in batch.iter().enumerate() {
            let bytes = size(record);
            if wave_bytes > WAVE_BYTES {
                wave_bytes = 0;
                waves.clear();
            }
            wave_bytes += bytes;
            let known = waves.iter().find(|(topic, _)| *topic == &record.topic).map(|(_, wave)| Arc::clone(wave));
            let wave = if let Some(wave) = known {
                wave
            } else {
                writing.client = None;
                let wave = self.waves.of(&record.topic);
                wave.turn().await;
                waves.push((&record.topic, Arc::clone(&wave)));
                wave
            };
            let weight = wave.weight(bytes);
            if !wave.try_take(weight) {
                // Whoever waits for its topic alone takes no other's place, nor keeps a broken client.
                (permits, writing.client) = (None, None);
                if !wave.take(weight, give_up_at).await {
                    let full = "the share of its topic in the producer's queue stayed full".to_owned();
                    tracker.answer(index, Err(PublishError::Unacknowledged(full)));
                    continue;
                }
            }
            let share = Share { waves: &wave, weight };
            let mut permit = permits.as_mut().and_then(|permits| permits.split(1));
            if permit.is_none() {
                // A broken client gives its permits back once nobody holds it any more.
                writing.client = None;
                match self.permits(batch.len() - index, give_up_at).await {
                    Ok(mut more) => {
                        permit = more.split(1);
                        permits = Some(more);
                    }
                    Err(error) => tracker.answer(index, Err(error)),
                }
            }
            let Some(permit) = permit else { continue };
            let ticket = Ticket { batch: Arc::clone(&tracker), index, waves: Arc::clone(&wave), weight };
            if self.send(&mut writing, record, ticket, give_up_at).await {
                // The report gives both back, whether or not anybody still waits for it.
                permit.forget();
                std::mem::forget(share);
            }
        }
        drop((permits, writing));
        tracker.answers(batch.len()).await
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("options", &self.options)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Whoever waits for an answer hears at once that there is none; the reports wake the thread.
        self.client.purge(PurgeConfig::default().queue().inflight().non_blocking());
    }
}

/// Serves reports until the producer is closed or replaced, then destroys the client here, where
/// waiting is allowed: what is left in it is answered as purged.
fn serve(client: Arc<Client>, stop: &AtomicBool) {
    while !stop.load(Ordering::Acquire) {
        client.poll(POLL);
        if client.context().has_forgotten() {
            // Its writers hear that nothing was acknowledged; their next try makes a new client.
            client.purge(PurgeConfig::default().queue().inflight());
        }
    }
    // A writer may hold it for the moment of one send.
    while Arc::strong_count(&client) > 1 {
        client.poll(Duration::from_millis(10));
    }
    drop(client);
}

fn outgoing(record: &OutRecord, ticket: Box<Ticket>) -> BaseRecord<'_, [u8], [u8], Box<Ticket>> {
    let mut out = BaseRecord::with_opaque_to(&record.topic, ticket);
    out.key = record.key.as_deref();
    out.payload = record.value.as_deref();
    if !record.headers.is_empty() {
        out.headers = Some(headers(record));
    }
    out
}

fn size(record: &OutRecord) -> usize {
    let headers: usize =
        record.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, bytes::Bytes::len)).sum();
    record.key.as_ref().map_or(0, bytes::Bytes::len) + record.value.as_ref().map_or(0, bytes::Bytes::len) + headers
}

/// Header names must be UTF-8 to be written; one that is not is written with replacement
/// characters, values as they are.
fn headers(record: &OutRecord) -> OwnedHeaders {
    record.headers.iter().fold(OwnedHeaders::new_with_capacity(record.headers.len()), |headers, (name, value)| {
        headers.insert(Header { key: &String::from_utf8_lossy(name), value: value.as_deref() })
    })
}
