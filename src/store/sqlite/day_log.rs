//! The event log of a time. Its entries stand in no order of their times but nearly, so each is looked at.
#![expect(clippy::disallowed_methods, reason = "SQLite's statements are checked by the tests of both adapters")]

use async_trait::async_trait;
use sqlx::Row as _;

use super::SqliteStore;
use crate::domain::Timestamp;
use crate::ports::{DayLog, LogBatch, LogPosition, StoreError};

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
}
