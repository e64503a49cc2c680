//! The event log. There is one writer at a time, so the sequence alone is the order of commits:
//! each entry is a batch of its own, and the transaction's part of a position is always 0.
#![expect(clippy::disallowed_methods, reason = "SQLite's statements are checked by the tests of both adapters")]

use async_trait::async_trait;
use sqlx::Row;

use super::SqliteStore;
use crate::domain::{LoggedEvent, OrderId, Recipient};
use crate::ports::{EventLog, LogBatch, LogPosition, StoreError};
use crate::store::row::{Extras, recipients_of, timelines_of};

#[async_trait]
impl EventLog for SqliteStore {
    async fn read_log(&self, after: LogPosition, limit: usize) -> Result<Vec<LogBatch>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.read("read_log", move |on| {
            Box::pin(async move {
                let rows = sqlx::query("select seq, entry from order_events where seq > ?1 order by seq limit ?2")
                    .bind(after.seq)
                    .bind(limit)
                    .fetch_all(on)
                    .await?;
                let batch = |row: &sqlx::sqlite::SqliteRow| {
                    let position = LogPosition { xid: 0, seq: row.try_get("seq")? };
                    Ok(LogBatch { position, entries: row.try_get("entry")? })
                };
                rows.iter().map(batch).collect()
            })
        })
        .await
    }

    async fn has_more(&self, after: LogPosition) -> Result<bool, StoreError> {
        self.read("has_more", move |on| {
            Box::pin(async move {
                sqlx::query_scalar("select exists (select 1 from order_events where seq > ?1)")
                    .bind(after.seq)
                    .fetch_one(on)
                    .await
            })
        })
        .await
    }

    async fn cursor(&self) -> Result<LogPosition, StoreError> {
        let read = self.read("cursor", |on| {
            Box::pin(async move { sqlx::query_scalar("select seq from relay_cursor").fetch_one(on).await })
        });
        Ok(LogPosition { xid: 0, seq: read.await? })
    }

    async fn advance_cursor(&self, from: LogPosition, to: LogPosition) -> Result<bool, StoreError> {
        self.write("advance_cursor", move |on| {
            Box::pin(async move {
                let done = sqlx::query("update relay_cursor set seq = ?2 where seq = ?1")
                    .bind(from.seq)
                    .bind(to.seq)
                    .execute(on)
                    .await?;
                Ok(done.rows_affected() == 1)
            })
        })
        .await
    }

    async fn timelines(&self, ids: &[OrderId]) -> Result<Vec<Vec<LoggedEvent>>, StoreError> {
        let wanted = Extras::json(ids);
        let read = self.read("timelines", move |on| {
            Box::pin(async move {
                sqlx::query_scalar("select entry from order_events where order_id in (select value from json_each(?1))")
                    .bind(wanted)
                    .fetch_all(on)
                    .await
            })
        });
        let lines: Vec<String> = read.await?;
        timelines_of(ids, &lines)
    }

    async fn recipients(&self, ids: &[OrderId]) -> Result<Vec<Option<Recipient>>, StoreError> {
        let wanted = Extras::json(ids);
        let read = self.read("recipients", move |on| {
            Box::pin(async move {
                sqlx::query_as("select order_id, phone from orders where order_id in (select value from json_each(?1))")
                    .bind(wanted)
                    .fetch_all(on)
                    .await
            })
        });
        Ok(recipients_of(ids, read.await?))
    }
}
