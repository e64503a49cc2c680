//! The timers.

use std::collections::HashSet;

use async_trait::async_trait;
use sqlx::postgres::PgConnection;

use super::PostgresStore;
use crate::domain::{LoggedEvent, Timestamp};
use crate::ports::{DeadlinePosition, StoreError, TimerPage, Timers, Written};
use crate::store::row::{DueRow, entry_line, timer_page, version_column};

#[async_trait]
impl Timers for PostgresStore {
    async fn due(&self, after: &DeadlinePosition, until: Timestamp, limit: usize) -> Result<TimerPage, StoreError> {
        let (after, most) = (after.clone(), i64::try_from(limit).unwrap_or(i64::MAX));
        let rows = self.hot.run("due_timers", move |on| Box::pin(due(on, after, until, most))).await?;
        Ok(timer_page(rows, limit))
    }

    async fn fire(&self, batch: &[LoggedEvent]) -> Result<Vec<Written>, StoreError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<String> = batch.iter().map(|event| event.order_id.as_str().to_owned()).collect();
        let versions: Vec<i32> = batch.iter().map(|event| version_column(event.version)).collect();
        let entries: Vec<String> = batch.iter().map(entry_line).collect();
        let fired = self.hot.run("fire_timers", move |on| Box::pin(fire(on, ids, versions, entries))).await?;
        let fired: HashSet<String> = fired.into_iter().collect();
        let answer = |event: &LoggedEvent| {
            if fired.contains(event.order_id.as_str()) { Written::Stored } else { Written::Overtaken }
        };
        Ok(batch.iter().map(answer).collect())
    }
}

async fn due(
    on: &mut PgConnection,
    after: DeadlinePosition,
    until: Timestamp,
    limit: i64,
) -> Result<Vec<DueRow>, sqlx::Error> {
    let behind = after.order_id.as_deref().unwrap_or_default();
    sqlx::query_as!(
        DueRow,
        r#"
        select t.due_at, t.order_id, o.version, o.state, o.deadline_at
        from timers t join orders o on o.order_id = t.order_id
        where (t.due_at, t.order_id) > ($1, $2) and t.due_at <= $3
        order by t.due_at, t.order_id
        limit $4
        "#,
        after.at,
        behind,
        until,
        limit,
    )
    .fetch_all(on)
    .await
}

/// The order's row is locked while its entry is written: what is told is how it stands when that is committed. The ids are
/// named again as a list, so that each table is read by its key whichever side comes first.
async fn fire(
    on: &mut PgConnection,
    ids: Vec<String>,
    versions: Vec<i32>,
    entries: Vec<String>,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"
        with held as materialized (
            select o.order_id, i.entry
            from unnest($1::text[], $2::int[], $3::text[]) as i (order_id, version, entry)
            join orders as o on o.order_id = i.order_id and o.version = i.version
            join timers as t on t.order_id = i.order_id
            where o.order_id = any ($1) and t.order_id = any ($1) and t.kind = 'notification'
            -- Whoever holds one of them is moving it, or forgot it in a console: the others do not wait for that.
            for no key update of o skip locked
            for update of t skip locked
        ), fired as (
            delete from timers as t using held
            where t.order_id = held.order_id and t.order_id = any ($1) and t.kind = 'notification'
            returning t.order_id, held.entry
        ), noted as (
            update orders as o set logged_in = o.logged_in || int8send((select pg_current_xact_id()::text::bigint))
            from fired
            where o.order_id = fired.order_id and o.order_id = any ($1)
        ), logged as (
            insert into order_event_batches (xid, at, size, entries)
            select (select pg_current_xact_id()::text::bigint), clock_timestamp(), count(*), string_agg(entry, e'\n')
            from fired
            having count(*) > 0
        )
        select order_id from fired
        "#,
        &ids,
        &versions,
        &entries,
    )
    .fetch_all(on)
    .await
}
