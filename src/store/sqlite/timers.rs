//! The timers.
#![expect(clippy::disallowed_methods, reason = "SQLite's statements are checked by the tests of both adapters")]

use async_trait::async_trait;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::SqliteStore;
use super::rows::moment;
use crate::domain::{LoggedEvent, Timestamp};
use crate::ports::{DeadlinePosition, StoreError, TimerPage, Timers, Written};
use crate::store::row::{DueRow, timer_page};

#[async_trait]
impl Timers for SqliteStore {
    async fn due(&self, after: &DeadlinePosition, until: Timestamp, limit: usize) -> Result<TimerPage, StoreError> {
        let behind = after.order_id.clone().unwrap_or_default();
        let (at, until) = (after.at.timestamp_micros(), until.timestamp_micros());
        let most = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = self.read("due_timers", move |on| {
            Box::pin(async move {
                let rows = sqlx::query(DUE).bind(at).bind(behind).bind(until).bind(most).fetch_all(on).await?;
                rows.iter().map(due_row).collect()
            })
        });
        let rows: Vec<DueRow> = read.await?;
        Ok(timer_page(rows, limit))
    }

    async fn fire(&self, batch: &[LoggedEvent]) -> Result<Vec<Written>, StoreError> {
        let batch = batch.to_vec();
        self.write("fire_timers", move |on| {
            Box::pin(async move {
                let mut answers = Vec::with_capacity(batch.len());
                for event in &batch {
                    let id = event.order_id.as_str();
                    let fired = sqlx::query(FIRE).bind(id).bind(event.version).execute(&mut *on).await?;
                    if fired.rows_affected() == 0 {
                        answers.push(Written::Overtaken);
                        continue;
                    }
                    sqlx::query(LOG).bind(event.version).bind(id).bind(event.to_line()).execute(&mut *on).await?;
                    answers.push(Written::Stored);
                }
                Ok(answers)
            })
        })
        .await
    }
}

const DUE: &str = "
    select t.due_at, t.order_id, o.version, o.state, o.deadline_at
    from timers t join orders o on o.order_id = t.order_id
    where (t.due_at, t.order_id) > (?1, ?2) and t.due_at <= ?3
    order by t.due_at, t.order_id
    limit ?4";

const FIRE: &str = "
    delete from timers
    where order_id = ?1 and kind = 'notification'
      and exists (select 1 from orders where order_id = ?1 and version = ?2)";

const LOG: &str = "insert into order_events (version, order_id, entry, beside) values (?1, ?2, ?3, 1)";

fn due_row(row: &SqliteRow) -> Result<DueRow, sqlx::Error> {
    Ok(DueRow {
        due_at: moment(row, "due_at")?,
        order_id: row.try_get("order_id")?,
        version: row.try_get("version")?,
        state: row.try_get("state")?,
        deadline_at: moment(row, "deadline_at")?,
    })
}
