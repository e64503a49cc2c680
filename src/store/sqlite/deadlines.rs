//! The orders by deadline. There is one writer at a time, so nothing is ever under way unseen.
#![expect(clippy::disallowed_methods, reason = "SQLite's statements are checked by the tests of both adapters")]

use async_trait::async_trait;

use super::SqliteStore;
use super::rows::order_row;
use crate::domain::{Order, ProviderId, Timestamp};
use crate::ports::{DeadlineBook, DeadlinePosition, Horizon, StoreError, StoreErrorKind};
use crate::store::row::OrderRow;

#[async_trait]
impl DeadlineBook for SqliteStore {
    async fn low_water(&self) -> Result<Timestamp, StoreError> {
        let read = self.read("low_water", |on| {
            Box::pin(async move { sqlx::query_scalar("select low_water from watchdog").fetch_one(on).await })
        });
        let micros: i64 = read.await?;
        Timestamp::from_timestamp_micros(micros).ok_or_else(|| StoreError {
            operation: "low_water",
            kind: StoreErrorKind::Broken,
            source: "the low-water mark is no time".into(),
        })
    }

    async fn raise_low_water(&self, to: Timestamp) -> Result<(), StoreError> {
        self.write("raise_low_water", move |on| {
            Box::pin(async move {
                sqlx::query("update watchdog set low_water = ?1 where low_water < ?1")
                    .bind(to.timestamp_micros())
                    .execute(on)
                    .await
                    .map(drop)
            })
        })
        .await
    }

    async fn horizon(&self) -> Result<Horizon, StoreError> {
        Ok(Horizon { oldest: 0, next: 0 })
    }

    async fn undecided(
        &self,
        after: &DeadlinePosition,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Order>, StoreError> {
        let behind = after.order_id.as_ref().map_or_else(String::new, |id| id.as_str().to_owned());
        let (at, until) = (after.at.timestamp_micros(), until.timestamp_micros());
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows: Vec<OrderRow> = self
            .read("undecided", move |on| {
                Box::pin(async move {
                    let rows =
                        sqlx::query(UNDECIDED).bind(at).bind(until).bind(behind).bind(limit).fetch_all(on).await?;
                    rows.iter().map(order_row).collect()
                })
            })
            .await?;
        rows.into_iter().map(|row| row.into_order().map_err(|corrupt| corrupt.error("undecided"))).collect()
    }

    async fn unanswered(
        &self,
        provider: &ProviderId,
        claimed_before: Timestamp,
        after: &DeadlinePosition,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Order>, StoreError> {
        let behind = after.order_id.as_ref().map_or_else(String::new, |id| id.as_str().to_owned());
        let (at, until) = (after.at.timestamp_micros(), until.timestamp_micros());
        let (provider, claimed_before) = (provider.as_str().to_owned(), claimed_before.timestamp_micros());
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = self.read("unanswered", move |on| {
            Box::pin(async move {
                let query = sqlx::query(UNANSWERED).bind(at).bind(until).bind(behind).bind(limit);
                let rows = query.bind(provider).bind(claimed_before).fetch_all(on).await?;
                rows.iter().map(order_row).collect()
            })
        });
        let rows: Vec<OrderRow> = read.await?;
        rows.into_iter().map(|row| row.into_order().map_err(|corrupt| corrupt.error("unanswered"))).collect()
    }
}

const UNANSWERED: &str = "
    select * from orders
    where deadline_at >= ?1 and deadline_at <= ?2
      and (deadline_at > ?1 or order_id > ?3)
      and state = 'in_flight' and attempt_state = 'sent' and provider = ?5 and claimed_at < ?6
    order by deadline_at, order_id
    limit ?4";

const UNDECIDED: &str = "
    select * from orders
    where deadline_at >= ?1 and deadline_at <= ?2
      and (deadline_at > ?1 or order_id > ?3)
      and (state in ('awaiting_payment', 'queued', 'in_flight', 'retry_wait') or state = 'in_doubt' and sla is null)
    order by deadline_at, order_id
    limit ?4";
