//! The orders by deadline.

use async_trait::async_trait;
use sqlx::postgres::PgConnection;

use super::PostgresStore;
use crate::domain::{Order, ProviderId, Timestamp};
use crate::ports::{DeadlineBook, DeadlinePosition, Horizon, StoreError};
use crate::store::row::OrderRow;

#[async_trait]
impl DeadlineBook for PostgresStore {
    async fn low_water(&self) -> Result<Timestamp, StoreError> {
        self.hot
            .run("low_water", |on| {
                Box::pin(async move {
                    sqlx::query_scalar!("select low_water from watchdog where only_one").fetch_one(on).await
                })
            })
            .await
    }

    async fn raise_low_water(&self, to: Timestamp) -> Result<(), StoreError> {
        self.hot
            .run("raise_low_water", move |on| {
                Box::pin(async move {
                    sqlx::query!("update watchdog set low_water = $1 where only_one and low_water < $1", to)
                        .execute(on)
                        .await
                        .map(drop)
                })
            })
            .await
    }

    async fn horizon(&self) -> Result<Horizon, StoreError> {
        self.hot
            .run("horizon", |on| {
                Box::pin(async move {
                    sqlx::query_as!(
                        Horizon,
                        r#"
                        select pg_snapshot_xmin(snapshot)::text::bigint as "oldest!",
                               pg_snapshot_xmax(snapshot)::text::bigint as "next!"
                        from (select pg_current_snapshot() as snapshot) as now
                        "#
                    )
                    .fetch_one(on)
                    .await
                })
            })
            .await
    }

    async fn undecided(
        &self,
        after: &DeadlinePosition,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Order>, StoreError> {
        let (after, limit) = (after.clone(), i64::try_from(limit).unwrap_or(i64::MAX));
        let rows = self.hot.run("undecided", move |on| Box::pin(undecided(on, after, until, limit))).await?;
        rows.into_iter().map(|row| row.into_order().map_err(|corrupt| corrupt.error("undecided"))).collect()
    }

    async fn unanswered(
        &self,
        provider: &ProviderId,
        claimed_before: Timestamp,
        after: &DeadlinePosition,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Order>, StoreError> {
        let (provider, after) = (provider.as_str().to_owned(), after.clone());
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = self
            .hot
            .run("unanswered", move |on| Box::pin(unanswered(on, provider, claimed_before, after, until, limit)));
        let rows = read.await?;
        rows.into_iter().map(|row| row.into_order().map_err(|corrupt| corrupt.error("unanswered"))).collect()
    }
}

async fn unanswered(
    on: &mut PgConnection,
    provider: String,
    claimed_before: Timestamp,
    after: DeadlinePosition,
    until: Timestamp,
    limit: i64,
) -> Result<Vec<OrderRow>, sqlx::Error> {
    let behind = after.order_id.as_ref().map_or("", |id| id.as_str());
    sqlx::query_as!(
        OrderRow,
        r#"
        select order_id, version, state, asked_version, phone, amount_minor, currency, carrier, created_at, paid_at,
               payment_id, notify, metadata, deadline_at, provider, attempt, attempt_state, client_ref, claim_id,
               claimed_at, provider_ref, inquiry, declined, wake_at, reason, sla, closed_at, refund_requested, cases
        from orders
        where deadline_at >= $1 and deadline_at <= $2
          and (deadline_at > $1 or order_id > $3)
          and state = 'in_flight' and attempt_state = 'sent' and provider = $4 and claimed_at < $5
        order by deadline_at, order_id
        limit $6
        "#,
        after.at,
        until,
        behind,
        provider,
        claimed_before,
        limit,
    )
    .fetch_all(on)
    .await
}

/// By the index on `deadline_at`; what is closed between is passed over. Of one deadline there are
/// few, so their order costs next to nothing.
async fn undecided(
    on: &mut PgConnection,
    after: DeadlinePosition,
    until: Timestamp,
    limit: i64,
) -> Result<Vec<OrderRow>, sqlx::Error> {
    let behind = after.order_id.as_ref().map_or("", |id| id.as_str());
    sqlx::query_as!(
        OrderRow,
        r#"
        select order_id, version, state, asked_version, phone, amount_minor, currency, carrier, created_at, paid_at,
               payment_id, notify, metadata, deadline_at, provider, attempt, attempt_state, client_ref, claim_id,
               claimed_at, provider_ref, inquiry, declined, wake_at, reason, sla, closed_at, refund_requested, cases
        from orders
        where deadline_at >= $1 and deadline_at <= $2
          and (deadline_at > $1 or order_id > $3)
          and (state in ('awaiting_payment', 'queued', 'in_flight', 'retry_wait') or state = 'in_doubt' and sla is null)
        order by deadline_at, order_id
        limit $4
        "#,
        after.at,
        until,
        behind,
        limit,
    )
    .fetch_all(on)
    .await
}
