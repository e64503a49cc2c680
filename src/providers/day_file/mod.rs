//! A provider's day as a file: CSV, or a line of JSON each. `docs/RECONCILE.md` has the form.
//!
//! It is read a line at a time and believed only where it is whole: a line with too few fields, a word that nobody
//! knows, bytes that are no UTF-8, or an end in the middle of a line end it with an error that names the line.

mod fields;
mod json;

use std::io::{BufRead, Read as _};

use async_trait::async_trait;

pub use self::fields::{Column, Columns, States};
use self::fields::{Fields, Header};
use crate::csv;
use crate::domain::ClientRef;
use crate::ports::{Listed, Statement, StatementError};

/// Lines in a page.
const PAGE: usize = 1_000;
/// The longest line, in bytes.
const LINE_MAX: u64 = 64 * 1024;

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A header, and a line of fields for each recharge.
    Csv,
    /// An object in each line.
    JsonLines,
}

impl Format {
    /// By the end of a file's name.
    pub fn of(name: &str) -> Option<Self> {
        let (_, extension) = name.rsplit_once('.')?;
        match extension.to_ascii_lowercase().as_str() {
            "csv" | "tsv" | "txt" => Some(Self::Csv),
            "jsonl" | "ndjson" => Some(Self::JsonLines),
            _ => None,
        }
    }
}

/// What a file means.
#[derive(Debug, Clone, PartialEq)]
pub struct Terms {
    /// How it is written.
    pub format: Format,
    /// What its columns are called.
    pub columns: Columns,
    /// What its states are called.
    pub states: States,
    /// Of amounts that name none.
    pub currency: Option<crate::domain::Currency>,
    /// The zone of times that name none.
    pub offset: chrono::FixedOffset,
}

/// A file that is being read.
pub struct DayFile {
    /// As it is called in messages.
    name: String,
    input: Box<dyn BufRead + Send>,
    terms: Terms,
    header: Option<Header>,
    line: u64,
    ended: bool,
}

impl std::fmt::Debug for DayFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DayFile").field("name", &self.name).field("line", &self.line).finish_non_exhaustive()
    }
}

/// A line, and whether it had an end.
struct Line {
    text: String,
    is_whole: bool,
}

impl DayFile {
    /// Reads nothing yet. `name` is what messages call it.
    pub fn new(name: impl Into<String>, input: Box<dyn BufRead + Send>, terms: Terms) -> Self {
        Self { name: name.into(), input, terms, header: None, line: 0, ended: false }
    }

    fn wrong(&self, line: u64, what: impl std::fmt::Display) -> StatementError {
        StatementError::unusable(format!("{}, line {line}: {what}", self.name))
    }

    /// The next line without its end; `None` at the end of the file.
    fn read_line(&mut self) -> Result<Option<Line>, StatementError> {
        let mut bytes = Vec::new();
        let read = self.input.by_ref().take(LINE_MAX).read_until(b'\n', &mut bytes);
        let line = self.line + 1;
        if read.map_err(|error| self.wrong(line, format_args!("it cannot be read on ({error})")))? == 0 {
            return Ok(None);
        }
        self.line = line;
        let is_whole = bytes.last() == Some(&b'\n');
        if !is_whole && bytes.len() as u64 >= LINE_MAX {
            return Err(
                self.wrong(line, format_args!("it is longer than {LINE_MAX} bytes: is this a CSV or JSON Lines file?"))
            );
        }
        while matches!(bytes.last(), Some(b'\n' | b'\r')) {
            bytes.pop();
        }
        if line == 1 {
            self.look_at_beginning(&mut bytes)?;
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(Line { text, is_whole })),
            Err(_) => Err(self.wrong(
                line,
                "it is not UTF-8: convert the file first, such as with: iconv -f GB18030 -t UTF-8 FILE > NEW",
            )),
        }
    }

    fn look_at_beginning(&self, bytes: &mut Vec<u8>) -> Result<(), StatementError> {
        match bytes.as_slice() {
            [0xEF, 0xBB, 0xBF, ..] => drop(bytes.drain(..3)),
            [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => {
                let what = "it is UTF-16: convert the file first, with: iconv -f UTF-16 -t UTF-8 FILE > NEW";
                return Err(self.wrong(1, what));
            }
            [0x1F, 0x8B, ..] | [b'P', b'K', 3, 4, ..] => {
                return Err(self.wrong(1, "the file is compressed: unpack it first"));
            }
            [b'[', ..] if self.terms.format == Format::JsonLines => {
                return Err(
                    self.wrong(1, "it is one JSON array: write an object in each line, with: jq -c '.[]' FILE > NEW")
                );
            }
            _ => {}
        }
        Ok(())
    }

    /// The fields of the next recharge, and its line.
    fn read_fields(&mut self) -> Result<Option<(Fields, u64)>, StatementError> {
        loop {
            let Some(Line { text, is_whole }) = self.read_line()? else {
                return if self.line == 0 {
                    let what = "the file is empty: of a day without recharges give a CSV file with its header alone";
                    Err(self.wrong(1, what))
                } else if self.header.is_none() && self.terms.format == Format::Csv {
                    Err(self.wrong(self.line, "the file has no header"))
                } else {
                    Ok(None)
                };
            };
            let first = self.line;
            if text.trim().is_empty() {
                continue;
            }
            let fields = match self.terms.format {
                Format::Csv => self.csv_fields(text, is_whole, first)?,
                Format::JsonLines => {
                    let fields = json::fields(&text, &self.terms.columns);
                    Some(fields.map_err(|what| {
                        let cut = if is_whole { "" } else { ", and the file ends there: it is cut off, get it again" };
                        self.wrong(first, format_args!("{what}{cut}"))
                    })?)
                }
            };
            if let Some(fields) = fields {
                return Ok(Some((fields, first)));
            }
        }
    }

    /// Nothing, for the header. A field in quotes may go on in the next line.
    fn csv_fields(
        &mut self,
        mut text: String,
        mut is_whole: bool,
        first: u64,
    ) -> Result<Option<Fields>, StatementError> {
        let delimiter = self.header.as_ref().map_or_else(|| csv::delimiter_of(&text), |header| header.delimiter);
        let cut_off =
            "the line has no end, so the file is cut off: get it again, or end it with a line break if it is whole";
        let record = loop {
            match csv::record(&text, delimiter) {
                csv::Record::Whole(record) => break record,
                csv::Record::GoesOn if text.len() as u64 <= LINE_MAX => match self.read_line()? {
                    Some(next) => {
                        text.push('\n');
                        text.push_str(&next.text);
                        is_whole = next.is_whole;
                    }
                    None => {
                        return Err(
                            self.wrong(first, "a field in quotes has no end: the file is cut off, get it again")
                        );
                    }
                },
                csv::Record::GoesOn => return Err(self.wrong(first, "a field in quotes has no end within 64 KiB")),
                csv::Record::Broken(what) => return Err(self.wrong(first, what)),
            }
        };
        if !is_whole {
            return Err(self.wrong(first, cut_off));
        }
        let Some(header) = &self.header else {
            let header = Header::of(&record, delimiter, &self.terms).map_err(|what| self.wrong(first, what))?;
            self.header = Some(header);
            return Ok(None);
        };
        header.fields(&record).map(Some).map_err(|what| self.wrong(first, what))
    }

    fn read_one(&mut self) -> Result<Option<Listed>, StatementError> {
        let Some((fields, line)) = self.read_fields()? else { return Ok(None) };
        let read = fields.read(&self.terms).map_err(|what| self.wrong(line, what))?;
        Ok(Some(Listed {
            client_ref: ClientRef::from_stored(&read.client_ref),
            state: read.state,
            amount: read.amount,
            at: read.at,
            provider_ref: read.provider_ref,
            place: line,
        }))
    }
}

#[async_trait]
impl Statement for DayFile {
    async fn next_page(&mut self) -> Result<Option<Vec<Listed>>, StatementError> {
        let mut page = Vec::new();
        while !self.ended && page.len() < PAGE {
            match self.read_one() {
                Ok(Some(listed)) => page.push(listed),
                Ok(None) => self.ended = true,
                Err(error) => {
                    self.ended = true;
                    return Err(error);
                }
            }
        }
        Ok((!page.is_empty()).then_some(page))
    }
}

#[cfg(test)]
mod tests;
