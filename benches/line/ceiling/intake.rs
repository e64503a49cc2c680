//! The first step: an order becomes a row, a log entry and a command.

use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::Result;
use rdkafka::producer::BaseRecord;
use recharged::clock::SystemClock;
use recharged::domain::Timestamp;
use serde::Deserialize;

use super::records::Batch;
use super::{Ceiling, SLA, send, statements};
use crate::common::scratch::LANE;

#[derive(Deserialize)]
#[expect(clippy::struct_field_names, reason = "the names of the JSON")]
struct Order<'a> {
    order_id: &'a str,
    phone: &'a str,
    amount_minor: i64,
    currency: &'a str,
    carrier: &'a str,
    created_at: Timestamp,
    paid_at: Timestamp,
    payment_id: &'a str,
}

/// As long as the text of a phone number's hash.
const HASH: &str = "0123456789abcdefghijkl";

pub(super) async fn insert_and_ask(ceiling: Arc<Ceiling>, batch: Batch) -> Result<()> {
    let orders = batch.values().map(serde_json::from_slice).collect::<Result<Vec<Order<'_>>, _>>()?;
    insert(&ceiling, &orders).await?;
    let mut command = String::new();
    for order in &orders {
        command.clear();
        write!(
            command,
            r#"{{"kind":"submit","order_id":"{}","attempt":0,"version":1,"deadline_at":{}}}"#,
            order.order_id,
            (order.paid_at + SLA).timestamp_millis()
        )?;
        // As long as a phone number's hash.
        let key = order.phone.as_bytes();
        send(&ceiling.producer, BaseRecord::to(&ceiling.requests).key(key).payload(command.as_bytes())).await?;
    }
    Ok(())
}

async fn insert(ceiling: &Ceiling, orders: &[Order<'_>]) -> Result<()> {
    let rows = orders.len();
    let now = SystemClock::local();
    let at = now.timestamp_micros();
    let entries = orders.iter().map(|order| {
        let (created, paid) = (order.created_at.timestamp_micros(), order.paid_at.timestamp_micros());
        format!(
            r#"{{"id":"{}","v":1,"k":"queued","at":{at},"st":"queued","dl":{},"p":"{LANE}","av":1,"o":{{"am":{},"cu":"{}","ct":{created},"pt":{paid},"pi":"{}","ca":"{}","ph":"{HASH}"}}}}"#,
            order.order_id,
            (order.paid_at + SLA).timestamp_micros(),
            order.amount_minor,
            order.currency,
            order.payment_id,
            order.carrier,
        )
    });
    let (no_text, no_time, no_number) =
        (vec![None::<&str>; rows], vec![None::<Timestamp>; rows], vec![None::<i32>; rows]);
    let (ones, zeros, no) = (vec![1_i32; rows], vec![0_i32; rows], vec![false; rows]);
    #[expect(clippy::disallowed_methods, reason = "the store's own statement, checked there")]
    sqlx::query(*statements::INSERT)
        .bind(orders.iter().map(|order| order.order_id).collect::<Vec<_>>())
        .bind(&ones)
        .bind(vec!["queued"; rows])
        .bind(&ones)
        .bind(orders.iter().map(|order| order.phone).collect::<Vec<_>>())
        .bind(orders.iter().map(|order| order.amount_minor).collect::<Vec<_>>())
        .bind(orders.iter().map(|order| order.currency).collect::<Vec<_>>())
        .bind(orders.iter().map(|order| order.carrier).collect::<Vec<_>>())
        .bind(orders.iter().map(|order| order.created_at).collect::<Vec<_>>())
        .bind(orders.iter().map(|order| order.paid_at).collect::<Vec<_>>())
        .bind(orders.iter().map(|order| order.payment_id).collect::<Vec<_>>())
        .bind(&no)
        .bind(&no_text) // metadata
        .bind(orders.iter().map(|order| order.paid_at + SLA).collect::<Vec<_>>())
        .bind(vec![LANE; rows])
        .bind(&no_number) // attempt
        .bind(&no_text)
        .bind(&no_text)
        .bind(vec![None::<uuid::Uuid>; rows])
        .bind(&no_time)
        .bind(&no_text)
        .bind(&no_text) // inquiry
        .bind(&zeros)
        .bind(&no_time) // wake_at
        .bind(&no_text)
        .bind(&no_text)
        .bind(&no_time) // closed_at
        .bind(&no)
        .bind(&zeros)
        .bind(entries.collect::<Vec<_>>())
        .bind("[]") // refunds
        .bind("[]") // cases
        .bind("[]") // timers
        .bind("[]") // what is told beside
        .fetch_all(&ceiling.writers)
        .await?;
    Ok(())
}
