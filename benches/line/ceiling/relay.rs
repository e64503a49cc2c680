//! The log becomes status events, with the same headers and the same JSON.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, ensure};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _};
use recharged::domain::Timestamp;
use serde::Deserialize;
use sqlx::Row as _;
use sqlx::postgres::{PgPool, PgRow};

use super::{Producer, send, statements};

const PAGE: i64 = 5_000;
const BATCHES: i64 = 256;
/// A page smaller than a quarter waits this long for more, as in the service.
const LINGER: Duration = Duration::from_millis(15);
const EMPTY: Duration = Duration::from_millis(10);

#[derive(Deserialize)]
struct Entry<'a> {
    id: &'a str,
    #[serde(rename = "v")]
    version: u32,
    #[serde(rename = "k")]
    kind: &'a str,
    at: i64,
    #[serde(rename = "st")]
    state: &'a str,
    #[serde(rename = "dl")]
    deadline_at: i64,
    #[serde(rename = "a", default)]
    attempt: u16,
    #[serde(rename = "p")]
    provider: &'a str,
    #[serde(default)]
    sla: Option<&'a str>,
}

type Position = (i64, i64);

pub(super) async fn run(log: PgPool, producer: Producer, topic: String) -> Result<()> {
    let mut cursor: Position = (0, 0);
    let mut sent = 0;
    let mut page = read(&log, cursor).await?;
    loop {
        if page.is_empty() {
            tokio::time::sleep(EMPTY).await;
            page = read(&log, cursor).await?;
            continue;
        }
        let last = page.last().map_or(Ok(cursor), position)?;
        // The next page is read while this one is on its way.
        let (published, next) = tokio::join!(publish(&producer, &topic, &page, &mut sent), read(&log, last));
        published?;
        advance(&log, cursor, last).await?;
        cursor = last;
        page = next?;
        if entries(&page).count() < 1_250 {
            tokio::time::sleep(LINGER).await;
            page = read(&log, cursor).await?;
        }
    }
}

fn position(row: &PgRow) -> Result<Position> {
    Ok((row.try_get(0)?, row.try_get(1)?))
}

async fn read(log: &PgPool, after: Position) -> Result<Vec<PgRow>> {
    #[expect(clippy::disallowed_methods, reason = "the store's own statement, checked there")]
    let query = sqlx::query(*statements::READ).bind(after.0).bind(after.1).bind(PAGE).bind(BATCHES);
    Ok(query.fetch_all(log).await?)
}

async fn advance(log: &PgPool, from: Position, to: Position) -> Result<()> {
    #[expect(clippy::disallowed_methods, reason = "the store's own statement, checked there")]
    let query = sqlx::query(*statements::ADVANCE).bind(from.0).bind(from.1).bind(to.0).bind(to.1);
    ensure!(query.execute(log).await?.rows_affected() == 1, "someone else moves the cursor");
    Ok(())
}

/// The lines of a page.
fn entries(page: &[PgRow]) -> impl Iterator<Item = &str> {
    page.iter().filter_map(|row| row.try_get::<&str, _>(2).ok()).flat_map(str::lines)
}

async fn publish(producer: &Producer, topic: &str, page: &[PgRow], sent: &mut u64) -> Result<()> {
    let (mut body, mut id, mut kind, mut time) = (String::new(), String::new(), String::new(), String::new());
    let micros = |at| Timestamp::from_timestamp_micros(at).unwrap_or_default();
    for line in entries(page) {
        let entry: Entry<'_> = serde_json::from_str(line)?;
        for text in [&mut body, &mut id, &mut kind, &mut time] {
            text.clear();
        }
        let Entry { id: order_id, version, kind: event, state, attempt, provider, .. } = entry;
        let (at, deadline) = (micros(entry.at), micros(entry.deadline_at));
        let deadline = deadline.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
        time.push_str(&at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true));
        write!(id, "{order_id}:{version}:{event}")?;
        write!(kind, "recharge.order.{event}.v1")?;
        write!(
            body,
            r#"{{"order_id":"{order_id}","version":{version},"state":"{state}","at":"{time}","deadline_at":"{deadline}","attempt":{attempt},"provider":"{provider}""#
        )?;
        if let Some(sla) = entry.sla {
            write!(body, r#","sla":"{sla}""#)?;
        }
        body.push('}');
        let header = |key, value| Header { key, value: Some(value) };
        let headers = OwnedHeaders::new_with_capacity(7)
            .insert(header("ce_specversion", "1.0"))
            .insert(header("ce_id", &id))
            .insert(header("ce_source", "recharged"))
            .insert(header("ce_type", &kind))
            .insert(header("ce_subject", order_id))
            .insert(header("ce_time", &time))
            .insert(header("content-type", "application/json"));
        let record = BaseRecord::to(topic).key(order_id.as_bytes()).payload(body.as_bytes()).headers(headers);
        send(producer, record).await?;
        *sent += 1;
    }
    while producer.client().context().count()? < *sent {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}
