//! A provider's day as a file.

use std::io::{BufReader, Cursor};

use serde_json::{Value, json};

use super::message::several;
use super::world::{keeps_secrets, wait};
use crate::domain::{Currency, Timestamp};
use crate::ports::{Listed, Statement as _, StatementError};
use crate::providers::ProviderKind;
use crate::providers::day_file::{Columns, DayFile, Format, States, Terms};

fn read(format: Format, kind: ProviderKind, bytes: &[u8], at_once: usize) -> Result<Vec<Listed>, StatementError> {
    let terms = Terms {
        format,
        columns: Columns::default(),
        states: States::of(kind),
        currency: Some(Currency::CNY),
        offset: chrono::FixedOffset::east_opt(8 * 3_600).unwrap(),
    };
    let input = BufReader::with_capacity(at_once.max(1), Cursor::new(bytes.to_vec()));
    let mut file = DayFile::new("--file day", Box::new(input), terms);
    let mut all = Vec::new();
    while let Some(page) = wait(file.next_page())? {
        all.extend(page);
    }
    Ok(all)
}

/// The first message is `FORMAT PROVIDER`, the second the file. However it comes in, it is the same; what is wrong is told by
/// its line, without anybody's number; and what it says reads back from lines of JSON.
pub fn day_file(bytes: &[u8]) {
    let parts = several(bytes);
    let (head, file) = match parts.as_slice() {
        [head, rest @ ..] if !rest.is_empty() => (*head, &bytes[head.len() + b"\n---\n".len()..]),
        _ => (&b"csv"[..], bytes),
    };
    let words: Vec<&str> = std::str::from_utf8(head).unwrap_or_default().split(' ').collect();
    let format = if words.first() == Some(&"jsonl") { Format::JsonLines } else { Format::Csv };
    let kind = words.get(1).and_then(|name| ProviderKind::parse(name)).unwrap_or(ProviderKind::Simulator);
    let whole = read(format, kind, file, 64 * 1024);
    assert_eq!(whole, read(format, kind, file, 1 + file.len() % 7), "it depends on how it comes in");
    match whole {
        Err(error) => {
            let said = error.to_string();
            keeps_secrets(&format!("{said} {error:?}"));
            assert!(said.starts_with("--file day, line "), "a problem has its line");
            assert!(!said.contains('\n') && said.len() <= 8_192, "a problem is a line that can be read");
        }
        Ok(all) => {
            assert!(all.is_sorted_by(|one, next| one.place < next.place), "entries stand in the order of the file");
            check_again(&all);
        }
    }
}

fn check_again(all: &[Listed]) {
    if all.is_empty() {
        return;
    }
    let lines: Vec<String> = all.iter().map(|listed| line(listed).to_string()).collect();
    let back = read(Format::JsonLines, ProviderKind::Simulator, lines.join("\n").as_bytes(), 64 * 1024);
    let back = back.expect("what was read can be read again");
    let without_place = |listed: &Listed| Listed { place: 0, ..listed.clone() };
    assert!(back.iter().map(without_place).eq(all.iter().map(without_place)), "it says something else");
}

fn line(listed: &Listed) -> Value {
    let at = listed.at.map(|at: Timestamp| at.to_rfc3339());
    json!({
        "client_ref": listed.client_ref, "state": listed.state.as_str(), "at": at, "provider_ref": listed.provider_ref,
        "amount_minor": listed.amount.map(|amount| amount.minor),
        "currency": listed.amount.map(|amount| amount.currency),
    })
}
