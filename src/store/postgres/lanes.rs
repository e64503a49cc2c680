//! Paused lanes, and numbers that cool down.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;

use super::PostgresStore;
use crate::domain::{ProviderId, Timestamp};
use crate::ports::{Cooldowns, Cooling, LaneBook, LaneChange, StoreError};
use crate::store::row::free_text;

#[async_trait]
impl LaneBook for PostgresStore {
    async fn lane_changes(&self) -> Result<Vec<LaneChange>, StoreError> {
        let read = self.book.run("lane_changes", |on| {
            Box::pin(async move {
                sqlx::query_as!(
                    LaneRow,
                    "select distinct on (lane) lane, is_paused, by, why, at from lane_changes order by lane, seq desc"
                )
                .fetch_all(on)
                .await
            })
        });
        let change = |LaneRow { lane, is_paused, by, why, at }| LaneChange {
            lane: ProviderId::new(&lane),
            is_paused,
            by,
            why,
            at,
        };
        Ok(read.await?.into_iter().map(change).collect())
    }

    async fn change_lane(&self, change: &LaneChange) -> Result<bool, StoreError> {
        let change = change.clone();
        let write = self.book.run("change_lane", move |on| {
            Box::pin(async move {
                let (by, why) = (free_text(&change.by).into_owned(), free_text(&change.why).into_owned());
                sqlx::query!(
                    r#"
                    insert into lane_changes (lane, is_paused, by, why, at)
                    select $1, $2, $3, $4, $5
                    where $2 is distinct from coalesce(
                        (select is_paused from lane_changes where lane = $1 order by seq desc limit 1), false)
                    "#,
                    change.lane.as_str(),
                    change.is_paused,
                    by,
                    why,
                    change.at,
                )
                .execute(on)
                .await
            })
        });
        Ok(write.await?.rows_affected() == 1)
    }
}

struct LaneRow {
    lane: String,
    is_paused: bool,
    by: String,
    why: String,
    at: Timestamp,
}

/// The first wish for each number, in the order in which every batch locks its rows.
fn firsts(batch: &[Cooling]) -> Vec<&Cooling> {
    let mut firsts: Vec<&Cooling> = batch.iter().collect();
    firsts.sort_by(|a, b| (a.provider.as_str(), &a.phone_hash).cmp(&(b.provider.as_str(), &b.phone_hash)));
    firsts.dedup_by(|later, first| (&later.provider, &later.phone_hash) == (&first.provider, &first.phone_hash));
    firsts
}

struct Columns {
    provider: Vec<String>,
    phone_hash: Vec<String>,
    order_id: Vec<String>,
    until: Vec<Timestamp>,
}

impl Columns {
    fn of(batch: &[&Cooling]) -> Self {
        Self {
            provider: batch.iter().map(|one| one.provider.as_str().to_owned()).collect(),
            phone_hash: batch.iter().map(|one| one.phone_hash.clone()).collect(),
            order_id: batch.iter().map(|one| one.order_id.as_str().to_owned()).collect(),
            until: batch.iter().map(|one| one.until).collect(),
        }
    }
}

#[async_trait]
impl Cooldowns for PostgresStore {
    async fn cool(&self, batch: &[Cooling], now: Timestamp) -> Result<Vec<Option<Timestamp>>, StoreError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let columns = Columns::of(&firsts(batch));
        let taken = self.hot.run("cool", move |on| {
            Box::pin(async move {
                // Of a number that another order holds nothing is returned; who holds it is read as it was before.
                sqlx::query!(
                    r#"
                    insert into cooldowns as c (provider, phone_hash, order_id, until)
                    select * from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[])
                    on conflict (provider, phone_hash) do update set order_id = excluded.order_id, until = excluded.until
                        where c.until <= $5 or c.order_id = excluded.order_id
                    returning c.provider, c.phone_hash, c.order_id
                    "#,
                    &columns.provider,
                    &columns.phone_hash,
                    &columns.order_id,
                    &columns.until,
                    now,
                )
                .fetch_all(on)
                .await
            })
        });
        let taken: HashSet<(String, String, String)> =
            taken.await?.into_iter().map(|row| (row.provider, row.phone_hash, row.order_id)).collect();
        let key = |one: &Cooling| {
            (one.provider.as_str().to_owned(), one.phone_hash.clone(), one.order_id.as_str().to_owned())
        };
        let refused: Vec<&Cooling> = batch.iter().filter(|one| !taken.contains(&key(one))).collect();
        if refused.is_empty() {
            return Ok(vec![None; batch.len()]);
        }
        let columns = Columns::of(&refused);
        let held = self.hot.run("cooling_until", move |on| {
            Box::pin(async move {
                sqlx::query!(
                    r#"
                    select c.provider, c.phone_hash, c.until
                    from unnest($1::text[], $2::text[]) as a (provider, phone_hash)
                    join cooldowns c on c.provider = a.provider and c.phone_hash = a.phone_hash
                    "#,
                    &columns.provider,
                    &columns.phone_hash,
                )
                .fetch_all(on)
                .await
            })
        });
        let held: HashMap<(String, String), Timestamp> =
            held.await?.into_iter().map(|row| ((row.provider, row.phone_hash), row.until)).collect();
        let answer = |one: &Cooling| {
            let (provider, phone_hash, order_id) = key(one);
            let is_ours = taken.contains(&(provider.clone(), phone_hash.clone(), order_id));
            // One that was given back in between is looked at again soon.
            (!is_ours).then(|| held.get(&(provider, phone_hash)).copied().unwrap_or(now))
        };
        Ok(batch.iter().map(answer).collect())
    }

    async fn give_back(&self, batch: &[Cooling]) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        let columns = Columns::of(&firsts(batch));
        let write = self.hot.run("give_back", move |on| {
            Box::pin(async move {
                sqlx::query!(
                    r#"
                    delete from cooldowns c
                    using unnest($1::text[], $2::text[], $3::text[]) as a (provider, phone_hash, order_id)
                    where c.provider = a.provider and c.phone_hash = a.phone_hash and c.order_id = a.order_id
                    "#,
                    &columns.provider,
                    &columns.phone_hash,
                    &columns.order_id,
                )
                .execute(on)
                .await
                .map(drop)
            })
        });
        write.await
    }

    async fn forget_cooled(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let write = self.hot.run("forget_cooled", move |on| {
            Box::pin(async move {
                sqlx::query!(
                    r#"
                    delete from cooldowns c
                    using (select provider, phone_hash from cooldowns where until < $1 order by until limit $2
                           for update skip locked) as old
                    where c.provider = old.provider and c.phone_hash = old.phone_hash
                    "#,
                    before,
                    limit,
                )
                .execute(on)
                .await
            })
        });
        Ok(usize::try_from(write.await?.rows_affected()).unwrap_or(usize::MAX))
    }
}
