//! How far the lanes have read.
#![expect(clippy::disallowed_methods, reason = "SQLite's statements are checked by the tests of both adapters")]

use async_trait::async_trait;
use sqlx::Row as _;

use super::SqliteStore;
use super::rows::maybe_moment;
use crate::domain::Timestamp;
use crate::ports::{ReadMark, ReadMarks, StoreError};

#[async_trait]
impl ReadMarks for SqliteStore {
    async fn note_read(&self, topic: &str, marks: &[ReadMark]) -> Result<(), StoreError> {
        let (topic, marks) = (topic.to_owned(), marks.to_vec());
        self.write("note_read", move |on| {
            Box::pin(async move {
                for mark in &marks {
                    sqlx::query(NOTE)
                        .bind(&topic)
                        .bind(mark.partition)
                        .bind(mark.up_to.timestamp_micros())
                        .execute(&mut *on)
                        .await?;
                }
                Ok(())
            })
        })
        .await
    }

    async fn read_up_to(&self, topic: &str, partitions: usize) -> Result<Option<Timestamp>, StoreError> {
        let topic = topic.to_owned();
        let read = self.read("read_up_to", move |on| {
            Box::pin(async move {
                let row = sqlx::query("select count(*) as marks, min(up_to) as up_to from read_marks where topic = ?1")
                    .bind(topic)
                    .fetch_one(on)
                    .await?;
                Ok((row.try_get::<i64, _>("marks")?, maybe_moment(&row, "up_to")?))
            })
        });
        let (marks, up_to) = read.await?;
        Ok(up_to.filter(|_| usize::try_from(marks).is_ok_and(|marks| marks >= partitions)))
    }
}

const NOTE: &str = "
    insert into read_marks (topic, partition, up_to) values (?1, ?2, ?3)
    on conflict (topic, partition) do update set up_to = excluded.up_to where up_to < excluded.up_to";
