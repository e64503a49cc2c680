//! The orders as people and exports read them.
#![expect(clippy::disallowed_methods, reason = "SQLite's statements are checked by the tests of both adapters")]

use async_trait::async_trait;
use sqlx::Row;

use super::SqliteStore;
use super::rows::{maybe_moment, order_row};
use crate::domain::{OrderId, State, Timestamp};
use crate::ports::{OrderBook, OrderFilter, OrderPage, StoreError, Waits};
use crate::store::row::{Corrupt, Extras, SCANNED_MAX, order_page, state};

const PAGE: &str = "
    select *, exists (select 1 from cases as c where c.order_id = orders.order_id and c.state = 'open') as case_open
    from (
        select * from orders
        where order_id > ?1 and (json_array_length(?2) = 0 or order_id in (select value from json_each(?2)))
        order by order_id
        limit ?3
    ) as orders
    where (json_array_length(?4) = 0 or state in (select value from json_each(?4)))
      and (json_array_length(?5) = 0 or provider in (select value from json_each(?5)))
      and (?6 is null or created_at >= ?6)
      and (?7 is null or created_at < ?7)
      and (?8 is null or deadline_at >= ?8)
      and (?9 is null or deadline_at < ?9)
      and (not ?10 or case_open)
      and (not ?11 or refund_requested)
      and (not ?12 or refund_requested and refund_id is null)
    order by order_id
    limit ?13";

/// The last row that a page which is not full has looked at.
const LAST_SCANNED: &str = "
    select order_id from orders
    where order_id > ?1 and (json_array_length(?2) = 0 or order_id in (select value from json_each(?2)))
    order by order_id
    limit 1 offset ?3";

const WAITS: &str = "
    select (select due_at from timers where order_id = ?1 and kind = 'notification') as notification_at,
           (select confirm_by from refunds where order_id = ?1) as refund_confirm_by";

#[async_trait]
impl OrderBook for SqliteStore {
    async fn page(&self, filter: &OrderFilter, after: Option<&OrderId>, limit: usize) -> Result<OrderPage, StoreError> {
        let filter = filter.clone();
        let after = after.map_or_else(String::new, |id| id.as_str().to_owned());
        let ids = Extras::json(&filter.ids);
        let (states, lanes) = (Extras::json(&filter.states), Extras::json(&filter.lanes));
        let read = self.read("page", move |on| {
            Box::pin(async move {
                let micros = |at: Option<Timestamp>| at.map(|at| at.timestamp_micros());
                let query = sqlx::query(PAGE).bind(&after).bind(&ids).bind(SCANNED_MAX).bind(states).bind(lanes);
                let query = query.bind(micros(filter.created_from)).bind(micros(filter.created_before));
                let query = query.bind(micros(filter.deadline_from)).bind(micros(filter.deadline_before));
                let query = query.bind(filter.only_with_case).bind(filter.only_refunded).bind(filter.only_unconfirmed);
                let rows = query.bind(i64::try_from(limit).unwrap_or(i64::MAX)).fetch_all(&mut *on).await?;
                let viewed = |row| Ok((order_row(row)?, row.try_get::<bool, _>("case_open")?));
                let rows = rows.iter().map(viewed).collect::<Result<Vec<_>, sqlx::Error>>()?;
                if rows.len() >= limit {
                    return Ok((rows, None));
                }
                let last = sqlx::query_scalar(LAST_SCANNED).bind(&after).bind(&ids).bind(SCANNED_MAX - 1);
                Ok((rows, last.fetch_optional(on).await?))
            })
        });
        let (rows, last) = read.await?;
        order_page(rows, last, limit).map_err(|corrupt| corrupt.error("page"))
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
