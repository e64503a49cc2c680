//! What people decided about dead letters.

use std::collections::{BTreeSet, HashMap, HashSet};

use async_trait::async_trait;
use uuid::Uuid;

use super::PostgresStore;
use crate::domain::Timestamp;
use crate::ports::{LetterKey, LetterMark, LetterMarks, LetterState, StoreError};
use crate::store::row::free_text;

/// Keys as columns, each once, in the order in which every batch locks its rows.
struct Columns {
    topic: Vec<String>,
    partition: Vec<i32>,
    offset: Vec<i64>,
    stamp: Vec<i64>,
}

impl Columns {
    fn of(keys: &[LetterKey]) -> Self {
        let keys: BTreeSet<&LetterKey> = keys.iter().collect();
        Self {
            topic: keys.iter().map(|key| key.topic.clone()).collect(),
            partition: keys.iter().map(|key| key.partition).collect(),
            offset: keys.iter().map(|key| key.offset).collect(),
            stamp: keys.iter().map(|key| key.stamp).collect(),
        }
    }
}

#[async_trait]
impl LetterMarks for PostgresStore {
    async fn letter_marks(&self, keys: &[LetterKey]) -> Result<Vec<Option<LetterMark>>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let columns = Columns::of(keys);
        let read = self.book.run("letter_marks", move |on| {
            Box::pin(async move {
                sqlx::query!(
                    r#"
                    select m.topic, m.partition, m.record_offset, m.stamp, m.state, m.by, m.why, m.at, m.run
                    from unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[]) as a (topic, partition, record_offset, stamp)
                    join dead_letter_marks m using (topic, partition, record_offset, stamp)
                    "#,
                    &columns.topic,
                    &columns.partition,
                    &columns.offset,
                    &columns.stamp,
                )
                .fetch_all(on)
                .await
            })
        });
        let mut marks = HashMap::new();
        for row in read.await? {
            let key =
                LetterKey { topic: row.topic, partition: row.partition, offset: row.record_offset, stamp: row.stamp };
            // The schema knows no other state.
            let Some(state) = LetterState::parse(&row.state) else { continue };
            marks.insert(key, LetterMark { state, by: row.by, why: row.why, at: row.at, run: row.run });
        }
        Ok(keys.iter().map(|key| marks.get(key).cloned()).collect())
    }

    async fn mark_letters(
        &self,
        keys: &[LetterKey],
        mark: &LetterMark,
        abandoned_before: Timestamp,
    ) -> Result<Vec<bool>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let (columns, mark) = (Columns::of(keys), mark.clone());
        let write = self.book.run("mark_letters", move |on| {
            Box::pin(async move {
                let (by, why) = (free_text(&mark.by).into_owned(), free_text(&mark.why).into_owned());
                sqlx::query!(
                    r#"
                    insert into dead_letter_marks as m (topic, partition, record_offset, stamp, state, by, why, at, run)
                    select a.*, $5, $6, $7, $8, $9
                    from unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[]) as a (topic, partition, record_offset, stamp)
                    on conflict (topic, partition, record_offset, stamp) do update
                        set state = excluded.state, by = excluded.by, why = excluded.why, at = excluded.at, run = excluded.run
                        where m.run = excluded.run or m.state = 'replaying' and m.at < $10
                    returning m.topic, m.partition, m.record_offset, m.stamp
                    "#,
                    &columns.topic,
                    &columns.partition,
                    &columns.offset,
                    &columns.stamp,
                    mark.state.as_str(),
                    by,
                    why,
                    mark.at,
                    mark.run,
                    abandoned_before,
                )
                .fetch_all(on)
                .await
            })
        });
        let key = |topic, partition, offset, stamp| LetterKey { topic, partition, offset, stamp };
        let stands: HashSet<LetterKey> =
            write.await?.into_iter().map(|row| key(row.topic, row.partition, row.record_offset, row.stamp)).collect();
        Ok(keys.iter().map(|key| stands.contains(key)).collect())
    }

    async fn replays_done(&self, keys: &[LetterKey], run: Uuid, at: Timestamp) -> Result<(), StoreError> {
        let columns = Columns::of(keys);
        let write = self.book.run("replays_done", move |on| {
            Box::pin(async move {
                sqlx::query!(
                    r#"
                    update dead_letter_marks m set state = 'replayed', at = $6
                    from unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[]) as a (topic, partition, record_offset, stamp)
                    where m.topic = a.topic and m.partition = a.partition and m.record_offset = a.record_offset
                        and m.stamp = a.stamp and m.state = 'replaying' and m.run = $5
                    "#,
                    &columns.topic,
                    &columns.partition,
                    &columns.offset,
                    &columns.stamp,
                    run,
                    at,
                )
                .execute(on)
                .await
                .map(drop)
            })
        });
        write.await
    }

    async fn replays_failed(&self, keys: &[LetterKey], run: Uuid) -> Result<(), StoreError> {
        let columns = Columns::of(keys);
        let write = self.book.run("replays_failed", move |on| {
            Box::pin(async move {
                sqlx::query!(
                    r#"
                    delete from dead_letter_marks m
                    using unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[]) as a (topic, partition, record_offset, stamp)
                    where m.topic = a.topic and m.partition = a.partition and m.record_offset = a.record_offset
                        and m.stamp = a.stamp and m.state = 'replaying' and m.run = $5
                    "#,
                    &columns.topic,
                    &columns.partition,
                    &columns.offset,
                    &columns.stamp,
                    run,
                )
                .execute(on)
                .await
                .map(drop)
            })
        });
        write.await
    }

    async fn forget_letters(&self, before: Timestamp) -> Result<u64, StoreError> {
        let write = self.book.run("forget_letters", move |on| {
            Box::pin(async move {
                sqlx::query!("delete from dead_letter_marks where state <> 'replaying' and at < $1", before)
                    .execute(on)
                    .await
            })
        });
        Ok(write.await?.rows_affected())
    }
}
