//! A record for the dead letters: the original bytes and headers, and why.
use crate::domain::Timestamp;
use crate::domain::inbound::Unfit;
use crate::ports::{InRecord, OutRecord};
use bytes::Bytes;
use std::sync::Arc;
/// stub
pub fn record(topic: &Arc<str>, record: &InRecord, why: &Unfit, _now: Timestamp) -> OutRecord {
    let mut headers = record.headers.clone();
    headers.push((Bytes::from_static(b"reason"), Some(Bytes::from_static(why.reason.as_str().as_bytes()))));
    OutRecord { topic: Arc::clone(topic), key: record.key.clone(), value: record.value.clone(), headers }
}
