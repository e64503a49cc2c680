//! `recharged load`: a shop that sends orders.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use rand::Rng as _;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::config::{ConfigArgs, environment};
use super::output::{CliError, Output};
use super::values;
use crate::app::{broker_trouble, kafka_options};
use crate::clock::SystemClock;
use crate::config::{Config, Needs};
use crate::kafka::{KafkaOptions, Producer, ProducerOptions, topics};
use crate::lifecycle;
use crate::ports::{Clock, Publisher};
use crate::shop::Shop;

/// `recharged load`.
#[derive(Debug, Clone, Args)]
pub struct LoadArgs {
    #[command(flatten)]
    pub(crate) from: ConfigArgs,
    /// Orders a second, each sent at its intended time whatever became of the others
    #[arg(long, value_name = "N", default_value_t = 100.0, value_parser = values::rate)]
    pub rate: f64,
    /// Orders in all; without it, until --duration
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), required_unless_present = "duration")]
    pub orders: Option<u64>,
    /// How long to send; without it, until --orders
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub duration: Option<Duration>,
    /// Seed of numbers and amounts; a random one, if left out
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// How order ids begin; random, if left out
    #[arg(long, value_name = "TEXT")]
    pub prefix: Option<String>,
}

#[derive(Serialize)]
struct Sent {
    prefix: String,
    seed: u64,
    acknowledged: u64,
    unacknowledged: u64,
    seconds: f64,
    orders_per_second: f64,
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} orders {}-0 and on were acknowledged in {:.1} s ({:.0}/s), {} were not (seed {})",
            self.acknowledged, self.prefix, self.seconds, self.orders_per_second, self.unacknowledged, self.seed
        )
    }
}

pub(crate) async fn run(args: LoadArgs, output: Output) -> Result<(), CliError> {
    let loaded = args.from.load(Needs::KAFKA)?;
    let secrets = loaded.secrets(environment())?;
    let kafka = kafka_options(&loaded.config, &secrets);
    let topic = orders_topic(&loaded.config, &kafka).await?;
    let options = ProducerOptions { max_in_flight_records: 50_000, ..ProducerOptions::default() };
    let producer = Producer::new(&kafka, options).map_err(|error| broker_trouble(&loaded.config, &error))?;
    let producer: Arc<dyn Publisher> = Arc::new(producer);
    let mut random = rand::rng();
    let seller = Shop {
        rate: args.rate,
        orders: args.orders,
        prefix: args.prefix.unwrap_or_else(|| format!("load-{:08x}", random.random::<u32>())),
        seed: args.seed.unwrap_or_else(|| random.random()),
        unusable: 0.0,
        repeated: 0.0,
    };
    let stop = stop_after(args.duration)?;
    let clock = SystemClock::new();
    let began = clock.since_boot();
    let (sold_so_far, told_at) = (AtomicU64::new(0), AtomicU64::new(0));
    let on_sold = |count: u64| {
        let sold = sold_so_far.fetch_add(count, Ordering::Relaxed) + count;
        let second = clock.since_boot().saturating_sub(began).as_secs();
        if told_at.swap(second, Ordering::Relaxed) != second {
            output.progress(format_args!("{sold} orders acknowledged"));
        }
    };
    let sold = seller.sell(producer, &topic, &clock, &|| u64::MAX, &on_sold, &stop).await;
    let seconds = clock.since_boot().saturating_sub(began).as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let orders_per_second = sold.acknowledged as f64 / seconds.max(1e-9);
    output.result(&Sent {
        prefix: seller.prefix,
        seed: seller.seed,
        acknowledged: sold.acknowledged,
        unacknowledged: sold.unacknowledged,
        seconds,
        orders_per_second,
    })?;
    if sold.unacknowledged > 0 {
        return Err(CliError::failed(format!("{} orders were not acknowledged by the broker", sold.unacknowledged)));
    }
    Ok(())
}

/// The topic of the orders, which is there. A producer alone would wait for a broker that is away; asking for the topic
/// first tells at once.
pub(super) async fn orders_topic(config: &Config, kafka: &KafkaOptions) -> Result<Arc<str>, CliError> {
    let topic = config.topics().orders;
    let plans = crate::app::topic_plans(config);
    let plan: Vec<_> = plans.into_iter().filter(|plan| *plan.name == *topic).collect();
    let problems =
        topics::verify(kafka, &plan, topics::ANSWER_LIMIT).await.map_err(|error| broker_trouble(config, &error))?;
    if let Some(topics::Problem::Missing { .. }) = problems.first() {
        return Err(CliError::config(format!(
            "kafka.topic_prefix: there is no topic {topic}: run `recharged topics create`"
        )));
    }
    Ok(topic)
}

/// Cancelled when the time is over, or at a signal.
fn stop_after(duration: Option<Duration>) -> Result<CancellationToken, CliError> {
    let stop = CancellationToken::new();
    let mut signals =
        lifecycle::signals().map_err(|error| CliError::failed(format!("no signals can be heard ({error})")))?;
    let told = stop.clone();
    tokio::spawn(async move {
        match duration {
            Some(duration) => {
                tokio::select! {
                    _ = signals.recv() => {}
                    () = tokio::time::sleep(duration) => {}
                }
            }
            None => drop(signals.recv().await),
        }
        told.cancel();
    });
    Ok(stop)
}
