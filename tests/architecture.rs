//! The dependency rule, read from the source: `domain` ← `ports` ← `roles` ← `app`; adapters
//! implement ports and know neither each other nor the roles; SQL, metric names, librdkafka and
//! the clock each have one home. Test modules may use whatever they need.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, and reads on past what it does not look for"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// One piece of source text that matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    /// `::`
    Path,
    Mark(char),
    Text(String),
}

/// Reads Rust source into words, marks and string literals; comments are left out.
fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        match rest {
            ['/', '/', ..] => at += rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
            ['/', '*', ..] => at += block_comment(rest),
            ['"', ..] => {
                let (text, length) = quoted(&rest[1..]);
                found.push(Token::Text(text));
                at += 1 + length;
            }
            ['r', '"' | '#', ..] if raw_string(&rest[1..]).is_some() && !follows_a_word(&chars, at) => {
                let (text, length) = raw_string(&rest[1..]).unwrap();
                found.push(Token::Text(text));
                at += 1 + length;
            }
            ['\'', '\\', ..] => at += 2 + rest[2..].iter().position(|c| *c == '\'').unwrap_or(0).max(1) + 1,
            ['\'', _, '\'', ..] => at += 3,
            [':', ':', ..] => {
                found.push(Token::Path);
                at += 2;
            }
            [c, ..] if c.is_alphanumeric() || *c == '_' => {
                let length = rest.iter().position(|c| !c.is_alphanumeric() && *c != '_').unwrap_or(rest.len());
                found.push(Token::Word(rest[..length].iter().collect()));
                at += length;
            }
            [c, ..] => {
                if !c.is_whitespace() {
                    found.push(Token::Mark(*c));
                }
                at += 1;
            }
            [] => break,
        }
    }
    found
}

fn follows_a_word(chars: &[char], at: usize) -> bool {
    at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_')
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] if depth == 1 => return at + 2,
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    at
}

fn quoted(rest: &[char]) -> (String, usize) {
    let (mut text, mut at) = (String::new(), 0);
    while at < rest.len() && rest[at] != '"' {
        let step = if rest[at] == '\\' { 2 } else { 1 };
        text.extend(&rest[at..(at + step).min(rest.len())]);
        at += step;
    }
    (text, at + 1)
}

/// The text of `#"…"#` (behind its `r`), and its length.
fn raw_string(rest: &[char]) -> Option<(String, usize)> {
    let hashes = rest.iter().take_while(|c| **c == '#').count();
    if rest.get(hashes) != Some(&'"') {
        return None;
    }
    let body = &rest[hashes + 1..];
    let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let end = body.windows(close.len()).position(|window| window == close)?;
    Some((body[..end].iter().collect(), hashes + 1 + end + close.len()))
}

/// Leaves out every item that stands behind `#[cfg(test)]`.
fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let word = |token: Option<&Token>, text: &str| matches!(token, Some(Token::Word(word)) if word == text);
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let is_test = tokens[at] == Token::Mark('#')
            && word(tokens.get(at + 2), "cfg")
            && word(tokens.get(at + 4), "test")
            && tokens.get(at + 5) == Some(&Token::Mark(')'));
        if !is_test {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        // To the end of the item: its block, or its semicolon.
        let mut depth = 0;
        at += 7;
        while at < tokens.len() {
            let token = &tokens[at];
            at += 1;
            match token {
                Token::Mark('{') => depth += 1,
                Token::Mark('}') if depth == 1 => break,
                Token::Mark('}') => depth -= 1,
                Token::Mark(';') if depth == 0 => break,
                _ => {}
            }
        }
    }
    kept
}

/// What a file reaches for: modules of this crate, and the first segments of all other paths.
#[derive(Debug, Default)]
struct Uses {
    modules: BTreeSet<String>,
    roots: BTreeSet<String>,
    pairs: BTreeSet<(String, String)>,
    texts: Vec<String>,
}

/// `depth` is how many `super` lead from the file to the crate's root.
fn uses(tokens: &[Token], depth: usize) -> Uses {
    let mut uses = Uses::default();
    for (at, token) in tokens.iter().enumerate() {
        if let Token::Text(text) = token {
            uses.texts.push(text.clone());
        }
        let Token::Word(word) = token else { continue };
        let Some(Token::Path) = tokens.get(at + 1) else { continue };
        if let Some(Token::Word(next)) = tokens.get(at + 2) {
            uses.pairs.insert((word.clone(), next.clone()));
        }
        if at > 0 && tokens[at - 1] == Token::Path {
            continue;
        }
        let supers = tokens[at..]
            .chunks(2)
            .take_while(|pair| matches!(pair, [Token::Word(w), Token::Path] if w == "super"))
            .count();
        if word == "crate" || (word == "super" && supers >= depth) {
            let first = if word == "crate" { at + 2 } else { at + 2 * supers };
            uses.modules.extend(first_segments(&tokens[first..]));
        } else if !matches!(word.as_str(), "super" | "self" | "Self") {
            uses.roots.insert(word.clone());
        }
    }
    uses
}

/// `domain` of `domain::X`, or both of `{domain::X, ports::{Y}}`.
fn first_segments(tokens: &[Token]) -> Vec<String> {
    match tokens {
        [Token::Word(word), ..] => vec![word.clone()],
        [Token::Mark('{'), rest @ ..] => {
            let (mut depth, mut expected, mut found) = (1, true, Vec::new());
            for token in rest {
                match token {
                    Token::Mark('{') => depth += 1,
                    Token::Mark('}') if depth == 1 => break,
                    Token::Mark('}') => depth -= 1,
                    Token::Mark(',') if depth == 1 => expected = true,
                    Token::Word(word) if expected => {
                        found.push(word.clone());
                        expected = false;
                    }
                    _ => {}
                }
            }
            found
        }
        _ => Vec::new(),
    }
}

/// The crate's dependencies as they are written in paths.
fn dependencies() -> BTreeSet<String> {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let section = manifest.split("\n[dependencies]\n").nth(1).unwrap().split("\n[").next().unwrap().to_owned();
    let names = section.lines().filter_map(|line| line.split_once(" =")).map(|(name, _)| name.trim().replace('-', "_"));
    names.collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

const PURE: [&str; 10] =
    ["bytes", "serde", "serde_json", "chrono", "uuid", "phonenumber", "hmac", "sha2", "base64", "schemars"];
const ADAPTERS: [&str; 5] = ["kafka", "store", "providers", "callbacks", "console"];
/// The composition: may reach for everything.
const COMPOSITION: [&str; 3] = ["app", "cli", "main"];

/// What is wrong with one file, given its path below `src`.
fn violations(path: &Path, source: &str, dependencies: &BTreeSet<String>) -> Vec<String> {
    let segments: Vec<String> =
        path.with_extension("").iter().map(|segment| segment.to_string_lossy().into_owned()).collect();
    let module = segments[0].as_str();
    if segments.iter().any(|segment| segment == "tests" || segment == "testing") {
        return Vec::new();
    }
    let depth = segments.iter().filter(|segment| *segment != "mod").count();
    let uses = uses(&without_tests(&tokens(source)), depth);
    let mut found = Vec::new();
    let mut say = |what: String| found.push(format!("src/{}: {what}", path.display()));

    let allowed_modules: Option<&[&str]> = match module {
        // The faults are nothing but names, where no test arms them.
        "domain" => Some(&["domain", "faults"]),
        "ports" => Some(&["domain", "ports"]),
        "roles" => Some(&["domain", "ports", "metrics", "faults", "roles"]),
        "metrics" => Some(&["domain", "faults", "ports", "metrics"]),
        "clock" => Some(&["domain", "ports", "clock"]),
        "config" => Some(&["domain", "ports", "config"]),
        _ => None,
    };
    for used in &uses.modules {
        if allowed_modules.is_some_and(|allowed| !allowed.contains(&used.as_str())) {
            say(format!("{module} must not know {used}"));
        }
        let closed_to_adapters = ADAPTERS.contains(&used.as_str()) || ["roles", "app", "cli"].contains(&used.as_str());
        if ADAPTERS.contains(&module) && used != module && closed_to_adapters {
            say(format!("the adapter {module} must not know {used}"));
        }
        if !COMPOSITION.contains(&module) && ["app", "cli"].contains(&used.as_str()) && used != module {
            say(format!("{module} must not know the composition ({used})"));
        }
    }
    for used in uses.roots.intersection(dependencies).map(String::as_str) {
        if module == "domain" && used != "thiserror" && !PURE.contains(&used) {
            say(format!("domain is pure: it must not use {used}"));
        }
        let home = match used {
            "sqlx" => "store",
            "rdkafka" => "kafka",
            "metrics" | "metrics_exporter_prometheus" | "metrics_process" => "metrics",
            _ => continue,
        };
        if module != home && !(module != "metrics" && uses_own_metrics(used, source)) {
            say(format!("{used} belongs into {home}"));
        }
    }
    if module != "store" && uses.texts.iter().any(|text| is_sql(text)) {
        say("SQL belongs into store".to_owned());
    }
    for (kind, name) in [("Utc", "now"), ("Local", "now"), ("SystemTime", "now")] {
        if module != "clock" && uses.pairs.contains(&(kind.to_owned(), name.to_owned())) {
            say(format!("{kind}::{name} belongs into clock.rs: ask ports::Clock"));
        }
    }
    found
}

/// `metrics::X` behind `use crate::metrics;` is the module, not the library.
fn uses_own_metrics(used: &str, source: &str) -> bool {
    let imported = source.lines().any(|line| {
        let line = line.trim();
        line.starts_with("use crate::") && (line.ends_with("::metrics;") || line.contains("metrics::{self"))
    });
    let macros = ["counter!", "gauge!", "histogram!"].iter().any(|name| source.contains(&format!("metrics::{name}")));
    used == "metrics" && imported && !macros
}

fn is_sql(text: &str) -> bool {
    let words: Vec<String> = text.split_whitespace().take(4).map(str::to_ascii_uppercase).collect();
    let at = |index: usize| words.get(index).map_or("", String::as_str);
    let upper = text.to_ascii_uppercase();
    match at(0) {
        "SELECT" => upper.contains(" FROM ") || upper.contains("\nFROM ") || words.len() < 4,
        "INSERT" => at(1) == "INTO",
        "DELETE" => at(1) == "FROM",
        "UPDATE" => upper.contains(" SET "),
        "WITH" => upper.contains("SELECT"),
        _ => false,
    }
}

fn sources(folder: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.insert(path.strip_prefix(root().join("src")).unwrap().to_owned(), text);
        }
    }
}

#[test]
fn every_module_keeps_to_its_place() {
    let dependencies = dependencies();
    assert!(dependencies.contains("rdkafka") && dependencies.contains("sqlx"), "{dependencies:?}");
    let mut all = BTreeMap::new();
    sources(&root().join("src"), &mut all);
    assert!(all.len() > 20, "the sources were not found");
    let found: Vec<String> = all.iter().flat_map(|(path, text)| violations(path, text, &dependencies)).collect();
    assert!(found.is_empty(), "{found:#?}");
}

/// Violations, and what must be said of each: a check that cannot fail checks nothing.
const PLANTED: [(&str, &str, &str); 20] = [
    ("domain/order.rs", "use crate::ports::Clock;", "domain must not know ports"),
    ("domain/order.rs", "use super::super::store::Row;", "domain must not know store"),
    ("domain/order.rs", "fn f() { tokio::spawn(async {}); }", "domain is pure: it must not use tokio"),
    ("domain/order.rs", "use tracing::info;", "domain is pure: it must not use tracing"),
    ("ports/subscription.rs", "use crate::{domain::Order, kafka::Consumer};", "ports must not know kafka"),
    ("roles/intake.rs", "use crate::store::postgres::Postgres;", "roles must not know store"),
    (
        "roles/intake.rs",
        "use crate::{\n    domain::{Order, State},\n    config::Config,\n};",
        "roles must not know config",
    ),
    ("roles/mod.rs", "use super::providers::Simulated;", "roles must not know providers"),
    ("kafka/consumer.rs", "use crate::store::Store;", "the adapter kafka must not know store"),
    ("store/postgres/mod.rs", "use super::super::roles::Relay;", "the adapter store must not know roles"),
    ("providers/mod.rs", "use crate::cli::Output;", "the adapter providers must not know cli"),
    ("callbacks.rs", "use crate::roles::callback::Door;", "the adapter callbacks must not know roles"),
    ("lifecycle.rs", "use crate::app::App;", "lifecycle must not know the composition (app)"),
    ("cli/orders.rs", "let rows = sqlx::query(text);", "sqlx belongs into store"),
    ("cli/orders.rs", "let text = r#\"SELECT order_id FROM orders\"#;", "SQL belongs into store"),
    ("cli/orders.rs", "let text = \"update orders set state = 'x'\";", "SQL belongs into store"),
    ("roles/relay.rs", "metrics::counter!(\"x\").increment(1);", "metrics belongs into metrics"),
    ("app.rs", "use rdkafka::ClientConfig;", "rdkafka belongs into kafka"),
    ("roles/delay.rs", "let now = chrono::Utc::now();", "Utc::now belongs into clock.rs"),
    ("store/row.rs", "let now = std::time::SystemTime::now();", "SystemTime::now belongs into clock.rs"),
];

/// What is right, and looks like one of the above.
const INNOCENT: [(&str, &str); 10] = [
    ("domain/order.rs", "// use crate::ports::Clock;\n/* tokio::spawn */ /// [`crate::store`]"),
    ("domain/order.rs", "use super::state::State; use crate::domain::ids::OrderId; use thiserror::Error;"),
    ("domain/decide/mod.rs", "use super::super::domain::Order; use super::state::State;"),
    ("domain/order.rs", "#[cfg(test)]\nmod tests { use proptest::prelude::*; use crate::ports::Clock; }"),
    ("domain/decide/tests/claims.rs", "use crate::ports::Clock; use tokio::time;"),
    ("roles/intake.rs", "use crate::metrics::IntakeMetrics; use crate::ports::{OrderStore, Clock};"),
    (
        "roles/intake.rs",
        "use crate::{metrics};\nuse crate::metrics;\nfn f() { metrics::dead_letter(\"t\", \"r\", 1); }",
    ),
    ("cli/mod.rs", "let help = \"Select an order, or update the set of routes\"; use crate::app::App;"),
    ("store/mod.rs", "let text = \"SELECT 1\"; sqlx::query(text);"),
    ("clock.rs", "let now = chrono::Utc::now();"),
];

#[test]
fn the_check_finds_planted_violations_and_nothing_else() {
    let dependencies = dependencies();
    for (path, source, expected) in PLANTED {
        let found = violations(Path::new(path), source, &dependencies);
        assert!(found.iter().any(|line| line.contains(expected)), "{source:?} in {path}: {found:?}");
    }
    for (path, source) in INNOCENT {
        assert_eq!(violations(Path::new(path), source, &dependencies), Vec::<String>::new(), "{source:?} in {path}");
    }
}

/// What `scripts/bench line` compares with, which nothing else runs.
#[path = "../benches/line/ceiling/statements.rs"]
mod ceiling;

#[test]
fn the_bare_program_of_the_bench_sends_what_the_store_s_statements_take() {
    ceiling::check().unwrap();
}

#[test]
fn strings_and_comments_do_not_confuse_the_reader() {
    let word = |text: &str| Token::Word(text.to_owned());
    assert_eq!(tokens("a /* b /* c */ d */ e // f\ng"), [word("a"), word("e"), word("g")]);
    assert_eq!(tokens(r##"x r#"a "q" b"# y"##), [word("x"), Token::Text("a \"q\" b".to_owned()), word("y")]);
    assert_eq!(tokens(r#"'"' '\'' 'a' z"#), [word("z")]);
    assert_eq!(tokens("&'a str")[2..], [word("a"), word("str")]);
    assert_eq!(tokens(r#""a\"b" c"#), [Token::Text("a\\\"b".to_owned()), word("c")]);
}
