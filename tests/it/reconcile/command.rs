//! `recharged reconcile` as people and programs meet it.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use recharged::ports::CaseFilter;
use serde_json::Value;
use tempfile::TempDir;

use super::{Books, zone_of_noon};
use crate::line::support::assert_no_numbers;
use crate::store::on_every_adapter;
use crate::store::place::Place;

on_every_adapter!(
    a_file_is_compared_for_people_programs_and_spreadsheets,
    what_cannot_be_used_is_told_in_one_line_and_nothing_is_opened,
);

/// A day around noon, and files of it.
struct Desk<'a> {
    place: &'a Place,
    folder: TempDir,
    day: String,
    zone: String,
    at: String,
}

impl<'a> Desk<'a> {
    fn open(place: &'a Place, books: &Books<'_>) -> Self {
        let zone = zone_of_noon(books.now);
        let day = books.now.with_timezone(&zone).date_naive().to_string();
        let at = books.at().with_timezone(&zone).to_rfc3339();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), "a key for tests").unwrap();
        Self { place, folder, day, zone: zone.to_string(), at }
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_recharged"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RECHARGED_") {
                command.env_remove(name);
            }
        }
        let of_the_day = ["--day", &self.day, "--timezone", &self.zone, "--slack", "10s", "--provider", "primary"];
        command.arg("reconcile").args(arguments);
        // What a test says itself goes before what all say.
        for pair in of_the_day.chunks(2).filter(|pair| !arguments.contains(&pair[0])) {
            command.args(pair);
        }
        command.args(["--set", &format!("store.url={}", self.place.url)]);
        let key = self.folder.path().join("key");
        let product = "products=[{country=\"*\",amount_minor=5000,product=\"5000\"}]";
        command.args([
            "--set",
            &format!("providers.primary={{kind=\"mf178\",base_url=\"http://127.0.0.1:9\",account=\"a\",key_file={key:?},{product}}}"),
        ]);
        command.env("NO_COLOR", "1");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output().unwrap();
        let all = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert_no_numbers(&all, "the command");
        assert!(!all.contains("panicked"), "{all}");
        output
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn a_file_is_compared_for_people_programs_and_spreadsheets(place: &Place) {
    let books = Books::open(place.store.as_ref()).await;
    for name in ["same", "gone", "short"] {
        books.delivered(name).await;
    }
    books.declined("late").await;
    let desk = Desk::open(place, &books);
    let (at, minor) = (&desk.at, "amount_minor,currency,at");
    let good = desk.file(
        "good.csv",
        format!("client_ref,state,{minor}\nsame-1,3,5000,CNY,{at}\ngone-1,3,5000,CNY,{at}\nshort-1,delivered,5000,CNY,{at}\n"),
    );
    let output = desk.run(&["--file", &good]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let shown = text(&output.stdout);
    for words in [
        "both delivered             3             15000 CNY             15000 CNY",
        "all matched",
        "cases             none",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }

    let phone = "+8613800000017";
    let bad = desk.file(
        "bad.jsonl",
        format!(
            "{{\"client_ref\":\"same-1\",\"state\":\"delivered\",\"amount\":\"50.00\",\"currency\":\"CNY\",\"phone\":\"{phone}\"}}\n\
             {{\"client_ref\":\"short-1\",\"state\":\"delivered\",\"amount\":25,\"currency\":\"CNY\"}}\n\
             {{\"client_ref\":\"late-1\",\"state\":\"delivered\",\"amount\":50,\"currency\":\"CNY\"}}\n\
             {{\"client_ref\":\"{phone}\",\"state\":\"delivered\"}}\n"
        ),
    );
    let dry = desk.run(&["--file", &bad, "--dry-run"]);
    assert_eq!(dry.status.code(), Some(1), "{dry:?}");
    let shown = text(&dry.stdout);
    for words in [
        "DIFFERENCES",
        "3 to be opened",
        "conflict (due)",
        "late_success (due)",
        "amount_mismatch (due)",
        "(digits)…17",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    let open = async || place.store.cases(&CaseFilter::default(), None, 9).await.unwrap().len();
    assert_eq!(open().await, 0);

    let once =
        desk.command(&["--file", "-", "--format", "jsonl", "--csv"]).stdin(std::fs::File::open(&bad).unwrap()).output();
    let once = once.unwrap();
    assert_eq!((once.status.code(), open().await), (Some(1), 3), "{once:?}");
    let table: Vec<Vec<String>> =
        text(&once.stdout).lines().map(|line| line.split(',').map(str::to_owned).collect()).collect();
    assert!(table.iter().all(|row| row.len() == 15), "{table:?}");
    let column = |at: usize| table.iter().skip(1).map(|row| row[at].as_str()).collect::<Vec<_>>();
    assert_eq!(column(0), ["missing_there", "amount_differs", "state_differs", "missing_here"]);
    assert_eq!(column(1), ["gone", "short", "late", ""]);
    assert_eq!(column(13), ["conflict", "amount_mismatch", "late_success", ""]);
    assert_eq!(column(14), ["opened", "opened", "opened", ""]);
    assert!(text(&once.stderr).contains("cases             3 opened"), "{once:?}");

    let mut global = desk.command(&["--file", &bad, "--all"]);
    let again = global.arg("--json").output().unwrap();
    assert_eq!((again.status.code(), open().await), (Some(1), 3), "{again:?}");
    let told = lines(&again);
    let (report, entries) = told.split_last().unwrap();
    assert_eq!((report["type"].as_str(), report["clean"].as_bool()), (Some("report"), Some(false)), "{report}");
    assert_eq!((report["cases"]["known"].as_u64(), report["cases"]["opened"].as_u64()), (Some(3), Some(0)), "{report}");
    let types: Vec<&str> = entries.iter().map(|entry| entry["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["matched", "difference", "difference", "difference", "difference"]);
    assert_eq!(
        entries[2]["ours_minor"].as_i64().zip(entries[2]["theirs_minor"].as_i64()),
        Some((5000, 2500)),
        "{told:?}"
    );
    assert!(again.stderr.is_empty(), "{again:?}");

    // What a person decides about such a case is recorded as of any other.
    let case =
        &["cases", "resolve", "late", "--as", "failed", "--by", "A. Duty", "--evidence", "their invoice", "--set"];
    let mut resolve = Command::new(env!("CARGO_BIN_EXE_recharged"));
    let resolved = resolve.args(case).arg(format!("store.url={}", place.url)).output().unwrap();
    assert_eq!(resolved.status.code(), Some(0), "{resolved:?}");
    assert_eq!((desk.run(&["--file", &bad]).status.code(), open().await), (Some(1), 2), "it is opened once, ever");
}

async fn what_cannot_be_used_is_told_in_one_line_and_nothing_is_opened(place: &Place) {
    let books = Books::open(place.store.as_ref()).await;
    books.delivered("gone").await;
    let desk = Desk::open(place, &books);
    let header = "client_ref,state,amount_minor,currency\n";
    let good = desk.file("good.csv", header);
    let tomorrow = (books.now + chrono::Duration::days(2)).date_naive().to_string();
    let (folder, nowhere) = (desk.folder.path().display().to_string(), "/nowhere/day.csv".to_owned());
    let file = |name: &str, body: &str| desk.file(name, format!("{header}{body}"));
    let cut = file("cut.csv", "gone-1,delivered,5000,C");
    let twice = file("twice.csv", "x-1,delivered,1,CNY\nx-1,failed,,\n");
    let cases: [(&[&str], i32, &str); 18] = [
        (&["--file", &cut], 78, "cut.csv, line 2: the line has no end, so the file is cut off"),
        (
            &["--file", &file("short.csv", "gone-1,delivered\n")],
            78,
            "short.csv, line 2: it has 2 fields, and the header 4",
        ),
        (&["--file", &twice], 78, "twice.csv, line 3: its reference stands on line 2 already"),
        (&["--file", &file("float.csv", "gone-1,delivered,50.0,CNY\n")], 78, "line 2: amount_minor is no whole number"),
        (&["--file", &desk.file("other.csv", "ref,status\n")], 78, "line 1: the header has no column \"client_ref\""),
        (&["--file", &desk.file("gbk.csv", b"client_ref,\xb3\xc9\xb9\xa6\n")], 78, "line 1: it is not UTF-8"),
        (&["--file", &desk.file("empty.csv", "")], 78, "line 1: the file is empty"),
        (&["--file", &nowhere], 78, "--file /nowhere/day.csv: it cannot be read"),
        (&["--file", &folder, "--format", "csv"], 78, "it is a folder"),
        (&["--file", &desk.file("day.xlsx", "x")], 2, "give --format csv or --format jsonl"),
        (&["--file", "-"], 2, "give --format csv or --format jsonl"),
        (&["--file", &good, "--day", "2026-02-30"], 2, "give a day of the calendar as YYYY-MM-DD"),
        (&["--file", &good, "--day", &tomorrow, "--timezone", "+00:00"], 2, "it has not begun"),
        (&["--file", &good, "--day", "2020-01-31"], 2, "it lies behind retention.closed_orders"),
        (&["--file", &good, "--provider", "nobody"], 2, "no section [providers.nobody]; there is primary"),
        (&["--file", &good, "--slack", "12h"], 2, "--slack: more than 6h"),
        (&["--file", &good, "--column", "ref=x"], 2, "give one of client_ref, state"),
        (&[], 2, "mf178 has no list: give its day file with --file"),
    ];
    for (arguments, code, words) in cases {
        let output = desk.run(arguments);
        let said = text(&output.stderr);
        let said: Vec<&str> = said.lines().filter(|line| line.starts_with("recharged: ")).collect();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        assert!(said.len() == 1 && said[0].contains(words), "{arguments:?}: {said:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}: {output:?}");
    }
    // A list that is cut off within a line while it is read, behind thousands that are whole.
    let mut long = header.to_owned();
    for number in 0..3_000 {
        long.push_str(&format!("x-{number}-1,failed,,\n"));
    }
    long.push_str("gone-1,deliv");
    let mut child = desk.command(&["--file", "-", "--format", "csv"]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(long.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(78), 0), "{output:?}");
    assert!(text(&output.stderr).contains("--file -, line 3002: "), "{output:?}");
    assert_eq!(place.store.cases(&CaseFilter::default(), None, 9).await.unwrap(), []);
    // And the guard: none is opened where there would be more than are believed.
    let withheld = desk.run(&["--file", &good, "--max-cases", "0"]);
    assert_eq!(withheld.status.code(), Some(1), "{withheld:?}");
    assert!(text(&withheld.stdout).contains("1 withheld"), "{withheld:?}");
    assert!(text(&withheld.stderr).contains("none was; look whether the list is the right one"), "{withheld:?}");
    assert_eq!(place.store.cases(&CaseFilter::default(), None, 9).await.unwrap(), []);
}
