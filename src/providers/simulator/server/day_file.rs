//! The day file: what a provider sends for reconciliation (`docs/RECONCILE.md` has the form).

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use chrono::{NaiveDate, NaiveTime};
use serde::Serialize as _;

use super::super::dialect::DayLine;
use super::super::engine::{Engine, Span};
use super::admin::{Refused, refused};
use crate::domain::Timestamp;

const COLUMNS: &str = "client_ref,state,amount_minor,currency,at,provider_ref";

/// `?day=YYYY-MM-DD&format=csv`: of one day of UTC; or `?from=&until=`; or all that there is.
pub(super) async fn day_file(State(engine): State<Arc<Engine>>, uri: Uri) -> Result<Response, Refused> {
    let wrong = || {
        let problem = "give day=YYYY-MM-DD (in UTC), or from= and until= (RFC 3339), and format=csv or format=jsonl";
        refused(StatusCode::BAD_REQUEST, problem)
    };
    let (mut span, mut is_csv) = (Span::EVER, true);
    for (name, value) in url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        match (name.as_ref(), value.as_ref()) {
            ("day", day) => span = of_day(day).ok_or_else(wrong)?,
            ("from", from) => span.from = from.parse::<Timestamp>().map_err(|_| wrong())?,
            ("until", until) => span.until = until.parse::<Timestamp>().map_err(|_| wrong())?,
            ("format", "csv") => is_csv = true,
            ("format", "jsonl") => is_csv = false,
            (_, _) => return Err(wrong()),
        }
    }
    let lines = engine.listed(span).into_iter().map(|recharge| DayLine::of(&recharge));
    let (kind, text) = if is_csv { ("text/csv", csv(lines)) } else { ("application/x-ndjson", json_lines(lines)) };
    Ok(([(CONTENT_TYPE, kind)], text).into_response())
}

fn of_day(text: &str) -> Option<Span> {
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    let begins = |day: NaiveDate| day.and_time(NaiveTime::MIN).and_utc();
    Some(Span { from: begins(day), until: begins(day.succ_opt()?) })
}

/// No field needs quotes but a reference, which a caller may have made of anything.
fn csv(lines: impl Iterator<Item = DayLine>) -> String {
    let mut text = format!("{COLUMNS}\n");
    for line in lines {
        let reference = line.client_ref.replace('"', "\"\"");
        let amount = line.amount_minor.map(|minor| minor.to_string()).unwrap_or_default();
        let currency = line.currency.map(|currency| currency.to_string()).unwrap_or_default();
        let at = line.at.to_rfc3339();
        // Writing to a string cannot fail.
        writeln!(text, "\"{reference}\",{},{amount},{currency},{at},{}", line.state, line.provider_ref)
            .unwrap_or_default();
    }
    text
}

fn json_lines(lines: impl Iterator<Item = DayLine>) -> String {
    let mut bytes = Vec::new();
    for line in lines {
        // Plain structures, to memory: this cannot fail.
        if line.serialize(&mut serde_json::Serializer::new(&mut bytes)).is_ok() {
            bytes.push(b'\n');
        }
    }
    String::from_utf8(bytes).unwrap_or_default()
}
