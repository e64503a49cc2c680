//! The orders by deadline. There is one writer at a time, so nothing is ever under way unseen.
#![expect(clippy::disallowed_methods, reason = "SQLite's statements are checked by the tests of both adapters")]

use async_trait::async_trait;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::SqliteStore;
use super::rows::order_row;
use crate::domain::{ProviderId, Timestamp};
use crate::ports::{Census, DeadlineBook, DeadlinePage, DeadlinePosition, Horizon, StoreError, StoreErrorKind};
use crate::store::row::{OpenCasesRow, OpenRow, OrderRow, census, deadline_page};

#[async_trait]
impl DeadlineBook for SqliteStore {
    async fn low_water(&self) -> Result<Timestamp, StoreError> {
        let read = self.read("low_water", |on| {
            Box::pin(async move { sqlx::query_scalar("select low_water from watchdog").fetch_one(on).await })
        });
        let micros: i64 = read.await?;
        Timestamp::from_timestamp_micros(micros).ok_or_else(|| StoreError {
            operation: "low_water",
            kind: StoreErrorKind::Broken,
            source: "the low-water mark is no time".into(),
        })
    }

    async fn move_low_water(&self, from: Timestamp, to: Timestamp) -> Result<bool, StoreError> {
        self.write("move_low_water", move |on| {
            Box::pin(async move {
                sqlx::query("update watchdog set low_water = ?2 where low_water = ?1")
                    .bind(from.timestamp_micros())
                    .bind(to.timestamp_micros())
                    .execute(on)
                    .await
                    .map(|done| done.rows_affected() > 0)
            })
        })
        .await
    }

    async fn set_aside(&self, from: Timestamp, to: Timestamp) -> Result<bool, StoreError> {
        let (from, to) = (from.timestamp_micros(), to.timestamp_micros());
        self.write("set_aside", move |on| {
            Box::pin(async move {
                let moved = sqlx::query("update watchdog set low_water = ?2 where low_water = ?1");
                if moved.bind(from).bind(to).execute(&mut *on).await?.rows_affected() == 0 {
                    return Ok(false);
                }
                sqlx::query(SET_ASIDE).bind(from).bind(to).execute(on).await.map(|_| true)
            })
        })
        .await
    }

    async fn aside(&self, after: &DeadlinePosition, limit: usize) -> Result<DeadlinePage, StoreError> {
        let (at, behind) = (after.at.timestamp_micros(), after.order_id.clone().unwrap_or_default());
        let most = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = self.write("aside", move |on| {
            Box::pin(async move {
                sqlx::query(FORGET_DECIDED).execute(&mut *on).await?;
                let rows = sqlx::query(ASIDE).bind(at).bind(behind).bind(most).fetch_all(on).await?;
                rows.iter().map(order_row).collect()
            })
        });
        let rows: Vec<OrderRow> = read.await?;
        Ok(deadline_page(rows, limit))
    }

    async fn horizon(&self) -> Result<Horizon, StoreError> {
        Ok(Horizon { oldest: 0, next: 0 })
    }

    async fn undecided(
        &self,
        after: &DeadlinePosition,
        until: Timestamp,
        limit: usize,
    ) -> Result<DeadlinePage, StoreError> {
        let behind = after.order_id.clone().unwrap_or_default();
        let (at, until) = (after.at.timestamp_micros(), until.timestamp_micros());
        let most = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows: Vec<OrderRow> = self
            .read("undecided", move |on| {
                Box::pin(async move {
                    let rows =
                        sqlx::query(UNDECIDED).bind(at).bind(until).bind(behind).bind(most).fetch_all(on).await?;
                    rows.iter().map(order_row).collect()
                })
            })
            .await?;
        Ok(deadline_page(rows, limit))
    }

    async fn census(&self, low_water: Timestamp, now: Timestamp) -> Result<Census, StoreError> {
        let (low_water, now) = (low_water.timestamp_micros(), now.timestamp_micros());
        let read = self.read("census", move |on| {
            Box::pin(async move {
                let open = sqlx::query(OPEN_ORDERS).bind(low_water).bind(now).fetch_all(&mut *on).await?;
                let cases = sqlx::query(OPEN_CASES).fetch_all(on).await?;
                let open = open.iter().map(open_row).collect::<Result<Vec<_>, _>>()?;
                let cases = cases.iter().map(open_cases_row).collect::<Result<Vec<_>, _>>()?;
                Ok(census(&open, &cases))
            })
        });
        read.await
    }

    async fn unanswered(
        &self,
        provider: &ProviderId,
        claimed_before: Timestamp,
        after: &DeadlinePosition,
        until: Timestamp,
        limit: usize,
    ) -> Result<DeadlinePage, StoreError> {
        let behind = after.order_id.clone().unwrap_or_default();
        let (at, until) = (after.at.timestamp_micros(), until.timestamp_micros());
        let (provider, claimed_before) = (provider.as_str().to_owned(), claimed_before.timestamp_micros());
        let most = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = self.read("unanswered", move |on| {
            Box::pin(async move {
                let query = sqlx::query(UNANSWERED).bind(at).bind(until).bind(behind).bind(most);
                let rows = query.bind(provider).bind(claimed_before).fetch_all(on).await?;
                rows.iter().map(order_row).collect()
            })
        });
        let rows: Vec<OrderRow> = read.await?;
        Ok(deadline_page(rows, limit))
    }
}

fn open_row(row: &SqliteRow) -> Result<OpenRow, sqlx::Error> {
    Ok(OpenRow {
        state: row.try_get("state")?,
        orders: row.try_get("orders")?,
        overdue: row.try_get("overdue")?,
        oldest_paid_at: row.try_get::<Option<i64>, _>("oldest_paid_at")?.and_then(Timestamp::from_timestamp_micros),
    })
}

fn open_cases_row(row: &SqliteRow) -> Result<OpenCasesRow, sqlx::Error> {
    Ok(OpenCasesRow { kind: row.try_get("kind")?, cases: row.try_get("cases")?, escalated: row.try_get("escalated")? })
}

/// Orders in doubt have their deadlines behind them: they are found by their cases.
const OPEN_ORDERS: &str = "
    select state, count(*) as orders, coalesce(sum(deadline_at < ?2), 0) as overdue, min(paid_at) as oldest_paid_at
    from orders
    where (deadline_at >= ?1 or order_id in (select order_id from set_aside))
      and state in ('awaiting_payment', 'queued', 'in_flight', 'retry_wait')
    group by state
    union all
    select 'in_doubt', count(*), 0, min(o.paid_at)
    from cases c join orders o on o.order_id = c.order_id
    where c.state = 'open' and c.kind = 'in_doubt' and o.state = 'in_doubt'";

const OPEN_CASES: &str = "
    select kind, count(*) as cases, coalesce(sum(escalated), 0) as escalated
    from cases where state = 'open' group by kind";

const UNANSWERED: &str = "
    select * from orders
    where deadline_at >= ?1 and deadline_at <= ?2
      and (deadline_at > ?1 or order_id > ?3)
      and state = 'in_flight' and attempt_state = 'sent' and provider = ?5 and claimed_at < ?6
    order by deadline_at, order_id
    limit ?4";

const UNDECIDED: &str = "
    select * from orders
    where deadline_at >= ?1 and deadline_at <= ?2
      and (deadline_at > ?1 or order_id > ?3)
      and (state in ('awaiting_payment', 'queued', 'in_flight', 'retry_wait') or state = 'in_doubt' and sla is null)
    order by deadline_at, order_id
    limit ?4";

const SET_ASIDE: &str = "
    insert into set_aside (order_id)
    select order_id from orders
    where deadline_at >= ?1 and deadline_at < ?2
      and (state in ('awaiting_payment', 'queued', 'in_flight', 'retry_wait') or state = 'in_doubt' and sla is null)
    on conflict do nothing";

const FORGET_DECIDED: &str = "
    delete from set_aside where not exists (
        select 1 from orders o where o.order_id = set_aside.order_id
          and (o.state in ('awaiting_payment', 'queued', 'in_flight', 'retry_wait')
               or o.state = 'in_doubt' and o.sla is null))";

const ASIDE: &str = "
    select o.* from set_aside s join orders o on o.order_id = s.order_id
    where o.deadline_at >= ?1 and (o.deadline_at > ?1 or o.order_id > ?2)
    order by o.deadline_at, o.order_id
    limit ?3";
