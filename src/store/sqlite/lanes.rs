//! Paused lanes, and numbers that cool down.
#![expect(clippy::disallowed_methods, reason = "SQLite's statements are checked by the tests of both adapters")]

use async_trait::async_trait;
use sqlx::Row as _;

use super::SqliteStore;
use super::rows::moment;
use crate::domain::{ProviderId, Timestamp};
use crate::ports::{Cooldowns, Cooling, LaneBook, LaneChange, StoreError};

#[async_trait]
impl LaneBook for SqliteStore {
    async fn lane_changes(&self) -> Result<Vec<LaneChange>, StoreError> {
        self.read("lane_changes", move |on| {
            Box::pin(async move {
                let rows = sqlx::query(LAST_CHANGES).fetch_all(on).await?;
                let change = |row| {
                    Ok(LaneChange {
                        lane: ProviderId::new(sqlx::sqlite::SqliteRow::try_get(row, "lane")?),
                        is_paused: row.try_get("is_paused")?,
                        by: row.try_get("by")?,
                        why: row.try_get("why")?,
                        at: moment(row, "at")?,
                    })
                };
                rows.iter().map(change).collect::<Result<Vec<LaneChange>, sqlx::Error>>()
            })
        })
        .await
    }

    async fn change_lane(&self, change: &LaneChange) -> Result<bool, StoreError> {
        let change = change.clone();
        self.write("change_lane", move |on| {
            Box::pin(async move {
                let done = sqlx::query(CHANGE)
                    .bind(change.lane.as_str())
                    .bind(change.is_paused)
                    .bind(&change.by)
                    .bind(&change.why)
                    .bind(change.at.timestamp_micros())
                    .execute(on)
                    .await?;
                Ok(done.rows_affected() == 1)
            })
        })
        .await
    }
}

const LAST_CHANGES: &str = "
    select lane, is_paused, by, why, at from lane_changes
    where seq in (select max(seq) from lane_changes group by lane) order by lane";
const CHANGE: &str = "
    insert into lane_changes (lane, is_paused, by, why, at)
    select ?1, ?2, ?3, ?4, ?5
    where ?2 <> coalesce((select is_paused from lane_changes where lane = ?1 order by seq desc limit 1), 0)";

#[async_trait]
impl Cooldowns for SqliteStore {
    async fn cool(&self, batch: &[Cooling], now: Timestamp) -> Result<Vec<Option<Timestamp>>, StoreError> {
        let (batch, micros) = (batch.to_vec(), now.timestamp_micros());
        self.write("cool", move |on| {
            Box::pin(async move {
                let mut answers = Vec::with_capacity(batch.len());
                for one in &batch {
                    let done = sqlx::query(COOL)
                        .bind(one.provider.as_str())
                        .bind(&one.phone_hash)
                        .bind(one.order_id.as_str())
                        .bind(one.until.timestamp_micros())
                        .bind(micros)
                        .execute(&mut *on)
                        .await?;
                    if done.rows_affected() == 1 {
                        answers.push(None);
                        continue;
                    }
                    let row = sqlx::query("select until from cooldowns where provider = ?1 and phone_hash = ?2")
                        .bind(one.provider.as_str())
                        .bind(&one.phone_hash)
                        .fetch_one(&mut *on)
                        .await?;
                    answers.push(Some(moment(&row, "until")?));
                }
                Ok(answers)
            })
        })
        .await
    }

    async fn give_back(&self, batch: &[Cooling]) -> Result<(), StoreError> {
        let batch = batch.to_vec();
        self.write("give_back", move |on| {
            Box::pin(async move {
                for one in &batch {
                    sqlx::query(GIVE_BACK)
                        .bind(one.provider.as_str())
                        .bind(&one.phone_hash)
                        .bind(one.order_id.as_str())
                        .execute(&mut *on)
                        .await?;
                }
                Ok(())
            })
        })
        .await
    }

    async fn forget_cooled(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.write("forget_cooled", move |on| {
            Box::pin(async move {
                let done = sqlx::query(FORGET).bind(before.timestamp_micros()).bind(limit).execute(on).await?;
                Ok(usize::try_from(done.rows_affected()).unwrap_or(usize::MAX))
            })
        })
        .await
    }
}

/// Of two wishes of one batch for a number the first counts, since it holds it by then.
const COOL: &str = "
    insert into cooldowns (provider, phone_hash, order_id, until) values (?1, ?2, ?3, ?4)
    on conflict (provider, phone_hash) do update set order_id = excluded.order_id, until = excluded.until
        where cooldowns.until <= ?5 or cooldowns.order_id = excluded.order_id";
const GIVE_BACK: &str = "delete from cooldowns where provider = ?1 and phone_hash = ?2 and order_id = ?3";
const FORGET: &str = "
    delete from cooldowns where (provider, phone_hash) in (
        select provider, phone_hash from cooldowns where until < ?1 order by until limit ?2)";
