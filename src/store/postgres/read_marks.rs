//! How far the lanes have read.

use async_trait::async_trait;

use super::PostgresStore;
use crate::domain::Timestamp;
use crate::ports::{ReadMark, ReadMarks, StoreError};

#[async_trait]
impl ReadMarks for PostgresStore {
    async fn note_read(&self, topic: &str, marks: &[ReadMark]) -> Result<(), StoreError> {
        let mut sorted = marks.to_vec();
        sorted.sort_by_key(|mark| mark.partition);
        let partition: Vec<i32> = sorted.iter().map(|mark| mark.partition).collect();
        let up_to: Vec<Timestamp> = sorted.iter().map(|mark| mark.up_to).collect();
        let topic = topic.to_owned();
        let write = self.hot.run("note_read", move |on| {
            Box::pin(async move {
                sqlx::query!(
                    r#"
                    insert into read_marks as m (topic, partition, up_to)
                    select $1, * from unnest($2::int[], $3::timestamptz[])
                    on conflict (topic, partition) do update set up_to = excluded.up_to where m.up_to < excluded.up_to
                    "#,
                    topic,
                    &partition,
                    &up_to,
                )
                .execute(on)
                .await
                .map(drop)
            })
        });
        write.await
    }

    async fn read_up_to(&self, topic: &str, partitions: usize) -> Result<Option<Timestamp>, StoreError> {
        let topic = topic.to_owned();
        let read = self.hot.run("read_up_to", move |on| {
            Box::pin(async move {
                sqlx::query!(
                    r#"select count(*) as "marks!", min(up_to) as up_to from read_marks where topic = $1"#,
                    topic
                )
                .fetch_one(on)
                .await
            })
        });
        let row = read.await?;
        Ok(row.up_to.filter(|_| usize::try_from(row.marks).is_ok_and(|marks| marks >= partitions)))
    }
}
