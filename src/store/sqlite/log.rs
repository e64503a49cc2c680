//! The event log. There is one writer at a time, so the sequence alone is the order of commits;
//! the transaction's part of a position is always 0.
#![expect(clippy::disallowed_methods, reason = "SQLite's statements are checked by the tests of both adapters")]

use async_trait::async_trait;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::SqliteStore;
use super::rows::moment;
use crate::domain::{LoggedEvent, OrderId, Timestamp};
use crate::ports::{EventLog, LogPosition, StoreError};
use crate::store::row::logged_event;

struct LogRow {
    seq: i64,
    order_id: String,
    version: i32,
    kind: String,
    at: Timestamp,
    data: String,
}

fn log_row(row: &SqliteRow) -> Result<LogRow, sqlx::Error> {
    Ok(LogRow {
        seq: row.try_get("seq")?,
        order_id: row.try_get("order_id")?,
        version: row.try_get("version")?,
        kind: row.try_get("kind")?,
        at: moment(row, "at")?,
        data: row.try_get("data")?,
    })
}

impl LogRow {
    fn into_entry(self, operation: &'static str) -> Result<(LogPosition, LoggedEvent), StoreError> {
        let event = logged_event(&self.order_id, self.version, &self.kind, self.at, &self.data)
            .map_err(|corrupt| corrupt.error(operation))?;
        Ok((LogPosition { xid: 0, seq: self.seq }, event))
    }
}

#[async_trait]
impl EventLog for SqliteStore {
    async fn read_log(&self, after: LogPosition, limit: usize) -> Result<Vec<(LogPosition, LoggedEvent)>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self
            .read("read_log", move |on| {
                Box::pin(async move {
                    let rows = sqlx::query("select * from order_events where seq > ?1 order by seq limit ?2")
                        .bind(after.seq)
                        .bind(limit)
                        .fetch_all(on)
                        .await?;
                    rows.iter().map(log_row).collect::<Result<Vec<_>, _>>()
                })
            })
            .await?;
        rows.into_iter().map(|row| row.into_entry("read_log")).collect()
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

    async fn timeline(&self, order_id: &OrderId) -> Result<Vec<LoggedEvent>, StoreError> {
        let id = order_id.as_str().to_owned();
        let rows = self
            .read("timeline", move |on| {
                Box::pin(async move {
                    let rows = sqlx::query("select * from order_events where order_id = ?1 order by version")
                        .bind(id)
                        .fetch_all(on)
                        .await?;
                    rows.iter().map(log_row).collect::<Result<Vec<_>, _>>()
                })
            })
            .await?;
        rows.into_iter().map(|row| row.into_entry("timeline").map(|(_, event)| event)).collect()
    }
}
