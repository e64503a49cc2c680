//! The line with its watchdog and without, in turns.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::common::child::Subject;
use crate::common::lateness::median;
use crate::common::round::{self, Sample};
use crate::progress;

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Presence {
    /// What it takes from the orders a second: the median of the rounds' shares.
    pub(crate) cost_percent: f64,
    pub(crate) with_per_second: f64,
    pub(crate) without_per_second: f64,
    pub(crate) costs_percent: Vec<f64>,
    pub(crate) samples: Vec<Sample>,
}

pub(crate) async fn run(orders: usize, rounds: usize) -> Result<Presence> {
    let with = Subject::service(Duration::ZERO);
    let without = Subject { watchdog: false, ..with };
    progress("warming up the servers");
    round::run(with, orders.min(50_000), None).await?;
    let (mut samples, mut costs) = (Vec::new(), Vec::new());
    for number in 1..=rounds {
        // Whoever is first finds the servers otherwise than the second: so each is, in turn.
        let (first, second) = if number % 2 == 1 { (without, with) } else { (with, without) };
        let (one, other) = (round::run(first, orders, None).await?, round::run(second, orders, None).await?);
        let (a, b) = if one.watchdog { (&one, &other) } else { (&other, &one) };
        let cost = 100.0 * (1.0 - a.orders_per_second / b.orders_per_second);
        progress(&format!(
            "round {number} of {rounds}: {:.0}/s with, {:.0}/s without: {cost:.1} %",
            a.orders_per_second, b.orders_per_second
        ));
        costs.push(cost);
        samples.extend([one, other]);
    }
    let middle = |watchdog: bool| {
        let of = samples.iter().filter(|sample| sample.watchdog == watchdog).map(|sample| sample.orders_per_second);
        median(of.collect()).unwrap_or(f64::NAN)
    };
    Ok(Presence {
        cost_percent: median(costs.clone()).unwrap_or(f64::NAN),
        with_per_second: middle(true),
        without_per_second: middle(false),
        costs_percent: costs,
        samples,
    })
}
