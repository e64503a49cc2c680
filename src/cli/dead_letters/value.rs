//! A record's value as people see it: in the order in which it came, nothing dropped, and phone numbers masked unless
//! somebody asks to see them.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap as _, Serializer};

use crate::domain::masked::{masked, masked_if_a_number};

/// Any JSON, with its members in their order and each as often as it stands there.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// Members that are identifiers, amounts or times: their digits are what a person looks for.
const PLAIN: [&str; 16] = [
    "order_id",
    "payment_id",
    "refund_id",
    "id",
    "subject",
    "amount_minor",
    "version",
    "attempt",
    "at",
    "time",
    "created_at",
    "paid_at",
    "deadline_at",
    "wake_at",
    "specversion",
    "type",
];

impl Json {
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// The same with every phone number masked.
    pub(super) fn masked(self) -> Self {
        let region = self.text_of("region").map(str::to_owned);
        self.masked_as(None, region.as_deref())
    }

    fn masked_as(self, name: Option<&str>, region: Option<&str>) -> Self {
        let text = |text: &str| match name {
            // It may be the whole event.
            Some("data_base64") => "****".to_owned(),
            Some(name) if PLAIN.contains(&name) => masked_if_a_number(text, region),
            Some(_) | None => masked(text),
        };
        match self {
            Self::Null | Self::Bool(_) => self,
            Self::Number(number) => {
                let (plain, shown) = (number.to_string(), text(&number.to_string()));
                if plain == shown { Self::Number(number) } else { Self::Text(shown) }
            }
            Self::Text(found) => Self::Text(text(&found)),
            Self::List(items) => Self::List(items.into_iter().map(|item| item.masked_as(name, region)).collect()),
            Self::Object(members) => {
                let member = |(name, value): (String, Self)| (masked(&name), value.masked_as(Some(&name), region));
                Self::Object(members.into_iter().map(member).collect())
            }
        }
    }

    fn text_of(&self, wanted: &str) -> Option<&str> {
        let Self::Object(members) = self else { return None };
        members.iter().find_map(|(name, value)| match value {
            Self::Text(text) if name == wanted => Some(text.as_str()),
            Self::Object(_) if name == "data" => value.text_of(wanted),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) | Self::List(_) | Self::Object(_) => None,
        })
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(serde_json::Number::from_f64(value).map_or(Json::Null, Json::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Json::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Json, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = object.next_entry()? {
            members.push(member);
        }
        Ok(Json::Object(members))
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(value) => value.serialize(serializer),
            Self::Text(value) => serializer.serialize_str(value),
            Self::List(items) => serializer.collect_seq(items),
            Self::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (name, value) in members {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

/// Bytes that are no JSON as one line of text, which no terminal takes for a command.
pub(super) fn text(bytes: &[u8], reveal: bool) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = if reveal { text.into_owned() } else { masked(&text) };
    shown(&text)
}

/// The value of a header, or a key: mostly an identifier or a time.
pub(super) fn short(bytes: &[u8], reveal: bool) -> String {
    match std::str::from_utf8(bytes) {
        // Ours are digits, in their place.
        Ok(text) if reveal || is_plain(text) => shown(text),
        Ok(text) => shown(&masked(text)),
        Err(_) => {
            let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
            "0x".chars().chain(digits.filter_map(|digit| char::from_digit(u32::from(digit), 16))).collect()
        }
    }
}

/// An identifier or a time, and no phone number.
fn is_plain(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || "._:-+".contains(c))
        && masked_if_a_number(text, None) == text
        && !text.starts_with('+')
}

/// Control characters as escapes.
pub(super) fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked_text(text: &str) -> String {
        serde_json::to_string(&Json::parse(text.as_bytes()).unwrap().masked()).unwrap()
    }

    #[test]
    fn members_stay_in_their_order_and_each_as_often_as_it_came() {
        let text = r#"{"b":1,"a":[null,true,-2,1.5,"x"],"b":{"c":""}}"#;
        assert_eq!(masked_text(text), text);
    }

    #[test]
    fn phone_numbers_are_masked_wherever_they_stand_and_what_identifies_an_order_is_not() {
        let order = r#"{"order_id":"20260101000017","phone":"+8613800000001","amount_minor":123456789,"currency":"13800000002","created_at":"2026-01-05T08:00:00Z","note":["138 0000 0003",13800000004],"13800000005":1}"#;
        let shown = masked_text(order);
        assert_eq!(
            shown,
            r#"{"order_id":"20260101000017","phone":"+86138****0001","amount_minor":123456789,"currency":"138****0002","created_at":"2026-01-05T08:00:00Z","note":["138****0003","138****0004"],"138****0005":1}"#
        );
        assert_eq!(masked_text(r#"{"order_id":"13800000001"}"#), r#"{"order_id":"138****0001"}"#);
        assert_eq!(
            masked_text(r#"{"data":{"region":"SG","order_id":"91234567"}}"#),
            r#"{"data":{"region":"SG","order_id":"****4567"}}"#
        );
        assert_eq!(masked_text(r#"{"data_base64":"eyJwaG9uZSI6In0="}"#), r#"{"data_base64":"****"}"#);
    }

    #[test]
    fn what_is_no_json_is_one_line_without_control_characters() {
        assert_eq!(text(b"\x1b[2J13800000001\n\xff", false), "\\u{1b}[2J138****0001\\n\u{fffd}");
        assert_eq!(text(b"13800000001", true), "13800000001");
        assert_eq!(short(b"1790000000123", false), "1790000000123");
        assert_eq!(short(b"call 13800000001", false), "call 138****0001");
        assert_eq!(short(b"+8613800000001", false), "+86138****0001");
        assert_eq!(short(b"\xff\x01", false), "0xff01");
    }
}
