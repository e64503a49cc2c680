//! An input that people can write.

use bytes::Bytes;

/// Stands between the messages of an input that has several.
const BETWEEN: &[u8] = b"\n---\n";

/// A first line, headers, an empty line, and a body.
#[derive(Debug, Clone)]
pub(super) struct Message<'a> {
    pub(super) first: &'a [u8],
    /// A line without a colon is a name alone.
    pub(super) headers: Vec<(&'a [u8], Option<&'a [u8]>)>,
    /// Without an empty line there is none.
    pub(super) body: Option<&'a [u8]>,
}

impl<'a> Message<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Self {
        let (first, mut rest) = line(bytes);
        let mut headers = Vec::new();
        loop {
            let Some(text) = rest else { return Self { first, headers, body: None } };
            let (header, after) = line(text);
            if header.is_empty() {
                return Self { first, headers, body: after };
            }
            let colon = header.iter().position(|byte| *byte == b':');
            headers.push(match colon {
                Some(at) => (&header[..at], Some(header[at + 1..].trim_ascii_start())),
                None => (header, None),
            });
            rest = after;
        }
    }

    /// The body, empty where there is none.
    pub(super) fn content(&self) -> &'a [u8] {
        self.body.unwrap_or_default()
    }

    /// As a record of Kafka has them: anything, also no value.
    pub(super) fn raw_headers(&self) -> Vec<(Bytes, Option<Bytes>)> {
        let raw = self.headers.iter();
        raw.map(|(name, value)| (Bytes::copy_from_slice(name), value.map(Bytes::copy_from_slice))).collect()
    }

    /// As a server hands them on: texts, by lower-case names.
    pub(super) fn text_headers(&self) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
        let texts = self.headers.iter().filter_map(|(name, value)| Some((text(name)?, text((*value)?)?)));
        texts.map(|(name, value)| (name.to_ascii_lowercase(), value)).collect()
    }

    /// The words of the first line.
    pub(super) fn words(&self) -> Vec<&'a str> {
        std::str::from_utf8(self.first).map(|line| line.split(' ').collect()).unwrap_or_default()
    }
}

/// The messages of an input; at least one.
pub(super) fn several(bytes: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(BETWEEN.len()).position(|window| window == BETWEEN) {
        parts.push(&rest[..at]);
        rest = &rest[at + BETWEEN.len()..];
    }
    parts.push(rest);
    parts
}

fn line(bytes: &[u8]) -> (&[u8], Option<&[u8]>) {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&bytes[..at], Some(&bytes[at + 1..])),
        None => (bytes, None),
    }
}
