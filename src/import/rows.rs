//! A file of orders as the data of events: JSON Lines, or CSV with the names of the fields in its first line. It is read a
//! line at a time; a line that is no good does not keep the next one from being read.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, BufRead, Read as _};

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{FIELDS, NEEDED, Problem, Unread};
use crate::csv;
use crate::domain::inbound::MAX_VALUE_BYTES;

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// An object in each line.
    Jsonl,
    /// A line with the names of the fields, and a line for each order.
    Csv,
}

impl Format {
    /// By the end of a file's name.
    pub fn of(name: &str) -> Option<Self> {
        let (_, extension) = name.rsplit_once('.')?;
        match extension.to_ascii_lowercase().as_str() {
            "csv" | "tsv" => Some(Self::Csv),
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            _ => None,
        }
    }
}

/// A line, or a record of several.
#[derive(Debug)]
pub struct Row {
    /// Its first line, from 1.
    pub line: u64,
    /// The data of its event, or why there is none.
    pub data: Result<Vec<u8>, Problem>,
}

/// A file that is read.
#[derive(Debug)]
pub struct Rows<R> {
    input: R,
    format: Format,
    header: Option<Header>,
    line: u64,
    has_ended: bool,
    /// Fields that nobody reads.
    pub unread: Unread,
}

#[derive(Debug)]
struct Header {
    delimiter: char,
    names: Vec<String>,
}

/// What stands where the next line should be.
enum Line {
    Text(String),
    Bad(&'static str),
    End,
}

const TOO_LONG: &str = "longer than 64 KiB, which is more than an event may have";
const NOT_UTF8: &str =
    "not UTF-8: unpack or convert the file first, such as with: iconv -f GB18030 -t UTF-8 FILE > NEW";
const ONE_ARRAY: &str = "it is one JSON array: write an object in each line, with: jq -c '.[]' FILE > NEW";

impl<R: BufRead> Rows<R> {
    /// Reads nothing yet.
    pub fn new(input: R, format: Format) -> Self {
        Self { input, format, header: None, line: 0, has_ended: false, unread: Unread::default() }
    }

    /// The next order, or what is wrong with its line; nothing at the end.
    pub fn next_row(&mut self) -> io::Result<Option<Row>> {
        while !self.has_ended {
            let read = self.read_line()?;
            let line = self.line;
            let bad = |rule: &str| Ok(Some(Row { line, data: Err(Problem::new(line, None, rule)) }));
            let text = match read {
                Line::End => return Ok(self.end()),
                // Without its header nothing of a CSV file means anything; and one that begins so is no such file.
                Line::Bad(rule) => {
                    self.has_ended = line == 1 || (self.format == Format::Csv && self.header.is_none());
                    return bad(rule);
                }
                Line::Text(text) => text,
            };
            if line == 1 && self.format == Format::Jsonl && text.starts_with('[') {
                self.has_ended = true;
                return bad(ONE_ARRAY);
            }
            if text.trim().is_empty() {
                continue;
            }
            let data = match self.format {
                Format::Jsonl => Some(Ok(self.look_at_names(text))),
                Format::Csv => self.record(text, line)?,
            };
            if let Some(data) = data {
                return Ok(Some(Row { line, data }));
            }
        }
        Ok(None)
    }

    /// A CSV file without a header was cut off, or is another one.
    fn end(&mut self) -> Option<Row> {
        self.has_ended = true;
        if self.format == Format::Jsonl || self.header.is_some() {
            return None;
        }
        let problem = Problem::new(1, None, "there is no line with the names of the fields");
        Some(Row { line: 1, data: Err(problem) })
    }

    fn look_at_names(&mut self, text: String) -> Vec<u8> {
        // What is no object is for the reader of events to say.
        if let Ok(members) = serde_json::from_str::<HashMap<Cow<'_, str>, &RawValue>>(&text) {
            for name in members.keys() {
                self.unread.meet(name);
            }
        }
        text.into_bytes()
    }

    /// Nothing, for the header.
    fn record(&mut self, mut text: String, line: u64) -> io::Result<Option<Result<Vec<u8>, Problem>>> {
        let delimiter = self.header.as_ref().map_or_else(|| csv::delimiter_of(&text), |header| header.delimiter);
        let bad = |rule: &str| Ok(Some(Err(Problem::new(line, None, rule))));
        let fields = loop {
            match csv::record(&text, delimiter) {
                csv::Record::Whole(fields) => break fields,
                csv::Record::Broken(rule) => return bad(rule),
                csv::Record::GoesOn if text.len() <= MAX_VALUE_BYTES => match self.read_line()? {
                    Line::Text(more) => {
                        text.push('\n');
                        text.push_str(&more);
                    }
                    Line::Bad(rule) => return bad(rule),
                    Line::End => {
                        self.has_ended = true;
                        return bad("a field in quotes has no end");
                    }
                },
                csv::Record::GoesOn => {
                    // Where the next record begins nobody can tell.
                    self.has_ended = true;
                    return bad("a field in quotes has no end within 64 KiB: nothing behind it was looked at");
                }
            }
        };
        match &self.header {
            Some(header) => Ok(Some(object(header, &fields, line))),
            None => Ok(self.take_header(&fields, delimiter, line).err().map(Err)),
        }
    }

    fn take_header(&mut self, fields: &[String], delimiter: char, line: u64) -> Result<(), Problem> {
        let names: Vec<String> = fields.iter().map(|name| name.trim().to_ascii_lowercase()).collect();
        self.has_ended = true;
        for needed in NEEDED {
            if !names.iter().any(|name| name == needed) {
                let rule = format!("the first line must name it; an order has {}", FIELDS.join(", "));
                return Err(Problem::new(line, Some(needed), rule));
            }
        }
        let is_twice = |field: &&str| names.iter().filter(|name| name.as_str() == *field).count() > 1;
        if let Some(twice) = FIELDS.into_iter().find(is_twice) {
            return Err(Problem::new(line, Some(twice), "the first line names it twice"));
        }
        for name in &names {
            self.unread.meet(name);
        }
        self.has_ended = false;
        self.header = Some(Header { delimiter, names });
        Ok(())
    }

    fn read_line(&mut self) -> io::Result<Line> {
        let mut bytes = Vec::new();
        let most = MAX_VALUE_BYTES as u64 + 1;
        if self.input.by_ref().take(most).read_until(b'\n', &mut bytes)? == 0 {
            return Ok(Line::End);
        }
        self.line += 1;
        if bytes.last() != Some(&b'\n') && bytes.len() as u64 >= most {
            self.skip_line()?;
            return Ok(Line::Bad(TOO_LONG));
        }
        while matches!(bytes.last(), Some(b'\n' | b'\r')) {
            bytes.pop();
        }
        if self.line == 1 && bytes.starts_with(b"\xEF\xBB\xBF") {
            bytes.drain(..3);
        }
        Ok(String::from_utf8(bytes).map_or(Line::Bad(NOT_UTF8), Line::Text))
    }

    fn skip_line(&mut self) -> io::Result<()> {
        loop {
            let buffer = self.input.fill_buf()?;
            let (skipped, is_over) = match buffer.iter().position(|byte| *byte == b'\n') {
                Some(end) => (end + 1, true),
                None => (buffer.len(), buffer.is_empty()),
            };
            self.input.consume(skipped);
            if is_over {
                return Ok(());
            }
        }
    }
}

/// The data of an event, of a line of CSV. An empty field is absent.
fn object(header: &Header, fields: &[String], line: u64) -> Result<Vec<u8>, Problem> {
    if fields.len() != header.names.len() {
        let (found, wanted) = (fields.len(), header.names.len());
        return Err(Problem::new(line, None, format!("it has {found} fields, the first line {wanted}")));
    }
    let mut data = Map::new();
    let mut metadata = None;
    for (name, text) in header.names.iter().zip(fields).filter(|(_, text)| !text.is_empty()) {
        let wrong = |rule: &str| Problem::new(line, Some(name), rule);
        let value = match name.as_str() {
            "amount_minor" => {
                let number: i64 = text.trim().parse().map_err(|_| wrong("a whole number, in minor units"))?;
                Value::from(number)
            }
            "notify" => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "1" => Value::from(true),
                "false" | "0" => Value::from(false),
                _ => return Err(wrong("true or false")),
            },
            "metadata" => {
                // As it stands there: numbers may be of any length.
                metadata = Some(serde_json::from_str::<&RawValue>(text).map_err(|_| wrong("JSON"))?);
                continue;
            }
            name if FIELDS.contains(&name) => Value::from(text.as_str()),
            _ => continue,
        };
        data.insert(name.clone(), value);
    }
    let mut data = Value::Object(data).to_string();
    if let Some(metadata) = metadata {
        data.pop();
        let begin = if data.len() > 1 { ",\"metadata\":" } else { "\"metadata\":" };
        data.extend([begin, metadata.get(), "}"]);
    }
    Ok(data.into_bytes())
}
