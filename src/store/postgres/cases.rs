//! The cases: for people on connections of their own, for the watchdog by the times that it asks for.

use async_trait::async_trait;
use sqlx::postgres::PgConnection;

use super::PostgresStore;
use crate::domain::Timestamp;
use crate::ports::{Case, CaseBook, CaseFilter, CaseNote, OverdueQuestion, QuestionTime, StoreError, Written};
use crate::store::row::{CaseRow, case_key, entry_line};

#[async_trait]
impl CaseBook for PostgresStore {
    async fn cases(&self, filter: &CaseFilter, after: Option<&Case>, limit: usize) -> Result<Vec<Case>, StoreError> {
        let asked = Asked {
            order_id: filter.order_id.as_ref().map(|id| id.as_str().to_owned()),
            kinds: filter.kinds.iter().map(|kind| kind.as_str()).collect(),
            with_resolved: filter.with_resolved,
            only_escalated: filter.only_escalated,
            opened_before: filter.opened_before,
            owner: filter.owner.clone(),
            only_unowned: filter.only_unowned,
            after: after.map(|case| (case.opened_at, case.key.order_id.as_str().to_owned(), case.key.kind.as_str())),
            limit: i64::try_from(limit).unwrap_or(i64::MAX),
        };
        let rows = self.book.run("cases", |on| Box::pin(cases(on, asked))).await?;
        rows.into_iter().map(|row| row.into_case().map_err(|corrupt| corrupt.error("cases"))).collect()
    }

    async fn overdue_questions(&self, due_by: Timestamp, limit: usize) -> Result<Vec<OverdueQuestion>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = self.hot.run("overdue_questions", move |on| {
            Box::pin(async move {
                sqlx::query!(
                    r#"
                    select c.order_id, c.kind, c.next_query_at as "next_query_at!", o.held_until, o.held_version
                    from cases c join orders o on o.order_id = c.order_id
                    where c.next_query_at is not null and c.next_query_at <= $1 and c.state = 'open'
                    order by c.next_query_at
                    limit $2
                    "#,
                    due_by,
                    limit,
                )
                .fetch_all(on)
                .await
            })
        });
        let rows = read.await?.into_iter().map(|row| {
            let version = row.held_version.and_then(|version| u32::try_from(version).ok());
            Ok(OverdueQuestion {
                key: case_key(&row.order_id, &row.kind).map_err(|corrupt| corrupt.error("overdue_questions"))?,
                next_query_at: row.next_query_at,
                held: row.held_until.zip(version),
            })
        });
        rows.collect()
    }

    async fn set_questions(&self, batch: &[QuestionTime]) -> Result<(), StoreError> {
        let mut sorted: Vec<&QuestionTime> = batch.iter().collect();
        sorted.sort_by(|a, b| a.key.order_id.cmp(&b.key.order_id));
        let order_id: Vec<String> = sorted.iter().map(|time| time.key.order_id.as_str().to_owned()).collect();
        let kind: Vec<String> = sorted.iter().map(|time| time.key.kind.as_str().to_owned()).collect();
        let was: Vec<Timestamp> = sorted.iter().map(|time| time.was).collect();
        let next: Vec<Option<Timestamp>> = sorted.iter().map(|time| time.next).collect();
        let write = self.hot.run("set_questions", move |on| {
            Box::pin(async move {
                sqlx::query!(
                    r#"
                    update cases c set next_query_at = t.next
                    from unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[])
                        as t (order_id, kind, was, next)
                    where c.order_id = t.order_id and c.order_id = any ($1) and c.kind = t.kind
                      and c.next_query_at = t.was and c.state = 'open'
                    "#,
                    &order_id,
                    &kind,
                    &was,
                    &next as &[Option<Timestamp>],
                )
                .execute(on)
                .await
                .map(drop)
            })
        });
        write.await
    }

    async fn note(&self, case: &CaseNote) -> Result<Written, StoreError> {
        let case = case.clone();
        let is_noted = self.book.run("note", |on| Box::pin(note(on, case))).await?;
        Ok(if is_noted { Written::Stored } else { Written::Overtaken })
    }

    async fn escalate(&self, now: Timestamp, limit: usize) -> Result<Vec<Case>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.hot.run("escalate", move |on| Box::pin(escalate(on, now, limit))).await?;
        rows.into_iter().map(|row| row.into_case().map_err(|corrupt| corrupt.error("escalate"))).collect()
    }
}

struct Asked {
    order_id: Option<String>,
    kinds: Vec<&'static str>,
    with_resolved: bool,
    only_escalated: bool,
    opened_before: Option<Timestamp>,
    owner: Option<String>,
    only_unowned: bool,
    after: Option<(Timestamp, String, &'static str)>,
    limit: i64,
}

async fn cases(on: &mut PgConnection, asked: Asked) -> Result<Vec<CaseRow>, sqlx::Error> {
    let (opened_at, order_id, kind) = match asked.after {
        Some((opened_at, order_id, kind)) => (Some(opened_at), Some(order_id), Some(kind)),
        None => (None, None, None),
    };
    sqlx::query_as!(
        CaseRow,
        r#"
        select order_id, kind, opened_at, escalate_at, escalated, next_query_at, evidence, owner,
               resolved_at, resolved_by, resolved_evidence
        from cases
        where ($1::text is null or order_id = $1)
          and (cardinality($2::text[]) = 0 or kind = any ($2))
          and ($3 or state = 'open')
          and (not $4 or escalated)
          and ($5::timestamptz is null or opened_at < $5)
          and ($6::timestamptz is null or (opened_at, order_id, kind) > ($6, $7, $8))
          and ($10::text is null or owner = $10)
          and (not $11 or owner is null)
        order by opened_at, order_id, kind
        limit $9
        "#,
        asked.order_id,
        asked.kinds as _,
        asked.with_resolved,
        asked.only_escalated,
        asked.opened_before,
        opened_at,
        order_id,
        kind,
        asked.limit,
        asked.owner,
        asked.only_unowned,
    )
    .fetch_all(on)
    .await
}

/// The order's row is locked first, as by whoever moves the order and its cases with it.
async fn note(on: &mut PgConnection, note: CaseNote) -> Result<bool, sqlx::Error> {
    let noted = sqlx::query_scalar!(
        r#"
        with held as materialized (
            select order_id from orders where order_id = $1 for no key update
        ), noted as (
            update cases as c set owner = $4
            from held
            where c.order_id = held.order_id and c.kind = $2 and c.state = 'open' and c.owner is not distinct from $3
            returning c.order_id
        ), marked as (
            update orders as o set logged_in = o.logged_in || int8send((select pg_current_xact_id()::text::bigint))
            from noted
            where o.order_id = noted.order_id
        ), logged as (
            insert into order_event_batches (xid, at, size, entries)
            select (select pg_current_xact_id()::text::bigint), clock_timestamp(), 1, $5
            from noted
        )
        select count(*) as "noted!" from noted
        "#,
        note.key.order_id.as_str(),
        note.key.kind.as_str(),
        note.was,
        note.owner,
        entry_line(&note.entry),
    )
    .fetch_one(on)
    .await?;
    Ok(noted > 0)
}

/// What another has locked is being escalated, or resolved, there.
async fn escalate(on: &mut PgConnection, now: Timestamp, limit: i64) -> Result<Vec<CaseRow>, sqlx::Error> {
    sqlx::query_as!(
        CaseRow,
        r#"
        with due as (
            select order_id, kind from cases
            where state = 'open' and not escalated and escalate_at <= $1
            order by escalate_at
            limit $2
            for update skip locked
        )
        update cases c set escalated = true
        from due
        where c.order_id = due.order_id and c.kind = due.kind
        returning c.order_id, c.kind, c.opened_at, c.escalate_at, c.escalated, c.next_query_at, c.evidence, c.owner,
                  c.resolved_at, c.resolved_by, c.resolved_evidence
        "#,
        now,
        limit,
    )
    .fetch_all(on)
    .await
}
