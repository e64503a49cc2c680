//! The shop's own JSON stands in every event of its order, as it came: what a reader of JSON may refuse would make all of
//! them unreadable to whoever uses that one.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Readers differ in how deep they follow; this deep, and within an event, all do.
const DEPTH_MAX: u8 = 32;

/// What is said of the others.
pub(super) const UNREADABLE: &str = "/metadata: nested deeper than 32, or half a character (\\ud800), or a number beyond all floats: not every reader takes it";

/// Whether a JSON text can be read by all.
pub(super) fn is_readable(text: &str) -> bool {
    let mut reader = serde_json::Deserializer::from_str(text);
    Readable { deeper: DEPTH_MAX }.deserialize(&mut reader).is_ok()
}

/// Reads a value, and keeps nothing of it.
#[derive(Clone, Copy)]
struct Readable {
    deeper: u8,
}

impl Readable {
    fn below<E: Error>(self) -> Result<Self, E> {
        let deeper = self.deeper.checked_sub(1).ok_or_else(|| E::custom("too deep"))?;
        Ok(Self { deeper })
    }
}

impl<'de> DeserializeSeed<'de> for Readable {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Readable {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let below = self.below()?;
        while list.next_element_seed(below)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let below = self.below()?;
        while object.next_key_seed(below)?.is_some() {
            object.next_value_seed(below)?;
        }
        Ok(())
    }
}
