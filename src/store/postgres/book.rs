//! The orders as people and exports read them, on connections of their own.

use async_trait::async_trait;
use sqlx::postgres::PgConnection;

use super::PostgresStore;
use crate::domain::{OrderId, State};
use crate::ports::{OrderBook, OrderFilter, OrderPage, StoreError, Waits};
use crate::store::row::{OrderRow, SCANNED_MAX, order_page, state};

#[async_trait]
impl OrderBook for PostgresStore {
    async fn page(&self, filter: &OrderFilter, after: Option<&OrderId>, limit: usize) -> Result<OrderPage, StoreError> {
        let page = Page {
            ids: filter.ids.iter().map(|id| id.as_str().to_owned()).collect(),
            states: filter.states.iter().map(|state| state.as_str()).collect(),
            lanes: filter.lanes.iter().map(|lane| lane.as_str().to_owned()).collect(),
            filter: filter.clone(),
            after: after.map_or_else(String::new, |id| id.as_str().to_owned()),
            limit: i64::try_from(limit).unwrap_or(i64::MAX),
        };
        let (rows, last) = self.book.run("page", |on| Box::pin(read(on, page))).await?;
        order_page(rows, last, limit).map_err(|corrupt| corrupt.error("page"))
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
    lanes: Vec<String>,
    filter: OrderFilter,
    /// Before the first id stands the empty text.
    after: String,
    limit: i64,
}

/// Two reads of one snapshot would need a transaction, so the second asks only for open cases of
/// what the first found: a case that changed in between is shown as it was a moment later.
async fn read(on: &mut PgConnection, page: Page) -> Result<(Vec<(OrderRow, bool)>, Option<String>), sqlx::Error> {
    let Page { filter, .. } = &page;
    let rows = sqlx::query_as!(
        OrderRow,
        r#"
        select order_id, version, state, asked_version, phone, amount_minor, currency, carrier, created_at, paid_at,
               payment_id, notify, metadata, deadline_at, provider, attempt, attempt_state, client_ref, claim_id,
               claimed_at, provider_ref, inquiry, declined, wake_at, reason, sla, closed_at, refund_requested, refund_id,
               cases
        from (
            select * from orders
            where order_id > $1 and (cardinality($2::text[]) = 0 or order_id = any($2))
            order by order_id
            limit $3
        ) as o
        where (cardinality($4::text[]) = 0 or state = any($4))
          and (cardinality($5::text[]) = 0 or provider = any($5))
          and ($6::timestamptz is null or created_at >= $6)
          and ($7::timestamptz is null or created_at < $7)
          and ($8::timestamptz is null or deadline_at >= $8)
          and ($9::timestamptz is null or deadline_at < $9)
          and (not $10 or cases <> 0
               and exists (select from cases as c where c.order_id = o.order_id and c.state = 'open'))
          and (not $11 or refund_requested)
          and (not $12 or refund_requested and refund_id is null)
        order by order_id
        limit $13
        "#,
        page.after,
        &page.ids,
        SCANNED_MAX,
        page.states as _,
        &page.lanes,
        filter.created_from,
        filter.created_before,
        filter.deadline_from,
        filter.deadline_before,
        filter.only_with_case,
        filter.only_refunded,
        filter.only_unconfirmed,
        page.limit,
    )
    .fetch_all(&mut *on)
    .await?;
    let is_full = i64::try_from(rows.len()).is_ok_and(|found| found >= page.limit);
    let last = if is_full { None } else { last_scanned(on, &page).await? };
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
    let rows = rows.into_iter().map(|row| {
        let case_open = open.contains(&row.order_id);
        (row, case_open)
    });
    Ok((rows.collect(), last))
}

/// The last row that a page which is not full has looked at, where more may follow. (One that was stored in between moves it
/// down by one, and is looked at twice.)
async fn last_scanned(on: &mut PgConnection, page: &Page) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"
        select order_id from orders
        where order_id > $1 and (cardinality($2::text[]) = 0 or order_id = any($2))
        order by order_id
        offset $3 limit 1
        "#,
        page.after,
        &page.ids,
        SCANNED_MAX - 1,
    )
    .fetch_optional(on)
    .await
}
