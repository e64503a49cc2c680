//! One dead letter, for whoever has to find out what is wrong with it.

use serde::Serialize;

use super::list::{first_seen, reason, state};
use super::value::{Json, short, shown, text};
use super::{Desk, Place};
use crate::cli::orders::{time, trouble};
use crate::cli::output::{CliError, Output};
use crate::domain::inbound::Unfit;
use crate::ports::LetterMark;
use crate::roles::dead_letter::Header;
use crate::roles::replay::{Fit, Found};

/// A value is shown up to here; a person reads no more.
const SHOWN_MAX: usize = 64 * 1024;

/// A letter as programs read it.
#[derive(Serialize)]
struct Shown {
    place: String,
    partition: i32,
    offset: i64,
    reason: String,
    state: &'static str,
    error: Option<String>,
    original_topic: Option<String>,
    original_partition: Option<i32>,
    original_offset: Option<i64>,
    original_timestamp: Option<String>,
    first_seen: Option<String>,
    mark: Option<Mark>,
    usable_now: bool,
    order_id: Option<String>,
    note: Option<&'static str>,
    wrong_now: Option<Wrong>,
    key: Option<String>,
    headers: Vec<(String, Option<String>)>,
    value_bytes: Option<usize>,
    /// Where it is JSON.
    value: Option<Json>,
    /// Where it is not.
    text: Option<String>,
}

#[derive(Serialize)]
struct Mark {
    by: String,
    why: String,
    at: String,
}

#[derive(Serialize)]
struct Wrong {
    reason: &'static str,
    detail: String,
}

pub(super) async fn run(desk: &Desk, place: Place, reveal: bool, output: Output) -> Result<(), CliError> {
    let found = desk.letter(place).await?;
    let mark = desk.marks(std::slice::from_ref(&found)).await?.pop().flatten();
    let now = desk.store.now().await.map_err(|error| trouble(&error))?;
    let verdict = desk.readers()?.judge(&found, now);
    let shown = Shown::of(&found, mark.as_ref(), &verdict, reveal);
    if output.json { output.object(&shown) } else { print(&shown, output) }
}

impl Shown {
    fn of(found: &Found, mark: Option<&LetterMark>, verdict: &Result<Fit, Unfit>, reveal: bool) -> Self {
        let (place, letter) = (Place::of(found), found.letter.as_ref());
        let headers = letter.map_or(&found.record.headers, |letter| &letter.headers);
        let fit = verdict.as_ref().ok();
        let bytes = found.record.value.as_deref();
        let value = bytes.and_then(Json::parse).map(|json| if reveal { json } else { json.masked() });
        let plain = bytes.filter(|_| value.is_none()).map(|bytes| text(bytes, reveal));
        Self {
            place: place.to_string(),
            partition: place.partition,
            offset: place.offset,
            reason: reason(found),
            state: state(mark),
            error: letter.map(|letter| shown(&letter.error)),
            original_topic: letter.map(|letter| shown(&letter.topic)),
            original_partition: letter.map(|letter| letter.partition),
            original_offset: letter.map(|letter| letter.offset),
            original_timestamp: letter.and_then(|letter| letter.timestamp).map(time),
            first_seen: first_seen(found).map(time),
            mark: mark.map(Mark::of),
            usable_now: fit.is_some_and(|fit| !fit.needs_its_order),
            order_id: fit.map(|fit| fit.order_id.to_string()),
            note: fit.and_then(note),
            wrong_now: verdict.as_ref().err().map(Wrong::of),
            key: found.record.key.as_deref().map(|key| short(key, reveal)),
            headers: headers.iter().map(|header| self::header(header, reveal)).collect(),
            value_bytes: bytes.map(<[u8]>::len),
            value,
            text: plain,
        }
    }
}

fn note(fit: &Fit) -> Option<&'static str> {
    if fit.needs_its_order { Some("only once its order is there, which `replay` looks for") } else { fit.note }
}

fn header((name, value): &Header, reveal: bool) -> (String, Option<String>) {
    (short(name, reveal), value.as_deref().map(|value| short(value, reveal)))
}

impl Mark {
    fn of(mark: &LetterMark) -> Self {
        Self { by: mark.by.clone(), why: mark.why.clone(), at: time(mark.at) }
    }
}

impl Wrong {
    fn of(unfit: &Unfit) -> Self {
        Self { reason: unfit.reason.as_str(), detail: unfit.detail.clone() }
    }
}

fn print(letter: &Shown, output: Output) -> Result<(), CliError> {
    let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
    output.line(format_args!("letter    {}   {}", letter.place, letter.state))?;
    if let Some(Mark { by, why, at }) = &letter.mark {
        let why = if why.is_empty() { String::new() } else { format!(": {why}") };
        output.line(format_args!("decided   {at}   by {by}{why}"))?;
    }
    output.line(format_args!("wrong     {}: {}", letter.reason, known(&letter.error)))?;
    if let (Some(topic), Some(partition), Some(offset)) =
        (&letter.original_topic, letter.original_partition, letter.original_offset)
    {
        let written = known(&letter.original_timestamp);
        output.line(format_args!("from      {topic} {partition}:{offset}, written {written}"))?;
    }
    output.line(format_args!("seen      {}", known(&letter.first_seen)))?;
    match (&letter.wrong_now, letter.note) {
        (Some(Wrong { reason, detail }), _) => output.line(format_args!("now       still {reason}: {detail}"))?,
        (None, Some(note)) => output.line(format_args!("now       it can be used; {note}"))?,
        (None, None) => output.line("now       it can be used")?,
    }
    output.line(format_args!("key       {}", letter.key.as_deref().unwrap_or("none")))?;
    for (name, value) in &letter.headers {
        output.line(format_args!("header    {name}: {}", value.as_deref().unwrap_or("(null)")))?;
    }
    let Some(bytes) = letter.value_bytes else { return output.line("value     none") };
    output.line(format_args!("value     {bytes} bytes"))?;
    let whole = match (&letter.value, &letter.text) {
        (Some(json), _) => serde_json::to_string_pretty(json).unwrap_or_default(),
        (None, text) => text.clone().unwrap_or_default(),
    };
    let cut = whole.get(..whole.floor_char_boundary(SHOWN_MAX)).unwrap_or(&whole);
    output.line(cut)?;
    if cut.len() < whole.len() {
        output.progress("the rest is left out: --json shows all of it");
    }
    Ok(())
}
