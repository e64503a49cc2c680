//! What upstream sends.

use bytes::Bytes;
use recharged::clock::SystemClock;
use recharged::ports::{OutRecord, Publisher as _};
use serde_json::{Value, json};

use super::Line;

impl Line {
    /// Writes raw records to a topic, and waits for the broker's acknowledgement.
    pub(crate) async fn write(&self, records: Vec<OutRecord>) {
        for result in self.producer.publish(&records).await {
            result.unwrap();
        }
    }

    /// A paid order, as plain JSON.
    pub(crate) fn order(&self, id: &str) -> OutRecord {
        self.record(id, &order_json(id))
    }

    pub(crate) fn record(&self, key: &str, value: &Value) -> OutRecord {
        OutRecord {
            topic: self.topic("orders"),
            key: Some(Bytes::from(key.to_owned())),
            value: Some(Bytes::from(value.to_string())),
            headers: Vec::new(),
        }
    }

    /// Sends paid orders `{prefix}-0` and on.
    pub(crate) async fn send(&self, prefix: &str, count: u64) {
        let ids: Vec<String> = (0..count).map(|number| format!("{prefix}-{number}")).collect();
        for chunk in ids.chunks(1_000) {
            self.write(chunk.iter().map(|id| self.order(id)).collect()).await;
        }
    }
}

/// A paid order as upstream sends it, with a number of nobody.
pub(crate) fn order_json(id: &str) -> Value {
    let number: u32 = id.bytes().fold(7, |hash: u32, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
    let now = SystemClock::local().to_rfc3339();
    json!({
        "order_id": id, "phone": format!("+86138000{:05}", number % 100_000), "amount_minor": 5000,
        "currency": "CNY", "created_at": now, "paid_at": now, "payment_id": format!("pay-{id}"),
    })
}
