//! What people decided about dead letters.
#![expect(clippy::disallowed_methods, reason = "SQLite's statements are checked by the tests of both adapters")]

use async_trait::async_trait;
use sqlx::Row as _;
use uuid::Uuid;

use super::SqliteStore;
use super::rows::moment;
use crate::domain::Timestamp;
use crate::ports::{LetterKey, LetterMark, LetterMarks, LetterState, StoreError};

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

/// A statement whose first four values are a key.
fn of_key(sql: &'static str, key: &LetterKey) -> Query<'static> {
    sqlx::query(sql).bind(key.topic.clone()).bind(key.partition).bind(key.offset).bind(key.stamp)
}

#[async_trait]
impl LetterMarks for SqliteStore {
    async fn letter_marks(&self, keys: &[LetterKey]) -> Result<Vec<Option<LetterMark>>, StoreError> {
        let keys = keys.to_vec();
        self.read("letter_marks", move |on| {
            Box::pin(async move {
                let mut marks = Vec::with_capacity(keys.len());
                for key in &keys {
                    let row = of_key(FIND, key).fetch_optional(&mut *on).await?;
                    marks.push(row.map(|row| mark_of(&row)).transpose()?.flatten());
                }
                Ok(marks)
            })
        })
        .await
    }

    async fn mark_letters(
        &self,
        keys: &[LetterKey],
        mark: &LetterMark,
        abandoned_before: Timestamp,
    ) -> Result<Vec<bool>, StoreError> {
        let (keys, mark) = (keys.to_vec(), mark.clone());
        self.write("mark_letters", move |on| {
            Box::pin(async move {
                let mut stands = Vec::with_capacity(keys.len());
                for key in &keys {
                    let done = of_key(MARK, key)
                        .bind(mark.state.as_str())
                        .bind(&mark.by)
                        .bind(&mark.why)
                        .bind(mark.at.timestamp_micros())
                        .bind(mark.run.to_string())
                        .bind(abandoned_before.timestamp_micros())
                        .execute(&mut *on)
                        .await?;
                    stands.push(done.rows_affected() == 1);
                }
                Ok(stands)
            })
        })
        .await
    }

    async fn replays_done(&self, keys: &[LetterKey], run: Uuid, at: Timestamp) -> Result<(), StoreError> {
        let keys = keys.to_vec();
        self.write("replays_done", move |on| {
            Box::pin(async move {
                for key in &keys {
                    of_key(DONE, key).bind(run.to_string()).bind(at.timestamp_micros()).execute(&mut *on).await?;
                }
                Ok(())
            })
        })
        .await
    }

    async fn replays_failed(&self, keys: &[LetterKey], run: Uuid) -> Result<(), StoreError> {
        let keys = keys.to_vec();
        self.write("replays_failed", move |on| {
            Box::pin(async move {
                for key in &keys {
                    of_key(FAILED, key).bind(run.to_string()).execute(&mut *on).await?;
                }
                Ok(())
            })
        })
        .await
    }

    async fn forget_letters(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.write("forget_letters", move |on| {
            Box::pin(async move {
                Ok(sqlx::query(FORGET).bind(before.timestamp_micros()).execute(on).await?.rows_affected())
            })
        })
        .await
    }
}

fn mark_of(row: &sqlx::sqlite::SqliteRow) -> Result<Option<LetterMark>, sqlx::Error> {
    let (state, run): (String, String) = (row.try_get("state")?, row.try_get("run")?);
    // The schema knows no other state.
    let Some(state) = LetterState::parse(&state) else { return Ok(None) };
    let run = Uuid::parse_str(&run).unwrap_or_default();
    Ok(Some(LetterMark { state, by: row.try_get("by")?, why: row.try_get("why")?, at: moment(row, "at")?, run }))
}

const FIND: &str = "
    select state, by, why, at, run from dead_letter_marks
    where topic = ?1 and partition = ?2 and record_offset = ?3 and stamp = ?4";
const MARK: &str = "
    insert into dead_letter_marks (topic, partition, record_offset, stamp, state, by, why, at, run)
    values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
    on conflict (topic, partition, record_offset, stamp) do update
        set state = excluded.state, by = excluded.by, why = excluded.why, at = excluded.at, run = excluded.run
        where dead_letter_marks.run = excluded.run or dead_letter_marks.state = 'replaying' and dead_letter_marks.at < ?10";
const DONE: &str = "
    update dead_letter_marks set state = 'replayed', at = ?6
    where topic = ?1 and partition = ?2 and record_offset = ?3 and stamp = ?4 and state = 'replaying' and run = ?5";
const FAILED: &str = "
    delete from dead_letter_marks
    where topic = ?1 and partition = ?2 and record_offset = ?3 and stamp = ?4 and state = 'replaying' and run = ?5";
const FORGET: &str = "delete from dead_letter_marks where state <> 'replaying' and at < ?1";
