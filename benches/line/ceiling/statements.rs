//! The store's own statements, taken from its source, so that the ceiling cannot drift from them.

use std::sync::LazyLock;

use anyhow::{Result, ensure};

const ORDERS: &str = include_str!("../../../src/store/postgres/orders.rs");
const LOG: &str = include_str!("../../../src/store/postgres/log.rs");

/// Rows and log entries of new orders.
pub(super) static INSERT: LazyLock<&'static str> = LazyLock::new(|| of_function(ORDERS, "fn insert(columns"));
/// Rows that move on, and their log entries.
pub(super) static APPLY: LazyLock<&'static str> = LazyLock::new(|| of_function(ORDERS, "fn apply(columns"));
/// A page of the log.
pub(super) static READ: LazyLock<&'static str> = LazyLock::new(|| of_function(LOG, "async fn read(on"));
/// The relay's cursor.
pub(super) static ADVANCE: LazyLock<&'static str> = LazyLock::new(|| of_function(LOG, "async fn advance(on"));

/// Refuses statements whose parameters are not those that this program sends.
pub(super) fn check() -> Result<()> {
    for (name, statement, parameters) in
        [("insert", *INSERT, 34), ("apply", *APPLY, 30), ("read", *READ, 4), ("advance", *ADVANCE, 4)]
    {
        ensure!(
            statement.contains(&format!("${parameters}")) && !statement.contains(&format!("${}", parameters + 1)),
            "the store's statement `{name}` no longer has {parameters} parameters: benches/line/ceiling must follow it"
        );
    }
    Ok(())
}

/// The first raw string after `signature`; empty if there is none, which `check` refuses.
fn of_function(source: &'static str, signature: &str) -> &'static str {
    let inner = || {
        let (_, body) = source.split_once(signature)?;
        let (_, text) = body.split_once("r#\"")?;
        Some(text.split_once("\"#")?.0)
    };
    inner().unwrap_or_default()
}
