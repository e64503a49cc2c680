//! An upstream producer for trials: sells recharges at a pace, open loop. An order's time is the
//! moment at which it should have been sent, so that a slow line cannot hide its own delay.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::domain::Timestamp;
use crate::ports::{Clock, OutRecord, Publisher};

pub mod customers;
pub mod pace;

pub use pace::{Parcel, Sold};

/// What to sell, and how fast.
#[derive(Debug, Clone)]
pub struct Shop {
    /// Orders per second.
    pub rate: f64,
    /// How many in all; `None`: until told to stop.
    pub orders: Option<u64>,
    /// Begins every order id, so that two runs do not meet.
    pub prefix: String,
    /// For amounts, numbers and what is unusable.
    pub seed: u64,
    /// Of 1: paid orders whose phone number cannot be recharged.
    pub unusable: f64,
    /// Of 1: orders that are sent twice.
    pub repeated: f64,
}

impl Shop {
    /// Sells until all is sold or until told to stop; as [`pace::send`] sends.
    pub async fn sell(
        &self,
        publisher: Arc<dyn Publisher>,
        topic: &Arc<str>,
        clock: &dyn Clock,
        room: &(impl Fn() -> u64 + Sync),
        on_sold: &(impl Fn(u64) + Sync),
        stop: &CancellationToken,
    ) -> Sold {
        pace::send(self.parcels(clock.now(), topic), publisher, clock, room, on_sold, stop).await
    }

    fn parcels(&self, opened: Timestamp, topic: &Arc<str>) -> impl Iterator<Item = Parcel> {
        let mut rng = StdRng::seed_from_u64(self.seed);
        (0..self.orders.unwrap_or(u64::MAX)).map(move |number| {
            let after = after(number, self.rate);
            let order = self.order(number, opened + after, topic, &mut rng);
            let times = if self.is_repeated(&mut rng) { 2 } else { 1 };
            Parcel { after, records: vec![order; times], is_order: true }
        })
    }

    /// The ids of those of the first `count` orders whose phone number can be recharged.
    pub fn usable(&self, count: u64) -> Vec<String> {
        let mut rng = StdRng::seed_from_u64(self.seed);
        let is_usable = |_: &u64| {
            let (_, phone) = self.draw(&mut rng);
            self.is_repeated(&mut rng);
            phone.is_some()
        };
        (0..count.min(self.orders.unwrap_or(count))).filter(is_usable).map(|number| self.id(number)).collect()
    }

    fn id(&self, number: u64) -> String {
        format!("{}-{number}", self.prefix)
    }

    /// What an order is of: its amount, and the end of its number, unless that is unusable.
    fn draw(&self, rng: &mut StdRng) -> (i64, Option<u32>) {
        let amounts = [1_000, 2_000, 3_000, 5_000, 10_000];
        let amount = amounts.get(rng.random_range(0..amounts.len())).copied().unwrap_or(5_000);
        let is_unusable = rng.random_bool(self.unusable.clamp(0.0, 1.0));
        (amount, (!is_unusable).then(|| rng.random_range(0..100_000)))
    }

    fn is_repeated(&self, rng: &mut StdRng) -> bool {
        rng.random_bool(self.repeated.clamp(0.0, 1.0))
    }

    fn order(&self, number: u64, at: Timestamp, topic: &Arc<str>, rng: &mut StdRng) -> OutRecord {
        let at = in_words(at);
        let (amount, phone) = self.draw(rng);
        let phone = phone.map_or_else(|| "138".to_owned(), |number| format!("+86138000{number:05}"));
        let order_id = self.id(number);
        let body = json!({
            "order_id": order_id, "phone": phone, "amount_minor": amount, "currency": "CNY",
            "created_at": at, "paid_at": at, "payment_id": format!("pay-{number}"),
        });
        event(topic, &order_id, "created", &body)
    }
}

/// When the order of this number is meant to be sold, from the beginning.
fn after(number: u64, rate: f64) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "a count of orders stays far below 2^53")]
    Duration::from_secs_f64(number as f64 / rate.max(f64::MIN_POSITIVE))
}

fn in_words(at: Timestamp) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

/// An event of an order: `created`, `paid` or `cancelled`.
fn event(topic: &Arc<str>, order_id: &str, what: &str, body: &serde_json::Value) -> OutRecord {
    let header = |name: &'static str, value: Bytes| (Bytes::from_static(name.as_bytes()), Some(value));
    OutRecord {
        topic: Arc::clone(topic),
        key: Some(Bytes::from(order_id.to_owned())),
        value: Some(Bytes::from(body.to_string())),
        headers: vec![
            header("ce_specversion", Bytes::from_static(b"1.0")),
            header("ce_id", Bytes::from(format!("{order_id}:{what}"))),
            header("ce_source", Bytes::from_static(b"recharged-load")),
            header("ce_type", Bytes::from(format!("recharge.order.{what}.v1"))),
            header("content-type", Bytes::from_static(b"application/json")),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_orders_that_can_be_recharged_are_known_before_they_are_sold() {
        let prefix = "demo".to_owned();
        let shop = Shop { rate: 1.0, orders: Some(500), prefix, seed: 7, unusable: 0.2, repeated: 0.3 };
        let topic: Arc<str> = "orders".into();
        let sold = shop.parcels(Timestamp::UNIX_EPOCH, &topic).filter_map(|parcel| {
            let order = parcel.records.into_iter().next()?;
            let body: serde_json::Value = serde_json::from_slice(&order.value.unwrap_or_default()).ok()?;
            (body["phone"] != "138").then(|| body["order_id"].as_str().unwrap_or_default().to_owned())
        });
        let sold: Vec<String> = sold.collect();
        assert_eq!(shop.usable(1_000), sold);
        assert!((350..450).contains(&sold.len()), "{}", sold.len());
    }
}
