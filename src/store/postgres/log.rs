//! The event log.

use async_trait::async_trait;
use sqlx::postgres::PgConnection;

use super::PostgresStore;
use crate::domain::{LoggedEvent, OrderId, Recipient};
use crate::ports::{EventLog, LogBatch, LogPosition, StoreError};
use crate::store::row::{recipients_of, timelines_of};

/// Batches in one page at most, however few entries they hold.
const BATCHES_MAX: i64 = 256;

#[async_trait]
impl EventLog for PostgresStore {
    async fn read_log(&self, after: LogPosition, limit: usize) -> Result<Vec<LogBatch>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.hot.run("read_log", move |on| Box::pin(read(on, after, limit))).await
    }

    async fn has_more(&self, after: LogPosition) -> Result<bool, StoreError> {
        self.hot.run("has_more", move |on| Box::pin(has_more(on, after))).await
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

    async fn timelines(&self, ids: &[OrderId]) -> Result<Vec<Vec<LoggedEvent>>, StoreError> {
        let wanted: Vec<String> = ids.iter().map(|id| id.as_str().to_owned()).collect();
        let lines = self.book.run("timelines", move |on| Box::pin(lines_of(on, wanted))).await?;
        timelines_of(ids, &lines)
    }

    async fn recipients(&self, ids: &[OrderId]) -> Result<Vec<Option<Recipient>>, StoreError> {
        let wanted: Vec<String> = ids.iter().map(|id| id.as_str().to_owned()).collect();
        Ok(recipients_of(ids, self.hot.run("recipients", move |on| Box::pin(phones(on, wanted))).await?))
    }
}

/// Only below the oldest running transaction: one that is still running could yet add a batch
/// with a lower xid than one that is already visible. From the day before the cursor's on, so
/// that older partitions are not looked at; a write takes seconds at most, so no batch of an
/// older day can come late.
async fn read(on: &mut PgConnection, after: LogPosition, limit: i64) -> Result<Vec<LogBatch>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"
        select xid, seq, entries
        from (
            select xid, seq, entries, sum(size) over (order by xid, seq rows unbounded preceding) - size as before
            from order_event_batches
            where (xid, seq) > ($1, $2)
              and xid < (select pg_snapshot_xmin(pg_current_snapshot())::text::bigint)
              and at >= (select at - interval '1 day' from relay_cursor where only_one)
            order by xid, seq
            limit $4
        ) as next
        where before < $3
        order by xid, seq
        "#,
        after.xid,
        after.seq,
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

async fn has_more(on: &mut PgConnection, after: LogPosition) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"
        select exists (
            select from order_event_batches
            where (xid, seq) > ($1, $2)
              and at >= (select at - interval '1 day' from relay_cursor where only_one)
        ) as "has_more!"
        "#,
        after.xid,
        after.seq,
    )
    .fetch_one(on)
    .await
}

async fn advance(on: &mut PgConnection, from: LogPosition, to: LogPosition) -> Result<bool, sqlx::Error> {
    let done = sqlx::query!(
        r#"
        update relay_cursor as c set
            xid = $3, seq = $4,
            at = coalesce(
                (select b.at from order_event_batches as b
                 where b.xid = $3 and b.seq = $4 and b.at >= (select at - interval '1 day' from relay_cursor where only_one)),
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

async fn phones(on: &mut PgConnection, ids: Vec<String>) -> Result<Vec<(String, String)>, sqlx::Error> {
    let rows = sqlx::query!("select order_id, phone from orders where order_id = any ($1)", &ids).fetch_all(on).await?;
    Ok(rows.into_iter().map(|row| (row.order_id, row.phone)).collect())
}

/// Each order knows which transactions wrote its entries; each left a batch in which other orders'
/// entries stand as well. A line begins with its id, in which JSON has nothing to escape, so that it is what stands between
/// the third quotation mark and the fourth. (In a database that was restored from elsewhere a number may stand for two transactions.)
async fn lines_of(on: &mut PgConnection, ids: Vec<String>) -> Result<Vec<String>, sqlx::Error> {
    let logged_in = sqlx::query_scalar!("select logged_in from orders where order_id = any($1)", &ids);
    let logged_in = logged_in.fetch_all(&mut *on).await?;
    let mut transactions: Vec<i64> =
        logged_in.iter().flat_map(|each| each.as_chunks().0.iter().copied().map(i64::from_be_bytes)).collect();
    transactions.sort_unstable();
    transactions.dedup();
    sqlx::query_scalar!(
        r#"
        select line as "line!"
        from order_event_batches as b, string_to_table(b.entries, e'\n') as line
        where b.xid = any($2) and split_part(line, '"', 4) = any($1)
        "#,
        &ids,
        &transactions,
    )
    .fetch_all(on)
    .await
}
