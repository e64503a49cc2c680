//! The log: to stderr, as JSON lines or for people.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level cannot be read; a checked configuration has no such level.
    #[error("log.level is no level: give error, warn, info, debug or trace")]
    Level(#[source] tracing_subscriber::filter::ParseError),
    /// Something else in this process logs already.
    #[error("the log of this process is already set up")]
    Taken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Sets up the log of this process.
pub fn init(log: &LogConfig) -> Result<(), TelemetryError> {
    let filter = EnvFilter::builder().parse(&log.level).map_err(TelemetryError::Level)?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match log.format {
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).try_init(),
        LogFormat::Pretty => lines.compact().with_ansi(colour_on_stderr()).try_init(),
    }
    .map_err(TelemetryError::Taken)
}

fn colour_on_stderr() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && std::io::stderr().is_terminal()
}
