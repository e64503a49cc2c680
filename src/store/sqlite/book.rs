//! The orders as people and exports read them.
#![expect(clippy::disallowed_methods, reason = "SQLite's statements are checked by the tests of both adapters")]

use async_trait::async_trait;
use sqlx::Row;

use super::SqliteStore;
use super::rows::{maybe_moment, order_row};
use crate::domain::{OrderId, State};
use crate::ports::{OrderBook, OrderFilter, OrderView, StoreError, Waits};
use crate::store::row::{Corrupt, Extras, state};

const PAGE: &str = "
    select *, exists (select 1 from cases as c where c.order_id = orders.order_id and c.state = 'open') as case_open
    from orders
    where order_id > ?1
      and (json_array_length(?2) = 0 or order_id in (select value from json_each(?2)))
      and (json_array_length(?3) = 0 or state in (select value from json_each(?3)))
      and (?4 is null or created_at < ?4)
    order by order_id
    limit ?5";

const WAITS: &str = "
    select (select due_at from timers where order_id = ?1 and kind = 'notification') as notification_at,
           (select confirm_by from refunds where order_id = ?1) as refund_confirm_by";

#[async_trait]
impl OrderBook for SqliteStore {
    async fn page(
        &self,
        filter: &OrderFilter,
        after: Option<&OrderId>,
        limit: usize,
    ) -> Result<Vec<OrderView>, StoreError> {
        let after = after.map_or_else(String::new, |id| id.as_str().to_owned());
        let ids = Extras::json(&filter.ids);
        let states = Extras::json(&filter.states);
        let created_before = filter.created_before.map(|at| at.timestamp_micros());
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self
            .read("page", move |on| {
                Box::pin(async move {
                    let query = sqlx::query(PAGE).bind(after).bind(ids).bind(states).bind(created_before).bind(limit);
                    let rows = query.fetch_all(on).await?;
                    rows.iter().map(|row| Ok((order_row(row)?, row.try_get::<bool, _>("case_open")?))).collect::<Result<
                        Vec<_>,
                        sqlx::Error,
                    >>(
                    )
                })
            })
            .await?;
        rows.into_iter()
            .map(|(row, case_open)| Ok(OrderView { order: row.into_order()?, case_open }))
            .collect::<Result<_, _>>()
            .map_err(|corrupt: Corrupt| corrupt.error("page"))
    }

    async fn waits(&self, order_id: &OrderId) -> Result<Waits, StoreError> {
        let id = order_id.as_str().to_owned();
        let read = self.read("waits", move |on| {
            Box::pin(async move {
                let row = sqlx::query(WAITS).bind(id).fetch_one(on).await?;
                Ok(Waits {
                    notification_at: maybe_moment(&row, "notification_at")?,
                    refund_confirm_by: maybe_moment(&row, "refund_confirm_by")?,
                })
            })
        });
        read.await
    }

    async fn count_by_state(&self) -> Result<Vec<(State, u64)>, StoreError> {
        let rows: Vec<(String, i64)> = self
            .read("count_by_state", |on| {
                Box::pin(async move {
                    sqlx::query_as("select state, count(*) from orders group by state").fetch_all(on).await
                })
            })
            .await?;
        rows.iter()
            .map(|(text, orders)| Ok((state(text)?, u64::try_from(*orders).unwrap_or(0))))
            .collect::<Result<_, _>>()
            .map_err(|corrupt: Corrupt| corrupt.error("count_by_state"))
    }
}
