//! The event log of a time. Its entries stand in no order of their times but nearly, so each is looked at.
#![expect(clippy::disallowed_methods, reason = "SQLite's statements are checked by the tests of both adapters")]

use async_trait::async_trait;
use sqlx::Row as _;

use super::SqliteStore;
use crate::domain::Timestamp;
use crate::ports::{DayLog, LogBatch, LogPosition, Mentions, StoreError};
use crate::store::row::Extras;

const WRITTEN: &str = "
    select seq, entry from order_events
    where seq > ?1 and entry->>'at' >= ?2 and entry->>'at' < ?3
    order by seq
    limit ?4";

#[async_trait]
impl DayLog for SqliteStore {
    async fn written(
        &self,
        from: Timestamp,
        until: Timestamp,
        after: LogPosition,
        limit: usize,
    ) -> Result<Vec<LogBatch>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.read("written", move |on| {
            Box::pin(async move {
                let query = sqlx::query(WRITTEN).bind(after.seq).bind(from.timestamp_micros());
                let rows = query.bind(until.timestamp_micros()).bind(limit).fetch_all(on).await?;
                let batch = |row: &sqlx::sqlite::SqliteRow| {
                    let position = LogPosition { xid: 0, seq: row.try_get("seq")? };
                    Ok(LogBatch { position, entries: row.try_get("entry")? })
                };
                rows.iter().map(batch).collect()
            })
        })
        .await
    }

    async fn mentions(
        &self,
        from: Timestamp,
        until: Timestamp,
        after: LogPosition,
        marks: &[String],
    ) -> Result<Mentions, StoreError> {
        let marks = Extras::json(marks);
        self.read("mentions", move |on| {
            Box::pin(async move {
                let next: Option<i64> =
                    sqlx::query_scalar(LAST).bind(after.seq).bind(LOOKED_THROUGH_MAX - 1).fetch_optional(&mut *on).await?;
                let query = sqlx::query_scalar(MENTIONS).bind(after.seq).bind(next.unwrap_or(i64::MAX));
                let query = query.bind(from.timestamp_micros()).bind(until.timestamp_micros()).bind(marks);
                let next = next.map(|seq| LogPosition { xid: 0, seq });
                Ok(Mentions { lines: query.fetch_all(on).await?, next })
            })
        })
        .await
    }
}

/// Entries in which one statement looks for something.
const LOOKED_THROUGH_MAX: i64 = 100_000;

const LAST: &str = "select seq from order_events where seq > ?1 order by seq limit 1 offset ?2";

const MENTIONS: &str = "
    select entry from order_events
    where seq > ?1 and seq <= ?2
      and exists (select 1 from json_each(?5) as mark where instr(entry, mark.value) > 0)
      and entry->>'at' >= ?3 and entry->>'at' < ?4
    order by seq";
