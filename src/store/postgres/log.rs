//! The event log.

use async_trait::async_trait;
use sqlx::postgres::PgConnection;

use super::PostgresStore;
use crate::domain::{LoggedEvent, OrderId, Timestamp};
use crate::ports::{EventLog, LogPosition, StoreError};
use crate::store::row::logged_event;

struct LogRow {
    xid: i64,
    seq: i64,
    order_id: String,
    version: i32,
    kind: String,
    at: Timestamp,
    data: String,
}

impl LogRow {
    fn into_entry(self, operation: &'static str) -> Result<(LogPosition, LoggedEvent), StoreError> {
        let event = logged_event(&self.order_id, self.version, &self.kind, self.at, &self.data)
            .map_err(|corrupt| corrupt.error(operation))?;
        Ok((LogPosition { xid: self.xid, seq: self.seq }, event))
    }
}

#[async_trait]
impl EventLog for PostgresStore {
    async fn read_log(&self, after: LogPosition, limit: usize) -> Result<Vec<(LogPosition, LoggedEvent)>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.hot.run("read_log", move |on| Box::pin(read(on, after, limit))).await?;
        rows.into_iter().map(|row| row.into_entry("read_log")).collect()
    }

    async fn cursor(&self) -> Result<LogPosition, StoreError> {
        self.hot
            .run("cursor", |on| {
                Box::pin(async move {
                    sqlx::query_as!(LogPosition, "select xid, seq from relay_cursor where only_one").fetch_one(on).await
                })
            })
            .await
    }

    async fn advance_cursor(&self, from: LogPosition, to: LogPosition) -> Result<bool, StoreError> {
        self.hot.run("advance_cursor", move |on| Box::pin(advance(on, from, to))).await
    }

    async fn timeline(&self, order_id: &OrderId) -> Result<Vec<LoggedEvent>, StoreError> {
        let id = order_id.as_str().to_owned();
        let rows = self.book.run("timeline", move |on| Box::pin(timeline(on, id))).await?;
        rows.into_iter().map(|row| row.into_entry("timeline").map(|(_, event)| event)).collect()
    }
}

/// Only below the oldest running transaction: one that is still running could yet add an entry
/// with a lower xid than one that is already visible. From the day before the cursor's on, so
/// that older partitions are not looked at; a write takes seconds at most, so no entry of an
/// older day can come late.
async fn read(on: &mut PgConnection, after: LogPosition, limit: i64) -> Result<Vec<LogRow>, sqlx::Error> {
    sqlx::query_as!(
        LogRow,
        r#"
        select xid, seq, order_id, version, kind, at, data
        from order_events
        where (xid, seq) > ($1, $2)
          and xid < (select pg_snapshot_xmin(pg_current_snapshot())::text::bigint)
          and at >= (select at - interval '1 day' from relay_cursor where only_one)
        order by xid, seq
        limit $3
        "#,
        after.xid,
        after.seq,
        limit,
    )
    .fetch_all(on)
    .await
}

async fn advance(on: &mut PgConnection, from: LogPosition, to: LogPosition) -> Result<bool, sqlx::Error> {
    let done = sqlx::query!(
        r#"
        update relay_cursor as c set
            xid = $3, seq = $4,
            at = coalesce(
                (select e.at from order_events as e
                 where e.xid = $3 and e.seq = $4 and e.at >= (select at - interval '1 day' from relay_cursor where only_one)),
                c.at)
        where c.only_one and c.xid = $1 and c.seq = $2
        "#,
        from.xid,
        from.seq,
        to.xid,
        to.seq,
    )
    .execute(on)
    .await?;
    Ok(done.rows_affected() == 1)
}

async fn timeline(on: &mut PgConnection, id: String) -> Result<Vec<LogRow>, sqlx::Error> {
    sqlx::query_as!(
        LogRow,
        r#"
        select xid, seq, order_id, version, kind, at, data
        from order_events
        where order_id = $1
        order by version
        "#,
        id,
    )
    .fetch_all(on)
    .await
}
