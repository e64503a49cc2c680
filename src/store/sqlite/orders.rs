//! Orders: each batch is one transaction of the one writer.
#![expect(clippy::disallowed_methods, reason = "SQLite's statements are checked by the tests of both adapters")]

use async_trait::async_trait;
use sqlx::sqlite::SqliteConnection;

use super::rows::{JsonBatch, order_row};
use super::{SqliteStore, now};
use crate::domain::{OrderId, Timestamp, Transition};
use crate::ports::{Inserted, Loaded, OrderStore, SchemaError, StoreError, Written};
use crate::store::batch::{Stored, apply_answers, insert_answers, not_stored, sorted};
use crate::store::row::{Extras, OrderRow, loaded};

#[async_trait]
impl OrderStore for SqliteStore {
    async fn insert(&self, batch: &[Transition]) -> Result<Vec<Inserted>, StoreError> {
        let firsts = sorted(batch);
        if firsts.is_empty() {
            return Ok(Vec::new());
        }
        let json = JsonBatch::of(&firsts);
        let stored = self.write("insert", |on| Box::pin(write(on, INSERT, json))).await?;
        let stored = Stored::Some(stored.into_iter().collect());
        let missing = not_stored(&firsts, &stored);
        let existing = self.load(&missing).await?;
        insert_answers(batch, firsts.len(), &stored, (&missing, &existing))
    }

    async fn load(&self, ids: &[OrderId]) -> Result<Vec<Loaded>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let wanted = Extras::json(ids);
        let rows = self.read("load", |on| Box::pin(load(on, wanted))).await?;
        Ok(loaded(ids, rows))
    }

    async fn apply(&self, batch: &[Transition]) -> Result<Vec<Written>, StoreError> {
        let firsts = sorted(batch);
        if firsts.is_empty() {
            return Ok(Vec::new());
        }
        let json = JsonBatch::of(&firsts);
        let stored = self.write("apply", |on| Box::pin(write(on, APPLY, json))).await?;
        Ok(apply_answers(batch, firsts.len(), &Stored::Some(stored.into_iter().collect())))
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        Ok(now())
    }

    async fn check(&self) -> Result<(), SchemaError> {
        self.check_schema().await
    }
}

// The `where` tells SQLite's grammar, too, that `on` begins no join.
const INSERT: &str = "
    insert into orders (
        order_id, version, state, asked_version, phone, amount_minor, currency, carrier, created_at, paid_at,
        payment_id, notify, metadata, deadline_at, provider, attempt, attempt_state, client_ref, claim_id,
        claimed_at, provider_ref, inquiry, declined, wake_at, reason, sla, closed_at, refund_requested, cases
    )
    select
        value->>'order_id', value->>'version', value->>'state', value->>'asked_version', value->>'phone',
        value->>'amount_minor', value->>'currency', value->>'carrier', value->>'created_at',
        value->>'paid_at', value->>'payment_id', value->>'notify', value->>'metadata', value->>'deadline_at',
        value->>'provider', value->>'attempt', value->>'attempt_state', value->>'client_ref',
        value->>'claim_id', value->>'claimed_at', value->>'provider_ref', value->>'inquiry',
        value->>'declined', value->>'wake_at', value->>'reason', value->>'sla', value->>'closed_at',
        value->>'refund_requested', value->>'cases'
    from json_each(?1)
    -- Behind its deadline an open order may lie below the watchdog's mark: it is decided anew.
    where value->>'closed_at' is not null or value->>'deadline_at' > ?2
    on conflict (order_id) do nothing
    returning order_id";

const APPLY: &str = "
    update orders set
        version = i.value->>'version', state = i.value->>'state', asked_version = i.value->>'asked_version',
        paid_at = i.value->>'paid_at', payment_id = i.value->>'payment_id', deadline_at =
        i.value->>'deadline_at', provider = i.value->>'provider', attempt = i.value->>'attempt', attempt_state
        = i.value->>'attempt_state', client_ref = i.value->>'client_ref', claim_id = i.value->>'claim_id',
        claimed_at = i.value->>'claimed_at', provider_ref = i.value->>'provider_ref', inquiry =
        i.value->>'inquiry', declined = i.value->>'declined', wake_at = i.value->>'wake_at', reason =
        i.value->>'reason', sla = i.value->>'sla', closed_at = i.value->>'closed_at', refund_requested =
        i.value->>'refund_requested', refund_id = i.value->>'refund_id', cases = i.value->>'cases'
    from json_each(?1) as i
    where orders.order_id = i.value->>'order_id' and orders.version = i.value->>'from_version'
      and (orders.state not in ('succeeded', 'failed', 'cancelled') or orders.state = i.value->>'state')
      -- A new deadline lies ahead, or what it decides is decided in the same breath.
      and (orders.deadline_at = i.value->>'deadline_at' or i.value->>'closed_at' is not null
           or i.value->>'deadline_at' > ?2)
    returning orders.order_id";

/// Writes the rows by `statement`, and with those that were written their log entries, refunds
/// and cases; returns their ids.
async fn write(
    on: &mut SqliteConnection,
    statement: &'static str,
    batch: JsonBatch,
) -> Result<Vec<String>, sqlx::Error> {
    let query = sqlx::query_scalar(statement).bind(&batch.rows).bind(now().timestamp_micros());
    let stored: Vec<String> = query.fetch_all(&mut *on).await?;
    if stored.is_empty() {
        return Ok(stored);
    }
    let ids = Extras::json(&stored);
    for (statement, rows) in [
        (LOG, Some(batch.rows)),
        (REFUND, some_json(&batch.extras.refunds)),
        (OPEN, some_json(&batch.extras.opened)),
        (RESOLVE, some_json(&batch.extras.resolved)),
        (TIME, some_json(&batch.extras.timers)),
        (FOLLOW, some_json(&batch.extras.refund_news)),
        (TELL, some_json(&batch.extras.told)),
        (UNTIME, some_json(&batch.extras.told)),
    ] {
        let Some(rows) = rows else { continue };
        sqlx::query(statement).bind(rows).bind(&ids).execute(&mut *on).await?;
    }
    Ok(stored)
}

fn some_json<T: serde::Serialize>(rows: &[T]) -> Option<String> {
    if rows.is_empty() { None } else { Some(Extras::json(rows)) }
}

const LOG: &str = "
    insert into order_events (version, order_id, entry)
    select value->>'version', value->>'order_id', value->>'entry'
    from json_each(?1)
    where value->>'order_id' in (select value from json_each(?2))";

const REFUND: &str = "
    insert into refunds (order_id, payment_id, amount_minor, currency, reason, requested_at, confirm_by)
    select value->>'order_id', value->>'payment_id', value->>'amount_minor', value->>'currency',
           value->>'reason', value->>'requested_at', value->>'confirm_by'
    from json_each(?1)
    where value->>'order_id' in (select value from json_each(?2))
    on conflict (order_id) do nothing";

const OPEN: &str = "
    insert into cases (order_id, kind, opened_at, escalate_at, next_query_at, evidence)
    select value->>'order_id', value->>'kind', value->>'opened_at', value->>'escalate_at',
           value->>'next_query_at', value->>'evidence'
    from json_each(?1)
    where value->>'order_id' in (select value from json_each(?2))
    on conflict (order_id, kind) do nothing";

const TIME: &str = "
    insert into timers (due_at, order_id, kind)
    select value->>'due_at', value->>'order_id', 'notification'
    from json_each(?1)
    where value->>'order_id' in (select value from json_each(?2))
    on conflict (order_id, kind) do update set due_at = excluded.due_at";

const FOLLOW: &str = "
    update refunds set
        confirm_by = null,
        state = case when n.value->>'refund_id' is null then refunds.state else 'confirmed' end,
        refund_id = coalesce(n.value->>'refund_id', refunds.refund_id),
        settled_at = coalesce(n.value->>'settled_at', refunds.settled_at)
    from json_each(?1) as n
    where refunds.order_id = n.value->>'order_id' and n.value->>'order_id' in (select value from json_each(?2))";

// Behind what is told at a moment of its own, of which there may be one at the same version.
const TELL: &str = "
    insert into order_events (version, order_id, entry, beside)
    select value->>'version', value->>'order_id', value->>'entry', 2
    from json_each(?1)
    where value->>'order_id' in (select value from json_each(?2))";

const UNTIME: &str = "
    delete from timers
    where kind = 'notification'
      and order_id in (
          select value->>'order_id' from json_each(?1) where value->>'order_id' in (select value from json_each(?2)))";

const RESOLVE: &str = "
    update cases set
        state = 'resolved', next_query_at = null, resolved_at = r.value->>'resolved_at',
        resolved_by = r.value->>'resolved_by', resolved_evidence = r.value->>'resolved_evidence'
    from json_each(?1) as r
    where cases.order_id = r.value->>'order_id' and cases.kind = r.value->>'kind' and cases.state = 'open'
      and r.value->>'order_id' in (select value from json_each(?2))";

async fn load(on: &mut SqliteConnection, ids: String) -> Result<Vec<OrderRow>, sqlx::Error> {
    let rows = sqlx::query("select * from orders where order_id in (select value from json_each(?1))")
        .bind(ids)
        .fetch_all(on)
        .await?;
    rows.iter().map(order_row).collect()
}
