//! File, environment and `--set`, one over the other, with the source of each value.

use std::path::Path;

use serde::Deserialize as _;
use toml::de::{DeTable, DeValue};

use super::Config;
use super::problem::{ConfigProblem, Source, Sources};
use super::shape::{Kind, Shape, join};

const ENV_PREFIX: &str = "RECHARGED__";

/// The layers so far.
#[derive(Debug, Default)]
pub(super) struct Layers {
    values: toml::Table,
    sources: Sources,
    problems: Vec<ConfigProblem>,
}

/// Where a text of the environment or of `--set` goes.
struct Target {
    path: Vec<String>,
    shape: Shape,
}

impl Layers {
    /// The file.
    pub(super) fn add_file(&mut self, path: &Path) {
        let shown = path.display().to_string();
        self.sources.file = Some(shown.clone());
        let whole = Source::File { path: shown.clone(), line: None };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                let message = format!("cannot be read ({error}): name a TOML file with --config");
                return self.problems.push(ConfigProblem::new(&whole, "", message));
            }
        };
        self.add_toml(shown, &text);
    }

    /// The text of the file, which messages call `shown`.
    pub(super) fn add_toml(&mut self, shown: String, text: &str) {
        let parsed = DeTable::parse(text).and_then(|table| {
            let mut lines = Vec::new();
            note_lines(table.get_ref(), "", &mut lines);
            let values = toml::Table::deserialize(toml::Deserializer::from(table))?;
            Ok((values, lines))
        });
        match parsed {
            Ok((values, lines)) => {
                self.values = values;
                for (key, at) in lines {
                    let source = Source::File { path: shown.clone(), line: Some(line_of(text, at)) };
                    self.sources.leaves.insert(key, source);
                }
            }
            Err(error) => {
                let line = error.span().map(|span| line_of(text, span.start));
                // Only the message: an excerpt of the line could hold a secret.
                let message = format!("is not TOML: {}", error.message().replace('\n', ", "));
                self.problems.push(ConfigProblem::new(&Source::File { path: shown, line }, "", message));
            }
        }
    }

    /// The environment: `RECHARGED__KAFKA__BROKERS` is `kafka.brokers`.
    pub(super) fn add_env(&mut self, env: impl IntoIterator<Item = (String, String)>) {
        let mut ours: Vec<(String, String)> =
            env.into_iter().filter(|(name, _)| name.starts_with(ENV_PREFIX)).collect();
        ours.sort();
        for (name, text) in ours {
            let segments: Vec<String> =
                name.trim_start_matches(ENV_PREFIX).split("__").map(str::to_ascii_lowercase).collect();
            self.add_text(&segments, &text, &Source::Env(name), true);
        }
    }

    /// `--set key=value`, in order.
    pub(super) fn add_sets(&mut self, sets: &[String]) {
        for set in sets {
            let Some((key, text)) = set.split_once('=') else {
                let message = "has no value: write key=value, such as --set sla.deadline=120s";
                self.problems.push(ConfigProblem::new(&Source::Set, set.as_str(), message));
                continue;
            };
            let segments: Vec<String> = key.trim().replace('"', "").split('.').map(str::to_owned).collect();
            self.add_text(&segments, text.trim(), &Source::Set, false);
        }
    }

    fn add_text(&mut self, segments: &[String], text: &str, source: &Source, from_env: bool) {
        match self.find(segments, from_env) {
            Ok(target) => {
                let value = target.shape.read_text(text);
                self.put(&target.path, value, source);
            }
            Err((key, message)) => self.problems.push(ConfigProblem::new(source, key, message)),
        }
    }

    fn find(&self, segments: &[String], from_env: bool) -> Result<Target, (String, String)> {
        let mut shape = Shape::root();
        let mut path: Vec<String> = Vec::new();
        let mut table = Some(&self.values);
        for (index, segment) in segments.iter().enumerate() {
            let mut name = segment.clone();
            if let Kind::Map(values) = shape.kind() {
                if matches!(values.kind(), Kind::Text) {
                    let rest = segments.get(index..).unwrap_or_default().join(".");
                    // A variable's name cannot hold the dots of librdkafka's settings.
                    path.push(if from_env { rest.replace('_', ".") } else { rest });
                    return Ok(Target { path, shape: values });
                }
                if from_env {
                    // Nor the hyphen of a lane's name.
                    let known = table.and_then(|table| table.keys().find(|key| key.replace('-', "_") == *segment));
                    name.clone_from(known.unwrap_or(segment));
                }
            }
            path.push(name.clone());
            shape = shape.below(&name).map_err(|message| (path.join("."), message))?;
            table = table.and_then(|table| table.get(&name)).and_then(toml::Value::as_table);
        }
        Ok(Target { path, shape })
    }

    fn put(&mut self, path: &[String], value: toml::Value, source: &Source) {
        let key = path.join(".");
        let below = [format!("{key}."), format!("{key}[")];
        self.sources.leaves.retain(|leaf, _| *leaf != key && !below.iter().any(|prefix| leaf.starts_with(prefix)));
        note_source(&value, &key, source, &mut self.sources);
        let Some((last, sections)) = path.split_last() else { return };
        let mut table = &mut self.values;
        for section in sections {
            let entry = table.entry(section.clone()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            if !entry.is_table() {
                *entry = toml::Value::Table(toml::Table::new());
            }
            let Some(below) = entry.as_table_mut() else { return };
            table = below;
        }
        table.insert(last.clone(), value);
    }

    /// The configuration, or everything that is wrong with its keys and values.
    pub(super) fn finish(mut self) -> Result<(Config, Sources), Vec<ConfigProblem>> {
        let mut findings = Vec::new();
        let settled = Shape::root().settle(toml::Value::Table(self.values), "", &mut findings);
        self.problems.extend(self.sources.place(findings));
        if !self.problems.is_empty() {
            self.problems.sort_by(|one, other| one.order().cmp(&other.order()));
            return Err(self.problems);
        }
        match Config::deserialize(settled) {
            Ok(config) => Ok((config, self.sources)),
            Err(error) => {
                let whole = self.sources.file.map_or(Source::Default, |path| Source::File { path, line: None });
                Err(vec![ConfigProblem::new(&whole, "", error.message().replace('\n', ", "))])
            }
        }
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.get(..at).map_or(1, |before| before.matches('\n').count() + 1)
}

/// Notes where each value of the file stands, lists with their entries.
fn note_lines(table: &DeTable<'_>, above: &str, lines: &mut Vec<(String, usize)>) {
    for (name, value) in table {
        let key = join(above, name.get_ref());
        note_value(value.get_ref(), &key, name.span().start, lines);
    }
}

fn note_value(value: &DeValue<'_>, key: &str, at: usize, lines: &mut Vec<(String, usize)>) {
    match value {
        DeValue::Table(below) => {
            if below.is_empty() {
                lines.push((key.to_owned(), at));
            }
            note_lines(below, key, lines);
        }
        DeValue::Array(entries) => {
            lines.push((key.to_owned(), at));
            for (index, entry) in entries.iter().enumerate() {
                note_value(entry.get_ref(), &format!("{key}[{index}]"), entry.span().start, lines);
            }
        }
        DeValue::String(_) | DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {
            lines.push((key.to_owned(), at));
        }
    }
}

fn note_source(value: &toml::Value, key: &str, source: &Source, sources: &mut Sources) {
    if let Some(below) = value.as_table() {
        for (name, value) in below {
            note_source(value, &join(key, name), source, sources);
        }
    } else {
        drop(sources.leaves.insert(key.to_owned(), source.clone()));
    }
}
