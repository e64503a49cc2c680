//! An upstream producer for trials: sells recharges at a pace, open loop. An order's time is the
//! moment at which it should have been sent, so that a slow line cannot hide its own delay.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::domain::Timestamp;
use crate::ports::{Clock, OutRecord, Publisher};

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

/// What was sold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sold {
    /// Orders that the broker has acknowledged.
    pub acknowledged: u64,
    /// Orders of which that is not known.
    pub unacknowledged: u64,
}

/// Batches on their way to the broker at once.
const UNDER_WAY: usize = 8;
/// Orders in a batch at most.
const BATCH: u64 = 1_000;
/// How often the pace is looked at.
const TICK: Duration = Duration::from_millis(5);

impl Shop {
    /// Sells until all is sold or until told to stop. `room` tells how many more orders the
    /// broker can hold (an embedded one holds little); `on_sold` hears of each acknowledged batch.
    pub async fn sell(
        &self,
        publisher: Arc<dyn Publisher>,
        topic: &Arc<str>,
        clock: &dyn Clock,
        room: &(impl Fn() -> u64 + Sync),
        on_sold: &(impl Fn(u64) + Sync),
        stop: &CancellationToken,
    ) -> Sold {
        let mut rng = StdRng::seed_from_u64(self.seed);
        let opened = clock.now();
        let began = clock.since_boot();
        let mut under_way = JoinSet::new();
        let (mut sold, mut sent) = (Sold::default(), 0_u64);
        let most = self.orders.unwrap_or(u64::MAX);
        while sent < most && !stop.is_cancelled() {
            let due = self.due(clock.since_boot().saturating_sub(began)).min(most);
            let now = due.saturating_sub(sent).min(BATCH).min(room());
            if now == 0 || under_way.len() >= UNDER_WAY {
                tokio::select! {
                    biased; // What is acknowledged makes room.
                    Some(done) = under_way.join_next() => count(&done, &mut sold, on_sold),
                    () = tokio::time::sleep(TICK) => {}
                }
                continue;
            }
            let mut batch = Vec::new();
            for number in sent..sent + now {
                let order = self.order(number, opened, topic, &mut rng);
                if self.is_repeated(&mut rng) {
                    batch.push(order.clone());
                }
                batch.push(order);
            }
            sent += now;
            let publisher = Arc::clone(&publisher);
            under_way.spawn(async move {
                let failed = publisher.publish(&batch).await.iter().filter(|result| result.is_err()).count() as u64;
                (now.saturating_sub(failed), failed)
            });
        }
        while let Some(done) = under_way.join_next().await {
            count(&done, &mut sold, on_sold);
        }
        sold
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

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count, never negative")]
    fn due(&self, passed: Duration) -> u64 {
        (passed.as_secs_f64() * self.rate) as u64 + 1
    }

    fn order(&self, number: u64, opened: Timestamp, topic: &Arc<str>, rng: &mut StdRng) -> OutRecord {
        #[expect(clippy::cast_precision_loss, reason = "a count of orders stays far below 2^53")]
        let meant = opened + Duration::from_secs_f64(number as f64 / self.rate.max(f64::MIN_POSITIVE));
        let at = meant.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
        let (amount, phone) = self.draw(rng);
        let phone = phone.map_or_else(|| "138".to_owned(), |number| format!("+86138000{number:05}"));
        let order_id = self.id(number);
        let body = json!({
            "order_id": order_id, "phone": phone, "amount_minor": amount, "currency": "CNY",
            "created_at": at, "paid_at": at, "payment_id": format!("pay-{number}"),
        });
        let header = |name: &'static str, value: Bytes| (Bytes::from_static(name.as_bytes()), Some(value));
        OutRecord {
            topic: Arc::clone(topic),
            key: Some(Bytes::from(order_id.clone())),
            value: Some(Bytes::from(body.to_string())),
            headers: vec![
                header("ce_specversion", Bytes::from_static(b"1.0")),
                header("ce_id", Bytes::from(format!("{order_id}:created"))),
                header("ce_source", Bytes::from_static(b"recharged-load")),
                header("ce_type", Bytes::from_static(b"recharge.order.created.v1")),
                header("content-type", Bytes::from_static(b"application/json")),
            ],
        }
    }
}

fn count(done: &Result<(u64, u64), tokio::task::JoinError>, sold: &mut Sold, on_sold: &impl Fn(u64)) {
    let Ok((acknowledged, failed)) = done else { return };
    sold.acknowledged += acknowledged;
    sold.unacknowledged += failed;
    on_sold(*acknowledged);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_orders_that_can_be_recharged_are_known_before_they_are_sold() {
        let prefix = "demo".to_owned();
        let shop = Shop { rate: 1.0, orders: Some(500), prefix, seed: 7, unusable: 0.2, repeated: 0.3 };
        let mut rng = StdRng::seed_from_u64(shop.seed);
        let topic: Arc<str> = "orders".into();
        let sold = (0..500).filter_map(|number| {
            let order = shop.order(number, Timestamp::UNIX_EPOCH, &topic, &mut rng);
            shop.is_repeated(&mut rng);
            let body: serde_json::Value = serde_json::from_slice(&order.value.unwrap_or_default()).ok()?;
            (body["phone"] != "138").then(|| body["order_id"].as_str().unwrap_or_default().to_owned())
        });
        let sold: Vec<String> = sold.collect();
        assert_eq!(shop.usable(1_000), sold);
        assert!((350..450).contains(&sold.len()), "{}", sold.len());
    }
}
