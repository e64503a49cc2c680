//! A record as librdkafka gives it, copied into one of our own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Headers, Message};

use crate::domain::Timestamp;
use crate::ports::{Ack, Assignment, InRecord};

use super::assignment::Held;

/// Stands for the name of a header whose name is not UTF-8; it is none itself, so whoever
/// decodes headers refuses the record.
const UNREADABLE_NAME: &[u8] = b"\xff";

/// Copies a record out of the client's buffers, so that these can go.
pub(super) fn copy(message: &BorrowedMessage<'_>, held: &Arc<Held>) -> InRecord {
    let assignment: Arc<dyn Assignment> = Arc::<Held>::clone(held);
    InRecord {
        topic: Arc::clone(&held.topic),
        partition: message.partition(),
        offset: message.offset(),
        timestamp: message.timestamp().to_millis().and_then(Timestamp::from_timestamp_millis),
        key: message.key().map(Bytes::copy_from_slice),
        value: message.payload().map(Bytes::copy_from_slice),
        headers: message.headers().map(copy_headers).unwrap_or_default(),
        ack: Ack::new(assignment, message.offset()),
    }
}

fn copy_headers(headers: &BorrowedHeaders) -> Vec<(Bytes, Option<Bytes>)> {
    (0..headers.count()).map(|index| copy_header(headers, index)).collect()
}

/// rdkafka 0.39 panics on a header name that is not UTF-8, and offers no other way to it. One
/// such record must not end the consumer, again after each restart; so the panic stops here.
/// Name and value of that header are lost; its place is kept.
fn copy_header(headers: &BorrowedHeaders, index: usize) -> (Bytes, Option<Bytes>) {
    let read = catch_unwind(AssertUnwindSafe(|| {
        headers
            .try_get(index)
            .map(|header| (Bytes::copy_from_slice(header.key.as_bytes()), header.value.map(Bytes::copy_from_slice)))
    }));
    read.ok().flatten().unwrap_or((Bytes::from_static(UNREADABLE_NAME), None))
}
