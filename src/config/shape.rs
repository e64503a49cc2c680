//! The shape of the configuration, as the JSON Schema of its types says it: what keys exist,
//! what each takes, and what a text from the environment means for one.

use std::sync::LazyLock;

use serde_json::Value as Json;

use super::Config;
use super::problem::Finding;
use super::types::{DURATION_FORMAT, LISTEN_FORMAT, Span};

/// The schema with every reference resolved, so that a walk needs no look-ups.
static ROOT: LazyLock<Json> = LazyLock::new(|| {
    let settings =
        schemars::generate::SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<Config>().to_value()
});

/// One place in the schema.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape(&'static Json);

/// What a place takes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// Known keys.
    Section(&'static serde_json::Map<String, Json>),
    /// Keys of the operator's choice.
    Map(Shape),
    /// Values of one shape.
    List(Shape),
    /// One of a few texts.
    Choice(&'static Json),
    /// A duration.
    Duration,
    /// An address to listen on.
    Listen,
    /// Any other text.
    Text,
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// Yes or no.
    Bool,
}

impl Shape {
    /// The whole file.
    pub(super) fn root() -> Self {
        Self(&ROOT)
    }

    fn get(self, key: &str) -> Option<&'static Json> {
        self.0.get(key)
    }

    fn has_type(self, name: &str) -> bool {
        match self.get("type") {
            Some(Json::String(one)) => one == name,
            Some(Json::Array(many)) => many.iter().any(|one| one == name),
            _ => false,
        }
    }

    /// What stands here, seen through "or nothing".
    pub(super) fn kind(self) -> Kind {
        if let Some(Json::Array(variants)) = self.get("anyOf") {
            let some = variants.iter().map(Shape).find(|shape| !shape.has_type("null"));
            return some.map_or(Kind::Text, Shape::kind);
        }
        if let Some(choices) = self.get("oneOf").or_else(|| self.get("enum")) {
            return Kind::Choice(choices);
        }
        if self.has_type("object") {
            if let Some(Json::Object(keys)) = self.get("properties") {
                return Kind::Section(keys);
            }
            return self.get("additionalProperties").map_or(Kind::Text, |values| Kind::Map(Shape(values)));
        }
        if self.has_type("array") {
            return self.get("items").map_or(Kind::Text, |items| Kind::List(Shape(items)));
        }
        if self.has_type("integer") {
            return Kind::Integer;
        }
        if self.has_type("number") {
            return Kind::Number;
        }
        if self.has_type("boolean") {
            return Kind::Bool;
        }
        match self.get("format").and_then(Json::as_str) {
            Some(DURATION_FORMAT) => Kind::Duration,
            Some(LISTEN_FORMAT) => Kind::Listen,
            _ => Kind::Text,
        }
    }

    /// The shape below a key, or the sentence about a key that does not exist.
    pub(super) fn below(self, key: &str) -> Result<Self, String> {
        match self.kind() {
            Kind::Section(keys) => keys.get(key).map(Shape).ok_or_else(|| unknown_key(key, keys)),
            Kind::Map(values) => Ok(values),
            Kind::List(_)
            | Kind::Choice(_)
            | Kind::Duration
            | Kind::Listen
            | Kind::Text
            | Kind::Integer
            | Kind::Number
            | Kind::Bool => Err(format!("this is {}, so there is no key {key:?} below it", self.expected())),
        }
    }

    /// What would be right here, for a sentence.
    pub(super) fn expected(self) -> String {
        match self.kind() {
            Kind::Section(_) | Kind::Map(_) => "a table".to_owned(),
            Kind::List(items) => format!("a list, each entry {}", items.expected()),
            Kind::Choice(choices) => {
                let texts: Vec<String> = texts(choices).map(|text| format!("{text:?}")).collect();
                format!("one of {}", texts.join(", "))
            }
            Kind::Duration => "a duration with its unit, such as \"180s\" or \"30m\", of 100 years at most".to_owned(),
            Kind::Listen => "an address and a port, such as \"127.0.0.1:9400\"".to_owned(),
            Kind::Text => "a text in quotes".to_owned(),
            Kind::Integer => match self.range() {
                (Some(least), Some(most)) => format!("a whole number from {least} to {most}"),
                (Some(least), None) => format!("a whole number of at least {least}"),
                (None, _) => "a whole number".to_owned(),
            },
            Kind::Number => "a number".to_owned(),
            Kind::Bool => "true or false".to_owned(),
        }
    }

    fn range(self) -> (Option<i64>, Option<i64>) {
        let most = match self.get("format").and_then(Json::as_str) {
            Some("uint8") => Some(i64::from(u8::MAX)),
            Some("uint16") => Some(i64::from(u16::MAX)),
            Some("uint32") => Some(i64::from(u32::MAX)),
            _ => None,
        };
        (self.get("minimum").and_then(Json::as_i64), most)
    }

    /// What a text from the environment or `--set` means here.
    pub(super) fn read_text(self, text: &str) -> toml::Value {
        match self.kind() {
            Kind::Choice(_) | Kind::Duration | Kind::Listen | Kind::Text => toml::Value::String(text.to_owned()),
            Kind::List(items) if !text.trim_start().starts_with('[') => toml::Value::Array(
                text.split(',')
                    .map(str::trim)
                    .filter(|part| !part.is_empty())
                    .map(|part| items.read_text(part))
                    .collect(),
            ),
            Kind::Section(_) | Kind::Map(_) | Kind::List(_) | Kind::Integer | Kind::Number | Kind::Bool => {
                let parsed = toml::from_str::<toml::Table>(&format!("value = {text}")).ok();
                let value = parsed.filter(|table| table.len() == 1).and_then(|mut table| table.remove("value"));
                value.unwrap_or_else(|| toml::Value::String(text.to_owned()))
            }
        }
    }

    /// Takes a value in the one form that the types read, and notes everything that does not fit.
    pub(super) fn settle(self, value: toml::Value, key: &str, findings: &mut Vec<Finding>) -> toml::Value {
        use toml::Value;
        match (self.kind(), value) {
            (Kind::Section(keys), Value::Table(table)) => self.settle_section(keys, table, key, findings),
            (Kind::Map(values), Value::Table(table)) if matches!(values.kind(), Kind::Text) => {
                Value::Table(flatten(table, key, findings))
            }
            (Kind::Map(values), Value::Table(table)) => {
                let settled = table.into_iter().map(|(name, value)| {
                    let below = join(key, &name);
                    (name, values.settle(value, &below, findings))
                });
                Value::Table(settled.collect())
            }
            (Kind::List(items), Value::Array(list)) => Value::Array(
                list.into_iter()
                    .enumerate()
                    .map(|(index, value)| items.settle(value, &format!("{key}[{index}]"), findings))
                    .collect(),
            ),
            (Kind::Choice(choices), Value::String(text)) => {
                // librdkafka and Java write the same names in different cases.
                match texts(choices).find(|choice| choice.eq_ignore_ascii_case(&text)) {
                    Some(choice) => Value::String(choice.to_owned()),
                    None => self.refuse(Value::String(text), key, findings),
                }
            }
            (Kind::Duration, Value::String(text)) if Span::parse(&text).is_some() => Value::String(text),
            (Kind::Listen, Value::String(text)) if text.parse::<std::net::SocketAddr>().is_ok() => Value::String(text),
            (Kind::Text, value @ Value::String(_))
            | (Kind::Bool, value @ Value::Boolean(_))
            | (Kind::Number, value @ (Value::Integer(_) | Value::Float(_))) => value,
            (Kind::Integer, Value::Integer(number)) if self.takes(number) => Value::Integer(number),
            (_, value) => self.refuse(value, key, findings),
        }
    }

    fn takes(self, number: i64) -> bool {
        let (least, most) = self.range();
        least.is_none_or(|least| number >= least) && most.is_none_or(|most| number <= most)
    }

    fn settle_section(
        self,
        keys: &'static serde_json::Map<String, Json>,
        table: toml::Table,
        key: &str,
        findings: &mut Vec<Finding>,
    ) -> toml::Value {
        if let Some(Json::Array(required)) = self.get("required") {
            for name in required.iter().filter_map(Json::as_str).filter(|name| !table.contains_key(*name)) {
                let expected = keys.get(name).map_or_else(String::new, |json| Shape(json).expected());
                findings.push(Finding { key: join(key, name), message: format!("is missing: give {expected}") });
            }
        }
        let mut settled = toml::Table::new();
        for (name, value) in table {
            let below = join(key, &name);
            match keys.get(&name) {
                Some(json) => {
                    let value = Shape(json).settle(value, &below, findings);
                    settled.insert(name, value);
                }
                None => findings.push(Finding { message: unknown_key(&name, keys), key: below }),
            }
        }
        toml::Value::Table(settled)
    }

    fn refuse(self, value: toml::Value, key: &str, findings: &mut Vec<Finding>) -> toml::Value {
        let message = format!("{} does not fit here: give {}", described(&value), self.expected());
        findings.push(Finding { key: key.to_owned(), message });
        value
    }
}

/// `a.b`, or `b` at the root.
pub(super) fn join(above: &str, key: &str) -> String {
    if above.is_empty() { key.to_owned() } else { format!("{above}.{key}") }
}

/// Texts of a choice: bare ones, or those of documented members.
fn texts(choices: &'static Json) -> impl Iterator<Item = &'static str> {
    choices.as_array().into_iter().flatten().flat_map(|choice| {
        let documented = choice.get("const").and_then(Json::as_str).into_iter();
        let listed = choice.get("enum").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str);
        documented.chain(listed).chain(choice.as_str())
    })
}

/// Settings of librdkafka have dots in their names, which TOML reads as tables, and values that
/// TOML reads as numbers.
fn flatten(table: toml::Table, key: &str, findings: &mut Vec<Finding>) -> toml::Table {
    use toml::Value;
    let mut flat = toml::Table::new();
    for (name, value) in table {
        match value {
            Value::String(text) => drop(flat.insert(name, Value::String(text))),
            Value::Integer(number) => drop(flat.insert(name, Value::String(number.to_string()))),
            Value::Float(number) => drop(flat.insert(name, Value::String(number.to_string()))),
            Value::Boolean(yes) => drop(flat.insert(name, Value::String(yes.to_string()))),
            Value::Table(below) => {
                let below = flatten(below, &join(key, &name), findings);
                flat.extend(below.into_iter().map(|(rest, value)| (join(&name, &rest), value)));
            }
            value @ (Value::Datetime(_) | Value::Array(_)) => findings.push(Finding {
                key: join(key, &name),
                message: format!("{} does not fit here: give a text in quotes", described(&value)),
            }),
        }
    }
    flat
}

/// A value for a sentence. Long texts are left out: they may be a secret in the wrong place.
fn described(value: &toml::Value) -> String {
    use toml::Value;
    match value {
        Value::String(text) if text.chars().count() <= 32 => format!("{text:?}"),
        Value::String(_) => "this text".to_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(flag) => flag.to_string(),
        Value::Datetime(_) => "a date".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Table(_) => "a table".to_owned(),
    }
}

fn unknown_key(name: &str, keys: &serde_json::Map<String, Json>) -> String {
    let nearest = keys
        .keys()
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|(one, _), (other, _)| one.total_cmp(other));
    if let Some((_, known)) = nearest {
        return format!("there is no such key; did you mean {known:?}?");
    }
    let all: Vec<&str> = keys.keys().map(String::as_str).collect();
    format!("there is no such key here; there are {}", all.join(", "))
}
