//! The event log of a time, on connections of its own. The days outside it are not looked at.

use async_trait::async_trait;
use sqlx::postgres::PgConnection;

use super::PostgresStore;
use crate::domain::Timestamp;
use crate::ports::{DayLog, LogBatch, LogPosition, Mentions, StoreError};

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

    async fn mentions(
        &self,
        from: Timestamp,
        until: Timestamp,
        after: LogPosition,
        marks: &[String],
    ) -> Result<Mentions, StoreError> {
        let marks = marks.to_vec();
        self.book.run("mentions", move |on| Box::pin(mentions(on, (from, until), after, marks))).await
    }
}

/// Batches in which one statement looks for something: a hundred MiB of text at most, which take the server a second.
const LOOKED_THROUGH_MAX: i64 = 2_000;

/// The batches are looked through where they lie; only the lines that are wanted leave the server.
async fn mentions(
    on: &mut PgConnection,
    (from, until): (Timestamp, Timestamp),
    after: LogPosition,
    marks: Vec<String>,
) -> Result<Mentions, sqlx::Error> {
    let next = sqlx::query_as!(
        LogPosition,
        r#"
        select xid, seq
        from order_event_batches
        where (xid, seq) > ($1, $2) and at >= $3 and at < $4
        order by xid, seq
        offset $5 limit 1
        "#,
        after.xid,
        after.seq,
        from,
        until,
        LOOKED_THROUGH_MAX - 1,
    )
    .fetch_optional(&mut *on)
    .await?;
    let last = next.unwrap_or(LogPosition { xid: i64::MAX, seq: i64::MAX });
    let lines = sqlx::query_scalar!(
        r#"
        select line as "line!"
        from (
            select xid, seq, entries
            from order_event_batches
            where (xid, seq) > ($1, $2) and (xid, seq) <= ($3, $4) and at >= $5 and at < $6
              and exists (select from unnest($7::text[]) as mark where strpos(entries, mark) > 0)
        ) as batch, string_to_table(entries, e'\n') as line
        where exists (select from unnest($7::text[]) as mark where strpos(line, mark) > 0)
        order by xid, seq
        "#,
        after.xid,
        after.seq,
        last.xid,
        last.seq,
        from,
        until,
        &marks,
    )
    .fetch_all(on)
    .await?;
    Ok(Mentions { lines, next })
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
