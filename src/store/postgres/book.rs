//! The orders as people and exports read them, on connections of their own.

use async_trait::async_trait;
use sqlx::postgres::PgConnection;

use super::PostgresStore;
use crate::domain::{OrderId, State, Timestamp};
use crate::ports::{OrderBook, OrderFilter, OrderView, StoreError, Waits};
use crate::store::row::{OrderRow, state};

#[async_trait]
impl OrderBook for PostgresStore {
    async fn page(
        &self,
        filter: &OrderFilter,
        after: Option<&OrderId>,
        limit: usize,
    ) -> Result<Vec<OrderView>, StoreError> {
        let page = Page {
            ids: filter.ids.iter().map(|id| id.as_str().to_owned()).collect(),
            states: filter.states.iter().map(|state| state.as_str()).collect(),
            created_before: filter.created_before,
            after: after.map_or_else(String::new, |id| id.as_str().to_owned()),
            limit: i64::try_from(limit).unwrap_or(i64::MAX),
        };
        let rows = self.book.run("page", |on| Box::pin(read(on, page))).await?;
        rows.into_iter()
            .map(|(row, case_open)| Ok(OrderView { order: row.into_order()?, case_open }))
            .collect::<Result<_, _>>()
            .map_err(|corrupt: crate::store::row::Corrupt| corrupt.error("page"))
    }

    async fn waits(&self, order_id: &OrderId) -> Result<Waits, StoreError> {
        let id = order_id.as_str().to_owned();
        let read = self.book.run("waits", |on| {
            Box::pin(async move {
                sqlx::query_as!(
                    Waits,
                    r#"
                    select (select due_at from timers where order_id = $1 and kind = 'notification') as notification_at,
                           (select confirm_by from refunds where order_id = $1) as refund_confirm_by
                    "#,
                    id
                )
                .fetch_one(on)
                .await
            })
        });
        read.await
    }

    async fn count_by_state(&self) -> Result<Vec<(State, u64)>, StoreError> {
        let rows = self
            .book
            .run("count_by_state", |on| {
                Box::pin(async move {
                    sqlx::query!(r#"select state, count(*) as "orders!" from orders group by state"#)
                        .fetch_all(on)
                        .await
                })
            })
            .await?;
        rows.iter()
            .map(|row| Ok((state(&row.state)?, u64::try_from(row.orders).unwrap_or(0))))
            .collect::<Result<_, _>>()
            .map_err(|corrupt: crate::store::row::Corrupt| corrupt.error("count_by_state"))
    }
}

struct Page {
    ids: Vec<String>,
    states: Vec<&'static str>,
    created_before: Option<Timestamp>,
    /// Before the first id stands the empty text.
    after: String,
    limit: i64,
}

/// Two reads of one snapshot would need a transaction, so the second asks only for open cases of
/// what the first found: a case that changed in between is shown as it was a moment later.
async fn read(on: &mut PgConnection, page: Page) -> Result<Vec<(OrderRow, bool)>, sqlx::Error> {
    let rows = sqlx::query_as!(
        OrderRow,
        r#"
        select order_id, version, state, asked_version, phone, amount_minor, currency, carrier, created_at, paid_at,
               payment_id, notify, metadata, deadline_at, provider, attempt, attempt_state, client_ref, claim_id,
               claimed_at, provider_ref, inquiry, declined, wake_at, reason, sla, closed_at, refund_requested, refund_id,
               cases
        from orders
        where order_id > $1
          and (cardinality($2::text[]) = 0 or order_id = any($2))
          and (cardinality($3::text[]) = 0 or state = any($3))
          and ($4::timestamptz is null or created_at < $4)
        order by order_id
        limit $5
        "#,
        page.after,
        &page.ids,
        page.states as _,
        page.created_before,
        page.limit,
    )
    .fetch_all(&mut *on)
    .await?;
    let with_cases: Vec<String> = rows.iter().filter(|row| row.cases != 0).map(|row| row.order_id.clone()).collect();
    let open = if with_cases.is_empty() {
        Vec::new()
    } else {
        sqlx::query_scalar!(
            "select distinct order_id from cases where state = 'open' and order_id = any($1)",
            &with_cases
        )
        .fetch_all(on)
        .await?
    };
    let open: std::collections::HashSet<String> = open.into_iter().collect();
    Ok(rows
        .into_iter()
        .map(|row| {
            let case_open = open.contains(&row.order_id);
            (row, case_open)
        })
        .collect())
}
