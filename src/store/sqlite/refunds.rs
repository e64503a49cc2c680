//! The refunds.
#![expect(clippy::disallowed_methods, reason = "SQLite's statements are checked by the tests of both adapters")]

use async_trait::async_trait;
use sqlx::Row as _;

use super::SqliteStore;
use super::rows::moment;
use crate::domain::{OrderId, Timestamp};
use crate::ports::{DeadlinePosition, RefundBook, RefundPage, StoreError};
use crate::store::row::{Extras, refund_page};

#[async_trait]
impl RefundBook for SqliteStore {
    async fn unconfirmed(
        &self,
        after: &DeadlinePosition,
        until: Timestamp,
        limit: usize,
    ) -> Result<RefundPage, StoreError> {
        let behind = after.order_id.clone().unwrap_or_default();
        let (at, until) = (after.at.timestamp_micros(), until.timestamp_micros());
        let most = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = self.read("unconfirmed_refunds", move |on| {
            Box::pin(async move {
                let rows = sqlx::query(UNCONFIRMED).bind(at).bind(behind).bind(until).bind(most).fetch_all(on).await?;
                rows.iter().map(|row| Ok((moment(row, "confirm_by")?, row.try_get("order_id")?))).collect()
            })
        });
        Ok(refund_page(read.await?, limit))
    }

    async fn unfollow(&self, ids: &[OrderId]) -> Result<(), StoreError> {
        let ids = Extras::json(ids);
        let write = self.write("unfollow_refunds", move |on| {
            Box::pin(async move { sqlx::query(UNFOLLOW).bind(ids).execute(on).await.map(drop) })
        });
        write.await
    }
}

const UNCONFIRMED: &str = "
    select confirm_by, order_id
    from refunds
    where confirm_by is not null and (confirm_by, order_id) > (?1, ?2) and confirm_by <= ?3
    order by confirm_by, order_id
    limit ?4";

const UNFOLLOW: &str = "update refunds set confirm_by = null where order_id in (select value from json_each(?1))";
