//! Orders: each write is one statement, which is its own transaction.

use std::collections::HashSet;

use async_trait::async_trait;
use sqlx::postgres::PgConnection;

use super::PostgresStore;
use super::columns::Columns;
use super::error::is_about_a_lock;
use super::locks::{Locks, Work, bearing};
use crate::domain::{OrderId, Timestamp, Transition};
use crate::ports::{Inserted, Loaded, OrderStore, SchemaError, StoreError, Written};
use crate::store::batch::{Stored, apply_answers, insert_answers, not_stored, sorted};
use crate::store::row::{Extras, OrderRow, loaded};

#[async_trait]
impl OrderStore for PostgresStore {
    async fn insert(&self, batch: &[Transition]) -> Result<Vec<Inserted>, StoreError> {
        let firsts = sorted(batch);
        if firsts.is_empty() {
            return Ok(Vec::new());
        }
        let stored = self.hot.run("insert", insert(&Columns::of_inserts(&firsts))).await?.stored();
        // A second statement, since the first does not see the rows of a concurrent winner.
        let missing = not_stored(&firsts, &stored);
        let existing = self.load(&missing).await?;
        insert_answers(batch, firsts.len(), &stored, (&missing, &existing))
    }

    async fn load(&self, ids: &[OrderId]) -> Result<Vec<Loaded>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let wanted: Vec<String> = ids.iter().map(|id| id.as_str().to_owned()).collect();
        let rows = self.hot.run("load", |on| Box::pin(load(on, wanted))).await?;
        Ok(loaded(ids, rows))
    }

    async fn apply(&self, batch: &[Transition]) -> Result<Vec<Written>, StoreError> {
        self.write(batch, Locks::Borne).await
    }

    async fn apply_promptly(&self, batch: &[Transition]) -> Result<Vec<Written>, StoreError> {
        self.write(batch, Locks::HardlyBorne).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.server_time("now").await
    }

    async fn check(&self) -> Result<(), SchemaError> {
        self.check_schema().await
    }
}

impl PostgresStore {
    async fn write(&self, batch: &[Transition], locks: Locks) -> Result<Vec<Written>, StoreError> {
        let firsts = sorted(batch);
        if firsts.is_empty() {
            return Ok(Vec::new());
        }
        match self.hot.run("apply", bearing(locks, apply(&Columns::of_updates(&firsts)))).await {
            Ok(answer) => Ok(apply_answers(batch, firsts.len(), &answer.stored())),
            Err(error) if is_about_a_lock(&error) => self.write_beside(batch, &firsts, locks, error).await,
            Err(error) => Err(error),
        }
    }

    /// Writes what can be written beside the rows that somebody holds.
    async fn write_beside(
        &self,
        batch: &[Transition],
        firsts: &[&Transition],
        locks: Locks,
        error: StoreError,
    ) -> Result<Vec<Written>, StoreError> {
        let ids = firsts.iter().map(|first| first.after.order_id.as_str().to_owned()).collect();
        let locked = self.locked("apply", ids).await?;
        if locked.is_empty() {
            return Err(error);
        }
        let is_free = |transition: &&Transition| !locked.contains(transition.after.order_id.as_str());
        let free: Vec<&Transition> = firsts.iter().copied().filter(is_free).collect();
        let written = match free.as_slice() {
            [] => HashSet::new(),
            free => match self.hot.run("apply", bearing(locks, apply(&Columns::of_updates(free)))).await?.stored() {
                Stored::All => free.iter().map(|one| one.after.order_id.as_str().to_owned()).collect(),
                Stored::Some(ids) => ids,
            },
        };
        let mut answers = apply_answers(batch, firsts.len(), &Stored::Some(written));
        for (answer, transition) in answers.iter_mut().zip(batch) {
            if *answer == Written::Overtaken && !is_free(&transition) {
                *answer = Written::Locked;
            }
        }
        Ok(answers)
    }

    pub(super) async fn server_time(&self, operation: &'static str) -> Result<Timestamp, StoreError> {
        self.hot
            .run(operation, |on| {
                Box::pin(
                    async move { sqlx::query_scalar!(r#"select clock_timestamp() as "now!""#).fetch_one(on).await },
                )
            })
            .await
    }
}

/// What a write answers: the ids only where some of its orders were not stored.
struct Answer {
    all: bool,
    ids: Vec<String>,
}

impl Answer {
    fn stored(self) -> Stored {
        if self.all { Stored::All } else { Stored::Some(self.ids.into_iter().collect()) }
    }
}

/// Rows, log entries, refunds, cases and timers of the orders that are not there yet. The columns are
/// written into the query here and now, so that nothing of them is copied before.
///
/// `(… in (select …)) is true`, here and below, is looked up in a hash table; without `is true` it
/// would become a join, and joins go by key only on these connections.
#[expect(clippy::too_many_lines, reason = "one statement, and its arguments one by one")]
fn insert(columns: &Columns<'_>) -> impl Work<Answer> + use<> {
    let (refunds, opened) = (Extras::json(&columns.extras.refunds), Extras::json(&columns.extras.opened));
    let (timers, told) = (Extras::json(&columns.extras.timers), Extras::json(&columns.extras.told));
    let query = sqlx::query_as!(
        Answer,
        r#"
        with input as materialized (
            select * from unnest(
                $1::text[], $2::int[], $3::text[], $4::int[], $5::text[], $6::bigint[], $7::text[], $8::text[],
                $9::timestamptz[], $10::timestamptz[], $11::text[], $12::boolean[], $13::text[], $14::timestamptz[],
                $15::text[], $16::int[], $17::text[], $18::text[], $19::uuid[], $20::timestamptz[], $21::text[],
                $22::text[], $23::int[], $24::timestamptz[], $25::text[], $26::text[], $27::timestamptz[],
                $28::boolean[], $29::int[], $30::text[]
            ) as i (
                order_id, version, state, asked_version, phone, amount_minor, currency, carrier,
                created_at, paid_at, payment_id, notify, metadata, deadline_at,
                provider, attempt, attempt_state, client_ref, claim_id, claimed_at, provider_ref,
                inquiry, declined, wake_at, reason, sla, closed_at,
                refund_requested, cases, entry
            )
        ), stored as (
            insert into orders (
                order_id, version, state, asked_version, phone, amount_minor, currency, carrier,
                created_at, paid_at, payment_id, notify, metadata, deadline_at,
                provider, attempt, attempt_state, client_ref, claim_id, claimed_at, provider_ref,
                inquiry, declined, wake_at, reason, sla, closed_at, refund_requested, cases, logged_in
            )
            select
                order_id, version, state, asked_version, phone, amount_minor, currency, carrier,
                created_at, paid_at, payment_id, notify, metadata, deadline_at,
                provider, attempt, attempt_state, client_ref, claim_id, claimed_at, provider_ref,
                inquiry, declined, wake_at, reason, sla, closed_at, refund_requested, cases,
                int8send((select pg_current_xact_id()::text::bigint))
            from input
            -- Behind its deadline an open order may lie below the watchdog's mark: it is decided anew.
            where closed_at is not null or deadline_at > clock_timestamp()
            on conflict (order_id) do nothing
            returning order_id
        ), told as materialized (
            -- Their lines stand behind those of their transitions.
            select order_id from jsonb_to_recordset($34::text::jsonb) as t (order_id text)
            where (order_id in (select order_id from stored)) is true
        ), logged as (
            insert into order_event_batches (xid, at, size, entries)
            select (select pg_current_xact_id()::text::bigint), clock_timestamp(),
                   count(*) + (select count(*) from told), string_agg(entry, e'\n')
            from input
            where (order_id in (select order_id from stored)) is true
            having count(*) > 0
        ), refunded as (
            insert into refunds (order_id, payment_id, amount_minor, currency, reason, requested_at, confirm_by)
            select order_id, payment_id, amount_minor, currency, reason,
                   timestamptz 'epoch' + requested_at * interval '1 microsecond',
                   timestamptz 'epoch' + confirm_by * interval '1 microsecond'
            from jsonb_to_recordset($31::text::jsonb) as r (
                order_id text, payment_id text, amount_minor bigint, currency text, reason text, requested_at bigint,
                confirm_by bigint)
            where (order_id in (select order_id from stored)) is true
            on conflict (order_id) do nothing
        ), opened as (
            insert into cases (order_id, kind, opened_at, escalate_at, next_query_at, evidence)
            select order_id, kind, timestamptz 'epoch' + opened_at * interval '1 microsecond',
                   timestamptz 'epoch' + escalate_at * interval '1 microsecond',
                   timestamptz 'epoch' + next_query_at * interval '1 microsecond', evidence
            from jsonb_to_recordset($32::text::jsonb) as c (
                order_id text, kind text, opened_at bigint, escalate_at bigint, next_query_at bigint, evidence text)
            where (order_id in (select order_id from stored)) is true
            on conflict (order_id, kind) do nothing
        ), timed as (
            insert into timers (due_at, order_id, kind)
            select timestamptz 'epoch' + due_at * interval '1 microsecond', order_id, 'notification'
            from jsonb_to_recordset($33::text::jsonb) as t (order_id text, due_at bigint)
            where (order_id in (select order_id from stored)) is true
            on conflict (order_id, kind) do update set due_at = excluded.due_at
        )
        select count(*) = cardinality($1) as "all!",
               case when count(*) = cardinality($1) then array[]::text[]
                    else coalesce(array_agg(order_id), array[]::text[]) end as "ids!"
        from stored
        "#,
        columns.order_id as _,
        columns.version as _,
        columns.state as _,
        columns.asked_version as _,
        columns.phone as _,
        columns.amount_minor as _,
        columns.currency as _,
        columns.carrier as _,
        columns.created_at as _,
        columns.paid_at as _,
        columns.payment_id as _,
        columns.notify as _,
        columns.metadata as _,
        columns.deadline_at as _,
        columns.provider as _,
        columns.attempt as _,
        columns.attempt_state as _,
        columns.client_ref as _,
        columns.claim_id as _,
        columns.claimed_at as _,
        columns.provider_ref as _,
        columns.inquiry as _,
        columns.declined as _,
        columns.wake_at as _,
        columns.reason as _,
        columns.sla as _,
        columns.closed_at as _,
        columns.refund_requested as _,
        columns.cases as _,
        columns.entry as _,
        refunds,
        opened,
        timers,
        told,
    );
    move |on| Box::pin(query.fetch_one(on))
}

/// Rows that still have the expected version, and with them their log entries, refunds and cases, and what ends a timer.
#[expect(clippy::too_many_lines, reason = "one statement, and its arguments one by one")]
fn apply(columns: &Columns<'_>) -> impl Work<Answer> + use<> {
    let refunds = Extras::json(&columns.extras.refunds);
    let (opened, resolved) = (Extras::json(&columns.extras.opened), Extras::json(&columns.extras.resolved));
    let (refund_news, told) = (Extras::json(&columns.extras.refund_news), Extras::json(&columns.extras.told));
    let query = sqlx::query_as!(
        Answer,
        r#"
        with moved as (
            update orders as o set
                version = i.version, state = i.state, asked_version = i.asked_version, paid_at = i.paid_at,
                payment_id = i.payment_id, deadline_at = i.deadline_at, provider = i.provider, attempt = i.attempt,
                attempt_state = i.attempt_state, client_ref = i.client_ref, claim_id = i.claim_id,
                claimed_at = i.claimed_at, provider_ref = i.provider_ref, inquiry = i.inquiry,
                declined = i.declined, wake_at = i.wake_at, reason = i.reason, sla = i.sla,
                closed_at = i.closed_at, refund_requested = i.refund_requested, cases = i.cases, refund_id = i.refund_id,
                logged_in = o.logged_in || int8send((select pg_current_xact_id()::text::bigint))
            from unnest(
                $1::text[], $2::int[], $3::int[], $4::text[], $5::int[], $6::timestamptz[], $7::text[],
                $8::timestamptz[], $9::text[], $10::int[], $11::text[], $12::text[], $13::uuid[],
                $14::timestamptz[], $15::text[], $16::text[], $17::int[], $18::timestamptz[], $19::text[],
                $20::text[], $21::timestamptz[], $22::boolean[], $23::int[], $24::text[], $25::text[]
            ) as i (
                order_id, from_version, version, state, asked_version, paid_at, payment_id,
                deadline_at, provider, attempt, attempt_state, client_ref, claim_id,
                claimed_at, provider_ref, inquiry, declined, wake_at, reason,
                sla, closed_at, refund_requested, cases, entry, refund_id
            )
            where o.order_id = i.order_id and o.version = i.from_version
              -- A closed order never changes its state (docs/adr/0101).
              and (o.state not in ('succeeded', 'failed', 'cancelled') or o.state = i.state)
              -- A new deadline lies ahead, or what it decides is decided in the same breath.
              and (i.deadline_at = o.deadline_at or i.closed_at is not null or i.deadline_at > clock_timestamp())
            returning o.order_id, i.entry
        ), told as materialized (
            -- Their lines stand behind those of their transitions.
            select order_id from jsonb_to_recordset($30::text::jsonb) as t (order_id text)
            where (order_id in (select order_id from moved)) is true
        ), logged as (
            insert into order_event_batches (xid, at, size, entries)
            select (select pg_current_xact_id()::text::bigint), clock_timestamp(),
                   count(*) + (select count(*) from told), string_agg(entry, e'\n')
            from moved
            having count(*) > 0
        ), refunded as (
            insert into refunds (order_id, payment_id, amount_minor, currency, reason, requested_at, confirm_by)
            select order_id, payment_id, amount_minor, currency, reason,
                   timestamptz 'epoch' + requested_at * interval '1 microsecond',
                   timestamptz 'epoch' + confirm_by * interval '1 microsecond'
            from jsonb_to_recordset($26::text::jsonb) as r (
                order_id text, payment_id text, amount_minor bigint, currency text, reason text, requested_at bigint,
                confirm_by bigint)
            where (order_id in (select order_id from moved)) is true
            on conflict (order_id) do nothing
        ), opened as (
            insert into cases (order_id, kind, opened_at, escalate_at, next_query_at, evidence)
            select order_id, kind, timestamptz 'epoch' + opened_at * interval '1 microsecond',
                   timestamptz 'epoch' + escalate_at * interval '1 microsecond',
                   timestamptz 'epoch' + next_query_at * interval '1 microsecond', evidence
            from jsonb_to_recordset($27::text::jsonb) as c (
                order_id text, kind text, opened_at bigint, escalate_at bigint, next_query_at bigint, evidence text)
            where (order_id in (select order_id from moved)) is true
            on conflict (order_id, kind) do nothing
        ), resolved as (
            update cases as c set
                state = 'resolved', next_query_at = null, resolved_by = r.resolved_by,
                resolved_at = timestamptz 'epoch' + r.resolved_at * interval '1 microsecond',
                resolved_evidence = r.resolved_evidence
            from jsonb_to_recordset($28::text::jsonb) as r (
                order_id text, kind text, resolved_at bigint, resolved_by text, resolved_evidence text)
            where c.order_id = r.order_id and c.kind = r.kind and c.state = 'open'
              -- Named again as a list, so that the table is read by it whichever side comes first.
              and c.order_id = any (array (
                  select order_id from jsonb_to_recordset($28::text::jsonb) as a (order_id text)))
              and (r.order_id in (select order_id from moved)) is true
        ), followed as (
            update refunds as r set
                confirm_by = null,
                state = case when n.refund_id is null then r.state else 'confirmed' end,
                refund_id = coalesce(n.refund_id, r.refund_id),
                settled_at = coalesce(timestamptz 'epoch' + n.settled_at * interval '1 microsecond', r.settled_at)
            from jsonb_to_recordset($29::text::jsonb) as n (order_id text, refund_id text, settled_at bigint)
            where r.order_id = n.order_id
              and r.order_id = any (array (
                  select order_id from jsonb_to_recordset($29::text::jsonb) as a (order_id text)))
              and (n.order_id in (select order_id from moved)) is true
        ), untimed as (
            delete from timers as t using told
            where t.order_id = told.order_id and t.kind = 'notification'
              and t.order_id = any (array (select order_id from told))
        )
        select count(*) = cardinality($1) as "all!",
               case when count(*) = cardinality($1) then array[]::text[]
                    else coalesce(array_agg(order_id), array[]::text[]) end as "ids!"
        from moved
        "#,
        columns.order_id as _,
        columns.from_version as _,
        columns.version as _,
        columns.state as _,
        columns.asked_version as _,
        columns.paid_at as _,
        columns.payment_id as _,
        columns.deadline_at as _,
        columns.provider as _,
        columns.attempt as _,
        columns.attempt_state as _,
        columns.client_ref as _,
        columns.claim_id as _,
        columns.claimed_at as _,
        columns.provider_ref as _,
        columns.inquiry as _,
        columns.declined as _,
        columns.wake_at as _,
        columns.reason as _,
        columns.sla as _,
        columns.closed_at as _,
        columns.refund_requested as _,
        columns.cases as _,
        columns.entry as _,
        columns.refund_id as _,
        refunds,
        opened,
        resolved,
        refund_news,
        told,
    );
    move |on| Box::pin(query.fetch_one(on))
}

async fn load(on: &mut PgConnection, ids: Vec<String>) -> Result<Vec<OrderRow>, sqlx::Error> {
    sqlx::query_as!(
        OrderRow,
        r#"
        select order_id, version, state, asked_version, phone, amount_minor, currency, carrier, created_at, paid_at,
               payment_id, notify, metadata, deadline_at, provider, attempt, attempt_state, client_ref, claim_id,
               claimed_at, provider_ref, inquiry, declined, wake_at, reason, sla, closed_at, refund_requested, refund_id,
               cases
        from orders
        where order_id = any($1)
        "#,
        &ids,
    )
    .fetch_all(on)
    .await
}
