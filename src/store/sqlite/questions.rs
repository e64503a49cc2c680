//! Holds on orders that are asked about.
#![expect(clippy::disallowed_methods, reason = "SQLite's statements are checked by the tests of both adapters")]

use async_trait::async_trait;
use sqlx::Row as _;

use super::SqliteStore;
use crate::domain::Timestamp;
use crate::ports::{Haste, Held, Hold, Hurried, Questions, StoreError};

#[async_trait]
impl Questions for SqliteStore {
    async fn hold(&self, batch: &[Hold], now: Timestamp) -> Result<Vec<Held>, StoreError> {
        let (batch, micros) = (batch.to_vec(), now.timestamp_micros());
        self.write("hold", move |on| {
            Box::pin(async move {
                let mut answers = Vec::with_capacity(batch.len());
                for hold in &batch {
                    let done = sqlx::query(HOLD)
                        .bind(hold.order_id.as_str())
                        .bind(hold.asked_version)
                        .bind(hold.replaces.map(|at| at.timestamp_micros()))
                        .bind(hold.until.timestamp_micros())
                        .bind(micros)
                        .execute(&mut *on)
                        .await?;
                    if done.rows_affected() == 1 {
                        answers.push(Held::Granted);
                        continue;
                    }
                    let row = sqlx::query("select held_until, held_version from orders where order_id = ?1")
                        .bind(hold.order_id.as_str())
                        .fetch_optional(&mut *on)
                        .await?;
                    let until: Option<i64> = row.as_ref().map(|row| row.try_get("held_until")).transpose()?.flatten();
                    let until = until.and_then(Timestamp::from_timestamp_micros).filter(|until| *until > now);
                    let version: Option<u32> = row.map(|row| row.try_get("held_version")).transpose()?.flatten();
                    answers.push(Held::Taken { until, asked_version: version.filter(|_| until.is_some()) });
                }
                Ok(answers)
            })
        })
        .await
    }

    async fn hasten(&self, batch: &[Haste]) -> Result<Vec<Hurried>, StoreError> {
        let batch = batch.to_vec();
        self.write("hasten", move |on| {
            Box::pin(async move {
                let mut hastened = Vec::with_capacity(batch.len());
                for haste in &batch {
                    let row = sqlx::query("select held_until from orders where order_id = ?1 and asked_version = ?2")
                        .bind(haste.order_id.as_str())
                        .bind(haste.asked_version)
                        .fetch_optional(&mut *on)
                        .await?;
                    let Some(row) = row else {
                        hastened.push(Hurried::Overtaken);
                        continue;
                    };
                    let (first, again) = (haste.to.first.timestamp_micros(), haste.to.again.timestamp_micros());
                    // Whoever was asked about has a hold, over or not.
                    let held: Option<i64> = row.try_get("held_until")?;
                    if held.is_some_and(|until| until > again) {
                        sqlx::query("update orders set held_until = ?2 where order_id = ?1")
                            .bind(haste.order_id.as_str())
                            .bind(again)
                            .execute(&mut *on)
                            .await?;
                    }
                    let at = held.map_or(first, |until| until.max(first).min(again));
                    hastened.push(Timestamp::from_timestamp_micros(at).map_or(Hurried::Overtaken, Hurried::From));
                }
                Ok(hastened)
            })
        })
        .await
    }
}

const HOLD: &str = "
    update orders set held_until = ?4, held_version = ?2
    where order_id = ?1 and asked_version = ?2
      and (held_until is null or held_until <= ?5 or held_until = ?3)";
