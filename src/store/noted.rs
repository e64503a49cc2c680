//! A callback as both stores keep it.

use crate::domain::{ProviderId, Timestamp};
use crate::ports::{Became, NotedCallback, StoreError};
use crate::store::row::{Corrupt, known, order_id};

/// A row of `callbacks`.
#[derive(Debug)]
pub(crate) struct NotedRow {
    pub(crate) order_id: String,
    pub(crate) attempt: i32,
    pub(crate) provider: String,
    pub(crate) said: String,
    pub(crate) became: String,
    pub(crate) at: Timestamp,
}

impl NotedRow {
    pub(crate) fn all(rows: Vec<Self>) -> Result<Vec<NotedCallback>, StoreError> {
        let rows = rows.into_iter().map(Self::into_noted).collect::<Result<_, Corrupt>>();
        rows.map_err(|corrupt| corrupt.error("callbacks_of"))
    }

    fn into_noted(self) -> Result<NotedCallback, Corrupt> {
        Ok(NotedCallback {
            order_id: order_id(&self.order_id)?,
            attempt: known("attempt", u16::try_from(self.attempt).ok())?,
            provider: ProviderId::new(&self.provider),
            said: self.said,
            became: known("became", Became::parse(&self.became))?,
            at: self.at,
        })
    }
}
