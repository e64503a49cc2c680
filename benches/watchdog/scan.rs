//! What a look costs when nothing is due: the watchdog's own statement, taken from the store's source when
//! this is compiled, explained with its buffers.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use serde_json::Value;
use sqlx::Row as _;

use crate::common::lateness::median;
use crate::common::scratch::Scratch;

const SOURCE: &str = include_str!("../../src/store/postgres/deadlines.rs");
/// As the watchdog asks.
const BATCH_MAX: u32 = 500;

/// One kind of look: medians.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Look {
    pub(crate) what: &'static str,
    pub(crate) millis: f64,
    pub(crate) buffers: f64,
    /// Of these, not in the server's memory.
    pub(crate) read: f64,
    /// Closed orders that it passed over.
    pub(crate) passed_over: f64,
    /// The steps of its plan.
    pub(crate) plan: String,
}

/// What looks cost with so many closed orders.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Quiet {
    pub(crate) closed: i64,
    pub(crate) looks: Vec<Look>,
    pub(crate) table_mib: f64,
    pub(crate) bytes_per_order: f64,
    pub(crate) fill_seconds: f64,
}

/// The looks of the watchdog: from where, to where, how many.
const KINDS: [(&str, &str, &str, u32); 3] = [
    ("what came due in the last second", "interval '-1 second'", "interval '0'", BATCH_MAX),
    ("everything from the mark on (6 s)", "interval '-6 seconds'", "interval '0'", BATCH_MAX),
    ("the next deadline", "interval '0'", "interval '1 second'", 1),
];

pub(crate) async fn look(scratch: &Scratch, closed: i64, times: usize, filled: Duration) -> Result<Quiet> {
    let statement = statement()?;
    let mut looks = Vec::new();
    for (what, from, to, limit) in KINDS {
        let (mut seen, mut steps) = (Vec::<[f64; 4]>::new(), String::new());
        // The first warms the caches, as the looks before it do.
        for _ in 0..=times {
            let filled_in = statement
                .replace("$1", &format!("(now() + {from})"))
                .replace("$2", &format!("(now() + {to})"))
                .replace("$3", "''")
                .replace("$4", &limit.to_string());
            let rows = scratch.rows(&format!("explain (analyze, buffers, format json) {filled_in}")).await?;
            let plan: Value = rows.first().context("a plan")?.try_get(0)?;
            let whole = plan.get(0).context("a plan")?;
            let root = whole.get("Plan").context("a plan")?;
            let number = |of: &Value, name: &str| of.get(name).and_then(Value::as_f64).unwrap_or(0.0);
            let (hit, read) = (number(root, "Shared Hit Blocks"), number(root, "Shared Read Blocks"));
            let millis = number(whole, "Execution Time") + number(whole, "Planning Time");
            steps = steps_of(root);
            seen.push([millis, hit + read, read, passed_over(root)]);
        }
        let middle = |index: usize| {
            let figures = seen.iter().skip(1).filter_map(|one| one.get(index).copied());
            median(figures.collect()).unwrap_or(f64::NAN)
        };
        looks.push(Look {
            what,
            millis: middle(0),
            buffers: middle(1),
            read: middle(2),
            passed_over: middle(3),
            plan: steps,
        });
    }
    let size =
        scratch.rows("select pg_total_relation_size('orders')::float8, (select count(*) from orders)::float8").await?;
    let size = size.first().context("the size")?;
    let (bytes, rows): (f64, f64) = (size.try_get(0)?, size.try_get(1)?);
    Ok(Quiet {
        closed,
        looks,
        table_mib: bytes / f64::from(1 << 20),
        bytes_per_order: bytes / rows.max(1.0),
        fill_seconds: filled.as_secs_f64(),
    })
}

fn steps_of(plan: &Value) -> String {
    let own = plan.get("Node Type").and_then(Value::as_str).unwrap_or_default();
    let below = plan.get("Plans").and_then(Value::as_array).into_iter().flatten().map(steps_of);
    std::iter::once(own.to_owned()).chain(below).collect::<Vec<_>>().join(", ")
}

/// Rows that a filter removed, in the whole plan.
fn passed_over(plan: &Value) -> f64 {
    let own = plan.get("Rows Removed by Filter").and_then(Value::as_f64).unwrap_or(0.0);
    let below = plan.get("Plans").and_then(Value::as_array).into_iter().flatten().map(passed_over);
    own + below.sum::<f64>()
}

fn statement() -> Result<&'static str> {
    let inner = || {
        let (_, body) = SOURCE.split_once("async fn undecided(\n    on: &mut PgConnection")?;
        let (_, text) = body.split_once("r#\"")?;
        Some(text.split_once("\"#")?.0)
    };
    let statement = inner().unwrap_or_default();
    ensure!(
        statement.contains("$4") && !statement.contains("$5"),
        "the store's statement `undecided` no longer has 4 parameters: benches/watchdog must follow it"
    );
    Ok(statement)
}
