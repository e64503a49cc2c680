//! The cases.
#![expect(clippy::disallowed_methods, reason = "SQLite's statements are checked by the tests of both adapters")]

use async_trait::async_trait;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::SqliteStore;
use super::rows::{maybe_moment, moment};
use crate::domain::Timestamp;
use crate::ports::{Case, CaseBook, CaseFilter, CaseNote, OverdueQuestion, QuestionTime, StoreError, Written};
use crate::store::row::{CaseRow, Extras, case_key};

#[async_trait]
impl CaseBook for SqliteStore {
    async fn cases(&self, filter: &CaseFilter, after: Option<&Case>, limit: usize) -> Result<Vec<Case>, StoreError> {
        let filter = filter.clone();
        let kinds = Extras::json(&filter.kinds);
        let after = after.map(|case| {
            (case.opened_at.timestamp_micros(), case.key.order_id.as_str().to_owned(), case.key.kind.as_str())
        });
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = self.read("cases", move |on| {
            Box::pin(async move {
                let query = sqlx::query(CASES)
                    .bind(filter.order_id.map(|id| id.as_str().to_owned()))
                    .bind(kinds)
                    .bind(filter.with_resolved)
                    .bind(filter.only_escalated)
                    .bind(filter.opened_before.map(|at| at.timestamp_micros()))
                    .bind(after.as_ref().map(|after| after.0))
                    .bind(after.as_ref().map(|after| after.1.clone()))
                    .bind(after.as_ref().map(|after| after.2))
                    .bind(limit)
                    .bind(filter.owner)
                    .bind(filter.only_unowned);
                query.fetch_all(on).await?.iter().map(case_row).collect()
            })
        });
        let rows: Vec<CaseRow> = read.await?;
        rows.into_iter().map(|row| row.into_case().map_err(|corrupt| corrupt.error("cases"))).collect()
    }

    async fn overdue_questions(&self, due_by: Timestamp, limit: usize) -> Result<Vec<OverdueQuestion>, StoreError> {
        let (due_by, limit) = (due_by.timestamp_micros(), i64::try_from(limit).unwrap_or(i64::MAX));
        let read = self.read("overdue_questions", move |on| {
            Box::pin(async move {
                let rows = sqlx::query(OVERDUE).bind(due_by).bind(limit).fetch_all(on).await?;
                rows.iter()
                    .map(|row| {
                        let held = maybe_moment(row, "held_until")?.zip(row.try_get::<Option<u32>, _>("held_version")?);
                        let (order_id, kind) = (row.try_get("order_id")?, row.try_get("kind")?);
                        Ok((order_id, kind, moment(row, "next_query_at")?, held))
                    })
                    .collect()
            })
        });
        let rows: Vec<Found> = read.await?;
        rows.into_iter()
            .map(|(order_id, kind, next_query_at, held)| {
                let key = case_key(&order_id, &kind).map_err(|corrupt| corrupt.error("overdue_questions"))?;
                Ok(OverdueQuestion { key, next_query_at, held })
            })
            .collect()
    }

    async fn set_questions(&self, batch: &[QuestionTime]) -> Result<(), StoreError> {
        let batch = batch.to_vec();
        self.write("set_questions", move |on| {
            Box::pin(async move {
                for time in &batch {
                    sqlx::query(SET)
                        .bind(time.key.order_id.as_str())
                        .bind(time.key.kind.as_str())
                        .bind(time.was.timestamp_micros())
                        .bind(time.next.map(|at| at.timestamp_micros()))
                        .execute(&mut *on)
                        .await?;
                }
                Ok(())
            })
        })
        .await
    }

    async fn note(&self, note: &CaseNote) -> Result<Written, StoreError> {
        let note = note.clone();
        self.write("note", move |on| {
            Box::pin(async move {
                let noted = sqlx::query(NOTE)
                    .bind(note.key.order_id.as_str())
                    .bind(note.key.kind.as_str())
                    .bind(note.was)
                    .bind(note.owner)
                    .execute(&mut *on)
                    .await?;
                if noted.rows_affected() == 0 {
                    return Ok(Written::Overtaken);
                }
                let (version, line) = (note.entry.version, note.entry.to_line());
                let log = sqlx::query(LOG).bind(version).bind(note.entry.order_id.as_str()).bind(line);
                log.execute(on).await?;
                Ok(Written::Stored)
            })
        })
        .await
    }

    async fn escalate(&self, now: Timestamp, limit: usize) -> Result<Vec<Case>, StoreError> {
        let (now, limit) = (now.timestamp_micros(), i64::try_from(limit).unwrap_or(i64::MAX));
        let write = self.write("escalate", move |on| {
            Box::pin(async move {
                let rows = sqlx::query(ESCALATE).bind(now).bind(limit).fetch_all(on).await?;
                rows.iter().map(case_row).collect()
            })
        });
        let rows: Vec<CaseRow> = write.await?;
        rows.into_iter().map(|row| row.into_case().map_err(|corrupt| corrupt.error("escalate"))).collect()
    }
}

type Found = (String, String, Timestamp, Option<(Timestamp, u32)>);

fn case_row(row: &SqliteRow) -> Result<CaseRow, sqlx::Error> {
    Ok(CaseRow {
        order_id: row.try_get("order_id")?,
        kind: row.try_get("kind")?,
        opened_at: moment(row, "opened_at")?,
        escalate_at: moment(row, "escalate_at")?,
        escalated: row.try_get("escalated")?,
        next_query_at: maybe_moment(row, "next_query_at")?,
        evidence: row.try_get("evidence")?,
        owner: row.try_get("owner")?,
        resolved_at: maybe_moment(row, "resolved_at")?,
        resolved_by: row.try_get("resolved_by")?,
        resolved_evidence: row.try_get("resolved_evidence")?,
    })
}

const CASES: &str = "
    select * from cases
    where (?1 is null or order_id = ?1)
      and (json_array_length(?2) = 0 or kind in (select value from json_each(?2)))
      and (?3 or state = 'open')
      and (not ?4 or escalated)
      and (?5 is null or opened_at < ?5)
      and (?6 is null or (opened_at, order_id, kind) > (?6, ?7, ?8))
      and (?10 is null or owner = ?10)
      and (not ?11 or owner is null)
    order by opened_at, order_id, kind
    limit ?9";

const NOTE: &str = "
    update cases set owner = ?4
    where order_id = ?1 and kind = ?2 and state = 'open' and owner is ?3";

/// Behind the places of notifications, of which a version has one of each kind.
const LOG: &str = "
    insert into order_events (version, order_id, entry, beside)
    select ?1, ?2, ?3, 1 + max(9, coalesce(max(beside), 0)) from order_events where order_id = ?2 and version = ?1";

const OVERDUE: &str = "
    select c.order_id, c.kind, c.next_query_at, o.held_until, o.held_version
    from cases as c join orders as o on o.order_id = c.order_id
    where c.next_query_at is not null and c.next_query_at <= ?1 and c.state = 'open'
    order by c.next_query_at
    limit ?2";

const SET: &str = "
    update cases set next_query_at = ?4
    where order_id = ?1 and kind = ?2 and next_query_at = ?3 and state = 'open'";

const ESCALATE: &str = "
    update cases set escalated = 1
    where (order_id, kind) in (
        select order_id, kind from cases
        where state = 'open' and escalated = 0 and escalate_at <= ?1
        order by escalate_at
        limit ?2)
    returning *";
