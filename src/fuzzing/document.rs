//! A JSON body read in another way than the adapters do: by name, a field at a time. What an adapter makes of a body is
//! held against it.

use std::collections::HashMap;

use serde_json::value::RawValue;

/// An object.
#[derive(Debug)]
pub(super) struct Document(HashMap<String, Box<RawValue>>);

impl Document {
    /// `None` for anything else. Bytes that are no UTF-8 may stand where nobody looks.
    pub(super) fn of(body: &[u8]) -> Option<Self> {
        serde_json::from_str(&String::from_utf8_lossy(body)).ok().map(Self)
    }

    /// A list of objects; `None` for anything else.
    pub(super) fn list_of(body: &[u8]) -> Option<Vec<Self>> {
        let entries: Vec<Box<RawValue>> = serde_json::from_str(&String::from_utf8_lossy(body)).ok()?;
        entries.iter().map(|entry| Self::of(entry.get().as_bytes())).collect()
    }

    fn raw(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name).map(|raw| raw.get().as_bytes()).filter(|raw| *raw != b"null")
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.raw(name).is_some()
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        serde_json::from_slice(self.raw(name)?).ok()
    }

    pub(super) fn number(&self, name: &str) -> Option<i128> {
        serde_json::from_slice::<i128>(self.raw(name)?).ok()
    }

    pub(super) fn below(&self, name: &str) -> Option<Self> {
        Self::of(self.raw(name)?)
    }

    pub(super) fn list(&self, name: &str) -> Option<Vec<Self>> {
        Self::list_of(self.raw(name)?)
    }
}
