//! Times, and what is told of them.

use std::time::Duration;

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use serde::Serialize;

/// In milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

/// Times in microseconds; below zero counts as zero, and is told by [`Lateness::least`].
#[derive(Clone)]
pub(crate) struct Lateness {
    times: Histogram<u64>,
    least: i64,
}

impl Lateness {
    pub(crate) fn new() -> Result<Self> {
        let times = Histogram::new_with_bounds(1, 600_000_000, 3).context("a histogram")?;
        Ok(Self { times, least: i64::MAX })
    }

    pub(crate) fn note(&mut self, micros: i64) {
        self.least = self.least.min(micros);
        self.times.saturating_record(u64::try_from(micros).unwrap_or(0));
    }

    pub(crate) fn len(&self) -> u64 {
        self.times.len()
    }

    /// The least of all, in milliseconds; below zero is early.
    pub(crate) fn least(&self) -> f64 {
        let micros = if self.times.is_empty() { 0 } else { self.least };
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let millis = micros as f64 / 1e3;
        millis
    }

    /// How many took longer than this.
    pub(crate) fn above(&self, millis: u64) -> u64 {
        self.times.len() - self.times.count_between(0, millis * 1000)
    }

    pub(crate) fn percentiles(&self) -> Percentiles {
        let at = |quantile| Duration::from_micros(self.times.value_at_quantile(quantile)).as_secs_f64() * 1e3;
        Percentiles {
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: Duration::from_micros(self.times.max()).as_secs_f64() * 1e3,
        }
    }
}

/// A whole number, rounded down.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count, never negative")]
pub(crate) fn whole(number: f64) -> usize {
    number as usize
}

/// The middle one, or the mean of the two in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    values.get(values.len() / 2 - 1).map(|lower| f64::midpoint(*lower, upper))
}
