//! A record as librdkafka gives it, copied into one of our own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Headers, Message};

use crate::domain::Timestamp;
use crate::ports::{Ack, Assignment, InRecord};

/// Stands for the name of a header whose name is not UTF-8; it is none itself, so whoever
/// decodes headers refuses the record.
const UNREADABLE_NAME: &[u8] = b"\xff";

/// Copies a record out of the client's buffers, so that these can go. Its parts share one buffer: thousands
/// of records may be in hand, and each allocation costs more than what is in it.
pub(in crate::kafka) fn copy(
    message: &BorrowedMessage<'_>,
    topic: &Arc<str>,
    assignment: Arc<dyn Assignment>,
) -> InRecord {
    let (key, value) = (message.key(), message.payload());
    let headers: Vec<Borrowed<'_>> = message.headers().map(borrow_headers).unwrap_or_default();
    let len = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
    let around = headers.iter().map(|(name, value)| name.len() + len(*value)).sum::<usize>();
    let mut parts = Parts(BytesMut::with_capacity(len(key) + len(value) + around));
    InRecord {
        topic: Arc::clone(topic),
        partition: message.partition(),
        offset: message.offset(),
        timestamp: message.timestamp().to_millis().and_then(Timestamp::from_timestamp_millis),
        key: key.map(|key| parts.copy(key)),
        value: value.map(|value| parts.copy(value)),
        headers: headers.iter().map(|(name, value)| (parts.copy(name), value.map(|value| parts.copy(value)))).collect(),
        ack: Ack::new(assignment, message.offset()),
    }
}

/// The buffer of a record, as far as it is not filled yet.
struct Parts(BytesMut);

impl Parts {
    fn copy(&mut self, part: &[u8]) -> Bytes {
        self.0.extend_from_slice(part);
        self.0.split().freeze()
    }
}

type Borrowed<'a> = (&'a [u8], Option<&'a [u8]>);

fn borrow_headers(headers: &BorrowedHeaders) -> Vec<Borrowed<'_>> {
    (0..headers.count()).map(|index| borrow_header(headers, index)).collect()
}

/// rdkafka 0.39 panics on a header name that is not UTF-8, and offers no other way to it. One
/// such record must not end the consumer, again after each restart; so the panic stops here.
/// Name and value of that header are lost; its place is kept.
fn borrow_header(headers: &BorrowedHeaders, index: usize) -> Borrowed<'_> {
    let read =
        catch_unwind(AssertUnwindSafe(|| headers.try_get(index).map(|header| (header.key.as_bytes(), header.value))));
    read.ok().flatten().unwrap_or((UNREADABLE_NAME, None))
}
