//! The quota's cells, on the database's clock. The rules stand in `store::quota`; this is the same
//! arithmetic as one statement, so that a permit costs one round trip and no lock outlives it.

use async_trait::async_trait;
use sqlx::postgres::PgConnection;

use super::PostgresStore;
use crate::domain::{ProviderId, Timestamp};
use crate::ports::{Grant, Quota, Reservation, StoreError};
use crate::store::quota::{ACTIVE_NS, LEAST_AHEAD_NS, Reserved, Terms, nanos};

#[async_trait]
impl Quota for PostgresStore {
    async fn reserve(&self, reservation: &Reservation) -> Result<Grant, StoreError> {
        let terms = Terms::of(reservation);
        let provider = reservation.provider.as_str().to_owned();
        let reserved = self.hot.run("reserve", move |on| Box::pin(reserve(on, provider, terms))).await?;
        Ok(reserved.grant(terms))
    }

    async fn pause(&self, provider: &ProviderId, until: Timestamp) -> Result<(), StoreError> {
        let provider = provider.as_str().to_owned();
        self.hot.run("pause", move |on| Box::pin(pause(on, provider, nanos(until)))).await
    }
}

async fn reserve(on: &mut PgConnection, provider: String, terms: Terms) -> Result<Reserved, sqlx::Error> {
    if let Some(reserved) = take(on, &provider, terms).await? {
        return Ok(reserved);
    }
    sqlx::query!("insert into quota_cells (provider) values ($1) on conflict (provider) do nothing", provider)
        .execute(&mut *on)
        .await?;
    take(on, &provider, terms).await?.ok_or(sqlx::Error::RowNotFound)
}

/// The row is locked first, and the clock is read after that: permits of processes that waited
/// for each other are counted from when their turn came.
async fn take(on: &mut PgConnection, provider: &str, terms: Terms) -> Result<Option<Reserved>, sqlx::Error> {
    sqlx::query_as!(
        Reserved,
        r#"
        with locked as materialized (
            select * from quota_cells where provider = $1 for update
        ), read as materialized (
            select *,
                   (extract(epoch from clock_timestamp()) * 1000000)::bigint * 1000 as now_ns,
                   array[fresh_tat_ns, retry_tat_ns, query_tat_ns] as tats,
                   array[fresh_active_until_ns, retry_active_until_ns, query_active_until_ns] as active_until
            from locked
        ), shared as (
            select *,
                   greatest(tat_ns, now_ns) as tat,
                   greatest(tats[$2::int], now_ns) as class_tat,
                   ceil($4::bigint * (
                       select sum(share)
                       from unnest(active_until, $9::float8[]) with ordinality as c (until_ns, share, class)
                       where class = $2 or until_ns > now_ns
                   ) / ($9::float8[])[$2])::bigint as class_interval
            from read
        ), counted as (
            select *,
                   case when now_ns + $6::bigint + $5::bigint < tat then 0
                        else (now_ns + $6 + $5 - tat) / $4 + 1 end as by_total,
                   case when now_ns + $6 + $7::bigint < class_tat then 0
                        else (now_ns + $6 + $7 - class_tat) / class_interval + 1 end as by_class,
                   case when now_ns + $8::bigint + $5 < tat then 0
                        else (now_ns + $8 + $5 - tat) / $4 + 1 end as spare
            from shared
        ), granted as (
            select *,
                   case when paused_until_ns > now_ns then 0
                        else least($3::bigint, by_total, greatest(by_class, spare)) end as permits
            from counted
        ), after as materialized (
            select *,
                   case when paused_until_ns > now_ns then paused_until_ns
                        else greatest(tat_after - $5 - $6, least(class_tat_after - $7 - $6, tat_after - $5 - $8),
                                      now_ns + $10::bigint) end as again
            from granted, lateral (
                select tat + permits * $4 as tat_after,
                       class_tat + least(permits, by_class) * class_interval as class_tat_after
            ) as tats_after
        ), written as (
            update quota_cells as q set
                tat_ns = a.tat_after,
                fresh_tat_ns = case $2 when 1 then a.class_tat_after else q.fresh_tat_ns end,
                retry_tat_ns = case $2 when 2 then a.class_tat_after else q.retry_tat_ns end,
                query_tat_ns = case $2 when 3 then a.class_tat_after else q.query_tat_ns end,
                fresh_active_until_ns = case $2 when 1 then a.active_until else q.fresh_active_until_ns end,
                retry_active_until_ns = case $2 when 2 then a.active_until else q.retry_active_until_ns end,
                query_active_until_ns = case $2 when 3 then a.active_until else q.query_active_until_ns end
            from (
                select provider, tat_after, class_tat_after,
                       $11::bigint + case when permits < $3 then again else now_ns end as active_until
                from after
            ) as a
            where q.provider = a.provider
        )
        select now_ns as "now_ns!", tat as "tat_ns!", permits as "permits!", again as "again_ns!" from after
        "#,
        provider,
        terms.class,
        terms.wanted,
        terms.interval_ns,
        terms.tolerance_ns,
        terms.horizon_ns,
        LEAST_AHEAD_NS,
        terms.spare_ns,
        &terms.shares[..],
        LEAST_AHEAD_NS / 4,
        ACTIVE_NS,
    )
    .fetch_optional(on)
    .await
}

async fn pause(on: &mut PgConnection, provider: String, until_ns: i64) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"
        insert into quota_cells as q (provider, paused_until_ns) values ($1, $2)
        on conflict (provider) do update set paused_until_ns = greatest(q.paused_until_ns, excluded.paused_until_ns)
        "#,
        provider,
        until_ns,
    )
    .execute(on)
    .await?;
    Ok(())
}
