//! A line of JSON as fields. Numbers are kept as they are written: no float is in between.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::fields::{Column, Columns, Fields};

/// Reads an object; what no column is called is left out.
pub(super) fn fields(text: &str, columns: &Columns) -> Result<Fields, String> {
    let object: BTreeMap<Cow<'_, str>, &RawValue> =
        serde_json::from_str(text).map_err(|_| "it is no object of JSON".to_owned())?;
    let mut fields = Fields::default();
    for column in Column::ALL {
        let name = columns.name(column);
        let Some(value) = object.get(name) else { continue };
        let value = text_of(value.get()).ok_or_else(|| format!("{name} is neither a text nor a number"))?;
        fields.set(column, value);
    }
    Ok(fields)
}

fn text_of(value: &str) -> Option<String> {
    match value.as_bytes() {
        b"null" => Some(String::new()),
        [b'"', ..] => serde_json::from_str(value).ok(),
        [b'-' | b'0'..=b'9', ..] => Some(value.to_owned()),
        _ => None,
    }
}
