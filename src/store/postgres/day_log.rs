//! The event log of a time, on connections of its own. The days outside it are not looked at.

use async_trait::async_trait;
use sqlx::postgres::PgConnection;

use super::PostgresStore;
use crate::domain::Timestamp;
use crate::ports::{DayLog, LogBatch, LogPosition, StoreError};

/// Batches in one page at most, however few entries they hold.
const BATCHES_MAX: i64 = 1_024;

#[async_trait]
impl DayLog for PostgresStore {
    async fn written(
        &self,
        from: Timestamp,
        until: Timestamp,
        after: LogPosition,
        limit: usize,
    ) -> Result<Vec<LogBatch>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.book.run("written", move |on| Box::pin(read(on, (from, until), after, limit))).await
    }
}

/// Not only below the oldest running transaction, as the relay reads: one that runs for hours, of whomever in the
/// whole cluster, would hide the rest of a day that was written long ago. Our own writes take seconds.
async fn read(
    on: &mut PgConnection,
    (from, until): (Timestamp, Timestamp),
    after: LogPosition,
    limit: i64,
) -> Result<Vec<LogBatch>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"
        select xid, seq, entries
        from (
            select xid, seq, entries, sum(size) over (order by xid, seq rows unbounded preceding) - size as before
            from order_event_batches
            where (xid, seq) > ($1, $2)
              and at >= $3 and at < $4
            order by xid, seq
            limit $6
        ) as next
        where before < $5
        order by xid, seq
        "#,
        after.xid,
        after.seq,
        from,
        until,
        limit,
        BATCHES_MAX,
    )
    .fetch_all(on)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| LogBatch { position: LogPosition { xid: row.xid, seq: row.seq }, entries: row.entries })
        .collect())
}
