//! The bare ceiling: the three steps of an order with the same statements and the same topics,
//! as fast as a program can do them, and without a single rule. No decision, no quota, no heap,
//! no ledger of offsets, no look at the row before it is written, no metrics. It knows beforehand
//! what every order will become.

mod dispatch;
mod intake;
mod records;
mod relay;
mod statements;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rdkafka::ClientConfig;
use rdkafka::producer::ThreadedProducer;
use recharged::lifecycle::signals;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::common::scratch::{LANE, load};
use records::{Acknowledged, Batch};

/// Rows in a statement at most, as in the service.
const BATCH: usize = 500;
/// More cost more than they bring.
const WRITERS: u32 = 4;
/// From payment to deadline, as configured.
const SLA: chrono::TimeDelta = chrono::TimeDelta::hours(1);

type Producer = ThreadedProducer<Acknowledged>;

struct Ceiling {
    writers: PgPool,
    producer: Producer,
    requests: String,
}

/// Runs until SIGTERM.
pub(crate) fn run(path: &Path) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(path))
}

async fn serve(path: &Path) -> Result<()> {
    let config = load(path)?;
    let topics = config.topics();
    let lane = recharged::domain::ProviderId::new(LANE);
    statements::check()?;
    let options: PgConnectOptions = config.store.url.expose().parse()?;
    // As the store sets them.
    let options = options.options([("plan_cache_mode", "force_custom_plan")]);
    let pool = || PgPoolOptions::new().test_before_acquire(false);
    let ceiling = Arc::new(Ceiling {
        writers: pool().max_connections(WRITERS).connect_with(options.clone()).await?,
        producer: producer(&config.kafka.brokers)?,
        requests: topics.requests(&lane).to_string(),
    });
    let log = pool().max_connections(2).connect_with(options).await?;
    let groups = config.groups();
    let orders = records::read(&config.kafka.brokers, &groups.intake, &topics.orders)?;
    let commands = records::read(&config.kafka.brokers, &groups.dispatch(&lane), &ceiling.requests)?;

    let mut parts = JoinSet::new();
    parts.spawn(relay::run(log, producer(&config.kafka.brokers)?, topics.order_events.to_string()));
    parts.spawn(each(Arc::clone(&ceiling), commands, dispatch::claim_and_settle));
    parts.spawn(each(ceiling, orders, intake::insert_and_ask));
    let mut stop = signals()?;
    tokio::select! {
        biased; // A part that failed is told before the end that was asked for.
        Some(ended) = parts.join_next() => ended?.context("the ceiling"),
        _ = stop.recv() => Ok(()),
    }
}

/// Hands batches to `work`, several at once.
async fn each<F>(
    ceiling: Arc<Ceiling>,
    mut batches: tokio::sync::mpsc::Receiver<Batch>,
    work: fn(Arc<Ceiling>, Batch) -> F,
) -> Result<()>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(WRITERS as usize));
    let mut under_way = JoinSet::new();
    while let Some(batch) = batches.recv().await {
        let place = Arc::clone(&places).acquire_owned().await?;
        while let Some(ended) = under_way.try_join_next() {
            ended??;
        }
        let work = work(Arc::clone(&ceiling), batch);
        under_way.spawn(async move {
            let done = work.await;
            drop(place);
            done
        });
    }
    while let Some(ended) = under_way.join_next().await {
        ended??;
    }
    Ok(())
}

/// With the settings of the service's producers.
fn producer(brokers: &str) -> Result<Producer> {
    let producer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", "lz4")
        .set("partitioner", "murmur2_random")
        .set("batch.size", "262144")
        .set("linger.ms", "2")
        .set("queue.buffering.max.messages", "200000")
        .create_with_context(Acknowledged::default())?;
    Ok(producer)
}

/// Hands a record to librdkafka; waits while its queue is full.
async fn send(producer: &Producer, mut record: rdkafka::producer::BaseRecord<'_, [u8], [u8]>) -> Result<()> {
    use rdkafka::error::{KafkaError, RDKafkaErrorCode};
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                record = again;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}
