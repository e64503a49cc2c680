//! The log: to standard error, as JSON for machines or in colour for people.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLook {
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}

/// Starts the log. `level` is a level (`info`) or a filter (`info,recharged::roles=debug`).
/// `false` if a log was started before, which a test may have done.
pub fn start(look: LogLook, level: &str) -> Result<bool, String> {
    let filter = EnvFilter::try_new(level).map_err(|error| error.to_string())?;
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_span_events(FmtSpan::NONE);
    let started = match look {
        LogLook::Json => builder.json().flatten_event(true).try_init(),
        LogLook::Pretty => {
            let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            builder.with_ansi(colours).try_init()
        }
    };
    Ok(started.is_ok())
}
