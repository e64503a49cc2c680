//! The orders by deadline.

use async_trait::async_trait;
use sqlx::postgres::PgConnection;

use super::PostgresStore;
use crate::domain::{ProviderId, Timestamp};
use crate::ports::{Census, DeadlineBook, DeadlinePage, DeadlinePosition, Horizon, StoreError};
use crate::store::row::{OpenCasesRow, OpenRow, OrderRow, census, deadline_page};

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

    async fn move_low_water(&self, from: Timestamp, to: Timestamp) -> Result<bool, StoreError> {
        self.hot
            .run("move_low_water", move |on| {
                Box::pin(async move {
                    sqlx::query!("update watchdog set low_water = $2 where only_one and low_water = $1", from, to)
                        .execute(on)
                        .await
                        .map(|done| done.rows_affected() > 0)
                })
            })
            .await
    }

    async fn set_aside(&self, from: Timestamp, to: Timestamp) -> Result<bool, StoreError> {
        self.hot.run("set_aside", move |on| Box::pin(set_aside(on, from, to))).await
    }

    async fn aside(&self, after: &DeadlinePosition, limit: usize) -> Result<DeadlinePage, StoreError> {
        let (after, most) = (after.clone(), i64::try_from(limit).unwrap_or(i64::MAX));
        let rows = self.hot.run("aside", move |on| Box::pin(aside(on, after, most))).await?;
        Ok(deadline_page(rows, limit))
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
    ) -> Result<DeadlinePage, StoreError> {
        let (after, most) = (after.clone(), i64::try_from(limit).unwrap_or(i64::MAX));
        let rows = self.hot.run("undecided", move |on| Box::pin(undecided(on, after, until, most))).await?;
        Ok(deadline_page(rows, limit))
    }

    async fn census(&self, low_water: Timestamp, now: Timestamp) -> Result<Census, StoreError> {
        let open = self.hot.run("census", move |on| Box::pin(open_orders(on, low_water, now))).await?;
        let cases = self.hot.run("census", |on| Box::pin(open_cases(on))).await?;
        Ok(census(&open, &cases))
    }

    async fn unanswered(
        &self,
        provider: &ProviderId,
        claimed_before: Timestamp,
        after: &DeadlinePosition,
        until: Timestamp,
        limit: usize,
    ) -> Result<DeadlinePage, StoreError> {
        let (provider, after) = (provider.as_str().to_owned(), after.clone());
        let most = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = self
            .hot
            .run("unanswered", move |on| Box::pin(unanswered(on, provider, claimed_before, after, until, most)));
        Ok(deadline_page(read.await?, limit))
    }
}

/// Orders in doubt have their deadlines behind them: they are found by their cases.
async fn open_orders(on: &mut PgConnection, low_water: Timestamp, now: Timestamp) -> Result<Vec<OpenRow>, sqlx::Error> {
    sqlx::query_as!(
        OpenRow,
        r#"
        select state as "state!", count(*) as "orders!", count(*) filter (where deadline_at < $2) as "overdue!",
               min(paid_at) as "oldest_paid_at?"
        from (
            select state, deadline_at, paid_at from orders where deadline_at >= $1
            union all
            select o.state, o.deadline_at, o.paid_at from set_aside s join orders o on o.order_id = s.order_id
            where o.deadline_at < $1
        ) as kept
        where state in ('awaiting_payment', 'queued', 'in_flight', 'retry_wait')
        group by state
        union all
        select 'in_doubt', count(*), 0, min(o.paid_at)
        from cases c join orders o on o.order_id = c.order_id
        where c.state = 'open' and c.kind = 'in_doubt' and o.state = 'in_doubt'
        "#,
        low_water,
        now,
    )
    .fetch_all(on)
    .await
}

async fn open_cases(on: &mut PgConnection) -> Result<Vec<OpenCasesRow>, sqlx::Error> {
    sqlx::query_as!(
        OpenCasesRow,
        r#"
        select kind, count(*) as "cases!", count(*) filter (where escalated) as "escalated!"
        from cases where state = 'open' group by kind
        "#
    )
    .fetch_all(on)
    .await
}

async fn unanswered(
    on: &mut PgConnection,
    provider: String,
    claimed_before: Timestamp,
    after: DeadlinePosition,
    until: Timestamp,
    limit: i64,
) -> Result<Vec<OrderRow>, sqlx::Error> {
    let behind = after.order_id.as_deref().unwrap_or_default();
    sqlx::query_as!(
        OrderRow,
        r#"
        select order_id, version, state, asked_version, phone, amount_minor, currency, carrier, created_at, paid_at,
               payment_id, notify, metadata, deadline_at, provider, attempt, attempt_state, client_ref, claim_id,
               claimed_at, provider_ref, inquiry, declined, wake_at, reason, sla, closed_at, refund_requested, refund_id,
               cases
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
    let behind = after.order_id.as_deref().unwrap_or_default();
    sqlx::query_as!(
        OrderRow,
        r#"
        select order_id, version, state, asked_version, phone, amount_minor, currency, carrier, created_at, paid_at,
               payment_id, notify, metadata, deadline_at, provider, attempt, attempt_state, client_ref, claim_id,
               claimed_at, provider_ref, inquiry, declined, wake_at, reason, sla, closed_at, refund_requested, refund_id,
               cases
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

async fn set_aside(on: &mut PgConnection, from: Timestamp, to: Timestamp) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"
        with moved as (
            update watchdog set low_water = $2 where only_one and low_water = $1 returning only_one
        ), kept as (
            insert into set_aside (order_id)
            select order_id from orders
            where (select count(*) from moved) > 0 and deadline_at >= $1 and deadline_at < $2
              and (state in ('awaiting_payment', 'queued', 'in_flight', 'retry_wait')
                   or state = 'in_doubt' and sla is null)
            on conflict do nothing
        )
        select count(*) > 0 as "moved!" from moved
        "#,
        from,
        to,
    )
    .fetch_one(on)
    .await
}

/// What is set aside is little: whoever decided it, or the retention, is noticed here.
async fn aside(on: &mut PgConnection, after: DeadlinePosition, limit: i64) -> Result<Vec<OrderRow>, sqlx::Error> {
    let behind = after.order_id.as_deref().unwrap_or_default();
    sqlx::query!(
        r#"
        delete from set_aside as s where not exists (
            select from orders as o
            where o.order_id = s.order_id
              and (o.state in ('awaiting_payment', 'queued', 'in_flight', 'retry_wait')
                   or o.state = 'in_doubt' and o.sla is null))
        "#
    )
    .execute(&mut *on)
    .await?;
    sqlx::query_as!(
        OrderRow,
        r#"
        select o.order_id, version, state, asked_version, phone, amount_minor, currency, carrier, created_at, paid_at,
               payment_id, notify, metadata, deadline_at, provider, attempt, attempt_state, client_ref, claim_id,
               claimed_at, provider_ref, inquiry, declined, wake_at, reason, sla, closed_at, refund_requested, refund_id,
               cases
        from set_aside s join orders o on o.order_id = s.order_id
        where deadline_at >= $1 and (deadline_at > $1 or o.order_id > $2)
        order by deadline_at, o.order_id
        limit $3
        "#,
        after.at,
        behind,
        limit,
    )
    .fetch_all(on)
    .await
}
