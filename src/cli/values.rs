//! Values on the command line.

use std::time::Duration;

use crate::config::Span;
use crate::domain::{OrderId, State};

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
