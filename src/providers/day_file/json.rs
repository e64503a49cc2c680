//! A line of JSON as fields. Numbers are kept as they are written: no float is in between.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::fields::{Column, Columns, Fields};

/// Reads an object; what no column is called is left out. What stands twice may say two things, and is believed in neither.
pub(super) fn fields(text: &str, columns: &Columns) -> Result<Fields, String> {
    let Object(members) = serde_json::from_str(text).map_err(|_| "it is no object of JSON".to_owned())?;
    let mut fields = Fields::default();
    for column in Column::ALL {
        let name = columns.name(column);
        let mut named = members.iter().filter(|(key, _)| key == name);
        let Some((_, value)) = named.next() else { continue };
        if named.next().is_some() {
            return Err(format!("{name} stands there twice"));
        }
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

/// All members of an object, as they come.
struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Object(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}
