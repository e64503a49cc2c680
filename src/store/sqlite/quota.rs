//! The quota's cells. The one writer reads a cell, reckons, and writes it back.
#![expect(clippy::disallowed_methods, reason = "SQLite's statements are checked by the tests of both adapters")]

use async_trait::async_trait;
use sqlx::Row;
use sqlx::sqlite::SqliteConnection;

use super::{SqliteStore, now};
use crate::domain::{ProviderId, Timestamp};
use crate::ports::{Grant, Quota, Reservation, StoreError};
use crate::store::quota::{Cell, Reserved, Terms, nanos};

#[async_trait]
impl Quota for SqliteStore {
    async fn reserve(&self, reservation: &Reservation) -> Result<Grant, StoreError> {
        let terms = Terms::of(reservation);
        let provider = reservation.provider.as_str().to_owned();
        let reserved = self.write("reserve", move |on| Box::pin(reserve(on, provider, terms))).await?;
        Ok(reserved.grant(terms))
    }

    async fn pause(&self, provider: &ProviderId, until: Timestamp) -> Result<(), StoreError> {
        let provider = provider.as_str().to_owned();
        self.write("pause", move |on| {
            Box::pin(async move {
                sqlx::query(
                    "insert into quota_cells (provider, paused_until_ns) values (?1, ?2)
                     on conflict (provider) do update set
                         paused_until_ns = max(paused_until_ns, excluded.paused_until_ns)",
                )
                .bind(provider)
                .bind(nanos(until))
                .execute(on)
                .await?;
                Ok(())
            })
        })
        .await
    }
}

async fn reserve(on: &mut SqliteConnection, provider: String, terms: Terms) -> Result<Reserved, sqlx::Error> {
    let mut cell = read(on, &provider).await?;
    let reserved = cell.reserve(terms, nanos(now()));
    let [fresh_tat, retry_tat, query_tat] = cell.class_tat_ns;
    let [fresh_active, retry_active, query_active] = cell.active_until_ns;
    sqlx::query("insert or replace into quota_cells values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")
        .bind(provider)
        .bind(cell.tat_ns)
        .bind(fresh_tat)
        .bind(retry_tat)
        .bind(query_tat)
        .bind(fresh_active)
        .bind(retry_active)
        .bind(query_active)
        .bind(cell.paused_until_ns)
        .execute(on)
        .await?;
    Ok(reserved)
}

async fn read(on: &mut SqliteConnection, provider: &str) -> Result<Cell, sqlx::Error> {
    let row = sqlx::query("select * from quota_cells where provider = ?1").bind(provider).fetch_optional(on).await?;
    let Some(row) = row else { return Ok(Cell::default()) };
    Ok(Cell {
        tat_ns: row.try_get("tat_ns")?,
        class_tat_ns: [row.try_get("fresh_tat_ns")?, row.try_get("retry_tat_ns")?, row.try_get("query_tat_ns")?],
        active_until_ns: [
            row.try_get("fresh_active_until_ns")?,
            row.try_get("retry_active_until_ns")?,
            row.try_get("query_active_until_ns")?,
        ],
        paused_until_ns: row.try_get("paused_until_ns")?,
    })
}
