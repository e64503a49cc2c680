//! Values on the command line.

use std::time::Duration;

use crate::config::Span;
use crate::domain::inbound::DeadLetterReason;
use crate::domain::{CaseKind, OrderId, State};

/// `180s`, `30m`; not zero.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let parsed = Span::parse(text).map(Span::get).filter(|duration| !duration.is_zero());
    parsed.ok_or_else(|| "give a duration with its unit, such as 180s or 30m".to_owned())
}

/// A rate above zero.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    let parsed = text.parse::<f64>().ok().filter(|rate| rate.is_finite() && *rate > 0.0 && *rate <= 1_000_000.0);
    parsed.ok_or_else(|| "give a number above 0, at most a million".to_owned())
}

pub(super) fn state(text: &str) -> Result<State, String> {
    let known = || State::ALL.iter().map(|state| state.as_str()).collect::<Vec<_>>().join(", ");
    State::parse(text).ok_or_else(|| format!("give one of {}", known()))
}

pub(super) fn order_id(text: &str) -> Result<OrderId, String> {
    OrderId::parse(text).map_err(|error| error.to_string())
}

pub(super) fn case_kind(text: &str) -> Result<CaseKind, String> {
    let known = || CaseKind::ALL.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", ");
    CaseKind::parse(text).ok_or_else(|| format!("give one of {}", known()))
}

pub(super) fn dead_letter_reason(text: &str) -> Result<DeadLetterReason, String> {
    let known = || DeadLetterReason::ALL.iter().map(|reason| reason.as_str()).collect::<Vec<_>>().join(", ");
    DeadLetterReason::parse(text).ok_or_else(|| format!("give one of {}", known()))
}

/// Why nothing is done with something.
pub(super) fn why(text: &str) -> Result<String, String> {
    said(text, 1_000, "say why, in at most 1000 characters")
}

/// A name, as it will stand beside a decision.
pub(super) fn name(text: &str) -> Result<String, String> {
    said(text, 64, "say who decides: a name of at most 64 characters")
}

/// What a decision rests on.
pub(super) fn evidence(text: &str) -> Result<String, String> {
    said(text, 1_000, "say what was seen and where, in at most 1000 characters")
}

fn said(text: &str, longest: usize, otherwise: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > longest || text.chars().any(char::is_control) {
        return Err(otherwise.to_owned());
    }
    Ok(text.to_owned())
}
