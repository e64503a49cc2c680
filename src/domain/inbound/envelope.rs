//! The envelope: which event a record holds, and where its data stands.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{DeadLetterReason, Unfit};

/// A header as it came: name and value as raw bytes.
pub type RawHeader = (bytes::Bytes, Option<bytes::Bytes>);

/// Which event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Created,
    Paid,
    Cancelled,
    RefundConfirmed,
}

const STRUCTURED: &str = "application/cloudevents+json";

/// The event's kind and its data.
pub(super) fn open<'a>(
    value: &'a [u8],
    headers: &[RawHeader],
    plain_is_order: bool,
) -> Result<(Kind, Cow<'a, [u8]>), Unfit> {
    let headers = Headers::read(headers)?;
    if headers.content_type.is_some_and(|kind| kind.to_ascii_lowercase().starts_with(STRUCTURED)) {
        return structured(value);
    }
    if let Some(kind) = headers.ce_type {
        check_spec(headers.ce_specversion)?;
        return Ok((kind_of(kind)?, Cow::Borrowed(value)));
    }
    if headers.ce_specversion.is_some() {
        return Err(Unfit::new(DeadLetterReason::Schema, "a CloudEvent without the header ce_type"));
    }
    if plain_is_order {
        return Ok((Kind::Created, Cow::Borrowed(value)));
    }
    Err(Unfit::new(DeadLetterReason::UnknownType, "neither ce_ headers nor structured mode tell the type"))
}

#[derive(Default)]
struct Headers<'a> {
    content_type: Option<&'a str>,
    ce_type: Option<&'a str>,
    ce_specversion: Option<&'a str>,
}

impl<'a> Headers<'a> {
    fn read(raw: &'a [RawHeader]) -> Result<Self, Unfit> {
        let mut headers = Self::default();
        for (name, value) in raw {
            let bad = || Unfit::new(DeadLetterReason::BadHeaders, "a header's name or value is not UTF-8");
            let name = std::str::from_utf8(name).map_err(|_| bad())?;
            let value = value.as_deref().map(std::str::from_utf8).transpose().map_err(|_| bad())?;
            // The first of a repeated header counts.
            let slot = match name {
                "content-type" | "Content-Type" | "contentType" => &mut headers.content_type,
                "ce_type" => &mut headers.ce_type,
                "ce_specversion" => &mut headers.ce_specversion,
                _ => continue,
            };
            if slot.is_none() {
                *slot = value;
            }
        }
        Ok(headers)
    }
}

#[derive(Deserialize)]
struct Structured<'a> {
    #[serde(borrow)]
    specversion: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    data_base64: Option<String>,
}

fn structured(value: &[u8]) -> Result<(Kind, Cow<'_, [u8]>), Unfit> {
    use base64::Engine as _;
    let envelope: Structured<'_> = super::parse(value)?;
    check_spec(envelope.specversion.as_deref())?;
    let missing = |what: &str| Unfit::new(DeadLetterReason::Schema, format!("a CloudEvent without {what}"));
    let kind = kind_of(envelope.kind.as_deref().ok_or_else(|| missing("type"))?)?;
    match (envelope.data, envelope.data_base64) {
        (Some(data), _) => Ok((kind, Cow::Borrowed(data.get().as_bytes()))),
        (None, Some(text)) => {
            let data = base64::engine::general_purpose::STANDARD.decode(text);
            data.map(|data| (kind, Cow::Owned(data)))
                .map_err(|_| Unfit::new(DeadLetterReason::Schema, "data_base64 is not base-64"))
        }
        (None, None) => Err(missing("data")),
    }
}

fn check_spec(version: Option<&str>) -> Result<(), Unfit> {
    match version {
        Some("1.0") => Ok(()),
        Some(_) => Err(Unfit::new(DeadLetterReason::UnknownVersion, "a CloudEvent of another specversion than 1.0")),
        None => Err(Unfit::new(DeadLetterReason::Schema, "a CloudEvent without specversion")),
    }
}

fn kind_of(text: &str) -> Result<Kind, Unfit> {
    let unknown = || Unfit::new(DeadLetterReason::UnknownType, "no event type of ours");
    let (name, version) = text.rsplit_once('.').ok_or_else(unknown)?;
    let kind = match name {
        "recharge.order.created" => Kind::Created,
        "recharge.order.paid" => Kind::Paid,
        "recharge.order.cancelled" => Kind::Cancelled,
        "recharge.refund.confirmed" => Kind::RefundConfirmed,
        _ => return Err(unknown()),
    };
    if version == "v1" {
        Ok(kind)
    } else {
        Err(Unfit::new(DeadLetterReason::UnknownVersion, "this build reads version v1 of this event"))
    }
}
