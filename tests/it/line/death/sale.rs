//! What is sold: half of it only the healthy provider has, a third both, and the rest only the one that dies.

use std::time::{Duration, Instant};

use recharged::clock::SystemClock;
use recharged::domain::Timestamp;
use recharged::ports::OutRecord;
use serde_json::json;

use super::plan::Plan;
use crate::harness::Line;
use crate::line::support::changed;

/// Between two looks at the pace.
const TICK: Duration = Duration::from_millis(50);

/// Who can serve an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Healthy,
    Either,
    Sick,
}

impl Class {
    /// Of twenty orders ten, seven and three, evenly mixed.
    fn of(number: u64) -> Self {
        match number * 7 % 20 {
            0..10 => Self::Healthy,
            10..17 => Self::Either,
            _ => Self::Sick,
        }
    }

    /// What it costs: each amount has its sellers.
    pub(super) fn amount(self) -> i64 {
        match self {
            Self::Healthy => 3_000,
            Self::Either => 5_000,
            Self::Sick => 7_000,
        }
    }

    /// By an order's id.
    pub(super) fn read(id: &str) -> Self {
        match id.as_bytes()[0] {
            b'h' => Self::Healthy,
            b'e' => Self::Either,
            _ => Self::Sick,
        }
    }
}

fn order(line: &Line, plan: &Plan, number: u64, began: Timestamp) -> OutRecord {
    let class = Class::of(number);
    // A quarter of what only the sick one has comes when most of its time is over.
    let is_hurried = class == Class::Sick && (number / 20).is_multiple_of(4);
    let letter = match class {
        Class::Healthy => "h",
        Class::Either => "e",
        Class::Sick if is_hurried => "q",
        Class::Sick => "s",
    };
    let id = format!("{letter}-{number}");
    // When it should have been sent: a slow line cannot hide its own delay.
    let due = began + Duration::from_secs_f64(number as f64 / plan.per_second);
    let at = if is_hurried { due - (plan.deadline - plan.hurried) } else { due }.to_rfc3339();
    line.record(&id, &changed(&id, &json!({ "amount_minor": class.amount(), "created_at": at, "paid_at": at })))
}

/// Sells everything at its pace.
pub(super) async fn sell(line: &Line, plan: &Plan) {
    let (began, clock) = (SystemClock::local(), Instant::now());
    let mut sent = 0;
    while sent < plan.orders {
        let due = (clock.elapsed().as_secs_f64() * plan.per_second) as u64;
        let due = due.min(plan.orders);
        line.write((sent..due).map(|number| order(line, plan, number, began)).collect()).await;
        sent = due;
        tokio::time::sleep(TICK).await;
    }
}
