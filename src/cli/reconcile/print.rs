//! A reconciliation, for people, for programs and for spreadsheets.

use std::fmt::{self, Display};
use std::io::{self, BufWriter, Write};

use serde::Serialize;

use super::ReconcileArgs;
use crate::cli::orders::time;
use crate::cli::output::{CliError, Output, complain, csv_text};
use crate::domain::{CaseKind, Currency, State};
use crate::reconcile::{CaseState, Class, Counted, Entry, Here, Reconciled, Report, Sum};

/// People are shown so many differences; the rest is for `--csv`.
const SHOWN_MAX: usize = 200;
/// Where there is nothing to say.
const NOTHING: &str = "-";

const CSV_HEADER: &str = "class,order_id,attempt,client_ref,here,order_state,there,ours_minor,ours_currency,theirs_minor,\
                          theirs_currency,claimed_at,line,case,case_state";

pub(super) fn print(done: &Reconciled, source: &str, args: &ReconcileArgs, output: Output) -> Result<(), CliError> {
    let mut out = BufWriter::new(io::stdout().lock());
    if output.json {
        json(&mut out, done, source, args.all)?;
    } else if args.csv {
        csv(&mut out, done, args.all)?;
        out.flush()?;
        complain(Summary { report: &done.report, source });
    } else {
        writeln!(out, "{}", Summary { report: &done.report, source })?;
        table(&mut out, done, args.all)?;
    }
    Ok(out.flush()?)
}

#[derive(Serialize)]
struct JsonEntry<'a> {
    r#type: &'static str,
    #[serde(flatten)]
    entry: &'a Entry,
}

#[derive(Serialize)]
struct JsonReport<'a> {
    r#type: &'static str,
    source: &'a str,
    #[serde(flatten)]
    report: &'a Report,
}

/// A line for each difference, and the report last: what ends without it is not whole.
fn json(out: &mut impl Write, done: &Reconciled, source: &str, all: bool) -> Result<(), CliError> {
    for entry in done.entries(all) {
        let r#type = if entry.class == Class::Matched { "matched" } else { "difference" };
        line_of(out, &JsonEntry { r#type, entry: &entry })?;
    }
    line_of(out, &JsonReport { r#type: "report", source, report: &done.report })
}

fn line_of(out: &mut impl Write, object: &impl Serialize) -> Result<(), CliError> {
    let line = serde_json::to_string(object)
        .map_err(|error| CliError::failed(format!("the result cannot be written as JSON ({error})")))?;
    Ok(writeln!(out, "{line}")?)
}

fn csv(out: &mut impl Write, done: &Reconciled, all: bool) -> Result<(), CliError> {
    writeln!(out, "{CSV_HEADER}")?;
    for entry in done.entries(all) {
        let Entry { class, client_ref, .. } = &entry;
        let order_id = entry.order_id.as_ref().map(ToString::to_string).unwrap_or_default();
        writeln!(
            out,
            "{},{order_id},{},{},{},{},{},{},{},{},{},{},{},{},{}",
            class.as_str(),
            or_empty(entry.attempt),
            csv_text(client_ref),
            entry.here.map(Here::as_str).unwrap_or_default(),
            entry.order_state.map(State::as_str).unwrap_or_default(),
            entry.there.map(|there| there.0.as_str()).unwrap_or_default(),
            or_empty(entry.ours_minor),
            or_empty(entry.ours_currency),
            or_empty(entry.theirs_minor),
            or_empty(entry.theirs_currency),
            entry.claimed_at.map(time).unwrap_or_default(),
            or_empty(entry.line),
            entry.case.map(CaseKind::as_str).unwrap_or_default(),
            entry.case_state.map(CaseState::as_str).unwrap_or_default(),
        )?;
    }
    Ok(())
}

fn or_empty(value: Option<impl Display>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// The counts.
struct Summary<'a> {
    report: &'a Report,
    source: &'a str,
}

impl Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { listing, matched, cases, .. } = self.report;
        let report = self.report;
        writeln!(
            f,
            "provider          {}   {} {}   from {} to {}",
            report.provider,
            report.day,
            report.timezone,
            time(report.from),
            time(report.until)
        )?;
        writeln!(
            f,
            "list              {}: {} lines, {} of them again, {} of other days",
            self.source, listing.lines, listing.repeated, listing.of_other_days
        )?;
        writeln!(f, "{:<18}{:>10}  {:>20}  {:>20}", "", "COUNT", "OURS, MINOR UNITS", "THEIRS")?;
        for (name, counted) in [
            ("both delivered", &matched.delivered),
            ("neither", &matched.not_delivered),
            ("both open", &matched.open),
            ("missing there", &report.missing_there),
            ("missing here", &report.missing_here),
            ("state differs", &report.state_differs),
            ("amount differs", &report.amount_differs),
        ] {
            rows(f, name, counted)?;
        }
        for (name, count, what) in [
            ("at the edge", report.at_the_edge, "not judged: may be on the list of the next day, or the one before"),
            ("fresh", listing.fresh, "not judged: filed within the last minute, our claim may not be readable yet"),
            ("unreadable", report.unreadable, "not judged: the order's row is gone or cannot be read"),
            ("idle there", report.idle_strangers, "of no order of ours, and not delivered"),
        ] {
            if count > 0 {
                writeln!(f, "{name:<18}{count:>10}  {what}")?;
            }
        }
        let told: Vec<String> = [
            (cases.opened, "opened"),
            (cases.known, "known before"),
            (cases.due, "to be opened"),
            (cases.withheld, "withheld"),
            (cases.overtaken, "settled meanwhile"),
            (cases.not_written, "NOT WRITTEN"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
        writeln!(f, "cases             {}", if told.is_empty() { "none".to_owned() } else { told.join(", ") })?;
        write!(f, "result            {}", if report.clean { "all matched" } else { "DIFFERENCES" })
    }
}

fn rows(f: &mut fmt::Formatter<'_>, name: &str, counted: &Counted) -> fmt::Result {
    let row = |f: &mut fmt::Formatter<'_>, name: &str, count: &str, sum: Option<&Sum>| {
        let money = |minor: i128, currency: Currency| {
            if minor == 0 { NOTHING.to_owned() } else { format!("{minor} {currency}") }
        };
        let ours = sum.map_or_else(|| NOTHING.to_owned(), |sum| money(sum.ours_minor, sum.currency));
        let theirs = sum.map_or_else(|| NOTHING.to_owned(), |sum| money(sum.theirs_minor, sum.currency));
        writeln!(f, "{name:<18}{count:>10}  {ours:>20}  {theirs:>20}")
    };
    row(f, name, &counted.count.to_string(), counted.money.first())?;
    counted.money.iter().skip(1).try_for_each(|sum| row(f, "", "", Some(sum)))
}

fn table(out: &mut impl Write, done: &Reconciled, all: bool) -> Result<(), CliError> {
    let mut entries = done.entries(all).peekable();
    if entries.peek().is_none() {
        return Ok(());
    }
    writeln!(out)?;
    writeln!(
        out,
        "{:<15} {:<34} {:<24} {:<12} {:>16} {:>16}  CASE",
        "DIFFERENCE", "REFERENCE", "HERE", "THERE", "OURS", "THEIRS"
    )?;
    for entry in entries.by_ref().take(SHOWN_MAX) {
        let money = |minor: Option<i64>, currency: Option<Currency>| {
            minor.zip(currency).map_or_else(|| NOTHING.to_owned(), |(minor, currency)| format!("{minor} {currency}"))
        };
        let here = entry.here.map_or(NOTHING, Here::as_str);
        let here = entry.order_state.map_or_else(|| here.to_owned(), |state| format!("{here} ({state})"));
        let case = entry.case.zip(entry.case_state);
        let case = case.map_or_else(|| NOTHING.to_owned(), |(kind, state)| format!("{kind} ({})", state.as_str()));
        writeln!(
            out,
            "{:<15} {:<34} {:<24} {:<12} {:>16} {:>16}  {case}",
            entry.class.as_str(),
            entry.client_ref.escape_debug().to_string(),
            here,
            entry.there.map_or(NOTHING, |there| there.0.as_str()),
            money(entry.ours_minor, entry.ours_currency),
            money(entry.theirs_minor, entry.theirs_currency),
        )?;
    }
    match entries.count() {
        0 => Ok(()),
        more => Ok(writeln!(out, "… and {more} more: --csv or --json writes them all")?),
    }
}
