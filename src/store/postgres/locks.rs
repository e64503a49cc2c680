//! Rows that other sessions hold: how long they are waited for, and which they are (`docs/adr/0107`).

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::postgres::PgConnection;

use super::PostgresStore;
use crate::ports::StoreError;

/// How long a lock is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Locks {
    /// As long as these connections wait for any (`BY_KEY`).
    Borne,
    /// For a fraction of a second: longer than any write of ours holds a row, and short enough for whoever is waited for.
    HardlyBorne,
}

/// What is done on a connection.
pub(super) trait Work<T>:
    for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, sqlx::Error>> + Send + 'static
{
}
impl<T, F> Work<T> for F where
    F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, sqlx::Error>> + Send + 'static
{
}

/// Work that waits so long for locks.
pub(super) fn bearing<T: Send + 'static>(locks: Locks, work: impl Work<T>) -> impl Work<T> {
    move |on: &mut PgConnection| match locks {
        Locks::Borne => work(on),
        Locks::HardlyBorne => Box::pin(async move {
            // For the session, since a statement of its own transaction cannot say so. A connection on which something
            // fails is given up, and never comes back with it.
            sqlx::query!("set lock_timeout = 300").execute(&mut *on).await?;
            let done = work(&mut *on).await?;
            sqlx::query!("reset lock_timeout").execute(on).await?;
            Ok(done)
        }),
    }
}

impl PostgresStore {
    /// Those of some orders whose rows other sessions hold for longer than a transaction takes. The statement that has
    /// just failed is one of them: its locks outlive the news of its end for a moment.
    pub(super) async fn locked(
        &self,
        operation: &'static str,
        ids: Vec<String>,
    ) -> Result<HashSet<String>, StoreError> {
        const LOOKS: u32 = 4;
        const BETWEEN: Duration = Duration::from_millis(50);
        let mut locked: HashSet<String> = ids.into_iter().collect();
        for _ in 0..LOOKS {
            tokio::time::sleep(BETWEEN).await;
            let asked: Vec<String> = locked.iter().cloned().collect();
            for free in self.hot.run(operation, move |on| Box::pin(unlocked(on, asked))).await? {
                locked.remove(&free);
            }
        }
        Ok(locked)
    }
}

/// Those that nobody holds, and those that are not there; the locks go with the statement.
async fn unlocked(on: &mut PgConnection, ids: Vec<String>) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"
        with free as materialized (
            select order_id from orders where order_id = any ($1) for no key update skip locked
        )
        select asked.order_id as "order_id!"
        from unnest($1::text[]) as asked (order_id)
        where (asked.order_id in (select order_id from free)) is true
           or not exists (select from orders as o where o.order_id = asked.order_id)
        "#,
        &ids,
    )
    .fetch_all(on)
    .await
}
