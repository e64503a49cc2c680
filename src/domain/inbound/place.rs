//! Where an error of the parser stands in an event's data, and what stands there: its member and its form, never its value.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A member of an object at which the parser stopped.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// As a JSON pointer.
    pub(super) pointer: String,
    /// What stands there.
    pub(super) shape: String,
}

/// The member of `data` that the parser had just read at `line` and `column`, both as it counts them.
pub(super) fn find(data: &[u8], line: usize, column: usize) -> Option<Place> {
    let text = std::str::from_utf8(data).ok()?;
    let before: usize = text.split_inclusive('\n').take(line.checked_sub(1)?).map(str::len).sum();
    let read = before + column;
    let Members(members) = serde_json::from_str(text).ok()?;
    let start = |value: &RawValue| value.get().as_ptr().addr() - text.as_ptr().addr();
    // Behind a text or a number; before an object or a list.
    let at = |value: &&RawValue| start(value) <= read && read <= start(value) + value.get().len();
    let (name, value) = members.iter().find(|(_, value)| at(value))?;
    // The parser looks only at members of ours; any other name may be anything.
    let is_ours = name.len() <= 32 && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    is_ours.then(|| Place { pointer: format!("/{name}"), shape: shape(value.get()) })
}

fn shape(json: &str) -> String {
    match json.as_bytes().first() {
        Some(b'"') => match serde_json::from_str::<Cow<'_, str>>(json) {
            Ok(text) => format!("a text of {} characters", text.chars().count()),
            Err(_) => "a text".to_owned(),
        },
        Some(b'{') => "an object".to_owned(),
        Some(b'[') => "a list".to_owned(),
        Some(b't' | b'f') => "true or false".to_owned(),
        Some(b'n') => "null".to_owned(),
        Some(_) | None => "a number".to_owned(),
    }
}

/// The members of an object as they stand there.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(Name(name)) = object.next_key()? {
                    // An event has a dozen; of anything else only the first are looked at.
                    if members.len() < 64 {
                        members.push((name, object.next_value()?));
                    } else {
                        object.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
