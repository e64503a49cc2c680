//! What a file may be, and what is said where it may not.

use std::io::Cursor;

use super::*;
use crate::domain::{Currency, Money};
use crate::ports::ListedState;
use crate::providers::ProviderKind;

fn terms(format: Format) -> Terms {
    Terms {
        format,
        columns: Columns::default(),
        states: States::default(),
        currency: None,
        offset: chrono::FixedOffset::east_opt(8 * 3600).unwrap(),
    }
}

fn read_with(terms: Terms, bytes: &[u8]) -> Result<Vec<Listed>, StatementError> {
    let mut file = DayFile::new("--file day", Box::new(Cursor::new(bytes.to_vec())), terms);
    let mut all = Vec::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    while let Some(page) = runtime.block_on(file.next_page())? {
        all.extend(page);
    }
    Ok(all)
}

fn csv(text: &str) -> Result<Vec<Listed>, StatementError> {
    read_with(terms(Format::Csv), text.as_bytes())
}

fn json(text: &str) -> Result<Vec<Listed>, StatementError> {
    read_with(terms(Format::JsonLines), text.as_bytes())
}

fn cny(minor: i64) -> Money {
    Money { minor, currency: Currency::CNY }
}

const HEADER: &str = "client_ref,state,amount_minor,currency,at,provider_ref\n";

#[test]
fn a_day_is_read_from_csv_and_from_lines_of_json_alike() {
    let text = format!(
        "\u{feff}{HEADER}o-1-1,delivered,5000,CNY,2026-01-31T16:30:00Z,S1\r\n\n\"o-2-1\",FAILED,,,2026-02-01 00:30:00,\n"
    );
    let lines = "{\"client_ref\":\"o-1-1\",\"state\":\"delivered\",\"amount_minor\":5000,\"currency\":\"CNY\",\
                 \"at\":\"2026-01-31T16:30:00Z\",\"provider_ref\":\"S1\",\"more\":[1]}\n\n\
                 {\"client_ref\":\"o-2-1\",\"state\":\"failed\",\"amount_minor\":null,\"at\":\"2026-02-01 00:30:00\"}";
    let (from_csv, from_json) = (csv(&text).unwrap(), json(lines).unwrap());
    assert_eq!(from_csv.iter().map(|one| one.place).collect::<Vec<_>>(), [2, 4]);
    let told = |one: &Listed| (one.client_ref.to_string(), one.state, one.amount, one.at, one.provider_ref.clone());
    assert!(from_csv.iter().map(told).eq(from_json.iter().map(told)), "{from_csv:?} {from_json:?}");
    let [first, second] = from_csv.as_slice() else { panic!("{from_csv:?}") };
    assert_eq!((first.state, first.amount), (ListedState::Delivered, Some(cny(5000))));
    assert_eq!((second.state, second.amount, second.at), (ListedState::Failed, None, first.at), "a time of the zone");
}

#[test]
fn amounts_are_whole_minor_units_or_exact_decimals() {
    let with = |header: &str, line: &str| csv(&format!("client_ref,state,{header}\no-1-1,delivered,{line}\n"));
    for (header, line, minor) in [
        ("amount,currency", "50.00,CNY", 5000),
        ("amount,currency", "4.75,CNY", 475),
        ("amount,currency", "100,JPY", 100),
        ("amount_minor,amount,currency", "475,4.75,CNY", 475),
    ] {
        assert_eq!(with(header, line).unwrap()[0].amount.unwrap().minor, minor, "{line}");
    }
    for (header, line, words) in [
        ("amount_minor,currency", "50.00,CNY", "no whole number of minor units"),
        ("amount_minor,currency", "fifty,CNY", "no whole number of minor units"),
        ("amount_minor,currency", "-5,CNY", "no whole number"),
        ("amount,currency", "4.755,CNY", "no plain decimal of CNY"),
        ("amount,currency", "\"5,000.00\",CNY", "no plain decimal"),
        ("amount,currency", "5e400,CNY", "no plain decimal"),
        ("amount_minor,currency", "99999999999999999999,CNY", "no whole number"),
        ("amount_minor,currency", "5000,yuan", "ISO 4217"),
        ("amount_minor,currency", "5000,", "give --currency"),
        ("amount_minor,amount,currency", "475,5.00,CNY", "differ"),
    ] {
        let said = with(header, line).unwrap_err().to_string();
        assert!(said.starts_with("--file day, line 2: ") && said.contains(words), "{line}: {said}");
    }
    let own = Terms { currency: Some(Currency::CNY), ..terms(Format::Csv) };
    let text = b"client_ref,state,amount_minor\no-1-1,delivered,7\n";
    assert_eq!(read_with(own, text).unwrap()[0].amount, Some(cny(7)));
    let float =
        json("{\"client_ref\":\"o-1-1\",\"state\":\"delivered\",\"amount_minor\":5000.0,\"currency\":\"CNY\"}\n");
    assert!(float.unwrap_err().to_string().contains("no whole number of minor units"));
}

#[test]
fn columns_and_states_may_have_other_names() {
    let mut own = terms(Format::Csv);
    own.columns.0.insert(Column::ClientRef, "third_id".to_owned());
    own.states = States::of(ProviderKind::Mf178);
    own.states.0.insert("done".to_owned(), ListedState::Delivered);
    let read = read_with(own.clone(), b"state;third_id;target\n3;R1;x\n4;R2;x\n41;R3;x\ndone;R4;x\n").unwrap();
    let states: Vec<ListedState> = read.iter().map(|one| one.state).collect();
    let [delivered, failed, unknown] = [ListedState::Delivered, ListedState::Failed, ListedState::Unknown];
    assert_eq!(states, [delivered, failed, unknown, delivered]);
    let said = read_with(own, b"state;client_ref\n3;R1\n").unwrap_err().to_string();
    assert!(said.contains("no column \"third_id\", only state, client_ref"), "{said}");
}

#[test]
fn what_is_not_whole_or_not_understood_is_told_with_its_line_and_a_remedy() {
    let cut = format!("{HEADER}o-1-1,delivered,5000,CNY,,S1\n");
    let cases: [(Vec<u8>, u64, &str); 14] = [
        (b"".to_vec(), 1, "the file is empty"),
        (b"\n\n".to_vec(), 2, "no header"),
        (b"reference,status\no-1-1,delivered\n".to_vec(), 1, "no column \"client_ref\", only reference, status: name"),
        (b"client_ref,state,state\n".to_vec(), 1, "the column \"state\" twice"),
        (cut.as_bytes()[..cut.len() - 1].to_vec(), 2, "has no end, so the file is cut off"),
        (format!("{cut}o-2-1,deli\n").into_bytes(), 3, "it has 2 fields, and the header 6"),
        (format!("{cut}o-2-1,delivered,5000,CNY,,S1,9\n").into_bytes(), 3, "it has 7 fields"),
        (format!("{cut}o-2-1,\"delivered\n").into_bytes(), 3, "a field in quotes has no end"),
        (format!("{cut}o-2-1,gone,,,,\n").into_bytes(), 3, "state is gone, which nobody knows"),
        (format!("{cut}o-2-1,13800000042,,,,\n").into_bytes(), 3, "state is (digits), which nobody knows"),
        (format!("{cut},delivered,,,,\n").into_bytes(), 3, "it has no client_ref"),
        (format!("{cut}o-2-1,delivered,,,yesterday,\n").into_bytes(), 3, "at is no time"),
        ([cut.as_bytes(), b"o-2-1,\xb3\xc9\xb9\xa6,,,,\n"].concat(), 3, "it is not UTF-8"),
        (b"\xff\xfec\0l\0".to_vec(), 1, "it is UTF-16"),
    ];
    for (bytes, line, words) in cases {
        let said = read_with(terms(Format::Csv), &bytes).unwrap_err().to_string();
        assert!(said.starts_with(&format!("--file day, line {line}: ")) && said.contains(words), "{said}");
        assert!(!said.contains("138000"), "{said}");
    }
    let long = "x".repeat(70_000);
    assert!(csv(&long).unwrap_err().to_string().contains("longer than 65536 bytes"));
    for (text, words) in [
        ("[{\"client_ref\":\"a\"}]\n", "one JSON array"),
        ("{\"client_ref\":\"a\",\"sta", "it is no object of JSON, and the file ends there: it is cut off"),
        ("hello\n", "it is no object of JSON"),
        ("{\"client_ref\":{},\"state\":\"failed\"}\n", "client_ref is neither a text nor a number"),
        ("{\"client_ref\":\"a\"}\n", "it has no state"),
        ("{\"client_ref\":\"a\",\"state\":\"delivered\",\"state\":\"failed\"}\n", "state stands there twice"),
    ] {
        let said = json(text).unwrap_err().to_string();
        assert!(said.starts_with("--file day, line 1: ") && said.contains(words), "{said}");
    }
    assert!(read_with(terms(Format::Csv), b"\x1f\x8b\x08").unwrap_err().to_string().contains("compressed"));
}

#[test]
fn what_was_made_by_hand_is_known_by_the_providers_own_reference() {
    let read = csv(&format!("{HEADER},delivered,100,CNY,,S77\n")).unwrap();
    assert_eq!(read[0].client_ref.as_str(), "#S77");
}

#[test]
fn a_header_alone_is_a_day_without_recharges() {
    assert_eq!(csv(HEADER).unwrap(), []);
}

#[test]
fn the_format_is_known_by_the_name() {
    for (name, format) in [
        ("day.csv", Some(Format::Csv)),
        ("DAY.CSV", Some(Format::Csv)),
        ("a.b/day.jsonl", Some(Format::JsonLines)),
        ("day.xlsx", None),
        ("day", None),
    ] {
        assert_eq!(Format::of(name), format, "{name}");
    }
}
