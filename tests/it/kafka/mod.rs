//! The Kafka adapter against a real broker, and against the embedded one.

mod consumer;
mod dead_letters;
mod embedded;
mod flow;
mod outage;
mod producer;
mod rebalance;
mod security;
mod speed;
mod support;
mod topics;
pub(crate) mod wire;
