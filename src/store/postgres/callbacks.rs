//! Callbacks that were dealt with.

use std::collections::HashSet;

use async_trait::async_trait;

use super::PostgresStore;
use crate::domain::{OrderId, Timestamp};
use crate::ports::{CallbackBook, NotedCallback, StoreError};
use crate::store::noted::NotedRow;

/// What makes a callback one with its repetitions.
#[derive(Default)]
struct Keys {
    order_id: Vec<String>,
    attempt: Vec<i32>,
    provider: Vec<String>,
    said: Vec<String>,
}

impl Keys {
    fn of<'a>(batch: impl IntoIterator<Item = &'a NotedCallback>) -> Self {
        let mut keys = Self::default();
        for one in batch {
            keys.order_id.push(one.order_id.as_str().to_owned());
            keys.attempt.push(i32::from(one.attempt));
            keys.provider.push(one.provider.as_str().to_owned());
            keys.said.push(one.said.clone());
        }
        keys
    }
}

#[async_trait]
impl CallbackBook for PostgresStore {
    async fn were_noted(&self, batch: &[NotedCallback]) -> Result<Vec<bool>, StoreError> {
        let keys = Keys::of(batch);
        let read = self.hot.run("were_noted", move |on| {
            Box::pin(async move {
                sqlx::query_scalar!(
                    r#"
                    select a.nth as "nth!"
                    from unnest($1::text[], $2::integer[], $3::text[], $4::text[]) with ordinality
                        as a (order_id, attempt, provider, said, nth)
                    join callbacks c on c.order_id = a.order_id and c.attempt = a.attempt and c.provider = a.provider
                        and c.said = a.said
                    "#,
                    &keys.order_id,
                    &keys.attempt,
                    &keys.provider,
                    &keys.said,
                )
                .fetch_all(on)
                .await
            })
        });
        let noted: HashSet<usize> = read.await?.into_iter().filter_map(|nth| usize::try_from(nth).ok()).collect();
        Ok((1..=batch.len()).map(|nth| noted.contains(&nth)).collect())
    }

    async fn note_callbacks(&self, batch: &[NotedCallback]) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        // In the order of the key, as every batch locks its rows.
        let mut sorted: Vec<&NotedCallback> = batch.iter().collect();
        let key = |one: &NotedCallback| (one.order_id.clone(), one.attempt, one.provider.clone(), one.said.clone());
        sorted.sort_by_cached_key(|one| key(one));
        sorted.dedup_by_key(|one| key(one));
        let keys = Keys::of(sorted.iter().copied());
        let became: Vec<String> = sorted.iter().map(|one| one.became.as_str().to_owned()).collect();
        let at: Vec<Timestamp> = sorted.iter().map(|one| one.at).collect();
        let write = self.hot.run("note_callbacks", move |on| {
            Box::pin(async move {
                sqlx::query!(
                    r#"
                    insert into callbacks (order_id, attempt, provider, said, became, at)
                    select * from unnest($1::text[], $2::integer[], $3::text[], $4::text[], $5::text[], $6::timestamptz[])
                    on conflict do nothing
                    "#,
                    &keys.order_id,
                    &keys.attempt,
                    &keys.provider,
                    &keys.said,
                    &became,
                    &at,
                )
                .execute(on)
                .await
                .map(drop)
            })
        });
        write.await
    }

    async fn callbacks_of(&self, order_id: &OrderId) -> Result<Vec<NotedCallback>, StoreError> {
        let id = order_id.as_str().to_owned();
        let read = self.book.run("callbacks_of", move |on| {
            Box::pin(async move {
                sqlx::query_as!(
                    NotedRow,
                    "select order_id, attempt, provider, said, became, at from callbacks where order_id = $1 order by at, said",
                    id
                )
                .fetch_all(on)
                .await
            })
        });
        NotedRow::all(read.await?)
    }
}
