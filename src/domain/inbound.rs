//! What upstream says, read from a record: CloudEvents in binary or structured mode, or plain
//! JSON (`interface.md` section 4). Reading never fails the partition: what cannot be used comes
//! back as [`Unfit`], with a reason and a text that holds no value of the record.

mod envelope;
mod metadata;
mod place;

use std::borrow::Cow;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Timestamp;
use super::event::Text;
use super::ids::OrderId;
use super::money::{Currency, Money};
use super::msisdn::{PhoneKey, Recipient};
use super::order::NewOrder;

pub use envelope::RawHeader;

/// The largest value that is read, in bytes.
pub const MAX_VALUE_BYTES: usize = 64 * 1024;
/// The largest `metadata`, in bytes.
pub const MAX_METADATA_BYTES: usize = 1024;

super::state::text_enum! {
    /// Why a record went to the dead letters (`interface.md` section 6).
    DeadLetterReason {
        /// Not JSON.
        Malformed = "malformed",
        /// JSON of another shape.
        Schema = "schema",
        /// No type of ours.
        UnknownType = "unknown_type",
        /// A type of ours in a version that this build does not know.
        UnknownVersion = "unknown_version",
        /// Over 64 KiB.
        TooLarge = "too_large",
        /// No value at all.
        NullValue = "null_value",
        /// Headers that are not UTF-8.
        BadHeaders = "bad_headers",
        /// Older than closed orders are kept: it may have been handled and forgotten.
        TooOld = "too_old",
        /// Paid or cancelled, never created.
        Orphan = "orphan",
        /// A delayed record without a usable due time.
        BadDueTime = "bad_due_time",
        /// A delayed record for a topic that is not ours, or that does not exist.
        UnknownTarget = "unknown_target",
        /// Could not be stored or forwarded, however often it was tried.
        Undeliverable = "undeliverable",
    }
}

/// A record that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Unfit {
    /// The closed reason.
    pub reason: DeadLetterReason,
    /// What was wrong, and where; never a value of the record.
    pub detail: String,
}

impl Unfit {
    /// A record that cannot be used.
    pub fn new(reason: DeadLetterReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

/// An event of the shop.
#[derive(Debug, Clone, PartialEq)]
pub enum Inbound {
    /// An order; paid already, if `paid_at` is set.
    Created(Box<NewOrder>),
    /// A payment.
    Paid {
        /// Whose.
        order_id: OrderId,
        /// When.
        paid_at: Timestamp,
        /// The payment.
        payment_id: Option<Arc<str>>,
    },
    /// A wish to cancel.
    Cancelled {
        /// Which.
        order_id: OrderId,
    },
    /// The payment side has refunded.
    RefundConfirmed {
        /// Whose.
        order_id: OrderId,
        /// Its refund.
        refund_id: Arc<str>,
        /// When.
        at: Timestamp,
    },
}

impl Inbound {
    /// Whom it concerns.
    pub fn order_id(&self) -> &OrderId {
        match self {
            Self::Created(new) => &new.order_id,
            Self::Paid { order_id, .. } | Self::Cancelled { order_id } | Self::RefundConfirmed { order_id, .. } => {
                order_id
            }
        }
    }
}

/// Reads one record. `plain_is_order` allows plain JSON as an `order.created`.
pub fn read(
    value: Option<&[u8]>,
    headers: &[RawHeader],
    plain_is_order: bool,
    key: &PhoneKey,
) -> Result<Inbound, Unfit> {
    let value = value.ok_or_else(|| Unfit::new(DeadLetterReason::NullValue, "the record has no value"))?;
    if value.len() > MAX_VALUE_BYTES {
        let detail = format!("{} bytes, at most {MAX_VALUE_BYTES} are read", value.len());
        return Err(Unfit::new(DeadLetterReason::TooLarge, detail));
    }
    let (kind, data) = envelope::open(value, headers, plain_is_order)?;
    match kind {
        envelope::Kind::Created => created(&data, key),
        envelope::Kind::Paid => paid(&data),
        envelope::Kind::Cancelled => {
            parse::<CancelledData<'_>>(&data).and_then(|d| Ok(Inbound::Cancelled { order_id: order_id(&d.order_id)? }))
        }
        envelope::Kind::RefundConfirmed => refund_confirmed(&data),
    }
}

#[derive(Deserialize)]
struct CreatedData<'a> {
    #[serde(borrow)]
    order_id: Cow<'a, str>,
    #[serde(borrow)]
    phone: Cow<'a, str>,
    #[serde(borrow)]
    region: Option<Text<'a>>,
    amount_minor: i64,
    #[serde(borrow)]
    currency: Cow<'a, str>,
    #[serde(borrow)]
    carrier: Option<Text<'a>>,
    created_at: DateTime<Utc>,
    paid_at: Option<DateTime<Utc>>,
    #[serde(borrow)]
    payment_id: Option<Text<'a>>,
    #[serde(default)]
    notify: Option<bool>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct PaidData<'a> {
    #[serde(borrow)]
    order_id: Cow<'a, str>,
    paid_at: DateTime<Utc>,
    #[serde(borrow)]
    payment_id: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct CancelledData<'a> {
    #[serde(borrow)]
    order_id: Cow<'a, str>,
}

#[derive(Deserialize)]
struct RefundConfirmedData<'a> {
    #[serde(borrow)]
    order_id: Cow<'a, str>,
    #[serde(borrow)]
    refund_id: Cow<'a, str>,
    at: DateTime<Utc>,
}

fn created(data: &[u8], key: &PhoneKey) -> Result<Inbound, Unfit> {
    let data: CreatedData<'_> = parse(data)?;
    let currency = Currency::parse(&data.currency).map_err(|e| schema(format!("/currency: {e}")))?;
    if data.amount_minor < 1 {
        return Err(schema("/amount_minor: an amount is at least one minor unit"));
    }
    let metadata = match data.metadata {
        Some(raw) if raw.get() == "null" => None,
        Some(raw) if raw.get().len() > MAX_METADATA_BYTES => {
            return Err(schema(format!("/metadata: {} bytes, at most {MAX_METADATA_BYTES}", raw.get().len())));
        }
        Some(raw) if !metadata::is_readable(raw.get()) => return Err(schema(metadata::UNREADABLE)),
        Some(raw) => Some(raw.get().into()),
        None => None,
    };
    let recipient = Recipient::read(&data.phone, data.region.as_deref());
    let phone_hash = recipient.msisdn().map(|msisdn| msisdn.keyed_hash(key).to_text().into());
    Ok(Inbound::Created(Box::new(NewOrder {
        order_id: order_id(&data.order_id)?,
        recipient,
        amount: Money { minor: data.amount_minor, currency },
        carrier: short_text("carrier", data.carrier.as_deref(), 64)?,
        created_at: moment("created_at", data.created_at)?,
        paid_at: data.paid_at.map(|at| moment("paid_at", at)).transpose()?,
        payment_id: short_text("payment_id", data.payment_id.as_deref(), 128)?,
        notify: data.notify.unwrap_or(false),
        metadata,
        phone_hash,
    })))
}

fn paid(data: &[u8]) -> Result<Inbound, Unfit> {
    let data: PaidData<'_> = parse(data)?;
    Ok(Inbound::Paid {
        order_id: order_id(&data.order_id)?,
        paid_at: moment("paid_at", data.paid_at)?,
        payment_id: short_text("payment_id", data.payment_id.as_deref(), 128)?,
    })
}

fn refund_confirmed(data: &[u8]) -> Result<Inbound, Unfit> {
    let data: RefundConfirmedData<'_> = parse(data)?;
    let refund_id = short_text("refund_id", Some(&data.refund_id), 128)?;
    Ok(Inbound::RefundConfirmed {
        order_id: order_id(&data.order_id)?,
        refund_id: refund_id.ok_or_else(|| schema("/refund_id: is empty"))?,
        at: moment("at", data.at)?,
    })
}

fn schema(detail: impl Into<String>) -> Unfit {
    Unfit::new(DeadLetterReason::Schema, detail)
}

fn order_id(text: &str) -> Result<OrderId, Unfit> {
    OrderId::parse(text).map_err(|e| schema(format!("/order_id: {e}")))
}

/// Bounded, and without control characters: Postgres refuses NUL, and people read these.
fn short_text(field: &str, text: Option<&str>, max: usize) -> Result<Option<Arc<str>>, Unfit> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    if text.chars().count() > max || text.chars().any(char::is_control) {
        return Err(schema(format!("/{field}: at most {max} characters, none of them a control character")));
    }
    Ok(Some(text.into()))
}

/// Within what both stores and the arithmetic of deadlines can hold.
fn moment(field: &str, at: DateTime<Utc>) -> Result<Timestamp, Unfit> {
    let year = chrono::Datelike::year(&at);
    if (1970..=2999).contains(&year) {
        Ok(super::to_micros(at))
    } else {
        Err(schema(format!("/{field}: a time between the years 1970 and 2999")))
    }
}

/// The parser would also take a list for an object, its values in the order of our fields.
fn parse<'a, T: Deserialize<'a>>(data: &'a [u8]) -> Result<T, Unfit> {
    if data.trim_ascii_start().first() == Some(&b'[') {
        serde_json::from_slice::<serde::de::IgnoredAny>(data).map_err(|error| unfit_json(&error, data))?;
        return Err(schema("a list where an object is expected"));
    }
    serde_json::from_slice(data).map_err(|error| unfit_json(&error, data))
}

/// An error of the parser, without the value that it quotes: that value may be a phone number.
fn unfit_json(error: &serde_json::Error, data: &[u8]) -> Unfit {
    let place = format!("line {} column {}", error.line(), error.column());
    if !error.is_data() {
        return Unfit::new(DeadLetterReason::Malformed, format!("not JSON, {place}"));
    }
    let text = error.to_string();
    // The names that it quotes are ours.
    let named = |what: &str| text.strip_prefix(what).and_then(|rest| rest.split('`').next());
    if let Some(field) = named("missing field `") {
        return schema(format!("/{field}: is missing"));
    }
    if let Some(field) = named("duplicate field `") {
        return schema(format!("/{field}: stands twice, {place}"));
    }
    let what = match text.rsplit_once(", expected ") {
        Some((_, expected)) => format!("expected {}", expected.split(" at line").next().unwrap_or("another type")),
        None => "a value of another form than the schema asks".to_owned(),
    };
    schema(match place::find(data, error.line(), error.column()) {
        Some(place::Place { pointer, shape }) => format!("{pointer}: {what}, found {shape}, {place}"),
        None => format!("{what}, {place}"),
    })
}

#[cfg(test)]
mod tests;
