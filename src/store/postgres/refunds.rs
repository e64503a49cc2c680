//! The refunds.

use async_trait::async_trait;
use sqlx::postgres::PgConnection;

use super::PostgresStore;
use crate::domain::{OrderId, Timestamp};
use crate::ports::{DeadlinePosition, RefundBook, RefundPage, StoreError};
use crate::store::row::refund_page;

#[async_trait]
impl RefundBook for PostgresStore {
    async fn unconfirmed(
        &self,
        after: &DeadlinePosition,
        until: Timestamp,
        limit: usize,
    ) -> Result<RefundPage, StoreError> {
        let (after, most) = (after.clone(), i64::try_from(limit).unwrap_or(i64::MAX));
        let read = self.hot.run("unconfirmed_refunds", move |on| Box::pin(unconfirmed(on, after, until, most)));
        Ok(refund_page(read.await?, limit))
    }

    async fn unfollow(&self, ids: &[OrderId]) -> Result<(), StoreError> {
        let ids: Vec<String> = ids.iter().map(|id| id.as_str().to_owned()).collect();
        let write = self.hot.run("unfollow_refunds", move |on| {
            Box::pin(async move {
                sqlx::query!("update refunds set confirm_by = null where order_id = any ($1)", &ids)
                    .execute(on)
                    .await
                    .map(drop)
            })
        });
        write.await
    }
}

async fn unconfirmed(
    on: &mut PgConnection,
    after: DeadlinePosition,
    until: Timestamp,
    limit: i64,
) -> Result<Vec<(Timestamp, String)>, sqlx::Error> {
    let behind = after.order_id.as_deref().unwrap_or_default();
    let rows = sqlx::query!(
        r#"
        select confirm_by as "confirm_by!", order_id
        from refunds
        where confirm_by is not null and (confirm_by, order_id) > ($1, $2) and confirm_by <= $3
        order by confirm_by, order_id
        limit $4
        "#,
        after.at,
        behind,
        until,
        limit,
    )
    .fetch_all(on)
    .await?;
    Ok(rows.into_iter().map(|row| (row.confirm_by, row.order_id)).collect())
}
