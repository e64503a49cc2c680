//! Callbacks that were dealt with.
#![expect(clippy::disallowed_methods, reason = "SQLite's statements are checked by the tests of both adapters")]

use async_trait::async_trait;
use sqlx::Row as _;

use super::SqliteStore;
use super::rows::moment;
use crate::domain::OrderId;
use crate::ports::{CallbackBook, NotedCallback, StoreError};
use crate::store::noted::NotedRow;

#[async_trait]
impl CallbackBook for SqliteStore {
    async fn were_noted(&self, batch: &[NotedCallback]) -> Result<Vec<bool>, StoreError> {
        let batch = batch.to_vec();
        self.read("were_noted", move |on| {
            Box::pin(async move {
                let mut noted = Vec::with_capacity(batch.len());
                for one in &batch {
                    let row = sqlx::query(WAS_NOTED)
                        .bind(one.order_id.as_str())
                        .bind(one.attempt)
                        .bind(one.provider.as_str())
                        .bind(&one.said)
                        .fetch_optional(&mut *on)
                        .await?;
                    noted.push(row.is_some());
                }
                Ok(noted)
            })
        })
        .await
    }

    async fn note_callbacks(&self, batch: &[NotedCallback]) -> Result<(), StoreError> {
        let batch = batch.to_vec();
        self.write("note_callbacks", move |on| {
            Box::pin(async move {
                for one in &batch {
                    sqlx::query(NOTE)
                        .bind(one.order_id.as_str())
                        .bind(one.attempt)
                        .bind(one.provider.as_str())
                        .bind(&one.said)
                        .bind(one.became.as_str())
                        .bind(one.at.timestamp_micros())
                        .execute(&mut *on)
                        .await?;
                }
                Ok(())
            })
        })
        .await
    }

    async fn callbacks_of(&self, order_id: &OrderId) -> Result<Vec<NotedCallback>, StoreError> {
        let id = order_id.as_str().to_owned();
        let read = self.read("callbacks_of", move |on| {
            Box::pin(async move {
                let rows = sqlx::query(OF_ORDER).bind(id).fetch_all(on).await?;
                let read = rows.iter().map(|row| {
                    Ok(NotedRow {
                        order_id: row.try_get("order_id")?,
                        attempt: row.try_get("attempt")?,
                        provider: row.try_get("provider")?,
                        said: row.try_get("said")?,
                        became: row.try_get("became")?,
                        at: moment(row, "at")?,
                    })
                });
                read.collect::<Result<Vec<NotedRow>, sqlx::Error>>()
            })
        });
        NotedRow::all(read.await?)
    }
}

const WAS_NOTED: &str = "select 1 from callbacks where order_id = ?1 and attempt = ?2 and provider = ?3 and said = ?4";
const NOTE: &str = "
    insert into callbacks (order_id, attempt, provider, said, became, at) values (?1, ?2, ?3, ?4, ?5, ?6)
    on conflict do nothing";
const OF_ORDER: &str = "
    select order_id, attempt, provider, said, became, at from callbacks where order_id = ?1 order by at, said";
