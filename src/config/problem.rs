//! What is wrong with a configuration, and where it stands.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The file, at a line.
    File {
        /// Its path as given.
        path: String,
        /// Counted from 1; `None` where the reader could not tell.
        line: Option<usize>,
    },
    /// An environment variable.
    Env(String),
    /// `--set`.
    Set,
    /// Built in.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: Some(line) } => write!(f, "{path}:{line}"),
            Self::File { path, line: None } => f.write_str(path),
            Self::Env(name) => write!(f, "environment {name}"),
            Self::Set => f.write_str("--set"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One thing that is wrong: one line that names the place, the key, what is wrong and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{source_of_value}: {}{message}", Key(key))]
pub struct ConfigProblem {
    source_of_value: Source,
    key: String,
    message: String,
}

struct Key<'a>(&'a str);

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "{}: ", self.0) }
    }
}

impl ConfigProblem {
    pub(super) fn new(source: &Source, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { source_of_value: source.clone(), key: key.into(), message: message.into() }
    }

    /// The key, dotted.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// File and line, variable or flag.
    pub fn place(&self) -> String {
        self.source_of_value.to_string()
    }

    /// Files by line, then variables, then flags: the order in which people look.
    pub(super) fn order(&self) -> (&Source, &str) {
        (&self.source_of_value, &self.key)
    }

    /// What is wrong, and what would be right.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl Serialize for ConfigProblem {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut object = serializer.serialize_struct("ConfigProblem", 3)?;
        object.serialize_field("place", &self.source_of_value.to_string())?;
        object.serialize_field("key", &self.key)?;
        object.serialize_field("message", &self.message)?;
        object.end()
    }
}

/// A problem before its place is known: the key and the rest of the sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) key: String,
    pub(super) message: String,
}

/// Where each leaf of the merged layers came from, by dotted key.
#[derive(Debug, Clone, Default)]
pub(super) struct Sources {
    /// The file as a whole, for keys that stand in no layer.
    pub(super) file: Option<String>,
    pub(super) leaves: BTreeMap<String, Source>,
}

impl Sources {
    /// The source of a key: its own, that of the nearest key above it, or of anything below it.
    pub(super) fn of(&self, key: &str) -> Source {
        let mut above = Some(key);
        while let Some(at) = above {
            if let Some(source) = self.leaves.get(at) {
                return source.clone();
            }
            above = at.rfind(['.', '[']).and_then(|end| at.get(..end));
        }
        Source::Default
    }

    /// The source of a key that has values below it, such as a whole section.
    fn of_section(&self, key: &str) -> Option<Source> {
        let within = format!("{key}.");
        self.leaves.range(within.clone()..).next().filter(|(leaf, _)| leaf.starts_with(&within)).map(|(_, s)| s.clone())
    }

    /// Turns findings into problems with a place.
    pub(super) fn place(&self, findings: Vec<Finding>) -> Vec<ConfigProblem> {
        let mut problems: Vec<ConfigProblem> = findings
            .into_iter()
            .map(|Finding { key, message }| {
                let whole = || self.file.clone().map(|path| Source::File { path, line: None });
                let own = Some(self.of(&key)).filter(|source| *source != Source::Default);
                let source = own.or_else(|| self.of_section(&key)).or_else(whole).unwrap_or(Source::Default);
                ConfigProblem::new(&source, key, message)
            })
            .collect();
        problems.sort_by(|one, other| one.order().cmp(&other.order()));
        problems
    }
}
