//! Results to stdout, everything else to stderr, and what the exit code says.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

use crate::config::ConfigProblem;

/// What an exit code says (`sysexits.h` where it has a word for it).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed while running.
    Failed = 1,
    /// Wrong usage.
    Usage = 2,
    /// A needed service could not be reached.
    Unreachable = 69,
    /// Bad configuration.
    Config = 78,
}

/// Why a command ends without its result. Each line of the message says what is wrong, where it
/// stands, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CliError {
    /// The exit code.
    pub exit: Exit,
    /// For stderr; nothing is printed where it is empty.
    pub message: String,
}

impl CliError {
    /// Failed while running.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, message: message.into() }
    }

    /// Wrong usage.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into() }
    }

    /// A needed service could not be reached.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self { exit: Exit::Unreachable, message: message.into() }
    }

    /// Bad configuration.
    pub fn config(message: impl Into<String>) -> Self {
        Self { exit: Exit::Config, message: message.into() }
    }

    /// The result was already given; only the exit code is left to say.
    pub fn silent(exit: Exit) -> Self {
        Self { exit, message: String::new() }
    }
}

impl From<Vec<ConfigProblem>> for CliError {
    fn from(problems: Vec<ConfigProblem>) -> Self {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Self::config(lines.join("\n"))
    }
}

impl From<crate::probes::ProbeError> for CliError {
    fn from(error: crate::probes::ProbeError) -> Self {
        use crate::probes::ProbeError;
        match error {
            ProbeError::Bind { .. } => Self::config(error.to_string()),
            ProbeError::Serve(_) => Self::failed(error.to_string()),
        }
    }
}

/// A reader that went away (`recharged orders export | head`) has what it wanted.
impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::silent(Exit::Done)
        } else {
            Self::failed(format!("stdout: cannot write ({error}): redirect it to where there is room"))
        }
    }
}

/// A field of CSV that is not ours: what a spreadsheet would take for a formula, or for two fields, stays a text.
pub(super) fn csv_text(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    let is_plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'#'));
    if is_plain && !text.starts_with('-') { text } else { format!("\"'{}\"", text.replace('"', "\"\"")) }
}

/// How this invocation talks.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// For programs: JSON, or JSON Lines for lists.
    pub json: bool,
    /// Colours are wanted on stdout.
    pub colour: bool,
    /// A person watches stderr: live views and progress that overwrites itself are wanted.
    pub live: bool,
}

impl Output {
    /// Looks at the terminal and at `NO_COLOR`.
    pub fn detect(json: bool) -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            json,
            colour: !json && !no_colour && io::stdout().is_terminal(),
            live: !json && !no_colour && io::stderr().is_terminal(),
        }
    }

    /// A result: one object for programs, its text for people.
    pub fn result<T: Serialize + Display>(&self, result: &T) -> Result<(), CliError> {
        if self.json { self.object(result) } else { self.line(result) }
    }

    /// One line of JSON: an entry of a list, or the whole result.
    pub fn object<T: Serialize>(&self, object: &T) -> Result<(), CliError> {
        let mut line = serde_json::to_vec(object)
            .map_err(|error| CliError::failed(format!("the result cannot be written as JSON ({error})")))?;
        line.push(b'\n');
        Ok(io::stdout().lock().write_all(&line)?)
    }

    /// A line for people.
    pub fn line(&self, text: impl Display) -> Result<(), CliError> {
        Ok(writeln!(io::stdout().lock(), "{text}")?)
    }

    /// How it goes, on stderr; nothing for programs.
    pub fn progress(&self, text: impl Display) {
        if !self.json {
            complain(text);
        }
    }
}

/// Writes a line to stderr. Where even that is impossible there is nobody left to tell.
pub(super) fn complain(text: impl Display) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}
